//! Device variables, by the address of their host shadows.

use super::copy::{Kind, copy};
use super::registration::{self, Variable};
use super::{INVALID_SYMBOL, default_stream_functions, ready, runtime_functions, stream_functions};
use crate::core::CudaResult;
use crate::driver::argument::Out;
use std::ffi::c_void;
use torpor_proto::error::CudaError;

fn find(symbol: *const c_void) -> CudaResult<Variable> {
    ready()?;
    registration::variable(symbol.addr()).ok_or(INVALID_SYMBOL)
}

/// The address of `bytes` bytes from `offset` on, which must lie in the variable.
pub(super) fn place(symbol: *const c_void, bytes: usize, offset: usize) -> CudaResult<u64> {
    let variable = find(symbol)?;
    let end = offset.checked_add(bytes).ok_or(CudaError::INVALID_VALUE)?;
    if end > variable.bytes {
        return Err(CudaError::INVALID_VALUE);
    }
    Ok(variable.address()? + offset as u64)
}

runtime_functions! {
    fn cudaGetSymbolAddress(address: Out<u64>, symbol: *const c_void) {
        address.put(find(symbol)?.address()?)
    }

    fn cudaGetSymbolSize(bytes: Out<usize>, symbol: *const c_void) {
        bytes.put(find(symbol)?.bytes)
    }
}

default_stream_functions! {
    fn cudaMemcpyToSymbol / cudaMemcpyToSymbol_ptds(
        symbol: *const c_void, source: u64, bytes: usize, offset: usize, kind: Kind,
    ) on stream {
        copy(place(symbol, bytes, offset)?, source, bytes, kind, stream, true)
    }

    fn cudaMemcpyFromSymbol / cudaMemcpyFromSymbol_ptds(
        destination: u64, symbol: *const c_void, bytes: usize, offset: usize, kind: Kind,
    ) on stream {
        copy(destination, place(symbol, bytes, offset)?, bytes, kind, stream, true)
    }
}

stream_functions! {
    fn cudaMemcpyToSymbolAsync / cudaMemcpyToSymbolAsync_ptsz(
        symbol: *const c_void, source: u64, bytes: usize, offset: usize, kind: Kind, @ stream,
    ) {
        copy(place(symbol, bytes, offset)?, source, bytes, kind, stream, false)
    }

    fn cudaMemcpyFromSymbolAsync / cudaMemcpyFromSymbolAsync_ptsz(
        destination: u64, symbol: *const c_void, bytes: usize, offset: usize, kind: Kind, @ stream,
    ) {
        copy(destination, place(symbol, bytes, offset)?, bytes, kind, stream, false)
    }
}
