//! CUPTI's functions, as far as profilers in the program need them, such as Kineto in `torch.profiler`.
//!
//! The real libcupti talks to a driver of NVIDIA's in this process, of which there is none, and says so with an error. A preloaded
//! library is searched first, and its unversioned definitions satisfy versioned references, so a program that is linked to
//! libcupti reaches these functions instead. What is not here it asks of the real library, as before; so does who opens that
//! library himself. See `docs/design/profiler.md`.
//!
//! Each call of the program gets a number (`call.rs`); the worker's times of what it posted come from `core/profile`; both become
//! records (`record.rs`) in the buffers of the program (`buffers.rs`).

mod activity;
mod buffers;
mod call;
mod callback_ids;
mod clock;
mod external;
mod record;
mod result;
mod subscriber;

pub(crate) use call::TracedCall;

/// Every name that is exported here.
pub const NAMES: [&str; 22] = [
    "cuptiActivityDisable",
    "cuptiActivityEnable",
    "cuptiActivityEnableCudaEventDeviceTimestamps",
    "cuptiActivityEnableDriverApi",
    "cuptiActivityEnableRuntimeApi",
    "cuptiActivityFlushAll",
    "cuptiActivityGetNextRecord",
    "cuptiActivityGetNumDroppedRecords",
    "cuptiActivityPopExternalCorrelationId",
    "cuptiActivityPushExternalCorrelationId",
    "cuptiActivityRegisterCallbacks",
    "cuptiActivityRegisterTimestampCallback",
    "cuptiActivitySetAttribute",
    "cuptiEnableCallback",
    "cuptiEnableDomain",
    "cuptiFinalize",
    "cuptiGetErrorMessage",
    "cuptiGetResultString",
    "cuptiGetTimestamp",
    "cuptiGetVersion",
    "cuptiSubscribe",
    "cuptiUnsubscribe",
];

/// `CUptiResult` functions: a body that gives a `CuptiResult`, behind exported names that let no panic out.
macro_rules! cupti_functions {
    ($($(#[$doc:meta])* fn $name:ident ($($argument:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As CUPTI's documentation of the function says.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> u32 {
            $crate::cupti::result::answer(|| $body)
        }
    )*};
}

use cupti_functions;
