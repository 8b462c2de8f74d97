//! The functions taken from the driver, each declared once, by the exact symbol it is exported as.
//!
//! Source of the signatures: `cuda.h` of CUDA 13.0. Handles and addresses are integers of the same size, enums are
//! integers. All must be there: every GPU that Torpor runs on has a driver that exports them.

use super::{DriverError, Handle};
use libloading::Library;
use std::ffi::{c_char, c_void};
use std::path::Path;
use torpor_proto::command::LaunchAttribute;

/// `CUlaunchConfig`, with this crate's types for what it points to.
#[derive(Debug)]
#[repr(C)]
pub(super) struct RawLaunchConfig {
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) shared_bytes: u32,
    pub(super) stream: Handle,
    pub(super) attributes: *const LaunchAttribute,
    pub(super) attribute_count: u32,
}

const _: () = assert!(size_of::<RawLaunchConfig>() == size_of::<cudarc::driver::sys::CUlaunchConfig>());

/// `CUgraphExecUpdateResultInfo`: a result and two nodes.
pub(super) type RawUpdateInfo = [u64; 3];

const _: () =
    assert!(size_of::<RawUpdateInfo>() == size_of::<cudarc::driver::sys::CUgraphExecUpdateResultInfo>());

/// `CUgraphNodeParams` of a conditional node.
#[derive(Debug)]
#[repr(C)]
pub(super) struct RawNodeParams {
    pub(super) node_type: u32,
    pub(super) reserved: [u32; 3],
    pub(super) condition: u64,
    pub(super) kind: u32,
    pub(super) bodies: u32,
    /// Where the driver says where the graphs' handles are.
    pub(super) graphs: *const Handle,
    pub(super) context: Handle,
    pub(super) rest: [u64; 26],
}

const _: () = assert!(size_of::<RawNodeParams>() == size_of::<cudarc::driver::sys::CUgraphNodeParams>());

/// `CUtensorMap`, which `cuda.h` aligns to 64 bytes.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct RawTensorMap(pub(super) [u64; 16]);

const _: () = assert!(size_of::<RawTensorMap>() == size_of::<cudarc::driver::sys::CUtensorMap>());

/// `CUDA_ARRAY3D_DESCRIPTOR`, with integers for enums.
#[derive(Debug)]
#[repr(C)]
pub(super) struct RawArrayDescriptor {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) depth: usize,
    pub(super) format: u32,
    pub(super) channels: u32,
    pub(super) flags: u32,
}

const _: () =
    assert!(size_of::<RawArrayDescriptor>() == size_of::<cudarc::driver::sys::CUDA_ARRAY3D_DESCRIPTOR>());

/// `CUDA_RESOURCE_DESC`, with words for its union.
#[derive(Debug)]
#[repr(C)]
pub(super) struct RawResource {
    pub(super) kind: u32,
    pub(super) of_kind: [u64; 16],
    pub(super) flags: u32,
}

const _: () = assert!(size_of::<RawResource>() == size_of::<cudarc::driver::sys::CUDA_RESOURCE_DESC>());

/// `CUDA_TEXTURE_DESC`, with integers for enums and the bits of floating-point numbers.
#[derive(Debug)]
#[repr(C)]
pub(super) struct RawSampler {
    pub(super) sampler: torpor_proto::command::Sampler,
    pub(super) reserved: [u32; 12],
}

const _: () = assert!(size_of::<RawSampler>() == size_of::<cudarc::driver::sys::CUDA_TEXTURE_DESC>());

/// `CUDA_RESOURCE_VIEW_DESC`, with integers for enums.
#[derive(Debug)]
#[repr(C)]
pub(super) struct RawView {
    pub(super) format: u32,
    pub(super) extent: [usize; 3],
    pub(super) levels: [u32; 2],
    pub(super) layers: [u32; 2],
    pub(super) reserved: [u32; 16],
}

const _: () = assert!(size_of::<RawView>() == size_of::<cudarc::driver::sys::CUDA_RESOURCE_VIEW_DESC>());

/// `CUdevResource` of multiprocessors. What the driver hides in it is for the driver alone.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct RawDevResource {
    pub(super) kind: u32,
    pub(super) hidden: [u8; 92],
    pub(super) multiprocessors: u32,
    pub(super) least: u32,
    pub(super) alignment: u32,
    pub(super) rest: [u32; 9],
}

const _: () = assert!(size_of::<RawDevResource>() == size_of::<cudarc::driver::sys::CUdevResource>());

/// `cuGetExportTable`: place for the table, UUID.
pub(super) type GetExportTable = unsafe extern "C" fn(*mut *const c_void, *const [u8; 16]) -> u32;

