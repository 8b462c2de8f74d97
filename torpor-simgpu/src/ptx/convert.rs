//! `cvt` between all scalar types.

use super::decode::{Decoder, Opcode};
use super::error::PtxError;
use super::half::{Bf16, F16, Format, f16_to_single};
use super::instruction::{Handler, Operation, each_active, handler, lanes};
use super::real::canonical;
use super::registers::Class;
use super::rounding::{Rounding, odd, to_single};
use super::syntax::{Kind, Type};

/// Everything about a conversion, packed into an instruction's `value`.
#[derive(Clone, Copy)]
struct Conversion {
    from: Type,
    to: Type,
    rounding: Rounding,
    /// Rounds a float to an integral value of the same type.
    integral: bool,
    flush: bool,
    saturate: bool,
    relu: bool,
}

const KINDS: [Kind; 4] = [Kind::Unsigned, Kind::Signed, Kind::Float, Kind::BrainFloat];

fn type_code(kind: Type) -> i64 {
    let index = KINDS.iter().position(|&known| known == kind.kind).unwrap_or(0) as i64;
    index | i64::from(kind.bits) << 2
}

fn type_of(code: i64) -> Type {
    Type { kind: KINDS[(code & 3) as usize], bits: ((code >> 2) & 0x7f) as u32 }
}

impl Conversion {
    fn pack(self) -> i64 {
        let flags = [self.integral, self.flush, self.saturate, self.relu];
        let flags = flags.iter().enumerate().fold(0, |bits, (index, &flag)| bits | i64::from(flag) << index);
        self.rounding.code() | flags << 3 | type_code(self.from) << 8 | type_code(self.to) << 24
    }

    fn unpack(value: i64) -> Self {
        let flag = |index: u32| value & (1 << (3 + index)) != 0;
        Self {
            from: type_of(value >> 8),
            to: type_of(value >> 24),
            rounding: Rounding::of(value),
            integral: flag(0),
            flush: flag(1),
            saturate: flag(2),
            relu: flag(3),
        }
    }

    fn is_float(kind: Type) -> bool {
        matches!(kind.kind, Kind::Float | Kind::BrainFloat)
    }

    /// Converts the low bits of a register; the result is extended to 64 bits as its sign says.
    fn apply(self, bits: u64) -> u64 {
        if Self::is_float(self.from) {
            let value = self.float_value(bits);
            if Self::is_float(self.to) {
                self.float_from_float(value)
            } else {
                self.integer_from_float(value)
            }
        } else {
            let unused = 64 - self.from.bits;
            let value = if self.from.kind == Kind::Signed {
                i128::from((bits << unused).cast_signed() >> unused)
            } else {
                i128::from(bits << unused >> unused)
            };
            if Self::is_float(self.to) {
                self.float_from_integer(value)
            } else {
                self.integer_from_integer(value)
            }
        }
    }

    fn float_value(self, bits: u64) -> f64 {
        let value = match (self.from.kind, self.from.bits) {
            (Kind::BrainFloat, _) => Bf16::widen(bits as u16),
            (_, 16) => F16::widen(bits as u16),
            (_, 32) => f64::from(f32::from_bits(bits as u32)),
            _ => f64::from_bits(bits),
        };
        let subnormal = self.from.bits == 32 && value.abs() < f64::from(f32::MIN_POSITIVE);
        if self.flush && subnormal { 0f64.copysign(value) } else { value }
    }

    fn float_from_float(self, value: f64) -> u64 {
        let mut value = if self.integral { self.rounding.integral(value) } else { value };
        if self.saturate {
            value = if value > 0.0 { value.min(1.0) } else { 0.0 };
        }
        // A NaN stays one.
        if self.relu && value <= 0.0 {
            value = 0.0;
        }
        self.encode(value)
    }

    /// The bits of a value in the destination's format, rounded once.
    fn encode(self, value: f64) -> u64 {
        match (self.to.kind, self.to.bits) {
            (Kind::BrainFloat, _) => u64::from(Bf16::round(value, self.rounding)),
            (_, 16) => u64::from(F16::round(value, self.rounding)),
            (_, 32) => {
                let single = canonical(to_single(value, self.rounding));
                let single = if self.flush { super::real::flush(single) } else { single };
                u64::from(single.to_bits())
            }
            _ => value.to_bits(),
        }
    }

