//! Other devices. There are none: both ends of every copy between devices are the same one, which is not its own peer.

use super::argument::{In, Out};
use super::copy::{Copy3D, LEGACY, PER_THREAD, copy, copy_strided};
use super::device::device;
use super::{cuda_functions, stream_functions};
use crate::core::{CudaResult, Direction, StreamHandle, client, contexts};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

/// `CUDA_ERROR_PEER_ACCESS_NOT_ENABLED`
const PEER_ACCESS_NOT_ENABLED: CudaError = CudaError(705);

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

/// The context of a peer, which the current one is not.
fn check_peer(peer: *mut c_void) -> CudaResult<()> {
    client()?;
    contexts::require()?;
    if peer.is_null() || peer == contexts::current() {
        return Err(CudaError::INVALID_CONTEXT);
    }
    contexts::find(peer).map(drop)
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
    /// Not awaited, as copies within the device are not (cuda.h, "API synchronization behavior").
    fn cuMemcpyPeer(
        destination: u64, destination_context: *mut c_void, source: u64, source_context: *mut c_void, bytes: usize,
    ) {
        copy_between((destination, destination_context), (source, source_context), bytes, LEGACY, false)
    }

    fn cuMemcpyPeer_ptds(
        destination: u64, destination_context: *mut c_void, source: u64, source_context: *mut c_void, bytes: usize,
    ) {
        copy_between((destination, destination_context), (source, source_context), bytes, PER_THREAD, false)
    }

    fn cuMemcpy3DPeer(description: In<Copy3D>) {
        copy_box_between(description, LEGACY, true)
    }

    fn cuMemcpy3DPeer_ptds(description: In<Copy3D>) {
        copy_box_between(description, PER_THREAD, true)
    }

    fn cuDeviceCanAccessPeer(can: Out<i32>, device: i32, peer: i32) {
        self::device(device)?;
        self::device(peer)?;
        can.put(0)
    }

    /// The driver looks at the place for the value, then at the devices, then at the attribute.
    fn cuDeviceGetP2PAttribute(value: Out<i32>, _attribute: i32, _device: i32, _peer: i32) {
        client()?;
        if value.is_null() { Err(CudaError::INVALID_VALUE) } else { Err(CudaError::INVALID_DEVICE) }
    }

    fn cuCtxEnablePeerAccess(peer: *mut c_void, flags: u32) {
        check_peer(peer)?;
        if flags == 0 { Err(CudaError::INVALID_DEVICE) } else { Err(CudaError::INVALID_VALUE) }
    }

    fn cuCtxDisablePeerAccess(peer: *mut c_void) {
        check_peer(peer)?;
        Err(PEER_ACCESS_NOT_ENABLED)
    }
}
