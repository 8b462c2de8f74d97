//! A parsed module: its kernels, ready to run, and its globals.

use std::sync::Arc;

use super::error::{KernelFault, PtxError};
use super::function::decode_kernel;
use super::launch::{self, Launch, Statistics};
use super::parser;
use super::program::Program;
use super::syntax::{Function, Linkage, ModuleSyntax, Variable, VariableSpace};

/// A PTX module.
#[derive(Debug, Clone)]
pub struct Module {
    kernels: Vec<Kernel>,
    globals: Vec<Global>,
    functions: Vec<String>,
}

/// A variable of a module in device memory: the driver allocates and initialises it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: usize,
    /// Its alignment in bytes.
    pub align: usize,
    /// Its initial value, padded with zeroes to `bytes`.
    pub init: Vec<u8>,
    /// Declared `.const`.
    pub constant: bool,
    /// Declared `.attribute(.managed)`.
    pub managed: bool,
    /// Addresses to store before use: offset in the variable, symbol, and what to add to the symbol's address. Each
    /// is eight bytes, little-endian.
    pub relocations: Vec<(usize, String, i64)>,
}

/// A kernel of a module.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its name, as `cuModuleGetFunction` asks for it.
    pub name: String,
    /// Its parameters, in order.
    pub parameters: Vec<Parameter>,
    /// Bytes of shared memory that it declares.
    pub static_shared_bytes: usize,
    /// Bytes of local memory per thread.
    pub local_bytes: usize,
    /// Registers per thread, as a GPU would count them at most: an upper bound, for attributes.
    pub registers: u32,
    /// Most threads of a block.
    pub max_threads_per_block: u32,
    pub(super) program: Arc<Program>,
}

/// A parameter of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Offset in the parameter block.
    pub offset: usize,
    /// Its size.
    pub bytes: usize,
}

/// Most bytes of local memory per thread, as on GPUs.
const MAX_LOCAL_BYTES: usize = 512 * 1024;

impl Module {
    /// Parses and decodes PTX text; a NUL ends it.
    pub fn parse(text: &str) -> Result<Self, PtxError> {
        Self::link([text])
    }

    /// As [`Self::parse`], of texts that are linked.
    pub fn link<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, PtxError> {
        let mut syntax = ModuleSyntax::default();
        for text in texts {
            syntax.join(parser::parse(text)?)?;
        }
        let kernels = syntax.functions.iter().filter(|function| function.entry && function.body.is_some());
        let kernels = kernels
            .map(|function| Kernel::new(function, decode_kernel(&syntax, function)?))
            .collect::<Result<Vec<Kernel>, PtxError>>()?;
        let globals = syntax
            .variables
            .iter()
            .filter(|variable| {
                matches!(variable.space, VariableSpace::Global | VariableSpace::Constant)
                    && variable.linkage != Linkage::External
            })
            .map(Global::new)
            .collect::<Result<Vec<Global>, PtxError>>()?;
        let bodies = syntax.functions.iter().filter(|function| function.body.is_some());
        let functions = bodies.map(|function| function.name.to_owned()).collect();
        Ok(Self { kernels, globals, functions })
    }

    /// The kernels, in the order of the text.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// The kernel with this name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }

    /// The variables in device memory, in the order of the text.
    pub fn globals(&self) -> &[Global] {
        &self.globals
    }

    /// The names of all functions that have code, the kernels among them, in the order of the text.
    pub fn functions(&self) -> &[String] {
        &self.functions
    }

    /// Runs a kernel to its end.
    pub fn run(&self, kernel: &Kernel, launch: &Launch<'_>) -> Result<Statistics, KernelFault> {
        launch::run(kernel, launch)
    }
}

impl Global {
    fn new(variable: &Variable<'_>) -> Result<Self, PtxError> {
        let (init, relocations) = variable.initial_bytes()?;
        Ok(Self {
            name: variable.name.to_owned(),
            bytes: variable.bytes,
            align: variable.align,
            init,
            constant: variable.space == VariableSpace::Constant,
            managed: variable.managed,
            relocations,
        })
    }
}

impl Kernel {
    fn new(function: &Function<'_>, program: Program) -> Result<Self, PtxError> {
        let mut end = 0usize;
        let parameters = function.parameters.iter().map(|parameter| {
            let offset = end.next_multiple_of(parameter.align);
            end = offset + parameter.bytes;
            Parameter { offset, bytes: parameter.bytes }
        });
        let parameters = parameters.collect();
        if program.local_bytes > MAX_LOCAL_BYTES {
            let what = format!("{} bytes of local memory per thread", program.local_bytes);
            return Err(PtxError::Unsupported { line: function.line, what });
        }
        let counts = program.registers;
        let registers =
            counts.b16.div_ceil(2).saturating_add(counts.b32).saturating_add(counts.b64.saturating_mul(2));
        Ok(Self {
            name: function.name.to_owned(),
            parameters,
            static_shared_bytes: program.static_shared_bytes,
            local_bytes: program.local_bytes,
            registers: registers.clamp(1, 255),
            max_threads_per_block: function.max_threads.unwrap_or(1024).min(1024),
            program: Arc::new(program),
        })
    }
}
