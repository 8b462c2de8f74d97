//! `atom` and `red`.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::address::{Accesses, Place, Word};
use super::decode::{Decoder, Opcode};
use super::error::PtxError;
use super::half::{Bf16, F16, Format};
use super::instruction::{Failure, Handler, Instruction, Operation, active, handler};
use super::launch::Context;
use super::memory::{ignore_order, read, space_of, take_space, write};
use super::real::canonical;
use super::registers::{Class, LANES, Lane};
use super::rounding::{Exact, Rounding};
use super::space::Access;
use super::syntax::{Kind, Type};
use super::warp::Warp;

/// A word that can be replaced atomically.
trait AtomicWord: Word + Lane + PartialEq {
    /// Replaces the word at `host` by a function of it; the old word.
    ///
    /// # Safety
    /// `host` is valid for atomic access of the type and aligned for it.
    unsafe fn update(host: std::ptr::NonNull<u8>, function: impl Fn(Self) -> Self) -> Self;
}

macro_rules! atomic_word {
    ($type:ty, $atomic:ty) => {
        impl AtomicWord for $type {
            #[inline(always)]
            unsafe fn update(host: std::ptr::NonNull<u8>, function: impl Fn(Self) -> Self) -> Self {
                // SAFETY: the caller's promise.
                let word = unsafe { <$atomic>::from_ptr(host.as_ptr().cast()) };
                let mut old = word.load(Ordering::Relaxed);
                loop {
                    match word.compare_exchange_weak(old, function(old), Ordering::AcqRel, Ordering::Relaxed)
                    {
                        Ok(old) => return old,
                        Err(found) => old = found,
                    }
                }
            }
        }
    };
}

atomic_word!(u16, AtomicU16);
atomic_word!(u32, AtomicU32);
atomic_word!(u64, AtomicU64);

/// Updates each lane's word in turn; operands are in register `c` and in the first register of the list.
#[inline(always)]
fn update<T: AtomicWord>(
    warp: &mut Warp,
    context: &mut Context<'_>,
    instruction: &Instruction,
    mask: u32,
    function: impl Fn(T, T, T) -> T,
) -> Result<(), Box<Failure>> {
    let operand = T::read(&warp.registers, instruction.c);
    let extra = T::read(&warp.registers, context.program.operands[instruction.list as usize]);
    let mut accesses = Accesses::new(&warp.registers, instruction, mask, T::BYTES, Access::Atomic);
    let mut old = [T::default(); LANES];
    for lane in active(mask) {
        let place = accesses
            .place(context, warp.local.len(), lane)
            .map_err(|cause| Box::new(Failure { lane: lane as u32, cause }))?;
        let next = |old| function(old, operand[lane], extra[lane]);
        old[lane] = match place {
            // SAFETY: `place` has checked alignment and asked `DeviceMemory` for the word, which stays valid until
            // the launch returns.
            Place::Host(host) => unsafe { T::update(host, next) },
            place => {
                let old = read::<T>(warp, context, place, 0);
                write(warp, context, place, 0, next(old));
                old
            }
        };
    }
    T::write(&mut warp.registers, instruction.d, mask, &old);
    Ok(())
}

/// Adds both halves of words in a format.
fn add_pairs<F: Format>(a: u32, b: u32) -> u32 {
    let add = |a: u16, b: u16| u32::from(add_half::<F>(a, b));
    add((a >> 16) as u16, (b >> 16) as u16) << 16 | add(a as u16, b as u16)
}

fn add_half<F: Format>(a: u16, b: u16) -> u16 {
    let sum = Exact::Add.odd(F::widen(a), F::widen(b), 0.0, Rounding::Nearest);
    F::round(sum, Rounding::Nearest)
}

