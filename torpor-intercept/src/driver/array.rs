//! Arrays, and the copies of consecutive bytes from and to them.

use super::argument::{In, Out};
use super::copy::{LEGACY, PER_THREAD};
use super::device::ordinal;
use super::{cuda_functions, stream_functions};
use crate::core::{Array, ArrayShape, CudaResult, LineSide, StreamHandle, client, contexts};
use std::ffi::c_void;
use torpor_proto::error::CudaError;

/// `CUDA_ARRAY_DESCRIPTOR`
#[derive(Clone, Copy)]
#[repr(C)]
struct Descriptor {
    width: usize,
    height: usize,
    format: u32,
    channels: u32,
}

/// `CUDA_ARRAY3D_DESCRIPTOR`
#[derive(Clone, Copy)]
#[repr(C)]
struct Descriptor3D {
    width: usize,
    height: usize,
    depth: usize,
    format: u32,
    channels: u32,
    flags: u32,
}

const _: () = assert!(size_of::<Descriptor>() == size_of::<cudarc::driver::sys::CUDA_ARRAY_DESCRIPTOR>());
const _: () = assert!(size_of::<Descriptor3D>() == size_of::<cudarc::driver::sys::CUDA_ARRAY3D_DESCRIPTOR>());

impl From<Descriptor3D> for ArrayShape {
    fn from(descriptor: Descriptor3D) -> Self {
        let Descriptor3D { width, height, depth, format, channels, flags } = descriptor;
        Self { width: width as u64, height: height as u64, depth: depth as u64, format, channels, flags }
    }
}

impl From<ArrayShape> for Descriptor3D {
    fn from(shape: ArrayShape) -> Self {
        let ArrayShape { width, height, depth, format, channels, flags } = shape;
        Self {
            width: width as usize,
            height: height as usize,
            depth: depth as usize,
            format,
            channels,
            flags,
        }
    }
}

fn create(place: Out<*mut c_void>, shape: ArrayShape, levels: u32) -> CudaResult<()> {
    client()?;
    contexts::require()?;
    if place.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    place.put(Array::create(shape, levels)?.handle())
}

cuda_functions! {
    fn cuArrayCreate_v2(array: Out<*mut c_void>, descriptor: In<Descriptor>) {
        let Descriptor { width, height, format, channels } = descriptor.get()?;
        let (width, height) = (width as u64, height as u64);
        create(array, ArrayShape { width, height, depth: 0, format, channels, flags: 0 }, 0)
    }

    fn cuArray3DCreate_v2(array: Out<*mut c_void>, descriptor: In<Descriptor3D>) {
        create(array, descriptor.get()?.into(), 0)
    }

    fn cuArrayGetDescriptor_v2(descriptor: Out<Descriptor>, array: *mut c_void) {
        client()?;
        let ArrayShape { width, height, format, channels, .. } = Array::find(array)?.shape();
        descriptor.put(Descriptor { width: width as usize, height: height as usize, format, channels })
    }

    fn cuArray3DGetDescriptor_v2(descriptor: Out<Descriptor3D>, array: *mut c_void) {
        client()?;
        descriptor.put(Array::find(array)?.shape().into())
    }

    fn cuArrayDestroy(array: *mut c_void) {
        client()?;
        Array::find_own(array)?.destroy()
    }

    fn cuMipmappedArrayCreate(array: Out<*mut c_void>, descriptor: In<Descriptor3D>, levels: u32) {
        if levels == 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        create(array, descriptor.get()?.into(), levels)
    }

    fn cuMipmappedArrayGetLevel(level: Out<*mut c_void>, array: *mut c_void, number: u32) {
        client()?;
        level.put(Array::find_mipmapped(array)?.level(number)?.handle())
    }

    fn cuMipmappedArrayDestroy(array: *mut c_void) {
        client()?;
        Array::find_mipmapped(array)?.destroy()
    }
}

/// What `cuArrayGetPlane`, `…GetSparseProperties` and `…GetMemoryRequirements` are for: arrays of several planes, sparse ones, and those
/// that are mapped later, of which there are none. Of every other array they say so (cuda.h).
pub(crate) fn refuse_kind(array: CudaResult<&'static Array>) -> CudaResult<()> {
    array.and(Err(CudaError::INVALID_VALUE))
}

