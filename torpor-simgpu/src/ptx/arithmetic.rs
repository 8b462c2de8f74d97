//! Integer arithmetic.

use super::decode::{Decoder, Opcode};
use super::error::PtxError;
use super::instruction::{Handler, each_active, handler, lanes};
use super::program::CARRY;
use super::registers::{Class, LANES, Lane};
use super::syntax::{Kind, Type};

/// Expands an expression for the integer type that a PTX type names; nothing for other types.
macro_rules! for_integer {
    ($kind:expr, $T:ident => $handler:expr) => {{
        let kind: Type = $kind;
        match (kind.kind == Kind::Signed, kind.bits) {
            (false, 16) => {
                type $T = u16;
                Some($handler)
            }
            (false, 32) => {
                type $T = u32;
                Some($handler)
            }
            (false, 64) => {
                type $T = u64;
                Some($handler)
            }
            (true, 16) => {
                type $T = i16;
                Some($handler)
            }
            (true, 32) => {
                type $T = i32;
                Some($handler)
            }
            (true, 64) => {
                type $T = i64;
                Some($handler)
            }
            _ => None,
        }
    }};
}

pub(super) use for_integer;

/// `add`, `sub`, `mul`, `mad`, `div`, `rem`, `min`, `max`, `abs`, `neg`, `sad`, their 24-bit and carrying forms.
pub(super) fn decode<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    if matches!(opcode.name, "dp4a" | "dp2a") {
        return dot_product(decoder, opcode);
    }
    let carry_out = opcode.take("cc");
    let wide = opcode.take("wide");
    let high = opcode.take("hi");
    opcode.take("lo");
    let saturate = opcode.take("sat");
    let relu = opcode.take("relu");
    let kind = opcode.take_type()?;
    if let Kind::Float | Kind::BrainFloat | Kind::Predicate = kind.kind {
        return Err(opcode.unsupported());
    }
    let class = Class::for_bits(kind.bits).ok_or_else(|| opcode.unsupported())?;
    if carry_out || matches!(opcode.name, "addc" | "subc" | "madc") {
        return carry(decoder, opcode, kind, high, carry_out);
    }
    let (handler, sources) = match opcode.name {
        "mad" | "mad24" if wide => (wide_multiply_add(kind), 3),
        "mul" | "mul24" if wide => (wide_multiply(kind), 2),
        _ => simple(opcode.name, kind, high, saturate, relu),
    };
    let handler = handler.filter(|_| !(saturate || relu) || kind.bits == 32);
    let handler = handler.ok_or_else(|| opcode.unsupported())?;
    if !wide {
        return decoder.emit_simple(opcode, handler, class, &[class; 3][..sources]);
    }
    let double = Class::for_bits(kind.bits * 2).ok_or_else(|| opcode.unsupported())?;
    decoder.emit_simple(opcode, handler, double, &[class, class, double][..sources])
}