/// The handler of an operation on a type.
fn operation(name: &str, kind: Type) -> Option<Handler> {
    macro_rules! atomic {
        ($type:ty, |$old:ident, $b:ident, $c:ident| $next:expr) => {
            handler!(|warp, context, instruction, mask| {
                update::<$type>(warp, context, instruction, mask, |$old, $b, $c| $next)
            })
        };
    }
    Some(match (name, kind.kind, kind.bits) {
        ("add", Kind::Unsigned | Kind::Signed, 32) => atomic!(u32, |old, b, _c| old.wrapping_add(b)),
        ("add", Kind::Unsigned | Kind::Signed, 64) => atomic!(u64, |old, b, _c| old.wrapping_add(b)),
        ("add", Kind::Float, 32) => {
            atomic!(u32, |old, b, _c| canonical(f32::from_bits(old) + f32::from_bits(b)).to_bits())
        }
        ("add", Kind::Float, 64) => {
            atomic!(u64, |old, b, _c| (f64::from_bits(old) + f64::from_bits(b)).to_bits())
        }
        ("add", Kind::Float, 16) => atomic!(u16, |old, b, _c| add_half::<F16>(old, b)),
        ("add", Kind::BrainFloat, 16) => atomic!(u16, |old, b, _c| add_half::<Bf16>(old, b)),
        ("add", Kind::FloatPair, 32) => atomic!(u32, |old, b, _c| add_pairs::<F16>(old, b)),
        ("add", Kind::BrainFloatPair, 32) => atomic!(u32, |old, b, _c| add_pairs::<Bf16>(old, b)),
        ("min", Kind::Unsigned, 32) => atomic!(u32, |old, b, _c| old.min(b)),
        ("min", Kind::Unsigned, 64) => atomic!(u64, |old, b, _c| old.min(b)),
        ("min", Kind::Signed, 32) => atomic!(u32, |old, b, _c| (old as i32).min(b as i32).cast_unsigned()),
        ("min", Kind::Signed, 64) => atomic!(u64, |old, b, _c| (old as i64).min(b as i64).cast_unsigned()),
        ("max", Kind::Unsigned, 32) => atomic!(u32, |old, b, _c| old.max(b)),
        ("max", Kind::Unsigned, 64) => atomic!(u64, |old, b, _c| old.max(b)),
        ("max", Kind::Signed, 32) => atomic!(u32, |old, b, _c| (old as i32).max(b as i32).cast_unsigned()),
        ("max", Kind::Signed, 64) => atomic!(u64, |old, b, _c| (old as i64).max(b as i64).cast_unsigned()),
        ("inc", Kind::Unsigned, 32) => atomic!(u32, |old, b, _c| if old >= b { 0 } else { old + 1 }),
        ("dec", Kind::Unsigned, 32) => {
            atomic!(u32, |old, b, _c| if old == 0 || old > b { b } else { old - 1 })
        }
        ("and", Kind::Bits, 32) => atomic!(u32, |old, b, _c| old & b),
        ("and", Kind::Bits, 64) => atomic!(u64, |old, b, _c| old & b),
        ("or", Kind::Bits, 32) => atomic!(u32, |old, b, _c| old | b),
        ("or", Kind::Bits, 64) => atomic!(u64, |old, b, _c| old | b),
        ("xor", Kind::Bits, 32) => atomic!(u32, |old, b, _c| old ^ b),
        ("xor", Kind::Bits, 64) => atomic!(u64, |old, b, _c| old ^ b),
        ("exch", Kind::Bits, 32) => atomic!(u32, |_old, b, _c| b),
        ("exch", Kind::Bits, 64) => atomic!(u64, |_old, b, _c| b),
        ("cas", Kind::Bits, 16) => atomic!(u16, |old, b, c| if old == b { c } else { old }),
        ("cas", Kind::Bits, 32) => atomic!(u32, |old, b, c| if old == b { c } else { old }),
        ("cas", Kind::Bits, 64) => atomic!(u64, |old, b, c| if old == b { c } else { old }),
        _ => return None,
    })
}

/// `atom` and `red`.
pub(super) fn decode<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    let returns = opcode.name == "atom";
    ignore_order(opcode);
    opcode.take("async");
    let space = take_space(opcode)?;
    let names = ["add", "min", "max", "inc", "dec", "and", "or", "xor", "exch", "cas"];
    let name = opcode.take_any(&names).ok_or_else(|| opcode.unsupported())?;
    let kind = opcode.take_type()?;
    opcode.finish()?;
    let handler = operation(name, kind).ok_or_else(|| opcode.unsupported())?;
    let class = Class::for_bits(kind.bits).ok_or_else(|| opcode.unsupported())?;
    let at = usize::from(returns);
    let address = decoder.address(opcode, at)?;
    let mut instruction = decoder.instruction(Operation::Run(handler));
    instruction.d = if returns { decoder.destination(opcode, 0, class)? } else { decoder.scratch(class) };
    instruction.a = address.base.index;
    instruction.b = u32::from(address.base.class == Class::B64);
    instruction.value = address.offset;
    instruction.e = space_of(decoder, space, &address).code();
    instruction.c = decoder.source(opcode, at + 1, class)?;
    let extra = if name == "cas" { decoder.source(opcode, at + 2, class)? } else { instruction.c };
    instruction.list = decoder.program.operands.len() as u32;
    instruction.list_length = 1;
    decoder.program.operands.push(extra);
    decoder.emit(instruction);
    Ok(())
}
