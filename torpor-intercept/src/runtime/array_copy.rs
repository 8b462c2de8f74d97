//! Copies from and to arrays.

use super::copy::{Extent, Kind, PitchedPointer};
use super::strided::Position;
use super::{default_stream_functions, ready, stream_functions};
use crate::core::{Array, BoxCopy, BoxSide, Client, CudaResult, Direction, LineSide, Location, StreamHandle};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

/// Whether an address is what the direction says, of the side that is no array.
fn check_memory(client: &Client, address: u64, kind: Kind, is_destination: bool) -> CudaResult<()> {
    let is_device = match (kind.direction()?, is_destination) {
        (Direction::ToDevice | Direction::OnDevice, true)
        | (Direction::FromDevice | Direction::OnDevice, false) => true,
        (Direction::Any, _) | (Direction::FromDevice, true) | (Direction::ToDevice, false) => false,
    };
    match client.locate(address, 1) {
        Location::Pageable(_) if is_device => Err(CudaError::INVALID_VALUE),
        _ => Ok(()),
    }
}

fn copy(copied: &BoxCopy, kind: Kind, stream: StreamHandle, waits: bool) -> CudaResult<()> {
    let client = ready()?;
    if !copied.lengths.contains(&0) {
        for (side, is_destination) in [(copied.destination, true), (copied.source, false)] {
            if let BoxSide::Memory(address, ..) = side {
                check_memory(client, address, kind, is_destination)?;
            }
        }
    }
    // SAFETY: the program promises that what is in memory is valid (cudaMemcpy2DToArray and its relatives).
    unsafe { client.copy_box(copied, stream.find()?, waits) }
}

/// From a byte of each row and a row on.
fn rows_of(array: *mut c_void, x_bytes: usize, y: usize) -> CudaResult<BoxSide> {
    ready()?;
    Ok(BoxSide::Array(Array::find(array)?, [x_bytes as u64, y as u64, 0]))
}

fn rows_at(address: u64, pitch: usize, height: usize) -> BoxSide {
    BoxSide::Memory(address, pitch as u64, height as u64)
}

fn copy_rows(
    [destination, source]: [BoxSide; 2],
    [width, height]: [usize; 2],
    kind: Kind,
    stream: StreamHandle,
    waits: bool,
) -> CudaResult<()> {
    let lengths = [width as u64, height as u64, 1];
    copy(&BoxCopy { destination, source, lengths }, kind, stream, waits)
}

fn copy_line(
    [destination, source]: [LineSide; 2],
    bytes: usize,
    kind: Kind,
    stream: StreamHandle,
    waits: bool,
) -> CudaResult<()> {
    let client = ready()?;
    for (side, is_destination) in [(destination, true), (source, false)] {
        if let LineSide::Memory(address) = side
            && bytes > 0
        {
            check_memory(client, address, kind, is_destination)?;
        }
    }
    // SAFETY: as in `copy`.
    unsafe { client.copy_line([destination, source], bytes as u64, stream.find()?, waits) }
}

fn line_of(array: *mut c_void, x_bytes: usize, y: usize) -> CudaResult<LineSide> {
    ready()?;
    Ok(LineSide::Array(Array::find(array)?, x_bytes as u64, y as u64))
}

/// One side of a `cudaMemcpy3DParms`.
pub(super) struct Side {
    pub(super) array: usize,
    pub(super) position: Position,
    pub(super) pointer: PitchedPointer,
}

impl Side {
    fn array(&self) -> CudaResult<Option<&'static Array>> {
        let handle = std::ptr::with_exposed_provenance_mut(self.array);
        if self.array == 0 { Ok(None) } else { Array::find(handle).map(Some) }
    }

    /// With an array, positions are in elements.
    fn of_box(&self, rows: u64) -> CudaResult<BoxSide> {
        let [x, y, z] = self.position.numbers();
        if let Some(array) = self.array()? {
            let x = x.checked_mul(array.shape().element_bytes()).ok_or(CudaError::INVALID_VALUE)?;
            return Ok(BoxSide::Array(array, [x, y, z]));
        }
        let PitchedPointer { address, pitch, height, .. } = self.pointer;
        let (pitch, height) = (pitch as u64, if height == 0 { rows } else { height as u64 });
        let full_rows = z.checked_mul(height).and_then(|rows| rows.checked_add(y));
        let offset = full_rows.and_then(|rows| rows.checked_mul(pitch)?.checked_add(x));
        let address =
            offset.and_then(|offset| address.checked_add(offset)).ok_or(CudaError::INVALID_VALUE)?;
        Ok(BoxSide::Memory(address, pitch, height))
    }
}

