//! The numbers that a pool tells of itself (`CUmemPool_attribute`, cuda.h).

use crate::core::CudaResult;
use torpor_proto::error::CudaError;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// 1 to 3, a C int: when blocks are used again.
    Reuse(usize),
    /// 4: bytes that are kept over synchronisations.
    ReleaseThreshold,
    /// 5: bytes that the pool has.
    ReservedNow,
    /// 6: the most it had. May be set to 0.
    ReservedMost,
    /// 7: bytes that the program has of it.
    UsedNow,
    /// 8: the most it had. May be set to 0.
    UsedMost,
}

impl Attribute {
    /// `INVALID_VALUE` for one that is not known.
    pub fn of(code: i32) -> CudaResult<Self> {
        match code {
            1..=3 => Ok(Self::Reuse(code as usize - 1)),
            4 => Ok(Self::ReleaseThreshold),
            5 => Ok(Self::ReservedNow),
            6 => Ok(Self::ReservedMost),
            7 => Ok(Self::UsedNow),
            8 => Ok(Self::UsedMost),
            _ => Err(CudaError::INVALID_VALUE),
        }
    }
}
