//! Page-locked host memory: registered pieces of clients' host ranges, and the worker's own words.

use super::{Device, Stream};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use torpor_proto::error::CudaError;

/// `CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP`; the flags of cuMemHostAlloc have the same numbers.
const PORTABLE_AND_MAPPED: u32 = 1 | 2;

/// Host memory that the driver has page-locked and mapped for the device, at the same address.
#[derive(Debug)]
pub struct HostRegistration {
    device: Arc<Device>,
    address: u64,
}

impl HostRegistration {
    /// Page-locks `bytes` from `address`.
    ///
    /// # Errors
    /// The driver's; `CUDA_ERROR_NOT_SUPPORTED` if the device sees the memory elsewhere than the host does.
    ///
    /// # Safety
    /// The memory is mapped in this process, and stays so as long as the result lives.
    pub unsafe fn new(device: &Arc<Device>, address: u64, bytes: u64) -> Result<Self, CudaError> {
        let pointer = pointer(address);
        // SAFETY: the caller promises mapped memory.
        CudaError::check(unsafe {
            (device.table().cuMemHostRegister_v2)(pointer, bytes as usize, PORTABLE_AND_MAPPED)
        })?;
        let registration = Self { device: device.clone(), address };
        if device_address(device, pointer)? == address {
            Ok(registration)
        } else {
            Err(CudaError::NOT_SUPPORTED)
        }
    }
}

impl Drop for HostRegistration {
    fn drop(&mut self) {
        // SAFETY: registered once and unregistered once, here.
        let _ = unsafe { (self.device.table().cuMemHostUnregister)(pointer(self.address)) };
    }
}

/// Words in page-locked memory of this process that streams write and the CPU polls. All zero at first.
#[derive(Debug)]
pub struct PinnedWords {
    device: Arc<Device>,
    words: NonNull<AtomicU32>,
    device_address: u64,
    count: usize,
}

// SAFETY: the memory is process-wide and made of atomics.
unsafe impl Send for PinnedWords {}
// SAFETY: as above.
unsafe impl Sync for PinnedWords {}

impl PinnedWords {
    /// Takes memory for `count` words.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(device: &Arc<Device>, count: usize) -> Result<Self, CudaError> {
        let mut memory = std::ptr::null_mut();
        let bytes = count * size_of::<AtomicU32>();
        // SAFETY: writes one pointer.
        CudaError::check(unsafe {
            (device.table().cuMemHostAlloc)(&mut memory, bytes, PORTABLE_AND_MAPPED)
        })?;
        let words = NonNull::new(memory).ok_or(CudaError::OUT_OF_MEMORY)?;
        // SAFETY: the driver gave that many bytes, page-aligned, and nobody else knows them yet.
        unsafe { words.cast::<u8>().write_bytes(0, bytes) };
        let device_address = device_address(device, memory)?;
        Ok(Self { device: device.clone(), words: words.cast(), device_address, count })
    }

    /// A word's value.
    #[inline]
    #[must_use]
    pub fn load(&self, index: usize) -> u32 {
        // Acquire: what the GPU wrote before the word is read after it.
        self.word(index).load(Ordering::Acquire)
    }

    /// Sets a word from the CPU, when no stream writes it any more.
    pub fn store(&self, index: usize, value: u32) {
        self.word(index).store(value, Ordering::Relaxed);
    }

    /// Lets a stream write a word once its earlier work is done.
    ///
    /// # Errors
    /// The driver's.
    #[inline]
    pub fn write_from(&self, stream: &Stream, index: usize, value: u32) -> Result<(), CudaError> {
        assert!(index < self.count, "word {index} of {}", self.count);
        stream.write_value(self.device_address + (index * size_of::<AtomicU32>()) as u64, value)
    }

    #[inline]
    fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.count, "word {index} of {}", self.count);
        // SAFETY: inside the allocation, which lives as long as self; an atomic may be shared with the GPU.
        unsafe { self.words.add(index).as_ref() }
    }
}

impl Drop for PinnedWords {
    fn drop(&mut self) {
        // SAFETY: allocated once and freed once, here.
        let _ = unsafe { (self.device.table().cuMemFreeHost)(self.words.as_ptr().cast()) };
    }
}

fn pointer(address: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

fn device_address(device: &Device, pointer: *mut c_void) -> Result<u64, CudaError> {
    let mut address = 0;
    // SAFETY: the driver looks the pointer up and writes one address.
    CudaError::check(unsafe { (device.table().cuMemHostGetDevicePointer_v2)(&mut address, pointer, 0) })?;
    Ok(address)
}
