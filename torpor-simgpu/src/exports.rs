//! The C surface: every function of libcuda that the simulator has, declared once.
//!
//! The table gives the exported symbols and what `cuGetProcAddress` finds. A line reads
//! `symbol = "name" since (arguments) => body`: the name is what `cuGetProcAddress` is asked for, `since` the CUDA version that
//! introduced this variant (`cudaTypedefs.h`). Bodies are calls into the family's file. `always` marks functions that work
//! before `cuInit` and with a sticky error.

use std::ffi::{c_char, c_void};
use std::sync::OnceLock;

use crate::abi::{
    In, LaunchConfig, MemAccessDesc, MemAllocationProp, MemLocation, Memcpy2d, Memcpy3d, NodeParams, Out,
    TensorMap, Text, Uuid,
};
use crate::capture::Info;
use crate::entry::{call, call_always};
use crate::error::{CudaError, describe};
use crate::launch::Request;
use crate::memory::copy::Demand;
use crate::memory::{Shape, Stored, allocate, copy, copy_box, fill, host, pointer, shareable};
use crate::stream::value;
use crate::tensor_map::Tensor;
use crate::{
    capture, compile, context, device, event, function, graph, launch, library, machine, memory, module,
    occupancy, stream, tensor_map,
};

/// The CUDA version that the simulated driver has.
pub const DRIVER_VERSION: i32 = 13000;

/// One function.
#[derive(Debug, Clone, Copy)]
pub struct Export {
    /// The symbol in the shared library.
    pub symbol: &'static str,
    /// What `cuGetProcAddress` is asked for.
    pub name: &'static str,
    /// The CUDA version that introduced it.
    pub since: i32,
    /// Whether it exists in a second variant for programs whose stream 0 is the thread's own, which is not here.
    pub has_thread_variant: bool,
    /// Where it is.
    pub address: usize,
}

macro_rules! run {
    (always $symbol:ident, |$machine:pat_param| $body:expr) => {
        call_always(|| $body)
    };
    (call $symbol:ident, |$machine:pat_param| $body:expr) => {
        call(stringify!($symbol), |$machine| $body)
    };
}

macro_rules! exports {
    ($($kind:ident $symbol:ident = $name:literal $since:literal ($($argument:ident: $type:ty),*) |$machine:pat_param| $body:expr;)*) => {
        $(
            #[doc = concat!("`", stringify!($symbol), "` of cuda.h.")]
            ///
            /// # Safety
            /// Arguments are as cuda.h says: pointers are null or valid, sizes are those of the memory behind them.
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, reason = "the name is that of the C function")]
            #[allow(clippy::too_many_arguments, reason = "the arguments are those of the C function")]
            pub unsafe extern "C" fn $symbol($($argument: $type),*) -> i32 {
                run!($kind $symbol, |$machine| $body)
            }
        )*

        /// The functions, in the order of the table.
        pub(super) fn listed() -> Vec<Export> {
            vec![$(Export {
                symbol: stringify!($symbol),
                name: $name,
                since: $since,
                has_thread_variant: THREAD_VARIANTS.contains(&$name) || [$(stringify!($argument)),*].contains(&"stream"),
                address: $symbol as *const () as usize,
            }),*]
        }
    };
}

mod arrays;
mod find;
mod green;

/// All functions.
pub fn table() -> &'static [Export] {
    static TABLE: OnceLock<Vec<Export>> = OnceLock::new();
    TABLE.get_or_init(|| listed().into_iter().chain(arrays::listed()).chain(green::listed()).collect())
}

/// Functions with a variant for the per-thread default stream although no argument is a stream.
const THREAD_VARIANTS: [&str; 9] = [
    "cuMemcpy",
    "cuMemcpy2D",
    "cuMemcpy3D",
    "cuMemcpyHtoD",
    "cuMemcpyDtoH",
    "cuMemcpyDtoD",
    "cuMemsetD8",
    "cuMemsetD32",
    "cuLaunchKernelEx",
];

fn line(target: u64, source: u64, bytes: usize) -> Shape {
    Shape::line(target, source, bytes as u64)
}

fn row(target: u64, pattern: u32, element_bytes: u64, width: usize) -> fill::Request {
    fill::Request { target, pitch: 0, pattern, element_bytes, width, rows: 1 }
}

