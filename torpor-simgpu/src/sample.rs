//! Reading textures, and finding places in surfaces.
//!
//! As on hardware: point filtering takes the element that a coordinate lies in, linear filtering weighs the nearest ones with
//! weights of 8 bits, coordinates outside follow the address mode. Between levels the nearest is taken.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::array::{Array, Element, Number};
use crate::machine::Machine;
use crate::memory::{Accessor, Intent};
use crate::ptx::{Access, MemoryFault, SurfacePlace, TexturePlace, f16_to_single};
use crate::texture::{Source, Texture};

/// `CU_TRSF_READ_AS_INTEGER`, `CU_TRSF_NORMALIZED_COORDINATES`
const READ_AS_INTEGER: u32 = 1;
const NORMALIZED: u32 = 2;

/// `CUaddress_mode`
const WRAP: u32 = 0;
const MIRROR: u32 = 2;
const BORDER: u32 = 3;

fn fault(handle: u64, access: Access, reason: &'static str) -> MemoryFault {
    MemoryFault { address: handle, bytes: 0, access, reason }
}

/// What is read of a texture: one level, or memory.
struct Image<'a> {
    texture: &'a Texture,
    array: Option<&'a Array>,
    element: Element,
    extent: [u64; 3],
    handle: u64,
}

/// Channels as numbers, or as the bits of integers.
#[derive(Clone, Copy)]
enum Texel {
    Real([f32; 4]),
    Integer([u32; 4]),
}

impl<'a> Image<'a> {
    fn of(texture: &'a Texture, handle: u64, level: f32) -> Self {
        match &texture.source {
            Source::Levels(levels) => {
                let sampler = &texture.sampler;
                let level = (level + sampler.mipmap_level_bias).clamp(
                    sampler.min_mipmap_level_clamp,
                    sampler.max_mipmap_level_clamp.max(sampler.min_mipmap_level_clamp),
                );
                let array = &levels[(level.round() as usize).min(levels.len() - 1)];
                Self { texture, array: Some(array), element: array.element, extent: array.extent(), handle }
            }
            &Source::Memory { element, width, height, .. } => {
                Self { texture, array: None, element, extent: [width, height, 1], handle }
            }
        }
    }

    fn is_integer(&self) -> bool {
        self.element.number != Number::Float
            && (self.element.channel_bytes == 4 || self.texture.sampler.flags & READ_AS_INTEGER != 0)
    }

    fn border(&self) -> Texel {
        let border = self.texture.sampler.border_color;
        if self.is_integer() {
            Texel::Integer(border.map(|channel| channel as u32))
        } else {
            Texel::Real(border)
        }
    }

    /// The element with this number in each dimension, or nothing if the address mode gives the border there.
    fn addressed(&self, at: [i64; 3], dimensions: usize) -> Option<[u64; 3]> {
        let mut found = at.map(|index| index.max(0).cast_unsigned());
        let normalized = self.texture.sampler.flags & NORMALIZED != 0;
        for dimension in 0..dimensions {
            let (index, count) = (at[dimension], self.extent[dimension].cast_signed());
            let is_inside = (0..count).contains(&index);
            let index = match self.texture.sampler.address_modes[dimension] {
                _ if is_inside => index,
                BORDER => return None,
                WRAP if normalized => index.rem_euclid(count),
                MIRROR if normalized => {
                    let index = index.rem_euclid(2 * count);
                    index.min(2 * count - 1 - index)
                }
                _ => index.clamp(0, count - 1),
            };
            found[dimension] = index.cast_unsigned();
        }
        Some(found)
    }

    fn read(&self, accessor: &Accessor<'_>, [x, y, z]: [u64; 3]) -> Result<Texel, MemoryFault> {
        let bytes = self.element.bytes();
        let host = match (self.array, &self.texture.source) {
            (Some(array), _) => {
                let address = array.start() + z * array.slice() + y * array.pitch() + x * bytes;
                array.open(address, bytes, false).and_then(NonNull::new)
            }
            (None, &Source::Memory { address, pitch, .. }) => {
                let opened = accessor.open(address + y * pitch + x * bytes, bytes, Intent::Read);
                Some(opened.map_err(|reason| fault(self.handle, Access::Read, reason))?)
            }
            (None, Source::Levels(_)) => None,
        };
        let host = host.ok_or_else(|| fault(self.handle, Access::Read, "outside the texture"))?;
        let byte = |at: u64| {
            // SAFETY: the element's bytes were opened, and stay until the launch returns; an atomic may be shared with other threads.
            unsafe { host.add(at as usize).cast::<AtomicU8>().as_ref() }.load(Ordering::Relaxed)
        };
        let channel = |index: u64| -> u32 {
            let first = index * self.element.channel_bytes;
            (0..self.element.channel_bytes).rev().fold(0, |bits, at| bits << 8 | u32::from(byte(first + at)))
        };
        let channels: [u32; 4] = std::array::from_fn(|index| {
            if (index as u64) < self.element.channels { channel(index as u64) } else { 0 }
        });
        Ok(self.number(channels))
    }

