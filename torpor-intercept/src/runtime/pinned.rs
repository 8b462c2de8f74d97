//! Page-locked host memory. `cudaHostAlloc` and `cudaHostRegister` have the driver's flags.

use super::{ready, runtime_functions};
use crate::core::CudaResult;
use crate::driver::argument::Out;
use crate::driver::pinned::{DEVICE_MAP, IO_MEMORY};
use torpor_proto::error::CudaError;

fn allocate(address: Out<u64>, bytes: usize, flags: u32) -> CudaResult<()> {
    let client = ready()?;
    if address.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    // No bytes are no error in the runtime, and no memory.
    address.put(if bytes == 0 { 0 } else { client.allocate_pinned(bytes as u64, flags | DEVICE_MAP)? })
}

runtime_functions! {
    fn cudaHostAlloc(address: Out<u64>, bytes: usize, flags: u32) {
        allocate(address, bytes, flags)
    }

    fn cudaMallocHost(address: Out<u64>, bytes: usize) {
        allocate(address, bytes, 0)
    }

    fn cudaFreeHost(address: u64) {
        let client = ready()?;
        if address == 0 { Ok(()) } else { client.free_pinned(address) }
    }

    fn cudaHostRegister(address: u64, bytes: usize, flags: u32) {
        let client = ready()?;
        if flags & IO_MEMORY != 0 {
            return Err(CudaError::NOT_SUPPORTED);
        }
        client.register(address, bytes as u64, flags | DEVICE_MAP)
    }

    fn cudaHostUnregister(address: u64) {
        ready()?.unregister(address)
    }

    fn cudaHostGetDevicePointer(device_address: Out<u64>, address: u64, flags: u32) {
        let client = ready()?;
        if flags != 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        device_address.put(client.device_address_of_host(address)?)
    }

    fn cudaHostGetFlags(flags: Out<u32>, address: u64) {
        let client = ready()?;
        match client.registered_flags(address) {
            Some(registered) => flags.put(registered),
            None => flags.put(client.pinned_flags(address)?),
        }
    }
}
