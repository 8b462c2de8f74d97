//! Comparisons and selections.

use super::decode::{Decoder, Opcode};
use super::error::PtxError;
use super::half::{Bf16, F16, Format};
use super::instruction::{Handler, Operation, handler, lanes};
use super::program::ALWAYS;
use super::real::flush;
use super::registers::{Class, LANES, Lane};
use super::syntax::{Kind, Operand, Type};

/// How two values relate, as a set: which relations make a comparison true.
const LESS: u32 = 1;
const EQUAL: u32 = 2;
const GREATER: u32 = 4;
const UNORDERED: u32 = 8;

/// In `value`: the relations, then how to combine with predicate `c`, then whether that is negated.
const COMBINE_SHIFT: u32 = 4;
const NEGATE: i64 = 1 << 6;

/// The relations that an operator accepts.
fn relations(operator: &str) -> Option<u32> {
    Some(match operator {
        "eq" => EQUAL,
        "ne" => LESS | GREATER,
        "lt" | "lo" => LESS,
        "le" | "ls" => LESS | EQUAL,
        "gt" | "hi" => GREATER,
        "ge" | "hs" => GREATER | EQUAL,
        "equ" => EQUAL | UNORDERED,
        "neu" => LESS | GREATER | UNORDERED,
        "ltu" => LESS | UNORDERED,
        "leu" => LESS | EQUAL | UNORDERED,
        "gtu" => GREATER | UNORDERED,
        "geu" => GREATER | EQUAL | UNORDERED,
        "num" => LESS | EQUAL | GREATER,
        "nan" => UNORDERED,
        _ => return None,
    })
}

const OPERATORS: [&str; 18] = [
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu",
    "num", "nan",
];

/// One bit per lane: whether the relation of `a` and `b` is in the set.
#[inline(always)]
fn compare<T: Copy, V: PartialOrd>(a: &[T; LANES], b: &[T; LANES], set: u32, value: impl Fn(T) -> V) -> u32 {
    let bits: [u32; LANES] = std::array::from_fn(|lane| {
        let (a, b) = (value(a[lane]), value(b[lane]));
        let relation =
            if a < b { LESS } else { 0 } | if a == b { EQUAL } else { 0 } | if a > b { GREATER } else { 0 };
        let relation = if relation == 0 { UNORDERED } else { relation };
        if relation & set != 0 { 1 << lane } else { 0 }
    });
    bits.iter().fold(0, |mask, bit| mask | bit)
}

/// Combines with a predicate as `.and`, `.or` or `.xor` says.
#[inline(always)]
fn combine(value: i64, result: u32, predicate: u32) -> u32 {
    let predicate = if value & NEGATE != 0 { !predicate } else { predicate };
    match (value >> COMBINE_SHIFT) & 3 {
        0 => result,
        1 => result & predicate,
        2 => result | predicate,
        _ => result ^ predicate,
    }
}

/// Expands a handler from how a type's comparison is evaluated.
macro_rules! by_type {
    ($kind:expr, $flush:expr, $make:ident) => {
        match ($kind.kind, $kind.bits, $flush) {
            (Kind::Float, 32, false) => Some($make!(f32, |value| value)),
            (Kind::Float, 32, true) => Some($make!(f32, |value| flush(value))),
            (Kind::Float, 64, false) => Some($make!(f64, |value| value)),
            (Kind::Float, 16, false) => Some($make!(u16, |value| F16::widen(value))),
            (Kind::BrainFloat, 16, false) => Some($make!(u16, |value| Bf16::widen(value))),
            (Kind::Signed, 16, false) => Some($make!(i16, |value| value)),
            (Kind::Signed, 32, false) => Some($make!(i32, |value| value)),
            (Kind::Signed, 64, false) => Some($make!(i64, |value| value)),
            (Kind::Unsigned | Kind::Bits, 16, false) => Some($make!(u16, |value| value)),
            (Kind::Unsigned | Kind::Bits, 32, false) => Some($make!(u32, |value| value)),
            (Kind::Unsigned | Kind::Bits, 64, false) => Some($make!(u64, |value| value)),
            _ => None,
        }
    };
}

