//! The driver's functions that kernels call: `vprintf`, `__assertfail`, `cudaGraphSetConditional`.
//!
//! Compiled code declares them `.extern`, passes arguments as any call does, and the driver has them.

use super::address::Accesses;
use super::control::argument_offset;
use super::decode::{Decoder, Opcode};
use super::error::PtxError;
use super::instruction::{Assertion, Cause, Failure, Handler, Operation, active, handler};
use super::launch::Context;
use super::memory::read;
use super::registers::LANES;
use super::syntax::Operand;
use super::warp::Warp;

/// What is behind those functions.
pub trait System: Sync {
    /// A thread prints.
    fn print(&self, text: &[u8]);
    /// A thread sets a condition of a graph.
    fn set_condition(&self, condition: u64, value: u32);
}

/// The longest string that is read.
const MOST_TEXT: usize = 64 << 10;

/// The words of a call's arguments, in the order of the function's parameters: bytes of each.
const VPRINTF: &[usize] = &[8, 8];
const SET_CONDITIONAL: &[usize] = &[8, 4];
const ASSERTFAIL: &[usize] = &[8, 8, 4, 8, 8];

/// Emits the call, if the function is one of the driver's.
pub(super) fn call<'a>(
    decoder: &mut Decoder<'a>,
    opcode: &Opcode<'a>,
    name: &str,
    arguments: &[Operand<'a>],
    returns: &[Operand<'a>],
) -> Result<bool, PtxError> {
    let (handler, sizes) = match name {
        "vprintf" => (print(), VPRINTF),
        "cudaGraphSetConditional" => (set_condition(), SET_CONDITIONAL),
        "__assertfail" => (fail(), ASSERTFAIL),
        _ => return Ok(false),
    };
    if arguments.len() != sizes.len() {
        return Err(opcode.operand_error("wrong number of arguments"));
    }
    let mut offsets = [0; 5];
    for ((offset, argument), &bytes) in offsets.iter_mut().zip(arguments).zip(sizes) {
        *offset = argument_offset(decoder, opcode, argument, bytes)?;
    }
    let mut instruction = decoder.instruction(Operation::Run(handler));
    [instruction.a, instruction.b, instruction.c, instruction.d, instruction.e] = offsets;
    instruction.value = match returns {
        [] => -1,
        [result] => argument_offset(decoder, opcode, result, 4)?.into(),
        _ => return Err(opcode.operand_error("wrong number of results")),
    };
    decoder.emit(instruction);
    Ok(true)
}

fn word(warp: &Warp, context: &Context<'_>, lane: usize, offset: u32, bytes: usize) -> u64 {
    let at = lane * context.program.local_bytes + offset as usize;
    let mut word = [0; 8];
    word[..bytes].copy_from_slice(&warp.local[at..at + bytes]);
    u64::from_le_bytes(word)
}

/// Bytes at a generic address.
fn bytes(
    warp: &Warp,
    context: &mut Context<'_>,
    lane: usize,
    address: u64,
    count: usize,
) -> Result<Vec<u8>, Box<Failure>> {
    (0..count as u64).map(|offset| byte(warp, context, lane, address.wrapping_add(offset))).collect()
}

fn byte(warp: &Warp, context: &mut Context<'_>, lane: usize, address: u64) -> Result<u8, Box<Failure>> {
    let place = Accesses::single(lane, address).place(context, warp.local.len(), lane);
    let place = place.map_err(|cause| Box::new(Failure { lane: lane as u32, cause }))?;
    Ok(read(warp, context, place, 0))
}

/// The C string at a generic address.
fn text(warp: &Warp, context: &mut Context<'_>, lane: usize, address: u64) -> Result<Vec<u8>, Box<Failure>> {
    let mut text = Vec::new();
    for offset in 0..MOST_TEXT as u64 {
        match byte(warp, context, lane, address.wrapping_add(offset))? {
            0 => break,
            byte => text.push(byte),
        }
    }
    Ok(text)
}

fn set_condition() -> Handler {
    handler!(|warp, context, instruction, mask| {
        for lane in active(mask) {
            let condition = word(warp, context, lane, instruction.a, 8);
            let value = word(warp, context, lane, instruction.b, 4) as u32;
            context.launch.system.set_condition(condition, value);
        }
        Ok(())
    })
}

fn fail() -> Handler {
    handler!(|warp, context, instruction, mask| {
        let lane = mask.trailing_zeros() as usize % LANES;
        let mut string = |offset| {
            let address = word(warp, context, lane, offset, 8);
            Ok::<_, Box<Failure>>(String::from_utf8_lossy(&text(warp, context, lane, address)?).into_owned())
        };
        let (message, file) = (string(instruction.a)?, string(instruction.b)?);
        let function = string(instruction.d)?;
        let line = word(warp, context, lane, instruction.c, 4) as u32;
        let assertion = Assertion { message, file, line, function };
        Err(Box::new(Failure { lane: lane as u32, cause: Cause::Assertion(Box::new(assertion)) }))
    })
}

fn print() -> Handler {
    handler!(|warp, context, instruction, mask| {
        for lane in active(mask) {
            let format = word(warp, context, lane, instruction.a, 8);
            let list = word(warp, context, lane, instruction.b, 8);
            let format = text(warp, context, lane, format)?;
            let printed = formatted(warp, context, lane, &format, list)?;
            context.launch.system.print(&printed);
            if let Ok(result) = usize::try_from(instruction.value) {
                let at = lane * context.program.local_bytes + result;
                warp.local[at..at + 4].copy_from_slice(&(printed.len() as u32).to_le_bytes());
            }
        }
        Ok(())
    })
}

/// The text of a format and its arguments, which lie one after the other, each aligned to its length: integers as they are,
/// real numbers as doubles, strings as addresses.
fn formatted(
    warp: &Warp,
    context: &mut Context<'_>,
    lane: usize,
    format: &[u8],
    mut list: u64,
) -> Result<Vec<u8>, Box<Failure>> {
    let mut printed = Vec::new();
    let mut rest = format;
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first != b'%' {
            printed.push(first);
            continue;
        }
        let is_conversion =
            |byte: &u8| byte.is_ascii_alphabetic() && !b"hljzt".contains(byte) || *byte == b'%';
        let Some(at) = rest.iter().position(is_conversion) else { break };
        let (flags, conversion) = (&rest[..at], rest[at]);
        rest = &rest[at + 1..];
        if conversion == b'%' {
            printed.push(b'%');
            continue;
        }
        let is_long = flags.iter().any(|flag| b"ljzt".contains(flag)) || b"sp".contains(&conversion);
        let is_real = b"aAeEfFgG".contains(&conversion);
        let length = if is_long || is_real { 8 } else { 4 };
        list = list.next_multiple_of(length as u64);
        let mut argument = [0; 8];
        argument[..length].copy_from_slice(&bytes(warp, context, lane, list, length)?);
        list += length as u64;
        let argument = u64::from_le_bytes(argument);
        let flags: Vec<u8> = flags.iter().filter(|flag| !b"hljzt".contains(flag)).copied().collect();
        if conversion == b's' {
            let string = text(warp, context, lane, argument)?;
            printed.extend(one(&flags, b"", b's', Argument::Text(&string)));
        } else if is_real {
            printed.extend(one(&flags, b"", conversion, Argument::Real(f64::from_bits(argument))));
        } else {
            let is_signed = b"di".contains(&conversion) && !is_long;
            let extended = if is_signed { i64::from(argument as i32).cast_unsigned() } else { argument };
            printed.extend(one(&flags, b"ll", conversion, Argument::Word(extended)));
        }
    }
    Ok(printed)
}

