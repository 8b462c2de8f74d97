//! Texture and surface objects.

use super::array::ChannelFormat;
use super::{ready, runtime_functions};
use crate::core::texture::{Resource, Texture, array_of_surface, create_surface, destroy_surface};
use crate::core::{Array, CudaResult};
use crate::driver::argument::{In, Out};
use std::ffi::c_int;
use torpor_proto::command::{ResourceView, Sampler};
use torpor_proto::error::CudaError;

/// `cudaResourceType`
const ARRAY: u32 = 0;
const MIPMAPPED: u32 = 1;
const LINEAR: u32 = 2;
const PITCHED: u32 = 3;

/// `CU_TRSF_READ_AS_INTEGER`, `_NORMALIZED_COORDINATES`, `_SRGB`, `_DISABLE_TRILINEAR_OPTIMIZATION`, `_SEAMLESS_CUBEMAP`
const READ_AS_INTEGER: u32 = 0x01;
const NORMALIZED_COORDINATES: u32 = 0x02;
const SRGB: u32 = 0x10;
const NO_TRILINEAR_OPTIMIZATION: u32 = 0x20;
const SEAMLESS_CUBEMAP: u32 = 0x40;

/// `cudaReadModeElementType`
const ELEMENT_TYPE: u32 = 0;

/// `cudaFilterModeLinear`
const LINEAR_FILTER: u32 = 1;

/// `cudaErrorInvalidFilterSetting`, `cudaErrorInvalidNormSetting`
const INVALID_FILTER: CudaError = CudaError(26);
const INVALID_NORM: CudaError = CudaError(27);

/// `cudaResourceDesc` as CUDA 12 has it. In CUDA 13 the union is longer, and what is behind it is zero for these kinds.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct RawResource {
    kind: u32,
    padding: u32,
    /// An address, or an array's handle.
    address: u64,
    elements: ChannelFormat,
    more_padding: u32,
    /// Of linear memory the length in bytes, of pitched memory the width in elements.
    width: u64,
    height: u64,
    pitch: u64,
}

const _: () = assert!(size_of::<RawResource>() == 64);

impl RawResource {
    fn get(&self) -> CudaResult<Resource> {
        let &Self { address, elements, width, height, pitch, .. } = self;
        Ok(match self.kind {
            ARRAY => Resource::Array(address as usize),
            MIPMAPPED => Resource::Mipmapped(address as usize),
            LINEAR => {
                let (format, channels) = elements.format()?;
                Resource::Linear { address, format, channels, bytes: width }
            }
            PITCHED => {
                let (format, channels) = elements.format()?;
                Resource::Pitched { address, format, channels, width, height, pitch }
            }
            _ => return Err(CudaError::INVALID_VALUE),
        })
    }

    fn of(resource: Resource) -> Self {
        let none = Self::default();
        match resource {
            Resource::Array(array) => Self { kind: ARRAY, address: array as u64, ..none },
            Resource::Mipmapped(array) => Self { kind: MIPMAPPED, address: array as u64, ..none },
            Resource::Linear { address, format, channels, bytes } => Self {
                kind: LINEAR,
                address,
                elements: ChannelFormat::of(format, channels),
                width: bytes,
                ..none
            },
            Resource::Pitched { address, format, channels, width, height, pitch } => {
                let elements = ChannelFormat::of(format, channels);
                Self { kind: PITCHED, address, elements, width, height, pitch, ..none }
            }
        }
    }
}

/// `cudaTextureDesc`
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct RawSampler {
    address_modes: [u32; 3],
    filter: u32,
    read_mode: u32,
    srgb: c_int,
    border: [u32; 4],
    normalized_coordinates: c_int,
    max_anisotropy: u32,
    level_filter: u32,
    level_bias: u32,
    level_least: u32,
    level_most: u32,
    no_trilinear_optimization: c_int,
    seamless_cubemap: c_int,
}

const _: () = assert!(size_of::<RawSampler>() == 72);

impl RawSampler {
    /// Whether an array may be read like this, which the runtime says before the driver is asked.
    fn check(&self, resource: Resource) -> CudaResult<()> {
        let Resource::Array(array) = resource else { return Ok(()) };
        let format = Array::find(std::ptr::with_exposed_provenance_mut(array))?.shape().format;
        let is_integer = matches!(format, 0x01..=0x03 | 0x08..=0x0a);
        match self.read_mode == ELEMENT_TYPE {
            true if is_integer && self.filter == LINEAR_FILTER => Err(INVALID_FILTER),
            false if matches!(format, 0x03 | 0x0a) => Err(INVALID_NORM),
            _ => Ok(()),
        }
    }
}

impl From<RawSampler> for Sampler {
    fn from(raw: RawSampler) -> Self {
        let flags = [
            (raw.read_mode == ELEMENT_TYPE, READ_AS_INTEGER),
            (raw.normalized_coordinates != 0, NORMALIZED_COORDINATES),
            (raw.srgb != 0, SRGB),
            (raw.no_trilinear_optimization != 0, NO_TRILINEAR_OPTIMIZATION),
            (raw.seamless_cubemap != 0, SEAMLESS_CUBEMAP),
        ];
        Self {
            address_modes: raw.address_modes,
            filter: raw.filter,
            flags: flags.into_iter().filter(|(is_set, _)| *is_set).fold(0, |flags, (_, flag)| flags | flag),
            max_anisotropy: raw.max_anisotropy,
            level_filter: raw.level_filter,
            level_bias: raw.level_bias,
            level_least: raw.level_least,
            level_most: raw.level_most,
            border: raw.border,
        }
    }
}

