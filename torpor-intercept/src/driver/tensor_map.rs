//! Tensor maps: descriptors for Hopper's copy engine, encoded by the driver below. Addresses are the same everywhere.

use super::argument::{In, Out};
use super::cuda_functions;
use crate::core::{CudaResult, client};
use torpor_proto::command::{TensorMapIm2col, TensorMapTiled};
use torpor_proto::error::CudaError;

/// Reads `count` (at most 5) elements into an array of 5.
fn array<T: Copy + Default>(values: In<T>, count: u32) -> CudaResult<[T; 5]> {
    let mut all = [T::default(); 5];
    let some = all.get_mut(..count as usize).ok_or(CudaError::INVALID_VALUE)?;
    some.copy_from_slice(&values.slice(count as usize)?);
    Ok(all)
}

cuda_functions! {
    fn cuTensorMapEncodeTiled(
        map: Out<[u64; 16]>, data_type: u32, rank: u32, address: u64, dimensions: In<u64>, strides: In<u64>,
        box_dimensions: In<u32>, element_strides: In<u32>, interleave: u32, swizzle: u32, l2_promotion: u32, fill: u32,
    ) {
        let client = client()?;
        let command = TensorMapTiled {
            address,
            dimensions: array(dimensions, rank)?,
            strides: array(strides, rank.saturating_sub(1))?,
            box_dimensions: array(box_dimensions, rank)?,
            element_strides: array(element_strides, rank)?,
            data_type,
            rank,
            interleave,
            swizzle,
            l2_promotion,
            fill,
        };
        map.put(client.tensor_map(&command)?.words)
    }

    fn cuTensorMapEncodeIm2col(
        map: Out<[u64; 16]>, data_type: u32, rank: u32, address: u64, dimensions: In<u64>, strides: In<u64>,
        lower_corner: In<i32>, upper_corner: In<i32>, channels: u32, pixels: u32, element_strides: In<u32>,
        interleave: u32, swizzle: u32, l2_promotion: u32, fill: u32,
    ) {
        let client = client()?;
        // The corners have no entry for batch and channels (cuda.h).
        let corners = rank.saturating_sub(2);
        let command = TensorMapIm2col {
            address,
            dimensions: array(dimensions, rank)?,
            strides: array(strides, rank.saturating_sub(1))?,
            lower_corner: array(lower_corner, corners)?,
            upper_corner: array(upper_corner, corners)?,
            element_strides: array(element_strides, rank)?,
            channels,
            pixels,
            data_type,
            rank,
            interleave,
            swizzle,
            l2_promotion,
            fill,
            reserved: 0,
        };
        map.put(client.tensor_map(&command)?.words)
    }
}