/// `cudaMemcpy3D` with an array: the extent is in elements then.
pub(super) fn copy_3d(
    [destination, source]: [&Side; 2],
    extent: Extent,
    kind: Kind,
    stream: StreamHandle,
    waits: bool,
) -> CudaResult<()> {
    ready()?;
    let array = source.array()?.or(destination.array()?).ok_or(CudaError::INVALID_VALUE)?;
    let width = (extent.width_bytes as u64).checked_mul(array.shape().element_bytes());
    let (height, depth) = (extent.height as u64, extent.depth as u64);
    let copied = BoxCopy {
        destination: destination.of_box(height)?,
        source: source.of_box(height)?,
        lengths: [width.ok_or(CudaError::INVALID_VALUE)?, height, depth],
    };
    copy(&copied, kind, stream, waits)
}

default_stream_functions! {
    fn cudaMemcpy2DToArray / cudaMemcpy2DToArray_ptds(
        array: *mut c_void, x: usize, y: usize, source: u64, pitch: usize, width: usize, height: usize, kind: Kind,
    ) on stream {
        copy_rows([rows_of(array, x, y)?, rows_at(source, pitch, height)], [width, height], kind, stream, true)
    }

    fn cudaMemcpy2DFromArray / cudaMemcpy2DFromArray_ptds(
        destination: u64, pitch: usize, array: *mut c_void, x: usize, y: usize, width: usize, height: usize, kind: Kind,
    ) on stream {
        copy_rows([rows_at(destination, pitch, height), rows_of(array, x, y)?], [width, height], kind, stream, true)
    }

    fn cudaMemcpy2DArrayToArray / cudaMemcpy2DArrayToArray_ptds(
        to: *mut c_void, to_x: usize, to_y: usize, from: *mut c_void, from_x: usize, from_y: usize, width: usize,
        height: usize, kind: Kind,
    ) on stream {
        copy_rows([rows_of(to, to_x, to_y)?, rows_of(from, from_x, from_y)?], [width, height], kind, stream, true)
    }

    fn cudaMemcpyToArray / cudaMemcpyToArray_ptds(
        array: *mut c_void, x: usize, y: usize, source: u64, bytes: usize, kind: Kind,
    ) on stream {
        copy_line([line_of(array, x, y)?, LineSide::Memory(source)], bytes, kind, stream, true)
    }

    fn cudaMemcpyFromArray / cudaMemcpyFromArray_ptds(
        destination: u64, array: *mut c_void, x: usize, y: usize, bytes: usize, kind: Kind,
    ) on stream {
        copy_line([LineSide::Memory(destination), line_of(array, x, y)?], bytes, kind, stream, true)
    }

    fn cudaMemcpyArrayToArray / cudaMemcpyArrayToArray_ptds(
        to: *mut c_void, to_x: usize, to_y: usize, from: *mut c_void, from_x: usize, from_y: usize, bytes: usize,
        kind: Kind,
    ) on stream {
        copy_line([line_of(to, to_x, to_y)?, line_of(from, from_x, from_y)?], bytes, kind, stream, true)
    }
}

stream_functions! {
    fn cudaMemcpy2DToArrayAsync / cudaMemcpy2DToArrayAsync_ptsz(
        array: *mut c_void, x: usize, y: usize, source: u64, pitch: usize, width: usize, height: usize, kind: Kind,
        @ stream,
    ) {
        copy_rows([rows_of(array, x, y)?, rows_at(source, pitch, height)], [width, height], kind, stream, false)
    }

    fn cudaMemcpy2DFromArrayAsync / cudaMemcpy2DFromArrayAsync_ptsz(
        destination: u64, pitch: usize, array: *mut c_void, x: usize, y: usize, width: usize, height: usize, kind: Kind,
        @ stream,
    ) {
        copy_rows([rows_at(destination, pitch, height), rows_of(array, x, y)?], [width, height], kind, stream, false)
    }

    fn cudaMemcpyToArrayAsync / cudaMemcpyToArrayAsync_ptsz(
        array: *mut c_void, x: usize, y: usize, source: u64, bytes: usize, kind: Kind, @ stream,
    ) {
        copy_line([line_of(array, x, y)?, LineSide::Memory(source)], bytes, kind, stream, false)
    }

    fn cudaMemcpyFromArrayAsync / cudaMemcpyFromArrayAsync_ptsz(
        destination: u64, array: *mut c_void, x: usize, y: usize, bytes: usize, kind: Kind, @ stream,
    ) {
        copy_line([LineSide::Memory(destination), line_of(array, x, y)?], bytes, kind, stream, false)
    }
}
