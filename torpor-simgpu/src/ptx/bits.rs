//! Bitwise instructions.

use super::arithmetic::for_integer;
use super::decode::{Decoder, Opcode};
use super::error::PtxError;
use super::instruction::{Handler, each_active, handler, lanes};
use super::registers::Class;
use super::syntax::{Kind, Number, Operand, Type};

/// `and`, `or`, `xor`, `not`, `cnot`, shifts, fields, counts and permutations of bits.
pub(super) fn decode<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    match opcode.name {
        "shf" => return funnel_shift(decoder, opcode),
        "prmt" => return permute(decoder, opcode),
        "lop3" => return logic3(decoder, opcode),
        _ => {}
    }
    let clamp = !opcode.take("wrap");
    opcode.take("clamp");
    let shift_amount = opcode.take("shiftamt");
    let kind = opcode.take_type()?;
    let class = Class::for_bits(kind.bits).ok_or_else(|| opcode.unsupported())?;
    if kind.kind == Kind::Predicate {
        return predicate_logic(decoder, opcode);
    }
    let bits = Type { kind: Kind::Bits, ..kind };
    let word = Class::B32;
    let (handler, destination, sources): (_, _, &[Class]) = match opcode.name {
        "and" => (for_integer!(bits, T => lanes!(|a: T, b: T| -> T { a & b })), class, &[class; 2]),
        "or" => (for_integer!(bits, T => lanes!(|a: T, b: T| -> T { a | b })), class, &[class; 2]),
        "xor" => (for_integer!(bits, T => lanes!(|a: T, b: T| -> T { a ^ b })), class, &[class; 2]),
        "not" => (for_integer!(bits, T => lanes!(|a: T| -> T { !a })), class, &[class]),
        "cnot" => (for_integer!(bits, T => lanes!(|a: T| -> T { T::from(a == 0) })), class, &[class]),
        "shl" => (
            for_integer!(bits, T => lanes!(|a: T, b: u32| -> T { if b < T::BITS { a << b } else { 0 } })),
            class,
            &[class, word],
        ),
        "shr" => (
            for_integer!(kind, T => lanes!(|a: T, b: u32| -> T {
                let shifted = a >> b.min(T::BITS - 1);
                if T::MIN == 0 && b >= T::BITS { 0 } else { shifted }
            })),
            class,
            &[class, word],
        ),
        "popc" => (
            count(bits, |bits| match bits {
                32 => lanes!(|a: u32| -> u32 { a.count_ones() }),
                _ => lanes!(|a: u64| -> u32 { a.count_ones() }),
            }),
            word,
            &[class],
        ),
        "clz" => (
            count(bits, |bits| match bits {
                32 => lanes!(|a: u32| -> u32 { a.leading_zeros() }),
                _ => lanes!(|a: u64| -> u32 { a.leading_zeros() }),
            }),
            word,
            &[class],
        ),
        "brev" => (for_integer!(bits, T => lanes!(|a: T| -> T { a.reverse_bits() })), class, &[class]),
        "bfind" => (find_bit(kind, shift_amount), word, &[class]),
        "bfe" => (extract(kind), class, &[class, word, word]),
        "bfi" => return insert(decoder, opcode, bits),
        "bmsk" => (Some(mask_bits(clamp)), word, &[word; 2]),
        "szext" => (Some(extend(kind, clamp)), word, &[word; 2]),
        "fns" => (Some(nth_set()), word, &[word; 3]),
        _ => (None, class, &[]),
    };
    let handler = handler.ok_or_else(|| opcode.unsupported())?;
    decoder.emit_simple(opcode, handler, destination, sources)
}

fn count(kind: Type, handler: impl Fn(u32) -> Handler) -> Option<Handler> {
    matches!(kind.bits, 32 | 64).then(|| handler(kind.bits))
}

