//! What a program can ask about a device without the GPU.

use super::CudaResult;
use std::borrow::Cow;
use std::collections::HashMap;
use torpor_proto::control::client::Device;
use torpor_proto::error::CudaError;
use torpor_proto::image::{Image, for_gpu};

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`, `…_MINOR`.
const COMPUTE_CAPABILITY_MAJOR: i32 = 75;
const COMPUTE_CAPABILITY_MINOR: i32 = 76;

/// `CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS`, and of the functions before CUDA 11.7, which do the same: `…_V1`.
const WIDE_WORDS: i32 = 122;
const WIDE_WORDS_V1: i32 = 93;

/// `CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID`, `_BUS_ID`, `_DEVICE_ID`
pub const PCI_ATTRIBUTES: [i32; 3] = [50, 33, 34];

/// Attributes for what Torpor does not offer, though the GPU does, or the other way round: programs ask before they use.
/// (`CUdevice_attribute`)
const OVERRIDES: &[(i32, i32)] = &[
    (83, 1),  // MANAGED_MEMORY: core/managed
    (86, 0),  // HOST_NATIVE_ATOMIC_SUPPORTED
    (88, 0),  // PAGEABLE_MEMORY_ACCESS
    (89, 1),  // CONCURRENT_MANAGED_ACCESS: it is the same memory for both
    (91, 0),  // CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM: registered memory has an alias in the host range
    (92, 1),  // CAN_USE_STREAM_MEM_OPS_V1: core/word
    (94, 1),  // CAN_USE_STREAM_WAIT_VALUE_NOR_V1
    (99, 1),  // HOST_REGISTER_SUPPORTED
    (100, 0), // PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES
    (101, 0), // DIRECT_MANAGED_MEM_ACCESS_FROM_HOST
    (102, 1), // VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED: core/virtual_memory.rs
    (103, 1), // HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED
    (104, 0), // HANDLE_TYPE_WIN32_HANDLE_SUPPORTED
    (105, 0), // HANDLE_TYPE_WIN32_KMT_HANDLE_SUPPORTED
    (107, 0), // GENERIC_COMPRESSION_SUPPORTED
    (110, 0), // GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED
    (112, 0), // SPARSE_CUDA_ARRAY_SUPPORTED
    (113, 0), // READ_ONLY_HOST_REGISTER_SUPPORTED
    (114, 0), // TIMELINE_SEMAPHORE_INTEROP_SUPPORTED
    (115, 1), // MEMORY_POOLS_SUPPORTED: by the shim, core/pool.rs
    (116, 0), // GPU_DIRECT_RDMA_SUPPORTED
    (117, 0), // GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS
    (119, 1), // MEMPOOL_SUPPORTED_HANDLE_TYPES: file descriptors, core/pool/shared.rs
    (121, 0), // DEFERRED_MAPPING_CUDA_ARRAY_SUPPORTED
    (123, 1), // CAN_USE_STREAM_WAIT_VALUE_NOR
    (124, 0), // DMA_BUF_SUPPORTED
    (125, 1), // IPC_EVENT_SUPPORTED: core/ipc
    (128, 0), // HANDLE_TYPE_FABRIC_SUPPORTED
    (132, 0), // MULTICAST_SUPPORTED
    (141, 0), // HOST_NUMA_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED
    (142, 0), // HOST_NUMA_MEMORY_POOLS_SUPPORTED: not for other processes
    (143, 0), // HOST_NUMA_MULTINODE_IPC_SUPPORTED
    (144, 1), // HOST_MEMORY_POOLS_SUPPORTED: core/pool/kind.rs
    (145, 0), // HOST_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED
    (146, 0), // HOST_ALLOC_DMA_BUF_SUPPORTED
];

/// The device as the program sees it.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// `cuDeviceGetName`.
    pub name: String,
    /// `cuDeviceGetUuid`.
    pub uuid: [u8; 16],
    /// What the function may use: its limit, not the card's memory.
    pub total_memory_bytes: u64,
    /// `cuDriverGetVersion`.
    pub driver_version: i32,
    /// `cuCtxGetStreamPriorityRange`: least, greatest.
    pub stream_priorities: (i32, i32),
    /// The GPC of each TPC, one byte each; empty if unknown.
    pub tpc_clusters: Vec<u8>,
    /// The place of each TPC in its GPC.
    pub tpc_places: Vec<u8>,
    attributes: HashMap<i32, i32>,
    limits: HashMap<i32, u64>,
}

impl DeviceInfo {
    /// `SYSTEM_NOT_READY` for a server that knows nothing of its device.
    pub(super) fn new(device: Device, memory_limit_bytes: u64) -> CudaResult<Self> {
        if device.attributes.is_empty() {
            return Err(CudaError::SYSTEM_NOT_READY);
        }
        let mut attributes = device.attributes;
        attributes.extend(OVERRIDES.iter().copied());
        attributes.insert(WIDE_WORDS_V1, attributes.get(&WIDE_WORDS).copied().unwrap_or(0));
        let limit = if memory_limit_bytes == 0 { u64::MAX } else { memory_limit_bytes };
        Ok(Self {
            name: device.name,
            uuid: device.uuid.try_into().unwrap_or_default(),
            total_memory_bytes: device.total_memory_bytes.min(limit),
            driver_version: device.driver_version,
            stream_priorities: (device.least_stream_priority, device.greatest_stream_priority),
            tpc_clusters: device.tpc_clusters,
            tpc_places: device.tpc_places,
            attributes,
            limits: device.limits,
        })
    }

    /// The same device under another name: UUID, and domain, bus and device of its place.
    pub(super) fn named(&self, uuid: [u8; 16], place: [i32; 3]) -> Self {
        let mut named = Self { uuid, ..self.clone() };
        named.attributes.extend(PCI_ATTRIBUTES.into_iter().zip(place));
        named
    }

    /// A `CUdevice_attribute`.
    ///
    /// # Errors
    /// `INVALID_VALUE` for one that the driver does not know.
    #[inline]
    pub fn attribute(&self, attribute: i32) -> CudaResult<i32> {
        self.attributes.get(&attribute).copied().ok_or(CudaError::INVALID_VALUE)
    }

    /// Major and minor: 9 and 0 of a Hopper GPU.
    pub fn compute_capability(&self) -> Option<(i32, i32)> {
        self.attribute(COMPUTE_CAPABILITY_MAJOR).ok().zip(self.attribute(COMPUTE_CAPABILITY_MINOR).ok())
    }

    /// What of an image this device can use, a fatbin container's entries for other GPUs being left out.
    pub(super) fn needed_of<'a>(&self, image: &Image<'a>) -> Cow<'a, [u8]> {
        let version =
            |attribute| self.attribute(attribute).ok().and_then(|version| u32::try_from(version).ok());
        let capability = version(COMPUTE_CAPABILITY_MAJOR).zip(version(COMPUTE_CAPABILITY_MINOR));
        let narrowed = capability.and_then(|(major, minor)| for_gpu(image.bytes, major * 10 + minor));
        narrowed.map_or(Cow::Borrowed(image.bytes), Cow::Owned)
    }

    /// A `CUlimit`.
    ///
    /// # Errors
    /// `UNSUPPORTED_LIMIT` (215) for one that the driver does not know.
    pub fn limit(&self, limit: i32) -> CudaResult<u64> {
        self.limits.get(&limit).copied().ok_or(CudaError::UNSUPPORTED_LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_torpor_offers_is_claimed_and_nothing_else() {
        let attributes = HashMap::from([(16, 132), (116, 1), (83, 0)]);
        let device = Device { attributes, total_memory_bytes: 100, ..Device::default() };
        let info = DeviceInfo::new(device, 40).unwrap();
        assert_eq!(info.attribute(16), Ok(132));
        assert_eq!(info.attribute(116), Ok(0));
        assert_eq!(info.attribute(83), Ok(1));
        assert_eq!(info.attribute(9999), Err(CudaError::INVALID_VALUE));
        assert_eq!(info.total_memory_bytes, 40);
        assert!(DeviceInfo::new(Device::default(), 0).is_err());
    }
}