/// The handler of an instruction whose operands all have one type, and how many sources it has.
fn simple(name: &str, kind: Type, high: bool, saturate: bool, relu: bool) -> (Option<Handler>, usize) {
    match (name, high, saturate, relu) {
        ("add", _, false, false) => {
            (for_integer!(kind, T => lanes!(|a: T, b: T| -> T { a.wrapping_add(b) })), 2)
        }
        ("sub", _, false, false) => {
            (for_integer!(kind, T => lanes!(|a: T, b: T| -> T { a.wrapping_sub(b) })), 2)
        }
        ("add", _, true, _) => (Some(lanes!(|a: i32, b: i32| -> i32 { a.saturating_add(b) })), 2),
        ("sub", _, true, _) => (Some(lanes!(|a: i32, b: i32| -> i32 { a.saturating_sub(b) })), 2),
        ("mul", false, ..) => (for_integer!(kind, T => lanes!(|a: T, b: T| -> T { a.wrapping_mul(b) })), 2),
        ("mul", true, ..) => (for_integer!(kind, T => lanes!(|a: T, b: T| -> T { a.multiply_high(b) })), 2),
        ("mad", false, false, _) => (
            for_integer!(kind, T => lanes!(|a: T, b: T, c: T| -> T { a.wrapping_mul(b).wrapping_add(c) })),
            3,
        ),
        ("mad", true, false, _) => (
            for_integer!(kind, T => lanes!(|a: T, b: T, c: T| -> T { a.multiply_high(b).wrapping_add(c) })),
            3,
        ),
        ("mad", true, true, _) => {
            (Some(lanes!(|a: i32, b: i32, c: i32| -> i32 { a.multiply_high(b).saturating_add(c) })), 3)
        }
        ("mul24", ..) => (short_multiply(kind, high), 2),
        ("mad24", ..) => (short_multiply_add(kind, high), 3),
        // A division by zero gives all ones on a GPU, and its remainder the dividend.
        ("div", ..) => (
            for_integer!(kind, T => each_active!(_flags, |a: T, b: T| -> T {
                if b == 0 { T::MAX | T::MIN } else { a.wrapping_div(b) }
            })),
            2,
        ),
        ("rem", ..) => (
            for_integer!(kind, T => each_active!(_flags, |a: T, b: T| -> T {
                if b == 0 { a } else { a.wrapping_rem(b) }
            })),
            2,
        ),
        ("min", _, _, false) => (for_integer!(kind, T => lanes!(|a: T, b: T| -> T { a.min(b) })), 2),
        ("max", _, _, false) => (for_integer!(kind, T => lanes!(|a: T, b: T| -> T { a.max(b) })), 2),
        ("min", _, _, true) => (Some(lanes!(|a: i32, b: i32| -> i32 { a.min(b).max(0) })), 2),
        ("max", _, _, true) => (Some(lanes!(|a: i32, b: i32| -> i32 { a.max(b).max(0) })), 2),
        ("sad", ..) => (
            for_integer!(kind, T => lanes!(|a: T, b: T, c: T| -> T { c.wrapping_add(a.max(b).wrapping_sub(a.min(b))) })),
            3,
        ),
        ("neg", ..) => (for_integer!(kind, T => lanes!(|a: T| -> T { a.wrapping_neg() })), 1),
        ("abs", ..) => (absolute(kind), 1),
        _ => (None, 0),
    }
}

fn absolute(kind: Type) -> Option<Handler> {
    Some(match (kind.kind, kind.bits) {
        (Kind::Signed, 16) => lanes!(|a: i16| -> i16 { a.wrapping_abs() }),
        (Kind::Signed, 32) => lanes!(|a: i32| -> i32 { a.wrapping_abs() }),
        (Kind::Signed, 64) => lanes!(|a: i64| -> i64 { a.wrapping_abs() }),
        _ => return None,
    })
}

/// `mul.wide`.
fn wide_multiply(kind: Type) -> Option<Handler> {
    Some(match (kind.kind == Kind::Signed, kind.bits) {
        (false, 16) => lanes!(|a: u16, b: u16| -> u32 { u32::from(a) * u32::from(b) }),
        (true, 16) => lanes!(|a: i16, b: i16| -> i32 { i32::from(a) * i32::from(b) }),
        (false, 32) => lanes!(|a: u32, b: u32| -> u64 { u64::from(a) * u64::from(b) }),
        (true, 32) => lanes!(|a: i32, b: i32| -> i64 { i64::from(a) * i64::from(b) }),
        _ => return None,
    })
}

/// `mad.wide`.
fn wide_multiply_add(kind: Type) -> Option<Handler> {
    Some(match (kind.kind == Kind::Signed, kind.bits) {
        (false, 16) => {
            lanes!(|a: u16, b: u16, c: u32| -> u32 { (u32::from(a) * u32::from(b)).wrapping_add(c) })
        }
        (true, 16) => {
            lanes!(|a: i16, b: i16, c: i32| -> i32 { (i32::from(a) * i32::from(b)).wrapping_add(c) })
        }
        (false, 32) => {
            lanes!(|a: u32, b: u32, c: u64| -> u64 { (u64::from(a) * u64::from(b)).wrapping_add(c) })
        }
        (true, 32) => {
            lanes!(|a: i32, b: i32, c: i64| -> i64 { (i64::from(a) * i64::from(b)).wrapping_add(c) })
        }
        _ => return None,
    })
}

