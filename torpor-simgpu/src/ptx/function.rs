//! Decodes a kernel's body and, behind it, those of the device functions that it reaches.
//!
//! Every function has one frame per thread, at a fixed place in local memory: so recursion is refused.

use std::collections::HashMap;

use super::decode::{Binding, Decoder, Scope, find_function};
use super::error::PtxError;
use super::instruction::Operation;
use super::program::Program;
use super::registers::{Class, Register};
use super::syntax::{Function, ModuleSyntax, Statement, Variable, VariableSpace};

/// Where a formal parameter or a return value lives.
#[derive(Debug, Clone, Copy)]
pub(super) enum Slot {
    Local { offset: u64, bytes: usize },
    Register(Register),
}

/// The frame of a device function.
#[derive(Debug, Clone, Default)]
pub(super) struct Frame {
    pub(super) returns: Vec<Slot>,
    pub(super) parameters: Vec<Slot>,
}

/// A reference to a label that may lie ahead.
struct Reference<'a> {
    line: u32,
    label: &'a str,
    scope: usize,
    place: Place,
}

/// Where the label's address goes.
#[derive(Clone, Copy)]
enum Place {
    /// `target` of an instruction.
    Target(usize),
    /// An element of the list of operands.
    Operand(usize),
}

/// What is known of functions and labels while a kernel is decoded.
#[derive(Default)]
pub(super) struct Functions<'a> {
    frames: HashMap<&'a str, Frame>,
    /// Functions in the order of their first call.
    reached: Vec<&'a str>,
    starts: HashMap<&'a str, u32>,
    /// Calls: caller, callee, index of the instruction.
    calls: Vec<(&'a str, &'a str, usize)>,
    current: &'a str,
    /// Whether the current function is the kernel.
    pub(super) in_kernel: bool,
    /// Bytes of the kernel's parameter block.
    pub(super) parameter_bytes: u64,
    /// Parent of each scope of the current function.
    parents: Vec<usize>,
    scope: usize,
    labels: HashMap<(usize, &'a str), u32>,
    references: Vec<Reference<'a>>,
    targets: HashMap<&'a str, Vec<&'a str>>,
}

/// Decodes a kernel of a module.
pub(super) fn decode_kernel<'a>(
    module: &'a ModuleSyntax<'a>,
    kernel: &'a Function<'a>,
) -> Result<Program, PtxError> {
    let mut decoder = Decoder::new(module);
    decoder.functions.in_kernel = true;
    decoder.body(kernel, |decoder| {
        let mut offset = 0usize;
        for parameter in &kernel.parameters {
            offset = offset.next_multiple_of(parameter.align);
            decoder.bind(parameter.name, Binding::Parameter(offset as u64));
            offset += parameter.bytes;
        }
        decoder.functions.parameter_bytes = offset as u64;
    })?;
    decoder.functions.in_kernel = false;
    let mut next = 0;
    while let Some(&name) = decoder.functions.reached.get(next) {
        next += 1;
        let Some(function) = find_function(module, name) else { continue };
        let frame = decoder.functions.frames.get(name).cloned().unwrap_or_default();
        decoder.body(function, |decoder| {
            let variables = function.returns.iter().chain(&function.parameters);
            for (variable, slot) in variables.zip(frame.returns.iter().chain(&frame.parameters)) {
                let binding = match *slot {
                    Slot::Local { offset, bytes } => Binding::Local(offset, bytes),
                    Slot::Register(register) => Binding::Register(register),
                };
                decoder.bind(variable.name, binding);
            }
        })?;
    }
    decoder.link_calls()?;
    Ok(decoder.finish())
}

impl<'a> Decoder<'a> {
    fn body(&mut self, function: &'a Function<'a>, bind: impl FnOnce(&mut Self)) -> Result<(), PtxError> {
        let start = self.program.code.len() as u32;
        self.functions.starts.insert(function.name, start);
        self.functions.current = function.name;
        self.functions.parents = vec![0];
        self.functions.scope = 0;
        self.functions.labels.clear();
        self.functions.targets.clear();
        self.scopes = vec![Scope::default()];
        bind(self);
        let statements = function.body.as_deref().unwrap_or_default();
        for statement in statements {
            if let Statement::Targets(name, labels) = statement {
                self.functions.targets.insert(name, labels.clone());
            }
        }
        let mut enclosing = Vec::new();
        for statement in statements {
            match statement {
                Statement::Open => {
                    enclosing.push(self.functions.scope);
                    self.functions.parents.push(self.functions.scope);
                    self.functions.scope = self.functions.parents.len() - 1;
                    self.scopes.push(Scope::default());
                }
                Statement::Close => {
                    self.functions.scope = enclosing.pop().unwrap_or(0);
                    self.scopes.pop();
                }
                Statement::Label(name) => {
                    let at = self.program.code.len() as u32;
                    self.functions.labels.insert((self.functions.scope, name), at);
                }
                Statement::Targets(..) => {}
                Statement::Variable(variable) => self.declare(variable)?,
                Statement::Instruction(instruction) => self.decode(instruction)?,
            }
        }
        // A label may stand before the closing brace, and a body may lack its `ret`.
        self.line = function.line;
        let mut end = self.instruction(Operation::Return);
        (end.guard, end.guard_invert) = (super::program::ALWAYS, 0);
        self.emit(end);
        self.link_labels()
    }

