//! `cuGetExportTable`: tables of functions that NVIDIA's own libraries call and no header declares.
//!
//! A table is known by a UUID. It is static, so it never moves and is the same on every request (the integrity check covers
//! addresses). Its first word holds its size in bytes, itself included, except in `context_storage`. Callers do not check
//! for null slots, so a slot that nobody was seen to use holds a function that refuses. An unknown or refused table is a
//! null pointer and CUDA_ERROR_INVALID_VALUE: libraries then do without. The facts stand in the project's notes on
//! the driver surface, section 3.

mod callback_hooks;
mod compile_cache;
mod context_checks;
pub(crate) mod context_storage;
mod cublas;
mod cudart_interface;
mod cupti;
mod functions_of_module;
mod gpu_layout;
pub(crate) mod host;
mod integrity;
mod log_sink;
mod refusals;
mod tools_tls;

use std::ffi::{c_int, c_void};

pub(crate) const SUCCESS: c_int = 0;
pub(crate) const INVALID_VALUE: c_int = 1;
pub(crate) const INVALID_CONTEXT: c_int = 201;

/// A slot that nobody was seen to use.
type Unused = extern "C" fn() -> c_int;

/// A UUID in the order in which its bytes lie in memory, from its usual text form.
const fn uuid(text: &str) -> [u8; 16] {
    let (text, mut bytes, mut digits, mut at) = (text.as_bytes(), [0; 16], 0, 0);
    while at < text.len() {
        let digit = match text[at] {
            b'-' => {
                at += 1;
                continue;
            }
            digit @ b'0'..=b'9' => digit - b'0',
            digit @ b'a'..=b'f' => digit - b'a' + 10,
            _ => panic!("no UUID"),
        };
        bytes[digits / 2] = bytes[digits / 2] << 4 | digit;
        digits += 1;
        at += 1;
    }
    assert!(digits == 32, "no UUID");
    bytes
}

/// Defines `unused`, what the unused slots of one table hold: it refuses, and names the table once in the log.
macro_rules! unused_slots {
    ($table:literal) => {
        extern "C" fn unused() -> std::ffi::c_int {
            static NAMED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
            crate::driver::refused::refuse(concat!("a function of the private table ", $table), &NAMED)
        }
    };
}
use unused_slots;

/// The table that `id` asks for.
fn table(id: [u8; 16]) -> Option<*const c_void> {
    Some(match id {
        log_sink::ID => (&raw const log_sink::TABLE).cast(),
        cudart_interface::ID => (&raw const cudart_interface::TABLE).cast(),
        callback_hooks::ID => (&raw const callback_hooks::TABLE).cast(),
        tools_tls::ID => (&raw const tools_tls::TABLE).cast(),
        context_storage::ID => (&raw const context_storage::TABLE).cast(),
        context_checks::ID => (&raw const context_checks::TABLE).cast(),
        integrity::ID => (&raw const integrity::TABLE).cast(),
        cublas::ID => (&raw const cublas::TABLE).cast(),
        cupti::ID => (&raw const cupti::TABLE).cast(),
        functions_of_module::ID => (&raw const functions_of_module::TABLE).cast(),
        gpu_layout::ID => (&raw const gpu_layout::TABLE).cast(),
        compile_cache::ID if compile_cache::is_wanted() => (&raw const compile_cache::TABLE).cast(),
        _ => return None,
    })
}

/// Gives the private table with the UUID at `id`.
///
/// # Safety
/// `out` is null or writable; `id` is null or 16 bytes are readable there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetExportTable(out: *mut *const c_void, id: *const [u8; 16]) -> c_int {
    super::guard(|| {
        if out.is_null() || id.is_null() {
            return INVALID_VALUE;
        }
        // SAFETY: not null, so the caller promises 16 bytes; an array of bytes has no alignment.
        let id = unsafe { *id };
        let found = table(id);
        // SAFETY: not null, so the caller promises that it is writable; C callers promise no alignment.
        unsafe { out.write_unaligned(found.unwrap_or(std::ptr::null())) };
        if found.is_some() {
            return SUCCESS;
        }
        refusals::note(id);
        INVALID_VALUE
    })
}

/// Writes `value` to `out`; CUDA_ERROR_INVALID_VALUE if that is null.
///
/// # Safety
/// `out` is null or writable.
unsafe fn give<T>(out: *mut T, value: T) -> c_int {
    if out.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: not null, so the caller promises that it is writable; C callers promise no alignment.
    unsafe { out.write_unaligned(value) };
    SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UUID and bytes of every table that has a size word.
    const SIZED: [([u8; 16], usize); 11] = [
        (log_sink::ID, 24),
        (cudart_interface::ID, 104),
        (callback_hooks::ID, 56),
        (tools_tls::ID, 24),
        (context_checks::ID, 120),
        (integrity::ID, 24),
        (cublas::ID, 744),
        (cupti::ID, 536),
        (functions_of_module::ID, 792),
        (gpu_layout::ID, 136),
        (compile_cache::ID, 56),
    ];

    fn ask(id: [u8; 16]) -> (c_int, *const c_void) {
        let mut table = std::ptr::dangling();
        // SAFETY: a writable place and 16 bytes.
        let result = unsafe { cuGetExportTable(&mut table, &id) };
        (result, table)
    }

    #[test]
    fn tables_say_their_size_and_have_no_null_slot() {
        for (id, bytes) in SIZED {
            let (result, table) = ask(id);
            assert_eq!(result, SUCCESS);
            // SAFETY: a table is a static of words, `bytes` long, which is compared with its first word.
            let words = unsafe {
                assert_eq!(*table.cast::<usize>(), bytes);
                std::slice::from_raw_parts(table.cast::<usize>(), bytes / 8)
            };
            assert!(words.iter().all(|word| *word != 0));
        }
    }

    #[test]
    fn a_table_is_the_same_on_every_request() {
        for (id, _) in SIZED {
            assert_eq!(ask(id), ask(id));
        }
    }

    #[test]
    fn unknown_and_refused_tables_are_null() {
        for id in [[7; 16], uuid("69a28e9f-2449-8b47-b030-c5da330ea4e9")] {
            assert_eq!(ask(id), (INVALID_VALUE, std::ptr::null()));
        }
    }

    #[test]
    fn null_arguments_are_refused() {
        let mut table = std::ptr::null();
        // SAFETY: each pointer is null or what it should be.
        unsafe {
            assert_eq!(cuGetExportTable(std::ptr::null_mut(), &log_sink::ID), INVALID_VALUE);
            assert_eq!(cuGetExportTable(&mut table, std::ptr::null()), INVALID_VALUE);
        }
    }

    #[test]
    fn uuids_are_in_memory_order() {
        let bytes =
            [0x6b, 0xd5, 0xfb, 0x6c, 0x5b, 0xf4, 0xe7, 0x4a, 0x89, 0x87, 0xd9, 0x39, 0x12, 0xfd, 0x9d, 0xf9];
        assert_eq!(cudart_interface::ID, bytes);
    }
}
