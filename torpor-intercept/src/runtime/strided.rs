//! Copies with pitches.

use super::array_copy::{self, Side};
use super::copy::{Extent, Kind, PitchedPointer};
use super::{default_stream_functions, ready, stream_functions};
use crate::core::graph::CopyNode;
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
pub(super) struct Position {
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

impl Position {
    /// Bytes of a row (of an array: elements), rows, slices.
    pub(super) fn numbers(&self) -> [u64; 3] {
        [self.x_bytes, self.y, self.z].map(|number| number as u64)
    }
}

const _: () = assert!(size_of::<Copy3D>() == 160);

/// Two boxes of equal extent: each with where it is in what larger box.
pub(super) struct Boxes {
    pub(super) source: (PitchedPointer, Position),
    pub(super) destination: (PitchedPointer, Position),
    pub(super) extent: Extent,
}

impl Boxes {
    /// What is copied.
    fn strided(&self) -> CudaResult<StridedCopy> {
        let Extent { width_bytes, height, depth } = self.extent;
        let side = |(pointer, position): (PitchedPointer, Position)| {
            let slice_rows = if pointer.height == 0 { height } else { pointer.height };
            let rows = position.z.checked_mul(slice_rows)?.checked_add(position.y)?;
            let offset = rows.checked_mul(pointer.pitch)?.checked_add(position.x_bytes)?;
            Some((pointer.address.checked_add(offset as u64)?, pointer.pitch as u64, slice_rows as u64))
        };
        Ok(StridedCopy {
            destination: side(self.destination).ok_or(CudaError::INVALID_VALUE)?,
            source: side(self.source).ok_or(CudaError::INVALID_VALUE)?,
            width_bytes: width_bytes as u64,
            height: height as u64,
            depth: depth as u64,
        })
    }
}

pub(super) fn copy_boxes(boxes: &Boxes, kind: Kind, stream: StreamHandle, waits: bool) -> CudaResult<()> {
    copy(&boxes.strided()?, kind, stream, waits)
}

impl Copy3D {
    /// What is copied, and what the program says of the direction. In graphs there are no arrays.
    pub(super) fn strided(&self) -> CudaResult<(StridedCopy, Kind)> {
        if self.source_array != 0 || self.destination_array != 0 {
            return Err(CudaError::NOT_SUPPORTED);
        }
        let boxes = Boxes {
            source: (self.source, self.source_position),
            destination: (self.destination, self.destination_position),
            extent: self.extent,
        };
        Ok((boxes.strided()?, self.kind))
    }

    /// What a program is told of a node that copies.
    pub(super) fn of(CopyNode { copy, .. }: &CopyNode) -> Self {
        let nowhere = Position { x_bytes: 0, y: 0, z: 0 };
        let pointer = |(address, pitch, height): (u64, u64, u64)| PitchedPointer {
            address,
            pitch: pitch as usize,
            width: copy.width_bytes as usize,
            height: height as usize,
        };
        Self {
            source_array: 0,
            source_position: nowhere,
            source: pointer(copy.source),
            destination_array: 0,
            destination_position: nowhere,
            destination: pointer(copy.destination),
            extent: Extent {
                width_bytes: copy.width_bytes as usize,
                height: copy.height as usize,
                depth: copy.depth as usize,
            },
            kind: Kind::of_addresses(),
        }
    }
}

fn copy_3d(copied: Copy3D, stream: StreamHandle, waits: bool) -> CudaResult<()> {
    if copied.source_array != 0 || copied.destination_array != 0 {
        let to = Side {
            array: copied.destination_array,
            position: copied.destination_position,
            pointer: copied.destination,
        };
        let from =
            Side { array: copied.source_array, position: copied.source_position, pointer: copied.source };
        return array_copy::copy_3d([&to, &from], copied.extent, copied.kind, stream, waits);
    }
    let (strided, kind) = copied.strided()?;
    copy(&strided, kind, stream, waits)
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
