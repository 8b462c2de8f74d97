//! The driver's compiler and linker: from PTX and other inputs to a cubin.

use super::{Device, Handle};
use std::ptr;
use torpor_proto::error::CudaError;
use torpor_proto::image::bundle::Input;

/// Where the compiler says what, and how long that may be: `CU_JIT_INFO_LOG_BUFFER`, `CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES`,
/// `CU_JIT_ERROR_LOG_BUFFER`, `CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES`.
const LOG_OPTIONS: [u32; 4] = [3, 4, 5, 6];

/// Bytes of each.
const LOG_BYTES: usize = 4096;

/// What the driver makes of these inputs together for the GPU of the calling thread's context. What it says of them nobody reads; without
/// room for that it would write to standard error, and fail where there is none (a call of a function elsewhere, driver 580).
///
/// # Errors
/// The driver's.
pub fn link(device: &Device, inputs: &[Input<'_>]) -> Result<Vec<u8>, CudaError> {
    let (table, mut state) = (device.table(), 0);
    let mut logs = [[0_u8; LOG_BYTES]; 2];
    let [informs, errors] = logs.each_mut().map(|log| log.as_mut_ptr().cast());
    let length = ptr::without_provenance_mut(LOG_BYTES);
    let (mut options, mut values) = (LOG_OPTIONS, [informs, length, errors, length]);
    // SAFETY: as many options as values, which are as each option takes them; the logs stay until the state is destroyed. Writes one handle.
    CudaError::check(unsafe {
        (table.cuLinkCreate_v2)(options.len() as u32, options.as_mut_ptr(), values.as_mut_ptr(), &mut state)
    })?;
    let cubin = complete(device, state, inputs);
    // SAFETY: made above, and destroyed once; the cubin has been copied.
    let _ = unsafe { (table.cuLinkDestroy)(state) };
    cubin
}

fn complete(device: &Device, state: Handle, inputs: &[Input<'_>]) -> Result<Vec<u8>, CudaError> {
    let table = device.table();
    for input in inputs {
        // SAFETY: the driver reads as many bytes as it is told, during the call; no options are passed.
        CudaError::check(unsafe {
            (table.cuLinkAddData_v2)(
                state,
                input.kind as u32,
                input.bytes.as_ptr().cast(),
                input.bytes.len(),
                c"image".as_ptr(),
                0,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        })?;
    }
    let (mut cubin, mut bytes) = (ptr::null(), 0);
    // SAFETY: writes an address and a length.
    CudaError::check(unsafe { (table.cuLinkComplete)(state, &mut cubin, &mut bytes) })?;
    if cubin.is_null() {
        return Err(CudaError::UNKNOWN);
    }
    // SAFETY: the driver's memory of this length, which stays until the state is destroyed.
    Ok(unsafe { std::slice::from_raw_parts(cubin, bytes) }.to_vec())
}
