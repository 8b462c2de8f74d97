//! Page-locked host memory.

use super::argument::Out;
use super::cuda_functions;
use crate::core::{client, contexts};
use torpor_proto::error::CudaError;

/// `CU_MEMHOSTALLOC_DEVICEMAP`: pinned memory is always mapped.
pub(crate) const DEVICE_MAP: u32 = 2;

/// `CU_MEMHOSTREGISTER_IOMEMORY`: memory of another device cannot be shared.
pub(crate) const IO_MEMORY: u32 = 4;

cuda_functions! {
    fn cuMemHostAlloc(address: Out<u64>, bytes: usize, flags: u32) {
        let client = client()?;
        contexts::require()?;
        if address.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        address.put(client.allocate_pinned(bytes as u64, flags | DEVICE_MAP)?)
    }

    fn cuMemAllocHost_v2(address: Out<u64>, bytes: usize) {
        let client = client()?;
        contexts::require()?;
        if address.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        address.put(client.allocate_pinned(bytes as u64, DEVICE_MAP)?)
    }

    fn cuMemFreeHost(address: u64) {
        client()?.free_pinned(address)
    }

    fn cuMemHostRegister_v2(address: u64, bytes: usize, flags: u32) {
        let client = client()?;
        if flags & IO_MEMORY != 0 {
            return Err(CudaError::NOT_SUPPORTED);
        }
        client.register(address, bytes as u64, flags | DEVICE_MAP)
    }

    fn cuMemHostUnregister(address: u64) {
        client()?.unregister(address)
    }

    fn cuMemHostGetDevicePointer_v2(device_address: Out<u64>, address: u64, flags: u32) {
        let client = client()?;
        if flags != 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        device_address.put(client.device_address_of_host(address)?)
    }

    fn cuMemHostGetFlags(flags: Out<u32>, address: u64) {
        let client = client()?;
        match client.registered_flags(address) {
            Some(registered) => flags.put(registered),
            None => flags.put(client.pinned_flags(address)?),
        }
    }
}
