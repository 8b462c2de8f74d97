//! Activity records, byte by byte.
//!
//! Layouts are those of cupti_activity.h of CUDA 13.0 (CUPTI 130001), which packs them. Each begins with its kind, and begins as
//! the records of the same kind of CUDA 11 and 12 do, which have less at the end: programs for those step from record to
//! record with `cuptiActivityGetNextRecord`, which is here as well.

use bytemuck::{Pod, Zeroable};

/// `CUpti_ActivityKind`, of what there are records of.
pub(super) mod kind {
    pub(in crate::cupti) const MEMCPY: u32 = 1;
    pub(in crate::cupti) const MEMSET: u32 = 2;
    pub(in crate::cupti) const DRIVER: u32 = 4;
    pub(in crate::cupti) const RUNTIME: u32 = 5;
    pub(in crate::cupti) const CONCURRENT_KERNEL: u32 = 10;
    /// May be wanted, and there is none: nothing is compiled, resized or loaded behind the program's back.
    pub(in crate::cupti) const OVERHEAD: u32 = 17;
    pub(in crate::cupti) const EXTERNAL_CORRELATION: u32 = 39;
}

/// The device's number: a program has one.
pub(super) const DEVICE: u32 = 0;
/// The primary context's number.
pub(super) const CONTEXT: u32 = 1;

/// `CUpti_ActivityAPI`
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ApiRecord {
    pub(super) kind: u32,
    pub(super) callback: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) process: u32,
    /// The lower half of `pthread_self`.
    pub(super) thread: u32,
    pub(super) correlation: u32,
    pub(super) result: u32,
}

/// `CUpti_ActivityExternalCorrelation`
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ExternalCorrelationRecord {
    pub(super) kind: u32,
    pub(super) external_kind: u32,
    pub(super) external: u64,
    pub(super) correlation: u32,
    pub(super) reserved: u32,
}

/// `CUpti_ActivityKernel10`
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct KernelRecord {
    pub(super) kind: u32,
    pub(super) cache_config: u8,
    pub(super) shared_memory_config: u8,
    pub(super) registers: u16,
    pub(super) partitioned_cache: [u32; 2],
    pub(super) start: u64,
    pub(super) end: u64,
    /// With the kernels that it launched itself; 0 is unknown.
    pub(super) completed: u64,
    pub(super) device: u32,
    pub(super) context: u32,
    pub(super) stream: u32,
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) static_shared_bytes: u32,
    pub(super) dynamic_shared_bytes: u32,
    pub(super) local_bytes: u32,
    pub(super) local_bytes_of_all: u32,
    pub(super) correlation: u32,
    pub(super) grid_number: u64,
    /// The address of a C string that stays.
    pub(super) name: u64,
    pub(super) reserved: u64,
    pub(super) queued: u64,
    pub(super) submitted: u64,
    pub(super) launch_type: u8,
    pub(super) carveout: [u8; 2],
    pub(super) padding: u8,
    pub(super) executed_shared_bytes: u32,
    pub(super) graph_node: u64,
    pub(super) shared_limit_config: u32,
    pub(super) graph: u32,
    pub(super) access_policy: u64,
    pub(super) channel: [u32; 2],
    pub(super) cluster: [u32; 3],
    pub(super) cluster_scheduling: u32,
    pub(super) local_bytes_of_all_wide: u64,
    pub(super) most_cluster_sizes: [u32; 2],
    pub(super) is_device_launched: u8,
    pub(super) padding_end: [u8; 7],
}

/// `CUpti_ActivityMemcpy6`
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct CopyRecord {
    pub(super) kind: u32,
    /// `CUpti_ActivityMemcpyKind`
    pub(super) direction: u8,
    /// `CUpti_ActivityMemoryKind`
    pub(super) from: u8,
    pub(super) to: u8,
    /// 1: asynchronous.
    pub(super) flags: u8,
    pub(super) bytes: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) device: u32,
    pub(super) context: u32,
    pub(super) stream: u32,
    pub(super) correlation: u32,
    pub(super) runtime_correlation: u32,
    pub(super) padding: u32,
    pub(super) reserved: u64,
    pub(super) graph_node: u64,
    pub(super) graph: u32,
    pub(super) channel: [u32; 2],
    pub(super) is_device_launched: u8,
    pub(super) padding_middle: [u8; 3],
    pub(super) copies: u64,
}