/// `setp`: predicate `d` gets the result and predicate `e` its opposite, each combined with `c`.
fn set_predicate(kind: Type, flush_modifier: bool) -> Option<Handler> {
    macro_rules! make {
        ($type:ty, |$value:ident| $key:expr) => {
            handler!(|warp, context, instruction, mask| {
                let a = <$type>::read(&warp.registers, instruction.a);
                let b = <$type>::read(&warp.registers, instruction.b);
                let result = compare(&a, &b, instruction.value as u32, |$value| $key);
                let predicate = warp.registers.predicates[instruction.c as usize];
                let value = instruction.value;
                warp.registers.set_predicate(instruction.d, mask, combine(value, result, predicate));
                warp.registers.set_predicate(instruction.e, mask, combine(value, !result, predicate));
                Ok(())
            })
        };
    }
    by_type!(kind, flush_modifier, make)
}

/// `set`: `d` gets the constant in register `e` of its own class where the comparison holds, and 0 elsewhere.
fn set(kind: Type, flush_modifier: bool, class: Class) -> Option<Handler> {
    macro_rules! make {
        ($type:ty, |$value:ident| $key:expr) => {
            if class == Class::B32 {
                make!(@ $type, |$value| $key, u32)
            } else {
                make!(@ $type, |$value| $key, u16)
            }
        };
        (@ $type:ty, |$value:ident| $key:expr, $result:ty) => {
            handler!(|warp, context, instruction, mask| {
                let a = <$type>::read(&warp.registers, instruction.a);
                let b = <$type>::read(&warp.registers, instruction.b);
                let result = compare(&a, &b, instruction.value as u32, |$value| $key);
                let predicate = warp.registers.predicates[instruction.c as usize];
                let result = combine(instruction.value, result, predicate);
                let one = <$result>::read(&warp.registers, instruction.e);
                let values = std::array::from_fn(|lane| if result & (1 << lane) != 0 { one[lane] } else { 0 });
                <$result>::write(&mut warp.registers, instruction.d, mask, &values);
                Ok(())
            })
        };
    }
    by_type!(kind, flush_modifier, make)
}

/// `selp`: `a` where predicate `c` is true, else `b`.
fn select(class: Class) -> Option<Handler> {
    macro_rules! make {
        ($type:ty) => {
            handler!(|warp, context, instruction, mask| {
                let predicate = warp.registers.predicates[instruction.c as usize];
                let a = <$type>::read(&warp.registers, instruction.a);
                let b = <$type>::read(&warp.registers, instruction.b);
                let values =
                    std::array::from_fn(|lane| if predicate & (1 << lane) != 0 { a[lane] } else { b[lane] });
                <$type>::write(&mut warp.registers, instruction.d, mask, &values);
                Ok(())
            })
        };
    }
    Some(match class {
        Class::B16 => make!(u16),
        Class::B32 => make!(u32),
        Class::B64 => make!(u64),
        Class::Predicate => return None,
    })
}

/// `slct`: `a` where `c` is not negative, else `b`.
fn select_by_sign(class: Class, float: bool, flush_modifier: bool) -> Option<Handler> {
    macro_rules! make {
        ($type:ty) => {
            match (float, flush_modifier) {
                (false, _) => lanes!(|a: $type, b: $type, c: i32| -> $type { if c >= 0 { a } else { b } }),
                (true, false) => {
                    lanes!(|a: $type, b: $type, c: f32| -> $type { if c >= 0.0 { a } else { b } })
                }
                (true, true) => {
                    lanes!(|a: $type, b: $type, c: f32| -> $type { if flush(c) >= 0.0 { a } else { b } })
                }
            }
        };
    }
    Some(match class {
        Class::B16 => make!(u16),
        Class::B32 => make!(u32),
        Class::B64 => make!(u64),
        Class::Predicate => return None,
    })
}

