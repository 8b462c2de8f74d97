//! Texture and surface objects: handles by which kernels reach arrays, or read memory as if it were one.

use std::sync::Arc;

use crate::abi::{In, Out, ResourceDesc, ResourceViewDesc, TextureDesc};
use crate::array::{Array, Element};
use crate::context;
use crate::error::{CudaError, Result};
use crate::machine::Machine;
use crate::memory::copy::is_device_memory;
use crate::object::Object;

/// `CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT` and `…_TEXTURE_PITCH_ALIGNMENT`.
const ALIGNMENT: u64 = 512;
const PITCH_ALIGNMENT: u64 = 32;

/// `CU_TR_ADDRESS_MODE_BORDER`, the last mode.
const LAST_MODE: u32 = 3;

/// What a texture object is over.
#[derive(Debug)]
pub enum Source {
    /// Arrays: one, or the levels of a mipmapped one.
    Levels(Vec<Arc<Array>>),
    /// Elements in memory.
    Memory {
        /// First address.
        address: u64,
        /// What is there.
        element: Element,
        /// Elements of a row.
        width: u64,
        /// Rows.
        height: u64,
        /// From one row to the next.
        pitch: u64,
        /// Made as one row (`tex1Dfetch`).
        is_linear: bool,
    },
}

/// A texture object.
#[derive(Debug)]
pub struct Texture {
    /// The device it is for.
    pub device: usize,
    /// What is read.
    pub source: Source,
    /// How.
    pub sampler: TextureDesc,
    resource: ResourceDesc,
    view: Option<ResourceViewDesc>,
}

/// A surface object.
#[derive(Debug)]
pub struct Surface {
    /// What is read and written.
    pub array: Arc<Array>,
    resource: ResourceDesc,
}

fn source(machine: &Machine, resource: &ResourceDesc) -> Result<Source> {
    let &ResourceDesc { kind, value, .. } = resource;
    let element = || Element::new(value[1] as u32, (value[1] >> 32) as u32);
    let memory = match kind {
        0 => return Ok(Source::Levels(vec![machine.arrays.find(value[0])?])),
        1 => {
            let levels = machine.mipmapped.find(value[0])?;
            return Ok(Source::Levels(levels.levels.iter().map(|(_, array)| array.clone()).collect()));
        }
        2 => {
            let (element, bytes) = (element()?, value[2]);
            let width = bytes / element.bytes();
            Source::Memory { address: value[0], element, width, height: 1, pitch: bytes, is_linear: true }
        }
        3 => {
            let [address, _, width, height, pitch] = value[..5].try_into().unwrap_or_default();
            Source::Memory { address, element: element()?, width, height, pitch, is_linear: false }
        }
        _ => return Err(CudaError::INVALID_VALUE),
    };
    if let Source::Memory { address, element, width, height, pitch, is_linear } = memory {
        let row_bytes = width.checked_mul(element.bytes()).ok_or(CudaError::INVALID_VALUE)?;
        let bytes = height.checked_sub(1).and_then(|rows| rows.checked_mul(pitch)?.checked_add(row_bytes));
        let is_aligned =
            address.is_multiple_of(ALIGNMENT) && (is_linear || pitch.is_multiple_of(PITCH_ALIGNMENT));
        let bytes = bytes.filter(|_| row_bytes > 0 && row_bytes <= pitch && is_aligned);
        if !is_device_memory(machine, address, bytes.ok_or(CudaError::INVALID_VALUE)?) {
            return Err(CudaError::INVALID_VALUE);
        }
    }
    Ok(memory)
}

pub fn create(
    machine: &Machine,
    handle: Out<u64>,
    resource: In<ResourceDesc>,
    sampler: In<TextureDesc>,
    view: In<ResourceViewDesc>,
) -> Result {
    let device = context::current(machine)?.device;
    let (resource, sampler) = (resource.get()?, sampler.get()?);
    let view = if view.is_null() { None } else { Some(view.get()?) };
    let is_known = sampler.address_modes.iter().all(|&mode| mode <= LAST_MODE)
        && sampler.filter_mode <= 1
        && sampler.mipmap_filter_mode <= 1
        && sampler.max_anisotropy <= 16;
    if resource.flags != 0 || !is_known || (view.is_some() && resource.kind > 1) {
        return Err(CudaError::INVALID_VALUE);
    }
    let source = source(machine, &resource)?;
    let texture = Texture { device, source, sampler, resource, view };
    handle.set(machine.objects.add(Object::Texture(Arc::new(texture)))?)
}

pub fn destroy(machine: &Machine, handle: u64) -> Result {
    machine.objects.texture(handle).map(|_| machine.objects.remove(handle))
}

pub fn resource(machine: &Machine, resource: Out<ResourceDesc>, handle: u64) -> Result {
    resource.set(machine.objects.texture(handle)?.resource)
}

pub fn sampler(machine: &Machine, sampler: Out<TextureDesc>, handle: u64) -> Result {
    sampler.set(machine.objects.texture(handle)?.sampler)
}

pub fn view(machine: &Machine, view: Out<ResourceViewDesc>, handle: u64) -> Result {
    let texture = machine.objects.texture(handle)?;
    view.set(texture.view.ok_or(CudaError::INVALID_VALUE)?)
}

pub fn create_surface(machine: &Machine, handle: Out<u64>, resource: In<ResourceDesc>) -> Result {
    let resource = resource.get()?;
    if resource.kind != 0 || resource.flags != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let array = machine.arrays.find(resource.value[0])?;
    if !array.is_for_surfaces() {
        return Err(CudaError::INVALID_VALUE);
    }
    handle.set(machine.objects.add(Object::Surface(Arc::new(Surface { array, resource })))?)
}

pub fn destroy_surface(machine: &Machine, handle: u64) -> Result {
    machine.objects.surface(handle).map(|_| machine.objects.remove(handle))
}

pub fn surface_resource(machine: &Machine, resource: Out<ResourceDesc>, handle: u64) -> Result {
    resource.set(machine.objects.surface(handle)?.resource)
}