enum Argument<'a> {
    Word(u64),
    Real(f64),
    Text(&'a [u8]),
}

/// One conversion, as C has it.
fn one(flags: &[u8], length: &[u8], conversion: u8, argument: Argument<'_>) -> Vec<u8> {
    let length: &[u8] = if b"cp".contains(&conversion) { b"" } else { length };
    let format = [b"%", flags, length, &[conversion], b"\0"].concat();
    let mut place = [0_u8; 4096];
    let (format, to, room) = (format.as_ptr().cast(), place.as_mut_ptr().cast(), place.len());
    let written = match argument {
        // SAFETY: the format has one conversion, of a word of 64 bits (or less, which is passed alike), and is
        // NUL-terminated; the place has that much room.
        Argument::Word(word) => unsafe { libc::snprintf(to, room, format, word) },
        // SAFETY: as above, of a double.
        Argument::Real(real) => unsafe { libc::snprintf(to, room, format, real) },
        Argument::Text(text) => {
            let text: Vec<u8> = text.iter().copied().chain([0]).collect();
            // SAFETY: as above, of a NUL-terminated string.
            unsafe { libc::snprintf(to, room, format, text.as_ptr()) }
        }
    };
    let written = usize::try_from(written).unwrap_or(0).min(room - 1);
    place[..written].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_are_those_of_c() {
        assert_eq!(one(b"-5", b"ll", b'd', Argument::Word(u64::MAX)), b"-1   ");
        assert_eq!(one(b"08", b"ll", b'x', Argument::Word(0xabc)), b"00000abc");
        assert_eq!(one(b".2", b"", b'f', Argument::Real(1.5)), b"1.50");
        assert_eq!(one(b"6", b"", b's', Argument::Text(b"hello")), b" hello");
        assert_eq!(one(b"", b"ll", b'c', Argument::Word(65)), b"A");
    }
}
