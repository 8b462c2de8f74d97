//! Managed memory. The flags are the driver's.

use super::{ready, runtime_functions, stream_functions};
use crate::driver::argument::Out;
use torpor_proto::error::CudaError;

runtime_functions! {
    fn cudaMallocManaged(address: Out<u64>, bytes: usize, flags: u32) {
        let client = ready()?;
        if address.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        // No bytes are no error in the runtime, and no memory.
        address.put(if bytes == 0 { 0 } else { client.allocate_managed(bytes as u64, flags)? })
    }
}

stream_functions! {
    fn cudaStreamAttachMemAsync / cudaStreamAttachMemAsync_ptsz(@ stream, address: u64, bytes: usize, flags: u32) {
        ready()?.attach(address, bytes as u64, flags, stream.find()?)
    }
}
