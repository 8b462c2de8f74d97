//! What the tests share: the C functions, declared as a C program would, and a process for every test.
//!
//! The simulator reads its environment once in a process, so each test runs its body in a process of its own: the test
//! starts itself again with the environment it wants.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use torpor_simgpu as _;

macro_rules! functions {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        mod c {
            use super::*;
            unsafe extern "C" {
                $(pub fn $name($($argument: $type),*) -> i32;)*
            }
        }
        $(
            #[allow(non_snake_case, clippy::too_many_arguments, reason = "the C function's name and arguments")]
            pub fn $name($($argument: $type),*) -> i32 {
                // SAFETY: the declaration is that of cuda.h, and the tests pass pointers to live variables, or null
                // where they want an error.
                unsafe { c::$name($($argument),*) }
            }
        )*
    };
}

functions! {
    cuInit(flags: u32);
    cuGetErrorName(code: i32, text: *mut *const c_char);
    cuGetProcAddress_v2(name: *const c_char, function: *mut usize, version: i32, flags: u64, status: *mut u32);
    cuDeviceGetCount(count: *mut i32);
    cuDeviceGet(device: *mut i32, ordinal: i32);
    cuDeviceGetName(name: *mut c_char, room: i32, device: i32);
    cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: i32);
    cuDeviceTotalMem_v2(bytes: *mut usize, device: i32);
    cuDeviceGetAttribute(value: *mut i32, attribute: i32, device: i32);
    cuDeviceGetPCIBusId(text: *mut c_char, room: i32, device: i32);
    cuDeviceCanAccessPeer(answer: *mut i32, device: i32, peer: i32);
    cuDevicePrimaryCtxRetain(context: *mut u64, device: i32);
    cuDevicePrimaryCtxRelease_v2(device: i32);
    cuCtxSetCurrent(context: u64);
    cuCtxGetCurrent(context: *mut u64);
    cuCtxGetDevice(device: *mut i32);
    cuCtxSynchronize();
    cuCtxEnablePeerAccess(peer: u64, flags: u32);
    cuDeviceGetDevResource(device: i32, resource: *mut Resource, kind: u32);
    cuDevSmResourceSplitByCount(
        found: *mut Resource, count: *mut u32, of: *const Resource, rest: *mut Resource, flags: u32, least: u32
    );
    cuDevResourceGenerateDesc(description: *mut u64, resources: *mut Resource, count: u32);
    cuGreenCtxCreate(green: *mut u64, description: u64, device: i32, flags: u32);
    cuGreenCtxDestroy(green: u64);
    cuGreenCtxGetDevResource(green: u64, resource: *mut Resource, kind: u32);
    cuGreenCtxStreamCreate(stream: *mut u64, green: u64, flags: u32, priority: i32);
    cuGreenCtxRecordEvent(green: u64, event: u64);
    cuGreenCtxWaitEvent(green: u64, event: u64);
    cuCtxFromGreenCtx(context: *mut u64, green: u64);
    cuStreamGetGreenCtx(stream: u64, green: *mut u64);
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    cuMemGetAllocationGranularity(granularity: *mut usize, prop: *const Prop, option: u32);
    cuMemAddressReserve(pointer: *mut u64, bytes: usize, alignment: usize, wanted: u64, flags: u64);
    cuMemAddressFree(pointer: u64, bytes: usize);
    cuMemCreate(handle: *mut u64, bytes: usize, prop: *const Prop, flags: u64);
    cuMemRelease(handle: u64);
    cuMemExportToShareableHandle(shared: *mut i32, handle: u64, kind: u32, flags: u64);
    cuMemImportFromShareableHandle(handle: *mut u64, shared: u64, kind: u32);
    cuMemMap(pointer: u64, bytes: usize, offset: usize, handle: u64, flags: u64);
    cuMemUnmap(pointer: u64, bytes: usize);
    cuMemSetAccess(pointer: u64, bytes: usize, list: *const Access, count: usize);
    cuMemAlloc_v2(pointer: *mut u64, bytes: usize);
    cuMemFree_v2(pointer: u64);
    cuMemHostAlloc(pointer: *mut u64, bytes: usize, flags: u32);
    cuMemFreeHost(pointer: u64);
    cuMemHostRegister_v2(pointer: u64, bytes: usize, flags: u32);
    cuMemHostUnregister(pointer: u64);
    cuMemHostGetDevicePointer_v2(device_pointer: *mut u64, pointer: u64, flags: u32);
    cuPointerGetAttribute(data: *mut c_void, attribute: u32, pointer: u64);
    cuMemcpyHtoD_v2(target: u64, source: *const c_void, bytes: usize);
    cuMemcpyDtoH_v2(target: *mut c_void, source: u64, bytes: usize);
    cuMemcpyHtoDAsync_v2(target: u64, source: *const c_void, bytes: usize, stream: u64);
    cuMemcpyDtoHAsync_v2(target: *mut c_void, source: u64, bytes: usize, stream: u64);
    cuMemcpyDtoDAsync_v2(target: u64, source: u64, bytes: usize, stream: u64);
    cuMemcpyPeerAsync(target: u64, target_context: u64, source: u64, source_context: u64, bytes: usize, stream: u64);
    cuMemcpy2DAsync_v2(copy: *const torpor_simgpu::abi::Memcpy2d, stream: u64);
    cuMemcpy3DAsync_v2(copy: *const torpor_simgpu::abi::Memcpy3d, stream: u64);
    cuMemcpy2D_v2(copy: *const torpor_simgpu::abi::Memcpy2d);
    cuMemcpy3D_v2(copy: *const torpor_simgpu::abi::Memcpy3d);
    cuArray3DCreate_v2(array: *mut u64, descriptor: *const torpor_simgpu::abi::Array3dDescriptor);
    cuArrayDestroy(array: u64);
    cuArrayGetDescriptor_v2(descriptor: *mut torpor_simgpu::abi::ArrayDescriptor, array: u64);
    cuArray3DGetDescriptor_v2(descriptor: *mut torpor_simgpu::abi::Array3dDescriptor, array: u64);
    cuMipmappedArrayCreate(array: *mut u64, descriptor: *const torpor_simgpu::abi::Array3dDescriptor, levels: u32);
    cuMipmappedArrayGetLevel(level: *mut u64, array: u64, number: u32);
    cuMipmappedArrayDestroy(array: u64);
    cuTexObjectCreate(texture: *mut u64, resource: *const torpor_simgpu::abi::ResourceDesc,
        sampler: *const torpor_simgpu::abi::TextureDesc, view: *const torpor_simgpu::abi::ResourceViewDesc);
    cuTexObjectDestroy(texture: u64);
    cuTexObjectGetResourceDesc(resource: *mut torpor_simgpu::abi::ResourceDesc, texture: u64);
    cuTexObjectGetTextureDesc(sampler: *mut torpor_simgpu::abi::TextureDesc, texture: u64);
    cuTexObjectGetResourceViewDesc(view: *mut torpor_simgpu::abi::ResourceViewDesc, texture: u64);
    cuSurfObjectCreate(surface: *mut u64, resource: *const torpor_simgpu::abi::ResourceDesc);
    cuSurfObjectDestroy(surface: u64);
    cuSurfObjectGetResourceDesc(resource: *mut torpor_simgpu::abi::ResourceDesc, surface: u64);
    cuMemsetD8Async(target: u64, pattern: u8, width: usize, stream: u64);
    cuMemsetD16Async(target: u64, pattern: u16, width: usize, stream: u64);
    cuMemsetD32Async(target: u64, pattern: u32, width: usize, stream: u64);
    cuMemsetD2D32Async(target: u64, pitch: usize, pattern: u32, width: usize, rows: usize, stream: u64);
    cuStreamCreate(stream: *mut u64, flags: u32);
    cuStreamDestroy_v2(stream: u64);
    cuStreamQuery(stream: u64);
    cuStreamSynchronize(stream: u64);
    cuStreamWaitEvent(stream: u64, event: u64, flags: u32);
    cuStreamWriteValue32_v2(stream: u64, address: u64, value: u32, flags: u32);
    cuStreamWriteValue64_v2(stream: u64, address: u64, value: u64, flags: u32);
    cuStreamWaitValue32_v2(stream: u64, address: u64, value: u32, flags: u32);
    cuStreamBeginCapture_v2(stream: u64, mode: u32);
    cuStreamEndCapture(stream: u64, graph: *mut u64);
    cuStreamIsCapturing(stream: u64, status: *mut u32);
    cuLaunchHostFunc(stream: u64, function: extern "C" fn(*mut c_void), argument: *mut c_void);
    cuEventCreate(event: *mut u64, flags: u32);
    cuEventDestroy_v2(event: u64);
    cuEventRecord(event: u64, stream: u64);
    cuEventQuery(event: u64);
    cuEventSynchronize(event: u64);
    cuEventElapsedTime_v2(milliseconds: *mut f32, start: u64, end: u64);
    cuLibraryLoadData(library: *mut u64, image: *const c_void, a: usize, b: usize, c: u32, d: usize, e: usize, f: u32);
    cuLibraryUnload(library: u64);
    cuLibraryGetKernel(kernel: *mut u64, library: u64, name: *const c_char);
    cuLibraryGetGlobal(pointer: *mut u64, bytes: *mut usize, library: u64, name: *const c_char);
    cuLibraryGetKernelCount(count: *mut u32, library: u64);
    cuKernelGetFunction(function: *mut u64, kernel: u64);
    cuKernelGetParamInfo(kernel: u64, index: usize, offset: *mut usize, bytes: *mut usize);
    cuKernelGetName(name: *mut *const c_char, kernel: u64);
    cuModuleLoadData(module: *mut u64, image: *const c_void);
    cuModuleUnload(module: u64);
    cuModuleGetFunction(function: *mut u64, module: u64, name: *const c_char);
    cuModuleGetGlobal_v2(pointer: *mut u64, bytes: *mut usize, module: u64, name: *const c_char);
    cuFuncGetAttribute(value: *mut i32, attribute: u32, function: u64);
    cuFuncSetAttribute(function: u64, attribute: u32, value: i32);
    cuLaunchKernel(function: u64, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32, stream: u64,
        parameters: *const *const c_void, extra: *const *const c_void);
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks: *mut i32, function: u64, threads: i32, shared: usize, flags: u32);
    cuGraphInstantiateWithFlags(executable: *mut u64, graph: u64, flags: u64);
    cuGraphLaunch(executable: u64, stream: u64);
    cuGraphExecDestroy(executable: u64);
    cuGraphDestroy(graph: u64);
    cuGraphGetNodes(graph: u64, nodes: *mut u64, count: *mut usize);
}

