//! The error log of a program's failed calls.

use super::runtime_functions;
use crate::driver::argument::{Out, Text};
use crate::driver::logs;
use crate::told::Listener;
use std::ffi::{c_char, c_void};

runtime_functions! {
    fn cudaLogsRegisterCallback(listener: Option<Listener>, data: *mut c_void, number: Out<usize>) {
        logs::register(listener, data, number)
    }

    fn cudaLogsUnregisterCallback(number: usize) {
        logs::unregister(number)
    }

    fn cudaLogsCurrent(iterator: Out<u32>, flags: u32) {
        logs::current(iterator, flags)
    }

    fn cudaLogsDumpToMemory(iterator: Out<u32>, place: Out<c_char>, length: Out<usize>, flags: u32) {
        logs::dump_to_memory(iterator, place, length, flags)
    }

    fn cudaLogsDumpToFile(iterator: Out<u32>, path: Text, flags: u32) {
        logs::dump_to_file(iterator, path, flags)
    }
}
