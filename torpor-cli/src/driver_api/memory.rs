//! Memory, copies and fills.

use super::{Driver, DriverError};
use std::ffi::c_void;
use std::ptr;

impl Driver {
    /// Device memory.
    pub fn allocate(&self, bytes: usize) -> Result<u64, DriverError> {
        let mut address = 0;
        // SAFETY: the output is ours.
        let code = unsafe { (self.allocate)(&raw mut address, bytes) };
        self.check("cuMemAlloc", code).map(|()| address)
    }

    /// Frees device memory.
    pub fn free(&self, address: u64) -> Result<(), DriverError> {
        // SAFETY: no host pointer is passed.
        self.check("cuMemFree", unsafe { (self.free)(address) })
    }

    /// Free and total bytes of the device.
    pub fn memory_info(&self) -> Result<(usize, usize), DriverError> {
        let (mut free_bytes, mut total_bytes) = (0, 0);
        // SAFETY: the outputs are ours.
        let code = unsafe { (self.memory_info)(&raw mut free_bytes, &raw mut total_bytes) };
        self.check("cuMemGetInfo", code).map(|()| (free_bytes, total_bytes))
    }

    /// Page-locked host memory, until the context ends.
    pub fn allocate_pinned(&self, bytes: usize) -> Result<*mut c_void, DriverError> {
        let mut address = ptr::null_mut();
        // SAFETY: the output is ours.
        let code = unsafe { (self.pinned_allocate)(&raw mut address, bytes, 0) };
        self.check("cuMemHostAlloc", code).map(|()| address)
    }

    /// Copies to the device, in a stream's order.
    ///
    /// # Safety
    /// The numbers must stay where they are until the stream got there.
    pub unsafe fn copy_in(&self, to: u64, from: &[f32], stream: usize) -> Result<(), DriverError> {
        // SAFETY: the caller keeps the promise above, and the length is the slice's.
        let code = unsafe { (self.copy_in)(to, from.as_ptr().cast(), size_of_val(from), stream) };
        self.check("cuMemcpyHtoDAsync", code)
    }

    /// Copies from the device, in a stream's order.
    ///
    /// # Safety
    /// The numbers must stay where they are, and nobody may touch them, until the stream got there.
    pub unsafe fn copy_out(&self, to: &mut [f32], from: u64, stream: usize) -> Result<(), DriverError> {
        // SAFETY: the caller keeps the promise above, and the length is the slice's.
        let code = unsafe { (self.copy_out)(to.as_mut_ptr().cast(), from, size_of_val(to), stream) };
        self.check("cuMemcpyDtoHAsync", code)
    }

    /// Sets bytes of device memory, in a stream's order.
    pub fn fill(&self, address: u64, value: u8, bytes: usize, stream: usize) -> Result<(), DriverError> {
        // SAFETY: no host pointer is passed.
        self.check("cuMemsetD8Async", unsafe { (self.fill)(address, value, bytes, stream) })
    }
}
