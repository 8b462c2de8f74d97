//! Texture and surface objects: the driver's handles through which kernels reach arrays.

use super::Device;
use super::array::Array;
use super::table::{RawResource, RawSampler, RawView};
use std::sync::Arc;
use torpor_proto::command::{ResourceView, Sampler};
use torpor_proto::error::CudaError;

/// What a texture object is over.
#[derive(Clone, Copy, Debug)]
pub enum TextureSource<'a> {
    /// One level of an array.
    Level(&'a Array, u32),
    /// An array with all its levels.
    Levels(&'a Array),
    /// Elements in a row.
    Linear {
        /// First device address.
        address: u64,
        /// `CUarray_format`
        format: u32,
        /// Of an element.
        channels: u32,
        /// Length.
        bytes: u64,
    },
    /// Rows with a pitch.
    Pitched {
        /// First device address.
        address: u64,
        /// `CUarray_format`
        format: u32,
        /// Of an element.
        channels: u32,
        /// Elements of a row.
        width: u64,
        /// Rows.
        height: u64,
        /// Bytes from row to row.
        pitch: u64,
    },
}

impl TextureSource<'_> {
    fn raw(self) -> Result<RawResource, CudaError> {
        let mut of_kind = [0; 16];
        let kind = match self {
            Self::Level(array, level) => {
                of_kind[0] = array.level(level)? as u64;
                0
            }
            Self::Levels(array) => {
                of_kind[0] = array.all_levels()? as u64;
                1
            }
            Self::Linear { address, format, channels, bytes } => {
                of_kind[..3].copy_from_slice(&[address, pair(format, channels), bytes]);
                2
            }
            Self::Pitched { address, format, channels, width, height, pitch } => {
                of_kind[..5].copy_from_slice(&[address, pair(format, channels), width, height, pitch]);
                3
            }
        };
        Ok(RawResource { kind, of_kind, flags: 0 })
    }
}

/// Two fields of 32 bits, one behind the other.
fn pair(first: u32, second: u32) -> u64 {
    u64::from(first) | u64::from(second) << 32
}

/// A texture object. What it is over must outlive it.
#[derive(Debug)]
pub struct TextureObject {
    device: Arc<Device>,
    handle: u64,
}

impl TextureObject {
    /// Makes a texture object.
    ///
    /// # Errors
    /// The driver's; `CUDA_ERROR_INVALID_VALUE` for a level that the array does not have.
    pub fn new(
        device: &Arc<Device>,
        source: TextureSource<'_>,
        sampler: Sampler,
        view: &ResourceView,
    ) -> Result<Self, CudaError> {
        let (resource, sampler) = (source.raw()?, RawSampler { sampler, reserved: [0; 12] });
        let size = |number: u64| usize::try_from(number).map_err(|_| CudaError::INVALID_VALUE);
        let seen = RawView {
            format: view.format,
            extent: [size(view.width)?, size(view.height)?, size(view.depth)?],
            levels: [view.first_level, view.last_level],
            layers: [view.first_layer, view.last_layer],
            reserved: [0; 16],
        };
        let seen: *const RawView = if view.is_there == 0 { std::ptr::null() } else { &seen };
        let mut handle = 0;
        // SAFETY: reads the descriptors, of which the view may be null; writes one handle.
        CudaError::check(unsafe {
            (device.table().cuTexObjectCreate)(&mut handle, &resource, &sampler, seen)
        })?;
        Ok(Self { device: device.clone(), handle })
    }

    /// What kernels are given.
    #[must_use]
    pub fn handle(&self) -> u64 {
        self.handle
    }
}

impl Drop for TextureObject {
    fn drop(&mut self) {
        // SAFETY: made once and destroyed once, here.
        let _ = unsafe { (self.device.table().cuTexObjectDestroy)(self.handle) };
    }
}

/// A surface object. Its array must outlive it.
#[derive(Debug)]
pub struct SurfaceObject {
    device: Arc<Device>,
    handle: u64,
}

impl SurfaceObject {
    /// Makes a surface object for one level of an array.
    ///
    /// # Errors
    /// The driver's; `CUDA_ERROR_INVALID_VALUE` for a level that the array does not have.
    pub fn new(device: &Arc<Device>, array: &Array, level: u32) -> Result<Self, CudaError> {
        let (resource, mut handle) = (TextureSource::Level(array, level).raw()?, 0);
        // SAFETY: reads one descriptor, writes one handle.
        CudaError::check(unsafe { (device.table().cuSurfObjectCreate)(&mut handle, &resource) })?;
        Ok(Self { device: device.clone(), handle })
    }

    /// What kernels are given.
    #[must_use]
    pub fn handle(&self) -> u64 {
        self.handle
    }
}

impl Drop for SurfaceObject {
    fn drop(&mut self) {
        // SAFETY: made once and destroyed once, here.
        let _ = unsafe { (self.device.table().cuSurfObjectDestroy)(self.handle) };
    }
}