    fn float_from_integer(self, value: i128) -> u64 {
        let nearest = value as f64;
        let lost = (value - nearest as i128) as f64;
        if self.to.bits == 64 {
            return super::rounding::directed(nearest, lost, true, self.rounding).to_bits();
        }
        let value = odd(nearest, lost);
        let value = if self.saturate { value.clamp(0.0, 1.0) } else { value };
        self.encode(value)
    }

    /// NaN gives 0; what is too large gives the largest.
    fn integer_from_float(self, value: f64) -> u64 {
        self.clamp(self.rounding.integral(value) as i128)
    }

    fn integer_from_integer(self, value: i128) -> u64 {
        if self.saturate {
            return self.clamp(value);
        }
        let unused = 64 - self.to.bits;
        let bits = value as u64;
        if self.to.kind == Kind::Signed {
            ((bits << unused).cast_signed() >> unused).cast_unsigned()
        } else {
            bits << unused >> unused
        }
    }

    fn clamp(self, value: i128) -> u64 {
        let (low, high) = if self.to.kind == Kind::Signed {
            (-1i128 << (self.to.bits - 1), (1i128 << (self.to.bits - 1)) - 1)
        } else {
            (0, (1i128 << self.to.bits) - 1)
        };
        value.clamp(low, high) as u64
    }
}

/// The handler of any conversion between two classes of registers.
fn general(from: Class, to: Class) -> Option<Handler> {
    macro_rules! convert {
        ($from:ty, $to:ty) => {
            handler!(|warp, context, instruction, mask| {
                let conversion = Conversion::unpack(instruction.value);
                super::instruction::map_one_active(
                    &mut warp.registers,
                    instruction,
                    mask,
                    |a: $from| -> $to { conversion.apply(u64::from(a)) as $to },
                );
                Ok(())
            })
        };
    }
    Some(match (from, to) {
        (Class::B16, Class::B16) => convert!(u16, u16),
        (Class::B16, Class::B32) => convert!(u16, u32),
        (Class::B16, Class::B64) => convert!(u16, u64),
        (Class::B32, Class::B16) => convert!(u32, u16),
        (Class::B32, Class::B32) => convert!(u32, u32),
        (Class::B32, Class::B64) => convert!(u32, u64),
        (Class::B64, Class::B16) => convert!(u64, u16),
        (Class::B64, Class::B32) => convert!(u64, u32),
        (Class::B64, Class::B64) => convert!(u64, u64),
        _ => return None,
    })
}

/// The quick handlers of frequent conversions.
fn frequent(conversion: Conversion, from: Class, to: Class) -> Option<Handler> {
    let Conversion { rounding, integral, flush, saturate, relu, .. } = conversion;
    if flush || saturate || relu || from.bits() != conversion.from.bits || to.bits() != conversion.to.bits {
        return None;
    }
    let types = (conversion.from.kind, from.bits(), conversion.to.kind, to.bits());
    let nearest = rounding == Rounding::Nearest && !integral;
    let truncate = rounding == Rounding::Zero;
    Some(match types {
        (Kind::Unsigned, 32, Kind::Unsigned | Kind::Signed, 64) => lanes!(|a: u32| -> u64 { u64::from(a) }),
        (Kind::Signed, 32, Kind::Unsigned | Kind::Signed, 64) => lanes!(|a: i32| -> i64 { i64::from(a) }),
        (Kind::Unsigned | Kind::Signed, 64, Kind::Unsigned | Kind::Signed, 32) => {
            lanes!(|a: u64| -> u32 { a as u32 })
        }
        (Kind::Unsigned, 16, Kind::Unsigned | Kind::Signed, 32) => lanes!(|a: u16| -> u32 { u32::from(a) }),
        (Kind::Signed, 16, Kind::Unsigned | Kind::Signed, 32) => lanes!(|a: i16| -> i32 { i32::from(a) }),
        (Kind::Unsigned | Kind::Signed, 32, Kind::Unsigned | Kind::Signed, 16) => {
            lanes!(|a: u32| -> u16 { a as u16 })
        }
        (Kind::Signed, 32, Kind::Float, 32) if nearest => lanes!(|a: i32| -> f32 { a as f32 }),
        (Kind::Unsigned, 32, Kind::Float, 32) if nearest => lanes!(|a: u32| -> f32 { a as f32 }),
        (Kind::Signed, 32, Kind::Float, 64) if nearest => lanes!(|a: i32| -> f64 { f64::from(a) }),
        (Kind::Unsigned, 32, Kind::Float, 64) if nearest => lanes!(|a: u32| -> f64 { f64::from(a) }),
        (Kind::Float, 32, Kind::Signed, 32) if truncate => lanes!(|a: f32| -> i32 { a as i32 }),
        (Kind::Float, 32, Kind::Unsigned, 32) if truncate => lanes!(|a: f32| -> u32 { a as u32 }),
        (Kind::Float, 32, Kind::Float, 64) => lanes!(|a: f32| -> f64 { f64::from(a) }),
        (Kind::Float, 64, Kind::Float, 32) if nearest => lanes!(|a: f64| -> f32 { canonical(a as f32) }),
        (Kind::Float, 16, Kind::Float, 32) => lanes!(|a: u16| -> f32 { canonical(f16_to_single(a)) }),
        (Kind::BrainFloat, 16, Kind::Float, 32) => {
            lanes!(|a: u16| -> f32 { canonical(f32::from_bits(u32::from(a) << 16)) })
        }
        _ => return None,
    })
}

