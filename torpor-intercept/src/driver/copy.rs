//! Copies.

use super::argument::In;
use super::{cuda_functions, stream_functions};
use crate::core::graph::CopyNode;
use crate::core::{
    Array, BoxCopy, BoxSide, Client, CudaResult, Direction, Location, StreamHandle, StridedCopy, client,
    contexts,
};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

/// `CUmemorytype`
const HOST: u32 = 1;
const DEVICE: u32 = 2;
const ARRAY: u32 = 3;
const UNIFIED: u32 = 4;

/// The synchronous functions work in the order of the default stream.
pub(super) const LEGACY: StreamHandle = StreamHandle { handle: std::ptr::null_mut(), per_thread: false };
pub(super) const PER_THREAD: StreamHandle = StreamHandle { handle: std::ptr::null_mut(), per_thread: true };

pub(super) fn copy(
    destination: u64,
    source: u64,
    bytes: usize,
    direction: Direction,
    stream: StreamHandle,
    waits: bool,
) -> CudaResult<()> {
    let client = client()?;
    contexts::require()?;
    // SAFETY: the program promises that both ends are valid for that many bytes (cuMemcpy and its relatives).
    unsafe { client.copy(destination, source, bytes as u64, direction, stream.find()?, waits) }
}

macro_rules! synchronous_copies {
    ($($name:ident / $per_thread:ident: $direction:ident;)*) => {
        cuda_functions! {$(
            fn $name(destination: u64, source: u64, bytes: usize) {
                copy(destination, source, bytes, Direction::$direction, LEGACY, true)
            }

            fn $per_thread(destination: u64, source: u64, bytes: usize) {
                copy(destination, source, bytes, Direction::$direction, PER_THREAD, true)
            }
        )*}
    };
}

synchronous_copies! {
    cuMemcpy / cuMemcpy_ptds: Any;
    cuMemcpyHtoD_v2 / cuMemcpyHtoD_v2_ptds: ToDevice;
    cuMemcpyDtoH_v2 / cuMemcpyDtoH_v2_ptds: FromDevice;
    cuMemcpyDtoD_v2 / cuMemcpyDtoD_v2_ptds: OnDevice;
}

stream_functions! {
    fn cuMemcpyAsync / cuMemcpyAsync_ptsz(destination: u64, source: u64, bytes: usize, @ stream) {
        copy(destination, source, bytes, Direction::Any, stream, false)
    }

    fn cuMemcpyHtoDAsync_v2 / cuMemcpyHtoDAsync_v2_ptsz(destination: u64, source: u64, bytes: usize, @ stream) {
        copy(destination, source, bytes, Direction::ToDevice, stream, false)
    }

    fn cuMemcpyDtoHAsync_v2 / cuMemcpyDtoHAsync_v2_ptsz(destination: u64, source: u64, bytes: usize, @ stream) {
        copy(destination, source, bytes, Direction::FromDevice, stream, false)
    }

    fn cuMemcpyDtoDAsync_v2 / cuMemcpyDtoDAsync_v2_ptsz(destination: u64, source: u64, bytes: usize, @ stream) {
        copy(destination, source, bytes, Direction::OnDevice, stream, false)
    }

    fn cuMemcpy2DAsync_v2 / cuMemcpy2DAsync_v2_ptsz(description: In<Copy2D>, @ stream) {
        copy_strided(description.get()?.into(), stream, false)
    }

    fn cuMemcpy3DAsync_v2 / cuMemcpy3DAsync_v2_ptsz(description: In<Copy3D>, @ stream) {
        copy_strided(description.get()?, stream, false)
    }
}

cuda_functions! {
    fn cuMemcpy2D_v2 | cuMemcpy2DUnaligned_v2 (description: In<Copy2D>) {
        copy_strided(description.get()?.into(), LEGACY, true)
    }

    fn cuMemcpy2D_v2_ptds | cuMemcpy2DUnaligned_v2_ptds (description: In<Copy2D>) {
        copy_strided(description.get()?.into(), PER_THREAD, true)
    }

    fn cuMemcpy3D_v2(description: In<Copy3D>) {
        copy_strided(description.get()?, LEGACY, true)
    }

    fn cuMemcpy3D_v2_ptds(description: In<Copy3D>) {
        copy_strided(description.get()?, PER_THREAD, true)
    }
}

/// One end of a `CUDA_MEMCPY2D`: place, memory type, pointers, pitch.
#[derive(Clone, Copy)]
#[repr(C)]
struct End2D {
    x_bytes: usize,
    y: usize,
    memory_type: u32,
    host: usize,
    device: u64,
    array: usize,
    pitch: usize,
}

/// `CUDA_MEMCPY2D` (cuda.h).
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Copy2D {
    source: End2D,
    destination: End2D,
    width_bytes: usize,
    height: usize,
}

/// One end of a `CUDA_MEMCPY3D`.
#[derive(Clone, Copy)]
#[repr(C)]
struct End3D {
    x_bytes: usize,
    y: usize,
    z: usize,
    lod: usize,
    memory_type: u32,
    host: usize,
    device: u64,
    array: usize,
    /// Between contexts (`CUDA_MEMCPY3D_PEER`) the one of this end, else reserved.
    context: usize,
    pitch: usize,
    height: usize,
}

/// `CUDA_MEMCPY3D` and `CUDA_MEMCPY3D_PEER` (cuda.h).
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Copy3D {
    source: End3D,
    destination: End3D,
    width_bytes: usize,
    height: usize,
    depth: usize,
}