/// `CUmemAllocationProp` for pinned memory of a device.
pub type Prop = torpor_simgpu::abi::MemAllocationProp;
/// `CUmemAccessDesc`.
pub type Access = torpor_simgpu::abi::MemAccessDesc;

pub const MIB: usize = 1 << 20;
pub const SUCCESS: i32 = 0;
pub const INVALID_VALUE: i32 = 1;
pub const OUT_OF_MEMORY: i32 = 2;
pub const INVALID_IMAGE: i32 = 200;
pub const INVALID_CONTEXT: i32 = 201;
pub const INVALID_HANDLE: i32 = 400;
pub const NOT_READY: i32 = 600;
pub const ILLEGAL_ADDRESS: i32 = 700;
pub const NOT_SUPPORTED: i32 = 801;
pub const UNKNOWN: i32 = 999;

const CHILD: &str = "TORPOR_SIMGPU_TEST_CHILD";

/// How a test's process ended.
pub struct Ended {
    /// Its exit code, or minus the signal that ended it.
    pub code: i32,
    /// What it printed.
    pub output: String,
    /// The simulator's log.
    pub log: String,
}

impl Ended {
    /// The lines of the log that contain `text`.
    pub fn log_lines(&self, text: &str) -> usize {
        self.log.lines().filter(|line| line.contains(text)).count()
    }
}

