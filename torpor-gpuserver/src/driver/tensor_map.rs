//! Tensor maps: descriptors that the driver encodes on the CPU.

use super::Device;
use super::table::RawTensorMap;
use torpor_proto::command::{TensorMapIm2col, TensorMapTiled};
use torpor_proto::error::CudaError;

/// Dimensions of a tensor, at most: the length of the commands' arrays.
const MAX_RANK: u32 = 5;

impl Device {
    /// cuTensorMapEncodeTiled.
    ///
    /// # Errors
    /// The driver's; `CUDA_ERROR_INVALID_VALUE` for a rank that is not 1 to 5.
    pub fn tensor_map_tiled(&self, map: &TensorMapTiled) -> Result<[u64; 16], CudaError> {
        if !(1..=MAX_RANK).contains(&map.rank) {
            return Err(CudaError::INVALID_VALUE);
        }
        let mut encoded = RawTensorMap::default();
        // SAFETY: reads at most `rank` elements of each array, all of which have the largest rank; writes 128 bytes.
        CudaError::check(unsafe {
            (self.table().cuTensorMapEncodeTiled)(
                &mut encoded,
                map.data_type,
                map.rank,
                map.address,
                map.dimensions.as_ptr(),
                map.strides.as_ptr(),
                map.box_dimensions.as_ptr(),
                map.element_strides.as_ptr(),
                map.interleave,
                map.swizzle,
                map.l2_promotion,
                map.fill,
            )
        })?;
        Ok(encoded.0)
    }

    /// cuTensorMapEncodeIm2col.
    ///
    /// # Errors
    /// The driver's; `CUDA_ERROR_INVALID_VALUE` for a rank that is not 3 to 5.
    pub fn tensor_map_im2col(&self, map: &TensorMapIm2col) -> Result<[u64; 16], CudaError> {
        if !(3..=MAX_RANK).contains(&map.rank) {
            return Err(CudaError::INVALID_VALUE);
        }
        let mut encoded = RawTensorMap::default();
        // SAFETY: reads at most `rank` elements of each array, all of which have the largest rank; writes 128 bytes.
        CudaError::check(unsafe {
            (self.table().cuTensorMapEncodeIm2col)(
                &mut encoded,
                map.data_type,
                map.rank,
                map.address,
                map.dimensions.as_ptr(),
                map.strides.as_ptr(),
                map.lower_corner.as_ptr(),
                map.upper_corner.as_ptr(),
                map.channels,
                map.pixels,
                map.element_strides.as_ptr(),
                map.interleave,
                map.swizzle,
                map.l2_promotion,
                map.fill,
            )
        })?;
        Ok(encoded.0)
    }
}
