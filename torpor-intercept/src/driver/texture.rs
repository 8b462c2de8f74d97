//! Texture and surface objects.

use super::argument::{In, Out};
use super::cuda_functions;
use super::device::device;
use crate::core::texture::{Resource, Texture, array_of_surface, create_surface, destroy_surface};
use crate::core::{CudaResult, client, contexts};
use torpor_proto::command::{ResourceView, Sampler};
use torpor_proto::error::CudaError;

/// `CUresourcetype`
const ARRAY: u32 = 0;
const MIPMAPPED: u32 = 1;
const LINEAR: u32 = 2;
const PITCHED: u32 = 3;

/// `CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LINEAR_WIDTH`
pub(crate) const LINEAR_WIDTH: i32 = 69;

/// `CUDA_RESOURCE_DESC`, with words for its union.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct RawResource {
    kind: u32,
    of_kind: [u64; 16],
    flags: u32,
}

/// `CUDA_TEXTURE_DESC`
#[derive(Clone, Copy)]
#[repr(C)]
struct RawSampler {
    sampler: Sampler,
    reserved: [u32; 12],
}

/// `CUDA_RESOURCE_VIEW_DESC`
#[derive(Clone, Copy)]
#[repr(C)]
struct RawView {
    format: u32,
    width: usize,
    height: usize,
    depth: usize,
    first_level: u32,
    last_level: u32,
    first_layer: u32,
    last_layer: u32,
    reserved: [u32; 16],
}

const _: () = assert!(size_of::<RawResource>() == size_of::<cudarc::driver::sys::CUDA_RESOURCE_DESC>());
const _: () = assert!(size_of::<RawSampler>() == size_of::<cudarc::driver::sys::CUDA_TEXTURE_DESC>());
const _: () = assert!(size_of::<RawView>() == size_of::<cudarc::driver::sys::CUDA_RESOURCE_VIEW_DESC>());

impl RawResource {
    fn get(&self) -> CudaResult<Resource> {
        let words = &self.of_kind;
        if self.flags != 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        // The format and the number of channels lie side by side.
        let (address, format, channels) = (words[0], words[1] as u32, (words[1] >> 32) as u32);
        Ok(match self.kind {
            ARRAY => Resource::Array(words[0] as usize),
            MIPMAPPED => Resource::Mipmapped(words[0] as usize),
            LINEAR => Resource::Linear { address, format, channels, bytes: words[2] },
            PITCHED => {
                let (width, height, pitch) = (words[2], words[3], words[4]);
                Resource::Pitched { address, format, channels, width, height, pitch }
            }
            _ => return Err(CudaError::INVALID_VALUE),
        })
    }

    fn of(resource: Resource) -> Self {
        let pair = |format: u32, channels: u32| u64::from(format) | u64::from(channels) << 32;
        let (kind, words) = match resource {
            Resource::Array(array) => (ARRAY, [array as u64, 0, 0, 0, 0]),
            Resource::Mipmapped(array) => (MIPMAPPED, [array as u64, 0, 0, 0, 0]),
            Resource::Linear { address, format, channels, bytes } => {
                (LINEAR, [address, pair(format, channels), bytes, 0, 0])
            }
            Resource::Pitched { address, format, channels, width, height, pitch } => {
                (PITCHED, [address, pair(format, channels), width, height, pitch])
            }
        };
        let mut raw = Self { kind, ..Self::default() };
        raw.of_kind[..words.len()].copy_from_slice(&words);
        raw
    }
}

impl From<RawView> for ResourceView {
    fn from(view: RawView) -> Self {
        let RawView {
            format, width, height, depth, first_level, last_level, first_layer, last_layer, ..
        } = view;
        let (width, height, depth) = (width as u64, height as u64, depth as u64);
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
        let (width, height, depth) = (width as usize, height as usize, depth as usize);
        let reserved = [0; 16];
        Self { format, width, height, depth, first_level, last_level, first_layer, last_layer, reserved }
    }
}

cuda_functions! {
    fn cuTexObjectCreate(
        texture: Out<u64>, resource: In<RawResource>, sampler: In<RawSampler>, view: In<RawView>,
    ) {
        client()?;
        contexts::require()?;
        let (resource, sampler) = (resource.get()?.get()?, sampler.get()?.sampler);
        let view = if view.is_null() { ResourceView::default() } else { view.get()?.into() };
        if texture.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        texture.put(Texture { resource, sampler, view }.create()?)
    }

    fn cuTexObjectDestroy(texture: u64) {
        Texture::destroy(texture)
    }

    fn cuTexObjectGetResourceDesc(resource: Out<RawResource>, texture: u64) {
        client()?;
        resource.put(RawResource::of(Texture::find(texture)?.resource))
    }

    fn cuTexObjectGetTextureDesc(sampler: Out<RawSampler>, texture: u64) {
        client()?;
        sampler.put(RawSampler { sampler: Texture::find(texture)?.sampler, reserved: [0; 12] })
    }

    fn cuTexObjectGetResourceViewDesc(view: Out<RawView>, texture: u64) {
        client()?;
        let found = Texture::find(texture)?.view;
        if found.is_there == 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        view.put(found.into())
    }

    fn cuSurfObjectCreate(surface: Out<u64>, resource: In<RawResource>) {
        client()?;
        contexts::require()?;
        let Resource::Array(array) = resource.get()?.get()? else { return Err(CudaError::INVALID_VALUE) };
        if surface.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        surface.put(create_surface(array)?)
    }

    fn cuSurfObjectDestroy(surface: u64) {
        destroy_surface(surface)
    }

    fn cuSurfObjectGetResourceDesc(resource: Out<RawResource>, surface: u64) {
        client()?;
        resource.put(RawResource::of(Resource::Array(array_of_surface(surface)?)))
    }

    fn cuDeviceGetTexture1DLinearMaxWidth(most: Out<usize>, _format: u32, _channels: u32, device: i32) {
        most.put(self::device(device)?.device().attribute(LINEAR_WIDTH)?.unsigned_abs() as usize)
    }
}
