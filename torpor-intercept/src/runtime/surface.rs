//! The names of the runtime surface: every symbol that libcudart.so.12 or libcudart.so.13 exports, and what becomes of it.
//!
//! Generated from `runtime-names.tsv` by `build.rs`. What is exported under each name is two instructions: a jump through
//! the symbol's slot of one table, with its number in a register that no argument uses. At first each slot leads to
//! `choose`, which has `selection.rs` fill the table: with this library's own functions for the program's version of CUDA, or,
//! if it has yet another version or the surface is switched off, with those of the program's own libcudart. A jump leaves
//! arguments and result alone, so a function need not be known to be passed on.

use super::selection;
use super::version::Version;
#[cfg(test)]
use crate::driver::surface::Disposition;
use std::arch::naked_asm;
use std::sync::atomic::{AtomicPtr, Ordering};

/// One function of the runtime.
#[derive(Debug)]
pub struct Entry {
    /// The exported symbol, with a NUL at its end.
    pub(super) symbol: &'static std::ffi::CStr,
    /// Whether libcudart.so.13 has it no longer.
    #[cfg(test)]
    pub(super) is_only_cuda_12: bool,
    /// As CUDA 12 has it: where it differs, the line `@12` of the table.
    pub(super) cuda_12: Answer,
    /// As CUDA 13 has it. A name that is gone from there means what it did.
    pub(super) cuda_13: Answer,
}

/// What a name is to programs for one version of CUDA.
#[derive(Debug)]
pub(super) struct Answer {
    /// This library's function.
    pub(super) own: Address,
    /// What becomes of a call.
    #[cfg(test)]
    pub(super) disposition: Disposition,
    /// A remark for the coverage page.
    #[cfg(test)]
    pub(super) note: &'static str,
}

impl Entry {
    /// The exported symbol.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.symbol.to_str().unwrap_or_default()
    }

    pub(super) fn answer(&self, version: Version) -> &Answer {
        match version {
            Version::Cuda12 => &self.cuda_12,
            Version::Cuda13 => &self.cuda_13,
        }
    }
}

/// Where a function begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    fn the_table_has_every_name_once() {
        let names: HashSet<&str> = ENTRIES.iter().map(Entry::name).collect();
        assert_eq!((names.len(), ENTRIES.len()), (452, 452));
        let gone = ENTRIES.iter().filter(|entry| entry.is_only_cuda_12);
        assert_eq!(gone.count(), 30, "CUDA 13.0 has 422");
        for entry in &ENTRIES {
            let is_somewhere = !entry.cuda_12.own.0.is_null() && !entry.cuda_13.own.0.is_null();
            assert!(!entry.name().is_empty() && is_somewhere);
        }
    }

    #[test]
    fn names_that_changed_are_not_answered_in_cuda_12_as_cuda_13_has_them() {
        // Those whose prototypes in cuda_runtime_api.h 12.9 and 13.0 differ, with their per-thread variants; before
        // them two that have no header.
        let changed = [
            "__cudaGetKernel",
            "__cudaLaunchKernel",
            "cudaGetDeviceProperties",
            "cudaGraphAddDependencies",
            "cudaGraphAddNode",
            "cudaGraphGetEdges",
            "cudaGraphNodeGetDependencies",
            "cudaGraphNodeGetDependentNodes",
            "cudaGraphRemoveDependencies",
            "cudaMemAdvise",
            "cudaMemPrefetchAsync",
            "cudaMemcpy3DBatchAsync",
            "cudaMemcpyBatchAsync",
            "cudaSignalExternalSemaphoresAsync",
            "cudaStreamGetCaptureInfo",
            "cudaStreamUpdateCaptureDependencies",
            "cudaWaitExternalSemaphoresAsync",
        ];
        for entry in &ENTRIES {
            let is_changed = changed.contains(&entry.name().trim_end_matches("_ptsz"));
            let is_refused = entry.cuda_12.disposition == Disposition::Refused;
            assert!(!is_changed || is_refused || entry.cuda_12.own != entry.cuda_13.own, "{}", entry.name());
            assert!(is_changed || entry.cuda_12.own == entry.cuda_13.own, "{}", entry.name());
        }
    }

    #[test]
    fn what_pytorch_imports_is_not_refused() {
        // What the libraries of PyTorch 2.8+cu128 and 2.11+cu130 have undefined with the version node of libcudart.
        let imports = [
            (Version::Cuda12, include_str!("../../pytorch-imports-cuda12.txt")),
            (Version::Cuda13, include_str!("../../pytorch-imports.txt")),
        ];
        for (version, names) in imports {
            for name in names.lines() {
                let entry = ENTRIES.iter().find(|entry| entry.name() == name);
                let entry = entry.unwrap_or_else(|| panic!("{name} is not exported"));
                let is_refused = entry.answer(version).disposition == Disposition::Refused;
                assert!(!is_refused, "{name} of {version:?}");
            }
        }
    }
}
