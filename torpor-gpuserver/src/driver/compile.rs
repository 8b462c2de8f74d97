//! The driver's compiler and linker: from PTX and other inputs to a cubin.

use super::{Device, Handle};
use std::ptr;
use torpor_proto::error::CudaError;
use torpor_proto::image::Refusal;
use torpor_proto::image::bundle::Bundle;

/// Where the compiler says what, and how long that may be: `CU_JIT_INFO_LOG_BUFFER`, `CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES`,
/// `CU_JIT_ERROR_LOG_BUFFER`, `CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES`.
const LOG_OPTIONS: [u32; 4] = [3, 4, 5, 6];

/// What the driver makes of a bundle's inputs together for the GPU of the calling thread's context. Without room for what it says of them it
/// would write to standard error, and fail where there is none (a call of a function elsewhere, driver 580).
///
/// # Errors
/// The driver's, with what it says of errors.
pub fn link(device: &Device, bundle: &Bundle<'_>) -> Result<Vec<u8>, Refusal> {
    let (table, mut state) = (device.table(), 0);
    let mut logs = [[0_u8; Refusal::MOST_BYTES]; 2];
    let [informs, errors] = logs.each_mut().map(|log| log.as_mut_ptr().cast());
    let length = ptr::without_provenance_mut(Refusal::MOST_BYTES);
    let (mut options, mut values) = (LOG_OPTIONS.to_vec(), vec![informs, length, errors, length]);
    for choice in &bundle.choices {
        options.push(choice.option as u32);
        values.push(ptr::without_provenance_mut(choice.value as usize));
    }
    // SAFETY: as many options as values, which are as each option takes them; the logs stay until the state is destroyed. Writes one handle.
    let created = CudaError::check(unsafe {
        (table.cuLinkCreate_v2)(options.len() as u32, options.as_mut_ptr(), values.as_mut_ptr(), &mut state)
    });
    let cubin = created.and_then(|()| {
        let cubin = complete(device, state, bundle);
        // SAFETY: made above, and destroyed once; the cubin has been copied.
        let _ = unsafe { (table.cuLinkDestroy)(state) };
        cubin
    });
    let [_, errors] = logs;
    cubin.map_err(|error| Refusal { error, said: errors.into_iter().take_while(|&byte| byte != 0).collect() })
}

fn complete(device: &Device, state: Handle, bundle: &Bundle<'_>) -> Result<Vec<u8>, CudaError> {
    let table = device.table();
    for input in &bundle.inputs {
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
