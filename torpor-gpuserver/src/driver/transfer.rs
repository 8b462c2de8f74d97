//! Copies and fills.

use super::{Array, Stream};
use cudarc::driver::sys;
use std::ffi::c_void;
use torpor_proto::error::CudaError;

/// Where an address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In device memory.
    Device,
    /// In page-locked host memory.
    Host,
}

/// One end of a strided copy.
#[derive(Clone, Copy, Debug)]
pub struct Pitched {
    /// Where the address lies.
    pub place: Place,
    /// First address.
    pub address: u64,
    /// Bytes from row to row.
    pub pitch: usize,
    /// Rows from slice to slice.
    pub height: usize,
}

/// One end of a copy that may lead into an array.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    /// In memory.
    Memory(Pitched),
    /// In a level of an array.
    Array {
        /// Which array.
        array: &'a Array,
        /// Which level.
        level: u32,
        /// The first byte of each row.
        x_bytes: usize,
        /// The first row.
        y: usize,
        /// The first slice or layer.
        z: usize,
    },
}

/// One end as `CUDA_MEMCPY3D` has it.
struct RawEnd {
    kind: sys::CUmemorytype,
    at: [usize; 3],
    host: u64,
    device: u64,
    array: usize,
    pitch: usize,
    height: usize,
}

impl End<'_> {
    fn raw(self) -> Result<RawEnd, CudaError> {
        let nowhere = RawEnd {
            kind: sys::CUmemorytype::CU_MEMORYTYPE_ARRAY,
            at: [0; 3],
            host: 0,
            device: 0,
            array: 0,
            pitch: 0,
            height: 0,
        };
        Ok(match self {
            Self::Memory(Pitched { place, address, pitch, height }) => match place {
                Place::Device => RawEnd {
                    kind: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
                    device: address,
                    pitch,
                    height,
                    ..nowhere
                },
                Place::Host => RawEnd {
                    kind: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
                    host: address,
                    pitch,
                    height,
                    ..nowhere
                },
            },
            Self::Array { array, level, x_bytes, y, z } => {
                RawEnd { at: [x_bytes, y, z], array: array.level(level)?, ..nowhere }
            }
        })
    }
}

/// What a strided copy moves.
#[derive(Clone, Copy, Debug)]
pub struct Box3d {
    /// Bytes of a row.
    pub width_bytes: usize,
    /// Rows of a slice.
    pub height: usize,
    /// Slices.
    pub depth: usize,
}

fn pointer(address: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

impl Stream {
    /// Copies `bytes` in the order of this stream.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// Both ranges are mapped device memory, or page-locked host memory that no Rust reference covers, as stated by
    /// their places, until the copy is done.
    pub unsafe fn copy(
        &self,
        destination: (Place, u64),
        source: (Place, u64),
        bytes: usize,
    ) -> Result<(), CudaError> {
        let (table, stream) = (self.device().table(), self.handle);
        // SAFETY: the caller promises that the ranges are there and are what their places say.
        CudaError::check(unsafe {
            match (destination, source) {
                ((Place::Device, to), (Place::Device, from)) => {
                    (table.cuMemcpyDtoDAsync_v2)(to, from, bytes, stream)
                }
                ((Place::Device, to), (Place::Host, from)) => {
                    (table.cuMemcpyHtoDAsync_v2)(to, pointer(from), bytes, stream)
                }
                ((Place::Host, to), (Place::Device, from)) => {
                    (table.cuMemcpyDtoHAsync_v2)(pointer(to), from, bytes, stream)
                }
                ((Place::Host, to), (Place::Host, from)) => (table.cuMemcpyAsync)(to, from, bytes, stream),
            }
        })
    }

    /// Copies bytes of ordinary memory to the device in the order of this stream.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Safety
    /// The destination is mapped device memory, and both it and the bytes stay until the copy is done: the driver may read
    /// them at once or later.
    pub unsafe fn upload(&self, destination: u64, bytes: &[u8]) -> Result<(), CudaError> {
        // SAFETY: the caller promises that both ranges are there until the copy is done.
        CudaError::check(unsafe {
            (self.device().table().cuMemcpyHtoDAsync_v2)(
                destination,
                bytes.as_ptr().cast(),
                bytes.len(),
                self.handle,
            )
        })
    }

    /// Copies a box of rows and slices in the order of this stream.
    ///
    /// # Errors
    /// The driver's; `CUDA_ERROR_INVALID_VALUE` for a level that an array does not have.
    ///
    /// # Safety
    /// As [`Self::copy`], for every row in memory; arrays stay until the copy is done, and the box lies in them.
    pub unsafe fn copy_box(
        &self,
        destination: End<'_>,
        source: End<'_>,
        extent: Box3d,
    ) -> Result<(), CudaError> {
        let (to, from) = (destination.raw()?, source.raw()?);
        let array = |array: usize| std::ptr::with_exposed_provenance_mut(array);
        let parameters = sys::CUDA_MEMCPY3D {
            srcXInBytes: from.at[0],
            srcY: from.at[1],
            srcZ: from.at[2],
            srcLOD: 0,
            srcMemoryType: from.kind,
            srcHost: pointer(from.host),
            srcDevice: from.device,
            srcArray: array(from.array),
            reserved0: std::ptr::null_mut(),
            srcPitch: from.pitch,
            srcHeight: from.height,
            dstXInBytes: to.at[0],
            dstY: to.at[1],
            dstZ: to.at[2],
            dstLOD: 0,
            dstMemoryType: to.kind,
            dstHost: pointer(to.host),
            dstDevice: to.device,
            dstArray: array(to.array),
            reserved1: std::ptr::null_mut(),
            dstPitch: to.pitch,
            dstHeight: to.height,
            WidthInBytes: extent.width_bytes,
            Height: extent.height,
            Depth: extent.depth,
        };
        // SAFETY: the caller promises that the ranges are there and are what their places say.
        CudaError::check(unsafe { (self.device().table().cuMemcpy3DAsync_v2)(&parameters, self.handle) })
    }

    /// Sets `width` elements of 1, 2 or 4 bytes in each of `height` rows, in the order of this stream.
    ///
    /// # Errors
    /// The driver's; `CUDA_ERROR_INVALID_VALUE` for elements of another size.
    ///
    /// # Safety
    /// As [`Self::copy`], for every row.
    pub unsafe fn fill(
        &self,
        address: u64,
        (pitch, width, height): (usize, usize, usize),
        value: u32,
        element_bytes: u32,
    ) -> Result<(), CudaError> {
        let (table, stream) = (self.device().table(), self.handle);
        // SAFETY: the caller promises that the range is there.
        CudaError::check(unsafe {
            match (element_bytes, height) {
                (1, 1) => (table.cuMemsetD8Async)(address, value as u8, width, stream),
                (2, 1) => (table.cuMemsetD16Async)(address, value as u16, width, stream),
                (4, 1) => (table.cuMemsetD32Async)(address, value, width, stream),
                (1, _) => (table.cuMemsetD2D8Async)(address, pitch, value as u8, width, height, stream),
                (2, _) => (table.cuMemsetD2D16Async)(address, pitch, value as u16, width, height, stream),
                (4, _) => (table.cuMemsetD2D32Async)(address, pitch, value, width, height, stream),
                _ => CudaError::INVALID_VALUE.0,
            }
        })
    }
}