/// Runs `body` in a process of its own with the environment `TORPOR_SIMGPU_<name>=<value>`; `test` is the test's name.
///
/// In that process this does not return.
pub fn ended(test: &str, environment: &[(&str, &str)], body: fn()) -> Ended {
    if let Ok(child) = std::env::var(CHILD) {
        assert_eq!(child, test, "a test gives its own name");
        body();
        std::process::exit(0);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .env("TORPOR_SIMGPU_LOG", &log);
    for (name, value) in environment {
        command.env(format!("TORPOR_SIMGPU_{name}"), value);
    }
    let output = command.output().expect("the test starts again");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended {
        code: output.status.code().unwrap_or_else(|| -output.status.signal().unwrap_or(0)),
        output: text(&output.stdout) + &text(&output.stderr),
        log: std::fs::read_to_string(&log).unwrap_or_default(),
    }
}

/// As [`ended`], for a body that must succeed.
pub fn passes(test: &str, environment: &[(&str, &str)], body: fn()) -> Ended {
    let ended = ended(test, environment, body);
    assert_eq!(ended.code, 0, "{}\n--- log\n{}", ended.output, ended.log);
    ended
}

/// Makes `device` current.
pub fn use_device(device: i32) -> u64 {
    assert_eq!(cuInit(0), SUCCESS);
    let mut context = 0;
    assert_eq!(cuDevicePrimaryCtxRetain(&mut context, device), SUCCESS);
    assert_eq!(cuCtxSetCurrent(context), SUCCESS);
    context
}

/// Memory of a device.
pub fn prop(device: i32) -> Prop {
    Prop {
        kind: 1,
        requested_handle_types: 0,
        location: torpor_simgpu::abi::MemLocation { kind: 1, id: device },
        win32_metadata: 0,
        flags: [0; 8],
    }
}

/// Full access for a device.
pub fn access(device: i32) -> Access {
    Access { location: prop(device).location, flags: 3 }
}

/// Maps new memory of a device at a reserved address, with access for that device. Its handle.
pub fn map(pointer: u64, bytes: usize, device: i32) -> u64 {
    let mut handle = 0;
    assert_eq!(cuMemCreate(&mut handle, bytes, &prop(device), 0), SUCCESS);
    assert_eq!(cuMemMap(pointer, bytes, 0, handle, 0), SUCCESS);
    assert_eq!(cuMemSetAccess(pointer, bytes, &access(device), 1), SUCCESS);
    handle
}

/// `CUdevResource`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Resource {
    pub kind: u32,
    pub hidden: [u32; 23],
    pub count: u32,
    pub least: u32,
    pub alignment: u32,
    pub rest: [u32; 9],
}

