//! `tex`, `suld.b` and `sust.b`: what is read through texture objects, and what is read and written through surface objects.
//!
//! What a handle stands for is asked of [`DeviceMemory`](super::DeviceMemory). Limits: handles in registers alone; no gradients,
//! no offsets, no cubes, and no formatted surface instructions.

use super::address::Word;
use super::decode::{Binding, Decoder, Opcode};
use super::error::PtxError;
use super::instruction::{Cause, Failure, Handler, Operation, active, handler};
use super::registers::{Class, LANES, Lane, Register};
use super::space::{Access, SurfacePlace, TexturePlace};
use super::syntax::{Kind, Operand};

/// Parts of an instruction's `value`.
const DIMENSIONS: i64 = 3;
const LAYERED: i64 = 4;
const ELEMENTS: i64 = 8;
const LEVEL: i64 = 16;
/// Of a surface instruction: what happens outside.
const CLAMP: i64 = 8;
const TRAP: i64 = 16;

/// Why a lane stopped.
fn failure(lane: usize, fault: super::error::MemoryFault) -> Box<Failure> {
    Box::new(Failure { lane: lane as u32, cause: Cause::Memory(fault) })
}

fn fetch() -> Handler {
    handler!(|warp, context, instruction, mask| {
        let flags = instruction.value;
        let (dimensions, layered) = ((flags & DIMENSIONS) as usize, flags & LAYERED != 0);
        let textures = u64::read(&warp.registers, instruction.a);
        let levels = f32::read(&warp.registers, instruction.b);
        let operands = &context.program.operands[instruction.list as usize..];
        let (results, coordinates) = operands[..instruction.list_length as usize].split_at(4);
        let mut values = [[0_u32; LANES]; 4];
        let mut given = [[0_u32; LANES]; 4];
        for (given, &register) in given.iter_mut().zip(coordinates) {
            *given = u32::read(&warp.registers, register);
        }
        for lane in active(mask) {
            let mut place = TexturePlace { dimensions, ..TexturePlace::default() };
            let first = usize::from(layered);
            place.layer = layered.then_some(given[0][lane]);
            if flags & LEVEL != 0 {
                place.level = levels[lane];
            }
            let bits: [u32; 3] =
                std::array::from_fn(|at| given.get(first + at).map_or(0, |given| given[lane]));
            if flags & ELEMENTS != 0 {
                place.elements = Some(bits.map(u32::cast_signed));
            } else {
                place.coordinates = bits.map(f32::from_bits);
            }
            let texel =
                context.launch.memory.fetch(textures[lane], &place).map_err(|fault| failure(lane, fault))?;
            for (values, channel) in values.iter_mut().zip(texel) {
                values[lane] = channel;
            }
        }
        for (&register, values) in results.iter().zip(&values) {
            u32::write(&mut warp.registers, register, mask, values);
        }
        Ok(())
    })
}

/// Reads or writes so many elements of a type at the place of each lane.
macro_rules! surface {
    ($memory:ty, $register:ty, $is_store:expr) => {
        handler!(|warp, context, instruction, mask| {
            let flags = instruction.value;
            let surfaces = u64::read(&warp.registers, instruction.a);
            let operands = &context.program.operands[instruction.list as usize..];
            let count = instruction.b as usize;
            let (elements, coordinates) = operands[..instruction.list_length as usize].split_at(count);
            let mut given = [[0_i32; LANES]; 4];
            for (given, &register) in given.iter_mut().zip(coordinates) {
                *given = i32::read(&warp.registers, register);
            }
            let mut values = [[<$register>::default(); LANES]; 4];
            if $is_store {
                for (values, &register) in values.iter_mut().zip(elements) {
                    *values = <$register>::read(&warp.registers, register);
                }
            }
            let (access, dimensions) =
                (if $is_store { Access::Write } else { Access::Read }, (flags & DIMENSIONS) as usize);
            for lane in active(mask) {
                // A layer comes first in the instruction.
                let at = |index: usize| given[index][lane];
                let at = match (dimensions, flags & LAYERED != 0) {
                    (1, true) => [at(1), 0, at(0)],
                    (_, true) => [at(1), at(2), at(0)],
                    (dimensions, false) => std::array::from_fn(|index| if index < dimensions { at(index) } else { 0 }),
                };
                let bytes = <$memory>::BYTES * count;
                let place = SurfacePlace { at, bytes, is_clamped: flags & CLAMP != 0 };
                let found = context.launch.memory.surface(surfaces[lane], &place, access);
                let Some(host) = found.map_err(|fault| failure(lane, fault))? else {
                    if flags & TRAP != 0 {
                        let reason = "outside the surface";
                        let (address, access) = (surfaces[lane], access);
                        let fault = super::error::MemoryFault { address, bytes, access, reason };
                        return Err(failure(lane, fault));
                    }
                    continue;
                };
                for (index, values) in values[..count].iter_mut().enumerate() {
                    // SAFETY: `DeviceMemory::surface` gave memory for all elements, as aligned as the offset in the row, which
                    // it has checked; it stays valid until the launch returns.
                    unsafe {
                        let element = host.add(index * <$memory>::BYTES);
                        if $is_store {
                            (values[lane] as $memory).store(element);
                        } else {
                            values[lane] = <$register>::from(<$memory>::load(element));
                        }
                    }
                }
            }
            if !$is_store {
                for (&register, values) in elements.iter().zip(&values) {
                    <$register>::write(&mut warp.registers, register, mask, values);
                }
            }
            Ok(())
        })
    };
}

