//! The syntax tree of a PTX module: names still are text, nothing is resolved.

/// What the bits of a value mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bits,
    Unsigned,
    Signed,
    Float,
    BrainFloat,
    FloatPair,
    BrainFloatPair,
    Predicate,
}

/// A fundamental type: its kind and its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Type {
    pub(super) kind: Kind,
    pub(super) bits: u32,
}

impl Type {
    /// The type with this name, such as `u32` (no dot).
    pub(super) fn named(name: &str) -> Option<Self> {
        let (kind, bits) = match name {
            "pred" => (Kind::Predicate, 1),
            "bf16" => (Kind::BrainFloat, 16),
            "f16x2" => (Kind::FloatPair, 32),
            "bf16x2" => (Kind::BrainFloatPair, 32),
            "b8" | "b16" | "b32" | "b64" => (Kind::Bits, name[1..].parse().ok()?),
            "u8" | "u16" | "u32" | "u64" => (Kind::Unsigned, name[1..].parse().ok()?),
            "s8" | "s16" | "s32" | "s64" => (Kind::Signed, name[1..].parse().ok()?),
            "f16" | "f32" | "f64" => (Kind::Float, name[1..].parse().ok()?),
            _ => return None,
        };
        Some(Self { kind, bits })
    }

    /// Bytes in memory.
    pub(super) fn bytes(self) -> usize {
        self.bits.div_ceil(8) as usize
    }
}

/// Where a variable lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VariableSpace {
    Register,
    Global,
    Constant,
    Shared,
    Local,
    Parameter,
}

/// One element of an initialiser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Initial<'a> {
    Number(Number),
    /// Address of a symbol plus an offset.
    Address(&'a str, i64),
}

/// A literal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Integer(u64),
    Single(u32),
    Double(u64),
}

/// Who defines a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Linkage {
    /// This text.
    Own,
    /// This text, unless another one does: `.weak`, `.common`.
    Weak,
    /// Another text, or it is dynamic shared memory: `.extern`.
    External,
}

/// A declaration of a variable, a parameter or registers.
#[derive(Debug, Clone)]
pub(super) struct Variable<'a> {
    pub(super) line: u32,
    pub(super) space: VariableSpace,
    pub(super) name: &'a str,
    pub(super) kind: Type,
    /// Alignment in bytes.
    pub(super) align: usize,
    /// Bytes of one array element.
    pub(super) element_bytes: usize,
    /// Bytes in all; 0 for an array without size.
    pub(super) bytes: usize,
    /// `%r<10>` declares ten names `%r0` to `%r9`.
    pub(super) names: Option<u32>,
    pub(super) initial: Vec<Initial<'a>>,
    pub(super) linkage: Linkage,
    /// Declared `.attribute(.managed)`.
    pub(super) managed: bool,
}

/// An operand.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand<'a> {
    /// Register or symbol.
    Name(&'a str),
    /// Symbol plus offset.
    Sum(&'a str, i64),
    Number(Number),
    /// `[name + offset]`.
    Address(&'a str, i64),
    /// `[immediate]`.
    Absolute(u64),
    /// `{a, b}`.
    Vector(Vec<Operand<'a>>),
    /// `(a, b)`: arguments of a call.
    List(Vec<Operand<'a>>),
    /// `a|b`: two destinations.
    Pair(&'a str, &'a str),
    /// `!p`.
    Not(&'a str),
    /// `[name, {a, b}]`: a texture or surface, and where.
    Coordinates(&'a str, Vec<Operand<'a>>),
}

/// An instruction.
#[derive(Debug, Clone)]
pub(super) struct InstructionSyntax<'a> {
    pub(super) line: u32,
    /// `@p` or `@!p` (true: negated).
    pub(super) guard: Option<(&'a str, bool)>,
    /// The opcode with its modifiers.
    pub(super) text: &'a str,
    pub(super) operands: Vec<Operand<'a>>,
}

/// One line of a function body.
#[derive(Debug, Clone)]
pub(super) enum Statement<'a> {
    Open,
    Close,
    Label(&'a str),
    /// A list of labels for `brx.idx`.
    Targets(&'a str, Vec<&'a str>),
    Variable(Variable<'a>),
    Instruction(InstructionSyntax<'a>),
}

/// A kernel or a device function.
#[derive(Debug, Clone)]
pub(super) struct Function<'a> {
    pub(super) line: u32,
    pub(super) name: &'a str,
    pub(super) entry: bool,
    pub(super) linkage: Linkage,
    pub(super) returns: Vec<Variable<'a>>,
    pub(super) parameters: Vec<Variable<'a>>,
    /// Product of `.maxntid` or `.reqntid`.
    pub(super) max_threads: Option<u32>,
    /// Nothing for a mere declaration.
    pub(super) body: Option<Vec<Statement<'a>>>,
}

/// A module.
#[derive(Debug, Clone, Default)]
pub(super) struct ModuleSyntax<'a> {
    pub(super) variables: Vec<Variable<'a>>,
    pub(super) functions: Vec<Function<'a>>,
}