cuda_functions! {
    fn cuArrayGetPlane(_plane: Out<*mut c_void>, array: *mut c_void, _number: u32) {
        client()?;
        refuse_kind(Array::find(array))
    }

    fn cuArrayGetSparseProperties(_properties: Out<c_void>, array: *mut c_void) {
        client()?;
        refuse_kind(Array::find(array))
    }

    fn cuMipmappedArrayGetSparseProperties(_properties: Out<c_void>, array: *mut c_void) {
        client()?;
        refuse_kind(Array::find_mipmapped(array))
    }

    fn cuArrayGetMemoryRequirements(_requirements: Out<c_void>, array: *mut c_void, device: i32) {
        ordinal(device)?;
        refuse_kind(Array::find(array))
    }

    fn cuMipmappedArrayGetMemoryRequirements(_requirements: Out<c_void>, array: *mut c_void, device: i32) {
        ordinal(device)?;
        refuse_kind(Array::find_mipmapped(array))
    }
}

fn copy(sides: [CudaResult<LineSide>; 2], bytes: usize, stream: StreamHandle, waits: bool) -> CudaResult<()> {
    let client = client()?;
    contexts::require()?;
    let [destination, source] = sides;
    // SAFETY: the program promises that what is in memory is valid for that many bytes (cuMemcpyHtoA and its relatives).
    unsafe { client.copy_line([destination?, source?], bytes as u64, stream.find()?, waits) }
}

fn array(handle: *mut c_void, offset: usize) -> CudaResult<LineSide> {
    Ok(LineSide::Array(Array::find(handle)?, offset as u64, 0))
}

fn host(address: u64) -> CudaResult<LineSide> {
    Ok(LineSide::Memory(address))
}

fn device(address: u64) -> CudaResult<LineSide> {
    use crate::core::Location;
    match client()?.locate(address, 1) {
        Location::Pageable(_) => Err(CudaError::INVALID_VALUE),
        _ => Ok(LineSide::Memory(address)),
    }
}

macro_rules! synchronous_copies {
    ($($name:ident / $per_thread:ident ($($argument:ident: $type:ty),*) => $to:expr, $from:expr;)*) => {
        cuda_functions! {$(
            fn $name($($argument: $type,)* bytes: usize) {
                copy([$to, $from], bytes, LEGACY, true)
            }

            fn $per_thread($($argument: $type,)* bytes: usize) {
                copy([$to, $from], bytes, PER_THREAD, true)
            }
        )*}
    };
}

synchronous_copies! {
    cuMemcpyHtoA_v2 / cuMemcpyHtoA_v2_ptds (to: *mut c_void, offset: usize, from: u64) => array(to, offset), host(from);
    cuMemcpyAtoH_v2 / cuMemcpyAtoH_v2_ptds (to: u64, from: *mut c_void, offset: usize) => host(to), array(from, offset);
    cuMemcpyDtoA_v2 / cuMemcpyDtoA_v2_ptds (to: *mut c_void, offset: usize, from: u64) => array(to, offset), device(from);
    cuMemcpyAtoD_v2 / cuMemcpyAtoD_v2_ptds (to: u64, from: *mut c_void, offset: usize) => device(to), array(from, offset);
    cuMemcpyAtoA_v2 / cuMemcpyAtoA_v2_ptds (to: *mut c_void, to_offset: usize, from: *mut c_void, from_offset: usize) =>
        array(to, to_offset), array(from, from_offset);
}

stream_functions! {
    fn cuMemcpyHtoAAsync_v2 / cuMemcpyHtoAAsync_v2_ptsz(
        to: *mut c_void, offset: usize, from: u64, bytes: usize, @ stream,
    ) {
        copy([array(to, offset), host(from)], bytes, stream, false)
    }

    fn cuMemcpyAtoHAsync_v2 / cuMemcpyAtoHAsync_v2_ptsz(
        to: u64, from: *mut c_void, offset: usize, bytes: usize, @ stream,
    ) {
        copy([host(to), array(from, offset)], bytes, stream, false)
    }
}