/// Memory from `cuMemAlloc`.
pub fn allocate(bytes: usize) -> u64 {
    let mut pointer = 0;
    assert_eq!(cuMemAlloc_v2(&mut pointer, bytes), SUCCESS);
    pointer
}

/// Page-locked memory.
pub fn pinned(bytes: usize) -> u64 {
    let mut pointer = 0;
    assert_eq!(cuMemHostAlloc(&mut pointer, bytes, 0), SUCCESS);
    pointer
}

pub fn stream(flags: u32) -> u64 {
    let mut stream = 0;
    assert_eq!(cuStreamCreate(&mut stream, flags), SUCCESS);
    stream
}

pub fn event() -> u64 {
    let mut event = 0;
    assert_eq!(cuEventCreate(&mut event, 0), SUCCESS);
    event
}

/// Copies a slice to a device.
pub fn put<T: Copy>(pointer: u64, values: &[T]) {
    assert_eq!(cuMemcpyHtoD_v2(pointer, values.as_ptr().cast(), size_of_val(values)), SUCCESS);
}

/// Copies from a device.
pub fn get<T: Copy + Default>(pointer: u64, count: usize) -> Vec<T> {
    let mut values = vec![T::default(); count];
    assert_eq!(cuMemcpyDtoH_v2(values.as_mut_ptr().cast(), pointer, size_of_val(&values[..])), SUCCESS);
    values
}

/// A module from PTX text.
pub fn module(text: &str) -> Result<u64, i32> {
    let text = CString::new(text).expect("no NUL inside");
    let mut module = 0;
    match cuModuleLoadData(&mut module, text.as_ptr().cast()) {
        SUCCESS => Ok(module),
        code => Err(code),
    }
}

/// A function of a module.
pub fn function(module: u64, name: &CStr) -> u64 {
    let mut function = 0;
    assert_eq!(cuModuleGetFunction(&mut function, module, name.as_ptr()), SUCCESS);
    function
}

/// Launches with 8-byte parameters.
pub fn launch(function: u64, grid: u32, block: u32, stream: u64, parameters: &[u64]) -> i32 {
    let pointers: Vec<*const c_void> =
        parameters.iter().map(|value| std::ptr::from_ref(value).cast()).collect();
    cuLaunchKernel(function, grid, 1, 1, block, 1, 1, 0, stream, pointers.as_ptr(), std::ptr::null())
}
