//! `cudaDeviceProp`, in the layout of CUDA 13 (driver_types.h).

use crate::core::Client;

/// Without the reserved integers at its end, which the real runtime leaves alone as well. Fields in a row that are device
/// attributes are one array.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Properties {
    name: [u8; 256],
    uuid: [u8; 16],
    luid: [u8; 8],
    luid_device_node_mask: u32,
    padding_0: u32,
    total_memory_bytes: usize,
    shared_bytes_per_block: usize,
    /// Registers of a block; threads of a warp.
    registers_per_block: [i32; 2],
    max_pitch_bytes: usize,
    /// Threads of a block; in x, y, z; blocks of a grid in x, y, z.
    max_sizes: [i32; 7],
    padding_1: i32,
    constant_bytes: usize,
    compute_capability: [i32; 2],
    texture_alignment_bytes: usize,
    texture_pitch_alignment_bytes: usize,
    /// Multiprocessors; integrated; can map host memory.
    multiprocessors: [i32; 3],
    texture_sizes: [i32; 25],
    surface_sizes: [i32; 14],
    surface_alignment_bytes: usize,
    /// From `concurrentKernels` to `localL1CacheSupported`.
    abilities: [i32; 16],
    shared_bytes_per_multiprocessor: usize,
    /// From `regsPerMultiprocessor` to `cooperativeLaunch`.
    more_abilities: [i32; 10],
    shared_bytes_per_block_optin: usize,
    /// From `pageableMemoryAccessUsesHostPageTables` to `accessPolicyMaxWindowSize`.
    memory_access: [i32; 4],
    reserved_shared_bytes_per_block: usize,
    /// From `hostRegisterSupported` to `hostNumaMultinodeIpcSupported`.
    newest: [i32; 20],
}

const _: () = assert!(size_of::<Properties>() == 784);

// CUdevice_attribute numbers (cuda.h), in the order of the fields.
const TEXTURES: [i32; 25] = [
    21, 77, // 1D, with mipmaps
    22, 23, 73, 74, // 2D, with mipmaps
    70, 71, 72, 45, 46, // 2D linear, gather
    24, 25, 26, 47, 48, 49, // 3D, alternate
    52, 42, 43, // cube map, layered 1D
    27, 28, 29, 53, 54, // layered 2D, layered cube map
];
const SURFACES: [i32; 14] = [55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68];
const ABILITIES: [i32; 16] = [31, 32, 33, 34, 50, 35, 40, 41, 37, 38, 108, 39, 78, 79, 80, UNUSED];
const MORE_ABILITIES: [i32; 10] = [82, 83, 84, 85, 86, 88, 89, 90, 91, 95];
const MEMORY_ACCESS: [i32; 4] = [100, 101, 106, 109];
const NEWEST: [i32; 20] =
    [99, 112, 113, 114, 115, 116, 117, 118, 119, 121, 125, 120, 129, 130, 131, 133, 134, 139, 140, 143];

/// Padding, which is 0.
const UNUSED: i32 = -1;

impl Properties {
    pub(super) fn of(client: &Client) -> Self {
        let device = &client.device;
        // What the GPU below is too old to know is 0.
        let number = |attribute: i32| device.attribute(attribute).unwrap_or(0);
        let bytes = |attribute: i32| usize::try_from(number(attribute)).unwrap_or(0);
        let mut name = [0; 256];
        let length = device.name.len().min(name.len() - 1);
        name[..length].copy_from_slice(&device.name.as_bytes()[..length]);
        Self {
            name,
            uuid: device.uuid,
            luid: [0; 8],
            luid_device_node_mask: 0,
            padding_0: 0,
            total_memory_bytes: device.total_memory_bytes as usize,
            shared_bytes_per_block: bytes(8),
            registers_per_block: [12, 10].map(number),
            max_pitch_bytes: bytes(11),
            max_sizes: [1, 2, 3, 4, 5, 6, 7].map(number),
            padding_1: 0,
            constant_bytes: bytes(9),
            compute_capability: [75, 76].map(number),
            texture_alignment_bytes: bytes(14),
            texture_pitch_alignment_bytes: bytes(51),
            multiprocessors: [16, 18, 19].map(number),
            texture_sizes: TEXTURES.map(number),
            surface_sizes: SURFACES.map(number),
            surface_alignment_bytes: bytes(30),
            abilities: ABILITIES.map(number),
            shared_bytes_per_multiprocessor: bytes(81),
            more_abilities: MORE_ABILITIES.map(number),
            shared_bytes_per_block_optin: bytes(97),
            memory_access: MEMORY_ACCESS.map(number),
            reserved_shared_bytes_per_block: bytes(111),
            newest: NEWEST.map(number),
        }
    }
}
