//! What is asked of devices and is not told here: counters, links and firmware. Programs expect this answer, since many GPUs give
//! it.

use super::device;
use super::error::NOT_SUPPORTED;
use std::ffi::c_void;

/// Functions of a device, and of arguments that nobody looks at.
macro_rules! unsupported {
    ($($name:ident)*) => {
        const _: () = {$(
            /// See `nvml.h`.
            #[unsafe(no_mangle)]
            pub extern "C" fn $name(device: *const c_void) -> i32 {
                $crate::driver::guard(|| self::device(device).err().unwrap_or(NOT_SUPPORTED))
            }
        )*};

        /// Every exported name of this family.
        pub(super) const NAMES: &[&str] = &[$(stringify!($name),)*];
    };
}

unsupported! {
    nvmlDeviceGetProcessUtilization
    nvmlDeviceGetEncoderUtilization
    nvmlDeviceGetDecoderUtilization
    nvmlDeviceGetTemperatureThreshold
    nvmlDeviceGetFanSpeed_v2
    nvmlDeviceGetNumFans
    nvmlDeviceGetPowerManagementMode
    nvmlDeviceGetPowerManagementLimitConstraints
    nvmlDeviceGetCurrentClocksThrottleReasons
    nvmlDeviceGetCurrentClocksEventReasons
    nvmlDeviceGetSupportedMemoryClocks
    nvmlDeviceGetSupportedGraphicsClocks
    nvmlDeviceGetPcieThroughput
    nvmlDeviceGetCurrPcieLinkGeneration
    nvmlDeviceGetCurrPcieLinkWidth
    nvmlDeviceGetMaxPcieLinkGeneration
    nvmlDeviceGetMaxPcieLinkWidth
    nvmlDeviceGetPcieReplayCounter
    nvmlDeviceGetBAR1MemoryInfo
    nvmlDeviceGetTotalEccErrors
    nvmlDeviceGetMemoryErrorCounter
    nvmlDeviceGetRetiredPages
    nvmlDeviceGetRemappedRows
    nvmlDeviceGetSerial
    nvmlDeviceGetBoardId
    nvmlDeviceGetBoardPartNumber
    nvmlDeviceGetVbiosVersion
    nvmlDeviceGetInforomVersion
    nvmlDeviceGetInforomImageVersion
    nvmlDeviceGetAttributes
    nvmlDeviceGetAttributes_v2
    nvmlDeviceGetGpuInstanceId
    nvmlDeviceGetComputeInstanceId
    nvmlDeviceGetDeviceHandleFromMigDeviceHandle
    nvmlDeviceGetCpuAffinity
    nvmlDeviceGetMemoryAffinity
    nvmlDeviceGetNumaNodeId
    nvmlDeviceGetTopologyCommonAncestor
    nvmlDeviceGetAccountingMode
    nvmlDeviceGetSupportedEventTypes
    nvmlDeviceRegisterEvents
    nvmlDeviceGetSamples
    nvmlDeviceGetNvLinkState
    nvmlDeviceGetNvLinkVersion
    nvmlDeviceGetNvLinkCapability
    nvmlDeviceGetNvLinkRemoteDeviceType
    nvmlDeviceGetNvLinkRemotePciInfo
    nvmlDeviceGetNvLinkRemotePciInfo_v2
    nvmlDeviceGetFieldValues
    nvmlDeviceGetPlatformInfo
    nvmlDeviceGetGpuFabricInfo
    nvmlDeviceGetGpuFabricInfoV
}
