//! `CUptiResult` (cupti_result.h of CUDA 13.0).

use crate::core::is_forked_child;
use crate::driver::argument::Out;
use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a function gives.
pub(super) type CuptiResult = Result<(), CuptiError>;

/// The errors that functions here give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum CuptiError {
    InvalidParameter = 1,
    MaxLimitReached = 12,
    NotInitialized = 15,
    QueueEmpty = 18,
    InvalidKind = 21,
    NotSupported = 27,
    MultipleSubscribersNotSupported = 39,
    Unknown = 999,
}

/// Runs the body of a C function. A panic, which would be a bug, becomes `CUPTI_ERROR_UNKNOWN`; in a forked child there is no CUDA,
/// and locks may be held by threads that are not there.
pub(super) fn answer(body: impl FnOnce() -> CuptiResult) -> u32 {
    if is_forked_child() {
        return CuptiError::NotInitialized as u32;
    }
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or(Err(CuptiError::Unknown));
    outcome.map_or_else(|error| error as u32, |()| 0)
}

/// Results with their names, sorted; those of events and metrics, which are gone from CUDA 13's devices, are not among them.
const NAMES: [(u32, &CStr); 24] = [
    (0, c"CUPTI_SUCCESS"),
    (1, c"CUPTI_ERROR_INVALID_PARAMETER"),
    (2, c"CUPTI_ERROR_INVALID_DEVICE"),
    (3, c"CUPTI_ERROR_INVALID_CONTEXT"),
    (7, c"CUPTI_ERROR_INVALID_OPERATION"),
    (8, c"CUPTI_ERROR_OUT_OF_MEMORY"),
    (9, c"CUPTI_ERROR_HARDWARE"),
    (10, c"CUPTI_ERROR_PARAMETER_SIZE_NOT_SUFFICIENT"),
    (11, c"CUPTI_ERROR_API_NOT_IMPLEMENTED"),
    (12, c"CUPTI_ERROR_MAX_LIMIT_REACHED"),
    (13, c"CUPTI_ERROR_NOT_READY"),
    (14, c"CUPTI_ERROR_NOT_COMPATIBLE"),
    (15, c"CUPTI_ERROR_NOT_INITIALIZED"),
    (18, c"CUPTI_ERROR_QUEUE_EMPTY"),
    (19, c"CUPTI_ERROR_INVALID_HANDLE"),
    (20, c"CUPTI_ERROR_INVALID_STREAM"),
    (21, c"CUPTI_ERROR_INVALID_KIND"),
    (23, c"CUPTI_ERROR_DISABLED"),
    (26, c"CUPTI_ERROR_HARDWARE_BUSY"),
    (27, c"CUPTI_ERROR_NOT_SUPPORTED"),
    (35, c"CUPTI_ERROR_INSUFFICIENT_PRIVILEGES"),
    (38, c"CUPTI_ERROR_LEGACY_PROFILER_NOT_SUPPORTED"),
    (39, c"CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED"),
    (999, c"CUPTI_ERROR_UNKNOWN"),
];

fn name(result: u32, text: Out<*const c_char>) -> CuptiResult {
    let at = NAMES.binary_search_by_key(&result, |&(number, _)| number);
    let (_, name) = NAMES[at.map_err(|_| CuptiError::InvalidParameter)?];
    text.put(name.as_ptr()).map_err(|_| CuptiError::InvalidParameter)
}

super::cupti_functions! {
    /// The name of a result.
    fn cuptiGetResultString(result: u32, text: Out<*const c_char>) {
        name(result, text)
    }

    /// The text of a result: its name, which says as much.
    fn cuptiGetErrorMessage(result: u32, text: Out<*const c_char>) {
        name(result, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_these_functions_has_a_name() {
        assert!(NAMES.is_sorted_by_key(|&(number, _)| number));
        let errors = [
            CuptiError::InvalidParameter,
            CuptiError::MaxLimitReached,
            CuptiError::NotInitialized,
            CuptiError::QueueEmpty,
            CuptiError::InvalidKind,
            CuptiError::NotSupported,
            CuptiError::MultipleSubscribersNotSupported,
            CuptiError::Unknown,
        ];
        for error in errors {
            assert!(NAMES.iter().any(|&(number, _)| number == error as u32), "{error:?}");
        }
    }
}
