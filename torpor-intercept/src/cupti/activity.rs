//! Which kinds of records the program wants, and the records of work on the GPU.

use super::buffers;
use super::callback_ids::Api;
use super::clock::{self, Conversion};
use super::record::{CONTEXT, CopyRecord, DEVICE, FillRecord, KernelRecord, bytes_of_kind, kind};
use super::result::{CuptiError, CuptiResult};
use crate::calls::let_profiler_follow;
use crate::core::Kernel;
use crate::core::profile::{self, Finished, Side, Work, WorkKind};
use bytemuck::Zeroable;
use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a launch of a graph is called. Its kernels' own times are not known: the graph is one command to the worker.
const GRAPH: &CStr = c"cudaGraphLaunch (whole graph)";

/// CUPTI's number of the legacy default stream; others are numbered from there.
const LEGACY_STREAM: u64 = 7;

// CUfunction_attribute (cuda.h).
const STATIC_SHARED_BYTES: u32 = 1;
const LOCAL_BYTES: u32 = 3;
const REGISTERS: u32 = 4;

/// `CUPTI_ACTIVITY_FLAG_MEMCPY_ASYNC`, `CUPTI_ACTIVITY_FLAG_MEMSET_ASYNC`
const ASYNC: u8 = 1;
/// `CUPTI_ACTIVITY_MEMORY_KIND_DEVICE`
const DEVICE_MEMORY: u16 = 3;

/// A bit for each kind that is wanted.
static ENABLED: AtomicU64 = AtomicU64::new(0);

pub(super) fn is_enabled(kind: u32) -> bool {
    ENABLED.load(Ordering::Relaxed) & (1 << kind) != 0
}

fn enable(kind: u32, is_wanted: bool) -> CuptiResult {
    if bytes_of_kind(kind).is_none() && kind != kind::OVERHEAD {
        return Err(CuptiError::InvalidKind);
    }
    if is_wanted {
        clock::start();
        ENABLED.fetch_or(1 << kind, Ordering::Relaxed);
    } else {
        ENABLED.fetch_and(!(1 << kind), Ordering::Relaxed);
    }
    match kind {
        kind::CONCURRENT_KERNEL => profile::want(WorkKind::Kernels, is_wanted),
        kind::MEMCPY => profile::want(WorkKind::Copies, is_wanted),
        kind::MEMSET => profile::want(WorkKind::Fills, is_wanted),
        kind::DRIVER => Api::Driver.wanted().set_all(is_wanted),
        kind::RUNTIME => Api::Runtime.wanted().set_all(is_wanted),
        _ => {}
    }
    follow();
    Ok(())
}

/// Calls are followed while records of any kind are wanted.
fn follow() {
    let wants_calls = Api::Driver.wanted().has_any() || Api::Runtime.wanted().has_any();
    let_profiler_follow(wants_calls || ENABLED.load(Ordering::Relaxed) != 0);
}

fn enable_function(api: Api, number: u32, is_wanted: u8) -> CuptiResult {
    if !api.wanted().set(number, is_wanted != 0) {
        return Err(CuptiError::InvalidParameter);
    }
    follow();
    Ok(())
}

/// Writes records of work that is over.
pub(super) fn write(finished: &[Finished]) {
    let conversion = Conversion::now();
    for finished in finished {
        let times = (conversion.ticks(finished.start_ns), conversion.ticks(finished.end_ns));
        match finished.work {
            Work::Kernel { kernel, grid, block, shared_bytes } => {
                let record = kernel_record(finished, times, (kernel, grid, block, shared_bytes));
                buffers::write(&record);
            }
            Work::Graph { graph } => buffers::write(&KernelRecord {
                name: GRAPH.as_ptr().expose_provenance() as u64,
                grid: [1; 3],
                block: [1; 3],
                graph,
                ..launched(finished, times)
            }),
            Work::Copy { from, to, bytes } => {
                buffers::write(&copy_record(finished, times, (from, to, bytes)));
            }
            Work::Fill { bytes, value } => buffers::write(&FillRecord {
                kind: kind::MEMSET,
                value,
                bytes,
                start: times.0,
                end: times.1,
                device: DEVICE,
                context: CONTEXT,
                stream: stream(finished),
                correlation: finished.call,
                flags: ASYNC.into(),
                memory: DEVICE_MEMORY,
                ..FillRecord::zeroed()
            }),
        }
    }
    buffers::drop_records(profile::take_lost());
}

