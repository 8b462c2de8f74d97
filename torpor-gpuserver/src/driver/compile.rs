//! The driver's compiler: from PTX to a cubin.

use super::{Device, Handle};
use std::ptr;
use torpor_proto::error::CudaError;

/// `CU_JIT_INPUT_PTX`.
const INPUT_PTX: u32 = 1;

/// What the driver makes of PTX text (with its NUL) for the GPU of the calling thread's context.
///
/// # Errors
/// The driver's.
pub fn compile(device: &Device, ptx: &[u8]) -> Result<Vec<u8>, CudaError> {
    let (table, mut state) = (device.table(), 0);
    // SAFETY: no options are passed; writes one handle.
    CudaError::check(unsafe { (table.cuLinkCreate_v2)(0, ptr::null_mut(), ptr::null_mut(), &mut state) })?;
    let cubin = link(device, state, ptx);
    // SAFETY: made above, and destroyed once; the cubin has been copied.
    let _ = unsafe { (table.cuLinkDestroy)(state) };
    cubin
}

fn link(device: &Device, state: Handle, ptx: &[u8]) -> Result<Vec<u8>, CudaError> {
    let table = device.table();
    // SAFETY: the driver reads as many bytes as it is told, during the call; no options are passed.
    CudaError::check(unsafe {
        (table.cuLinkAddData_v2)(
            state,
            INPUT_PTX,
            ptx.as_ptr().cast(),
            ptx.len(),
            c"image".as_ptr(),
            0,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    })?;
    let (mut cubin, mut bytes) = (ptr::null(), 0);
    // SAFETY: writes an address and a length.
    CudaError::check(unsafe { (table.cuLinkComplete)(state, &mut cubin, &mut bytes) })?;
    if cubin.is_null() {
        return Err(CudaError::UNKNOWN);
    }
    // SAFETY: the driver's memory of this length, which stays until the state is destroyed.
    Ok(unsafe { std::slice::from_raw_parts(cubin, bytes) }.to_vec())
}
