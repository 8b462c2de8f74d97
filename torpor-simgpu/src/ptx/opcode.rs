//! An opcode taken apart: the name, the modifiers and the operands of one instruction.

use super::error::PtxError;
use super::syntax::{InstructionSyntax, Operand, Type};

/// An opcode under decoding: modifiers are taken one by one, and [`finish`](Self::finish) refuses what is left.
pub(super) struct Opcode<'a> {
    pub(super) text: &'a str,
    pub(super) name: &'a str,
    modifiers: Vec<&'a str>,
    pub(super) operands: Vec<Operand<'a>>,
    line: u32,
}

impl<'a> Opcode<'a> {
    pub(super) fn new(syntax: &InstructionSyntax<'a>) -> Self {
        let mut parts = syntax.text.split('.');
        Self {
            text: syntax.text,
            name: parts.next().unwrap_or_default(),
            modifiers: parts.collect(),
            operands: syntax.operands.clone(),
            line: syntax.line,
        }
    }

    /// Takes a modifier if it is there.
    pub(super) fn take(&mut self, modifier: &str) -> bool {
        let at = self.modifiers.iter().position(|&found| found == modifier);
        at.is_some_and(|at| {
            self.modifiers.remove(at);
            true
        })
    }

    /// Takes the first modifier of a list that is there.
    pub(super) fn take_any(&mut self, modifiers: &[&'static str]) -> Option<&'static str> {
        modifiers.iter().copied().find(|modifier| self.take(modifier))
    }

    /// Takes a modifier that must be there.
    pub(super) fn require(&mut self, modifier: &str) -> Result<(), PtxError> {
        if self.take(modifier) { Ok(()) } else { Err(self.unsupported()) }
    }

    /// Takes the first modifier that names a type.
    pub(super) fn take_type(&mut self) -> Result<Type, PtxError> {
        let at = self.modifiers.iter().position(|modifier| Type::named(modifier).is_some());
        let kind = at.and_then(|at| Type::named(self.modifiers.remove(at)));
        kind.ok_or_else(|| self.unsupported())
    }

    /// Whether a modifier is left that names a type of this kind.
    pub(super) fn next_type(&self) -> Option<Type> {
        self.modifiers.iter().find_map(|modifier| Type::named(modifier))
    }

    /// Drops modifiers that say nothing to an interpreter, such as cache hints.
    pub(super) fn ignore(&mut self, useless: impl Fn(&str) -> bool) {
        self.modifiers.retain(|modifier| !useless(modifier));
    }

    /// The error for an instruction that the interpreter lacks.
    pub(super) fn unsupported(&self) -> PtxError {
        PtxError::Unsupported { line: self.line, what: self.text.to_owned() }
    }

    /// The error for an operand that does not fit.
    pub(super) fn operand_error(&self, message: &str) -> PtxError {
        PtxError::Operand { line: self.line, instruction: self.text.to_owned(), message: message.to_owned() }
    }

    /// Refuses modifiers that nobody took.
    pub(super) fn finish(&self) -> Result<(), PtxError> {
        if self.modifiers.is_empty() { Ok(()) } else { Err(self.unsupported()) }
    }
}
