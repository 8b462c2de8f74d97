//! The names of the runtime surface: every symbol that libcudart.so.13 exports, and what becomes of it.
//!
//! Generated from `runtime-names.tsv` by `build.rs`. What is exported under each name is two instructions: a jump through
//! the symbol's slot of one table, with its number in a register that no argument uses. At first each slot leads to
//! `choose`, which has `selection.rs` fill the table: with this library's own functions, or, if the program has another
//! version of CUDA or the surface is switched off, with those of the program's own libcudart. A jump leaves arguments and
//! result alone, so a function need not be known to be passed on.

use super::selection;
use crate::driver::surface::Disposition;
use std::arch::naked_asm;
use std::sync::atomic::{AtomicPtr, Ordering};

/// One function of the runtime.
#[derive(Debug)]
pub struct Entry {
    /// The exported symbol, with a NUL at its end.
    pub(super) symbol: &'static std::ffi::CStr,
    /// This library's function of that name.
    pub(super) own: Address,
    /// What becomes of a call.
    pub disposition: Disposition,
    /// A remark for the coverage page.
    pub note: &'static str,
}

impl Entry {
    /// The exported symbol.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.symbol.to_str().unwrap_or_default()
    }
}

/// Where a function begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address(pub(super) *const ());

// SAFETY: the address of a function may be known to every thread.
unsafe impl Sync for Address {}

/// Makes every exported name jump to what `target` gives for it.
pub(super) fn direct(mut target: impl FnMut(&Entry) -> *const ()) {
    for (slot, entry) in SLOTS.iter().zip(&ENTRIES) {
        slot.store(target(entry).cast_mut(), Ordering::Release);
    }
}

/// Where every slot leads at first: fills the table, then goes where the slot (its number is in r11) leads now.
///
/// Argument registers are kept: rdi, rsi, rdx, rcx, r8, r9, xmm0 to xmm7 (System V ABI for x86-64, 3.2.3).
#[unsafe(naked)]
unsafe extern "C" fn choose() {
    naked_asm!(
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push r8",
        "push r9",
        "push r11",
        "sub rsp, 128",
        "movups [rsp], xmm0",
        "movups [rsp + 16], xmm1",
        "movups [rsp + 32], xmm2",
        "movups [rsp + 48], xmm3",
        "movups [rsp + 64], xmm4",
        "movups [rsp + 80], xmm5",
        "movups [rsp + 96], xmm6",
        "movups [rsp + 112], xmm7",
        "call {select}",
        "movups xmm0, [rsp]",
        "movups xmm1, [rsp + 16]",
        "movups xmm2, [rsp + 32]",
        "movups xmm3, [rsp + 48]",
        "movups xmm4, [rsp + 64]",
        "movups xmm5, [rsp + 80]",
        "movups xmm6, [rsp + 96]",
        "movups xmm7, [rsp + 112]",
        "add rsp, 128",
        "pop r11",
        "pop r9",
        "pop r8",
        "pop rcx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "lea r10, [rip + {slots}]",
        "jmp [r10 + 8*r11]",
        select = sym selection::select,
        slots = sym SLOTS,
    )
}

/// An exported name: a jump through its slot.
macro_rules! export {
    ($($symbol:ident $index:literal)*) => {$(
        /// See `cuda_runtime_api.h`.
        ///
        /// # Safety
        /// As `cuda_runtime_api.h` says; the real arguments and result are not these.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $symbol() {
            naked_asm!(
                "mov r11d, {index}",
                "jmp [rip + {slots} + 8*{index}]",
                slots = sym SLOTS,
                index = const $index,
            )
        }
    )*};
}

include!(concat!(env!("OUT_DIR"), "/runtime_surface.rs"));

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_table_has_every_name_of_cuda_13_once() {
        let names: HashSet<&str> = ENTRIES.iter().map(Entry::name).collect();
        assert_eq!((names.len(), ENTRIES.len()), (422, 422));
        assert!(ENTRIES.iter().all(|entry| !entry.name().is_empty() && !entry.own.0.is_null()));
    }

    #[test]
    fn what_pytorch_imports_is_not_refused_without_reason() {
        // Each of these is refused by the driver surface as well.
        let known = [
            "cudaDeviceGetDefaultMemPool",
            "cudaFreeAsync",
            "cudaGraphDebugDotPrint",
            "cudaGraphNodeGetDependencies",
            "cudaIpcCloseMemHandle",
            "cudaIpcGetEventHandle",
            "cudaIpcGetMemHandle",
            "cudaIpcOpenEventHandle",
            "cudaIpcOpenMemHandle",
            "cudaLaunchHostFunc",
            "cudaMallocAsync",
            "cudaMemPoolGetAttribute",
            "cudaMemPoolSetAccess",
            "cudaMemPoolSetAttribute",
            "cudaMemPoolTrimTo",
            "cudaStreamAddCallback",
        ];
        for name in include_str!("../../pytorch-imports.txt").lines() {
            let entry = ENTRIES.iter().find(|entry| entry.name() == name);
            let entry = entry.unwrap_or_else(|| panic!("{name} is not exported"));
            assert_eq!(entry.disposition == Disposition::Refused, known.contains(&name), "{name}");
        }
    }
}