    fn number(&self, channels: [u32; 4]) -> Texel {
        let bits = 8 * self.element.channel_bytes as u32;
        let signed = |bits_of: u32| (bits_of << (32 - bits)).cast_signed() >> (32 - bits);
        match (self.element.number, self.is_integer()) {
            (Number::Float, _) if bits == 16 => {
                Texel::Real(channels.map(|channel| f16_to_single(channel as u16)))
            }
            (Number::Float, _) => Texel::Real(channels.map(f32::from_bits)),
            (Number::Unsigned, true) => Texel::Integer(channels),
            (Number::Signed, true) => Texel::Integer(channels.map(|channel| signed(channel).cast_unsigned())),
            (Number::Unsigned, false) => {
                let most = ((1_u64 << bits) - 1) as f32;
                Texel::Real(channels.map(|channel| channel as f32 / most))
            }
            (Number::Signed, false) => {
                let most = ((1_u64 << (bits - 1)) - 1) as f32;
                Texel::Real(channels.map(|channel| (signed(channel) as f32 / most).max(-1.0)))
            }
        }
    }
}

/// The four channels of a texture at a place, as bits.
pub fn fetch(
    machine: &Machine,
    accessor: &Accessor<'_>,
    handle: u64,
    place: &TexturePlace,
) -> Result<[u32; 4], MemoryFault> {
    let texture =
        machine.objects.texture(handle).map_err(|_| fault(handle, Access::Read, "no texture object"))?;
    let image = Image::of(&texture, handle, place.level);
    let layers = image.extent[2].cast_signed();
    let layer = place.layer.map(|layer| i64::from(layer.cast_signed()).clamp(0, layers - 1));
    let element = |at: [i64; 3]| -> Result<Texel, MemoryFault> {
        match image.addressed(at, place.dimensions) {
            None => Ok(image.border()),
            Some(mut at) => {
                if let Some(layer) = layer {
                    at[2] = layer.cast_unsigned();
                }
                image.read(accessor, at)
            }
        }
    };
    let texel = match place.elements {
        // Beyond the end of memory there is nothing.
        Some([x, ..]) if image.array.is_none() && !(0..image.extent[0].cast_signed()).contains(&x.into()) => {
            return Ok([0; 4]);
        }
        Some(elements) => element(elements.map(i64::from))?,
        None => sampled(&image, place, element)?,
    };
    Ok(match texel {
        Texel::Real(channels) => channels.map(f32::to_bits),
        Texel::Integer(channels) => channels,
    })
}

fn sampled(
    image: &Image<'_>,
    place: &TexturePlace,
    element: impl Fn([i64; 3]) -> Result<Texel, MemoryFault>,
) -> Result<Texel, MemoryFault> {
    let normalized = image.texture.sampler.flags & NORMALIZED != 0;
    let at: [f32; 3] = std::array::from_fn(|index| match index < place.dimensions {
        true if normalized => place.coordinates[index] * image.extent[index] as f32,
        true => place.coordinates[index],
        false => 0.0,
    });
    if image.texture.sampler.filter_mode == 0 || image.is_integer() {
        return element(at.map(|coordinate| coordinate.floor() as i64));
    }
    let mut sum = [0.0_f32; 4];
    for corner in 0..1 << place.dimensions {
        let (mut index, mut weight) = ([0; 3], 1.0_f32);
        for dimension in 0..place.dimensions {
            let from = at[dimension] - 0.5;
            let part = ((from - from.floor()) * 256.0).round() / 256.0;
            let is_next = corner >> dimension & 1 == 1;
            index[dimension] = from.floor() as i64 + i64::from(is_next);
            weight *= if is_next { part } else { 1.0 - part };
        }
        if weight > 0.0
            && let Texel::Real(channels) = element(index)?
        {
            sum.iter_mut().zip(channels).for_each(|(sum, channel)| *sum += weight * channel);
        }
    }
    Ok(Texel::Real(sum))
}

/// Host address of a place in a surface; nothing if it lies outside.
pub fn surface(
    machine: &Machine,
    handle: u64,
    place: &SurfacePlace,
    access: Access,
) -> Result<Option<NonNull<u8>>, MemoryFault> {
    let surface = machine.objects.surface(handle).map_err(|_| fault(handle, access, "no surface object"))?;
    let (array, bytes) = (&surface.array, place.bytes as u64);
    let [_, rows, slices] = array.extent();
    let [mut x, mut y, mut z] = place.at.map(i64::from);
    let last = array.pitch().checked_sub(bytes).ok_or_else(|| fault(handle, access, "wider than a row"))?;
    let most = [last, rows - 1, slices - 1].map(u64::cast_signed);
    if place.is_clamped {
        (x, y, z) = (x.clamp(0, most[0]), y.clamp(0, most[1]), z.clamp(0, most[2]));
    }
    if [x, y, z].into_iter().zip(most).any(|(at, most)| !(0..=most).contains(&at)) {
        return Ok(None);
    }
    let [x, y, z] = [x, y, z].map(i64::cast_unsigned);
    let address = array.start() + z * array.slice() + y * array.pitch() + x;
    if !x.is_multiple_of(bytes) || !address.is_multiple_of(bytes.min(8)) {
        return Err(fault(handle, access, "a misaligned place"));
    }
    Ok(array.open(address, bytes, false).and_then(NonNull::new))
}
