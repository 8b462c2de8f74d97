//! What the lanes of a warp tell each other: `shfl`, `vote`, `match`, `redux`, `activemask`, `elect`.

use super::decode::{Decoder, Opcode};
use super::error::PtxError;
use super::instruction::{Handler, Instruction, Operation, active, handler};
use super::registers::{Class, LANES, Lane};
use super::syntax::{Kind, Operand};
use super::warp::Warp;

/// How `shfl` finds the lane to read from.
const UP: i64 = 0;
const DOWN: i64 = 1;
const BUTTERFLY: i64 = 2;
const INDEX: i64 = 3;

/// Decodes an instruction of this family.
pub(super) fn decode<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    if opcode.name == "activemask" {
        opcode.require("b32")?;
        let handler = handler!(|warp, context, instruction, mask| {
            u32::write(&mut warp.registers, instruction.d, mask, &[mask; LANES]);
            Ok(())
        });
        let mut instruction = decoder.instruction(Operation::Run(handler));
        instruction.d = decoder.destination(opcode, 0, Class::B32)?;
        decoder.emit(instruction);
        return opcode.finish();
    }
    opcode.require("sync")?;
    match opcode.name {
        "shfl" => shuffle(decoder, opcode),
        "vote" => vote(decoder, opcode),
        "match" => matching(decoder, opcode),
        "redux" => reduce(decoder, opcode),
        "elect" => elect(decoder, opcode),
        _ => Err(opcode.unsupported()),
    }
}

/// Splits a destination `d|p`; the predicate may be absent.
fn destinations<'a>(
    decoder: &mut Decoder<'a>,
    opcode: &Opcode<'a>,
    instruction: &mut Instruction,
) -> Result<(), PtxError> {
    let (value, predicate) = match opcode.operands.first() {
        Some(&Operand::Pair(value, predicate)) => (value, predicate),
        Some(&Operand::Name(value)) => (value, "_"),
        _ => return Err(opcode.operand_error("no destination")),
    };
    let value = decoder.any_destination(opcode, &Operand::Name(value), Class::B32)?;
    let predicate = decoder.any_destination(opcode, &Operand::Name(predicate), Class::Predicate)?;
    if value.class != Class::B32 || predicate.class != Class::Predicate {
        return Err(opcode.operand_error("the destinations are a register of 32 bits and a predicate"));
    }
    // The predicate goes to `target`, which only branches use otherwise.
    (instruction.d, instruction.target) = (value.index, predicate.index);
    Ok(())
}

fn shuffle<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    let mode = match opcode.take_any(&["up", "down", "bfly", "idx"]) {
        Some("up") => UP,
        Some("down") => DOWN,
        Some("bfly") => BUTTERFLY,
        Some(_) => INDEX,
        None => return Err(opcode.unsupported()),
    };
    opcode.require("b32")?;
    opcode.finish()?;
    let handler = handler!(|warp, context, instruction, mask| {
        let a = u32::read(&warp.registers, instruction.a);
        let b = u32::read(&warp.registers, instruction.b);
        let c = u32::read(&warp.registers, instruction.c);
        let mut values = [0; LANES];
        let mut inside = 0;
        for lane in active(mask) {
            // The names and formulas of the PTX manual, section `shfl.sync`.
            let (b, c, own) = (b[lane] & 31, c[lane], lane as u32);
            let segment = (c >> 8) & 31;
            let (first, last) = (own & segment, (own & segment) | (c & 31 & !segment));
            let (source, valid) = match instruction.value {
                UP => (own.wrapping_sub(b), own.wrapping_sub(b).cast_signed() >= last.cast_signed()),
                DOWN => (own + b, own + b <= last),
                BUTTERFLY => (own ^ b, own ^ b <= last),
                _ => (first | (b & !segment), first | (b & !segment) <= last),
            };
            values[lane] = a[if valid { source as usize & 31 } else { lane }];
            inside |= u32::from(valid) << lane;
        }
        u32::write(&mut warp.registers, instruction.d, mask, &values);
        warp.registers.set_predicate(instruction.target, mask, inside);
        Ok(())
    });
    let mut instruction = decoder.instruction(Operation::Together(handler));
    destinations(decoder, opcode, &mut instruction)?;
    instruction.value = mode;
    instruction.a = decoder.source(opcode, 1, Class::B32)?;
    instruction.b = decoder.source(opcode, 2, Class::B32)?;
    instruction.c = decoder.source(opcode, 3, Class::B32)?;
    instruction.e = decoder.source(opcode, 4, Class::B32)?;
    decoder.emit(instruction);
    Ok(())
}

/// The lanes that take part: active ones that the first active lane's member mask names.
fn members(warp: &Warp, instruction: &Instruction, mask: u32) -> u32 {
    warp.registers.b32[instruction.e as usize][mask.trailing_zeros() as usize & 31] & mask
}

