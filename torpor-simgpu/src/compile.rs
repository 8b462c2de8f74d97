//! The driver's compiler (`cuLink…`): from PTX texts to a cubin.
//!
//! The simulated GPU has no machine code, so what comes out is the texts once more, in a section of a cubin whose variables
//! are declared as in real ones: with sections for them, `.nv.constant4` with the address of each that is in device memory, and
//! relocations that ask the driver to put the addresses there. Whoever takes the relocations out decides about the
//! addresses, and the interpreter's kernels use the variables there. Pointers to functions stand in the driver's own copies of
//! the variables, as long as relocations ask for them.

use std::sync::Mutex;

use torpor_proto::image::synthetic::{self, CubinSource, KernelSource, VariableSource};
use torpor_proto::image::{ImageError, cubin};

use crate::abi::{In, Out};
use crate::code::{Code, GlobalInfo};
use crate::error::{CudaError, Result};
use crate::lock;
use crate::machine::Machine;

/// The section with the texts, each with its NUL.
pub const TEXT: &str = ".torpor.ptx";

/// Functions of the driver, which a cubin has undefined symbols for.
const CALLS: [&str; 2] = ["vprintf", "__assertfail"];

/// `CU_JIT_INPUT_PTX`.
const INPUT_PTX: u32 = 1;

/// `CU_JIT_MAX_REGISTERS`, `CU_JIT_ERROR_LOG_BUFFER` and `CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES`: the options that make a difference here.
const MAX_REGISTERS: u32 = 0;
const ERROR_LOG: u32 = 5;
const ERROR_LOG_BYTES: u32 = 6;

/// A compilation (`CUlinkState`).
#[derive(Debug, Default)]
pub struct Compilation {
    texts: Mutex<Vec<u8>>,
    cubin: Mutex<Vec<u8>>,
    /// How many registers a thread has at most.
    max_registers: Option<u32>,
    /// Where errors are told, and how many bytes there are.
    errors: Option<(u64, u32)>,
}

impl Compilation {
    fn new(options: &[u32], values: &[u64]) -> Self {
        let value = |wanted| options.iter().position(|&option| option == wanted).map(|place| values[place]);
        let (max_registers, room) = (value(MAX_REGISTERS), value(ERROR_LOG_BYTES));
        Self {
            // Numbers stand in the place of pointers.
            max_registers: max_registers.map(|registers| registers as u32),
            errors: value(ERROR_LOG).zip(room.map(|bytes| bytes as u32)),
            ..Self::default()
        }
    }

    /// Tells of an error as NVIDIA's compiler does.
    fn tell(&self, machine: &Machine, why: &str) {
        machine.log.line(&format!("a linked module is refused: {why}"));
        if let Some((place, room)) = self.errors {
            // Without room there is nothing to tell.
            let _ = Out::at(place)
                .set_text(i32::try_from(room).unwrap_or(i32::MAX), &format!("ptxas fatal   : {why}"));
        }
    }
}

/// The variables of a module that are in device memory, in the order of their addresses in `.nv.constant4`.
fn in_memory<'a>(
    variables: impl Iterator<Item = &'a mut GlobalInfo>,
) -> impl Iterator<Item = &'a mut GlobalInfo> {
    variables.filter(|variable| !variable.constant)
}

/// Takes over the addresses that stand in a cubin.
pub fn place_variables(code: &mut Code, bytes: &[u8]) -> std::result::Result<(), ImageError> {
    let asked = cubin::section(bytes, ".rela.nv.constant4")?;
    if asked.is_none_or(|entries| !entries.is_empty()) {
        return Ok(());
    }
    let slots = cubin::section(bytes, ".nv.constant4")?.unwrap_or_default();
    for (variable, slot) in in_memory(code.globals.iter_mut()).zip(slots.as_chunks().0) {
        variable.address = Some(u64::from_le_bytes(*slot));
    }
    let Code { globals, functions, .. } = code;
    for (section, constant) in [(".rela.nv.global.init", false), (".rela.nv.constant3", true)] {
        if cubin::section(bytes, section)?.is_some_and(<[u8]>::is_empty) {
            for variable in globals.iter_mut().filter(|variable| variable.constant == constant) {
                variable.relocations.retain(|(_, symbol, _)| !functions.contains(symbol));
            }
        }
    }
    Ok(())
}

