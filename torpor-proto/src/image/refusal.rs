//! Why code gives no cubin, as a driver and its compiler say it.

use crate::error::CudaError;

/// Why code gives no cubin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What the program is told.
    pub error: CudaError,
    /// What the compiler says of errors in the code, for people: at most [`Self::MOST_BYTES`], maybe nothing.
    pub said: Vec<u8>,
}

impl Refusal {
    /// More than that is not said.
    pub const MOST_BYTES: usize = 4096;
}

impl From<CudaError> for Refusal {
    fn from(error: CudaError) -> Self {
        Self { error, said: Vec::new() }
    }
}
