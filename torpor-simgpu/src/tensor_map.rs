//! Tensor maps: descriptors for the bulk copy engine.
//!
//! The 128 bytes are opaque to programs and only used by kernels that the simulator cannot run, so they need not be those
//! of the hardware: they hold the arguments, checked. The address is inverted, so that nobody relies on seeing it there.

use crate::abi::{In, Out, TensorMap};
use crate::error::{CudaError, Result};
use crate::machine::Machine;

/// The arguments that both kinds share.
#[derive(Clone, Copy)]
pub struct Tensor {
    pub data_type: u32,
    pub rank: u32,
    pub address: u64,
    pub dimensions: In<u64>,
    pub strides: In<u64>,
    pub element_strides: In<u32>,
    pub modes: [u32; 4],
}

impl Tensor {
    fn encode(&self, machine: &Machine, ranks: std::ops::RangeInclusive<u32>) -> Result<TensorMap> {
        if !machine.config.profile.architecture.has_clusters() {
            return Err(CudaError::NOT_SUPPORTED);
        }
        let rank = self.rank as usize;
        if !ranks.contains(&self.rank)
            || !self.address.is_multiple_of(16)
            || self.address == 0
            || self.data_type > 15
        {
            return Err(CudaError::INVALID_VALUE);
        }
        let dimensions = self.dimensions.array(rank)?;
        let strides = self.strides.array(rank - 1)?;
        let element_strides = self.element_strides.array(rank)?;
        let dimension_fits = |&extent: &u64| (1..=1 << 32).contains(&extent);
        let stride_fits = |&stride: &u64| stride.is_multiple_of(16) && stride < 1 << 40;
        let element_fits = |&stride: &u32| (1..=8).contains(&stride);
        if !dimensions.iter().all(dimension_fits)
            || !strides.iter().all(stride_fits)
            || !element_strides.iter().all(element_fits)
        {
            return Err(CudaError::INVALID_VALUE);
        }
        let mut map = [0; 16];
        map[0] = !self.address;
        map[1] = u64::from(self.data_type) | u64::from(self.rank) << 32;
        map[2] = self.modes.iter().rev().fold(0, |word, &mode| word << 16 | u64::from(mode & 0xffff));
        for (place, extent) in map[3..8].iter_mut().zip(dimensions) {
            *place = extent;
        }
        for (place, stride) in map[8..12].iter_mut().zip(strides) {
            *place = stride;
        }
        map[12] = element_strides.iter().rev().fold(0, |word, &stride| word << 8 | u64::from(stride));
        Ok(map)
    }
}

pub fn tiled(machine: &Machine, map: Out<TensorMap>, tensor: Tensor, boxes: In<u32>) -> Result {
    let mut encoded = tensor.encode(machine, 1..=5)?;
    let boxes = boxes.array(tensor.rank as usize)?;
    if boxes.iter().any(|extent| !(1..=256).contains(extent)) {
        return Err(CudaError::INVALID_VALUE);
    }
    for (index, extent) in boxes.into_iter().enumerate() {
        encoded[13 + index / 4] |= u64::from(extent) << (16 * (index % 4));
    }
    map.set(encoded)
}

pub fn im2col(
    machine: &Machine,
    map: Out<TensorMap>,
    tensor: Tensor,
    corners: (In<i32>, In<i32>),
    channels_per_pixel: u32,
    pixels_per_column: u32,
) -> Result {
    let mut encoded = tensor.encode(machine, 3..=5)?;
    let count = tensor.rank as usize - 2;
    let (lower, upper) = (corners.0.array(count)?, corners.1.array(count)?);
    if channels_per_pixel > 256 || pixels_per_column > 1024 {
        return Err(CudaError::INVALID_VALUE);
    }
    let pack = |list: Vec<i32>| {
        list.into_iter().rev().fold(0_u64, |word, corner| word << 16 | u64::from(corner as u16))
    };
    encoded[13] = u64::from(channels_per_pixel) | u64::from(pixels_per_column) << 32;
    encoded[14] = pack(lower);
    encoded[15] = pack(upper);
    map.set(encoded)
}
