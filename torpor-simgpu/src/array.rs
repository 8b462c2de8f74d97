//! CUDA arrays: rows and slices in memory that has no address for programs, as textures and surfaces read and write it.
//!
//! The order of the memory is rows behind each other, which programs cannot see. A mipmapped array's levels are arrays of
//! their own. Limits: elements of 8, 16 and 32 bits in 1, 2 or 4 channels, without the normalised and compressed formats.

use std::sync::Arc;

use crate::abi::{Array3dDescriptor, ArrayDescriptor, In, Out};
use crate::context;
use crate::error::{CudaError, Result};
use crate::machine::Machine;
use crate::memory::{Mapping, Physical};

/// `CUDA_ARRAY3D_LAYERED`, `CUDA_ARRAY3D_SURFACE_LDST`, `CUDA_ARRAY3D_CUBEMAP`, `CUDA_ARRAY3D_TEXTURE_GATHER`.
const LAYERED: u32 = 1;
const SURFACE: u32 = 2;
const CUBEMAP: u32 = 4;
const FLAGS: u32 = LAYERED | SURFACE | CUBEMAP | 8;

/// What levels begin at a multiple of.
const ALIGNMENT: u64 = 512;

/// Elements in each dimension, at most.
const MOST: [usize; 3] = [131_072, 65_536, 16_384];

/// What numbers an element's channels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// Integers from zero.
    Unsigned,
    /// Integers.
    Signed,
    /// Of 16 or 32 bits.
    Float,
}

/// What an element is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element {
    /// Its channels' numbers.
    pub number: Number,
    /// Bytes of a channel.
    pub channel_bytes: u64,
    /// How many.
    pub channels: u64,
}

impl Element {
    /// Of a `CUarray_format` and channels.
    pub fn new(format: u32, channels: u32) -> Result<Self> {
        let (number, channel_bytes) = match format {
            0x01..=0x03 => (Number::Unsigned, 1 << (format - 1)),
            0x08..=0x0a => (Number::Signed, 1 << (format - 8)),
            0x10 => (Number::Float, 2),
            0x20 => (Number::Float, 4),
            _ => return Err(CudaError::INVALID_VALUE),
        };
        match channels {
            1 | 2 | 4 => Ok(Self { number, channel_bytes, channels: channels.into() }),
            _ => Err(CudaError::INVALID_VALUE),
        }
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.channel_bytes * self.channels
    }
}

/// An array, or a level of one.
#[derive(Debug)]
pub struct Array {
    /// The device that has it.
    pub device: usize,
    /// What it was made as.
    pub descriptor: Array3dDescriptor,
    /// What is in it.
    pub element: Element,
    is_level: bool,
    memory: Arc<Mapping>,
    offset: u64,
}

/// A mipmapped array.
#[derive(Debug)]
pub struct Mipmapped {
    /// Levels with their handles, the largest first.
    pub levels: Vec<(u64, Arc<Array>)>,
}

impl Array {
    /// Elements of a row, rows, slices or layers: none is 0.
    pub fn extent(&self) -> [u64; 3] {
        let Array3dDescriptor { width, height, depth, .. } = self.descriptor;
        [width, height, depth].map(|count| count.max(1) as u64)
    }

    /// Whether surface objects can be made of it.
    pub fn is_for_surfaces(&self) -> bool {
        self.descriptor.flags & SURFACE != 0
    }

    /// From one row to the next.
    pub fn pitch(&self) -> u64 {
        self.extent()[0] * self.element.bytes()
    }

    /// From one slice to the next.
    pub fn slice(&self) -> u64 {
        self.pitch() * self.extent()[1]
    }

    fn bytes(&self) -> u64 {
        self.slice() * self.extent()[2]
    }

    /// Where in the process it is.
    pub fn start(&self) -> u64 {
        self.memory.start + self.offset
    }

    /// Whether a box of bytes, rows and slices from a place in bytes, rows and slices lies in it.
    pub fn holds(&self, at: [u64; 3], lengths: [u64; 3]) -> bool {
        let [_, rows, slices] = self.extent();
        let ends = [self.pitch(), rows, slices];
        let fits = |index: usize| at[index].checked_add(lengths[index]).is_some_and(|end| end <= ends[index]);
        let element = self.element.bytes();
        at[0].is_multiple_of(element) && lengths[0].is_multiple_of(element) && (0..3).all(fits)
    }

    /// Its memory at an address, ready for use, if all of that is its own.
    pub fn open(&self, address: u64, bytes: u64, overwrites: bool) -> Option<*mut u8> {
        let offset = address.checked_sub(self.start()).filter(|offset| offset + bytes <= self.bytes())?;
        let offset = self.offset + offset;
        let physical = self.memory.physical()?;
        physical.prepare(self.memory.base(), offset, bytes, overwrites);
        // SAFETY: the array's part of the mapping holds these bytes, see above.
        Some(unsafe { self.memory.base().add(offset as usize) })
    }
}

/// The descriptor of a level.
fn level(descriptor: &Array3dDescriptor, level: u32) -> Array3dDescriptor {
    let shrunk = |count: usize| if count == 0 { 0 } else { (count >> level).max(1) };
    let is_layered = descriptor.flags & (LAYERED | CUBEMAP) != 0;
    Array3dDescriptor {
        width: shrunk(descriptor.width),
        height: shrunk(descriptor.height),
        depth: if is_layered { descriptor.depth } else { shrunk(descriptor.depth) },
        ..*descriptor
    }
}

