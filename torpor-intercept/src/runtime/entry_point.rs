//! Driver functions by name, out of the same table as `cuGetProcAddress`.

use super::{initialized, runtime_functions, version};
use crate::core::CudaResult;
use crate::driver::argument::Out;
use crate::driver::entry_point::cuGetProcAddress_v2;
use crate::driver::export_table::cuGetExportTable;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use torpor_proto::error::CudaError;

/// `cudaEnablePerThreadDefaultStream`
const PER_THREAD: u64 = 2;

/// # Safety
/// `symbol` is null or a C string.
unsafe fn find(
    symbol: *const c_char,
    function: Out<*mut c_void>,
    version: c_int,
    flags: u64,
    status: Out<c_int>,
) -> CudaResult<()> {
    initialized()?;
    let (mut found, mut state) = (ptr::null_mut(), 0);
    // SAFETY: the caller's promise, and two places for results.
    let code = unsafe { cuGetProcAddress_v2(symbol, &raw mut found, version, flags, &raw mut state) };
    let outcome = CudaError::check(code.cast_unsigned());
    if outcome.is_ok() || outcome == Err(CudaError::NOT_FOUND) {
        function.put(found)?;
        status.put_if_wanted(state);
    }
    outcome
}

runtime_functions! {
    fn cudaGetDriverEntryPointByVersion(
        symbol: *const c_char, function: Out<*mut c_void>, version: c_int, flags: u64, status: Out<c_int>,
    ) {
        // SAFETY: the program promises a C string.
        unsafe { find(symbol, function, version, flags, status) }
    }

    fn cudaGetDriverEntryPointByVersion_ptsz(
        symbol: *const c_char, function: Out<*mut c_void>, version: c_int, flags: u64, status: Out<c_int>,
    ) {
        let flags = if flags == 0 { PER_THREAD } else { flags };
        // SAFETY: the program promises a C string.
        unsafe { find(symbol, function, version, flags, status) }
    }

    /// For those who do not say which version they were made for.
    fn cudaGetDriverEntryPoint(symbol: *const c_char, function: Out<*mut c_void>, flags: u64, status: Out<c_int>) {
        // SAFETY: the program promises a C string.
        unsafe { find(symbol, function, version::release(), flags, status) }
    }

    fn cudaGetDriverEntryPoint_ptsz(
        symbol: *const c_char, function: Out<*mut c_void>, flags: u64, status: Out<c_int>,
    ) {
        let flags = if flags == 0 { PER_THREAD } else { flags };
        // SAFETY: the program promises a C string.
        unsafe { find(symbol, function, version::release(), flags, status) }
    }

    /// The private tables are the driver's.
    fn cudaGetExportTable(table: *mut *const c_void, id: *const [u8; 16]) {
        initialized()?;
        // SAFETY: the program promises a place for a pointer and an identifier, or null.
        CudaError::check(unsafe { cuGetExportTable(table, id) }.cast_unsigned())
    }
}
