//! Arrays: memory in an order of the driver's own, at no address, for textures and surfaces.

use super::table::RawArrayDescriptor;
use super::{Device, Handle};
use std::sync::Arc;
use torpor_proto::command::ArrayCreate;
use torpor_proto::error::CudaError;

/// An array, or one with several levels. It holds whatever was in its memory.
#[derive(Debug)]
pub struct Array {
    device: Arc<Device>,
    handle: Handle,
    is_mipmapped: bool,
    /// Itself, or its levels.
    levels: Vec<Handle>,
}

impl Array {
    /// Makes an array.
    ///
    /// # Errors
    /// The driver's; `CUDA_ERROR_OUT_OF_MEMORY` if there is too little left.
    pub fn new(device: &Arc<Device>, array: &ArrayCreate) -> Result<Self, CudaError> {
        let table = device.table();
        let size = |number: u64| usize::try_from(number).map_err(|_| CudaError::INVALID_VALUE);
        let descriptor = RawArrayDescriptor {
            width: size(array.width)?,
            height: size(array.height)?,
            depth: size(array.depth)?,
            format: array.format,
            channels: array.channels,
            flags: array.flags,
        };
        let (is_mipmapped, mut handle) = (array.levels > 0, 0);
        // SAFETY: reads one descriptor, writes one handle.
        CudaError::check(unsafe {
            match is_mipmapped {
                true => (table.cuMipmappedArrayCreate)(&mut handle, &descriptor, array.levels),
                false => (table.cuArray3DCreate_v2)(&mut handle, &descriptor),
            }
        })?;
        let mut made = Self { device: device.clone(), handle, is_mipmapped, levels: Vec::new() };
        for level in 0..array.levels {
            let mut handle = 0;
            // SAFETY: the array was just made; writes one handle.
            CudaError::check(unsafe { (table.cuMipmappedArrayGetLevel)(&mut handle, made.handle, level) })?;
            made.levels.push(handle);
        }
        if !is_mipmapped {
            made.levels.push(handle);
        }
        Ok(made)
    }

    /// One of its levels; 0 of an array without levels is itself.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` if it has no such level.
    pub(super) fn level(&self, level: u32) -> Result<Handle, CudaError> {
        self.levels.get(level as usize).copied().ok_or(CudaError::INVALID_VALUE)
    }

    /// All levels.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for an array without levels.
    pub(super) fn all_levels(&self) -> Result<Handle, CudaError> {
        if self.is_mipmapped { Ok(self.handle) } else { Err(CudaError::INVALID_VALUE) }
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        let table = self.device.table();
        // SAFETY: made once and destroyed once, here; levels go with the whole.
        let _ = unsafe {
            match self.is_mipmapped {
                true => (table.cuMipmappedArrayDestroy)(self.handle),
                false => (table.cuArrayDestroy)(self.handle),
            }
        };
    }
}