impl From<Sampler> for RawSampler {
    fn from(sampler: Sampler) -> Self {
        let has = |flag: u32| c_int::from(sampler.flags & flag != 0);
        Self {
            address_modes: sampler.address_modes,
            filter: sampler.filter,
            read_mode: u32::from(sampler.flags & READ_AS_INTEGER == 0),
            srgb: has(SRGB),
            border: sampler.border,
            normalized_coordinates: has(NORMALIZED_COORDINATES),
            max_anisotropy: sampler.max_anisotropy,
            level_filter: sampler.level_filter,
            level_bias: sampler.level_bias,
            level_least: sampler.level_least,
            level_most: sampler.level_most,
            no_trilinear_optimization: has(NO_TRILINEAR_OPTIMIZATION),
            seamless_cubemap: has(SEAMLESS_CUBEMAP),
        }
    }
}

/// `cudaResourceViewDesc` as CUDA 12 has it. CUDA 13 has zeroes behind it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct RawView {
    format: u32,
    width: u64,
    height: u64,
    depth: u64,
    first_level: u32,
    last_level: u32,
    first_layer: u32,
    last_layer: u32,
}

const _: () = assert!(size_of::<RawView>() == 48);

impl From<RawView> for ResourceView {
    fn from(view: RawView) -> Self {
        let RawView { format, width, height, depth, first_level, last_level, first_layer, last_layer } = view;
        Self { is_there: 1, format, width, height, depth, first_level, last_level, first_layer, last_layer }
    }
}

impl From<ResourceView> for RawView {
    fn from(view: ResourceView) -> Self {
        let ResourceView {
            format,
            width,
            height,
            depth,
            first_level,
            last_level,
            first_layer,
            last_layer,
            ..
        } = view;
        Self { format, width, height, depth, first_level, last_level, first_layer, last_layer }
    }
}

runtime_functions! {
    fn cudaCreateTextureObject(
        texture: Out<u64>, resource: In<RawResource>, sampler: In<RawSampler>, view: In<RawView>,
    ) {
        ready()?;
        let (resource, sampler) = (resource.get()?.get()?, sampler.get()?);
        sampler.check(resource)?;
        let sampler = sampler.into();
        let view = if view.is_null() { ResourceView::default() } else { view.get()?.into() };
        if texture.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        texture.put(Texture { resource, sampler, view }.create()?)
    }

    fn cudaDestroyTextureObject(texture: u64) {
        ready()?;
        Texture::destroy(texture)
    }

    fn cudaGetTextureObjectResourceDesc(resource: Out<RawResource>, texture: u64) {
        ready()?;
        resource.put(RawResource::of(Texture::find(texture)?.resource))
    }

    fn cudaGetTextureObjectTextureDesc(sampler: Out<RawSampler>, texture: u64) {
        ready()?;
        sampler.put(Texture::find(texture)?.sampler.into())
    }

    fn cudaGetTextureObjectResourceViewDesc(view: Out<RawView>, texture: u64) {
        ready()?;
        let found = Texture::find(texture)?.view;
        if found.is_there == 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        view.put(found.into())
    }

    fn cudaCreateSurfaceObject(surface: Out<u64>, resource: In<RawResource>) {
        ready()?;
        let Resource::Array(array) = resource.get()?.get()? else { return Err(CudaError::INVALID_VALUE) };
        if surface.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        surface.put(create_surface(array)?)
    }

    fn cudaDestroySurfaceObject(surface: u64) {
        ready()?;
        destroy_surface(surface)
    }

    fn cudaGetSurfaceObjectResourceDesc(resource: Out<RawResource>, surface: u64) {
        ready()?;
        resource.put(RawResource::of(Resource::Array(array_of_surface(surface)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sampler_is_the_same_on_both_surfaces() {
        let raw = RawSampler {
            address_modes: [0, 1, 3],
            filter: 1,
            read_mode: 1,
            srgb: 1,
            border: [1, 2, 3, 4],
            normalized_coordinates: 1,
            max_anisotropy: 4,
            level_filter: 1,
            level_bias: 5,
            level_least: 6,
            level_most: 7,
            no_trilinear_optimization: 0,
            seamless_cubemap: 1,
        };
        let sampler = Sampler::from(raw);
        assert_eq!(sampler.flags, NORMALIZED_COORDINATES | SRGB | SEAMLESS_CUBEMAP);
        assert_eq!(Sampler::from(RawSampler::from(sampler)), sampler);
        let raw = RawSampler { read_mode: 0, normalized_coordinates: 0, srgb: 0, seamless_cubemap: 0, ..raw };
        assert_eq!(Sampler::from(raw).flags, READ_AS_INTEGER);
    }
}
