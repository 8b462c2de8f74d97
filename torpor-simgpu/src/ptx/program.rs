//! A decoded kernel: the kernel's code followed by that of every device function it can reach.

use super::instruction::Instruction;
use super::registers::{Counts, Register};
use super::special::Special;

/// Predicate register that is true in every lane: the guard of instructions without a guard.
pub(super) const ALWAYS: u32 = 0;
/// Predicate register that holds the carry flag of `add.cc` and its kin.
pub(super) const CARRY: u32 = 1;

/// A register that the code only reads, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Constant {
    /// The same bits in every lane.
    Bits(u64),
    /// A special register that cannot change while a block runs.
    Special(Special),
    /// Device address of the kernel's n-th global or function, plus an offset.
    Global(u32, i64),
}

/// Code and layout of a kernel.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) code: Vec<Instruction>,
    /// Operands of instructions that have many.
    pub(super) operands: Vec<u32>,
    pub(super) registers: Counts,
    pub(super) constants: Vec<(Register, Constant)>,
    /// Names of the module globals that the code uses, and of the functions whose addresses it takes.
    pub(super) globals: Vec<String>,
    /// Bytes of shared memory without the dynamic part, which starts there.
    pub(super) static_shared_bytes: usize,
    /// Bytes of local memory per thread, frames of device functions included.
    pub(super) local_bytes: usize,
}
