//! What can go wrong when a module is parsed and when a kernel runs.

use super::space::Access;

/// Why PTX text was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PtxError {
    /// The text does not follow the grammar.
    #[error("PTX line {line}: {message}")]
    Syntax {
        /// Line in the text, from 1.
        line: u32,
        /// What was expected and what was found.
        message: String,
    },
    /// The interpreter lacks this instruction, modifier or directive.
    #[error(
        "PTX line {line}: the simulated GPU has no `{what}`; see \"how to add an instruction\" in docs/simulated-gpu.md"
    )]
    Unsupported {
        /// Line in the text, from 1.
        line: u32,
        /// The instruction with all its modifiers, or the directive.
        what: String,
    },
    /// An operand does not fit its instruction.
    #[error("PTX line {line}: `{instruction}`: {message}")]
    Operand {
        /// Line in the text, from 1.
        line: u32,
        /// The instruction with all its modifiers.
        instruction: String,
        /// What is wrong with the operand.
        message: String,
    },
    /// A name is used and declared nowhere in the module.
    #[error("PTX line {line}: `{name}` is declared nowhere in this module")]
    UnknownName {
        /// Line in the text, from 1.
        line: u32,
        /// The name.
        name: String,
    },
    /// A function is called that is declared, and that no text that is linked defines.
    #[error("PTX line {line}: `{name}` is only declared: link it with what defines it before loading")]
    Undefined {
        /// Line of the call, from 1.
        line: u32,
        /// The name.
        name: String,
    },
    /// Two texts that are linked define one name.
    #[error("PTX line {line}: `{name}` is defined in another of the linked texts, too")]
    Duplicate {
        /// Line in the later text, from 1.
        line: u32,
        /// The name.
        name: String,
    },
    /// A function calls itself, directly or through others.
    #[error("function `{name}` is recursive: the simulated GPU gives each function one frame per thread")]
    Recursion {
        /// The function.
        name: String,
    },
}

/// The thread and the line at which a kernel failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Index of the instruction in the decoded kernel.
    pub pc: u32,
    /// Line in the PTX text, from 1.
    pub line: u32,
    /// Block index.
    pub block: [u32; 3],
    /// Thread index in the block.
    pub thread: [u32; 3],
}

impl std::fmt::Display for Position {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { line, block, thread, .. } = self;
        write!(formatter, "PTX line {line}, block {block:?}, thread {thread:?}")
    }
}

/// An access that device memory refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{access:?} of {bytes} bytes at {address:#x}: {reason}")]
pub struct MemoryFault {
    /// Device address of the access.
    pub address: u64,
    /// Bytes accessed.
    pub bytes: usize,
    /// What was tried.
    pub access: Access,
    /// Why it was refused, such as "outside any allocation".
    pub reason: &'static str,
}

/// Why a kernel stopped before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelFault {
    /// An access outside the memory that the kernel may use (CUDA: illegal address).
    #[error("kernel `{kernel}`: {fault} ({position})")]
    Memory {
        /// The kernel.
        kernel: String,
        /// The access.
        fault: MemoryFault,
        /// Where.
        position: Position,
    },
    /// An address that is not a multiple of the access size (CUDA: misaligned address).
    #[error("kernel `{kernel}`: access of {bytes} bytes at misaligned address {address:#x} ({position})")]
    Misaligned {
        /// The kernel.
        kernel: String,
        /// The address.
        address: u64,
        /// Bytes accessed.
        bytes: usize,
        /// Where.
        position: Position,
    },
    /// An `assert` of the kernel failed.
    #[error("kernel `{kernel}`: {text}")]
    Assertion {
        /// The kernel.
        kernel: String,
        /// What CUDA prints.
        text: String,
    },
    /// The kernel executed `trap` (CUDA: illegal instruction).
    #[error("kernel `{kernel}`: trap ({position})")]
    Trap {
        /// The kernel.
        kernel: String,
        /// Where.
        position: Position,
    },
    /// Every thread that is left waits at a barrier or a warp operation that can never complete.
    #[error("kernel `{kernel}`: threads wait for each other for ever ({position})")]
    Deadlock {
        /// The kernel.
        kernel: String,
        /// One thread that waits.
        position: Position,
    },
    /// [`Launch::cancel`](super::Launch::cancel) was set.
    #[error("kernel `{kernel}`: cancelled")]
    Cancelled {
        /// The kernel.
        kernel: String,
    },
    /// The launch does not fit the kernel.
    #[error("kernel `{kernel}`: {reason}")]
    InvalidLaunch {
        /// The kernel.
        kernel: String,
        /// What is wrong.
        reason: String,
    },
    /// [`Launch::globals`](super::Launch::globals) knows no address for a symbol that the kernel uses.
    #[error("kernel `{kernel}`: no device address for module global `{symbol}`")]
    UnknownGlobal {
        /// The kernel.
        kernel: String,
        /// The symbol.
        symbol: String,
    },
}