#[rustfmt::skip]
exports! {
    // Driver
    always cuInit = "cuInit" 2000 (flags: u32) |_| {
        if flags != 0 { return Err(CudaError::INVALID_VALUE); }
        let machine = machine::initialise()?;
        if machine.devices.is_empty() { Err(CudaError::NO_DEVICE) } else { Ok(()) }
    };
    always cuDriverGetVersion = "cuDriverGetVersion" 2020 (version: Out<i32>) |_| version.set(DRIVER_VERSION);
    always cuGetErrorName = "cuGetErrorName" 6000 (error: i32, text: Out<*const c_char>) |_| match describe(error) {
        Some((name, _)) => text.set(name.as_ptr()),
        None => { text.set_if_wanted(std::ptr::null()); Err(CudaError::INVALID_VALUE) }
    };
    always cuGetErrorString = "cuGetErrorString" 6000 (error: i32, text: Out<*const c_char>) |_| match describe(error) {
        Some((_, description)) => text.set(description.as_ptr()),
        None => { text.set_if_wanted(std::ptr::null()); Err(CudaError::INVALID_VALUE) }
    };
    always cuGetProcAddress_v2 = "cuGetProcAddress" 12000 (symbol: Text, function: Out<*const c_void>, version: i32, flags: u64, status: Out<u32>) |_|
        find::proc_address(&symbol.get()?, function, version, flags, status);

    // Device
    call cuDeviceGetCount = "cuDeviceGetCount" 2000 (count: Out<i32>) |m| device::count(m, count);
    call cuDeviceGet = "cuDeviceGet" 2000 (device: Out<i32>, ordinal: i32) |m| device::get(m, device, ordinal);
    call cuDeviceGetName = "cuDeviceGetName" 2000 (name: Out<u8>, room: i32, device: i32) |m| device::name(m, name, room, device);
    call cuDeviceGetUuid = "cuDeviceGetUuid" 9020 (uuid: Out<Uuid>, device: i32) |m| device::uuid(m, uuid, device);
    call cuDeviceGetUuid_v2 = "cuDeviceGetUuid" 11040 (uuid: Out<Uuid>, device: i32) |m| device::uuid(m, uuid, device);
    call cuDeviceTotalMem_v2 = "cuDeviceTotalMem" 3020 (bytes: Out<usize>, device: i32) |m| device::total_memory(m, bytes, device);
    call cuDeviceGetAttribute = "cuDeviceGetAttribute" 2000 (value: Out<i32>, attribute: i32, device: i32) |m| device::attribute(m, value, attribute, device);
    call cuDeviceGetPCIBusId = "cuDeviceGetPCIBusId" 4010 (text: Out<u8>, room: i32, device: i32) |m| device::pci_bus_id(m, text, room, device);
    call cuDeviceCanAccessPeer = "cuDeviceCanAccessPeer" 4000 (answer: Out<i32>, device: i32, peer: i32) |m| device::can_access_peer(m, answer, device, peer);
    call cuDeviceGetP2PAttribute = "cuDeviceGetP2PAttribute" 8000 (value: Out<i32>, attribute: u32, source: i32, target: i32) |m| device::peer_attribute(m, value, attribute, source, target);
    call cuDevicePrimaryCtxRetain = "cuDevicePrimaryCtxRetain" 7000 (context: Out<u64>, device: i32) |m| context::retain_primary(m, context, device);
    call cuDevicePrimaryCtxRelease_v2 = "cuDevicePrimaryCtxRelease" 11000 (device: i32) |m| context::release_primary(m, device);
    call cuDevicePrimaryCtxGetState = "cuDevicePrimaryCtxGetState" 7000 (device: i32, flags: Out<u32>, active: Out<i32>) |m| context::primary_state(m, device, flags, active);

    // Context
    call cuCtxSetCurrent = "cuCtxSetCurrent" 4000 (context: u64) |m| context::set_current(m, context);
    call cuCtxGetCurrent = "cuCtxGetCurrent" 4000 (context: Out<u64>) |_| context::get_current(context);
    call cuCtxPushCurrent_v2 = "cuCtxPushCurrent" 4000 (context: u64) |m| context::push(m, context);
    call cuCtxPopCurrent_v2 = "cuCtxPopCurrent" 4000 (context: Out<u64>) |_| context::pop(context);
    call cuCtxGetDevice = "cuCtxGetDevice" 2000 (device: Out<i32>) |m| context::device(m, device, 0);
    call cuCtxGetDevice_v2 = "cuCtxGetDevice" 13000 (device: Out<i32>, context: u64) |m| context::device(m, device, context);
    call cuCtxGetId = "cuCtxGetId" 12000 (context: u64, id: Out<u64>) |m| context::id(m, context, id);
    call cuCtxSynchronize = "cuCtxSynchronize" 2000 () |m| context::synchronize(m, 0);
    call cuCtxSynchronize_v2 = "cuCtxSynchronize" 13000 (context: u64) |m| context::synchronize(m, context);
    call cuCtxGetLimit = "cuCtxGetLimit" 3010 (value: Out<usize>, limit: u32) |m| context::get_limit(m, value, limit);
    call cuCtxSetLimit = "cuCtxSetLimit" 3010 (limit: u32, value: usize) |m| context::set_limit(m, limit, value);
    call cuCtxGetStreamPriorityRange = "cuCtxGetStreamPriorityRange" 5050 (least: Out<i32>, greatest: Out<i32>) |m| context::priority_range(m, least, greatest);
    call cuCtxEnablePeerAccess = "cuCtxEnablePeerAccess" 4000 (peer: u64, flags: u32) |m| context::enable_peer_access(m, peer, flags);
    call cuCtxDisablePeerAccess = "cuCtxDisablePeerAccess" 4000 (peer: u64) |m| context::disable_peer_access(m, peer);

    // Memory: virtual memory management
    call cuMemGetAllocationGranularity = "cuMemGetAllocationGranularity" 10020 (granularity: Out<usize>, prop: In<MemAllocationProp>, option: u32) |m| memory::granularity(m, granularity, prop, option);
    call cuMemAddressReserve = "cuMemAddressReserve" 10020 (pointer: Out<u64>, bytes: usize, alignment: usize, wanted: u64, flags: u64) |m| memory::reserve(m, pointer, bytes, alignment, wanted, flags);
    call cuMemAddressFree = "cuMemAddressFree" 10020 (pointer: u64, bytes: usize) |m| memory::free_reservation(m, pointer, bytes);
    call cuMemCreate = "cuMemCreate" 10020 (handle: Out<u64>, bytes: usize, prop: In<MemAllocationProp>, flags: u64) |m| memory::create(m, handle, bytes, prop, flags);
    call cuMemRelease = "cuMemRelease" 10020 (handle: u64) |m| memory::release(m, handle);
    call cuMemExportToShareableHandle = "cuMemExportToShareableHandle" 10020 (shared: Out<i32>, handle: u64, kind: u32, flags: u64) |m| shareable::export(m, shared, handle, kind, flags);
    call cuMemImportFromShareableHandle = "cuMemImportFromShareableHandle" 10020 (handle: Out<u64>, shared: u64, kind: u32) |m| shareable::import(m, handle, shared, kind);
    call cuMemMap = "cuMemMap" 10020 (pointer: u64, bytes: usize, offset: usize, handle: u64, flags: u64) |m| memory::map(m, pointer, bytes, offset, handle, flags);
    call cuMemUnmap = "cuMemUnmap" 10020 (pointer: u64, bytes: usize) |m| memory::unmap(m, pointer, bytes);
    call cuMemSetAccess = "cuMemSetAccess" 10020 (pointer: u64, bytes: usize, list: In<MemAccessDesc>, count: usize) |m| memory::set_access(m, pointer, bytes, list, count);
    call cuMemGetAccess = "cuMemGetAccess" 10020 (flags: Out<u64>, location: In<MemLocation>, pointer: u64) |m| memory::get_access(m, flags, location, pointer);

    // Memory: allocation
    call cuMemGetInfo_v2 = "cuMemGetInfo" 3020 (free: Out<usize>, total: Out<usize>) |m| allocate::info(m, free, total);
    call cuMemAlloc_v2 = "cuMemAlloc" 3020 (pointer: Out<u64>, bytes: usize) |m| allocate::allocate(m, pointer, bytes);
    call cuMemFree_v2 = "cuMemFree" 3020 (pointer: u64) |m| allocate::free(m, pointer);
    call cuMemGetAddressRange_v2 = "cuMemGetAddressRange" 3020 (base: Out<u64>, bytes: Out<usize>, pointer: u64) |m| allocate::address_range(m, base, bytes, pointer);
    call cuMemHostAlloc = "cuMemHostAlloc" 2020 (pointer: Out<u64>, bytes: usize, flags: u32) |m| host::allocate(m, pointer, bytes, flags);
    call cuMemFreeHost = "cuMemFreeHost" 2000 (pointer: u64) |m| host::free(m, pointer);
    call cuMemHostRegister_v2 = "cuMemHostRegister" 6050 (pointer: u64, bytes: usize, flags: u32) |m| host::register(m, pointer, bytes, flags);
    call cuMemHostUnregister = "cuMemHostUnregister" 4000 (pointer: u64) |m| host::unregister(m, pointer);
    call cuMemHostGetDevicePointer_v2 = "cuMemHostGetDevicePointer" 3020 (device_pointer: Out<u64>, pointer: u64, flags: u32) |m| host::device_pointer(m, device_pointer, pointer, flags);
    call cuMemHostGetFlags = "cuMemHostGetFlags" 2030 (flags: Out<u32>, pointer: u64) |m| host::flags(m, flags, pointer);
    call cuPointerGetAttribute = "cuPointerGetAttribute" 4000 (data: Out<u8>, attribute: u32, address: u64) |m| pointer::attribute(m, data, attribute, address);
    call cuPointerGetAttributes = "cuPointerGetAttributes" 7000 (count: u32, list: In<u32>, data: In<u64>, address: u64) |m| pointer::attributes(m, count, list, data, address);

    // Memory: copies
    call cuMemcpyHtoD_v2 = "cuMemcpyHtoD" 3020 (target: u64, source: u64, bytes: usize) |m| copy::issue(m, line(target, source, bytes), Demand::TargetOnDevice, 0, true);
    call cuMemcpyDtoH_v2 = "cuMemcpyDtoH" 3020 (target: u64, source: u64, bytes: usize) |m| copy::issue(m, line(target, source, bytes), Demand::SourceOnDevice, 0, true);
    call cuMemcpyDtoD_v2 = "cuMemcpyDtoD" 3020 (target: u64, source: u64, bytes: usize) |m| copy::issue(m, line(target, source, bytes), Demand::BothOnDevice, 0, true);
    call cuMemcpy = "cuMemcpy" 4000 (target: u64, source: u64, bytes: usize) |m| copy::issue(m, line(target, source, bytes), Demand::Any, 0, true);
    call cuMemcpyHtoDAsync_v2 = "cuMemcpyHtoDAsync" 3020 (target: u64, source: u64, bytes: usize, stream: u64) |m| copy::issue(m, line(target, source, bytes), Demand::TargetOnDevice, stream, false);
    call cuMemcpyDtoHAsync_v2 = "cuMemcpyDtoHAsync" 3020 (target: u64, source: u64, bytes: usize, stream: u64) |m| copy::issue(m, line(target, source, bytes), Demand::SourceOnDevice, stream, false);
    call cuMemcpyDtoDAsync_v2 = "cuMemcpyDtoDAsync" 3020 (target: u64, source: u64, bytes: usize, stream: u64) |m| copy::issue(m, line(target, source, bytes), Demand::BothOnDevice, stream, false);
    call cuMemcpyAsync = "cuMemcpyAsync" 4000 (target: u64, source: u64, bytes: usize, stream: u64) |m| copy::issue(m, line(target, source, bytes), Demand::Any, stream, false);
    call cuMemcpyPeerAsync = "cuMemcpyPeerAsync" 4000 (target: u64, target_context: u64, source: u64, source_context: u64, bytes: usize, stream: u64) |m| copy::peer(m, (target, target_context), (source, source_context), bytes, stream);
    call cuMemcpy2DAsync_v2 = "cuMemcpy2DAsync" 3020 (request: In<Memcpy2d>, stream: u64) |m| copy_box::two_dimensional(m, request, stream, false);
    call cuMemcpy3DAsync_v2 = "cuMemcpy3DAsync" 3020 (request: In<Memcpy3d>, stream: u64) |m| copy_box::three_dimensional(m, request, stream, false);

    // Memory: fills
    call cuMemsetD8_v2 = "cuMemsetD8" 3020 (target: u64, pattern: u8, width: usize) |m| fill::issue(m, row(target, pattern.into(), 1, width), 0, true);
    call cuMemsetD32_v2 = "cuMemsetD32" 3020 (target: u64, pattern: u32, width: usize) |m| fill::issue(m, row(target, pattern, 4, width), 0, true);
    call cuMemsetD8Async = "cuMemsetD8Async" 3020 (target: u64, pattern: u8, width: usize, stream: u64) |m| fill::issue(m, row(target, pattern.into(), 1, width), stream, false);
    call cuMemsetD16Async = "cuMemsetD16Async" 3020 (target: u64, pattern: u16, width: usize, stream: u64) |m| fill::issue(m, row(target, pattern.into(), 2, width), stream, false);
    call cuMemsetD32Async = "cuMemsetD32Async" 3020 (target: u64, pattern: u32, width: usize, stream: u64) |m| fill::issue(m, row(target, pattern, 4, width), stream, false);
    call cuMemsetD2D8Async = "cuMemsetD2D8Async" 3020 (target: u64, pitch: usize, pattern: u8, width: usize, rows: usize, stream: u64) |m| fill::issue(m, fill::Request { pitch, rows, ..row(target, pattern.into(), 1, width) }, stream, false);
    call cuMemsetD2D16Async = "cuMemsetD2D16Async" 3020 (target: u64, pitch: usize, pattern: u16, width: usize, rows: usize, stream: u64) |m| fill::issue(m, fill::Request { pitch, rows, ..row(target, pattern.into(), 2, width) }, stream, false);
    call cuMemsetD2D32Async = "cuMemsetD2D32Async" 3020 (target: u64, pitch: usize, pattern: u32, width: usize, rows: usize, stream: u64) |m| fill::issue(m, fill::Request { pitch, rows, ..row(target, pattern, 4, width) }, stream, false);

    // Stream
    call cuStreamCreate = "cuStreamCreate" 2000 (created: Out<u64>, flags: u32) |m| stream::create(m, created, flags, 0);
    call cuStreamCreateWithPriority = "cuStreamCreateWithPriority" 5050 (created: Out<u64>, flags: u32, priority: i32) |m| stream::create(m, created, flags, priority);
    call cuStreamDestroy_v2 = "cuStreamDestroy" 4000 (handle: u64) |m| stream::destroy(m, handle);
    call cuStreamQuery = "cuStreamQuery" 2000 (stream: u64) |m| stream::query(m, stream);
    call cuStreamSynchronize = "cuStreamSynchronize" 2000 (stream: u64) |m| stream::synchronize(m, stream);
    call cuStreamWaitEvent = "cuStreamWaitEvent" 3020 (stream: u64, event: u64, flags: u32) |m| stream::wait_event(m, stream, event, flags);
    call cuStreamWriteValue32_v2 = "cuStreamWriteValue32" 11070 (stream: u64, address: u64, word: u32, flags: u32) |m| value::write(m, stream, Stored::Narrow(address, word), flags);
    call cuStreamWriteValue64_v2 = "cuStreamWriteValue64" 11070 (stream: u64, address: u64, word: u64, flags: u32) |m| value::write(m, stream, Stored::Wide(address, word), flags);
    call cuStreamWaitValue32_v2 = "cuStreamWaitValue32" 11070 (stream: u64, address: u64, word: u32, flags: u32) |m| value::wait(m, stream, address, word, flags);
    call cuStreamBeginCapture_v2 = "cuStreamBeginCapture" 10010 (stream: u64, mode: u32) |m| capture::begin(m, stream, mode);
    call cuStreamBeginCaptureToGraph = "cuStreamBeginCaptureToGraph" 12030 (stream: u64, graph: u64, _behind: In<u64>, _edges: In<u64>, _count: usize, mode: u32) |m| capture::begin_to_graph(m, stream, graph, mode);
    call cuStreamEndCapture = "cuStreamEndCapture" 10000 (stream: u64, captured: Out<u64>) |m| capture::end(m, stream, captured);
    call cuStreamGetCaptureInfo_v3 = "cuStreamGetCaptureInfo" 12030 (stream: u64, status: Out<u32>, id: Out<u64>, graph: Out<u64>, nodes: Out<u64>, edges: Out<u64>, count: Out<usize>) |m| capture::info(m, stream, &Info { status, id, graph, nodes, edges, count });
    call cuStreamUpdateCaptureDependencies_v2 = "cuStreamUpdateCaptureDependencies" 12030 (stream: u64, nodes: In<u64>, _edges: In<u64>, count: usize, flags: u32) |m| capture::update(m, stream, nodes, count, flags);
    call cuStreamIsCapturing = "cuStreamIsCapturing" 10000 (stream: u64, status: Out<u32>) |m| stream::is_capturing(m, stream, status);
    call cuStreamGetPriority = "cuStreamGetPriority" 5050 (stream: u64, priority: Out<i32>) |m| stream::priority(m, stream, priority);
    call cuStreamGetFlags = "cuStreamGetFlags" 5050 (stream: u64, flags: Out<u32>) |m| stream::flags(m, stream, flags);
    call cuStreamGetId = "cuStreamGetId" 12000 (stream: u64, id: Out<u64>) |m| stream::id(m, stream, id);
    call cuStreamGetCtx = "cuStreamGetCtx" 9020 (stream: u64, context: Out<u64>) |m| stream::context(m, stream, context);
    call cuStreamGetDevice = "cuStreamGetDevice" 12080 (stream: u64, device: Out<i32>) |m| stream::device(m, stream, device);
    call cuLaunchHostFunc = "cuLaunchHostFunc" 10000 (stream: u64, callback: u64, argument: u64) |m| stream::host_function(m, stream, callback, argument);

    // Event
    call cuEventCreate = "cuEventCreate" 2000 (created: Out<u64>, flags: u32) |m| event::create(m, created, flags);
    call cuEventDestroy_v2 = "cuEventDestroy" 4000 (handle: u64) |m| event::destroy(m, handle);
    call cuEventRecord = "cuEventRecord" 2000 (handle: u64, stream: u64) |m| event::record(m, handle, stream, 0);
    call cuEventRecordWithFlags = "cuEventRecordWithFlags" 11010 (handle: u64, stream: u64, flags: u32) |m| event::record(m, handle, stream, flags);
    call cuEventQuery = "cuEventQuery" 2000 (handle: u64) |m| event::query(m, handle);
    call cuEventSynchronize = "cuEventSynchronize" 2000 (handle: u64) |m| event::synchronize(m, handle);
    call cuEventElapsedTime = "cuEventElapsedTime" 2000 (milliseconds: Out<f32>, start: u64, end: u64) |m| event::elapsed(m, milliseconds, start, end);
    call cuEventElapsedTime_v2 = "cuEventElapsedTime" 12080 (milliseconds: Out<f32>, start: u64, end: u64) |m| event::elapsed(m, milliseconds, start, end);

    // Library
    call cuLinkCreate_v2 = "cuLinkCreate" 6050 (count: u32, options: In<u32>, values: In<u64>, state: Out<u64>) |m| compile::create(m, count, options, values, state);
    call cuLinkAddData_v2 = "cuLinkAddData" 6050 (state: u64, kind: u32, data: In<u8>, bytes: usize, _name: u64, _count: u32, _options: u64, _values: u64) |m| compile::add(m, state, kind, data, bytes);
    call cuLinkComplete = "cuLinkComplete" 5050 (state: u64, cubin: Out<u64>, bytes: Out<usize>) |m| compile::complete(m, state, cubin, bytes);
    call cuLinkDestroy = "cuLinkDestroy" 5050 (state: u64) |m| compile::destroy(m, state);
    call cuLibraryLoadData = "cuLibraryLoadData" 12000 (handle: Out<u64>, image: In<u8>, _jit_options: u64, _jit_values: u64, _jit_count: u32, _options: u64, _values: u64, _count: u32) |m| library::load(m, handle, image);
    call cuLibraryUnload = "cuLibraryUnload" 12000 (handle: u64) |m| library::unload(m, handle);
    call cuLibraryGetKernel = "cuLibraryGetKernel" 12000 (kernel: Out<u64>, handle: u64, name: Text) |m| library::kernel(m, kernel, handle, name);
    call cuLibraryGetKernelCount = "cuLibraryGetKernelCount" 12040 (count: Out<u32>, handle: u64) |m| library::kernel_count(m, count, handle);
    call cuLibraryEnumerateKernels = "cuLibraryEnumerateKernels" 12040 (kernels: Out<u64>, room: u32, handle: u64) |m| library::enumerate(m, kernels, room, handle);
    call cuLibraryGetGlobal = "cuLibraryGetGlobal" 12000 (address: Out<u64>, bytes: Out<usize>, handle: u64, name: Text) |m| library::global(m, address, bytes, handle, name);
    call cuLibraryGetModule = "cuLibraryGetModule" 12000 (instance: Out<u64>, handle: u64) |m| library::module(m, instance, handle);
    call cuKernelGetLibrary = "cuKernelGetLibrary" 12050 (handle: Out<u64>, kernel: u64) |m| library::of_kernel(m, handle, kernel);
    call cuKernelGetFunction = "cuKernelGetFunction" 12000 (handle: Out<u64>, kernel: u64) |m| function::of_kernel(m, handle, kernel);
    call cuKernelGetAttribute = "cuKernelGetAttribute" 12000 (value: Out<i32>, attribute: u32, kernel: u64, device: i32) |m| function::kernel_attribute(m, value, attribute, kernel, device);
    call cuKernelSetAttribute = "cuKernelSetAttribute" 12000 (attribute: u32, value: i32, kernel: u64, device: i32) |m| function::set_kernel_attribute(m, attribute, value, kernel, device);
    call cuKernelGetParamInfo = "cuKernelGetParamInfo" 12040 (kernel: u64, index: usize, offset: Out<usize>, bytes: Out<usize>) |m| function::kernel_parameter_info(m, kernel, index, offset, bytes);
    call cuKernelGetName = "cuKernelGetName" 12030 (name: Out<*const c_char>, kernel: u64) |m| function::kernel_name(m, name, kernel);

    // Module
    call cuModuleLoadData = "cuModuleLoadData" 2000 (handle: Out<u64>, image: In<u8>) |m| module::load(m, handle, image);
    call cuModuleLoadDataEx = "cuModuleLoadDataEx" 2010 (handle: Out<u64>, image: In<u8>, _count: u32, _options: u64, _values: u64) |m| module::load(m, handle, image);
    call cuModuleUnload = "cuModuleUnload" 2000 (handle: u64) |m| module::unload(m, handle);
    call cuModuleGetFunction = "cuModuleGetFunction" 2000 (found: Out<u64>, handle: u64, name: Text) |m| module::function(m, found, handle, name);
    call cuModuleGetGlobal_v2 = "cuModuleGetGlobal" 3020 (address: Out<u64>, bytes: Out<usize>, handle: u64, name: Text) |m| module::global(m, address, bytes, handle, name);
    call cuModuleGetFunctionCount = "cuModuleGetFunctionCount" 12040 (count: Out<u32>, handle: u64) |m| module::function_count(m, count, handle);
    call cuModuleEnumerateFunctions = "cuModuleEnumerateFunctions" 12040 (functions: Out<u64>, room: u32, handle: u64) |m| module::enumerate(m, functions, room, handle);
    call cuFuncGetAttribute = "cuFuncGetAttribute" 2020 (value: Out<i32>, attribute: u32, handle: u64) |m| function::attribute(m, value, attribute, handle);
    call cuFuncSetAttribute = "cuFuncSetAttribute" 9000 (handle: u64, attribute: u32, value: i32) |m| function::set_attribute(m, handle, attribute, value);
    call cuFuncLoad = "cuFuncLoad" 12040 (handle: u64) |m| function::load(m, handle);
    call cuFuncGetParamInfo = "cuFuncGetParamInfo" 12040 (handle: u64, index: usize, offset: Out<usize>, bytes: Out<usize>) |m| function::parameter_info(m, handle, index, offset, bytes);
    call cuFuncGetName = "cuFuncGetName" 12030 (name: Out<*const c_char>, handle: u64) |m| function::name(m, name, handle);
    call cuFuncGetModule = "cuFuncGetModule" 11000 (found: Out<u64>, handle: u64) |m| function::module(m, found, handle);

    // Launch and occupancy
    call cuLaunchKernel = "cuLaunchKernel" 4000 (handle: u64, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32, shared_bytes: u32, stream: u64, parameters: In<u64>, extra: In<u64>) |m| {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        launch::issue(m, handle, Request { grid, block, shared_bytes, stream, cooperative: false, cluster: None }, parameters, extra)
    };
    call cuLaunchKernelEx = "cuLaunchKernelEx" 11060 (config: In<LaunchConfig>, handle: u64, parameters: In<u64>, extra: In<u64>) |m| launch::issue(m, handle, Request::from_config(config.get()?)?, parameters, extra);
    call cuOccupancyMaxActiveBlocksPerMultiprocessor = "cuOccupancyMaxActiveBlocksPerMultiprocessor" 6050 (blocks: Out<i32>, handle: u64, threads: i32, shared: usize) |m| occupancy::blocks(m, blocks, handle, threads, shared, 0);
    call cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags = "cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags" 7000 (blocks: Out<i32>, handle: u64, threads: i32, shared: usize, flags: u32) |m| occupancy::blocks(m, blocks, handle, threads, shared, flags);
    call cuOccupancyMaxActiveClusters = "cuOccupancyMaxActiveClusters" 11070 (clusters: Out<i32>, handle: u64, config: In<LaunchConfig>) |m| occupancy::clusters(m, clusters, handle, config);
    call cuOccupancyMaxPotentialClusterSize = "cuOccupancyMaxPotentialClusterSize" 11070 (size: Out<i32>, handle: u64, config: In<LaunchConfig>) |m| occupancy::cluster_limit(m, size, handle, config);
    call cuOccupancyAvailableDynamicSMemPerBlock = "cuOccupancyAvailableDynamicSMemPerBlock" 10020 (bytes: Out<usize>, handle: u64, blocks: i32, threads: i32) |m| occupancy::dynamic_shared(m, bytes, handle, blocks, threads);

    // Graph
    call cuGraphInstantiateWithFlags = "cuGraphInstantiateWithFlags" 11040 (executable: Out<u64>, handle: u64, flags: u64) |m| graph::instantiate(m, executable, handle, flags);
    call cuGraphExecUpdate_v2 = "cuGraphExecUpdate" 12000 (executable: u64, handle: u64, told: Out<[u64; 3]>) |m| graph::update(m, executable, handle, told);
    call cuGraphAddEmptyNode = "cuGraphAddEmptyNode" 10000 (node: Out<u64>, handle: u64, behind: In<u64>, count: usize) |m| graph::add_empty(m, node, handle, behind, count);
    call cuGraphAddNode_v2 = "cuGraphAddNode" 12030 (node: Out<u64>, handle: u64, behind: In<u64>, _edges: In<u64>, count: usize, params: Out<NodeParams>) |m| graph::add_node(m, node, handle, (behind, count), params);
    call cuGraphConditionalHandleCreate = "cuGraphConditionalHandleCreate" 12030 (condition: Out<u64>, handle: u64, _context: u64, default: u32, flags: u32) |m| graph::add_condition(m, condition, handle, default, flags);
    call cuGraphLaunch = "cuGraphLaunch" 10000 (executable: u64, stream: u64) |m| graph::launch(m, executable, stream);
    call cuGraphExecDestroy = "cuGraphExecDestroy" 10000 (executable: u64) |m| graph::destroy_executable(m, executable);
    call cuGraphDestroy = "cuGraphDestroy" 10000 (handle: u64) |m| graph::destroy(m, handle);
    call cuGraphGetNodes = "cuGraphGetNodes" 10000 (handle: u64, nodes: Out<u64>, count: Out<usize>) |m| graph::nodes(m, handle, nodes, count);

    // Tensor map
    call cuTensorMapEncodeTiled = "cuTensorMapEncodeTiled" 12000 (map: Out<TensorMap>, data_type: u32, rank: u32, address: u64, dimensions: In<u64>, strides: In<u64>, boxes: In<u32>, element_strides: In<u32>, interleave: u32, swizzle: u32, promotion: u32, fill: u32) |m|
        tensor_map::tiled(m, map, Tensor { data_type, rank, address, dimensions, strides, element_strides, modes: [interleave, swizzle, promotion, fill] }, boxes);
    call cuTensorMapEncodeIm2col = "cuTensorMapEncodeIm2col" 12000 (map: Out<TensorMap>, data_type: u32, rank: u32, address: u64, dimensions: In<u64>, strides: In<u64>, lower: In<i32>, upper: In<i32>, channels: u32, pixels: u32, element_strides: In<u32>, interleave: u32, swizzle: u32, promotion: u32, fill: u32) |m|
        tensor_map::im2col(m, map, Tensor { data_type, rank, address, dimensions, strides, element_strides, modes: [interleave, swizzle, promotion, fill] }, (lower, upper), channels, pixels);
    call cuTensorMapEncodeIm2colWide = "cuTensorMapEncodeIm2colWide" 12080 (_map: Out<TensorMap>, _data_type: u32, _rank: u32, _address: u64, _dimensions: In<u64>, _strides: In<u64>, _lower: i32, _upper: i32, _channels: u32, _pixels: u32, _element_strides: In<u32>, _interleave: u32, _mode: u32, _swizzle: u32, _promotion: u32, _fill: u32) |_|
        Err(CudaError::NOT_SUPPORTED);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_unique_and_variants_ordered() {
        let table = table();
        for (index, export) in table.iter().enumerate() {
            let same = |other: &&Export| {
                other.symbol == export.symbol || (other.name == export.name && other.since == export.since)
            };
            assert_eq!(table[..index].iter().find(same).map(|other| other.symbol), None, "{}", export.symbol);
            assert!(export.symbol.starts_with(export.name), "{}", export.symbol);
            assert!(export.since <= DRIVER_VERSION, "{}", export.symbol);
        }
    }
}
