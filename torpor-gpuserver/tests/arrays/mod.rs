//! Arrays of every shape, a picture that kernels read and write, and what must be in them.
#![allow(dead_code, reason = "each test program uses its own part of this module")]

use crate::worker_support::Client;
use crate::worker_support::kernels::launch;
use torpor_proto::command::{
    ArrayCopy, ArrayCreate, CopyEnd, END_IN_ARRAY, END_IN_MEMORY, Sampler, SurfaceCreate, TextureCreate,
    TextureResource,
};

/// `CU_AD_FORMAT_UNSIGNED_INT8`, `_UNSIGNED_INT32`, `_HALF`, `_FLOAT`
pub const BYTE: u32 = 0x01;
pub const WORD: u32 = 0x03;
pub const HALF: u32 = 0x10;
pub const FLOAT: u32 = 0x20;

/// `CUDA_ARRAY3D_LAYERED`, `_SURFACE_LDST`, `_CUBEMAP`
pub const LAYERED: u32 = 1;
pub const SURFACE: u32 = 2;
pub const CUBEMAP: u32 = 4;

/// `fetch_2d(u32 *out, texture, u32 width)`: the elements of a texture in two dimensions, one a thread; `write(surface, u32 row)`
/// writes the number of each thread into a row.
const PTX: &str = include_str!("../../../torpor-simgpu/tests/arrays.ptx");

pub const FETCH: u32 = 21;
pub const WRITE: u32 = 22;

pub fn made(array: u32, format: u32, channels: u32, [width, height, depth]: [u64; 3]) -> ArrayCreate {
    ArrayCreate { array, format, channels, width, height, depth, ..ArrayCreate::default() }
}

/// Arrays of every dimension, with the bytes of their elements.
pub fn every_shape() -> Vec<(ArrayCreate, u64)> {
    vec![
        (made(0, BYTE, 1, [1000, 0, 0]), 1),
        (made(1, FLOAT, 4, [33, 17, 0]), 16),
        (made(2, HALF, 2, [40, 9, 5]), 4),
        (ArrayCreate { flags: SURFACE, ..made(3, WORD, 1, [64, 64, 3]) }, 4),
        (ArrayCreate { flags: LAYERED, ..made(4, WORD, 1, [77, 0, 6]) }, 4),
        (ArrayCreate { flags: LAYERED, ..made(5, BYTE, 4, [31, 30, 7]) }, 4),
        (ArrayCreate { flags: CUBEMAP, ..made(6, BYTE, 2, [16, 16, 6]) }, 2),
        (ArrayCreate { flags: CUBEMAP | LAYERED, ..made(7, BYTE, 1, [16, 16, 12]) }, 1),
        (ArrayCreate { levels: 5, ..made(8, FLOAT, 1, [40, 24, 0]) }, 4),
        (ArrayCreate { levels: 3, ..made(9, BYTE, 1, [64, 64, 8]) }, 1),
        // More than a chunk of the host store.
        (made(10, FLOAT, 4, [512, 700, 0]), 16),
    ]
}

/// All levels of an array: bytes of a row, rows and slices.
fn levels(array: &ArrayCreate, element_bytes: u64) -> Vec<(u32, [u64; 3])> {
    let is_layered = array.flags & (LAYERED | CUBEMAP) != 0;
    let extent = |level: u32| {
        let shrunk = |count: u64| (count >> level).max(1);
        let slices = if is_layered { array.depth } else { shrunk(array.depth) };
        (level, [shrunk(array.width) * element_bytes, shrunk(array.height), slices])
    };
    (0..array.levels.max(1)).map(extent).collect()
}

pub fn in_array(array: u32, level: u32) -> CopyEnd {
    CopyEnd { place: END_IN_ARRAY, array, level, ..CopyEnd::default() }
}

pub fn in_memory(address: u64, [pitch, height, _]: [u64; 3]) -> CopyEnd {
    CopyEnd { place: END_IN_MEMORY, address, pitch, height, ..CopyEnd::default() }
}

pub fn copy(
    client: &mut Client,
    destination: CopyEnd,
    source: CopyEnd,
    [width_bytes, height, depth]: [u64; 3],
) {
    let copy = ArrayCopy { destination, source, width_bytes, height, depth, ..ArrayCopy::default() };
    client.post(copy, &[]);
}

fn pattern(array: u32, level: u32, bytes: u64) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 / 7 + u64::from(array * 5 + level)) as u8).collect()
}

/// Fills what a box of device memory leads to: 8 MiB of it are the test's.
pub fn fill(client: &mut Client, memory: u64, (array, element_bytes): &(ArrayCreate, u64)) {
    for (level, extent) in levels(array, *element_bytes) {
        client.upload(memory, &pattern(array.array, level, extent.iter().product()));
        copy(client, in_array(array.array, level), in_memory(memory, extent), extent);
        client.settle().unwrap();
    }
}

pub fn is_as_filled(client: &mut Client, memory: u64, (array, element_bytes): &(ArrayCreate, u64)) -> bool {
    levels(array, *element_bytes).into_iter().all(|(level, extent)| {
        copy(client, in_memory(memory, extent), in_array(array.array, level), extent);
        client.settle().unwrap();
        let bytes: u64 = extent.iter().product();
        client.download(memory, bytes as usize) == pattern(array.array, level, bytes)
    })
}

pub fn over(kind: u32, array: u32) -> TextureCreate {
    let resource = TextureResource { kind, array, ..TextureResource::default() };
    TextureCreate { resource, sampler: Sampler::default(), ..TextureCreate::default() }
}

pub fn load(client: &mut Client) {
    client.load_image(9, &[PTX.as_bytes(), &[0]].concat()).unwrap();
    client.resolve(9, FETCH, "fetch_2d").unwrap();
    client.resolve(9, WRITE, "write").unwrap();
}

pub fn run(client: &mut Client, kernel: u32, threads: u32, parameters: &[u64]) {
    let parameters: &[u8] = bytemuck::cast_slice(parameters);
    client.post(launch(kernel, 0, 1, threads, parameters.len()), parameters);
    client.settle().unwrap();
}

/// An array of 32 by 2 words whose elements are their numbers, a texture and a surface over it.
pub struct Picture {
    pub texture: u64,
    pub surface: u64,
}

impl Picture {
    pub const ARRAY: u32 = 40;
    pub const EXTENT: [u64; 3] = [128, 2, 1];

    pub fn new(client: &mut Client, memory: u64) -> Self {
        load(client);
        client.ask(ArrayCreate { flags: SURFACE, ..made(Self::ARRAY, WORD, 1, [32, 2, 0]) }).unwrap();
        let words: Vec<u32> = (0..64).collect();
        client.upload(memory, bytemuck::cast_slice(&words));
        copy(client, in_array(Self::ARRAY, 0), in_memory(memory, Self::EXTENT), Self::EXTENT);
        client.settle().unwrap();
        let texture = client.ask(over(0, Self::ARRAY)).unwrap().handle;
        let surface = client.ask(SurfaceCreate { array: Self::ARRAY, level: 0 }).unwrap().handle;
        Self { texture, surface }
    }

    /// What kernels see through the texture.
    pub fn words(&self, client: &mut Client, memory: u64) -> Vec<u32> {
        run(client, FETCH, 64, &[memory, self.texture, 32]);
        client.words(memory, 64)
    }

    pub fn write(&self, client: &mut Client, row: u64) {
        run(client, WRITE, 32, &[self.surface, row]);
    }
}