fn vote<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    /// The predicate in the members, negated if `value` says so.
    fn votes(warp: &Warp, instruction: &Instruction, members: u32) -> u32 {
        (warp.registers.predicates[instruction.a as usize] ^ instruction.value as u32) & members
    }
    macro_rules! decide {
        (|$votes:ident, $members:ident| $value:expr) => {
            handler!(|warp, context, instruction, mask| {
                let $members = members(warp, instruction, mask);
                let $votes = votes(warp, instruction, $members);
                warp.registers.set_predicate(instruction.d, mask, if $value { u32::MAX } else { 0 });
                Ok(())
            })
        };
    }
    let (handler, class) = match opcode.take_any(&["all", "any", "uni", "ballot"]) {
        Some("all") => (decide!(|votes, members| votes == members), Class::Predicate),
        Some("any") => (decide!(|votes, _members| votes != 0), Class::Predicate),
        Some("uni") => (decide!(|votes, members| votes == members || votes == 0), Class::Predicate),
        Some(_) => (
            handler!(|warp, context, instruction, mask| {
                let votes = votes(warp, instruction, members(warp, instruction, mask));
                u32::write(&mut warp.registers, instruction.d, mask, &[votes; LANES]);
                Ok(())
            }),
            Class::B32,
        ),
        None => return Err(opcode.unsupported()),
    };
    opcode.require(if class == Class::B32 { "b32" } else { "pred" })?;
    opcode.finish()?;
    let mut instruction = decoder.instruction(Operation::Together(handler));
    instruction.d = decoder.destination(opcode, 0, class)?;
    let (predicate, negated) = decoder.predicate(opcode, 1)?;
    (instruction.a, instruction.value) = (predicate, if negated { -1 } else { 0 });
    instruction.e = decoder.source(opcode, 2, Class::B32)?;
    decoder.emit(instruction);
    Ok(())
}

/// `match.any` and `match.all`.
fn matching<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    macro_rules! any {
        ($type:ty) => {
            handler!(|warp, context, instruction, mask| {
                let values = <$type>::read(&warp.registers, instruction.a);
                let members = members(warp, instruction, mask);
                let mut equal = [0; LANES];
                for lane in active(mask) {
                    let same = active(members).filter(|&other| values[other] == values[lane]);
                    equal[lane] = same.fold(0, |set, other| set | 1 << other);
                }
                u32::write(&mut warp.registers, instruction.d, mask, &equal);
                Ok(())
            })
        };
    }
    macro_rules! all {
        ($type:ty) => {
            handler!(|warp, context, instruction, mask| {
                let values = <$type>::read(&warp.registers, instruction.a);
                let members = members(warp, instruction, mask);
                let first = active(members).next().unwrap_or(0);
                let same = active(members).all(|lane| values[lane] == values[first]);
                u32::write(
                    &mut warp.registers,
                    instruction.d,
                    mask,
                    &[if same { members } else { 0 }; LANES],
                );
                warp.registers.set_predicate(instruction.target, mask, if same { u32::MAX } else { 0 });
                Ok(())
            })
        };
    }
    let all = opcode.take("all");
    if !all {
        opcode.require("any")?;
    }
    let kind = opcode.take_type()?;
    opcode.finish()?;
    let (handler, class) = match (all, kind.bits) {
        (false, 32) => (any!(u32), Class::B32),
        (false, 64) => (any!(u64), Class::B64),
        (true, 32) => (all!(u32), Class::B32),
        (true, 64) => (all!(u64), Class::B64),
        _ => return Err(opcode.unsupported()),
    };
    let mut instruction = decoder.instruction(Operation::Together(handler));
    destinations(decoder, opcode, &mut instruction)?;
    instruction.a = decoder.source(opcode, 1, class)?;
    instruction.e = decoder.source(opcode, 2, Class::B32)?;
    decoder.emit(instruction);
    Ok(())
}

fn reduce<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    macro_rules! fold {
        ($type:ty, |$sum:ident, $value:ident| $combined:expr) => {
            handler!(|warp, context, instruction, mask| {
                let values = <$type>::read(&warp.registers, instruction.a);
                let members = members(warp, instruction, mask);
                let all = active(members).map(|lane| values[lane]);
                let result = all.reduce(|$sum, $value| $combined).unwrap_or(0);
                <$type>::write(&mut warp.registers, instruction.d, mask, &[result; LANES]);
                Ok(())
            })
        };
    }
    let operation = opcode.take_any(&["add", "min", "max", "and", "or", "xor"]);
    let kind = opcode.take_type()?;
    opcode.finish()?;
    let handler: Handler = match (operation, kind.kind, kind.bits) {
        (Some("add"), Kind::Unsigned | Kind::Signed, 32) => fold!(u32, |a, b| a.wrapping_add(b)),
        (Some("min"), Kind::Unsigned, 32) => fold!(u32, |a, b| a.min(b)),
        (Some("max"), Kind::Unsigned, 32) => fold!(u32, |a, b| a.max(b)),
        (Some("min"), Kind::Signed, 32) => fold!(i32, |a, b| a.min(b)),
        (Some("max"), Kind::Signed, 32) => fold!(i32, |a, b| a.max(b)),
        (Some("and"), Kind::Bits, 32) => fold!(u32, |a, b| a & b),
        (Some("or"), Kind::Bits, 32) => fold!(u32, |a, b| a | b),
        (Some("xor"), Kind::Bits, 32) => fold!(u32, |a, b| a ^ b),
        _ => return Err(opcode.unsupported()),
    };
    let mut instruction = decoder.instruction(Operation::Together(handler));
    instruction.d = decoder.destination(opcode, 0, Class::B32)?;
    instruction.a = decoder.source(opcode, 1, Class::B32)?;
    instruction.e = decoder.source(opcode, 2, Class::B32)?;
    decoder.emit(instruction);
    Ok(())
}

/// `elect.sync`: the lowest member is elected.
fn elect<'a>(decoder: &mut Decoder<'a>, opcode: &Opcode<'a>) -> Result<(), PtxError> {
    let handler = handler!(|warp, context, instruction, mask| {
        let elected = members(warp, instruction, mask).trailing_zeros() & 31;
        u32::write(&mut warp.registers, instruction.d, mask, &[elected; LANES]);
        warp.registers.set_predicate(instruction.target, mask, 1 << elected);
        Ok(())
    });
    opcode.finish()?;
    let mut instruction = decoder.instruction(Operation::Together(handler));
    destinations(decoder, opcode, &mut instruction)?;
    instruction.e = decoder.source(opcode, 1, Class::B32)?;
    decoder.emit(instruction);
    Ok(())
}
