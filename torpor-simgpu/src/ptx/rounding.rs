//! Correct rounding in every mode of the PTX manual.
//!
//! Results for formats narrower than 64 bits are computed in `f64`, rounded *to odd* (an inexact result gets its last
//! bit set), and then rounded once more: with the two or more bits to spare that `f64` has, the result is the one
//! that a single rounding of the exact value gives.

use super::decode::Opcode;

/// A rounding mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    /// To nearest, ties to even.
    Nearest,
    /// Toward zero.
    Zero,
    /// Toward minus infinity.
    Down,
    /// Toward plus infinity.
    Up,
    /// To nearest, ties away from zero.
    Away,
}

impl Rounding {
    /// Takes a `.rn`-like modifier; nothing if there is none.
    pub(super) fn take(opcode: &mut Opcode<'_>) -> Option<Self> {
        Some(match opcode.take_any(&["rn", "rz", "rm", "rp", "rna"])? {
            "rn" => Self::Nearest,
            "rz" => Self::Zero,
            "rm" => Self::Down,
            "rp" => Self::Up,
            _ => Self::Away,
        })
    }

    pub(super) fn code(self) -> i64 {
        self as i64
    }

    /// The mode of a code from [`code`](Self::code), in the low three bits.
    pub(super) fn of(code: i64) -> Self {
        match code & 7 {
            0 => Self::Nearest,
            1 => Self::Zero,
            2 => Self::Down,
            3 => Self::Up,
            _ => Self::Away,
        }
    }

    /// Rounds to an integral value.
    pub(super) fn integral(self, value: f64) -> f64 {
        match self {
            Self::Nearest => value.round_ties_even(),
            Self::Zero => value.trunc(),
            Self::Down => value.floor(),
            Self::Up => value.ceil(),
            Self::Away => value.round(),
        }
    }
}

/// The sum rounded to nearest, and exactly what rounding lost.
pub(super) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// A value rounded to odd, from its rounding to nearest and the sign of what that lost.
pub(super) fn odd(nearest: f64, lost: f64) -> f64 {
    let bits = nearest.to_bits();
    if lost == 0.0 || lost.is_nan() || !nearest.is_finite() || bits & 1 != 0 {
        return nearest;
    }
    f64::from_bits(if (lost > 0.0) == (nearest > 0.0) { bits + 1 } else { bits - 1 })
}

/// The bits of a value in a format with so many exponent and mantissa bits; NaN is all ones but the sign.
pub(super) fn narrow(value: f64, exponent_bits: u32, mantissa_bits: u32, rounding: Rounding) -> u32 {
    let bits = value.to_bits();
    let negative = bits >> 63 != 0;
    let sign = u32::from(negative) << (exponent_bits + mantissa_bits);
    let infinity = ((1u32 << exponent_bits) - 1) << mantissa_bits;
    if value.is_nan() {
        return (1u32 << (exponent_bits + mantissa_bits)) - 1;
    }
    if value.is_infinite() || value == 0.0 {
        return sign | if value == 0.0 { 0 } else { infinity };
    }
    let bias = (1i32 << (exponent_bits - 1)) - 1;
    let field = ((bits >> 52) & 0x7ff) as i32;
    let fraction = bits & ((1 << 52) - 1);
    let (exponent, mantissa) =
        if field == 0 { (-1022, fraction) } else { (field - 1023, fraction | 1 << 52) };
    let below = (1 - bias - exponent).max(0);
    let shift = (52 - mantissa_bits + below.cast_unsigned()).min(63);
    let rest = mantissa & ((1 << shift) - 1);
    let half = 1u64 << (shift - 1);
    let quotient = mantissa >> shift;
    let up = match rounding {
        Rounding::Nearest => rest > half || (rest == half && quotient & 1 != 0),
        Rounding::Zero => false,
        Rounding::Down => negative && rest != 0,
        Rounding::Up => !negative && rest != 0,
        Rounding::Away => rest >= half,
    };
    let quotient = quotient + u64::from(up);
    let exponent_part = if below > 0 { 0 } else { i64::from(exponent + bias - 1) << mantissa_bits };
    // The mantissa's leading one adds one to the exponent field, and so does a carry out of the mantissa.
    let encoded = exponent_part.cast_unsigned().wrapping_add(quotient);
    if encoded < u64::from(infinity) {
        return sign | encoded as u32;
    }
    let stays_finite = match rounding {
        Rounding::Nearest | Rounding::Away => false,
        Rounding::Zero => true,
        Rounding::Down => !negative,
        Rounding::Up => negative,
    };
    sign | if stays_finite { infinity - 1 } else { infinity }
}

/// Rounds to single precision; NaN is the canonical one.
pub(super) fn to_single(value: f64, rounding: Rounding) -> f32 {
    if rounding == Rounding::Nearest && !value.is_nan() {
        return value as f32;
    }
    f32::from_bits(narrow(value, 8, 23, rounding))
}

/// A double-precision result in a directed mode, from its rounding to nearest and the sign of what that lost.
pub(super) fn directed(nearest: f64, lost: f64, operands_finite: bool, rounding: Rounding) -> f64 {
    let lost = if nearest.is_infinite() && operands_finite { -nearest } else { lost };
    match rounding {
        Rounding::Down if lost < 0.0 => nearest.next_down(),
        Rounding::Up if lost > 0.0 => nearest.next_up(),
        Rounding::Zero if nearest > 0.0 && lost < 0.0 => nearest.next_down(),
        Rounding::Zero if nearest < 0.0 && lost > 0.0 => nearest.next_up(),
        _ => nearest,
    }
}

