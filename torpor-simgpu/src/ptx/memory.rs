//! `ld` and `st` in every space, with vectors.
//!
//! Every access is a relaxed atomic one: threads of a kernel may race, and then see some value, as on a GPU.
//! Volatile, relaxed, acquire and release make no difference, because the warps of a block run on one host thread and
//! fences between blocks are executed as such.

use super::address::{Accesses, Place, Space, Word};
use super::decode::{Binding, Decoder, Opcode};
use super::error::PtxError;
use super::instruction::{Failure, Handler, Instruction, Operation, active, handler};
use super::launch::Context;
use super::operands::Address;
use super::registers::{Class, LANES, Lane};
use super::space::Access;
use super::syntax::{Kind, Operand};
use super::warp::Warp;

/// Reads a word at a place, `offset` bytes further on.
#[inline(always)]
pub(super) fn read<M: Word>(warp: &Warp, context: &Context<'_>, place: Place, offset: usize) -> M {
    match place {
        // SAFETY: `Accesses::place` has checked alignment and asked `DeviceMemory` for the whole access, of which the
        // word at `offset` is a part; memory stays valid until the launch returns.
        Place::Host(host) => unsafe { M::load(host.add(offset)) },
        Place::Shared(at) => M::get(&context.shared, at + offset),
        Place::Local(at) => M::get(&warp.local, at + offset),
        Place::Parameter(at) => M::get(context.launch.parameters, at + offset),
    }
}

/// Writes a word at a place, `offset` bytes further on; the parameters cannot be written.
#[inline(always)]
pub(super) fn write<M: Word>(
    warp: &mut Warp,
    context: &mut Context<'_>,
    place: Place,
    offset: usize,
    value: M,
) {
    match place {
        // SAFETY: as in `read`.
        Place::Host(host) => unsafe { value.store(host.add(offset)) },
        Place::Shared(at) => value.put(&mut context.shared, at + offset),
        Place::Local(at) => value.put(&mut warp.local, at + offset),
        Place::Parameter(_) => {}
    }
}

#[inline(always)]
fn load<M: Word, D: Lane, const ELEMENTS: usize>(
    warp: &mut Warp,
    context: &mut Context<'_>,
    instruction: &Instruction,
    mask: u32,
    extend: impl Fn(M) -> D,
) -> Result<(), Box<Failure>> {
    let registers = &context.program.operands[instruction.list as usize..][..ELEMENTS];
    let bytes = M::BYTES * ELEMENTS;
    let mut accesses = Accesses::new(&warp.registers, instruction, mask, bytes, Access::Read);
    let mut values = [[D::default(); LANES]; ELEMENTS];
    for lane in active(mask) {
        let place = accesses
            .place(context, warp.local.len(), lane)
            .map_err(|cause| Box::new(Failure { lane: lane as u32, cause }))?;
        for (element, values) in values.iter_mut().enumerate() {
            values[lane] = extend(read(warp, context, place, element * M::BYTES));
        }
    }
    for (&register, values) in registers.iter().zip(&values) {
        D::write(&mut warp.registers, register, mask, values);
    }
    Ok(())
}

#[inline(always)]
fn store<M: Word, S: Lane, const ELEMENTS: usize>(
    warp: &mut Warp,
    context: &mut Context<'_>,
    instruction: &Instruction,
    mask: u32,
    truncate: impl Fn(S) -> M,
) -> Result<(), Box<Failure>> {
    let registers = &context.program.operands[instruction.list as usize..][..ELEMENTS];
    let bytes = M::BYTES * ELEMENTS;
    let mut accesses = Accesses::new(&warp.registers, instruction, mask, bytes, Access::Write);
    let mut values = [[S::default(); LANES]; ELEMENTS];
    for (&register, values) in registers.iter().zip(&mut values) {
        *values = S::read(&warp.registers, register);
    }
    for lane in active(mask) {
        let place = accesses
            .place(context, warp.local.len(), lane)
            .map_err(|cause| Box::new(Failure { lane: lane as u32, cause }))?;
        for (element, values) in values.iter().enumerate() {
            write(warp, context, place, element * M::BYTES, truncate(values[lane]));
        }
    }
    Ok(())
}