/// Makes the levels of an array.
fn make(
    machine: &Machine,
    descriptor: &Array3dDescriptor,
    levels: u32,
    is_level: bool,
) -> Result<Vec<Arc<Array>>> {
    let context = context::current(machine)?;
    let element = Element::new(descriptor.format, descriptor.channels)?;
    let Array3dDescriptor { width, height, depth, flags, .. } = *descriptor;
    let is_layered = flags & (LAYERED | CUBEMAP) != 0;
    let is_small = [width, height, depth].into_iter().zip(MOST).all(|(count, most)| count <= most);
    let is_flat = if is_layered { depth > 0 } else { depth == 0 || height > 0 };
    let is_cube = flags & CUBEMAP == 0 || (width == height && depth.is_multiple_of(6));
    let most_levels = usize::BITS - width.max(height).max(if is_layered { 0 } else { depth }).leading_zeros();
    if width == 0 || flags & !FLAGS != 0 || !is_small || !is_flat || !is_cube || levels > most_levels {
        return Err(CudaError::INVALID_VALUE);
    }
    let bytes = |descriptor: &Array3dDescriptor| {
        let count = |count: usize| count.max(1) as u64;
        let elements = count(descriptor.width) * count(descriptor.height) * count(descriptor.depth);
        (elements * element.bytes()).next_multiple_of(ALIGNMENT)
    };
    let descriptors: Vec<_> = (0..levels).map(|number| level(descriptor, number)).collect();
    let all: u64 = descriptors.iter().map(bytes).sum();
    machine.health(Some(context.device))?;
    machine.clock.host_works(machine.config.profile.create_us);
    let budget = &machine.devices[context.device].budget;
    let physical = Physical::new(context.device, budget, all, false)?;
    let memory = machine.space.hide(physical, all)?;
    let mut offset = 0;
    let made = descriptors.into_iter().map(|descriptor| {
        let array =
            Array { device: context.device, descriptor, element, is_level, memory: memory.clone(), offset };
        offset += bytes(&descriptor);
        Arc::new(array)
    });
    Ok(made.collect())
}

pub fn create(machine: &Machine, handle: Out<u64>, descriptor: In<Array3dDescriptor>) -> Result {
    let descriptor = descriptor.get()?;
    if handle.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    let array = make(machine, &descriptor, 1, false)?.pop().ok_or(CudaError::INVALID_VALUE)?;
    handle.set(machine.arrays.add(array))
}

/// The array behind a handle that is no level of another one.
fn own(machine: &Machine, handle: u64) -> Result<Arc<Array>> {
    machine.arrays.find(handle).ok().filter(|array| !array.is_level).ok_or(CudaError::INVALID_HANDLE)
}

pub fn destroy(machine: &Machine, handle: u64) -> Result {
    own(machine, handle)?;
    // As the driver does: nothing that was issued before can lose its memory.
    context::current(machine)?.synchronize(machine)?;
    machine.arrays.remove(handle).map(drop)
}

pub fn descriptor(machine: &Machine, descriptor: Out<ArrayDescriptor>, handle: u64) -> Result {
    let Array3dDescriptor { width, height, format, channels, .. } = machine.arrays.find(handle)?.descriptor;
    descriptor.set(ArrayDescriptor { width, height, format, channels })
}

pub fn descriptor_3d(machine: &Machine, descriptor: Out<Array3dDescriptor>, handle: u64) -> Result {
    descriptor.set(machine.arrays.find(handle)?.descriptor)
}

pub fn create_mipmapped(
    machine: &Machine,
    handle: Out<u64>,
    descriptor: In<Array3dDescriptor>,
    levels: u32,
) -> Result {
    let descriptor = descriptor.get()?;
    if handle.is_null() || levels == 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let levels = make(machine, &descriptor, levels, true)?;
    let levels = levels.into_iter().map(|array| (machine.arrays.add(array.clone()), array)).collect();
    handle.set(machine.mipmapped.add(Arc::new(Mipmapped { levels })))
}

pub fn mipmap_level(machine: &Machine, handle: Out<u64>, mipmapped: u64, level: u32) -> Result {
    let mipmapped = machine.mipmapped.find(mipmapped)?;
    handle.set(mipmapped.levels.get(level as usize).ok_or(CudaError::INVALID_VALUE)?.0)
}

pub fn destroy_mipmapped(machine: &Machine, handle: u64) -> Result {
    let mipmapped = machine.mipmapped.find(handle)?;
    context::current(machine)?.synchronize(machine)?;
    mipmapped.levels.iter().for_each(|&(level, _)| drop(machine.arrays.remove(level)));
    machine.mipmapped.remove(handle).map(drop)
}

/// A device's arrays go with its context.
pub fn free_all(machine: &Machine, device: usize) {
    machine.objects.remove_all(device);
    machine.arrays.remove_all(|array| array.device == device);
    machine
        .mipmapped
        .remove_all(|mipmapped| mipmapped.levels.iter().all(|(_, array)| array.device == device));
}
