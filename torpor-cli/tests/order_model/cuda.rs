//! The functions of the CUDA driver that the programs call, from the library that the dynamic linker knows.
//!
//! Source of the signatures and of the symbols' versions: cuda.h 13.0. Handles and addresses are plain numbers.

use libloading::Library;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::ptr;

/// A `CUresult` that says no, and the function that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(pub &'static str, pub c_int);

/// What a call gives.
pub type Answer<T> = Result<T, Refusal>;

/// `CUDA_ERROR_NOT_READY`
pub const NOT_READY: c_int = 600;

/// `CU_STREAM_LEGACY`, `CU_STREAM_PER_THREAD`
pub const LEGACY: usize = 1;
/// See [`LEGACY`].
pub const PER_THREAD: usize = 2;

macro_rules! driver {
    ($($name:ident: $symbol:literal ($($argument:ident: $kind:ty),*);)*) => {
        /// The driver.
        pub struct Cuda {
            $($name: unsafe extern "C" fn($($kind),*) -> c_int,)*
            _library: Library,
        }

        impl Cuda {
            /// The driver that is preloaded, or installed.
            pub fn load() -> Self {
                // SAFETY: what runs at loading is the driver's business.
                let library = unsafe { Library::new("libcuda.so.1") }.expect("a CUDA driver");
                $(
                    // SAFETY: cuda.h declares the symbol with this signature.
                    let $name = *unsafe { library.get(concat!($symbol, "\0")) }.expect($symbol);
                )*
                Self { $($name,)* _library: library }
            }

            $(
                /// The function of this name.
                ///
                /// # Safety
                /// As cuda.h has it: pointers that it follows are to what it wants there.
                unsafe fn $name(&self $(, $argument: $kind)*) -> Answer<()> {
                    // SAFETY: the caller's promise.
                    match unsafe { (self.$name)($($argument),*) } {
                        0 => Ok(()),
                        code => Err(Refusal($symbol, code)),
                    }
                }
            )*
        }
    };
}

driver! {
    init: "cuInit" (flags: c_uint);
    retain: "cuDevicePrimaryCtxRetain" (context: *mut usize, device: c_int);
    set_current: "cuCtxSetCurrent" (context: usize);
    context_synchronize: "cuCtxSynchronize" ();
    stream_create: "cuStreamCreate" (stream: *mut usize, flags: c_uint);
    stream_destroy: "cuStreamDestroy_v2" (stream: usize);
    stream_synchronize: "cuStreamSynchronize" (stream: usize);
    stream_query: "cuStreamQuery" (stream: usize);
    stream_wait: "cuStreamWaitEvent" (stream: usize, event: usize, flags: c_uint);
    event_create: "cuEventCreate" (event: *mut usize, flags: c_uint);
    event_destroy: "cuEventDestroy_v2" (event: usize);
    event_record: "cuEventRecord" (event: usize, stream: usize);
    event_synchronize: "cuEventSynchronize" (event: usize);
    event_query: "cuEventQuery" (event: usize);
    allocate: "cuMemAlloc_v2" (address: *mut u64, bytes: usize);
    free: "cuMemFree_v2" (address: u64);
    allocate_in_order: "cuMemAllocAsync" (address: *mut u64, bytes: usize, stream: usize);
    free_in_order: "cuMemFreeAsync" (address: u64, stream: usize);
    allocate_pinned: "cuMemHostAlloc" (address: *mut *mut c_void, bytes: usize, flags: c_uint);
    copy_in: "cuMemcpyHtoDAsync_v2" (to: u64, from: *const c_void, bytes: usize, stream: usize);
    copy_out: "cuMemcpyDtoHAsync_v2" (to: *mut c_void, from: u64, bytes: usize, stream: usize);
    fill: "cuMemsetD8_v2" (address: u64, value: u8, bytes: usize);
    module_load: "cuModuleLoadData" (module: *mut usize, image: *const c_void);
    module_function: "cuModuleGetFunction" (function: *mut usize, module: usize, name: *const c_char);
    launch_kernel: "cuLaunchKernel" (
        function: usize, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint,
        stream: usize, parameters: *mut *mut c_void, extra: *mut *mut c_void
    );
}

