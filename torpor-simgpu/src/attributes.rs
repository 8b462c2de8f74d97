//! Device attributes: what `cuDeviceGetAttribute` answers, by the numbers of cuda.h 13.0.
//!
//! The values are those of the real devices as far as they are published; what differs between devices is a field of
//! [`Architecture`].

/// The properties of a device from which its attributes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Architecture {
    /// Compute capability.
    pub capability: (i32, i32),
    /// Streaming multiprocessors.
    pub multiprocessors: i32,
    /// Resident threads on each.
    pub threads_per_multiprocessor: i32,
    /// Resident blocks on each.
    pub blocks_per_multiprocessor: i32,
    /// Shared memory of each, in bytes.
    pub shared_per_multiprocessor: i32,
    /// Shared memory that one block can ask for, in bytes.
    pub shared_per_block_optin: i32,
    /// Shared memory that the system keeps of each block's, in bytes.
    pub shared_reserved_per_block: i32,
    /// 32-bit registers of each multiprocessor.
    pub registers: i32,
    /// Clock in kHz.
    pub clock_khz: i32,
    /// Memory clock in kHz.
    pub memory_clock_khz: i32,
    /// Memory bus in bits.
    pub bus_bits: i32,
    /// Second-level cache in bytes.
    pub l2_bytes: i32,
    /// Copy engines.
    pub copy_engines: i32,
    /// PCI device and vendor, as attribute 139 gives them.
    pub pci_id: i32,
}

impl Architecture {
    /// GH100 as in the H200.
    pub const fn hopper() -> Self {
        Self {
            capability: (9, 0),
            multiprocessors: 132,
            threads_per_multiprocessor: 2048,
            blocks_per_multiprocessor: 32,
            shared_per_multiprocessor: 228 << 10,
            shared_per_block_optin: 227 << 10,
            shared_reserved_per_block: 1 << 10,
            registers: 65536,
            clock_khz: 1_980_000,
            memory_clock_khz: 3_201_000,
            bus_bits: 6144,
            l2_bytes: 60 << 20,
            copy_engines: 3,
            pci_id: 0x2335_10de,
        }
    }

    /// GV100 as in the V100.
    pub const fn volta() -> Self {
        Self {
            capability: (7, 0),
            multiprocessors: 80,
            threads_per_multiprocessor: 2048,
            blocks_per_multiprocessor: 32,
            shared_per_multiprocessor: 96 << 10,
            shared_per_block_optin: 96 << 10,
            shared_reserved_per_block: 0,
            registers: 65536,
            clock_khz: 1_530_000,
            memory_clock_khz: 877_000,
            bus_bits: 4096,
            l2_bytes: 6 << 20,
            copy_engines: 6,
            pci_id: 0x1db5_10de,
        }
    }

    /// The compute capability as one number: 90 for sm_90.
    pub const fn sm(&self) -> u32 {
        (self.capability.0 * 10 + self.capability.1).unsigned_abs()
    }

    /// Whether thread block clusters and tensor maps exist.
    pub const fn has_clusters(&self) -> bool {
        self.capability.0 >= 9
    }

