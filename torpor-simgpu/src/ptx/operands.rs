//! Operands of an instruction: registers, literals, addresses and names as registers.

use super::decode::{Binding, Decoder, Opcode, Value, find_function};
use super::error::PtxError;
use super::program::Constant;
use super::registers::{Class, Register};
use super::special::{self, Special};
use super::syntax::{Kind, Number, Operand, Type};

/// The memory operand of an instruction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address<'a> {
    /// The register with the address, to which `offset` is added.
    pub(super) base: Register,
    pub(super) offset: i64,
    /// The variable that was named, if any.
    pub(super) binding: Option<Binding<'a>>,
}

impl<'a> Decoder<'a> {
    /// The register that a name stands for.
    pub(super) fn register(&mut self, opcode: &Opcode<'_>, name: &'a str) -> Result<Register, PtxError> {
        match self.lookup(name) {
            Some(Binding::Register(register)) => Ok(register),
            Some(_) => Err(opcode.operand_error(&format!("`{name}` is no register"))),
            None => Err(PtxError::UnknownName { line: self.line, name: name.to_owned() }),
        }
    }

    /// A fresh register for results that nobody wants.
    pub(super) fn scratch(&mut self, class: Class) -> u32 {
        self.program.registers.take(class, 1)
    }

    /// The destination register at an operand position, of whatever class it is; `_` gets one of class `default`.
    pub(super) fn any_destination(
        &mut self,
        opcode: &Opcode<'a>,
        operand: &Operand<'a>,
        default: Class,
    ) -> Result<Register, PtxError> {
        match operand {
            Operand::Name("_") => Ok(Register { class: default, index: self.scratch(default) }),
            Operand::Name(name) => self.register(opcode, name),
            _ => Err(opcode.operand_error("the destination must be a register")),
        }
    }

    /// The destination register at an operand position.
    pub(super) fn destination(
        &mut self,
        opcode: &Opcode<'a>,
        index: usize,
        class: Class,
    ) -> Result<u32, PtxError> {
        let operand = opcode.operands.get(index).ok_or_else(|| opcode.operand_error("no destination"))?;
        let register = self.any_destination(opcode, operand, class)?;
        self.same_class(opcode, register, class)
    }

    fn same_class(&self, opcode: &Opcode<'_>, register: Register, class: Class) -> Result<u32, PtxError> {
        if register.class == class {
            return Ok(register.index);
        }
        let message =
            format!("expected a register of {} bits, found {}", class.bits(), register.class.bits());
        Err(opcode.operand_error(&message))
    }

    /// The register that holds the source at an operand position; literals and symbols get constant registers.
    pub(super) fn source(
        &mut self,
        opcode: &Opcode<'a>,
        index: usize,
        class: Class,
    ) -> Result<u32, PtxError> {
        let operand = opcode.operands.get(index).ok_or_else(|| opcode.operand_error("too few operands"))?;
        let register = self.any_source(opcode, operand, class)?;
        self.same_class(opcode, register, class)
    }

    /// As [`source`](Self::source), but a register may have another class than the type of the instruction.
    pub(super) fn any_source(
        &mut self,
        opcode: &Opcode<'a>,
        operand: &Operand<'a>,
        class: Class,
    ) -> Result<Register, PtxError> {
        let (name, offset) = match *operand {
            Operand::Number(number) => {
                let bits =
                    literal(number, class).ok_or_else(|| opcode.operand_error("literal of another type"))?;
                return Ok(Register { class, index: self.bits(class, bits) });
            }
            Operand::Name(name) => (name, 0),
            Operand::Sum(name, offset) => (name, offset),
            _ => return Err(opcode.operand_error("expected a register, a literal or a symbol")),
        };
        if let Some(special) = Special::named(name) {
            return Ok(Register {
                class,
                index: self.constant(class, Value::Known(Constant::Special(special))),
            });
        }
        let module = self.module;
        let binding = self.lookup(name).or_else(|| {
            let function = find_function(module, name)?;
            function.body.is_some().then_some(Binding::Global(function.name))
        });
        match binding {
            Some(Binding::Register(register)) if offset == 0 => Ok(register),
            Some(binding) if class == Class::B64 || class == Class::B32 => {
                Ok(Register { class, index: self.address_of(binding, offset, class) })
            }
            Some(_) => Err(opcode.operand_error("an address needs a register of 32 or 64 bits")),
            None => Err(special::unknown(self, name)),
        }
    }

    /// The constant register with the address of a variable in its own space.
    fn address_of(&mut self, binding: Binding<'a>, offset: i64, class: Class) -> u32 {
        let value = match binding {
            Binding::Register(register) => return register.index,
            Binding::Local(at, _) | Binding::Shared(at) | Binding::Parameter(at) => {
                Value::Known(Constant::Bits(at.wrapping_add_signed(offset)))
            }
            Binding::DynamicShared => Value::DynamicShared(offset),
            Binding::Global(name) => {
                let next = self.globals.len() as u32;
                let index = *self.globals.entry(name).or_insert(next);
                if index == next {
                    self.program.globals.push(name.to_owned());
                }
                Value::Known(Constant::Global(index, offset))
            }
        };
        self.constant(class, value)
    }

    /// The predicate at an operand position, and whether it is negated.
    pub(super) fn predicate(&mut self, opcode: &Opcode<'a>, index: usize) -> Result<(u32, bool), PtxError> {
        match opcode.operands.get(index) {
            Some(Operand::Not(name)) => {
                let register = self.register(opcode, name)?;
                Ok((self.same_class(opcode, register, Class::Predicate)?, true))
            }
            _ => Ok((self.source(opcode, index, Class::Predicate)?, false)),
        }
    }

    /// The memory operand at an operand position.
    pub(super) fn address(&mut self, opcode: &Opcode<'a>, index: usize) -> Result<Address<'a>, PtxError> {
        let (name, offset) = match opcode.operands.get(index) {
            Some(&Operand::Address(name, offset)) => (name, offset),
            Some(&Operand::Absolute(address)) => {
                let base = Register { class: Class::B64, index: self.bits(Class::B64, address) };
                return Ok(Address { base, offset: 0, binding: None });
            }
            _ => return Err(opcode.operand_error("expected an address in brackets")),
        };
        match self.lookup(name) {
            Some(Binding::Register(base)) if matches!(base.class, Class::B32 | Class::B64) => {
                Ok(Address { base, offset, binding: None })
            }
            Some(Binding::Register(_)) => Err(opcode.operand_error("an address has 32 or 64 bits")),
            Some(binding) => {
                let base = Register { class: Class::B64, index: self.address_of(binding, 0, Class::B64) };
                Ok(Address { base, offset, binding: Some(binding) })
            }
            None => Err(PtxError::UnknownName { line: self.line, name: name.to_owned() }),
        }
    }
}

/// A literal's bits in a register of a class.
fn literal(number: Number, class: Class) -> Option<u64> {
    let kind = match (class, number) {
        (Class::Predicate, _) => Kind::Predicate,
        (Class::B32 | Class::B64, Number::Single(_) | Number::Double(_)) => Kind::Float,
        _ => Kind::Bits,
    };
    number.bits(Type { kind, bits: class.bits() })
}