/// `CUpti_ActivityMemset4`
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct FillRecord {
    pub(super) kind: u32,
    pub(super) value: u32,
    pub(super) bytes: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) device: u32,
    pub(super) context: u32,
    pub(super) stream: u32,
    pub(super) correlation: u32,
    /// 1: asynchronous.
    pub(super) flags: u16,
    pub(super) memory: u16,
    pub(super) padding: u32,
    pub(super) reserved: u64,
    pub(super) graph_node: u64,
    pub(super) graph: u32,
    pub(super) channel: [u32; 2],
    pub(super) is_device_launched: u8,
    pub(super) padding_end: [u8; 3],
}

/// The length of a record of this kind; `None` for kinds that there are no records of.
pub(super) fn bytes_of_kind(kind: u32) -> Option<usize> {
    match kind {
        kind::DRIVER | kind::RUNTIME => Some(size_of::<ApiRecord>()),
        kind::EXTERNAL_CORRELATION => Some(size_of::<ExternalCorrelationRecord>()),
        kind::CONCURRENT_KERNEL => Some(size_of::<KernelRecord>()),
        kind::MEMCPY => Some(size_of::<CopyRecord>()),
        kind::MEMSET => Some(size_of::<FillRecord>()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// Sizes and offsets as a C compiler gives them for cupti_activity.h of the package nvidia-cuda-cupti 13.0.
    #[test]
    fn layouts_are_those_of_the_header() {
        assert_eq!(size_of::<ApiRecord>(), 40);
        assert_eq!(
            [
                offset_of!(ApiRecord, start),
                offset_of!(ApiRecord, process),
                offset_of!(ApiRecord, correlation)
            ],
            [8, 24, 32]
        );
        assert_eq!(size_of::<ExternalCorrelationRecord>(), 24);
        assert_eq!(offset_of!(ExternalCorrelationRecord, correlation), 16);
        assert_eq!(size_of::<KernelRecord>(), 216);
        assert_eq!(
            [
                offset_of!(KernelRecord, registers),
                offset_of!(KernelRecord, partitioned_cache),
                offset_of!(KernelRecord, start),
                offset_of!(KernelRecord, completed),
                offset_of!(KernelRecord, device),
                offset_of!(KernelRecord, grid),
                offset_of!(KernelRecord, correlation),
                offset_of!(KernelRecord, grid_number),
                offset_of!(KernelRecord, name),
                offset_of!(KernelRecord, queued),
                offset_of!(KernelRecord, launch_type),
                offset_of!(KernelRecord, executed_shared_bytes),
                offset_of!(KernelRecord, graph_node),
                offset_of!(KernelRecord, shared_limit_config),
                offset_of!(KernelRecord, graph),
                offset_of!(KernelRecord, access_policy),
                offset_of!(KernelRecord, channel),
                offset_of!(KernelRecord, cluster),
                offset_of!(KernelRecord, local_bytes_of_all_wide),
                offset_of!(KernelRecord, most_cluster_sizes),
                offset_of!(KernelRecord, is_device_launched),
            ],
            [6, 8, 16, 32, 40, 52, 92, 96, 104, 120, 136, 140, 144, 152, 156, 160, 168, 176, 192, 200, 208]
        );
        assert_eq!(size_of::<CopyRecord>(), 96);
        assert_eq!(
            [
                offset_of!(CopyRecord, bytes),
                offset_of!(CopyRecord, correlation),
                offset_of!(CopyRecord, reserved),
                offset_of!(CopyRecord, graph_node),
                offset_of!(CopyRecord, is_device_launched),
                offset_of!(CopyRecord, copies),
            ],
            [8, 44, 56, 64, 84, 88]
        );
        assert_eq!(size_of::<FillRecord>(), 88);
        assert_eq!(
            [
                offset_of!(FillRecord, bytes),
                offset_of!(FillRecord, correlation),
                offset_of!(FillRecord, flags),
                offset_of!(FillRecord, reserved),
                offset_of!(FillRecord, graph_node),
                offset_of!(FillRecord, is_device_launched),
            ],
            [8, 44, 48, 56, 64, 84]
        );
    }
}