/// An operation of IEEE arithmetic: its result to nearest, and the sign of what rounding lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exact {
    Add,
    Subtract,
    Multiply,
    FusedMultiplyAdd,
    Divide,
    SquareRoot,
}

impl Exact {
    /// The result rounded to nearest, and the sign of what that lost.
    pub(super) fn evaluate(self, a: f64, b: f64, c: f64) -> (f64, f64) {
        match self {
            Self::Add => two_sum(a, b),
            Self::Subtract => two_sum(a, -b),
            Self::Multiply => {
                let product = a * b;
                (product, a.mul_add(b, -product))
            }
            Self::FusedMultiplyAdd => {
                let product = a * b;
                let product_lost = a.mul_add(b, -product);
                let fused = a.mul_add(b, c);
                let (sum, sum_lost) = two_sum(product, c);
                let (lost, lost_again) = two_sum(sum_lost, product_lost);
                let (total, rest) = two_sum(sum - fused, lost);
                let rest = if total != 0.0 { total } else { rest + lost_again };
                (fused, rest)
            }
            Self::Divide => {
                let quotient = a / b;
                let lost = (-quotient).mul_add(b, a);
                (quotient, if b < 0.0 { -lost } else { lost })
            }
            Self::SquareRoot => {
                let root = a.sqrt();
                (root, (-root).mul_add(root, a))
            }
        }
    }

    /// The result in double precision, in any mode.
    pub(super) fn double(self, a: f64, b: f64, c: f64, rounding: Rounding) -> f64 {
        let (nearest, lost) = self.evaluate(a, b, c);
        let finite = a.is_finite() && b.is_finite() && c.is_finite() && !(self == Self::Divide && b == 0.0);
        if nearest == 0.0 && rounding == Rounding::Down && lost == 0.0 && self.cancels(a, b, c) {
            return -0.0;
        }
        directed(nearest, lost, finite, rounding)
    }

    /// The result of operands of at most single precision, rounded to odd: round it again to what is wanted.
    pub(super) fn odd(self, a: f64, b: f64, c: f64, rounding: Rounding) -> f64 {
        let (nearest, lost) = self.evaluate(a, b, c);
        if nearest == 0.0 && rounding == Rounding::Down && self.cancels(a, b, c) {
            return -0.0;
        }
        odd(nearest, lost)
    }

    /// Whether a zero result comes from terms of opposite signs: rounding down, that is minus zero.
    fn cancels(self, a: f64, b: f64, c: f64) -> bool {
        match self {
            Self::Add => a.is_sign_negative() != b.is_sign_negative(),
            Self::Subtract => a.is_sign_negative() == b.is_sign_negative(),
            Self::FusedMultiplyAdd => (a * b).is_sign_negative() != c.is_sign_negative(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowing_to_nearest_agrees_with_the_hardware_for_single_precision() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Exponents around those of single precision, subnormals included.
            let exponent = 1023 - 160 + (state >> 32) % 320;
            let value = f64::from_bits((state << 52) & (1 << 63) | exponent << 52 | (state >> 12));
            let value = f64::from_bits(value.to_bits() & !(0x7ff << 52) | exponent << 52);
            assert_eq!(narrow(value, 8, 23, Rounding::Nearest), (value as f32).to_bits(), "{value:e}");
        }
    }

    #[test]
    fn directed_modes_enclose_the_exact_value() {
        let third = Exact::Divide.evaluate(1.0, 3.0, 0.0);
        let odd = odd(third.0, third.1);
        let [down, up] = [Rounding::Down, Rounding::Up].map(|rounding| to_single(odd, rounding));
        assert_eq!(down.next_up(), up);
        assert!(f64::from(down) < 1.0 / 3.0 && f64::from(up) > 1.0 / 3.0);
        assert_eq!(to_single(odd, Rounding::Zero), down);
        assert_eq!(to_single(-odd, Rounding::Zero), -down);
        assert_eq!(to_single(1e300, Rounding::Zero), f32::MAX);
        assert_eq!(to_single(-1e300, Rounding::Up), -f32::MAX);
    }

    #[test]
    fn double_precision_in_directed_modes() {
        let down = Exact::Add.double(1.0, 1e-30, 0.0, Rounding::Down);
        let up = Exact::Add.double(1.0, 1e-30, 0.0, Rounding::Up);
        assert_eq!((down, up), (1.0, 1.0f64.next_up()));
        assert_eq!(Exact::Multiply.double(f64::MAX, 2.0, 0.0, Rounding::Zero), f64::MAX);
        assert_eq!(Exact::FusedMultiplyAdd.double(1.0, 1.0, -1e-40, Rounding::Zero), 1.0f64.next_down());
        let root = |rounding| Exact::SquareRoot.double(2.0, 0.0, 0.0, rounding);
        // To nearest, it is rounded up.
        assert_eq!(root(Rounding::Up), 2.0f64.sqrt());
        assert_eq!(root(Rounding::Down), 2.0f64.sqrt().next_down());
    }
}
