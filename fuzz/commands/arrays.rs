//! How steps about arrays become commands.

use crate::program::{Address, Boxes, End, Seen, Shape};
use torpor_proto::command::{
    ArrayCopy, ArrayCreate, CopyEnd, ResourceView, Sampler, TextureCreate, TextureResource,
};

/// Mostly a format that there is.
fn format(format: u8) -> u32 {
    const KNOWN: [u32; 10] = [0x01, 0x02, 0x03, 0x08, 0x09, 0x0a, 0x10, 0x20, 0x20, 0xc0];
    KNOWN.get(usize::from(format % 16)).copied().unwrap_or(format.into())
}

/// An array that is to be made.
pub fn shape(shape: &Shape) -> ArrayCreate {
    let [width, height, depth] = shape.large.unwrap_or(shape.extent.map(u64::from));
    ArrayCreate {
        array: shape.array.into(),
        format: format(shape.format),
        channels: shape.channels.into(),
        flags: shape.flags.into(),
        width,
        height,
        depth,
        levels: (shape.levels % 12).into(),
        reserved: 0,
    }
}

fn end(end: &End, address: impl Fn(Address) -> u64) -> CopyEnd {
    let [x_bytes, y, z] = end.at.map(u64::from);
    CopyEnd {
        place: (end.place % 3).into(),
        array: end.array.into(),
        level: end.level.into(),
        reserved: 0,
        x_bytes,
        y,
        z,
        address: address(end.address),
        pitch: end.pitch.into(),
        height: end.height.into(),
    }
}

/// A copy from or to an array.
pub fn copy(boxes: &Boxes, address: impl Fn(Address) -> u64) -> ArrayCopy {
    ArrayCopy {
        destination: end(&boxes.destination, &address),
        source: end(&boxes.source, &address),
        width_bytes: boxes.wild.unwrap_or(boxes.width_bytes.into()),
        height: boxes.height.into(),
        depth: boxes.depth.into(),
        stream: boxes.stream.into(),
        reserved: 0,
    }
}

/// A texture object that is to be made.
pub fn texture(seen: &Seen, address: impl Fn(Address) -> u64) -> TextureCreate {
    let [x, y, z, filter, flags, anisotropy] = seen.modes.map(u32::from);
    let [width, height] = seen.extent.map(u64::from);
    let view = seen.view.map(|numbers| {
        let [format, first_level, last_level, first_layer, last_layer, ..] = numbers.map(u32::from);
        let [.., width, height] = numbers.map(u64::from);
        ResourceView {
            is_there: 1,
            format,
            width,
            height,
            depth: 0,
            first_level,
            last_level,
            first_layer,
            last_layer,
        }
    });
    TextureCreate {
        resource: TextureResource {
            kind: (seen.kind % 5).into(),
            array: seen.array.into(),
            level: seen.level.into(),
            format: format(seen.format),
            channels: seen.channels.into(),
            reserved: 0,
            address: address(seen.address),
            width,
            height,
            pitch: seen.pitch,
        },
        sampler: Sampler {
            address_modes: [x, y, z],
            filter,
            flags,
            max_anisotropy: anisotropy,
            ..Sampler::default()
        },
        view: view.unwrap_or_default(),
    }
}