macro_rules! plain {
    ($($(#[$note:meta])* $name:ident = $raw:ident($($argument:ident: $kind:ty),*);)*) => {
        /// Functions that follow no pointer of the program's.
        impl Cuda {
            $(
                $(#[$note])*
                pub fn $name(&self $(, $argument: $kind)*) -> Answer<()> {
                    // SAFETY: the driver checks handles and addresses.
                    unsafe { self.$raw($($argument),*) }
                }
            )*
        }
    };
}

plain! {
    /// Waits for all work.
    synchronize_all = context_synchronize();
    /// For the calling thread.
    use_context = set_current(context: usize);
    /// Its work goes on.
    destroy_stream = stream_destroy(stream: usize);
    /// Waits for a stream.
    synchronize_stream = stream_synchronize(stream: usize);
    /// `NOT_READY` while it has work.
    query_stream = stream_query(stream: usize);
    /// What was recorded stays in order.
    destroy_event = event_destroy(event: usize);
    /// In the stream's order.
    record = event_record(event: usize, stream: usize);
    /// Waits for the last record.
    synchronize_event = event_synchronize(event: usize);
    /// `NOT_READY` until the last record is reached.
    query_event = event_query(event: usize);
    /// Memory of `cuMemAlloc`.
    free_at_once = free(address: u64);
    /// Memory of a pool.
    free_behind = free_in_order(address: u64, stream: usize);
    /// Fills device memory.
    set_bytes = fill(address: u64, value: u8, bytes: usize);
}

impl Cuda {
    /// The context of the first device.
    pub fn context(&self) -> Answer<usize> {
        let mut context = 0;
        // SAFETY: the output is live.
        unsafe {
            self.init(0)?;
            self.retain(&mut context, 0)?;
        }
        Ok(context)
    }

    /// A stream, which the legacy stream waits for if it is blocking.
    pub fn create_stream(&self, is_blocking: bool) -> Answer<usize> {
        let mut stream = 0;
        // SAFETY: the output is live. CU_STREAM_NON_BLOCKING is 1.
        unsafe { self.stream_create(&mut stream, (!is_blocking).into()) }.map(|()| stream)
    }

    /// An event.
    pub fn create_event(&self) -> Answer<usize> {
        let mut event = 0;
        // SAFETY: the output is live.
        unsafe { self.event_create(&mut event, 0) }.map(|()| event)
    }

    /// What comes later in the stream waits for the event's last record.
    pub fn wait(&self, stream: usize, event: usize) -> Answer<()> {
        // SAFETY: the driver checks handles.
        unsafe { self.stream_wait(stream, event, 0) }
    }

    /// Device memory, at once.
    pub fn allocate_at_once(&self, bytes: usize) -> Answer<u64> {
        let mut address = 0;
        // SAFETY: the output is live.
        unsafe { self.allocate(&mut address, bytes) }.map(|()| address)
    }

    /// Device memory of the pool, for what comes later in the stream.
    pub fn allocate_for(&self, bytes: usize, stream: usize) -> Answer<u64> {
        let mut address = 0;
        // SAFETY: the output is live.
        unsafe { self.allocate_in_order(&mut address, bytes, stream) }.map(|()| address)
    }

    /// Page-locked memory, which kernels reach at the same address.
    pub fn pinned(&self, bytes: usize) -> Answer<*mut c_void> {
        let mut address = ptr::null_mut();
        // SAFETY: the output is live.
        unsafe { self.allocate_pinned(&mut address, bytes, 0) }.map(|()| address)
    }

    /// Copies pageable words to the device.
    pub fn upload<T>(&self, to: u64, from: &[T], stream: usize) -> Answer<()> {
        // SAFETY: the bytes are read before the call returns, as of any pageable memory.
        unsafe { self.copy_in(to, from.as_ptr().cast(), size_of_val(from), stream) }
    }

    /// Copies words of the device into pageable memory, where they are when the call returns.
    pub fn download(&self, to: &mut [u64], from: u64, stream: usize) -> Answer<()> {
        // SAFETY: the slice is borrowed for the call, which returns when the bytes are there.
        unsafe { self.copy_out(to.as_mut_ptr().cast(), from, size_of_val(to), stream) }
    }

    /// A kernel of a module in PTX.
    pub fn kernel(&self, ptx: &str, name: &str) -> Answer<usize> {
        let (mut module, mut function) = (0, 0);
        let texts = [ptx, name].map(|text| CString::new(text).expect("text without zeros"));
        // SAFETY: both texts end with a zero, and the outputs are live.
        unsafe {
            self.module_load(&mut module, texts[0].as_ptr().cast())?;
            self.module_function(&mut function, module, texts[1].as_ptr())?;
        }
        Ok(function)
    }

    /// Launches one thread of a kernel that takes so many 64-bit words.
    pub fn launch<const N: usize>(&self, kernel: usize, mut words: [u64; N], stream: usize) -> Answer<()> {
        let mut parameters = words.each_mut().map(|word| ptr::from_mut(word).cast());
        // SAFETY: there is a pointer for each parameter of the kernels here, read before the call returns.
        unsafe {
            self.launch_kernel(kernel, 1, 1, 1, 1, 1, 1, 0, stream, parameters.as_mut_ptr(), ptr::null_mut())
        }
    }
}