const _: () = assert!(size_of::<Copy2D>() == size_of::<cudarc::driver::sys::CUDA_MEMCPY2D>());
const _: () = assert!(size_of::<Copy3D>() == size_of::<cudarc::driver::sys::CUDA_MEMCPY3D>());
const _: () = assert!(size_of::<Copy3D>() == size_of::<cudarc::driver::sys::CUDA_MEMCPY3D_PEER>());

impl Copy3D {
    /// The contexts of both ends.
    pub(super) fn contexts(&self) -> [*mut c_void; 2] {
        [self.source.context, self.destination.context].map(std::ptr::with_exposed_provenance_mut)
    }
}

impl From<Copy2D> for Copy3D {
    fn from(copy: Copy2D) -> Self {
        let end = |end: End2D| End3D {
            x_bytes: end.x_bytes,
            y: end.y,
            z: 0,
            lod: 0,
            memory_type: end.memory_type,
            host: end.host,
            device: end.device,
            array: end.array,
            context: 0,
            pitch: end.pitch,
            height: 0,
        };
        Self {
            source: end(copy.source),
            destination: end(copy.destination),
            width_bytes: copy.width_bytes,
            height: copy.height,
            depth: 1,
        }
    }
}

impl Copy3D {
    /// What is copied.
    pub(super) fn strided(&self, client: &Client) -> CudaResult<StridedCopy> {
        let (width_bytes, height, depth) = (self.width_bytes as u64, self.height as u64, self.depth as u64);
        Ok(StridedCopy {
            destination: self.destination.place(client, width_bytes, height)?,
            source: self.source.place(client, width_bytes, height)?,
            width_bytes,
            height,
            depth,
        })
    }

    /// What is copied from or to an array.
    fn boxes(&self, client: &Client) -> CudaResult<BoxCopy> {
        if self.source.lod != 0 || self.destination.lod != 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        let lengths @ [width_bytes, height, _] =
            [self.width_bytes, self.height, self.depth].map(|length| length as u64);
        Ok(BoxCopy {
            destination: self.destination.side(client, width_bytes, height)?,
            source: self.source.side(client, width_bytes, height)?,
            lengths,
        })
    }

    /// What a program is told of a node that copies.
    pub(super) fn of(CopyNode { copy, to, from }: &CopyNode) -> Self {
        Self {
            source: End3D::of(copy.source, *from),
            destination: End3D::of(copy.destination, *to),
            width_bytes: copy.width_bytes as usize,
            height: copy.height as usize,
            depth: copy.depth as usize,
        }
    }
}

impl End3D {
    fn of((address, pitch, height): (u64, u64, u64), location: Location) -> Self {
        let is_device = matches!(location, Location::Device(_));
        Self {
            x_bytes: 0,
            y: 0,
            z: 0,
            lod: 0,
            memory_type: if is_device { DEVICE } else { HOST },
            host: if is_device { 0 } else { address as usize },
            device: if is_device { address } else { 0 },
            array: 0,
            context: 0,
            pitch: pitch as usize,
            height: height as usize,
        }
    }

    /// As [`Self::place`], or in an array.
    fn side(&self, client: &Client, width_bytes: u64, rows: u64) -> CudaResult<BoxSide> {
        if self.memory_type != ARRAY {
            let (address, pitch, height) = self.place(client, width_bytes, rows)?;
            return Ok(BoxSide::Memory(address, pitch, height));
        }
        let array = Array::find(std::ptr::with_exposed_provenance_mut(self.array))?;
        Ok(BoxSide::Array(array, [self.x_bytes, self.y, self.z].map(|number| number as u64)))
    }

    /// First address, pitch, rows of a slice. In graphs there are no arrays.
    fn place(&self, client: &Client, width_bytes: u64, rows: u64) -> CudaResult<(u64, u64, u64)> {
        let base = match self.memory_type {
            HOST => self.host as u64,
            DEVICE | UNIFIED => self.device,
            _ => return Err(CudaError::NOT_SUPPORTED),
        };
        // A pitch or height of 0 means tightly packed (cuda.h).
        let pitch = if self.pitch == 0 { width_bytes } else { self.pitch as u64 };
        let height = if self.height == 0 { rows } else { self.height as u64 };
        let slices = (self.z as u64).checked_mul(height).and_then(|rows| rows.checked_add(self.y as u64));
        let offset = slices
            .and_then(|rows| rows.checked_mul(pitch))
            .and_then(|at| at.checked_add(self.x_bytes as u64));
        let address = offset.and_then(|offset| base.checked_add(offset)).ok_or(CudaError::INVALID_VALUE)?;
        if self.memory_type == DEVICE && matches!(client.locate(address, 1), Location::Pageable(_)) {
            return Err(CudaError::INVALID_VALUE);
        }
        Ok((address, pitch, height))
    }
}

pub(super) fn copy_strided(copy: Copy3D, stream: StreamHandle, waits: bool) -> CudaResult<()> {
    let client = client()?;
    contexts::require()?;
    if [copy.source.memory_type, copy.destination.memory_type].contains(&ARRAY) {
        let boxes = copy.boxes(client)?;
        // SAFETY: the program promises that what is in memory is valid (cuMemcpy3D).
        return unsafe { client.copy_box(&boxes, stream.find()?, waits) };
    }
    let strided = copy.strided(client)?;
    // SAFETY: the program promises that both boxes are valid (cuMemcpy3D).
    unsafe { client.copy_strided(&strided, stream.find()?, waits) }
}