/// `and.pred` and its kin.
fn predicate_logic<'a>(decoder: &mut Decoder<'a>, opcode: &Opcode<'a>) -> Result<(), PtxError> {
    macro_rules! predicates {
        (|$a:ident, $b:ident| $value:expr) => {
            handler!(|warp, context, instruction, mask| {
                let $a = warp.registers.predicates[instruction.a as usize];
                let $b = warp.registers.predicates[instruction.b as usize];
                warp.registers.set_predicate(instruction.d, mask, $value);
                Ok(())
            })
        };
    }
    let (handler, sources) = match opcode.name {
        "and" => (predicates!(|a, b| a & b), 2),
        "or" => (predicates!(|a, b| a | b), 2),
        "xor" => (predicates!(|a, b| a ^ b), 2),
        "not" => (predicates!(|a, _b| !a), 1),
        _ => return Err(opcode.unsupported()),
    };
    decoder.emit_simple(opcode, handler, Class::Predicate, &[Class::Predicate; 2][..sources])
}

/// `bfind`: the highest bit that differs from the sign; all ones if there is none.
fn find_bit(kind: Type, shift_amount: bool) -> Option<Handler> {
    macro_rules! find {
        ($type:ty, $bits:expr, |$value:ident| $magnitude:expr) => {
            if shift_amount {
                lanes!(|$value: $type| -> u32 {
                    let zeros = ($magnitude).leading_zeros();
                    if zeros == $bits { u32::MAX } else { zeros }
                })
            } else {
                lanes!(|$value: $type| -> u32 {
                    ($bits - 1 - ($magnitude).leading_zeros() as i32).cast_unsigned()
                })
            }
        };
    }
    Some(match (kind.kind == Kind::Signed, kind.bits) {
        (false, 32) => find!(u32, 32, |a| a),
        (false, 64) => find!(u64, 64, |a| a),
        (true, 32) => find!(i32, 32, |a| a ^ (a >> 31)),
        (true, 64) => find!(i64, 64, |a| a ^ (a >> 63)),
        _ => return None,
    })
}

/// `bfe`: position and length are the low bytes of `b` and `c`.
fn extract(kind: Type) -> Option<Handler> {
    macro_rules! field {
        ($type:ty, $signed:expr) => {
            lanes!(|a: $type, b: u32, c: u32| -> $type { a.field(b, c, $signed) })
        };
    }
    Some(match (kind.kind == Kind::Signed, kind.bits) {
        (false, 32) => field!(u32, false),
        (true, 32) => field!(u32, true),
        (false, 64) => field!(u64, false),
        (true, 64) => field!(u64, true),
        _ => return None,
    })
}

/// Fields of bits as the PTX manual defines them.
trait Field {
    /// `length` bits from `position`, with the sign of the last bit that exists.
    fn field(self, position: u32, length: u32, signed: bool) -> Self;
    /// `self` with `length` bits from `position` replaced.
    fn with_field(self, field: Self, position: u32, length: u32) -> Self;
}

macro_rules! field {
    ($type:ty) => {
        impl Field for $type {
            fn field(self, position: u32, length: u32, signed: bool) -> Self {
                let (position, length) = (position & 0xff, length & 0xff);
                let last = (position + length).saturating_sub(1).min(Self::BITS - 1);
                let negative = signed && length != 0 && (self >> last) & 1 != 0;
                let low = self.checked_shr(position).unwrap_or(0);
                let ones = if length >= Self::BITS { Self::MAX } else { ((1 as Self) << length) - 1 };
                let available = Self::MAX.checked_shr(position).unwrap_or(0);
                if negative { low | !(ones & available) } else { low & ones }
            }

            fn with_field(self, field: Self, position: u32, length: u32) -> Self {
                let (position, length) = (position & 0xff, length & 0xff);
                let ones = if length >= Self::BITS { Self::MAX } else { ((1 as Self) << length) - 1 };
                let mask = ones.checked_shl(position).unwrap_or(0);
                (self & !mask) | (field.checked_shl(position).unwrap_or(0) & mask)
            }
        }
    };
}

field!(u32);
field!(u64);

