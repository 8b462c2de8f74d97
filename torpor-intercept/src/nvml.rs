//! A small NVML for programs that have none of their own: PyTorch asks it for the number of devices, and who else uses
//! one when memory runs out; NCCL, also in a group of one, for the links of its device. A program finds it as
//! `libnvidia-ml.so.1` where `torpor run` puts that name.
//!
//! Types and codes: `nvml.h`, "NVML API reference". What is not here cannot be found by `dlsym`, which programs expect of
//! old versions, but not all: NCCL 2.28 calls what it did not find. So all that it may call is here.

use crate::core::{Client, client, initialize};
use crate::driver::argument::{Out, Text, put_text};
use crate::driver::device::{pci_bus_id, uuid_text};
use crate::driver::guard;
use std::ffi::{c_char, c_void};
use std::ptr;

const SUCCESS: i32 = 0;
const UNINITIALIZED: i32 = 1;
const INVALID_ARGUMENT: i32 = 2;
const NOT_SUPPORTED: i32 = 3;
const NOT_FOUND: i32 = 6;
const INSUFFICIENT_SIZE: i32 = 7;
const UNKNOWN: i32 = 999;

/// `NVML_P2P_STATUS_OK`
const P2P_STATUS_OK: i32 = 0;

/// The address that stands for the one device.
static DEVICE: u8 = 0;

/// `nvmlMemory_t`
#[repr(C)]
struct Memory {
    total_bytes: u64,
    free_bytes: u64,
    used_bytes: u64,
}

fn handle() -> *const c_void {
    (&raw const DEVICE).cast()
}

type Outcome = Result<(), i32>;

fn known() -> Result<&'static Client, i32> {
    client().map_err(|_| UNINITIALIZED)
}

fn device(device: *const c_void) -> Result<&'static Client, i32> {
    if device == handle() { known() } else { Err(INVALID_ARGUMENT) }
}

fn put<T>(place: Out<T>, value: T) -> Outcome {
    place.put(value).map_err(|_| INVALID_ARGUMENT)
}

fn put_name(place: Out<c_char>, room: u32, text: &str) -> Outcome {
    if room as usize <= text.len() {
        return Err(INSUFFICIENT_SIZE);
    }
    put_text(place, room.cast_signed(), text).map_err(|_| INVALID_ARGUMENT)
}

