//! Copies and fills.

use super::argument::In;
use super::{cuda_functions, stream_functions};
use crate::core::{Client, CudaResult, Direction, Location, StreamHandle, StridedCopy, client, contexts};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

/// `CUmemorytype`
const HOST: u32 = 1;
const DEVICE: u32 = 2;
const UNIFIED: u32 = 4;

/// The synchronous functions work in the order of the default stream.
const LEGACY: StreamHandle = StreamHandle { handle: std::ptr::null_mut(), per_thread: false };
const PER_THREAD: StreamHandle = StreamHandle { handle: std::ptr::null_mut(), per_thread: true };

fn copy(
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

    /// There is one device, so both contexts are the same.
    fn cuMemcpyPeerAsync / cuMemcpyPeerAsync_ptsz(
        destination: u64, destination_context: *mut c_void, source: u64, source_context: *mut c_void, bytes: usize,
        @ stream,
    ) {
        contexts::find(destination_context)?;
        contexts::find(source_context)?;
        copy(destination, source, bytes, Direction::OnDevice, stream, false)
    }

    fn cuMemcpy2DAsync_v2 / cuMemcpy2DAsync_v2_ptsz(description: In<Copy2D>, @ stream) {
        copy_strided(description.get()?.into(), stream, false)
    }

    fn cuMemcpy3DAsync_v2 / cuMemcpy3DAsync_v2_ptsz(description: In<Copy3D>, @ stream) {
        copy_strided(description.get()?, stream, false)
    }

    fn cuMemsetD8Async / cuMemsetD8Async_ptsz(address: u64, value: u8, count: usize, @ stream) {
        fill(address, 0, (count, 1), (value.into(), 1), stream)
    }

    fn cuMemsetD16Async / cuMemsetD16Async_ptsz(address: u64, value: u16, count: usize, @ stream) {
        fill(address, 0, (count, 1), (value.into(), 2), stream)
    }

    fn cuMemsetD32Async / cuMemsetD32Async_ptsz(address: u64, value: u32, count: usize, @ stream) {
        fill(address, 0, (count, 1), (value, 4), stream)
    }

    fn cuMemsetD2D8Async / cuMemsetD2D8Async_ptsz(
        address: u64, pitch: usize, value: u8, width: usize, height: usize, @ stream,
    ) {
        fill(address, pitch, (width, height), (value.into(), 1), stream)
    }

    fn cuMemsetD2D16Async / cuMemsetD2D16Async_ptsz(
        address: u64, pitch: usize, value: u16, width: usize, height: usize, @ stream,
    ) {
        fill(address, pitch, (width, height), (value.into(), 2), stream)
    }

    fn cuMemsetD2D32Async / cuMemsetD2D32Async_ptsz(
        address: u64, pitch: usize, value: u32, width: usize, height: usize, @ stream,
    ) {
        fill(address, pitch, (width, height), (value, 4), stream)
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

    fn cuMemsetD8_v2(address: u64, value: u8, count: usize) {
        fill(address, 0, (count, 1), (value.into(), 1), LEGACY)
    }

    fn cuMemsetD8_v2_ptds(address: u64, value: u8, count: usize) {
        fill(address, 0, (count, 1), (value.into(), 1), PER_THREAD)
    }

    fn cuMemsetD16_v2(address: u64, value: u16, count: usize) {
        fill(address, 0, (count, 1), (value.into(), 2), LEGACY)
    }

    fn cuMemsetD16_v2_ptds(address: u64, value: u16, count: usize) {
        fill(address, 0, (count, 1), (value.into(), 2), PER_THREAD)
    }

    fn cuMemsetD32_v2(address: u64, value: u32, count: usize) {
        fill(address, 0, (count, 1), (value, 4), LEGACY)
    }

    fn cuMemsetD32_v2_ptds(address: u64, value: u32, count: usize) {
        fill(address, 0, (count, 1), (value, 4), PER_THREAD)
    }
}

fn fill(
    address: u64,
    pitch: usize,
    (width, height): (usize, usize),
    value: (u32, u32),
    stream: StreamHandle,
) -> CudaResult<()> {
    let client = client()?;
    contexts::require()?;
    client.fill(address, pitch as u64, (width as u64, height as u64), value, stream.find()?)
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
    reserved: usize,
    pitch: usize,
    height: usize,
}

/// `CUDA_MEMCPY3D` (cuda.h).
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Copy3D {
    source: End3D,
    destination: End3D,
    width_bytes: usize,
    height: usize,
    depth: usize,
}

const _: () = assert!(size_of::<Copy2D>() == size_of::<cudarc::driver::sys::CUDA_MEMCPY2D>());
const _: () = assert!(size_of::<Copy3D>() == size_of::<cudarc::driver::sys::CUDA_MEMCPY3D>());

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
            reserved: 0,
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

impl End3D {
    /// First address, pitch, rows of a slice. Arrays (texture memory) are not supported.
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

fn copy_strided(copy: Copy3D, stream: StreamHandle, waits: bool) -> CudaResult<()> {
    let client = client()?;
    contexts::require()?;
    let (width_bytes, height, depth) = (copy.width_bytes as u64, copy.height as u64, copy.depth as u64);
    let strided = StridedCopy {
        destination: copy.destination.place(client, width_bytes, height)?,
        source: copy.source.place(client, width_bytes, height)?,
        width_bytes,
        height,
        depth,
    };
    // SAFETY: the program promises that both boxes are valid (cuMemcpy3D).
    unsafe { client.copy_strided(&strided, stream.find()?, waits) }
}
