//! Arrays, and what their elements are like.

use super::copy::Extent;
use super::{ready, runtime_functions};
use crate::core::{Array, ArrayShape, CudaResult};
use crate::driver::argument::{In, Out};
use crate::driver::array::refuse_kind;
use crate::driver::texture::LINEAR_WIDTH;
use std::ffi::{c_int, c_void};
use torpor_proto::error::CudaError;

/// `cudaChannelFormatKind`
const SIGNED: c_int = 0;
const UNSIGNED: c_int = 1;
const FLOAT: c_int = 2;
/// The first and last of the normalised formats of 8 and 16 bits, which are in the order of `CU_AD_FORMAT_UNORM_INT8X1` and
/// those after it.
const FIRST_NORMALISED: c_int = 5;
const LAST_NORMALISED: c_int = 16;
const FIRST_NORMALISED_FORMAT: u32 = 0xc0;

/// `cudaErrorInvalidChannelDescriptor`
const INVALID_CHANNELS: CudaError = CudaError(20);

/// `cudaChannelFormatDesc`: bits of x, y, z, w; kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct ChannelFormat([c_int; 5]);

impl ChannelFormat {
    /// `CUarray_format` and the number of channels.
    pub(super) fn format(self) -> CudaResult<(u32, u32)> {
        let [x, y, z, w, kind] = self.0;
        let channels = match [x, y, z, w].map(|bits| bits != 0) {
            [true, false, false, false] => 1,
            [true, true, false, false] => 2,
            [true, true, true, true] => 4,
            _ => return Err(INVALID_CHANNELS),
        };
        if [y, z, w].into_iter().any(|bits| bits != 0 && bits != x) {
            return Err(INVALID_CHANNELS);
        }
        let format = match (kind, x) {
            (UNSIGNED, 8) => 0x01,
            (UNSIGNED, 16) => 0x02,
            (UNSIGNED, 32) => 0x03,
            (SIGNED, 8) => 0x08,
            (SIGNED, 16) => 0x09,
            (SIGNED, 32) => 0x0a,
            (FLOAT, 16) => 0x10,
            (FLOAT, 32) => 0x20,
            (FIRST_NORMALISED..=LAST_NORMALISED, 8 | 16) => {
                FIRST_NORMALISED_FORMAT + (kind - FIRST_NORMALISED).cast_unsigned()
            }
            _ => return Err(INVALID_CHANNELS),
        };
        Ok((format, channels))
    }

    /// The other way.
    pub(super) fn of(format: u32, channels: u32) -> Self {
        let (kind, bits) = match format {
            0x01..=0x03 => (UNSIGNED, 8 << (format - 0x01)),
            0x08..=0x0a => (SIGNED, 8 << (format - 0x08)),
            0x10 => (FLOAT, 16),
            0x20 => (FLOAT, 32),
            _ => {
                let at = format.wrapping_sub(FIRST_NORMALISED_FORMAT).cast_signed();
                (FIRST_NORMALISED + at, if at / 3 % 2 == 0 { 8 } else { 16 })
            }
        };
        let of = |channel: u32| if channel < channels { bits } else { 0 };
        Self([of(0), of(1), of(2), of(3), kind])
    }
}

pub(super) extern "C" fn cudaCreateChannelDesc(
    x_bits: c_int,
    y_bits: c_int,
    z_bits: c_int,
    w_bits: c_int,
    kind: c_int,
) -> ChannelFormat {
    ChannelFormat([x_bits, y_bits, z_bits, w_bits, kind])
}

fn create(
    place: Out<*mut c_void>,
    elements: In<ChannelFormat>,
    extent: Extent,
    levels: u32,
    flags: u32,
) -> CudaResult<()> {
    ready()?;
    if place.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    let (format, channels) = elements.get()?.format()?;
    let [width, height, depth] = [extent.width_bytes, extent.height, extent.depth].map(|count| count as u64);
    place.put(Array::create(ArrayShape { width, height, depth, format, channels, flags }, levels)?.handle())
}

