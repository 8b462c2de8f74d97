//! Syntax tree to program: resolves names, lays out registers and memory, and sends each instruction to the file of
//! its family.

use std::collections::HashMap;

use super::error::PtxError;
use super::instruction::{Handler, Instruction, Operation};
pub(super) use super::opcode::Opcode;
use super::program::{ALWAYS, Constant, Program};
use super::registers::{Class, Counts, Register};
use super::space::SHARED_BASE;
use super::syntax::{
    Function, InstructionSyntax, Kind, Linkage, ModuleSyntax, Type, Variable, VariableSpace,
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

/// The value of a constant register while its program is being decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Value {
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
    pub(super) globals: HashMap<&'a str, u32>,
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
            VariableSpace::Shared if variable.linkage == Linkage::External && variable.bytes == 0 => {
                Binding::DynamicShared
            }
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
            VariableSpace::Shared if variable.linkage == Linkage::External && variable.bytes == 0 => {
                Binding::DynamicShared
            }
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

    pub(super) fn constant(&mut self, class: Class, value: Value) -> u32 {
        let registers = &mut self.program.registers;
        *self.constants.entry((class, value)).or_insert_with(|| registers.take(class, 1))
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

/// The function with this name, preferring a definition over a declaration.
pub(super) fn find_function<'a>(module: &'a ModuleSyntax<'a>, name: &str) -> Option<&'a Function<'a>> {
    let mut named = module.functions.iter().filter(|function| function.name == name);
    let first = named.clone().next();
    named.find(|function| function.body.is_some()).or(first)
}
