//! Branches, calls and ends.

use super::decode::{Binding, Decoder, Opcode, find_function};
use super::error::PtxError;
use super::function::Slot;
use super::instruction::{Handler, Operation, active, handler};
use super::registers::Class;
use super::syntax::Operand;
use super::{system, transfer};

/// Copies `value` bytes of every lane's local memory from `a` to `d`: arguments into a frame, results out of it.
fn copy_local() -> Handler {
    handler!(|warp, context, instruction, mask| {
        let stride = context.program.local_bytes;
        let (from, to, bytes) = (instruction.a as usize, instruction.d as usize, instruction.value as usize);
        for lane in active(mask) {
            let start = lane * stride;
            warp.local.copy_within(start + from..start + from + bytes, start + to);
        }
        Ok(())
    })
}

/// `bra`, `brx.idx`, `call`, `ret`, `exit`, `trap`, `nanosleep`.
pub(super) fn decode<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    opcode.take("uni");
    match opcode.name {
        "bra" => {
            let [Operand::Name(label)] = opcode.operands[..] else {
                return Err(opcode.operand_error("expected a label"));
            };
            decoder.jump_to(label);
            decoder.emit(decoder.instruction(Operation::Branch));
        }
        "brx" => {
            opcode.require("idx")?;
            let &[_, Operand::Name(list)] = &opcode.operands[..] else {
                return Err(opcode.operand_error("expected an index and a list of targets"));
            };
            let index = decoder.source(opcode, 0, Class::B32)?;
            let targets = decoder.jump_to_any(list);
            let (start, length) = targets.ok_or_else(|| opcode.operand_error("no such list of targets"))?;
            let mut instruction = decoder.instruction(Operation::BranchIndexed);
            (instruction.a, instruction.list, instruction.list_length) = (index, start, length);
            decoder.emit(instruction);
        }
        "call" => call(decoder, opcode)?,
        "ret" => decoder.emit(decoder.instruction(Operation::Return)),
        "exit" => decoder.emit(decoder.instruction(Operation::Exit)),
        "trap" => decoder.emit(decoder.instruction(Operation::Trap)),
        // How long it sleeps is up to the hardware; here it lets other warps go first.
        "nanosleep" => {
            opcode.require("u32")?;
            decoder.emit(decoder.instruction(Operation::Yield));
        }
        _ => return Err(opcode.unsupported()),
    }
    opcode.finish()
}

fn call<'a>(decoder: &mut Decoder<'a>, opcode: &Opcode<'a>) -> Result<(), PtxError> {
    let (returns, name, arguments): (&[Operand<'a>], _, &[Operand<'a>]) = match &opcode.operands[..] {
        [Operand::Name(name)] => (&[], *name, &[]),
        [Operand::Name(name), Operand::List(arguments)] => (&[], *name, arguments),
        [Operand::List(returns), Operand::Name(name)] => (returns, *name, &[]),
        [Operand::List(returns), Operand::Name(name), Operand::List(arguments)] => {
            (returns, *name, arguments)
        }
        _ => return Err(PtxError::Unsupported { line: decoder.line, what: "indirect call".to_owned() }),
    };
    if system::call(decoder, opcode, name, arguments, returns)? {
        return Ok(());
    }
    if decoder.lookup(name).is_some() {
        return Err(PtxError::Unsupported { line: decoder.line, what: "indirect call".to_owned() });
    }
    let function = match find_function(decoder.module, name) {
        Some(function) if function.body.is_some() => function,
        Some(_) => return Err(PtxError::Undefined { line: decoder.line, name: name.to_owned() }),
        None => return Err(PtxError::UnknownName { line: decoder.line, name: name.to_owned() }),
    };
    let frame = decoder.frame(function)?;
    if frame.returns.len() != returns.len() || frame.parameters.len() != arguments.len() {
        return Err(opcode.operand_error("wrong number of arguments or results"));
    }
    for (slot, argument) in frame.parameters.iter().zip(arguments) {
        match *slot {
            Slot::Local { offset, bytes } => copy(decoder, opcode, argument, offset, bytes, true)?,
            Slot::Register(register) => {
                let from = decoder.any_source(opcode, argument, register.class)?;
                if from.class != register.class {
                    return Err(opcode.operand_error("an argument has another width"));
                }
                transfer::emit_move(decoder, register, from);
            }
        }
    }
    decoder.call(function.name);
    decoder.emit(decoder.instruction(Operation::Call));
    for (slot, result) in frame.returns.iter().zip(returns) {
        match *slot {
            Slot::Local { offset, bytes } => copy(decoder, opcode, result, offset, bytes, false)?,
            Slot::Register(register) => {
                let to = decoder.any_destination(opcode, result, register.class)?;
                if to.class != register.class {
                    return Err(opcode.operand_error("a result has another width"));
                }
                transfer::emit_move(decoder, to, register);
            }
        }
    }
    Ok(())
}

/// Where in a thread's local memory a `.param` variable of the caller is.
pub(super) fn argument_offset<'a>(
    decoder: &mut Decoder<'a>,
    opcode: &Opcode<'a>,
    operand: &Operand<'a>,
    bytes: usize,
) -> Result<u32, PtxError> {
    let Operand::Name(name) = *operand else {
        return Err(opcode.operand_error("an argument must be a variable in .param space"));
    };
    match decoder.lookup(name) {
        Some(Binding::Local(offset, size)) if size == bytes => Ok(offset as u32),
        Some(Binding::Local(..)) => Err(opcode.operand_error("an argument has another size")),
        _ => Err(opcode.operand_error(&format!("`{name}` is no variable in .param space"))),
    }
}

/// Copies between a `.param` variable of the caller and a slot of the callee's frame.
fn copy<'a>(
    decoder: &mut Decoder<'a>,
    opcode: &Opcode<'a>,
    operand: &Operand<'a>,
    slot: u64,
    bytes: usize,
    into_slot: bool,
) -> Result<(), PtxError> {
    let variable = argument_offset(decoder, opcode, operand, bytes)?;
    let slot = slot as u32;
    let mut instruction = decoder.instruction(Operation::Run(copy_local()));
    let (from, to) = if into_slot { (variable, slot) } else { (slot, variable) };
    (instruction.a, instruction.d, instruction.value) = (from, to, bytes as i64);
    decoder.emit(instruction);
    Ok(())
}