runtime_functions! {
    fn cudaMallocArray(
        array: Out<*mut c_void>, elements: In<ChannelFormat>, width: usize, height: usize, flags: u32,
    ) {
        create(array, elements, Extent { width_bytes: width, height, depth: 0 }, 0, flags)
    }

    fn cudaMalloc3DArray(array: Out<*mut c_void>, elements: In<ChannelFormat>, extent: Extent, flags: u32) {
        create(array, elements, extent, 0, flags)
    }

    fn cudaMallocMipmappedArray(
        array: Out<*mut c_void>, elements: In<ChannelFormat>, extent: Extent, levels: u32, flags: u32,
    ) {
        if levels == 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        create(array, elements, extent, levels, flags)
    }

    fn cudaFreeArray(array: *mut c_void) {
        ready()?;
        if array.is_null() { Ok(()) } else { Array::find_own(array)?.destroy() }
    }

    fn cudaFreeMipmappedArray(array: *mut c_void) {
        ready()?;
        if array.is_null() { Ok(()) } else { Array::find_mipmapped(array)?.destroy() }
    }

    fn cudaGetMipmappedArrayLevel(level: Out<*mut c_void>, array: *mut c_void, number: u32) {
        ready()?;
        level.put(Array::find_mipmapped(array)?.level(number)?.handle())
    }

    fn cudaArrayGetInfo(elements: Out<ChannelFormat>, extent: Out<Extent>, flags: Out<u32>, array: *mut c_void) {
        ready()?;
        let shape = Array::find(array)?.shape();
        elements.put_if_wanted(ChannelFormat::of(shape.format, shape.channels));
        let [width_bytes, height, depth] = [shape.width, shape.height, shape.depth].map(|count| count as usize);
        extent.put_if_wanted(Extent { width_bytes, height, depth });
        flags.put_if_wanted(shape.flags);
        Ok(())
    }

    fn cudaGetChannelDesc(elements: Out<ChannelFormat>, array: *mut c_void) {
        ready()?;
        let shape = Array::find(array)?.shape();
        elements.put(ChannelFormat::of(shape.format, shape.channels))
    }

    fn cudaArrayGetPlane(_plane: Out<*mut c_void>, array: *mut c_void, _number: u32) {
        ready()?;
        refuse_kind(Array::find(array))
    }

    fn cudaArrayGetSparseProperties(_properties: Out<c_void>, array: *mut c_void) {
        ready()?;
        refuse_kind(Array::find(array))
    }

    fn cudaMipmappedArrayGetSparseProperties(_properties: Out<c_void>, array: *mut c_void) {
        ready()?;
        refuse_kind(Array::find_mipmapped(array))
    }

    fn cudaArrayGetMemoryRequirements(_requirements: Out<c_void>, array: *mut c_void, device: i32) {
        super::device(device)?;
        refuse_kind(Array::find(array))
    }

    fn cudaMipmappedArrayGetMemoryRequirements(_requirements: Out<c_void>, array: *mut c_void, device: i32) {
        super::device(device)?;
        refuse_kind(Array::find_mipmapped(array))
    }

    fn cudaDeviceGetTexture1DLinearMaxWidth(most: Out<usize>, _elements: In<ChannelFormat>, device: i32) {
        most.put(super::device(device)?.device().attribute(LINEAR_WIDTH)?.unsigned_abs() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_elements_are_like_is_said_in_both_ways() {
        let formats = [0x01, 0x02, 0x03, 0x08, 0x09, 0x0a, 0x10, 0x20];
        let plain = formats.into_iter().flat_map(|format| [1, 2, 4].map(|channels| (format, channels)));
        let normalised = (0xc0..=0xcb).map(|format| (format, [1, 2, 4][(format as usize - 0xc0) % 3]));
        for (format, channels) in plain.chain(normalised) {
            assert_eq!(ChannelFormat::of(format, channels).format(), Ok((format, channels)), "{format:#x}");
        }
        for elements in [[32, 32, 32, 0, FLOAT], [32, 16, 0, 0, FLOAT], [0; 5], [64, 0, 0, 0, FLOAT]] {
            assert_eq!(ChannelFormat(elements).format(), Err(INVALID_CHANNELS), "{elements:?}");
        }
    }
}
