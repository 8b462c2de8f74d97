//! `mov` with packing and unpacking, addresses between spaces, fences, and hints that do nothing here.

use std::sync::atomic::{Ordering, fence};

use super::decode::{Decoder, Opcode};
use super::error::PtxError;
use super::instruction::{Handler, Operation, handler, lanes};
use super::registers::{Class, LANES, Lane, Register};
use super::space::{LOCAL_BASE, PARAMETER_BASE, SHARED_BASE, WINDOW_MASK};
use super::special;
use super::syntax::Operand;

/// Copies a register.
fn move_handler(class: Class) -> Handler {
    match class {
        Class::Predicate => handler!(|warp, context, instruction, mask| {
            let value = warp.registers.predicates[instruction.a as usize];
            warp.registers.set_predicate(instruction.d, mask, value);
            Ok(())
        }),
        Class::B16 => lanes!(|a: u16| -> u16 { a }),
        Class::B32 => lanes!(|a: u32| -> u32 { a }),
        Class::B64 => lanes!(|a: u64| -> u64 { a }),
    }
}

/// Appends a copy between registers of one class.
pub(super) fn emit_move(decoder: &mut Decoder<'_>, to: Register, from: Register) {
    let mut instruction = decoder.instruction(Operation::Run(move_handler(to.class)));
    (instruction.d, instruction.a) = (to.index, from.index);
    decoder.emit(instruction);
}

/// Takes a wide register apart into the operands in the list, or puts it together from them.
fn vector_handler(wide: Class, narrow: Class, unpack: bool) -> Option<Handler> {
    macro_rules! vector {
        ($wide:ty, $narrow:ty) => {
            if unpack {
                handler!(|warp, context, instruction, mask| {
                    let value = <$wide>::read(&warp.registers, instruction.a);
                    let parts = &context.program.operands[instruction.list as usize..];
                    for (part, &register) in parts[..instruction.list_length as usize].iter().enumerate() {
                        let shift = part as u32 * <$narrow>::BITS;
                        let values = value.map(|value| (value >> shift) as $narrow);
                        <$narrow>::write(&mut warp.registers, register, mask, &values);
                    }
                    Ok(())
                })
            } else {
                handler!(|warp, context, instruction, mask| {
                    let mut value: [$wide; LANES] = [0; LANES];
                    let parts = &context.program.operands[instruction.list as usize..];
                    for (part, &register) in parts[..instruction.list_length as usize].iter().enumerate() {
                        let shift = part as u32 * <$narrow>::BITS;
                        let values = <$narrow>::read(&warp.registers, register);
                        for (value, part) in value.iter_mut().zip(values) {
                            *value |= <$wide>::from(part) << shift;
                        }
                    }
                    <$wide>::write(&mut warp.registers, instruction.d, mask, &value);
                    Ok(())
                })
            }
        };
    }
    Some(match (wide, narrow) {
        (Class::B32, Class::B16) => vector!(u32, u16),
        (Class::B64, Class::B16) => vector!(u64, u16),
        (Class::B64, Class::B32) => vector!(u64, u32),
        _ => return None,
    })
}

/// `mov`, `cvta`, `isspacep`, fences and hints.
pub(super) fn decode<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    match opcode.name {
        "mov" => mov(decoder, opcode),
        "cvta" => cvta(decoder, opcode),
        "isspacep" => isspacep(decoder, opcode),
        "membar" | "fence" => {
            opcode.ignore(|modifier| {
                matches!(
                    modifier,
                    "cta" | "gl" | "gpu" | "sys" | "cluster" | "sc" | "acq_rel" | "acquire" | "release"
                )
            });
            let order = handler!(|warp, context, instruction, mask| {
                fence(Ordering::SeqCst);
                Ok(())
            });
            decoder.emit(decoder.instruction(Operation::Run(order)));
            opcode.finish()
        }
        "createpolicy" => {
            let mut instruction = decoder.instruction(Operation::Run(move_handler(Class::B64)));
            instruction.d = decoder.destination(opcode, 0, Class::B64)?;
            instruction.a = decoder.zero(Class::B64);
            decoder.emit(instruction);
            Ok(())
        }
        // Hints to caches and profilers.
        "prefetch" | "prefetchu" | "discard" | "applypriority" | "pmevent" => Ok(()),
        _ => Err(opcode.unsupported()),
    }
}