/// `bfi d, a, b, c, e`: `b` with the field of `e` bits at `c` taken from `a`.
fn insert<'a>(decoder: &mut Decoder<'a>, opcode: &Opcode<'a>, kind: Type) -> Result<(), PtxError> {
    macro_rules! insert {
        ($type:ty) => {
            handler!(|warp, context, instruction, mask| {
                use super::registers::Lane;
                let field = <$type>::read(&warp.registers, instruction.a);
                let base = <$type>::read(&warp.registers, instruction.b);
                let position = u32::read(&warp.registers, instruction.c);
                let length = u32::read(&warp.registers, instruction.e);
                let result = std::array::from_fn(|lane| {
                    base[lane].with_field(field[lane], position[lane], length[lane])
                });
                <$type>::write(&mut warp.registers, instruction.d, mask, &result);
                Ok(())
            })
        };
    }
    let (handler, class) = match kind.bits {
        32 => (insert!(u32), Class::B32),
        64 => (insert!(u64), Class::B64),
        _ => return Err(opcode.unsupported()),
    };
    opcode.finish()?;
    let mut instruction = decoder.instruction(super::instruction::Operation::Run(handler));
    instruction.d = decoder.destination(opcode, 0, class)?;
    instruction.a = decoder.source(opcode, 1, class)?;
    instruction.b = decoder.source(opcode, 2, class)?;
    instruction.c = decoder.source(opcode, 3, Class::B32)?;
    instruction.e = decoder.source(opcode, 4, Class::B32)?;
    decoder.emit(instruction);
    Ok(())
}

/// `bmsk`: `b` ones from bit `a`.
fn mask_bits(clamp: bool) -> Handler {
    macro_rules! mask {
        (|$a:ident, $b:ident| $position:expr, $length:expr) => {
            lanes!(|$a: u32, $b: u32| -> u32 { 0u32.with_field(u32::MAX, $position, $length) })
        };
    }
    if clamp { mask!(|a, b| a.min(32), b.min(32)) } else { mask!(|a, b| a & 31, b & 31) }
}

/// `szext`: the low `b` bits of `a`, extended.
fn extend(kind: Type, clamp: bool) -> Handler {
    match (kind.kind == Kind::Signed, clamp) {
        (false, true) => lanes!(|a: u32, b: u32| -> u32 { a.field(0, b.min(32), false) }),
        (false, false) => lanes!(|a: u32, b: u32| -> u32 { a.field(0, b & 31, false) }),
        (true, true) => lanes!(|a: u32, b: u32| -> u32 { a.field(0, b.min(32), true) }),
        (true, false) => lanes!(|a: u32, b: u32| -> u32 { a.field(0, b & 31, true) }),
    }
}

/// `fns`: the position of the n-th set bit from a base; all ones if there is none.
fn nth_set() -> Handler {
    each_active!(_flags, |mask: u32, base: u32, offset: u32| -> u32 {
        let (base, offset) = (base & 31, offset.cast_signed());
        let set = |bit: &u32| mask & (1 << bit) != 0;
        let found = match offset {
            0 => Some(base).filter(set),
            1.. => (base..32).filter(set).nth((offset - 1) as usize),
            _ => (0..=base).rev().filter(set).nth((-1i64 - i64::from(offset)) as usize),
        };
        found.unwrap_or(u32::MAX)
    })
}

/// `shf.l` and `shf.r`: shifts of the 64 bits `b:a`.
fn funnel_shift<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    let left = opcode.take("l");
    if !left {
        opcode.require("r")?;
    }
    let wrap = opcode.take("wrap");
    if !wrap {
        opcode.require("clamp")?;
    }
    opcode.require("b32")?;
    let handler = match (left, wrap) {
        (true, true) => lanes!(|a: u32, b: u32, c: u32| -> u32 {
            ((((u64::from(b) << 32) | u64::from(a)) << (c & 31)) >> 32) as u32
        }),
        (true, false) => lanes!(|a: u32, b: u32, c: u32| -> u32 {
            ((((u64::from(b) << 32) | u64::from(a)) << c.min(32)) >> 32) as u32
        }),
        (false, true) => lanes!(|a: u32, b: u32, c: u32| -> u32 {
            (((u64::from(b) << 32) | u64::from(a)) >> (c & 31)) as u32
        }),
        (false, false) => lanes!(|a: u32, b: u32, c: u32| -> u32 {
            (((u64::from(b) << 32) | u64::from(a)) >> c.min(32)) as u32
        }),
    };
    decoder.emit_simple(opcode, handler, Class::B32, &[Class::B32; 3])
}

