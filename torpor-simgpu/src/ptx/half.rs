//! Half-precision arithmetic: `.f16`, `.bf16` and pairs of them.

use super::decode::{Decoder, Opcode};
use super::error::PtxError;
use super::instruction::{Handler, each_active};
use super::registers::Class;
use super::rounding::{Exact, Rounding, narrow};
use super::syntax::Kind;

/// Flags in an instruction's `value`.
const SATURATE: i64 = 1;
const RELU: i64 = 2;
const FLUSH: i64 = 4;
const PROPAGATE_NAN: i64 = 8;

/// The NaN of both formats.
const CANONICAL_NAN: u16 = 0x7fff;

/// A format of 16 bits.
pub(super) trait Format {
    /// The smallest normal number's bits.
    const MIN_NORMAL: u16;
    fn widen(bits: u16) -> f64;
    fn round(value: f64, rounding: Rounding) -> u16;
}

/// IEEE half precision.
pub(super) struct F16;
/// The upper half of single precision.
pub(super) struct Bf16;

impl Format for F16 {
    const MIN_NORMAL: u16 = 0x0400;

    #[inline(always)]
    fn widen(bits: u16) -> f64 {
        f64::from(f16_to_single(bits))
    }

    fn round(value: f64, rounding: Rounding) -> u16 {
        narrow(value, 5, 10, rounding) as u16
    }
}

impl Format for Bf16 {
    const MIN_NORMAL: u16 = 0x0080;

    #[inline(always)]
    fn widen(bits: u16) -> f64 {
        f64::from(f32::from_bits(u32::from(bits) << 16))
    }

    fn round(value: f64, rounding: Rounding) -> u16 {
        narrow(value, 8, 7, rounding) as u16
    }
}

/// The value of an IEEE half, exactly.
#[inline(always)]
pub(crate) fn f16_to_single(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff);
    // Shifted into place, the value is too small by 2^112, subnormals included.
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000);
    let value = if magnitude >= 0x7c00 { f32::from_bits(0x7f80_0000 | magnitude << 13) } else { scaled };
    f32::from_bits(value.to_bits() | sign)
}

fn flush<F: Format>(flags: i64, bits: u16) -> u16 {
    if flags & FLUSH != 0 && bits & 0x7fff < F::MIN_NORMAL { bits & 0x8000 } else { bits }
}

fn is_nan<F: Format>(bits: u16) -> bool {
    F::widen(bits).is_nan()
}

/// Rounds and applies the modifiers.
fn finish<F: Format>(flags: i64, value: f64) -> u16 {
    let bits = flush::<F>(flags, F::round(value, Rounding::Nearest));
    if is_nan::<F>(bits) {
        return if flags & SATURATE != 0 { 0 } else { CANONICAL_NAN };
    }
    if flags & (SATURATE | RELU) != 0 && bits & 0x8000 != 0 {
        return 0;
    }
    if flags & SATURATE != 0 && F::widen(bits) > 1.0 { F::round(1.0, Rounding::Nearest) } else { bits }
}

fn exact<F: Format>(flags: i64, operation: Exact, operands: [u16; 3]) -> u16 {
    let [a, b, c] = operands.map(|bits| F::widen(flush::<F>(flags, bits)));
    finish::<F>(flags, operation.odd(a, b, c, Rounding::Nearest))
}

/// `min` and `max`: a NaN loses unless it is to be propagated, and -0 is smaller than +0.
fn extremum<F: Format>(flags: i64, largest: bool, a: u16, b: u16) -> u16 {
    let (a, b) = (flush::<F>(flags, a), flush::<F>(flags, b));
    match (is_nan::<F>(a), is_nan::<F>(b)) {
        (true, true) => return CANONICAL_NAN,
        (true, false) | (false, true) if flags & PROPAGATE_NAN != 0 => return CANONICAL_NAN,
        (true, false) => return b,
        (false, true) => return a,
        (false, false) => {}
    }
    // As integers, numbers of this key are ordered like the values.
    let key = |bits: u16| if bits & 0x8000 != 0 { !bits } else { bits | 0x8000 };
    if (key(a) < key(b)) == largest { b } else { a }
}

