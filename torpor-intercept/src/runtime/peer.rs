//! Other devices. There are none: both ends of every copy between devices are the same one, which is not its own peer.

use super::copy::{Extent, Kind, PitchedPointer, copy};
use super::strided::{Boxes, Position, copy_boxes};
use super::{default_stream_functions, device, initialized, runtime_functions, stream_functions};
use crate::core::{CudaResult, StreamHandle};
use crate::driver::argument::{In, Out};
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
        copy(destination, source, bytes, ON_DEVICE, LEGACY, false)
    }

    fn cudaDeviceCanAccessPeer(can: Out<i32>, device: i32, peer: i32) {
        self::device(device)?;
        self::device(peer)?;
        can.put(0)
    }

    fn cudaDeviceEnablePeerAccess(_peer: i32, _flags: u32) {
        initialized()?;
        Err(CudaError::INVALID_DEVICE)
    }

    fn cudaDeviceDisablePeerAccess(_peer: i32) {
        initialized()?;
        Err(CudaError::INVALID_DEVICE)
    }

    fn cudaDeviceGetP2PAttribute(value: Out<i32>, _attribute: i32, _device: i32, _peer: i32) {
        initialized()?;
        if value.is_null() { Err(CudaError::INVALID_VALUE) } else { Err(CudaError::INVALID_DEVICE) }
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
