//! Other devices. All that a program sees are one GPU, so both ends of every copy between devices are there; none is its own peer.

use super::argument::{In, Out};
use super::copy::{Copy3D, LEGACY, PER_THREAD, copy, copy_strided};
use super::device::ordinal;
use super::{cuda_functions, stream_functions};
use crate::core::{Context, CudaResult, Direction, StreamHandle, client, contexts, peers};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

fn copy_between(
    (destination, destination_context): (u64, *mut c_void),
    (source, source_context): (u64, *mut c_void),
    bytes: usize,
    stream: StreamHandle,
    waits: bool,
) -> CudaResult<()> {
    client()?;
    contexts::find(destination_context)?;
    contexts::find(source_context)?;
    copy(destination, source, bytes, Direction::OnDevice, stream, waits)
}

fn copy_box_between(description: In<Copy3D>, stream: StreamHandle, waits: bool) -> CudaResult<()> {
    client()?;
    let copied = description.get()?;
    for context in copied.contexts() {
        contexts::find(context)?;
    }
    copy_strided(copied, stream, waits)
}

/// The current context, and that of a peer, which it is not.
fn pair(peer: *mut c_void) -> CudaResult<(&'static Context, &'static Context)> {
    client()?;
    contexts::require()?;
    if peer.is_null() || peer == contexts::current() {
        return Err(CudaError::INVALID_CONTEXT);
    }
    Ok((contexts::find(std::ptr::null_mut())?, contexts::find(peer)?))
}

/// `cuDeviceCanAccessPeer`, `cudaDeviceCanAccessPeer`
pub(crate) fn can_access(device: i32, peer: i32) -> CudaResult<i32> {
    Ok((ordinal(device)? != ordinal(peer)?).into())
}

/// `cuDeviceGetP2PAttribute`, `cudaDeviceGetP2PAttribute`. The driver looks at the place for the value, then at the devices, then at the
/// attribute.
pub(crate) fn put_attribute(value: Out<i32>, attribute: i32, device: i32, peer: i32) -> CudaResult<()> {
    if value.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    value.put(peers::attribute(attribute, ordinal(device)?, ordinal(peer)?)?)
}

stream_functions! {
    fn cuMemcpyPeerAsync / cuMemcpyPeerAsync_ptsz(
        destination: u64, destination_context: *mut c_void, source: u64, source_context: *mut c_void, bytes: usize,
        @ stream,
    ) {
        copy_between((destination, destination_context), (source, source_context), bytes, stream, false)
    }

    fn cuMemcpy3DPeerAsync / cuMemcpy3DPeerAsync_ptsz(description: In<Copy3D>, @ stream) {
        copy_box_between(description, stream, false)
    }
}

cuda_functions! {
    fn cuMemcpyPeer(
        destination: u64, destination_context: *mut c_void, source: u64, source_context: *mut c_void, bytes: usize,
    ) {
        copy_between((destination, destination_context), (source, source_context), bytes, LEGACY, true)
    }

    fn cuMemcpyPeer_ptds(
        destination: u64, destination_context: *mut c_void, source: u64, source_context: *mut c_void, bytes: usize,
    ) {
        copy_between((destination, destination_context), (source, source_context), bytes, PER_THREAD, true)
    }

    fn cuMemcpy3DPeer(description: In<Copy3D>) {
        copy_box_between(description, LEGACY, true)
    }

    fn cuMemcpy3DPeer_ptds(description: In<Copy3D>) {
        copy_box_between(description, PER_THREAD, true)
    }

    fn cuDeviceCanAccessPeer(can: Out<i32>, device: i32, peer: i32) {
        can.put(can_access(device, peer)?)
    }

    fn cuDeviceGetP2PAttribute(value: Out<i32>, attribute: i32, device: i32, peer: i32) {
        client()?;
        put_attribute(value, attribute, device, peer)
    }

    fn cuCtxEnablePeerAccess(peer: *mut c_void, flags: u32) {
        let (own, peer) = pair(peer)?;
        if flags == 0 { own.enable_peer(peer) } else { Err(CudaError::INVALID_VALUE) }
    }

    fn cuCtxDisablePeerAccess(peer: *mut c_void) {
        let (own, peer) = pair(peer)?;
        own.disable_peer(peer)
    }
}
