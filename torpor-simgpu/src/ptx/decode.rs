//! Syntax tree to program: resolves names, lays out registers and memory, and sends each instruction to the file of
//! its family.

use std::collections::HashMap;

use super::error::PtxError;
use super::instruction::{Handler, Instruction, Operation};
pub(super) use super::opcode::Opcode;
use super::program::{ALWAYS, Constant, Program};
use super::registers::{Class, Counts, Register};
use super::space::SHARED_BASE;
use super::special::{self, Special};
use super::syntax::{
    Function, InstructionSyntax, Kind, ModuleSyntax, Number, Operand, Type, Variable, VariableSpace,
};
use super::{
    arithmetic, atomic, barrier, bits, compare, control, convert, half, memory, real, shuffle, texture,
    transfer,
};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binding<'a> {
    Register(Register),
    /// Offset in a thread's local memory, and bytes.
    Local(u64, usize),
    Shared(u64),
    DynamicShared,
    Global(&'a str),
    /// Offset in the kernel's parameter block.
    Parameter(u64),
}

/// The memory operand of an instruction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address<'a> {
    /// The register with the address, to which `offset` is added.
    pub(super) base: Register,
    pub(super) offset: i64,
    /// The variable that was named, if any.
    pub(super) binding: Option<Binding<'a>>,
}

/// The value of a constant register while its program is being decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Value {
    Known(Constant),
    /// Start of dynamic shared memory, plus an offset: known when all static variables are.
    DynamicShared(i64),
}

/// Names declared between a pair of braces.
#[derive(Default)]
pub(super) struct Scope<'a> {
    names: HashMap<&'a str, Binding<'a>>,
    /// `%r<10>`: prefix to class, first index, count.
    ranges: HashMap<&'a str, (Class, u32, u32)>,
}

