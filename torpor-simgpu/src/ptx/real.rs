//! Single- and double-precision arithmetic, and the approximate functions.

use super::decode::{Decoder, Opcode};
use super::error::PtxError;
use super::instruction::{Handler, each_active, handler, lanes};
use super::registers::{Class, Lane};
use super::rounding::{Exact, Rounding, to_single};
use super::syntax::Kind;

/// Flags in an instruction's `value`, above the three bits of the rounding mode.
const FLUSH: i64 = 8;
const SATURATE: i64 = 16;

/// The NaN that single-precision instructions produce.
pub(super) const CANONICAL_NAN: f32 = f32::from_bits(0x7fff_ffff);

/// Replaces any NaN by the canonical one.
#[inline(always)]
pub(super) fn canonical(value: f32) -> f32 {
    // By its bits: an optimiser may take any NaN for any other, and did so for that of a square root.
    let bits = value.to_bits();
    f32::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { CANONICAL_NAN.to_bits() } else { bits })
}

/// A subnormal number becomes a zero of its sign.
#[inline(always)]
pub(super) fn flush(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits(if bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits })
}

#[inline(always)]
fn flush_if(flags: i64, value: f32) -> f32 {
    if flags & FLUSH != 0 { flush(value) } else { value }
}

/// Ends an instruction with flags: flushes, clamps to 0 to 1 (NaN gives 0), and makes NaN canonical.
#[inline(always)]
fn finish(flags: i64, value: f32) -> f32 {
    let value = flush_if(flags, value);
    if flags & SATURATE != 0 {
        return if value > 0.0 { value.min(1.0) } else { 0.0 };
    }
    canonical(value)
}

/// Any operation of IEEE arithmetic on single precision, with any mode and flags.
#[inline(always)]
fn general(flags: i64, operation: Exact, a: f32, b: f32, c: f32) -> f32 {
    let [a, b, c] = [a, b, c].map(|value| f64::from(flush_if(flags, value)));
    let rounding = Rounding::of(flags);
    finish(flags, to_single(operation.odd(a, b, c, rounding), rounding))
}

/// The smaller number: a NaN loses, and -0 is smaller than +0.
#[inline(always)]
fn minimum(a: f32, b: f32) -> f32 {
    let smaller = if a == b {
        f32::from_bits(a.to_bits() | b.to_bits())
    } else if a < b {
        a
    } else {
        b
    };
    canonical(if b.is_nan() { a } else { smaller })
}

#[inline(always)]
fn maximum(a: f32, b: f32) -> f32 {
    let larger = if a == b {
        f32::from_bits(a.to_bits() & b.to_bits())
    } else if a > b {
        a
    } else {
        b
    };
    canonical(if b.is_nan() { a } else { larger })
}

#[inline(always)]
fn minimum_double(a: f64, b: f64) -> f64 {
    let smaller = if a == b {
        f64::from_bits(a.to_bits() | b.to_bits())
    } else if a < b {
        a
    } else {
        b
    };
    if b.is_nan() { a } else { smaller }
}

#[inline(always)]
fn maximum_double(a: f64, b: f64) -> f64 {
    let larger = if a == b {
        f64::from_bits(a.to_bits() & b.to_bits())
    } else if a > b {
        a
    } else {
        b
    };
    if b.is_nan() { a } else { larger }
}

/// Instructions on `.f32` and `.f64`.
pub(super) fn decode<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    let approximate = opcode.take_any(&["approx", "full"]).is_some();
    let rounding = Rounding::take(opcode);
    let flush = opcode.take("ftz");
    let saturate = opcode.take("sat");
    let propagate = opcode.take("NaN");
    if opcode.name == "testp" {
        return test_property(decoder, opcode);
    }
    let kind = opcode.take_type()?;
    if kind.kind != Kind::Float || rounding == Some(Rounding::Away) {
        return Err(opcode.unsupported());
    }
    let rounding = rounding.unwrap_or(Rounding::Nearest);
    let flags = rounding.code() | if flush { FLUSH } else { 0 } | if saturate { SATURATE } else { 0 };
    let chosen = match kind.bits {
        32 => single(opcode.name, rounding, flush, saturate, propagate),
        64 if !saturate && !propagate => double(opcode.name, rounding, approximate),
        _ => None,
    };
    let (handler, sources) = chosen.ok_or_else(|| opcode.unsupported())?;
    let class = Class::for_bits(kind.bits).ok_or_else(|| opcode.unsupported())?;
    decoder.emit_flagged(opcode, handler, class, &[class; 3][..sources], flags)
}

