//! Other devices. All that a program sees are one GPU, so both ends of every copy between devices are there; none is its own peer.

use super::copy::{Extent, Kind, PitchedPointer, copy};
use super::strided::{Boxes, Position, copy_boxes};
use super::{
    default_stream_functions, device, initialized, ordinal, ready, runtime_functions, stream_functions,
};
use crate::core::{Context, CudaResult, StreamHandle, devices};
use crate::driver::argument::{In, Out};
use crate::driver::peer::{can_access, put_attribute};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

const LEGACY: StreamHandle = StreamHandle { handle: std::ptr::null_mut(), per_thread: false };
const ON_DEVICE: Kind = Kind(Kind::DEVICE_TO_DEVICE);

/// `cudaMemcpy3DPeerParms` (driver_types.h).
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct PeerCopy3D {
    source_array: usize,
    source_position: Position,
    source: PitchedPointer,
    source_device: i32,
    destination_array: usize,
    destination_position: Position,
    destination: PitchedPointer,
    destination_device: i32,
    extent: Extent,
}

const _: () = assert!(size_of::<PeerCopy3D>() == 168);

/// The contexts of the current device and of another one.
fn pair(peer: i32) -> CudaResult<(&'static Context, &'static Context)> {
    initialized()?;
    let peer = ordinal(peer)?;
    if peer == devices::current() {
        return Err(CudaError::INVALID_DEVICE);
    }
    ready()?;
    Ok((Context::primary(devices::current()), Context::primary(peer)))
}

fn copy_between(description: In<PeerCopy3D>, stream: StreamHandle, waits: bool) -> CudaResult<()> {
    let copied = description.get()?;
    device(copied.source_device)?;
    device(copied.destination_device)?;
    if copied.source_array != 0 || copied.destination_array != 0 {
        return Err(CudaError::NOT_SUPPORTED);
    }
    let boxes = Boxes {
        source: (copied.source, copied.source_position),
        destination: (copied.destination, copied.destination_position),
        extent: copied.extent,
    };
    copy_boxes(&boxes, ON_DEVICE, stream, waits)
}

runtime_functions! {
    fn cudaMemcpyPeerAsync(
        destination: u64, destination_device: i32, source: u64, source_device: i32, bytes: usize, stream: *mut c_void,
    ) {
        device(destination_device)?;
        device(source_device)?;
        let stream = StreamHandle { handle: stream, per_thread: false };
        copy(destination, source, bytes, ON_DEVICE, stream, false)
    }

    fn cudaMemcpyPeer(destination: u64, destination_device: i32, source: u64, source_device: i32, bytes: usize) {
        device(destination_device)?;
        device(source_device)?;
        copy(destination, source, bytes, ON_DEVICE, LEGACY, true)
    }

    fn cudaDeviceCanAccessPeer(can: Out<i32>, device: i32, peer: i32) {
        initialized()?;
        can.put(can_access(device, peer)?)
    }

    fn cudaDeviceEnablePeerAccess(peer: i32, flags: u32) {
        let (own, peer) = pair(peer)?;
        if flags == 0 { own.enable_peer(peer) } else { Err(CudaError::INVALID_VALUE) }
    }

    fn cudaDeviceDisablePeerAccess(peer: i32) {
        let (own, peer) = pair(peer)?;
        own.disable_peer(peer)
    }

    fn cudaDeviceGetP2PAttribute(value: Out<i32>, attribute: i32, device: i32, peer: i32) {
        initialized()?;
        put_attribute(value, attribute, device, peer)
    }
}

default_stream_functions! {
    fn cudaMemcpy3DPeer / cudaMemcpy3DPeer_ptds(description: In<PeerCopy3D>) on stream {
        copy_between(description, stream, true)
    }
}

stream_functions! {
    fn cudaMemcpy3DPeerAsync / cudaMemcpy3DPeerAsync_ptsz(description: In<PeerCopy3D>, @ stream) {
        copy_between(description, stream, false)
    }
}