/// The load of a memory type into a class of registers; nothing if the registers are too narrow.
fn load_handler(bits: u32, signed: bool, class: Class) -> Option<Handler> {
    macro_rules! load {
        ($memory:ty, $register:ty, |$value:ident| $extend:expr) => {
            handler!(|warp, context, instruction, mask| {
                match instruction.list_length {
                    1 => load::<$memory, $register, 1>(warp, context, instruction, mask, |$value| $extend),
                    2 => load::<$memory, $register, 2>(warp, context, instruction, mask, |$value| $extend),
                    _ => load::<$memory, $register, 4>(warp, context, instruction, mask, |$value| $extend),
                }
            })
        };
    }
    Some(match (bits, signed, class) {
        (8, false, Class::B16) => load!(u8, u16, |value| u16::from(value)),
        (8, false, Class::B32) => load!(u8, u32, |value| u32::from(value)),
        (8, false, Class::B64) => load!(u8, u64, |value| u64::from(value)),
        (8, true, Class::B16) => load!(u8, i16, |value| i16::from(value.cast_signed())),
        (8, true, Class::B32) => load!(u8, i32, |value| i32::from(value.cast_signed())),
        (8, true, Class::B64) => load!(u8, i64, |value| i64::from(value.cast_signed())),
        (16, _, Class::B16) => load!(u16, u16, |value| value),
        (16, false, Class::B32) => load!(u16, u32, |value| u32::from(value)),
        (16, false, Class::B64) => load!(u16, u64, |value| u64::from(value)),
        (16, true, Class::B32) => load!(u16, i32, |value| i32::from(value.cast_signed())),
        (16, true, Class::B64) => load!(u16, i64, |value| i64::from(value.cast_signed())),
        (32, _, Class::B32) => load!(u32, u32, |value| value),
        (32, false, Class::B64) => load!(u32, u64, |value| u64::from(value)),
        (32, true, Class::B64) => load!(u32, i64, |value| i64::from(value.cast_signed())),
        (64, _, Class::B64) => load!(u64, u64, |value| value),
        _ => return None,
    })
}

/// The store of the low bits of a class of registers.
fn store_handler(bits: u32, class: Class) -> Option<Handler> {
    macro_rules! store {
        ($memory:ty, $register:ty) => {
            handler!(|warp, context, instruction, mask| {
                match instruction.list_length {
                    1 => store::<$memory, $register, 1>(warp, context, instruction, mask, |value| {
                        value as $memory
                    }),
                    2 => store::<$memory, $register, 2>(warp, context, instruction, mask, |value| {
                        value as $memory
                    }),
                    _ => store::<$memory, $register, 4>(warp, context, instruction, mask, |value| {
                        value as $memory
                    }),
                }
            })
        };
    }
    Some(match (bits, class) {
        (8, Class::B16) => store!(u8, u16),
        (8, Class::B32) => store!(u8, u32),
        (8, Class::B64) => store!(u8, u64),
        (16, Class::B16) => store!(u16, u16),
        (16, Class::B32) => store!(u16, u32),
        (16, Class::B64) => store!(u16, u64),
        (32, Class::B32) => store!(u32, u32),
        (32, Class::B64) => store!(u32, u64),
        (64, Class::B64) => store!(u64, u64),
        _ => return None,
    })
}

/// A load whose address is the same in every lane: kernel parameters.
fn load_uniform(bits: u32) -> Handler {
    macro_rules! splat {
        ($type:ty) => {
            handler!(|warp, context, instruction, mask| {
                let at = instruction.value as usize;
                let operands = &context.program.operands[instruction.list as usize..];
                for (element, &register) in operands[..instruction.list_length as usize].iter().enumerate() {
                    let value = <$type>::get(context.launch.parameters, at + element * size_of::<$type>());
                    <$type>::write(&mut warp.registers, register, mask, &[value; LANES]);
                }
                Ok(())
            })
        };
    }
    match bits {
        16 => splat!(u16),
        32 => splat!(u32),
        _ => splat!(u64),
    }
}