/// The handler and the number of sources of an instruction on `.f32`.
fn single(
    name: &str,
    rounding: Rounding,
    flush_modifier: bool,
    saturate: bool,
    propagate: bool,
) -> Option<(Handler, usize)> {
    let plain = rounding == Rounding::Nearest && !saturate;
    Some(match (name, plain, flush_modifier) {
        ("add", true, false) => (lanes!(|a: f32, b: f32| -> f32 { canonical(a + b) }), 2),
        ("add", true, true) => (lanes!(|a: f32, b: f32| -> f32 { canonical(flush(flush(a) + flush(b))) }), 2),
        ("add", ..) => {
            (each_active!(flags, |a: f32, b: f32| -> f32 { general(flags, Exact::Add, a, b, 0.0) }), 2)
        }
        ("sub", true, false) => (lanes!(|a: f32, b: f32| -> f32 { canonical(a - b) }), 2),
        ("sub", true, true) => (lanes!(|a: f32, b: f32| -> f32 { canonical(flush(flush(a) - flush(b))) }), 2),
        ("sub", ..) => {
            (each_active!(flags, |a: f32, b: f32| -> f32 { general(flags, Exact::Subtract, a, b, 0.0) }), 2)
        }
        ("mul", true, false) => (lanes!(|a: f32, b: f32| -> f32 { canonical(a * b) }), 2),
        ("mul", true, true) => (lanes!(|a: f32, b: f32| -> f32 { canonical(flush(flush(a) * flush(b))) }), 2),
        ("mul", ..) => {
            (each_active!(flags, |a: f32, b: f32| -> f32 { general(flags, Exact::Multiply, a, b, 0.0) }), 2)
        }
        ("fma" | "mad", true, false) => {
            (lanes!(|a: f32, b: f32, c: f32| -> f32 { canonical(a.mul_add(b, c)) }), 3)
        }
        ("fma" | "mad", true, true) => (
            lanes!(|a: f32, b: f32, c: f32| -> f32 {
                canonical(flush(flush(a).mul_add(flush(b), flush(c))))
            }),
            3,
        ),
        ("fma" | "mad", ..) => (
            each_active!(flags, |a: f32, b: f32, c: f32| -> f32 {
                general(flags, Exact::FusedMultiplyAdd, a, b, c)
            }),
            3,
        ),
        ("div", true, false) => (lanes!(|a: f32, b: f32| -> f32 { canonical(a / b) }), 2),
        ("div", ..) => {
            (each_active!(flags, |a: f32, b: f32| -> f32 { general(flags, Exact::Divide, a, b, 0.0) }), 2)
        }
        ("rcp", true, false) => (lanes!(|a: f32| -> f32 { canonical(1.0 / a) }), 1),
        ("rcp", ..) => {
            (each_active!(flags, |a: f32| -> f32 { general(flags, Exact::Divide, 1.0, a, 0.0) }), 1)
        }
        ("sqrt", true, false) => (lanes!(|a: f32| -> f32 { canonical(a.sqrt()) }), 1),
        ("sqrt", ..) => {
            (each_active!(flags, |a: f32| -> f32 { general(flags, Exact::SquareRoot, a, 0.0, 0.0) }), 1)
        }
        ("rsqrt", true, _) => (
            each_active!(flags, |a: f32| -> f32 {
                finish(flags, (1.0 / f64::from(flush_if(flags, a)).sqrt()) as f32)
            }),
            1,
        ),
        ("ex2", true, _) => {
            (each_active!(flags, |a: f32| -> f32 { finish(flags, flush_if(flags, a).exp2()) }), 1)
        }
        ("lg2", true, _) => {
            (each_active!(flags, |a: f32| -> f32 { finish(flags, flush_if(flags, a).log2()) }), 1)
        }
        ("sin", true, _) => {
            (each_active!(flags, |a: f32| -> f32 { finish(flags, flush_if(flags, a).sin()) }), 1)
        }
        ("cos", true, _) => {
            (each_active!(flags, |a: f32| -> f32 { finish(flags, flush_if(flags, a).cos()) }), 1)
        }
        ("tanh", true, false) => (each_active!(flags, |a: f32| -> f32 { finish(flags, a.tanh()) }), 1),
        ("min" | "max", true, _) => (extremum(name == "max", flush_modifier, propagate), 2),
        ("neg", true, false) => (lanes!(|a: f32| -> f32 { -a }), 1),
        ("neg", true, true) => (lanes!(|a: f32| -> f32 { -flush(a) }), 1),
        ("abs", true, false) => (lanes!(|a: f32| -> f32 { a.abs() }), 1),
        ("abs", true, true) => (lanes!(|a: f32| -> f32 { flush(a).abs() }), 1),
        ("copysign", true, false) => (lanes!(|a: f32, b: f32| -> f32 { b.copysign(a) }), 2),
        _ => return None,
    })
}