    /// Notes that the instruction about to be emitted jumps to a label.
    pub(super) fn jump_to(&mut self, label: &'a str) {
        let place = Place::Target(self.program.code.len());
        self.refer(label, place);
    }

    /// Appends the labels of a list of targets to the operands; where they start, and how many they are.
    pub(super) fn jump_to_any(&mut self, list: &str) -> Option<(u32, u32)> {
        let labels = self.functions.targets.get(list)?.clone();
        let start = self.program.operands.len();
        for label in &labels {
            let place = Place::Operand(self.program.operands.len());
            self.refer(label, place);
            self.program.operands.push(0);
        }
        Some((start as u32, labels.len() as u32))
    }

    fn refer(&mut self, label: &'a str, place: Place) {
        let reference = Reference { line: self.line, label, scope: self.functions.scope, place };
        self.functions.references.push(reference);
    }

    fn link_labels(&mut self) -> Result<(), PtxError> {
        for reference in std::mem::take(&mut self.functions.references) {
            let mut scope = reference.scope;
            let target = loop {
                if let Some(&target) = self.functions.labels.get(&(scope, reference.label)) {
                    break target;
                }
                if scope == 0 {
                    let name = reference.label.to_owned();
                    return Err(PtxError::UnknownName { line: reference.line, name });
                }
                scope = self.functions.parents[scope];
            };
            match reference.place {
                Place::Target(index) => self.program.code[index].target = target,
                Place::Operand(index) => self.program.operands[index] = target,
            }
        }
        Ok(())
    }

    /// The frame of a function, laid out at its first call.
    pub(super) fn frame(&mut self, function: &'a Function<'a>) -> Result<Frame, PtxError> {
        if let Some(frame) = self.functions.frames.get(function.name) {
            return Ok(frame.clone());
        }
        let frame = Frame {
            returns: function.returns.iter().map(|variable| self.slot(variable)).collect::<Result<_, _>>()?,
            parameters: function
                .parameters
                .iter()
                .map(|variable| self.slot(variable))
                .collect::<Result<_, _>>()?,
        };
        self.functions.reached.push(function.name);
        self.functions.frames.insert(function.name, frame.clone());
        Ok(frame)
    }

    fn slot(&mut self, variable: &Variable<'a>) -> Result<Slot, PtxError> {
        if variable.space == VariableSpace::Register {
            let class = Class::for_bits(variable.kind.bits).ok_or_else(|| PtxError::Unsupported {
                line: variable.line,
                what: ".reg parameter".to_owned(),
            })?;
            return Ok(Slot::Register(Register { class, index: self.scratch(class) }));
        }
        let offset = self.allocate_local(variable.bytes, variable.align);
        Ok(Slot::Local { offset, bytes: variable.bytes })
    }

    /// Notes that the instruction about to be emitted calls a function.
    pub(super) fn call(&mut self, callee: &'a str) {
        let at = self.program.code.len();
        self.functions.calls.push((self.functions.current, callee, at));
    }

    fn link_calls(&mut self) -> Result<(), PtxError> {
        let mut callees: HashMap<&str, Vec<&str>> = HashMap::new();
        for &(caller, callee, index) in &self.functions.calls {
            callees.entry(caller).or_default().push(callee);
            if let Some(&start) = self.functions.starts.get(callee) {
                self.program.code[index].target = start;
            }
        }
        for &name in &self.functions.reached {
            let (mut seen, mut open) = (Vec::new(), vec![name]);
            while let Some(function) = open.pop() {
                for &callee in callees.get(function).into_iter().flatten() {
                    if callee == name {
                        return Err(PtxError::Recursion { name: name.to_owned() });
                    }
                    if !seen.contains(&callee) {
                        seen.push(callee);
                        open.push(callee);
                    }
                }
            }
        }
        Ok(())
    }
}
