//! The error log of a program's failed calls.

use super::argument::{Out, Text};
use super::cuda_functions;
use crate::core::CudaResult;
use crate::told::{self, Listener};
use std::ffi::{OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use torpor_proto::error::CudaError;

/// `cuLogsRegisterCallback`, `cudaLogsRegisterCallback`
pub(crate) fn register(listener: Option<Listener>, data: *mut c_void, number: Out<usize>) -> CudaResult<()> {
    let listener = listener.ok_or(CudaError::INVALID_VALUE)?;
    number.put_if_wanted(told::add_listener(listener, data));
    Ok(())
}

/// `cuLogsUnregisterCallback`, `cudaLogsUnregisterCallback`
pub(crate) fn unregister(number: usize) -> CudaResult<()> {
    told::remove_listener(number)
}

/// `cuLogsCurrent`, `cudaLogsCurrent`
pub(crate) fn current(iterator: Out<u32>, flags: u32) -> CudaResult<()> {
    if flags != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    iterator.put(told::next())
}

/// Where an iterator is. Null is at the beginning.
fn start(iterator: Out<u32>) -> CudaResult<Option<u32>> {
    if iterator.is_null() { Ok(None) } else { iterator.get().map(Some) }
}

/// `cuLogsDumpToMemory`, `cudaLogsDumpToMemory`: the length is of the room, and then of the text without its NUL.
pub(crate) fn dump_to_memory(
    iterator: Out<u32>,
    place: Out<c_char>,
    length: Out<usize>,
    flags: u32,
) -> CudaResult<()> {
    let room = length.get()?;
    if place.is_null() || flags != 0 || room == 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    length.put(0)?;
    place.put(0)?;
    let (text, next) = told::text_since(start(iterator)?, room - 1)?;
    place.put_all(text.bytes().map(|byte| byte as c_char).chain([0]))?;
    length.put(text.len())?;
    iterator.put_if_wanted(next);
    Ok(())
}

/// `cuLogsDumpToFile`, `cudaLogsDumpToFile`
pub(crate) fn dump_to_file(iterator: Out<u32>, path: Text, flags: u32) -> CudaResult<()> {
    let path = path.get()?;
    if flags != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let (text, next) = told::text_since(start(iterator)?, usize::MAX)?;
    std::fs::write(OsStr::from_bytes(path.as_bytes()), text).map_err(|_| CudaError::INVALID_VALUE)?;
    iterator.put_if_wanted(next);
    Ok(())
}

cuda_functions! {
    fn cuLogsRegisterCallback(listener: Option<Listener>, data: *mut c_void, number: Out<usize>) {
        register(listener, data, number)
    }

    fn cuLogsUnregisterCallback(number: usize) {
        unregister(number)
    }

    fn cuLogsCurrent(iterator: Out<u32>, flags: u32) {
        current(iterator, flags)
    }

    fn cuLogsDumpToMemory(iterator: Out<u32>, place: Out<c_char>, length: Out<usize>, flags: u32) {
        dump_to_memory(iterator, place, length, flags)
    }

    fn cuLogsDumpToFile(iterator: Out<u32>, path: Text, flags: u32) {
        dump_to_file(iterator, path, flags)
    }
}