/// Applies a function to both halves of words.
fn pair(a: u32, b: u32, c: u32, function: impl Fn([u16; 3]) -> u16) -> u32 {
    let low = function([a as u16, b as u16, c as u16]);
    let high = function([a, b, c].map(|word| (word >> 16) as u16));
    u32::from(high) << 16 | u32::from(low)
}

/// Instructions on half precision.
pub(super) fn decode<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    opcode.take("approx");
    opcode.take("rn");
    let mut flags = 0;
    for (modifier, flag) in [("sat", SATURATE), ("relu", RELU), ("ftz", FLUSH), ("NaN", PROPAGATE_NAN)] {
        if opcode.take(modifier) {
            flags |= flag;
        }
    }
    let kind = opcode.take_type()?;
    let (brain, pairs) = match kind.kind {
        Kind::Float if kind.bits == 16 => (false, false),
        Kind::BrainFloat => (true, false),
        Kind::FloatPair => (false, true),
        Kind::BrainFloatPair => (true, true),
        _ => return Err(opcode.unsupported()),
    };
    let (handler, sources) = half(opcode.name, brain, pairs).ok_or_else(|| opcode.unsupported())?;
    let class = if pairs { Class::B32 } else { Class::B16 };
    decoder.emit_flagged(opcode, handler, class, &[class; 3][..sources], flags)
}

/// The handler of an instruction for a format, on single values or pairs, and how many sources it has.
fn half(name: &str, brain: bool, pairs: bool) -> Option<(Handler, usize)> {
    macro_rules! each_format {
        (|$flags:ident, $F:ident, $operands:ident| $body:expr) => {
            match (brain, pairs) {
                (false, false) => each_active!($flags, |a: u16, b: u16, c: u16| -> u16 {
                    type $F = F16;
                    let $operands = [a, b, c];
                    $body
                }),
                (true, false) => each_active!($flags, |a: u16, b: u16, c: u16| -> u16 {
                    type $F = Bf16;
                    let $operands = [a, b, c];
                    $body
                }),
                (false, true) => each_active!($flags, |a: u32, b: u32, c: u32| -> u32 {
                    type $F = F16;
                    pair(a, b, c, |$operands| $body)
                }),
                (true, true) => each_active!($flags, |a: u32, b: u32, c: u32| -> u32 {
                    type $F = Bf16;
                    pair(a, b, c, |$operands| $body)
                }),
            }
        };
    }
    Some(match name {
        "add" => (each_format!(|flags, F, operands| exact::<F>(flags, Exact::Add, operands)), 2),
        "sub" => (each_format!(|flags, F, operands| exact::<F>(flags, Exact::Subtract, operands)), 2),
        "mul" => (each_format!(|flags, F, operands| exact::<F>(flags, Exact::Multiply, operands)), 2),
        "fma" => (each_format!(|flags, F, operands| exact::<F>(flags, Exact::FusedMultiplyAdd, operands)), 3),
        "min" => {
            (each_format!(|flags, F, operands| extremum::<F>(flags, false, operands[0], operands[1])), 2)
        }
        "max" => (each_format!(|flags, F, operands| extremum::<F>(flags, true, operands[0], operands[1])), 2),
        "neg" => (each_format!(|flags, F, operands| flush::<F>(flags, operands[0]) ^ 0x8000), 1),
        "abs" => (each_format!(|flags, F, operands| flush::<F>(flags, operands[0]) & 0x7fff), 1),
        "ex2" => (each_format!(|flags, F, operands| finish::<F>(flags, F::widen(operands[0]).exp2())), 1),
        "tanh" => (each_format!(|flags, F, operands| finish::<F>(flags, F::widen(operands[0]).tanh())), 1),
        _ => return None,
    })
}