/// The state of decoding one kernel and the functions that it reaches.
pub(super) struct Decoder<'a> {
    pub(super) module: &'a ModuleSyntax<'a>,
    pub(super) program: Program,
    pub(super) scopes: Vec<Scope<'a>>,
    /// Line of the current instruction.
    pub(super) line: u32,
    guard: (u32, u32),
    constants: HashMap<(Class, Value), u32>,
    globals: HashMap<&'a str, u32>,
    shared: HashMap<&'a str, u64>,
    pub(super) functions: super::function::Functions<'a>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(module: &'a ModuleSyntax<'a>) -> Self {
        let program = Program {
            code: Vec::new(),
            operands: Vec::new(),
            registers: Counts { predicates: 2, ..Counts::default() },
            constants: Vec::new(),
            globals: Vec::new(),
            static_shared_bytes: 0,
            local_bytes: 0,
        };
        Self {
            module,
            program,
            scopes: Vec::new(),
            line: 0,
            guard: (ALWAYS, 0),
            constants: HashMap::new(),
            globals: HashMap::new(),
            shared: HashMap::new(),
            functions: super::function::Functions::default(),
        }
    }

    /// Decodes one instruction.
    pub(super) fn decode(&mut self, syntax: &InstructionSyntax<'a>) -> Result<(), PtxError> {
        self.line = syntax.line;
        let mut opcode = Opcode::new(syntax);
        self.guard = (ALWAYS, 0);
        if let Some((name, negated)) = syntax.guard {
            let register = self.register(&opcode, name)?;
            if register.class != Class::Predicate {
                return Err(opcode.operand_error("the guard must be a predicate"));
            }
            self.guard = (register.index, if negated { u32::MAX } else { 0 });
        }
        let opcode = &mut opcode;
        match opcode.name {
            "add" | "sub" | "mul" | "fma" | "neg" | "abs" | "min" | "max" | "div" | "mad" | "ex2"
            | "tanh" => match opcode.next_type() {
                Some(Type { kind: Kind::Float, bits: 32 | 64 }) => real::decode(self, opcode),
                Some(Type {
                    kind: Kind::Float | Kind::BrainFloat | Kind::FloatPair | Kind::BrainFloatPair,
                    ..
                }) => half::decode(self, opcode),
                _ => arithmetic::decode(self, opcode),
            },
            "rem" | "sad" | "mul24" | "mad24" | "addc" | "subc" | "madc" | "dp4a" | "dp2a" => {
                arithmetic::decode(self, opcode)
            }
            "sqrt" | "rsqrt" | "rcp" | "lg2" | "sin" | "cos" | "copysign" | "testp" => {
                real::decode(self, opcode)
            }
            "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "lop3" | "bfe" | "bfi" | "popc"
            | "clz" | "brev" | "bfind" | "prmt" | "shf" | "bmsk" | "szext" | "fns" => {
                bits::decode(self, opcode)
            }
            "setp" | "set" | "selp" | "slct" => compare::decode(self, opcode),
            "cvt" => convert::decode(self, opcode),
            "mov" | "cvta" | "isspacep" | "prefetch" | "prefetchu" | "membar" | "fence" | "discard"
            | "applypriority" | "createpolicy" | "griddepcontrol" | "pmevent" => {
                transfer::decode(self, opcode)
            }
            "ld" | "ldu" | "st" => memory::decode(self, opcode),
            "tex" | "suld" | "sust" => texture::decode(self, opcode),
            "atom" | "red" => atomic::decode(self, opcode),
            "bar" | "barrier" => barrier::decode(self, opcode),
            "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" => shuffle::decode(self, opcode),
            "bra" | "brx" | "call" | "ret" | "exit" | "trap" | "brkpt" | "nanosleep" => {
                control::decode(self, opcode)
            }
            _ => Err(opcode.unsupported()),
        }
    }

    /// An instruction with the current guard and line.
    pub(super) fn instruction(&self, operation: Operation) -> Instruction {
        let (guard, guard_invert) = self.guard;
        Instruction {
            operation,
            guard,
            guard_invert,
            line: self.line,
            d: 0,
            a: 0,
            b: 0,
            c: 0,
            e: 0,
            target: 0,
            value: 0,
            list: 0,
            list_length: 0,
        }
    }

    /// Appends an instruction.
    pub(super) fn emit(&mut self, instruction: Instruction) {
        self.program.code.push(instruction);
    }

    /// Appends an instruction that computes operand 0 from the operands after it, each of the class given.
    pub(super) fn emit_simple(
        &mut self,
        opcode: &Opcode<'a>,
        handler: Handler,
        destination: Class,
        sources: &[Class],
    ) -> Result<(), PtxError> {
        self.emit_flagged(opcode, handler, destination, sources, 0)
    }

    /// As [`emit_simple`](Self::emit_simple), with flags for the handler.
    pub(super) fn emit_flagged(
        &mut self,
        opcode: &Opcode<'a>,
        handler: Handler,
        destination: Class,
        sources: &[Class],
        flags: i64,
    ) -> Result<(), PtxError> {
        opcode.finish()?;
        let mut instruction = self.instruction(Operation::Run(handler));
        instruction.value = flags;
        instruction.d = self.destination(opcode, 0, destination)?;
        for (index, (&class, slot)) in
            sources.iter().zip([&mut instruction.a, &mut instruction.b, &mut instruction.c]).enumerate()
        {
            *slot = self.source(opcode, index + 1, class)?;
        }
        if opcode.operands.len() != sources.len() + 1 {
            return Err(opcode.operand_error("wrong number of operands"));
        }
        self.emit(instruction);
        Ok(())
    }

    /// What a name means here.
    pub(super) fn lookup(&mut self, name: &'a str) -> Option<Binding<'a>> {
        for scope in self.scopes.iter().rev() {
            if let Some(&binding) = scope.names.get(name) {
                return Some(binding);
            }
            let prefix = name.trim_end_matches(|character: char| character.is_ascii_digit());
            // A prefix may itself end in digits: `%r1_<3>` does not, but `%p1<3>` declares `%p10`.
            for end in prefix.len()..name.len() {
                let (prefix, digits) = name.split_at(end);
                let canonical = digits == "0" || !digits.starts_with('0');
                if let Some(&(class, first, count)) = scope.ranges.get(prefix)
                    && let Ok(number) = digits.parse::<u32>()
                    && canonical
                    && number < count
                {
                    return Some(Binding::Register(Register { class, index: first + number }));
                }
            }
        }
        let module = self.module;
        let variable = module.variables.iter().find(|variable| variable.name == name)?;
        Some(match variable.space {
            VariableSpace::Shared if variable.external && variable.bytes == 0 => Binding::DynamicShared,
            VariableSpace::Shared => {
                let known = self.shared.get(name).copied();
                Binding::Shared(known.unwrap_or_else(|| {
                    let offset = self.allocate_shared(variable);
                    self.shared.insert(name, offset);
                    offset
                }))
            }
            _ => Binding::Global(name),
        })
    }

    /// Makes a name known in the innermost scope.
    pub(super) fn bind(&mut self, name: &'a str, binding: Binding<'a>) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.names.insert(name, binding);
        }
    }

    /// Declares a variable of a function's body.
    pub(super) fn declare(&mut self, variable: &Variable<'a>) -> Result<(), PtxError> {
        let unsupported = |what: &str| PtxError::Unsupported { line: variable.line, what: what.to_owned() };
        let binding = match variable.space {
            VariableSpace::Register => {
                let class = Class::for_bits(variable.kind.bits).ok_or_else(|| unsupported(".reg"))?;
                if variable.bytes != variable.kind.bytes() {
                    return Err(unsupported("vector registers"));
                }
                let count = variable.names.unwrap_or(1);
                let first = self.program.registers.take(class, count);
                if variable.names.is_some() {
                    if let Some(scope) = self.scopes.last_mut() {
                        scope.ranges.insert(variable.name, (class, first, count));
                    }
                    return Ok(());
                }
                Binding::Register(Register { class, index: first })
            }
            VariableSpace::Shared if variable.external && variable.bytes == 0 => Binding::DynamicShared,
            VariableSpace::Shared => Binding::Shared(self.allocate_shared(variable)),
            VariableSpace::Local | VariableSpace::Parameter => {
                Binding::Local(self.allocate_local(variable.bytes, variable.align), variable.bytes)
            }
            VariableSpace::Global | VariableSpace::Constant => {
                return Err(unsupported("a global variable inside a function"));
            }
        };
        self.bind(variable.name, binding);
        Ok(())
    }

    fn allocate_shared(&mut self, variable: &Variable<'_>) -> u64 {
        let offset = self.program.static_shared_bytes.next_multiple_of(variable.align);
        self.program.static_shared_bytes = offset + variable.bytes;
        offset as u64
    }

    /// Takes bytes of every thread's local memory.
    pub(super) fn allocate_local(&mut self, bytes: usize, align: usize) -> u64 {
        let offset = self.program.local_bytes.next_multiple_of(align);
        self.program.local_bytes = offset + bytes;
        offset as u64
    }

    /// The constant register with these bits.
    pub(super) fn bits(&mut self, class: Class, bits: u64) -> u32 {
        self.constant(class, Value::Known(Constant::Bits(bits)))
    }

    /// The constant register that is 0.
    pub(super) fn zero(&mut self, class: Class) -> u32 {
        self.bits(class, 0)
    }

    fn constant(&mut self, class: Class, value: Value) -> u32 {
        let registers = &mut self.program.registers;
        *self.constants.entry((class, value)).or_insert_with(|| registers.take(class, 1))
    }

    /// The register that a name stands for.
    fn register(&mut self, opcode: &Opcode<'_>, name: &'a str) -> Result<Register, PtxError> {
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
        match self.lookup(name) {
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

    /// Completes the program: every constant is known now.
    pub(super) fn finish(mut self) -> Program {
        self.program.static_shared_bytes = self.program.static_shared_bytes.next_multiple_of(16);
        self.program.local_bytes = self.program.local_bytes.next_multiple_of(16);
        debug_assert!((self.program.static_shared_bytes as u64) < SHARED_BASE);
        let dynamic = self.program.static_shared_bytes as u64;
        let constants = self.constants.iter().map(|(&(class, value), &index)| {
            let constant = match value {
                Value::Known(constant) => constant,
                Value::DynamicShared(offset) => Constant::Bits(dynamic.wrapping_add_signed(offset)),
            };
            (Register { class, index }, constant)
        });
        self.program.constants = constants.collect();
        self.program
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

/// The function with this name, preferring a definition over a declaration.
pub(super) fn find_function<'a>(module: &'a ModuleSyntax<'a>, name: &str) -> Option<&'a Function<'a>> {
    let mut named = module.functions.iter().filter(|function| function.name == name);
    let first = named.clone().next();
    named.find(|function| function.body.is_some()).or(first)
}
