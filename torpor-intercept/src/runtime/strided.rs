//! Copies with pitches.

use super::copy::{Extent, Kind, PitchedPointer};
use super::{default_stream_functions, ready, stream_functions};
use crate::core::{CudaResult, Direction, Location, StreamHandle, StridedCopy};
use crate::driver::argument::In;
use torpor_proto::error::CudaError;

/// `cudaErrorInvalidPitchValue`
const INVALID_PITCH: CudaError = CudaError(12);

fn copy(copy: &StridedCopy, kind: Kind, stream: StreamHandle, waits: bool) -> CudaResult<()> {
    let client = ready()?;
    let is_narrow = copy.width_bytes > copy.destination.1 || copy.width_bytes > copy.source.1;
    if is_narrow && copy.height.saturating_mul(copy.depth) > 1 {
        return Err(INVALID_PITCH);
    }
    if copy.width_bytes > 0 && copy.height > 0 && copy.depth > 0 {
        let direction = kind.direction()?;
        let is_pageable = |address| matches!(client.locate(address, 1), Location::Pageable(_));
        let writes = matches!(direction, Direction::ToDevice | Direction::OnDevice);
        let reads = matches!(direction, Direction::FromDevice | Direction::OnDevice);
        if (writes && is_pageable(copy.destination.0)) || (reads && is_pageable(copy.source.0)) {
            return Err(CudaError::INVALID_VALUE);
        }
    }
    // SAFETY: the program promises that both boxes are valid (cudaMemcpy2D, cudaMemcpy3D).
    unsafe { client.copy_strided(copy, stream.find()?, waits) }
}

/// Address and pitch of both sides, width and height.
fn rows(destination: (u64, usize), source: (u64, usize), width: usize, height: usize) -> StridedCopy {
    let side = |(address, pitch): (u64, usize)| (address, pitch as u64, height as u64);
    StridedCopy {
        destination: side(destination),
        source: side(source),
        width_bytes: width as u64,
        height: height as u64,
        depth: 1,
    }
}

/// `cudaPos`
#[derive(Clone, Copy)]
#[repr(C)]
struct Position {
    x_bytes: usize,
    y: usize,
    z: usize,
}

/// `cudaMemcpy3DParms` (driver_types.h).
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Copy3D {
    source_array: usize,
    source_position: Position,
    source: PitchedPointer,
    destination_array: usize,
    destination_position: Position,
    destination: PitchedPointer,
    extent: Extent,
    kind: Kind,
}

const _: () = assert!(size_of::<Copy3D>() == 160);

fn copy_3d(copied: Copy3D, stream: StreamHandle, waits: bool) -> CudaResult<()> {
    if copied.source_array != 0 || copied.destination_array != 0 {
        return Err(CudaError::NOT_SUPPORTED);
    }
    let Extent { width_bytes, height, depth } = copied.extent;
    let side = |pointer: PitchedPointer, position: Position| {
        let slice_rows = if pointer.height == 0 { height } else { pointer.height };
        let rows = position.z.checked_mul(slice_rows)?.checked_add(position.y)?;
        let offset = rows.checked_mul(pointer.pitch)?.checked_add(position.x_bytes)?;
        Some((pointer.address.checked_add(offset as u64)?, pointer.pitch as u64, slice_rows as u64))
    };
    let strided = StridedCopy {
        destination: side(copied.destination, copied.destination_position).ok_or(CudaError::INVALID_VALUE)?,
        source: side(copied.source, copied.source_position).ok_or(CudaError::INVALID_VALUE)?,
        width_bytes: width_bytes as u64,
        height: height as u64,
        depth: depth as u64,
    };
    copy(&strided, copied.kind, stream, waits)
}

default_stream_functions! {
    fn cudaMemcpy2D / cudaMemcpy2D_ptds(
        destination: u64, destination_pitch: usize, source: u64, source_pitch: usize, width: usize, height: usize,
        kind: Kind,
    ) on stream {
        let rows = rows((destination, destination_pitch), (source, source_pitch), width, height);
        copy(&rows, kind, stream, true)
    }

    fn cudaMemcpy3D / cudaMemcpy3D_ptds(description: In<Copy3D>) on stream {
        copy_3d(description.get()?, stream, true)
    }
}

stream_functions! {
    fn cudaMemcpy2DAsync / cudaMemcpy2DAsync_ptsz(
        destination: u64, destination_pitch: usize, source: u64, source_pitch: usize, width: usize, height: usize,
        kind: Kind, @ stream,
    ) {
        let rows = rows((destination, destination_pitch), (source, source_pitch), width, height);
        copy(&rows, kind, stream, false)
    }

    fn cudaMemcpy3DAsync / cudaMemcpy3DAsync_ptsz(description: In<Copy3D>, @ stream) {
        copy_3d(description.get()?, stream, false)
    }
}