fn stream(finished: &Finished) -> u32 {
    (LEGACY_STREAM - 1 + finished.stream) as u32
}

/// What is the same for kernels and graphs.
fn launched(finished: &Finished, (start, end): (u64, u64)) -> KernelRecord {
    KernelRecord {
        kind: kind::CONCURRENT_KERNEL,
        start,
        end,
        device: DEVICE,
        context: CONTEXT,
        stream: stream(finished),
        correlation: finished.call,
        grid_number: finished.call.into(),
        ..KernelRecord::zeroed()
    }
}

fn kernel_record(
    finished: &Finished,
    times: (u64, u64),
    (kernel, grid, block, shared_bytes): (&'static Kernel, [u32; 3], [u32; 3], u32),
) -> KernelRecord {
    let attribute = |attribute| kernel.attribute(attribute).map_or(0, i32::unsigned_abs);
    KernelRecord {
        registers: attribute(REGISTERS) as u16,
        grid,
        block,
        static_shared_bytes: attribute(STATIC_SHARED_BYTES),
        dynamic_shared_bytes: shared_bytes,
        local_bytes: attribute(LOCAL_BYTES),
        name: kernel.name.as_ptr().expose_provenance() as u64,
        ..launched(finished, times)
    }
}

fn copy_record(
    finished: &Finished,
    (start, end): (u64, u64),
    (from, to, bytes): (Side, Side, u64),
) -> CopyRecord {
    CopyRecord {
        kind: kind::MEMCPY,
        direction: direction(from, to),
        from: memory_kind(from),
        to: memory_kind(to),
        flags: ASYNC,
        bytes,
        start,
        end,
        device: DEVICE,
        context: CONTEXT,
        stream: stream(finished),
        correlation: finished.call,
        copies: 1,
        ..CopyRecord::zeroed()
    }
}

/// `CUpti_ActivityMemcpyKind`
fn direction(from: Side, to: Side) -> u8 {
    match (from == Side::Device, to == Side::Device) {
        (false, true) => 1,
        (true, false) => 2,
        (true, true) => 8,
        (false, false) => 9,
    }
}

/// `CUpti_ActivityMemoryKind`
fn memory_kind(side: Side) -> u8 {
    match side {
        Side::Pageable => 1,
        Side::Pinned => 2,
        Side::Device => 3,
    }
}

super::cupti_functions! {
    /// Wants records of a kind.
    fn cuptiActivityEnable(kind: u32) {
        enable(kind, true)
    }

    /// Wants none of a kind any more.
    fn cuptiActivityDisable(kind: u32) {
        enable(kind, false)
    }

    /// Wants records of one function of the runtime, or none of it.
    fn cuptiActivityEnableRuntimeApi(number: u32, is_wanted: u8) {
        enable_function(Api::Runtime, number, is_wanted)
    }

    /// Wants records of one function of the driver, or none of it.
    fn cuptiActivityEnableDriverApi(number: u32, is_wanted: u8) {
        enable_function(Api::Driver, number, is_wanted)
    }

    /// Records of events have no times of the device.
    fn cuptiActivityEnableCudaEventDeviceTimestamps(is_wanted: u8) {
        if is_wanted == 0 { Ok(()) } else { Err(CuptiError::NotSupported) }
    }

    /// Writes all that is over and gives the buffer back. What is still on the GPU comes with the next flush: CUPTI gives it
    /// without times if it is forced.
    fn cuptiActivityFlushAll(_flags: u32) {
        if !buffers::is_in_callback() {
            write(&profile::collect());
            buffers::flush();
        }
        Ok(())
    }

    /// Sizes of CUPTI's own memory, of which there is none here, and whether each thread has a buffer: all have one.
    fn cuptiActivitySetAttribute(_attribute: u32, bytes: *const usize, value: *const c_void) {
        if bytes.is_null() || value.is_null() { Err(CuptiError::InvalidParameter) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_without_records_are_refused() {
        for kind in [0, 3, 38, 51, 1000] {
            assert_eq!(enable(kind, true), Err(CuptiError::InvalidKind), "{kind}");
        }
    }

    #[test]
    fn copies_are_named_by_their_sides() {
        let directions = [
            (Side::Pageable, Side::Device, 1),
            (Side::Device, Side::Pinned, 2),
            (Side::Device, Side::Device, 8),
            (Side::Pinned, Side::Pinned, 9),
        ];
        for (from, to, expected) in directions {
            assert_eq!(direction(from, to), expected, "{from:?} to {to:?}");
        }
    }
}