/// Takes the modifiers that name the space; generic if there are none.
pub(super) fn take_space(opcode: &mut Opcode<'_>) -> Result<Option<&'static str>, PtxError> {
    if opcode.take_any(&["shared::cluster"]).is_some() {
        return Err(opcode.unsupported());
    }
    let names = ["global", "shared", "shared::cta", "local", "const", "param", "param::entry", "param::func"];
    Ok(opcode.take_any(&names))
}

/// The space of an access, from its modifier and its address.
pub(super) fn space_of(decoder: &Decoder<'_>, name: Option<&str>, address: &Address<'_>) -> Space {
    match name {
        Some("shared" | "shared::cta") => Space::Shared,
        Some("local" | "param::func") => Space::Local,
        Some("param" | "param::entry") => match address.binding {
            Some(Binding::Parameter(_)) => Space::Parameter,
            Some(_) => Space::Local,
            None if decoder.functions.in_kernel => Space::Parameter,
            None => Space::Local,
        },
        Some(_) => Space::Global,
        None => match address.binding {
            Some(Binding::Shared(_) | Binding::DynamicShared) => Space::Shared,
            Some(Binding::Local(..)) => Space::Local,
            Some(Binding::Parameter(_)) => Space::Parameter,
            _ => Space::Generic,
        },
    }
}

/// Drops what says how memory is cached or ordered: the interpreter's memory is always coherent.
pub(super) fn ignore_order(opcode: &mut Opcode<'_>) {
    opcode.ignore(|modifier| {
        matches!(
            modifier,
            "volatile"
                | "weak"
                | "relaxed"
                | "acquire"
                | "release"
                | "acq_rel"
                | "sc"
                | "mmio"
                | "cta"
                | "cluster"
                | "gpu"
                | "sys"
                | "nc"
                | "ca"
                | "cg"
                | "cs"
                | "lu"
                | "cv"
                | "wb"
                | "wt"
                | "unified"
                | "noftz"
        ) || modifier.starts_with("L1::")
            || modifier.starts_with("L2::")
    });
}

/// `ld`, `ldu`, `st`.
pub(super) fn decode<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    let is_store = opcode.name == "st";
    ignore_order(opcode);
    let space = take_space(opcode)?;
    let elements = match opcode.take_any(&["v2", "v4"]) {
        Some("v2") => 2,
        Some(_) => 4,
        None => 1,
    };
    let kind = opcode.take_type()?;
    opcode.finish()?;
    if kind.bytes() * elements > 32 || kind.kind == Kind::Predicate {
        return Err(opcode.unsupported());
    }
    let (address_at, value_at) = if is_store { (0, 1) } else { (1, 0) };
    let address = decoder.address(opcode, address_at)?;
    let class = Class::for_bits(kind.bits).ok_or_else(|| opcode.unsupported())?;
    let value =
        opcode.operands.get(value_at).ok_or_else(|| opcode.operand_error("too few operands"))?.clone();
    let values = match value {
        Operand::Vector(values) => values,
        value => vec![value],
    };
    if values.len() != elements {
        return Err(opcode.operand_error("the vector has another length"));
    }
    let mut registers = Vec::with_capacity(elements);
    for operand in &values {
        registers.push(if is_store {
            decoder.any_source(opcode, operand, class)?
        } else {
            decoder.any_destination(opcode, operand, class)?
        });
    }
    // `_` among wider registers got the narrow class: give it theirs.
    let class =
        registers.iter().map(|register| register.class).max_by_key(|class| class.bits()).unwrap_or(class);
    for register in &mut registers {
        if register.class != class {
            if is_store {
                return Err(opcode.operand_error("registers of different widths"));
            }
            register.index = decoder.scratch(class);
        }
    }
    let space = space_of(decoder, space, &address);
    let uniform = !is_store
        && class.bits() == kind.bits
        && space == Space::Parameter
        && matches!(address.binding, Some(Binding::Parameter(_)));
    let handler = if uniform {
        Some(load_uniform(kind.bits))
    } else if is_store {
        store_handler(kind.bits, class)
    } else {
        load_handler(kind.bits, kind.kind == Kind::Signed, class)
    };
    let handler = handler.ok_or_else(|| opcode.operand_error("the register is too narrow"))?;
    let mut instruction = decoder.instruction(Operation::Run(handler));
    instruction.a = address.base.index;
    instruction.b = u32::from(address.base.class == Class::B64);
    instruction.value = address.offset;
    if let (true, Some(Binding::Parameter(at))) = (uniform, address.binding) {
        let offset = at.wrapping_add_signed(address.offset);
        let end = offset.saturating_add((kind.bytes() * elements) as u64);
        if end > decoder.functions.parameter_bytes {
            return Err(opcode.operand_error("beyond the kernel's parameters"));
        }
        instruction.value = offset.cast_signed();
    }
    instruction.e = space.code();
    instruction.list = decoder.program.operands.len() as u32;
    instruction.list_length = elements as u32;
    decoder.program.operands.extend(registers.iter().map(|register| register.index));
    decoder.emit(instruction);
    Ok(())
}