/// `cvt`.
pub(super) fn decode<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    if opcode.name == "cvt" && opcode.take("pack") {
        return Err(opcode.unsupported());
    }
    let integral = opcode.take_any(&["rni", "rzi", "rmi", "rpi"]);
    let rounding = match integral {
        Some("rni") => Some(Rounding::Nearest),
        Some("rzi") => Some(Rounding::Zero),
        Some("rmi") => Some(Rounding::Down),
        Some(_) => Some(Rounding::Up),
        None => Rounding::take(opcode),
    };
    let flush = opcode.take("ftz");
    let saturate = opcode.take("sat");
    let relu = opcode.take("relu");
    let to = opcode.take_type()?;
    let from = opcode.take_type()?;
    opcode.finish()?;
    let as_number =
        |kind: Type| if kind.kind == Kind::Bits { Type { kind: Kind::Unsigned, ..kind } } else { kind };
    let (to, from) = (as_number(to), as_number(from));
    let mut conversion = Conversion {
        from,
        to,
        rounding: rounding.unwrap_or(Rounding::Nearest),
        integral: integral.is_some(),
        flush,
        saturate,
        relu,
    };
    if let Kind::FloatPair | Kind::BrainFloatPair = to.kind {
        return pair(decoder, opcode, conversion);
    }
    if !KINDS.contains(&from.kind) || !KINDS.contains(&to.kind) || rounding == Some(Rounding::Away) {
        return Err(opcode.unsupported());
    }
    let [to_operand, from_operand] = &opcode.operands.clone()[..] else {
        return Err(opcode.operand_error("expected two operands"));
    };
    let class_of = |kind: Type| Class::for_bits(kind.bits).ok_or_else(|| opcode.unsupported());
    let destination = decoder.any_destination(opcode, to_operand, class_of(to)?)?;
    let source = decoder.any_source(opcode, from_operand, class_of(from)?)?;
    if destination.class.bits() < to.bits || source.class.bits() < from.bits {
        return Err(opcode.operand_error("the register is too narrow"));
    }
    // Between types of one float format, `.rn` without `i` does not round at all.
    if from == to && integral.is_none() {
        conversion.rounding = Rounding::Nearest;
    }
    let handler = frequent(conversion, source.class, destination.class)
        .or_else(|| general(source.class, destination.class))
        .ok_or_else(|| opcode.unsupported())?;
    let mut instruction = decoder.instruction(Operation::Run(handler));
    (instruction.d, instruction.a) = (destination.index, source.index);
    instruction.value = conversion.pack();
    decoder.emit(instruction);
    Ok(())
}

/// `cvt.rn.f16x2.f32 d, a, b`: `a` becomes the upper half.
fn pair<'a>(decoder: &mut Decoder<'a>, opcode: &Opcode<'a>, conversion: Conversion) -> Result<(), PtxError> {
    if conversion.from != (Type { kind: Kind::Float, bits: 32 }) || conversion.integral {
        return Err(opcode.unsupported());
    }
    let kind = if conversion.to.kind == Kind::FloatPair { Kind::Float } else { Kind::BrainFloat };
    let conversion = Conversion { to: Type { kind, bits: 16 }, ..conversion };
    let handler = each_active!(flags, |a: u32, b: u32| -> u32 {
        let conversion = Conversion::unpack(flags);
        (conversion.apply(u64::from(a)) << 16 | conversion.apply(u64::from(b))) as u32
    });
    decoder.emit_flagged(opcode, handler, Class::B32, &[Class::B32; 2], conversion.pack())
}