    /// The value of attribute `id` of the device with this ordinal; none if cuda.h 13.0 has no such attribute.
    pub fn attribute(&self, id: i32, ordinal: usize) -> Option<i32> {
        let hopper = i32::from(self.has_clusters());
        let ampere = i32::from(self.capability.0 >= 8);
        Some(match id {
            1 => 1024,                                 // MAX_THREADS_PER_BLOCK
            2 | 3 => 1024,                             // MAX_BLOCK_DIM_X, Y
            4 => 64,                                   // MAX_BLOCK_DIM_Z
            5 => i32::MAX,                             // MAX_GRID_DIM_X
            6 | 7 => 65535,                            // MAX_GRID_DIM_Y, Z
            8 => 48 << 10,                             // MAX_SHARED_MEMORY_PER_BLOCK
            9 => 64 << 10,                             // TOTAL_CONSTANT_MEMORY
            10 => 32,                                  // WARP_SIZE
            11 => i32::MAX,                            // MAX_PITCH
            12 => 65536,                               // MAX_REGISTERS_PER_BLOCK
            13 => self.clock_khz,                      // CLOCK_RATE
            14 => 512,                                 // TEXTURE_ALIGNMENT
            15 => 1,                                   // GPU_OVERLAP
            16 => self.multiprocessors,                // MULTIPROCESSOR_COUNT
            17 | 18 => 0,                              // KERNEL_EXEC_TIMEOUT, INTEGRATED
            19 => 1,                                   // CAN_MAP_HOST_MEMORY
            20 => 0,                                   // COMPUTE_MODE
            21 => 131_072,                             // MAXIMUM_TEXTURE1D_WIDTH
            22 => 131_072,                             // MAXIMUM_TEXTURE2D_WIDTH
            23 => 65536,                               // MAXIMUM_TEXTURE2D_HEIGHT
            24..=26 => 16384,                          // MAXIMUM_TEXTURE3D_*
            27 | 28 => 32768,                          // MAXIMUM_TEXTURE2D_LAYERED_WIDTH, HEIGHT
            29 => 2048,                                // MAXIMUM_TEXTURE2D_LAYERED_LAYERS
            30 => 512,                                 // SURFACE_ALIGNMENT
            31 | 32 => 1,                              // CONCURRENT_KERNELS, ECC_ENABLED
            33 => pci_bus(ordinal),                    // PCI_BUS_ID
            34 | 35 => 0,                              // PCI_DEVICE_ID, TCC_DRIVER
            36 => self.memory_clock_khz,               // MEMORY_CLOCK_RATE
            37 => self.bus_bits,                       // GLOBAL_MEMORY_BUS_WIDTH
            38 => self.l2_bytes,                       // L2_CACHE_SIZE
            39 => self.threads_per_multiprocessor,     // MAX_THREADS_PER_MULTIPROCESSOR
            40 => self.copy_engines,                   // ASYNC_ENGINE_COUNT
            41 => 1,                                   // UNIFIED_ADDRESSING
            42 => 32768,                               // MAXIMUM_TEXTURE1D_LAYERED_WIDTH
            43 => 2048,                                // MAXIMUM_TEXTURE1D_LAYERED_LAYERS
            44 => 1,                                   // CAN_TEX2D_GATHER
            45 | 46 => 32768,                          // MAXIMUM_TEXTURE2D_GATHER_*
            47 | 48 => 8192,                           // MAXIMUM_TEXTURE3D_WIDTH, HEIGHT_ALTERNATE
            49 => 32768,                               // MAXIMUM_TEXTURE3D_DEPTH_ALTERNATE
            50 => 0,                                   // PCI_DOMAIN_ID
            51 => 32,                                  // TEXTURE_PITCH_ALIGNMENT
            52 | 53 => 32768,                          // MAXIMUM_TEXTURECUBEMAP_WIDTH, LAYERED_WIDTH
            54 => 2046,                                // MAXIMUM_TEXTURECUBEMAP_LAYERED_LAYERS
            55 => 32768,                               // MAXIMUM_SURFACE1D_WIDTH
            56 => 131_072,                             // MAXIMUM_SURFACE2D_WIDTH
            57 => 65536,                               // MAXIMUM_SURFACE2D_HEIGHT
            58..=60 => 16384,                          // MAXIMUM_SURFACE3D_*
            61 => 32768,                               // MAXIMUM_SURFACE1D_LAYERED_WIDTH
            62 => 2048,                                // MAXIMUM_SURFACE1D_LAYERED_LAYERS
            63 | 64 => 32768,                          // MAXIMUM_SURFACE2D_LAYERED_WIDTH, HEIGHT
            65 => 2048,                                // MAXIMUM_SURFACE2D_LAYERED_LAYERS
            66 | 67 => 32768,                          // MAXIMUM_SURFACECUBEMAP_*
            68 => 2046,                                // MAXIMUM_SURFACECUBEMAP_LAYERED_LAYERS
            69 => 268_435_456,                         // MAXIMUM_TEXTURE1D_LINEAR_WIDTH
            70 => 131_072,                             // MAXIMUM_TEXTURE2D_LINEAR_WIDTH
            71 => 65000,                               // MAXIMUM_TEXTURE2D_LINEAR_HEIGHT
            72 => 2_097_120,                           // MAXIMUM_TEXTURE2D_LINEAR_PITCH
            73 | 74 => 32768,                          // MAXIMUM_TEXTURE2D_MIPMAPPED_*
            75 => self.capability.0,                   // COMPUTE_CAPABILITY_MAJOR
            76 => self.capability.1,                   // COMPUTE_CAPABILITY_MINOR
            77 => 32768,                               // MAXIMUM_TEXTURE1D_MIPMAPPED_WIDTH
            78..=80 => 1,                              // STREAM_PRIORITIES, GLOBAL_L1_CACHE, LOCAL_L1_CACHE
            81 => self.shared_per_multiprocessor,      // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
            82 => self.registers,                      // MAX_REGISTERS_PER_MULTIPROCESSOR
            83 => 0,                                   // MANAGED_MEMORY: page migration is not simulated
            84 => 0,                                   // MULTI_GPU_BOARD
            85 => i32::try_from(ordinal).unwrap_or(0), // MULTI_GPU_BOARD_GROUP_ID
            86 => 0,                                   // HOST_NATIVE_ATOMIC_SUPPORTED
            87 => 2,                                   // SINGLE_TO_DOUBLE_PRECISION_PERF_RATIO
            88 | 89 => 0,                              // PAGEABLE_MEMORY_ACCESS, CONCURRENT_MANAGED_ACCESS
            90..=95 => 1, // PREEMPTION, HOST_POINTER_FOR_REGISTERED, STREAM_MEM_OPS, COOPERATIVE
            96 => 0,      // COOPERATIVE_MULTI_DEVICE_LAUNCH
            97 => self.shared_per_block_optin, // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
            98 | 99 => 1, // CAN_FLUSH_REMOTE_WRITES, HOST_REGISTER_SUPPORTED
            100 | 101 => 0, // PAGEABLE_…_HOST_PAGE_TABLES, DIRECT_MANAGED_MEM_ACCESS
            102 | 103 => 1, // VIRTUAL_MEMORY_MANAGEMENT, POSIX_FILE_DESCRIPTOR
            104 | 105 => 0, // WIN32 handles
            106 => self.blocks_per_multiprocessor, // MAX_BLOCKS_PER_MULTIPROCESSOR
            107 => 0,     // GENERIC_COMPRESSION_SUPPORTED
            108 => ampere * (self.l2_bytes / 8 * 5), // MAX_PERSISTING_L2_CACHE_SIZE
            109 => ampere * (128 << 20), // MAX_ACCESS_POLICY_WINDOW_SIZE
            110 => 0,     // GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED
            111 => self.shared_reserved_per_block, // RESERVED_SHARED_MEMORY_PER_BLOCK
            112 => 0,     // SPARSE_CUDA_ARRAY_SUPPORTED
            113 => 1,     // READ_ONLY_HOST_REGISTER_SUPPORTED
            114..=119 => 0, // semaphores, memory pools, RDMA: not simulated
            120 => hopper, // CLUSTER_LAUNCH
            121 => 0,     // DEFERRED_MAPPING_CUDA_ARRAY_SUPPORTED
            122 | 123 => 1, // CAN_USE_64_BIT_STREAM_MEM_OPS, CAN_USE_STREAM_WAIT_VALUE_NOR
            124 | 125 => 0, // DMA_BUF_SUPPORTED, IPC_EVENT_SUPPORTED
            126 => {
                if hopper == 1 {
                    4
                } else {
                    1
                }
            } // MEM_SYNC_DOMAIN_COUNT
            127 => hopper, // TENSOR_MAP_ACCESS_SUPPORTED
            128 => 0,     // HANDLE_TYPE_FABRIC_SUPPORTED
            129 => 1,     // UNIFIED_FUNCTION_POINTERS
            130 => 0,     // NUMA_CONFIG
            131 => -1,    // NUMA_ID
            132 | 133 => 0, // MULTICAST_SUPPORTED, MPS_ENABLED
            134 => 0,     // HOST_NUMA_ID
            135..=138 => 0, // graphics interoperation, decompression engine
            139 | 140 => self.pci_id, // GPU_PCI_DEVICE_ID, SUBSYSTEM_ID
            141..=147 => 0, // host memory pools and host virtual memory
            _ => return None,
        })
    }
}

/// The PCI bus number of a device.
pub fn pci_bus(ordinal: usize) -> i32 {
    i32::try_from(ordinal).map_or(0, |ordinal| 0x10 + ordinal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attribute_of_the_header_has_a_value() {
        let hopper = Architecture::hopper();
        assert!((1..=147).all(|id| hopper.attribute(id, 0).is_some()));
        assert_eq!([0, 148, -1].map(|id| hopper.attribute(id, 0)), [None; 3]);
        assert_eq!(hopper.attribute(16, 0), Some(132));
        assert_eq!(hopper.attribute(97, 0), Some(227 * 1024));
        assert_ne!(hopper.attribute(33, 0), hopper.attribute(33, 1));
        assert_eq!(Architecture::volta().attribute(120, 0), Some(0));
        assert_eq!(hopper.sm(), 90);
    }
}