/// `setp`, `set`, `selp`, `slct`.
pub(super) fn decode<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    match opcode.name {
        "selp" => {
            let kind = opcode.take_type()?;
            let class = Class::for_bits(kind.bits).ok_or_else(|| opcode.unsupported())?;
            let handler = select(class).ok_or_else(|| opcode.unsupported())?;
            decoder.emit_simple(opcode, handler, class, &[class, class, Class::Predicate])
        }
        "slct" => {
            let flush_modifier = opcode.take("ftz");
            let kind = opcode.take_type()?;
            let sign = opcode.take_type()?;
            let class = Class::for_bits(kind.bits).ok_or_else(|| opcode.unsupported())?;
            let handler = select_by_sign(class, sign.kind == Kind::Float, flush_modifier)
                .filter(|_| sign.bits == 32)
                .ok_or_else(|| opcode.unsupported())?;
            decoder.emit_simple(opcode, handler, class, &[class, class, Class::B32])
        }
        _ => comparison(decoder, opcode),
    }
}

fn comparison<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    let operator = opcode.take_any(&OPERATORS).ok_or_else(|| opcode.unsupported())?;
    let set_bits = relations(operator).ok_or_else(|| opcode.unsupported())?;
    let flush_modifier = opcode.take("ftz");
    let combination = match opcode.take_any(&["and", "or", "xor"]) {
        None => 0,
        Some("and") => 1,
        Some("or") => 2,
        Some(_) => 3,
    };
    let result = if opcode.name == "set" { Some(opcode.take_type()?) } else { None };
    let mut kind = opcode.take_type()?;
    if matches!(operator, "lo" | "ls" | "hi" | "hs") {
        kind.kind = Kind::Unsigned;
    }
    opcode.finish()?;
    let class = Class::for_bits(kind.bits).ok_or_else(|| opcode.unsupported())?;
    let handler = match result {
        None => set_predicate(kind, flush_modifier),
        Some(result) => {
            let class = Class::for_bits(result.bits).filter(|class| matches!(class, Class::B16 | Class::B32));
            class.and_then(|class| set(kind, flush_modifier, class))
        }
    };
    let mut instruction = decoder.instruction(Operation::Run(handler.ok_or_else(|| opcode.unsupported())?));
    instruction.value = i64::from(set_bits) | combination << COMBINE_SHIFT;
    match result {
        None => {
            let (first, second) = match opcode.operands.first() {
                Some(&Operand::Pair(first, second)) => (Operand::Name(first), Operand::Name(second)),
                Some(first) => (first.clone(), Operand::Name("_")),
                None => return Err(opcode.operand_error("no destination")),
            };
            for (operand, slot) in [(&first, &mut instruction.d), (&second, &mut instruction.e)] {
                let register = decoder.any_destination(opcode, operand, Class::Predicate)?;
                if register.class != Class::Predicate {
                    return Err(opcode.operand_error("the destination must be a predicate"));
                }
                *slot = register.index;
            }
        }
        Some(result) => {
            let class = Class::for_bits(result.bits).ok_or_else(|| opcode.unsupported())?;
            let one = match (result.kind, result.bits) {
                (Kind::Float, 32) => u64::from(1f32.to_bits()),
                (Kind::Float, 16) => 0x3c00,
                (Kind::BrainFloat, 16) => 0x3f80,
                (Kind::Unsigned | Kind::Signed, bits) => (1 << bits) - 1,
                _ => return Err(opcode.unsupported()),
            };
            instruction.d = decoder.destination(opcode, 0, class)?;
            instruction.e = decoder.bits(class, one);
        }
    }
    instruction.a = decoder.source(opcode, 1, class)?;
    instruction.b = decoder.source(opcode, 2, class)?;
    instruction.c = ALWAYS;
    if combination != 0 {
        let (predicate, negated) = decoder.predicate(opcode, 3)?;
        instruction.c = predicate;
        instruction.value |= if negated { NEGATE } else { 0 };
    }
    if opcode.operands.len() != if combination != 0 { 4 } else { 3 } {
        return Err(opcode.operand_error("wrong number of operands"));
    }
    decoder.emit(instruction);
    Ok(())
}