/// Defines exported functions; further names have the same ABI.
macro_rules! nvml_functions {
    ($($(#[$doc:meta])* fn $($name:ident)|+ ($($argument:tt)*) $body:block)*) => {
        $(nvml_functions!(@each [$($name)+] ($($argument)*) $body);)*

        /// Every exported name.
        pub const NAMES: &[&str] = &[$($(stringify!($name),)+)*];
    };
    (@each [$($name:ident)+] $arguments:tt $body:block) => {
        const _: () = { $(nvml_functions!(@one $name $arguments $body);)+ };
    };
    (@one $name:ident ($($argument:ident: $type:ty),*) $body:block) => {
        /// See `nvml.h`.
        ///
        /// # Safety
        /// As `nvml.h` says.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> i32 {
            guard(|| {
                let body = || -> Outcome { $body };
                body().err().unwrap_or(SUCCESS)
            })
        }
    };
}

nvml_functions! {
    fn nvmlInit | nvmlInit_v2 () {
        initialize().map_err(|_| UNKNOWN)
    }

    fn nvmlInitWithFlags(_flags: u32) {
        initialize().map_err(|_| UNKNOWN)
    }

    fn nvmlShutdown() {
        Ok(())
    }

    fn nvmlSystemGetCudaDriverVersion | nvmlSystemGetCudaDriverVersion_v2 (version: Out<i32>) {
        put(version, known()?.device.driver_version)
    }

    fn nvmlDeviceGetCount | nvmlDeviceGetCount_v2 (count: Out<u32>) {
        known()?;
        put(count, 1)
    }

    fn nvmlDeviceGetHandleByIndex | nvmlDeviceGetHandleByIndex_v2 (index: u32, device: Out<*const c_void>) {
        known()?;
        if index != 0 {
            return Err(INVALID_ARGUMENT);
        }
        put(device, handle())
    }

    fn nvmlDeviceGetHandleByPciBusId | nvmlDeviceGetHandleByPciBusId_v2 (name: Text, device: Out<*const c_void>) {
        let own = pci_bus_id(known()?);
        let wanted = name.get().map_err(|_| INVALID_ARGUMENT)?.to_string_lossy().to_ascii_uppercase();
        // The domain has four digits or eight.
        if wanted.trim_start_matches('0') != own.trim_start_matches('0') {
            return Err(NOT_FOUND);
        }
        put(device, handle())
    }

    fn nvmlDeviceGetHandleByUUID(name: Text, device: Out<*const c_void>) {
        let own = uuid_text(known()?);
        if name.get().map_err(|_| INVALID_ARGUMENT)?.to_string_lossy() != own {
            return Err(NOT_FOUND);
        }
        put(device, handle())
    }

    fn nvmlDeviceGetIndex(device: *const c_void, index: Out<u32>) {
        self::device(device)?;
        put(index, 0)
    }

    fn nvmlDeviceGetName(device: *const c_void, name: Out<c_char>, room: u32) {
        put_name(name, room, &self::device(device)?.device.name)
    }

    fn nvmlDeviceGetUUID(device: *const c_void, uuid: Out<c_char>, room: u32) {
        put_name(uuid, room, &uuid_text(self::device(device)?))
    }

    fn nvmlDeviceGetMemoryInfo(device: *const c_void, memory: Out<Memory>) {
        let (free_bytes, total_bytes) = self::device(device)?.memory_info().map_err(|_| UNKNOWN)?;
        put(memory, Memory { total_bytes, free_bytes, used_bytes: total_bytes - free_bytes.min(total_bytes) })
    }

    /// Other functions' processes are nobody's business, and this one has no context of its own.
    fn nvmlDeviceGetComputeRunningProcesses | nvmlDeviceGetComputeRunningProcesses_v2
        | nvmlDeviceGetComputeRunningProcesses_v3 (device: *const c_void, count: Out<u32>, _processes: *const c_void)
    {
        self::device(device)?;
        put(count, 0)
    }

    fn nvmlDeviceGetCudaComputeCapability(device: *const c_void, major: Out<i32>, minor: Out<i32>) {
        let (found_major, found_minor) = self::device(device)?.device.compute_capability().ok_or(UNKNOWN)?;
        put(major, found_major)?;
        put(minor, found_minor)
    }

    fn nvmlDeviceGetNvLinkState(device: *const c_void, _link: u32, _is_active: *const c_void) {
        self::device(device)?;
        Err(NOT_SUPPORTED)
    }

    fn nvmlDeviceGetNvLinkCapability(device: *const c_void, _link: u32, _which: u32, _has: *const c_void) {
        self::device(device)?;
        Err(NOT_SUPPORTED)
    }

    fn nvmlDeviceGetFieldValues(device: *const c_void, _count: i32, _values: *const c_void) {
        self::device(device)?;
        Err(NOT_SUPPORTED)
    }

    fn nvmlDeviceGetPlatformInfo(device: *const c_void, _information: *const c_void) {
        self::device(device)?;
        Err(NOT_SUPPORTED)
    }

    /// Of confidential computing, which nobody who sees no GPU has to know of.
    fn nvmlSystemGetConfComputeState | nvmlSystemGetConfComputeSettings (_answer: *const c_void) {
        known()?;
        Err(NOT_SUPPORTED)
    }

    fn nvmlDeviceGetNvLinkRemoteDeviceType(device: *const c_void, _link: u32, _kind: *const c_void) {
        self::device(device)?;
        Err(NOT_SUPPORTED)
    }

    fn nvmlDeviceGetNvLinkRemotePciInfo | nvmlDeviceGetNvLinkRemotePciInfo_v2
        (device: *const c_void, _link: u32, _pci: *const c_void)
    {
        self::device(device)?;
        Err(NOT_SUPPORTED)
    }

    fn nvmlDeviceGetGpuFabricInfoV(device: *const c_void, _information: *const c_void) {
        self::device(device)?;
        Err(NOT_SUPPORTED)
    }

    /// There is one device, which reaches itself.
    fn nvmlDeviceGetP2PStatus(device: *const c_void, peer: *const c_void, _what: u32, status: Out<i32>) {
        self::device(device)?;
        self::device(peer)?;
        put(status, P2P_STATUS_OK)
    }
}

/// Describes a code.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(code: i32) -> *const c_char {
    let text = match code {
        SUCCESS => c"The operation was successful",
        UNINITIALIZED => c"NVML was not first initialized with nvmlInit()",
        INVALID_ARGUMENT => c"A supplied argument is invalid",
        NOT_SUPPORTED => c"The requested operation is not available on target device",
        NOT_FOUND => c"A query to find an object was unsuccessful",
        INSUFFICIENT_SIZE => c"An input argument is not large enough",
        _ => c"An internal driver error occurred",
    };
    ptr::from_ref(text).cast()
}
