//! Physical memory that another process is given, as a descriptor of the file that it is.

use std::os::fd::{BorrowedFd, IntoRawFd};

use rustix::io::fcntl_dupfd_cloexec;

use super::physical::Physical;
use crate::abi::Out;
use crate::error::{CudaError, Result};
use crate::machine::Machine;

/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`, the only kind there is.
pub const DESCRIPTOR: u32 = 1;

pub fn export(machine: &Machine, shared: Out<i32>, handle: u64, kind: u32, flags: u64) -> Result {
    let physical = machine.allocations.find(handle).map_err(|_| CudaError::INVALID_VALUE)?;
    if kind != DESCRIPTOR || flags != 0 || shared.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    shared.set(physical.give()?.into_raw_fd())
}

/// The caller keeps its descriptor.
pub fn import(machine: &Machine, handle: Out<u64>, shared: u64, kind: u32) -> Result {
    let descriptor = i32::try_from(shared).ok().filter(|&descriptor| descriptor >= 0);
    let descriptor = descriptor.ok_or(CudaError::INVALID_VALUE)?;
    if kind != DESCRIPTOR || handle.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    // SAFETY: the caller says that it is open, and it is only looked at until this returns; one that is not open is refused by
    // the system.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let file = fcntl_dupfd_cloexec(borrowed, 0).map_err(|_| CudaError::INVALID_VALUE)?;
    let physical = Physical::given(file, machine.devices.len())?;
    handle.set(machine.allocations.add(physical))
}