macro_rules! table {
    ($($symbol:ident($($argument:ty),*);)*) => {
        /// The functions.
        #[expect(non_snake_case, reason = "each field has the name of its symbol")]
        pub(super) struct Table {
            $(pub(super) $symbol: unsafe extern "C" fn($($argument),*) -> u32,)*
            /// Private tables; a driver may do without.
            pub(super) cuGetExportTable: Option<GetExportTable>,
        }

        impl Table {
            /// Takes every function from a library.
            #[expect(non_snake_case, reason = "each variable has the name of its symbol")]
            pub(super) fn load(library: &Library, path: &Path) -> Result<Self, DriverError> {
                $(
                    let symbol = concat!(stringify!($symbol), "\0").as_bytes();
                    // SAFETY: the type is the signature that cuda.h declares for this symbol.
                    let found = unsafe { library.get::<unsafe extern "C" fn($($argument),*) -> u32>(symbol) };
                    let $symbol = *found.map_err(|_| DriverError::Symbol {
                        path: path.to_owned(),
                        symbol: stringify!($symbol),
                    })?;
                )*
                // SAFETY: as above; the signature is that of the CUDA 2 headers, which declared it.
                let tables = unsafe { library.get::<GetExportTable>(b"cuGetExportTable\0") };
                Ok(Self { $($symbol,)* cuGetExportTable: tables.ok().map(|found| *found) })
            }
        }
    };
}

