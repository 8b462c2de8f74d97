//! Decoded instructions, and the macros that turn an expression over scalars into a function over a warp.
//!
//! Every function exists twice: as the compiler's baseline gives it, and with AVX2 and fused multiply-add where the
//! machine has them. The choice is made once, when the module is parsed.

use super::error::MemoryFault;
use super::launch::Context;
use super::registers::{LANES, Lane, Registers};
use super::warp::Warp;

/// Executes an instruction in the lanes of a mask, which is not 0.
///
/// Unsafe to call only because it may use CPU features: [`handler!`] gives none that this CPU lacks.
pub(super) type Handler =
    unsafe fn(&mut Warp, &mut Context<'_>, &Instruction, u32) -> Result<(), Box<Failure>>;

/// What stopped a lane.
#[derive(Debug)]
pub(super) struct Failure {
    /// The lane.
    pub(super) lane: u32,
    pub(super) cause: Cause,
}

/// Why a lane stopped.
#[derive(Debug)]
pub(super) enum Cause {
    Memory(MemoryFault),
    Misaligned { address: u64, bytes: usize },
    Trap,
    Assertion(Box<Assertion>),
}

/// What `assert` says.
#[derive(Debug)]
pub(super) struct Assertion {
    pub(super) message: String,
    pub(super) file: String,
    pub(super) line: u32,
    pub(super) function: String,
}

/// What kind of instruction it is: the warp handles what changes its flow, functions do the rest.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operation {
    /// Computes, lane by lane.
    Run(Handler),
    /// Needs all lanes of the member mask in register `e` at the same time.
    Together(Handler),
    /// Waits for all lanes of the member mask in register `e`, at whatever instruction they wait.
    WarpBarrier,
    /// Jumps to `target`.
    Branch,
    /// Jumps to entry `a` of a list of targets.
    BranchIndexed,
    /// Calls the function at `target`.
    Call,
    /// Leaves the function; at the outermost level, the kernel.
    Return,
    /// Leaves the kernel.
    Exit,
    /// Stops the kernel with an error.
    Trap,
    /// Lets other warps run.
    Yield,
    /// Waits at barrier `a` for `b` threads, or for all.
    Barrier(BarrierKind),
}

/// What a barrier does when all have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BarrierKind {
    /// Goes on.
    Sync,
    /// Does not wait at all.
    Arrive,
    /// Counts the threads whose predicate `c` is true into register `d`.
    Count,
    /// Predicate `d`: all threads' predicate `c` is true.
    All,
    /// Predicate `d`: some thread's predicate `c` is true.
    Any,
}

/// One decoded instruction. What the operands mean is up to the operation; registers are indices into the file
/// that the operation's type implies.
#[derive(Debug, Clone)]
pub(super) struct Instruction {
    pub(super) operation: Operation,
    /// Predicate register that guards the instruction.
    pub(super) guard: u32,
    /// All ones if the guard is negated, else 0.
    pub(super) guard_invert: u32,
    /// Line in the text, from 1.
    pub(super) line: u32,
    pub(super) d: u32,
    pub(super) a: u32,
    pub(super) b: u32,
    pub(super) c: u32,
    pub(super) e: u32,
    /// Index of the instruction to jump to.
    pub(super) target: u32,
    /// Offset of an address, flags, or whatever else the operation needs.
    pub(super) value: i64,
    /// First of the operands that are in the kernel's list of operands.
    pub(super) list: u32,
    /// How many they are.
    pub(super) list_length: u32,
}