fn extremum(largest: bool, flush_modifier: bool, propagate: bool) -> Handler {
    macro_rules! choose {
        ($function:ident) => {
            match (flush_modifier, propagate) {
                (false, false) => lanes!(|a: f32, b: f32| -> f32 { $function(a, b) }),
                (true, false) => lanes!(|a: f32, b: f32| -> f32 { $function(flush(a), flush(b)) }),
                (false, true) => lanes!(|a: f32, b: f32| -> f32 {
                    if a.is_nan() || b.is_nan() { CANONICAL_NAN } else { $function(a, b) }
                }),
                (true, true) => lanes!(|a: f32, b: f32| -> f32 {
                    if a.is_nan() || b.is_nan() { CANONICAL_NAN } else { $function(flush(a), flush(b)) }
                }),
            }
        };
    }
    if largest { choose!(maximum) } else { choose!(minimum) }
}

/// The handler and the number of sources of an instruction on `.f64`.
fn double(name: &str, rounding: Rounding, approximate: bool) -> Option<(Handler, usize)> {
    let nearest = rounding == Rounding::Nearest;
    macro_rules! directed {
        ($operation:expr) => {
            each_active!(flags, |a: f64, b: f64, c: f64| -> f64 {
                $operation.double(a, b, c, Rounding::of(flags))
            })
        };
    }
    Some(match (name, nearest) {
        ("add", true) => (lanes!(|a: f64, b: f64| -> f64 { a + b }), 2),
        ("sub", true) => (lanes!(|a: f64, b: f64| -> f64 { a - b }), 2),
        ("mul", true) => (lanes!(|a: f64, b: f64| -> f64 { a * b }), 2),
        ("fma" | "mad", true) => (lanes!(|a: f64, b: f64, c: f64| -> f64 { a.mul_add(b, c) }), 3),
        ("div", true) => (lanes!(|a: f64, b: f64| -> f64 { a / b }), 2),
        // The approximations give the high 32 bits only.
        ("rcp", true) if approximate => {
            (lanes!(|a: f64| -> f64 { f64::from_bits((1.0 / a).to_bits() & 0xffff_ffff_0000_0000) }), 1)
        }
        ("rsqrt", true) if approximate => (
            lanes!(|a: f64| -> f64 { f64::from_bits((1.0 / a.sqrt()).to_bits() & 0xffff_ffff_0000_0000) }),
            1,
        ),
        ("rcp", true) => (lanes!(|a: f64| -> f64 { 1.0 / a }), 1),
        ("sqrt", true) => (lanes!(|a: f64| -> f64 { a.sqrt() }), 1),
        ("min", true) => (lanes!(|a: f64, b: f64| -> f64 { minimum_double(a, b) }), 2),
        ("max", true) => (lanes!(|a: f64, b: f64| -> f64 { maximum_double(a, b) }), 2),
        ("neg", true) => (lanes!(|a: f64| -> f64 { -a }), 1),
        ("abs", true) => (lanes!(|a: f64| -> f64 { a.abs() }), 1),
        ("copysign", true) => (lanes!(|a: f64, b: f64| -> f64 { b.copysign(a) }), 2),
        ("add", false) => (directed!(Exact::Add), 2),
        ("sub", false) => (directed!(Exact::Subtract), 2),
        ("mul", false) => (directed!(Exact::Multiply), 2),
        ("fma" | "mad", false) => (directed!(Exact::FusedMultiplyAdd), 3),
        ("div", false) => (directed!(Exact::Divide), 2),
        ("sqrt", false) => (
            each_active!(flags, |a: f64| -> f64 {
                Exact::SquareRoot.double(a, 0.0, 0.0, Rounding::of(flags))
            }),
            1,
        ),
        ("rcp", false) => (
            each_active!(flags, |a: f64| -> f64 { Exact::Divide.double(1.0, a, 0.0, Rounding::of(flags)) }),
            1,
        ),
        _ => return None,
    })
}

/// `testp`.
fn test_property<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    let properties = ["finite", "infinite", "number", "notanumber", "normal", "subnormal"];
    let property = opcode.take_any(&properties).ok_or_else(|| opcode.unsupported())?;
    let kind = opcode.take_type()?;
    macro_rules! test {
        ($type:ty, $function:expr) => {
            handler!(|warp, context, instruction, mask| {
                let values = <$type>::read(&warp.registers, instruction.a);
                let bits = values.iter().enumerate();
                let result = bits.fold(0, |set, (lane, &value)| set | u32::from($function(value)) << lane);
                warp.registers.set_predicate(instruction.d, mask, result);
                Ok(())
            })
        };
    }
    macro_rules! by_property {
        ($type:ty) => {
            match property {
                "finite" => test!($type, <$type>::is_finite),
                "infinite" => test!($type, <$type>::is_infinite),
                "number" => test!($type, |value: $type| !value.is_nan()),
                "notanumber" => test!($type, <$type>::is_nan),
                "normal" => test!($type, <$type>::is_normal),
                _ => test!($type, <$type>::is_subnormal),
            }
        };
    }
    match kind.bits {
        32 => decoder.emit_simple(opcode, by_property!(f32), Class::Predicate, &[Class::B32]),
        64 => decoder.emit_simple(opcode, by_property!(f64), Class::Predicate, &[Class::B64]),
        _ => Err(opcode.unsupported()),
    }
}
