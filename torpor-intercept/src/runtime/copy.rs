//! Copies and fills of linear memory.

use super::{INVALID_MEMCPY_DIRECTION, default_stream_functions, ready, stream_functions};
use crate::core::graph::Work;
use crate::core::{Client, CudaResult, Direction, StreamHandle, StridedCopy};
use torpor_proto::error::CudaError;

/// `cudaMemcpyKind`: which way a copy goes. Addresses say it too; both must agree.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Kind(pub(super) u32);

impl Kind {
    const HOST_TO_HOST: u32 = 0;
    const HOST_TO_DEVICE: u32 = 1;
    const DEVICE_TO_HOST: u32 = 2;
    pub(super) const DEVICE_TO_DEVICE: u32 = 3;
    const DEFAULT: u32 = 4;

    /// The kind that says nothing but what the addresses say.
    pub(super) fn of_addresses() -> Self {
        Self(Self::DEFAULT)
    }

    /// Which sides must be the device's.
    pub(super) fn direction(self) -> CudaResult<Direction> {
        match self.0 {
            Self::HOST_TO_HOST | Self::DEFAULT => Ok(Direction::Any),
            Self::HOST_TO_DEVICE => Ok(Direction::ToDevice),
            Self::DEVICE_TO_HOST => Ok(Direction::FromDevice),
            Self::DEVICE_TO_DEVICE => Ok(Direction::OnDevice),
            _ => Err(INVALID_MEMCPY_DIRECTION),
        }
    }
}

pub(super) use Kind as CopyKind;

/// A node that copies.
pub(super) fn copy_work(client: &Client, copy: &StridedCopy, kind: Kind) -> CudaResult<Work> {
    // SAFETY: the program promises that both boxes are valid whenever the graph runs (cudaGraphAddMemcpyNode).
    unsafe { Work::copy(client, copy, kind.direction()?) }
}

pub(super) fn copy(
    destination: u64,
    source: u64,
    bytes: usize,
    kind: Kind,
    stream: StreamHandle,
    waits: bool,
) -> CudaResult<()> {
    let client = ready()?;
    // Without bytes nobody looks at the direction.
    let direction = if bytes == 0 { Direction::Any } else { kind.direction()? };
    // SAFETY: the program promises that both ends are valid for that many bytes (cudaMemcpy and its relatives).
    unsafe { client.copy(destination, source, bytes as u64, direction, stream.find()?, waits) }
}

fn fill(
    address: u64,
    pitch: usize,
    (width, height): (usize, usize),
    value: i32,
    (stream, waits): (StreamHandle, bool),
) -> CudaResult<()> {
    // The value is an int of which the low byte counts (cudaMemset).
    let byte = (value.cast_unsigned() & 0xff, 1);
    ready()?.fill(address, pitch as u64, (width as u64, height as u64), byte, (stream.find()?, waits))
}

default_stream_functions! {
    fn cudaMemcpy / cudaMemcpy_ptds(destination: u64, source: u64, bytes: usize, kind: Kind) on stream {
        copy(destination, source, bytes, kind, stream, true)
    }

    fn cudaMemset / cudaMemset_ptds(address: u64, value: i32, bytes: usize) on stream {
        fill(address, 0, (bytes, 1), value, (stream, true))
    }

    fn cudaMemset2D / cudaMemset2D_ptds(address: u64, pitch: usize, value: i32, width: usize, height: usize) on stream {
        fill(address, pitch, (width, height), value, (stream, true))
    }

    fn cudaMemset3D / cudaMemset3D_ptds(pitched: PitchedPointer, value: i32, extent: Extent) on stream {
        fill_box(pitched, value, extent, (stream, true))
    }
}

stream_functions! {
    fn cudaMemcpyAsync / cudaMemcpyAsync_ptsz(destination: u64, source: u64, bytes: usize, kind: Kind, @ stream) {
        copy(destination, source, bytes, kind, stream, false)
    }

    fn cudaMemsetAsync / cudaMemsetAsync_ptsz(address: u64, value: i32, bytes: usize, @ stream) {
        fill(address, 0, (bytes, 1), value, (stream, false))
    }

    fn cudaMemset2DAsync / cudaMemset2DAsync_ptsz(
        address: u64, pitch: usize, value: i32, width: usize, height: usize, @ stream,
    ) {
        fill(address, pitch, (width, height), value, (stream, false))
    }

    fn cudaMemset3DAsync / cudaMemset3DAsync_ptsz(pitched: PitchedPointer, value: i32, extent: Extent, @ stream) {
        fill_box(pitched, value, extent, (stream, false))
    }
}

/// `cudaPitchedPtr`
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct PitchedPointer {
    pub(super) address: u64,
    pub(super) pitch: usize,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// `cudaExtent`: of memory that is no array, the width is in bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Extent {
    pub(super) width_bytes: usize,
    pub(super) height: usize,
    pub(super) depth: usize,
}

fn fill_box(
    pitched: PitchedPointer,
    value: i32,
    extent: Extent,
    (stream, waits): (StreamHandle, bool),
) -> CudaResult<()> {
    let slice = pitched.pitch.checked_mul(pitched.height).ok_or(CudaError::INVALID_VALUE)? as u64;
    for index in 0..extent.depth as u64 {
        let address = index.checked_mul(slice).and_then(|offset| pitched.address.checked_add(offset));
        let address = address.ok_or(CudaError::INVALID_VALUE)?;
        fill(address, pitched.pitch, (extent.width_bytes, extent.height), value, (stream, waits))?;
    }
    Ok(())
}