fn mov<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    let kind = opcode.take_type()?;
    opcode.finish()?;
    let class = Class::for_bits(kind.bits).ok_or_else(|| opcode.unsupported())?;
    let [to, from] = &opcode.operands[..] else {
        return Err(opcode.operand_error("expected two operands"));
    };
    if let (Operand::Vector(parts), _) | (_, Operand::Vector(parts)) = (to, from) {
        let unpack = matches!(to, Operand::Vector(_));
        let narrow =
            (kind.bits as usize).checked_div(parts.len()).and_then(|bits| Class::for_bits(bits as u32));
        let narrow = narrow.filter(|narrow| *narrow != Class::Predicate && kind.bits > 8 && parts.len() > 1);
        let narrow = narrow.ok_or_else(|| opcode.unsupported())?;
        let handler = vector_handler(class, narrow, unpack).ok_or_else(|| opcode.unsupported())?;
        let mut registers = Vec::with_capacity(parts.len());
        for part in parts {
            let register = if unpack {
                decoder.any_destination(opcode, part, narrow)?
            } else {
                decoder.any_source(opcode, part, narrow)?
            };
            if register.class != narrow {
                return Err(opcode.operand_error("an element has another width"));
            }
            registers.push(register.index);
        }
        let mut instruction = decoder.instruction(Operation::Run(handler));
        if unpack {
            instruction.a = decoder.source(opcode, 1, class)?;
        } else {
            instruction.d = decoder.destination(opcode, 0, class)?;
        }
        instruction.list = decoder.program.operands.len() as u32;
        instruction.list_length = registers.len() as u32;
        decoder.program.operands.extend(registers);
        decoder.emit(instruction);
        return Ok(());
    }
    if let Operand::Name(name) = from
        && let Some((handler, bits)) = special::changing(name)
    {
        if bits != kind.bits {
            return Err(opcode.operand_error("the special register has another width"));
        }
        return decoder.emit_simple_destination(opcode, handler, class);
    }
    decoder.emit_simple(opcode, move_handler(class), class, &[class])
}

/// The generic addresses of a space: what to add to its own; 0 for device memory.
fn base_of(decoder: &Decoder<'_>, space: &str) -> u64 {
    match space {
        "shared" | "shared::cta" => SHARED_BASE,
        "local" => LOCAL_BASE,
        // The parameters of a device function lie in its frame.
        "param" | "param::entry" if decoder.functions.in_kernel => PARAMETER_BASE,
        "param" => LOCAL_BASE,
        _ => 0,
    }
}

const SPACES: [&str; 7] = ["global", "shared", "shared::cta", "local", "const", "param", "param::entry"];

fn cvta<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    let to = opcode.take("to");
    let space = opcode.take_any(&SPACES).ok_or_else(|| opcode.unsupported())?;
    opcode.take_any(&["u64"]).ok_or_else(|| opcode.unsupported())?;
    let base = base_of(decoder, space);
    if base == 0 {
        return decoder.emit_simple(opcode, move_handler(Class::B64), Class::B64, &[Class::B64]);
    }
    // `value` is the space's base, wrapped into a signed number.
    let handler = if to {
        handler!(|warp, context, instruction, mask| {
            let base = instruction.value.cast_unsigned();
            let addresses =
                u64::read(&warp.registers, instruction.a).map(|address| address.wrapping_sub(base));
            u64::write(&mut warp.registers, instruction.d, mask, &addresses);
            Ok(())
        })
    } else {
        handler!(|warp, context, instruction, mask| {
            let base = instruction.value.cast_unsigned();
            let addresses =
                u64::read(&warp.registers, instruction.a).map(|address| address.wrapping_add(base));
            u64::write(&mut warp.registers, instruction.d, mask, &addresses);
            Ok(())
        })
    };
    decoder.emit_flagged(opcode, handler, Class::B64, &[Class::B64], base.cast_signed())
}

fn isspacep<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    let space = opcode.take_any(&SPACES).ok_or_else(|| opcode.unsupported())?;
    let handler = handler!(|warp, context, instruction, mask| {
        let base = instruction.value.cast_unsigned();
        let addresses = warp.registers.b64[instruction.a as usize];
        let mut inside = 0;
        for (lane, address) in addresses.iter().enumerate() {
            let window = address & WINDOW_MASK;
            let other = [SHARED_BASE, LOCAL_BASE, PARAMETER_BASE].contains(&window);
            inside |= u32::from(if base == 0 { !other } else { window == base }) << lane;
        }
        warp.registers.set_predicate(instruction.d, mask, inside);
        Ok(())
    });
    let base = base_of(decoder, space);
    decoder.emit_flagged(opcode, handler, Class::Predicate, &[Class::B64], base.cast_signed())
}

impl<'a> Decoder<'a> {
    /// Appends an instruction that has a destination and no source in a register.
    fn emit_simple_destination(
        &mut self,
        opcode: &Opcode<'a>,
        handler: Handler,
        class: Class,
    ) -> Result<(), PtxError> {
        let mut instruction = self.instruction(Operation::Run(handler));
        instruction.d = self.destination(opcode, 0, class)?;
        self.emit(instruction);
        Ok(())
    }
}