/// The product of the low 24 bits, 48 bits wide.
fn product24_unsigned(a: u32, b: u32) -> u64 {
    u64::from(a & 0xff_ffff) * u64::from(b & 0xff_ffff)
}

fn product24_signed(a: i32, b: i32) -> i64 {
    i64::from(a << 8 >> 8) * i64::from(b << 8 >> 8)
}

/// `mul24`: `.hi` gives bits 16 to 47.
fn short_multiply(kind: Type, high: bool) -> Option<Handler> {
    Some(match (kind.kind, kind.bits, high) {
        (Kind::Unsigned, 32, false) => lanes!(|a: u32, b: u32| -> u32 { product24_unsigned(a, b) as u32 }),
        (Kind::Unsigned, 32, true) => {
            lanes!(|a: u32, b: u32| -> u32 { (product24_unsigned(a, b) >> 16) as u32 })
        }
        (Kind::Signed, 32, false) => lanes!(|a: i32, b: i32| -> i32 { product24_signed(a, b) as i32 }),
        (Kind::Signed, 32, true) => lanes!(|a: i32, b: i32| -> i32 { (product24_signed(a, b) >> 16) as i32 }),
        _ => return None,
    })
}

fn short_multiply_add(kind: Type, high: bool) -> Option<Handler> {
    Some(match (kind.kind, kind.bits, high) {
        (Kind::Unsigned, 32, false) => {
            lanes!(|a: u32, b: u32, c: u32| -> u32 { (product24_unsigned(a, b) as u32).wrapping_add(c) })
        }
        (Kind::Signed, 32, false) => {
            lanes!(|a: i32, b: i32, c: i32| -> i32 { (product24_signed(a, b) as i32).wrapping_add(c) })
        }
        _ => return None,
    })
}

/// `add.cc`, `addc`, `sub.cc`, `subc`, `mad.cc`, `madc`: bit 0 of `value` says that the carry is read, bit 1 that it
/// is written, bit 2 that it is a subtraction.
fn carry<'a>(
    decoder: &mut Decoder<'a>,
    opcode: &Opcode<'a>,
    kind: Type,
    high: bool,
    carry_out: bool,
) -> Result<(), PtxError> {
    macro_rules! carrying {
        ($type:ty, |$a:ident, $b:ident, $c:ident| $first:expr, $second:expr) => {
            handler!(|warp, context, instruction, mask| {
                let [x, y, z] = [instruction.a, instruction.b, instruction.c]
                    .map(|register| <$type>::read(&warp.registers, register));
                let (reads, writes, subtracts) =
                    (instruction.value & 1 != 0, instruction.value & 2 != 0, instruction.value & 4 != 0);
                let carried = warp.registers.predicates[CARRY as usize];
                let (mut sums, mut carries) = ([0; LANES], 0);
                for lane in 0..LANES {
                    let ($a, $b, $c) = (x[lane], y[lane], z[lane]);
                    let extra = <$type>::from(reads && carried & (1 << lane) != 0);
                    let (first, second): ($type, $type) = ($first, $second);
                    let ((partial, over), (sum, over_again)) = if subtracts {
                        let partial = first.overflowing_sub(second);
                        (partial, partial.0.overflowing_sub(extra))
                    } else {
                        let partial = first.overflowing_add(second);
                        (partial, partial.0.overflowing_add(extra))
                    };
                    let _ = partial;
                    sums[lane] = sum;
                    carries |= u32::from(over || over_again) << lane;
                }
                <$type>::write(&mut warp.registers, instruction.d, mask, &sums);
                if writes {
                    warp.registers.set_predicate(CARRY, mask, carries);
                }
                Ok(())
            })
        };
    }
    let multiply = opcode.name.starts_with("mad");
    let signed = kind.kind == Kind::Signed;
    let handler = match (multiply, kind.bits, high, signed) {
        (false, 32, ..) => carrying!(u32, |a, b, _c| a, b),
        (false, 64, ..) => carrying!(u64, |a, b, _c| a, b),
        (true, 32, false, _) => carrying!(u32, |a, b, c| a.wrapping_mul(b), c),
        (true, 64, false, _) => carrying!(u64, |a, b, c| a.wrapping_mul(b), c),
        (true, 32, true, false) => carrying!(u32, |a, b, c| a.multiply_high(b), c),
        (true, 64, true, false) => carrying!(u64, |a, b, c| a.multiply_high(b), c),
        (true, 32, true, true) => {
            carrying!(u32, |a, b, c| (a as i32).multiply_high(b as i32).cast_unsigned(), c)
        }
        (true, 64, true, true) => {
            carrying!(u64, |a, b, c| (a as i64).multiply_high(b as i64).cast_unsigned(), c)
        }
        _ => return Err(opcode.unsupported()),
    };
    let class = Class::for_bits(kind.bits).ok_or_else(|| opcode.unsupported())?;
    let flags = i64::from(opcode.name.ends_with('c'))
        | i64::from(carry_out) << 1
        | i64::from(opcode.name.starts_with("sub")) << 2;
    decoder.emit_flagged(opcode, handler, class, &[class; 3][..if multiply { 3 } else { 2 }], flags)
}

