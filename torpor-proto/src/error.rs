//! CUDA error codes as they travel: an integer newtype, because a code from outside may be any number.

use std::fmt;

/// A `CUresult` other than success. Source of the numbers: `cuda.h`, enum `cudaError_enum`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct CudaError(pub u32);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl CudaError {
            $($(#[$doc])* #[doc = concat!("`CUDA_ERROR_", stringify!($name), "`")] pub const $name: Self = Self($code);)*

            /// The name in `cuda.h`, if it is one of those that Torpor itself gives.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(concat!("CUDA_ERROR_", stringify!($name))),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    INVALID_VALUE = 1;
    OUT_OF_MEMORY = 2;
    NOT_INITIALIZED = 3;
    DEINITIALIZED = 4;
    DEVICE_UNAVAILABLE = 46;
    NO_DEVICE = 100;
    INVALID_DEVICE = 101;
    INVALID_IMAGE = 200;
    INVALID_CONTEXT = 201;
    MAP_FAILED = 205;
    NO_BINARY_FOR_GPU = 209;
    UNSUPPORTED_LIMIT = 215;
    INVALID_PTX = 218;
    INVALID_SOURCE = 300;
    FILE_NOT_FOUND = 301;
    OPERATING_SYSTEM = 304;
    INVALID_HANDLE = 400;
    ILLEGAL_STATE = 401;
    NOT_FOUND = 500;
    NOT_READY = 600;
    ILLEGAL_ADDRESS = 700;
    LAUNCH_OUT_OF_RESOURCES = 701;
    LAUNCH_TIMEOUT = 702;
    PRIMARY_CONTEXT_ACTIVE = 708;
    CONTEXT_IS_DESTROYED = 709;
    ASSERT = 710;
    HOST_MEMORY_ALREADY_REGISTERED = 712;
    HOST_MEMORY_NOT_REGISTERED = 713;
    LAUNCH_FAILED = 719;
    NOT_PERMITTED = 800;
    NOT_SUPPORTED = 801;
    SYSTEM_NOT_READY = 802;
    INVALID_CLUSTER_SIZE = 912;
    INVALID_RESOURCE_TYPE = 914;
    INVALID_RESOURCE_CONFIGURATION = 915;
    STREAM_CAPTURE_UNSUPPORTED = 900;
    STREAM_CAPTURE_INVALIDATED = 901;
    STREAM_CAPTURE_UNMATCHED = 903;
    STREAM_CAPTURE_UNJOINED = 904;
    STREAM_CAPTURE_ISOLATION = 905;
    STREAM_CAPTURE_IMPLICIT = 906;
    CAPTURED_EVENT = 907;
    STREAM_CAPTURE_WRONG_THREAD = 908;
    UNKNOWN = 999;
}

impl CudaError {
    /// Nothing for 0 (`CUDA_SUCCESS`), the error otherwise.
    ///
    /// # Errors
    /// The code, if it is not success.
    pub fn check(code: u32) -> Result<(), Self> {
        if code == 0 { Ok(()) } else { Err(Self(code)) }
    }

    /// Whether a context that gave this error gives it for ever. Source: the remarks of the codes in `cuda.h`
    /// ("the context cannot be used … must be destroyed" / "to continue using CUDA, the process must be terminated").
    #[must_use]
    pub fn is_sticky(self) -> bool {
        matches!(self.0, 46 | 214 | 220 | 226 | 700 | 702 | 710 | 714..=719 | 721)
    }
}

impl fmt::Debug for CudaError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Display for CudaError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(formatter, "{name} ({})", self.0),
            None => write!(formatter, "CUDA error {}", self.0),
        }
    }
}

impl std::error::Error for CudaError {}