/// Whether this CPU has what the second version of every handler needs.
pub(super) fn has_wide() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// A [`Handler`] from a block over the warp, the context, the instruction and the mask.
macro_rules! handler {
    (|$warp:ident, $context:ident, $instruction:ident, $mask:ident| $body:block) => {{
        #[allow(unused_variables, reason = "most instructions need no context")]
        fn portable(
            $warp: &mut $crate::ptx::warp::Warp,
            $context: &mut $crate::ptx::launch::Context<'_>,
            $instruction: &$crate::ptx::instruction::Instruction,
            $mask: u32,
        ) -> Result<(), Box<$crate::ptx::instruction::Failure>> {
            $body
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
        #[allow(unused_variables, reason = "most instructions need no context")]
        fn wide(
            $warp: &mut $crate::ptx::warp::Warp,
            $context: &mut $crate::ptx::launch::Context<'_>,
            $instruction: &$crate::ptx::instruction::Instruction,
            $mask: u32,
        ) -> Result<(), Box<$crate::ptx::instruction::Failure>> {
            $body
        }
        #[cfg(not(target_arch = "x86_64"))]
        use portable as wide;
        let handler: $crate::ptx::instruction::Handler =
            if $crate::ptx::instruction::has_wide() { wide } else { portable };
        handler
    }};
}

/// A [`Handler`] that computes each lane of `d` from the same lane of `a`, `b`, `c`.
macro_rules! lanes {
    (|$a:ident: $A:ty| -> $D:ty $body:block) => {
        $crate::ptx::instruction::handler!(|warp, context, instruction, mask| {
            $crate::ptx::instruction::map1(&mut warp.registers, instruction, mask, |$a: $A| -> $D { $body });
            Ok(())
        })
    };
    (|$a:ident: $A:ty, $b:ident: $B:ty| -> $D:ty $body:block) => {
        $crate::ptx::instruction::handler!(|warp, context, instruction, mask| {
            $crate::ptx::instruction::map2(&mut warp.registers, instruction, mask, |$a: $A, $b: $B| -> $D {
                $body
            });
            Ok(())
        })
    };
    (|$a:ident: $A:ty, $b:ident: $B:ty, $c:ident: $C:ty| -> $D:ty $body:block) => {
        $crate::ptx::instruction::handler!(|warp, context, instruction, mask| {
            $crate::ptx::instruction::map3(
                &mut warp.registers,
                instruction,
                mask,
                |$a: $A, $b: $B, $c: $C| -> $D { $body },
            );
            Ok(())
        })
    };
}

/// As [`lanes!`], for what is too costly to compute in lanes that do not need it; `$flags` is the instruction's
/// `value`.
macro_rules! each_active {
    ($flags:ident, |$a:ident: $A:ty| -> $D:ty $body:block) => {
        $crate::ptx::instruction::each_active!($flags, |$a: $A, _b: $A, _c: $A| -> $D $body)
    };
    ($flags:ident, |$a:ident: $A:ty, $b:ident: $B:ty| -> $D:ty $body:block) => {
        $crate::ptx::instruction::each_active!($flags, |$a: $A, $b: $B, _c: $A| -> $D $body)
    };
    ($flags:ident, |$a:ident: $A:ty, $b:ident: $B:ty, $c:ident: $C:ty| -> $D:ty $body:block) => {
        $crate::ptx::instruction::handler!(|warp, context, instruction, mask| {
            let $flags = instruction.value;
            $crate::ptx::instruction::map_active(
                &mut warp.registers,
                instruction,
                mask,
                |$a: $A, $b: $B, $c: $C| -> $D { $body },
            );
            Ok(())
        })
    };
}

pub(super) use {each_active, handler, lanes};

/// Applies a function to every lane of one source.
#[inline(always)]
pub(super) fn map1<A: Lane, D: Lane>(
    registers: &mut Registers,
    instruction: &Instruction,
    mask: u32,
    function: impl Fn(A) -> D,
) {
    let a = A::read(registers, instruction.a);
    let mut d = [D::default(); LANES];
    for lane in 0..LANES {
        d[lane] = function(a[lane]);
    }
    D::write(registers, instruction.d, mask, &d);
}

/// Applies a function to every lane of two sources.
#[inline(always)]
pub(super) fn map2<A: Lane, B: Lane, D: Lane>(
    registers: &mut Registers,
    instruction: &Instruction,
    mask: u32,
    function: impl Fn(A, B) -> D,
) {
    let a = A::read(registers, instruction.a);
    let b = B::read(registers, instruction.b);
    let mut d = [D::default(); LANES];
    for lane in 0..LANES {
        d[lane] = function(a[lane], b[lane]);
    }
    D::write(registers, instruction.d, mask, &d);
}

/// Applies a function to every lane of three sources.
#[inline(always)]
pub(super) fn map3<A: Lane, B: Lane, C: Lane, D: Lane>(
    registers: &mut Registers,
    instruction: &Instruction,
    mask: u32,
    function: impl Fn(A, B, C) -> D,
) {
    let a = A::read(registers, instruction.a);
    let b = B::read(registers, instruction.b);
    let c = C::read(registers, instruction.c);
    let mut d = [D::default(); LANES];
    for lane in 0..LANES {
        d[lane] = function(a[lane], b[lane], c[lane]);
    }
    D::write(registers, instruction.d, mask, &d);
}

/// Applies a function to the lanes of `mask` only. Sources that an instruction lacks must name a register of the
/// right class all the same.
#[inline(always)]
pub(super) fn map_active<A: Lane, B: Lane, C: Lane, D: Lane>(
    registers: &mut Registers,
    instruction: &Instruction,
    mask: u32,
    function: impl Fn(A, B, C) -> D,
) {
    let a = A::read(registers, instruction.a);
    let b = B::read(registers, instruction.b);
    let c = C::read(registers, instruction.c);
    let mut d = [D::default(); LANES];
    for lane in active(mask) {
        d[lane] = function(a[lane], b[lane], c[lane]);
    }
    D::write(registers, instruction.d, mask, &d);
}

/// The lanes of a mask, ascending.
#[inline(always)]
pub(super) fn active(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let lane = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        Some(lane)
    })
}

/// Applies a function of one source to the lanes of `mask` only.
#[inline(always)]
pub(super) fn map_one_active<A: Lane, D: Lane>(
    registers: &mut Registers,
    instruction: &Instruction,
    mask: u32,
    function: impl Fn(A) -> D,
) {
    let a = A::read(registers, instruction.a);
    let mut d = [D::default(); LANES];
    for lane in active(mask) {
        d[lane] = function(a[lane]);
    }
    D::write(registers, instruction.d, mask, &d);
}