/// `dp4a` and `dp2a`: dot products of bytes, added to an accumulator.
fn dot_product<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    // Bit 0: bytes of `a` are signed; bit 1: those of `b`; bit 2: the high half of `b` (dp2a).
    let two = opcode.name == "dp2a";
    let high = opcode.take("hi");
    opcode.take("lo");
    let (a, b) = (opcode.take_type()?, opcode.take_type()?);
    let flags =
        i64::from(a.kind == Kind::Signed) | i64::from(b.kind == Kind::Signed) << 1 | i64::from(high) << 2;
    let handler = if two {
        each_active!(flags, |a: u32, b: u32, c: u32| -> u32 {
            let bytes = if flags & 4 != 0 { b >> 16 } else { b };
            (0..2).fold(c, |sum, index| {
                let half = (a >> (16 * index)) as u16;
                let half = if flags & 1 != 0 { i32::from(half.cast_signed()) } else { i32::from(half) };
                sum.wrapping_add(half.wrapping_mul(byte(bytes, index, flags & 2 != 0)).cast_unsigned())
            })
        })
    } else {
        each_active!(flags, |a: u32, b: u32, c: u32| -> u32 {
            (0..4).fold(c, |sum, index| {
                let product = byte(a, index, flags & 1 != 0).wrapping_mul(byte(b, index, flags & 2 != 0));
                sum.wrapping_add(product.cast_unsigned())
            })
        })
    };
    decoder.emit_flagged(opcode, handler, Class::B32, &[Class::B32; 3], flags)
}

fn byte(word: u32, index: u32, signed: bool) -> i32 {
    let byte = (word >> (8 * index)) as u8;
    if signed { i32::from(byte.cast_signed()) } else { i32::from(byte) }
}

/// The high half of a product.
trait MultiplyHigh {
    fn multiply_high(self, other: Self) -> Self;
}

macro_rules! multiply_high {
    ($($type:ty: $double:ty),*) => {$(
        impl MultiplyHigh for $type {
            #[inline(always)]
            fn multiply_high(self, other: Self) -> Self {
                ((<$double>::from(self) * <$double>::from(other)) >> Self::BITS) as Self
            }
        }
    )*};
}

multiply_high!(u16: u32, i16: i32, u32: u64, i32: i64, u64: u128, i64: i128);