table! {
    cuInit(u32);
    cuDriverGetVersion(*mut i32);
    cuDeviceGet(*mut i32, i32);
    cuDeviceGetName(*mut c_char, i32, i32);
    cuDeviceGetUuid_v2(*mut [u8; 16], i32);
    cuDeviceTotalMem_v2(*mut usize, i32);
    cuDeviceGetAttribute(*mut i32, u32, i32);
    cuDeviceCanAccessPeer(*mut i32, i32, i32);
    cuDevicePrimaryCtxRetain(*mut Handle, i32);
    cuDevicePrimaryCtxRelease_v2(i32);
    cuCtxSetCurrent(Handle);
    cuCtxGetLimit(*mut usize, u32);
    cuCtxSetLimit(u32, usize);
    cuCtxSynchronize();
    cuCtxGetStreamPriorityRange(*mut i32, *mut i32);

    cuDeviceGetDevResource(i32, *mut RawDevResource, u32);
    cuDevSmResourceSplitByCount(
        *mut RawDevResource, *mut u32, *const RawDevResource, *mut RawDevResource, u32, u32
    );
    cuDevResourceGenerateDesc(*mut Handle, *mut RawDevResource, u32);
    cuGreenCtxCreate(*mut Handle, Handle, i32, u32);
    cuGreenCtxDestroy(Handle);
    cuGreenCtxGetDevResource(Handle, *mut RawDevResource, u32);
    cuGreenCtxStreamCreate(*mut Handle, Handle, u32, i32);

    cuMemGetInfo_v2(*mut usize, *mut usize);
    cuMemAddressReserve(*mut u64, usize, usize, u64, u64);
    cuMemAddressFree(u64, usize);
    cuMemCreate(*mut u64, usize, *const cudarc::driver::sys::CUmemAllocationProp, u64);
    cuMemRelease(u64);
    cuMemExportToShareableHandle(*mut c_void, u64, u32, u64);
    cuMemImportFromShareableHandle(*mut u64, *mut c_void, u32);
    cuMemMap(u64, usize, usize, u64, u64);
    cuMemUnmap(u64, usize);
    cuMemSetAccess(u64, usize, *const cudarc::driver::sys::CUmemAccessDesc, usize);
    cuMemHostAlloc(*mut *mut c_void, usize, u32);
    cuMemFreeHost(*mut c_void);
    cuMemHostRegister_v2(*mut c_void, usize, u32);
    cuMemHostUnregister(*mut c_void);
    cuMemHostGetDevicePointer_v2(*mut u64, *mut c_void, u32);

    cuMemcpyAsync(u64, u64, usize, Handle);
    cuMemcpyHtoDAsync_v2(u64, *const c_void, usize, Handle);
    cuMemcpyDtoHAsync_v2(*mut c_void, u64, usize, Handle);
    cuMemcpyDtoDAsync_v2(u64, u64, usize, Handle);
    cuMemcpy3DAsync_v2(*const cudarc::driver::sys::CUDA_MEMCPY3D, Handle);
    cuMemsetD8Async(u64, u8, usize, Handle);
    cuMemsetD16Async(u64, u16, usize, Handle);
    cuMemsetD32Async(u64, u32, usize, Handle);
    cuMemsetD2D8Async(u64, usize, u8, usize, usize, Handle);
    cuMemsetD2D16Async(u64, usize, u16, usize, usize, Handle);
    cuMemsetD2D32Async(u64, usize, u32, usize, usize, Handle);

    cuStreamCreateWithPriority(*mut Handle, u32, i32);
    cuStreamDestroy_v2(Handle);
    cuStreamQuery(Handle);
    cuStreamWaitEvent(Handle, Handle, u32);
    cuStreamWriteValue32_v2(Handle, u64, u32, u32);
    cuStreamWriteValue64_v2(Handle, u64, u64, u32);
    cuStreamBeginCapture_v2(Handle, u32);
    cuStreamEndCapture(Handle, *mut Handle);
    cuStreamBeginCaptureToGraph(Handle, Handle, *const Handle, *const u64, usize, u32);
    cuStreamGetCaptureInfo_v3(
        Handle, *mut u32, *mut u64, *mut Handle, *mut *const Handle, *mut *const u64, *mut usize
    );
    cuStreamUpdateCaptureDependencies_v2(Handle, *const Handle, *const u64, usize, u32);

    cuEventCreate(*mut Handle, u32);
    cuEventDestroy_v2(Handle);
    cuEventRecordWithFlags(Handle, Handle, u32);
    cuEventQuery(Handle);
    cuEventSynchronize(Handle);
    cuEventElapsedTime_v2(*mut f32, Handle, Handle);

    cuLibraryLoadData(
        *mut Handle, *const c_void, *mut c_void, *mut *mut c_void, u32, *mut c_void, *mut *mut c_void, u32
    );
    cuLibraryUnload(Handle);
    cuLinkCreate_v2(u32, *mut u32, *mut *mut c_void, *mut Handle);
    cuLinkAddData_v2(
        Handle, u32, *const c_void, usize, *const c_char, u32, *mut u32, *mut *mut c_void
    );
    cuLinkComplete(Handle, *mut *const u8, *mut usize);
    cuLinkDestroy(Handle);
    cuLibraryGetKernel(*mut Handle, Handle, *const c_char);
    cuLibraryGetGlobal(*mut u64, *mut usize, Handle, *const c_char);
    cuLibraryGetKernelCount(*mut u32, Handle);
    cuLibraryEnumerateKernels(*mut Handle, u32, Handle);
    cuKernelGetFunction(*mut Handle, Handle);
    cuFuncLoad(Handle);
    cuKernelGetAttribute(*mut i32, u32, Handle, i32);
    cuKernelSetAttribute(u32, i32, Handle, i32);
    cuKernelGetParamInfo(Handle, usize, *mut usize, *mut usize);
    cuKernelGetName(*mut *const c_char, Handle);

    cuLaunchKernelEx(*const RawLaunchConfig, Handle, *mut *mut c_void, *mut *mut c_void);
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(*mut i32, Handle, i32, usize, u32);
    cuOccupancyMaxActiveClusters(*mut i32, Handle, *const RawLaunchConfig);
    cuOccupancyMaxPotentialClusterSize(*mut i32, Handle, *const RawLaunchConfig);
    cuOccupancyAvailableDynamicSMemPerBlock(*mut usize, Handle, i32, i32);

    cuGraphInstantiateWithFlags(*mut Handle, Handle, u64);
    cuGraphLaunch(Handle, Handle);
    cuGraphExecDestroy(Handle);
    cuGraphDestroy(Handle);
    cuGraphExecUpdate_v2(Handle, Handle, *mut RawUpdateInfo);
    cuGraphAddEmptyNode(*mut Handle, Handle, *const Handle, usize);
    cuGraphAddNode_v2(*mut Handle, Handle, *const Handle, *const u64, usize, *mut RawNodeParams);
    cuGraphConditionalHandleCreate(*mut u64, Handle, Handle, u32, u32);

    cuArray3DCreate_v2(*mut Handle, *const RawArrayDescriptor);
    cuArrayDestroy(Handle);
    cuMipmappedArrayCreate(*mut Handle, *const RawArrayDescriptor, u32);
    cuMipmappedArrayGetLevel(*mut Handle, Handle, u32);
    cuMipmappedArrayDestroy(Handle);
    cuTexObjectCreate(*mut u64, *const RawResource, *const RawSampler, *const RawView);
    cuTexObjectDestroy(u64);
    cuSurfObjectCreate(*mut u64, *const RawResource);
    cuSurfObjectDestroy(u64);

    cuTensorMapEncodeTiled(
        *mut RawTensorMap, u32, u32, u64, *const u64, *const u64, *const u32, *const u32, u32, u32, u32, u32
    );
    cuTensorMapEncodeIm2col(
        *mut RawTensorMap, u32, u32, u64, *const u64, *const u64, *const i32, *const i32, u32, u32, *const u32,
        u32, u32, u32, u32
    );
}