/// `prmt` and its modes: every byte of the result is chosen from the eight bytes of `b:a`.
fn permute<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    opcode.require("b32")?;
    // For each mode, the selectors of the four bytes for the low two bits of `c`.
    const FORWARD: [u16; 4] = [0x3210, 0x4321, 0x5432, 0x6543];
    const BACKWARD: [u16; 4] = [0x5670, 0x6701, 0x7012, 0x0123];
    const REPLICATE: [u16; 4] = [0x0000, 0x1111, 0x2222, 0x3333];
    const EDGE_LEFT: [u16; 4] = [0x3210, 0x3211, 0x3222, 0x3333];
    const EDGE_RIGHT: [u16; 4] = [0x0000, 0x1110, 0x2210, 0x3210];
    const HALVES: [u16; 4] = [0x1010, 0x3232, 0x1010, 0x3232];
    let handler = match opcode.take_any(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]) {
        None => each_active!(_flags, |a: u32, b: u32, c: u32| -> u32 { permute_bytes(a, b, c as u16) }),
        Some("f4e") => each_active!(_flags, |a: u32, b: u32, c: u32| -> u32 {
            permute_bytes(a, b, FORWARD[c as usize & 3])
        }),
        Some("b4e") => each_active!(_flags, |a: u32, b: u32, c: u32| -> u32 {
            permute_bytes(a, b, BACKWARD[c as usize & 3])
        }),
        Some("rc8") => each_active!(_flags, |a: u32, b: u32, c: u32| -> u32 {
            permute_bytes(a, b, REPLICATE[c as usize & 3])
        }),
        Some("ecl") => each_active!(_flags, |a: u32, b: u32, c: u32| -> u32 {
            permute_bytes(a, b, EDGE_LEFT[c as usize & 3])
        }),
        Some("ecr") => each_active!(_flags, |a: u32, b: u32, c: u32| -> u32 {
            permute_bytes(a, b, EDGE_RIGHT[c as usize & 3])
        }),
        Some(_) => each_active!(_flags, |a: u32, b: u32, c: u32| -> u32 {
            permute_bytes(a, b, HALVES[c as usize & 3])
        }),
    };
    decoder.emit_simple(opcode, handler, Class::B32, &[Class::B32; 3])
}

/// Bit 3 of a selector replicates the sign of the byte.
fn permute_bytes(a: u32, b: u32, selectors: u16) -> u32 {
    let bytes = ((u64::from(b) << 32) | u64::from(a)).to_le_bytes();
    u32::from_le_bytes(std::array::from_fn(|index| {
        let selector = selectors >> (4 * index);
        let byte = bytes[usize::from(selector & 7)];
        if selector & 8 != 0 { (byte.cast_signed() >> 7).cast_unsigned() } else { byte }
    }))
}

/// `lop3.b32 d, a, b, c, table`: bit `4a + 2b + c` of the table.
fn logic3<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    opcode.require("b32")?;
    let Some(Operand::Number(Number::Integer(table))) = opcode.operands.pop() else {
        return Err(opcode.operand_error("the table must be a literal"));
    };
    let handler = handler!(|warp, context, instruction, mask| {
        let table = instruction.value;
        // A term of the sum of products that is not in the table is masked out.
        let terms: [u32; 8] = std::array::from_fn(|bit| if table & (1 << bit) != 0 { u32::MAX } else { 0 });
        super::instruction::map3(&mut warp.registers, instruction, mask, |a: u32, b: u32, c: u32| {
            let ab = [!a & !b, !a & b, a & !b, a & b];
            (ab[0] & ((!c & terms[0]) | (c & terms[1])))
                | (ab[1] & ((!c & terms[2]) | (c & terms[3])))
                | (ab[2] & ((!c & terms[4]) | (c & terms[5])))
                | (ab[3] & ((!c & terms[6]) | (c & terms[7])))
        });
        Ok(())
    });
    decoder.emit_flagged(opcode, handler, Class::B32, &[Class::B32; 3], table.cast_signed())
}
