//! Managed memory: allocating it, and which stream it belongs to.

use super::argument::Out;
use super::{cuda_functions, stream_functions};
use crate::core::{client, contexts};
use torpor_proto::error::CudaError;

cuda_functions! {
    fn cuMemAllocManaged(address: Out<u64>, bytes: usize, flags: u32) {
        let client = client()?;
        contexts::require()?;
        if address.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        address.put(client.allocate_managed(bytes as u64, flags)?)
    }
}

stream_functions! {
    fn cuStreamAttachMemAsync / cuStreamAttachMemAsync_ptsz(@ stream, address: u64, bytes: usize, flags: u32) {
        client()?.attach(address, bytes as u64, flags, stream.find()?)
    }
}