/// Takes over how many registers a cubin's kernels have.
pub fn take_registers(code: &mut Code, bytes: &[u8]) -> std::result::Result<(), ImageError> {
    for found in cubin::kernels(bytes)? {
        let named = |kernel: &&mut crate::code::KernelInfo| kernel.name.as_bytes() == found.name.as_bytes();
        if let Some(kernel) = code.kernels.iter_mut().find(named) {
            kernel.registers = found.registers;
        }
    }
    Ok(())
}

/// Whether PTX has this name in it.
fn declares(text: &[u8], name: &str) -> bool {
    text.windows(name.len()).any(|part| part == name.as_bytes())
}

fn compile(text: &[u8], code: &Code, max_registers: u32) -> Vec<u8> {
    let kernel = |kernel: &crate::code::KernelInfo| {
        let parameters = kernel.parameters.iter().map(|&(offset, bytes)| (offset as u32, bytes as u32));
        let parameters: Vec<_> = parameters.collect();
        KernelSource {
            name: kernel.name.to_string_lossy().into_owned(),
            block_bytes: parameters.last().map_or(0, |&(offset, bytes)| offset + bytes),
            parameters,
            shared_bytes: u64::from(kernel.static_shared_bytes),
            registers: kernel.registers.min(max_registers),
        }
    };
    let variable = |global: &GlobalInfo| {
        let is_initialised = !global.relocations.is_empty() || global.init.iter().any(|&byte| byte != 0);
        let section = match (global.constant, is_initialised) {
            (true, _) => ".nv.constant3",
            (false, true) => ".nv.global.init",
            (false, false) => ".nv.global",
        };
        let address = |(at, name, addend): &(usize, String, i64)| (*at as u64, name.clone(), *addend);
        VariableSource {
            section,
            name: global.name.clone(),
            bytes: global.bytes as u64,
            align: global.align.max(1).next_power_of_two() as u64,
            contents: if section == ".nv.global" { Vec::new() } else { global.init.clone() },
            is_local: false,
            is_managed: global.managed,
            addresses: global.relocations.iter().map(address).collect(),
        }
    };
    let is_kernel = |name: &str| code.kernel(name).is_some();
    synthetic::cubin(&CubinSource {
        functions: code.functions.iter().filter(|name| !is_kernel(name)).cloned().collect(),
        kernels: code.kernels.iter().map(kernel).collect(),
        variables: code.globals.iter().map(variable).collect(),
        calls: CALLS.into_iter().filter(|name| declares(text, name)).collect(),
        others: vec![(TEXT, text.to_vec())],
    })
}

pub fn create(machine: &Machine, count: u32, options: In<u32>, values: In<u64>, state: Out<u64>) -> Result {
    let compilation = Compilation::new(&options.array(count as usize)?, &values.array(count as usize)?);
    state.set(machine.compilations.add(std::sync::Arc::new(compilation)))
}

pub fn add(machine: &Machine, state: u64, kind: u32, data: In<u8>, bytes: usize) -> Result {
    let compilation = machine.compilations.find(state)?;
    // There is no machine code that could be linked.
    if kind != INPUT_PTX {
        return Err(CudaError::INVALID_IMAGE);
    }
    let mut text = data.array(bytes)?;
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(bytes);
    text.truncate(end);
    text.push(0);
    let mut why = String::new();
    match Code::from_texts(&text, |said| said.clone_into(&mut why)) {
        // What it lacks another input may have.
        Err(error) if error != CudaError::UNKNOWN => {
            compilation.tell(machine, &why);
            Err(error)
        }
        _ => {
            lock(&compilation.texts).extend_from_slice(&text);
            Ok(())
        }
    }
}

pub fn complete(machine: &Machine, state: u64, cubin: Out<u64>, bytes: Out<usize>) -> Result {
    let compilation = machine.compilations.find(state)?;
    let texts = lock(&compilation.texts);
    if texts.is_empty() {
        return Err(CudaError::INVALID_VALUE);
    }
    let code = Code::from_texts(&texts, |why| compilation.tell(machine, why))?;
    let mut made = lock(&compilation.cubin);
    *made = compile(&texts, &code, compilation.max_registers.unwrap_or(u32::MAX));
    cubin.set(made.as_ptr() as u64)?;
    bytes.set_if_wanted(made.len());
    Ok(())
}

pub fn destroy(machine: &Machine, state: u64) -> Result {
    machine.compilations.remove(state).map(drop)
}