fn surface_handler(bits: u32, is_store: bool) -> Option<Handler> {
    Some(match (bits, is_store) {
        (8, false) => surface!(u8, u16, false),
        (8, true) => surface!(u8, u16, true),
        (16, false) => surface!(u16, u16, false),
        (16, true) => surface!(u16, u16, true),
        (32, false) => surface!(u32, u32, false),
        (32, true) => surface!(u32, u32, true),
        (64, false) => surface!(u64, u64, false),
        (64, true) => surface!(u64, u64, true),
        _ => return None,
    })
}

/// Takes the modifier that names the dimensions: as flags, and how many coordinates there are with the layer.
fn take_geometry(opcode: &mut Opcode<'_>) -> Result<(i64, usize), PtxError> {
    Ok(match opcode.take_any(&["1d", "2d", "3d", "a1d", "a2d"]) {
        Some("1d") => (1, 1),
        Some("2d") => (2, 2),
        Some("3d") => (3, 3),
        Some("a1d") => (1 | LAYERED, 2),
        Some("a2d") => (2 | LAYERED, 3),
        _ => return Err(opcode.unsupported()),
    })
}

/// The register with the handle, and those with the coordinates.
fn place<'a>(
    decoder: &mut Decoder<'a>,
    opcode: &Opcode<'a>,
    index: usize,
    count: usize,
) -> Result<(u32, Vec<u32>), PtxError> {
    let Some(Operand::Coordinates(name, coordinates)) = opcode.operands.get(index) else {
        return Err(opcode.operand_error("expected a handle and coordinates in brackets"));
    };
    let Some(Binding::Register(Register { class: Class::B64, index })) = decoder.lookup(name) else {
        return Err(opcode.operand_error("a handle is in a register of 64 bits"));
    };
    if coordinates.len() < count {
        return Err(opcode.operand_error("too few coordinates"));
    }
    let mut registers = Vec::new();
    for coordinate in &coordinates[..count] {
        registers.push(decoder.any_source(opcode, coordinate, Class::B32)?.index);
    }
    Ok((index, registers))
}

/// `tex`, `suld`, `sust`.
pub(super) fn decode<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    if opcode.name == "tex" { texture(decoder, opcode) } else { surface(decoder, opcode) }
}

fn texture<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    let has_level = opcode.take("level");
    let (mut flags, count) = take_geometry(opcode)?;
    opcode.require("v4")?;
    let (result, coordinate) = (opcode.take_type()?, opcode.take_type()?);
    opcode.finish()?;
    if result.bits != 32 || coordinate.bits != 32 {
        return Err(opcode.unsupported());
    }
    let Some(Operand::Vector(results)) = opcode.operands.first().cloned() else {
        return Err(opcode.operand_error("the destination must be a vector"));
    };
    let mut registers = Vec::new();
    for operand in &results {
        let register = decoder.any_destination(opcode, operand, Class::B32)?;
        if register.class != Class::B32 {
            return Err(opcode.operand_error("expected registers of 32 bits"));
        }
        registers.push(register.index);
    }
    if registers.len() != 4 {
        return Err(opcode.operand_error("the vector has another length"));
    }
    let (handle, coordinates) = place(decoder, opcode, 1, count)?;
    let level = match has_level {
        true => decoder.source(opcode, 2, Class::B32)?,
        false => decoder.zero(Class::B32),
    };
    flags |= if coordinate.kind == Kind::Float { 0 } else { ELEMENTS };
    flags |= if has_level && coordinate.kind == Kind::Float { LEVEL } else { 0 };
    registers.extend(coordinates);
    let mut instruction = decoder.instruction(Operation::Run(fetch()));
    (instruction.a, instruction.b, instruction.value) = (handle, level, flags);
    emit(decoder, instruction, &registers);
    Ok(())
}

fn surface<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    let is_store = opcode.name == "sust";
    opcode.require("b")?;
    let (mut flags, count) = take_geometry(opcode)?;
    let elements = match opcode.take_any(&["v2", "v4"]) {
        Some("v2") => 2,
        Some(_) => 4,
        None => 1,
    };
    let kind = opcode.take_type()?;
    flags |= match opcode.take_any(&["clamp", "trap", "zero"]) {
        Some("clamp") => CLAMP,
        Some("trap") => TRAP,
        _ => 0,
    };
    super::memory::ignore_order(opcode);
    opcode.finish()?;
    let class = Class::for_bits(kind.bits).ok_or_else(|| opcode.unsupported())?;
    let (place_at, value_at) = if is_store { (0, 1) } else { (1, 0) };
    let values = match opcode.operands.get(value_at).cloned() {
        Some(Operand::Vector(values)) => values,
        Some(value) => vec![value],
        None => return Err(opcode.operand_error("too few operands")),
    };
    if values.len() != elements {
        return Err(opcode.operand_error("the vector has another length"));
    }
    let mut registers = Vec::new();
    for operand in &values {
        let register = match is_store {
            true => decoder.any_source(opcode, operand, class)?,
            false => decoder.any_destination(opcode, operand, class)?,
        };
        if register.class != class {
            return Err(opcode.operand_error("registers of another width"));
        }
        registers.push(register.index);
    }
    let (handle, coordinates) = place(decoder, opcode, place_at, count)?;
    registers.extend(coordinates);
    let handler = surface_handler(kind.bits, is_store).ok_or_else(|| opcode.unsupported())?;
    let mut instruction = decoder.instruction(Operation::Run(handler));
    (instruction.a, instruction.b, instruction.value) = (handle, elements as u32, flags);
    emit(decoder, instruction, &registers);
    Ok(())
}

fn emit(decoder: &mut Decoder<'_>, mut instruction: super::instruction::Instruction, registers: &[u32]) {
    instruction.list = decoder.program.operands.len() as u32;
    instruction.list_length = registers.len() as u32;
    decoder.program.operands.extend_from_slice(registers);
    decoder.emit(instruction);
}
