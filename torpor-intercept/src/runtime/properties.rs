//! `cudaDeviceProp` in the layout of each version of CUDA (driver_types.h), without the reserved integers at its end, which the
//! real runtime leaves alone as well.

use super::version::Version;
use crate::core::DeviceInfo;

/// How much of CUDA 12's layout is CUDA 11's, in bytes.
pub(super) const CUDA_11_BYTES: usize = 728;

/// One field, or several in a row. Numbers are attributes of the device (CUdevice_attribute in cuda.h); what the GPU below is
/// too old to know is 0.
enum Field {
    Name,
    Uuid,
    /// An identifier and a mask of nodes, which only Windows has.
    Luid,
    TotalMemory,
    /// A `size_t`.
    Bytes(i32),
    /// `int`s.
    Numbers(&'static [i32]),
    /// `int`s that only this version has.
    Only(Version, &'static [i32]),
}

use Field::{Bytes, Luid, Name, Numbers, Only, TotalMemory, Uuid};
use Version::{Cuda12, Cuda13};

#[rustfmt::skip]
const FIELDS: &[Field] = &[
    Name, Uuid, Luid, TotalMemory,
    Bytes(8),                                // shared memory of a block
    Numbers(&[12, 10]),                      // registers of a block; threads of a warp
    Bytes(11),                               // pitch
    Numbers(&[1, 2, 3, 4, 5, 6, 7]),         // threads of a block; in x, y, z; blocks of a grid in x, y, z
    Only(Cuda12, &[13]),                     // clock
    Bytes(9),                                // constant memory
    Numbers(&[75, 76]),                      // compute capability
    Bytes(14), Bytes(51),                    // alignment of textures and of their pitch
    Only(Cuda12, &[15]),                     // deviceOverlap
    Numbers(&[16]),                          // multiprocessors
    Only(Cuda12, &[17]),                     // kernelExecTimeoutEnabled
    Numbers(&[18, 19]),                      // integrated; can map host memory
    Only(Cuda12, &[20]),                     // computeMode
    Numbers(&[21, 77]),                      // textures: 1D, with mipmaps
    Only(Cuda12, &[69]),                     // 1D linear
    Numbers(&[22, 23, 73, 74]),              // 2D, with mipmaps
    Numbers(&[70, 71, 72, 45, 46]),          // 2D linear, gather
    Numbers(&[24, 25, 26, 47, 48, 49]),      // 3D, alternate
    Numbers(&[52, 42, 43]),                  // cube map, layered 1D
    Numbers(&[27, 28, 29, 53, 54]),          // layered 2D, layered cube map
    Numbers(&[55, 56, 57, 58, 59, 60, 61]),  // surfaces: 1D, 2D, 3D, layered 1D
    Numbers(&[62, 63, 64, 65, 66, 67, 68]),  // layered 1D, layered 2D, cube map, layered cube map
    Bytes(30),                               // alignment of surfaces
    Numbers(&[31, 32, 33, 34, 50, 35]),      // from concurrentKernels to tccDriver
    Numbers(&[40, 41]),                      // asyncEngineCount, unifiedAddressing
    Only(Cuda12, &[36]),                     // clock of the memory
    Numbers(&[37, 38, 108, 39, 78, 79, 80]), // from memoryBusWidth to localL1CacheSupported
    Bytes(81),                               // shared memory of a multiprocessor
    Numbers(&[82, 83, 84, 85, 86]),          // from regsPerMultiprocessor to hostNativeAtomicSupported
    Only(Cuda12, &[87]),                     // singleToDoublePrecisionPerfRatio
    Numbers(&[88, 89, 90, 91, 95]),          // from pageableMemoryAccess to cooperativeLaunch
    Only(Cuda12, &[96]),                     // cooperativeMultiDeviceLaunch
    Bytes(97),                               // shared memory of a block that asks for more
    Numbers(&[100, 101, 106, 109]),          // from pageableMemoryAccessUsesHostPageTables to accessPolicyMaxWindowSize
    Bytes(111),                              // reserved shared memory of a block
    Numbers(&[99, 112, 113, 114, 115, 116]), // from hostRegisterSupported to gpuDirectRDMASupported
    Numbers(&[117, 118, 119, 121]),          // to deferredMappingCudaArraySupported
    Numbers(&[125, 120, 129]),               // ipcEventSupported, clusterLaunch, unifiedFunctionPointers
    Only(Cuda13, &[130, 131, 133, 134]),     // from deviceNumaConfig to hostNumaId
    Only(Cuda13, &[139, 140, 143]),          // gpuPciDeviceID, gpuPciSubsystemID, hostNumaMultinodeIpcSupported
];

/// The bytes of a `cudaDeviceProp`.
pub(super) fn properties(device: &DeviceInfo, version: Version) -> Vec<u8> {
    let number = |attribute: i32| device.attribute(attribute).unwrap_or(0);
    layout(version, &device.name, device.uuid, device.total_memory_bytes, number)
}

fn layout(
    version: Version,
    device_name: &str,
    uuid: [u8; 16],
    total_memory_bytes: u64,
    number: impl Fn(i32) -> i32,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1024);
    for field in FIELDS {
        match *field {
            Name => {
                let mut name = [0; 256];
                let length = device_name.len().min(name.len() - 1);
                name[..length].copy_from_slice(&device_name.as_bytes()[..length]);
                bytes.extend(name);
            }
            Uuid => bytes.extend(uuid),
            Luid => bytes.extend([0; 12]),
            TotalMemory => push(&mut bytes, total_memory_bytes.to_ne_bytes()),
            Bytes(attribute) => {
                let value = u64::try_from(number(attribute)).unwrap_or(0);
                push(&mut bytes, value.to_ne_bytes());
            }
            Only(other, _) if other != version => {}
            Only(_, attributes) | Numbers(attributes) => {
                for &attribute in attributes {
                    push(&mut bytes, number(attribute).to_ne_bytes());
                }
            }
        }
    }
    bytes
}

/// Adds a number, aligned to its size as C does it.
fn push<const SIZE: usize>(bytes: &mut Vec<u8>, number: [u8; SIZE]) {
    bytes.resize(bytes.len().next_multiple_of(SIZE), 0);
    bytes.extend(number);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each attribute has its own number for a value.
    fn example(version: Version) -> Vec<u8> {
        layout(version, "GPU", [7; 16], 1 << 40, |attribute| attribute)
    }

    fn int(bytes: &[u8], offset: usize) -> i32 {
        i32::from_ne_bytes(bytes[offset..offset + 4].try_into().unwrap())
    }

    #[test]
    fn offsets_are_those_that_a_c_compiler_gives() {
        // gcc's offsetof with driver_types.h of CUDA 12.9 and 13.0: offset, attribute there.
        let cuda_12 = example(Cuda12);
        assert_eq!(cuda_12.len(), 780, "reserved");
        for (offset, attribute) in [
            (296, 8),
            (308, 10),
            (312, 11),
            (320, 1),
            (348, 13),
            (352, 9),
            (360, 75),
            (384, 15),
            (388, 16),
            (404, 20),
            (416, 69),
            (420, 22),
            (512, 55),
            (560, 67),
            (568, 30),
            (576, 31),
            (608, 36),
            (640, 81),
            (668, 87),
            (692, 96),
            (696, 97),
            (720, 111),
            (728, 99),
            (776, 129),
        ] {
            assert_eq!(int(&cuda_12, offset), attribute, "at {offset}");
        }
        let cuda_13 = example(Cuda13);
        assert_eq!(cuda_13.len(), 784, "reserved");
        assert_eq!(u64::from_ne_bytes(cuda_13[288..296].try_into().unwrap()), 1 << 40);
        assert_eq!((&cuda_13[..4], &cuda_13[256..272]), (&b"GPU\0"[..], &[7; 16][..]));
        assert_eq!(int(&cuda_13, 780), 143);
    }

    #[test]
    fn a_long_name_is_cut() {
        let long = layout(Cuda12, &"x".repeat(300), [0; 16], 0, |_| -1);
        assert_eq!((long[254], long[255]), (b'x', 0));
        assert_eq!(long[296..304], [0; 8], "what is no size");
    }
}
