//! Page-locked host memory: registered pieces of clients' host ranges, and the worker's own words and arrays.

use super::{Device, Stream, Word};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use torpor_proto::error::CudaError;
use torpor_proto::layout::PAGE_BYTES;

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

/// A word in memory that several processes have mapped, which a stream of this one writes.
#[derive(Debug)]
pub struct StreamWord {
    registration: HostRegistration,
}

impl StreamWord {
    /// Page-locks the page that begins with the word.
    ///
    /// # Errors
    /// As [`HostRegistration::new`].
    ///
    /// # Safety
    /// As [`HostRegistration::new`]; the word is an atomic of 32 bits.
    pub unsafe fn new(device: &Arc<Device>, page: u64) -> Result<Self, CudaError> {
        // SAFETY: the caller promises so.
        Ok(Self { registration: unsafe { HostRegistration::new(device, page, PAGE_BYTES)? } })
    }

    /// Lets a stream write the word once its earlier work is done.
    ///
    /// # Errors
    /// The driver's.
    pub fn write_from(&self, stream: &Stream, value: u32) -> Result<(), CudaError> {
        // SAFETY: the page is registered as long as self, begins with an atomic word, and its owner waits for its streams.
        unsafe { stream.write_word(self.registration.address, Word::Narrow(value)) }
    }
}

/// Page-locked memory of this process, all zero at first, at the same place for as long as it lives.
#[derive(Debug)]
struct Pinned {
    device: Arc<Device>,
    memory: NonNull<c_void>,
    device_address: u64,
}

impl Pinned {
    fn new(device: &Arc<Device>, bytes: usize) -> Result<Self, CudaError> {
        let mut memory = std::ptr::null_mut();
        // SAFETY: writes one pointer.
        CudaError::check(unsafe {
            (device.table().cuMemHostAlloc)(&mut memory, bytes, PORTABLE_AND_MAPPED)
        })?;
        let memory = NonNull::new(memory).ok_or(CudaError::OUT_OF_MEMORY)?;
        // SAFETY: the driver gave that many bytes, page-aligned, and nobody else knows them yet.
        unsafe { memory.cast::<u8>().write_bytes(0, bytes) };
        let mut pinned = Self { device: device.clone(), memory, device_address: 0 };
        pinned.device_address = device_address(device, memory.as_ptr())?;
        Ok(pinned)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: allocated once and freed once, here.
        let _ = unsafe { (self.device.table().cuMemFreeHost)(self.memory.as_ptr()) };
    }
}

/// Words in page-locked memory of this process that streams write and the CPU polls. All zero at first.
#[derive(Debug)]
pub struct PinnedWords {
    memory: Pinned,
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
        Ok(Self { memory: Pinned::new(device, count * size_of::<AtomicU32>())?, count })
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
        let offset = (index * size_of::<AtomicU32>()) as u64;
        // SAFETY: a word inside the allocation, all of which are atomics; its owner waits for its streams.
        unsafe { stream.write_word(self.memory.device_address + offset, Word::Narrow(value)) }
    }

    #[inline]
    fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.count, "word {index} of {}", self.count);
        // SAFETY: inside the allocation, which lives as long as self; an atomic may be shared with the GPU.
        unsafe { self.memory.memory.cast::<AtomicU32>().add(index).as_ref() }
    }
}

/// Numbers of 64 bits in page-locked memory of this process that kernels and copies read and write. All zero at first.
///
/// Who reads here what the GPU wrote learns first that the work is done, from a fence ([`PinnedWords::load`]).
#[derive(Debug)]
pub struct PinnedArray {
    memory: Pinned,
    count: usize,
}

// SAFETY: the memory is process-wide and made of atomics.
unsafe impl Send for PinnedArray {}
// SAFETY: as above.
unsafe impl Sync for PinnedArray {}

impl PinnedArray {
    /// Takes memory for `count` numbers.
    ///
    /// # Errors
    /// The driver's; out of memory for more than an address space holds.
    pub fn new(device: &Arc<Device>, count: usize) -> Result<Self, CudaError> {
        let bytes = count.checked_mul(size_of::<AtomicU64>()).ok_or(CudaError::OUT_OF_MEMORY)?;
        Ok(Self { memory: Pinned::new(device, bytes)?, count })
    }

    /// Where the device sees a number; those after it follow.
    #[must_use]
    pub fn device_address(&self, index: usize) -> u64 {
        assert!(index < self.count, "number {index} of {}", self.count);
        self.memory.device_address + (index * size_of::<AtomicU64>()) as u64
    }

    /// One number.
    #[inline]
    #[must_use]
    pub fn load(&self, index: usize) -> u64 {
        self.number(index).load(Ordering::Relaxed)
    }

    /// Sets one number, for work that is posted afterwards.
    #[inline]
    pub fn store(&self, index: usize, value: u64) {
        self.number(index).store(value, Ordering::Relaxed);
    }

    #[inline]
    fn number(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.count, "number {index} of {}", self.count);
        // SAFETY: inside the allocation, which lives as long as self; an atomic may be shared with the GPU.
        unsafe { self.memory.memory.cast::<AtomicU64>().add(index).as_ref() }
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
