//! Access of one device to the memory of another. They are one GPU, so it is always there; what a program switched on is remembered,
//! because it is told what it did twice.

use super::{Context, CudaResult};
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use torpor_proto::error::CudaError;

/// `CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED`
const ALREADY_ENABLED: CudaError = CudaError(704);
/// `CUDA_ERROR_PEER_ACCESS_NOT_ENABLED`
const NOT_ENABLED: CudaError = CudaError(705);

/// Which context, by its identity, was given access to which other.
static ENABLED: Mutex<Option<HashSet<(u64, u64)>>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<HashSet<(u64, u64)>>> {
    ENABLED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `CUdevice_P2PAttribute`: ranks of links are 0 for the best; access, atomics and arrays are as on one GPU.
///
/// # Errors
/// `INVALID_DEVICE` for a device and itself, `INVALID_VALUE` for an attribute that is none.
pub fn attribute(attribute: i32, device: u32, peer: u32) -> CudaResult<i32> {
    if device == peer {
        return Err(CudaError::INVALID_DEVICE);
    }
    match attribute {
        // CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK, …_ONLY_PARTIAL_NATIVE_ATOMIC_SUPPORTED
        1 | 5 => Ok(0),
        // …_ACCESS_SUPPORTED, …_NATIVE_ATOMIC_SUPPORTED, …_CUDA_ARRAY_ACCESS_SUPPORTED
        2..=4 => Ok(1),
        _ => Err(CudaError::INVALID_VALUE),
    }
}

impl Context {
    /// `cuCtxEnablePeerAccess`.
    ///
    /// # Errors
    /// `INVALID_DEVICE` for a context of the same device; 704 if it has access already.
    pub fn enable_peer(&self, peer: &Self) -> CudaResult<()> {
        if self.device() == peer.device() {
            return Err(CudaError::INVALID_DEVICE);
        }
        let is_new = lock().get_or_insert_default().insert((self.id(), peer.id()));
        if is_new { Ok(()) } else { Err(ALREADY_ENABLED) }
    }

    /// `cuCtxDisablePeerAccess`.
    ///
    /// # Errors
    /// 705 if it was not given access.
    pub fn disable_peer(&self, peer: &Self) -> CudaResult<()> {
        let was_enabled = lock().get_or_insert_default().remove(&(self.id(), peer.id()));
        if was_enabled { Ok(()) } else { Err(NOT_ENABLED) }
    }

    /// It is destroyed, or reset.
    pub fn forget_peers(&self) {
        if let Some(enabled) = lock().as_mut() {
            enabled.retain(|&(one, other)| one != self.id() && other != self.id());
        }
    }
}
