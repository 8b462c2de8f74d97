//! Cubins: their kernels, parameter layouts and global variables.
//!
//! A cubin is an ELF file in which a kernel `K` has the sections `.text.K` (code), `.nv.info.K` (attributes),
//! `.nv.shared.K` (static shared memory) and `.nv.constant0.K` (parameter block). Its entry symbol has the bit
//! 0x10 in `st_other`. Attributes are records: `u8 format, u8 attribute`, then by format two bytes (a value),
//! or `u16 bytes` and so many bytes. Those used here:
//!
//! | attribute | in | payload |
//! |---|---|---|
//! | 0x17 `KPARAM_INFO` | `.nv.info.K` | u32 index, u16 ordinal, u16 offset, u32 packed: bytes in bits 18–31, space and others below |
//! | 0x45 `KPARAM_INFO_V2` | the same, for blocks above 4 KiB | u32 index, u16 ordinal, u16 offset, u16 bytes, u16 |
//! | 0x19 `CBANK_PARAM_SIZE` | `.nv.info.K` | (value) bytes of the parameter block |
//! | 0x0a `PARAM_CBANK` | `.nv.info.K` | u32 symbol, u16 offset in constant bank 0, u16 bytes of the parameter block |
//! | 0x2f `REGCOUNT` | `.nv.info` | u32 symbol, u32 registers per thread |
//!
//! Attributes of other kinds are skipped. 21,742 sm_90 kernels agreed with cuFuncGetParamInfo; 0x45 is what ptxas 13.0 writes
//! for a kernel with an argument of 20,000 bytes.

use std::collections::HashMap;

use super::source::{u16_at, u32_at};
use super::{ImageError, elf};

/// Bit of `st_other` that marks a kernel (`STO_CUDA_ENTRY`).
const OTHER_ENTRY: u8 = 0x10;
/// `STT_FUNC`.
const SYMBOL_FUNCTION: u8 = 2;
/// `STT_OBJECT`, and the type that relocatable cubins use for variables.
const SYMBOL_VARIABLES: [u8; 2] = [1, 13];

const ATTRIBUTE_PARAM_CBANK: u8 = 0x0a;
const ATTRIBUTE_KPARAM_INFO: u8 = 0x17;
const ATTRIBUTE_CBANK_PARAM_SIZE: u8 = 0x19;
const ATTRIBUTE_REGCOUNT: u8 = 0x2f;
const ATTRIBUTE_KPARAM_INFO_V2: u8 = 0x45;
/// Record format with a length and that many bytes.
const FORMAT_SIZED: u8 = 4;
/// The size of a parameter is above the bits for alignment, space (nonzero on sm_100) and constant bank.
const KPARAM_SIZE_SHIFT: u32 = 18;
/// In the second version the size is below what else there may be.
const KPARAM_V2_SIZE_MASK: u32 = 0xffff;

/// One argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Where it stands in the parameter block, in bytes.
    pub offset_bytes: u32,
    /// Its size in bytes.
    pub size_bytes: u32,
}

/// One kernel of a cubin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel<'a> {
    /// Its (mangled) name.
    pub name: &'a str,
    /// Its arguments in order; each lies inside the parameter block, and no two overlap.
    pub parameters: Vec<Parameter>,
    /// Bytes of the parameter block.
    pub parameter_block_bytes: u32,
    /// Bytes of `.nv.shared.K`: static shared memory, on sm_90 and later with what the system reserves in front of it.
    pub static_shared_bytes: u64,
    /// Registers per thread; 0 if the file does not say.
    pub registers: u32,
}

/// Where a global variable lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GlobalSpace {
    /// Device memory: `.nv.global` (zero at load) or `.nv.global.init` (with initial contents).
    Device,
    /// Constant memory: `.nv.constant3`.
    Constant,
}

/// One global variable of a cubin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Global<'a> {
    /// Its (mangled) name; names that start with `$` are the compiler's own.
    pub name: &'a str,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Where it lives.
    pub space: GlobalSpace,
}

/// The kernels of the cubin at the start of `elf`, in the order of its symbol table.
pub fn kernels(elf: &[u8]) -> Result<Vec<Kernel<'_>>, ImageError> {
    let file = elf::File::parse(elf)?;
    let mut infos = HashMap::new();
    let mut shared = HashMap::new();
    let mut registers = HashMap::new();
    // Sound files have no overlapping sections; overlap would let a small file ask for much work.
    let mut unread = elf.len();
    for section in file.sections() {
        if let Some(kernel) = section.name.strip_prefix(".nv.shared.") {
            shared.insert(kernel, section.size_bytes);
        } else if section.name == ".nv.info" || section.name.starts_with(".nv.info.") {
            let info = file.contents(section)?;
            unread = unread
                .checked_sub(info.len())
                .ok_or(ImageError::Malformed { what: "overlapping attribute sections", offset: 0 })?;
            match section.name.strip_prefix(".nv.info.") {
                Some(kernel) => _ = infos.insert(kernel, info),
                None => read_register_counts(info, &mut registers),
            }
        }
    }
    let mut kernels = Vec::new();
    for (number, symbol) in file.symbols(|kind, other| kind == SYMBOL_FUNCTION && other & OTHER_ENTRY != 0)? {
        // Removed, so that a second symbol of the same name does not ask for the same work again.
        let info = infos.remove(symbol.name).unwrap_or_default();
        let (parameters, parameter_block_bytes) = parameters(info)?;
        kernels.push(Kernel {
            name: symbol.name,
            parameters,
            parameter_block_bytes,
            static_shared_bytes: shared.get(symbol.name).copied().unwrap_or(0),
            registers: registers
                .get(&number)
                .copied()
                .unwrap_or_else(|| registers_in_section(&file, symbol.section)),
        });
    }
    Ok(kernels)
}

/// The global variables of the cubin at the start of `elf`, in the order of its symbol table.
pub fn globals(elf: &[u8]) -> Result<Vec<Global<'_>>, ImageError> {
    let file = elf::File::parse(elf)?;
    let symbols = file.symbols(|kind, _| SYMBOL_VARIABLES.contains(&kind))?;
    let global = |symbol: elf::Symbol<'_>| {
        let section = file.sections().get(symbol.section as usize)?;
        match section.name {
            ".nv.global" | ".nv.global.init" => Some(GlobalSpace::Device),
            ".nv.constant3" => Some(GlobalSpace::Constant),
            _ => None,
        }
    };
    let named = symbols.into_iter().filter(|(_, symbol)| !symbol.name.is_empty());
    Ok(named
        .filter_map(|(_, symbol)| {
            global(symbol).map(|space| Global { name: symbol.name, size_bytes: symbol.size_bytes, space })
        })
        .collect())
}

/// The contents of the section of this name in the cubin at the start of `elf`, if it has one.
pub fn section<'a>(elf: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, ImageError> {
    let file = elf::File::parse(elf)?;
    file.sections()
        .iter()
        .find(|section| section.name == name)
        .map(|section| file.contents(section))
        .transpose()
}

/// The arguments and the size of the parameter block that the attributes of one kernel declare.
fn parameters(info: &[u8]) -> Result<(Vec<Parameter>, u32), ImageError> {
    let damaged = |what| ImageError::Malformed { what, offset: 0 };
    let mut found: Vec<(u16, Parameter)> = Vec::new();
    let mut block_bytes = 0;
    for record in Records(info) {
        let (attribute, payload) = record?;
        match attribute {
            ATTRIBUTE_KPARAM_INFO | ATTRIBUTE_KPARAM_INFO_V2 => {
                let (Some(ordinal), Some(offset), Some(packed)) =
                    (u16_at(payload, 4), u16_at(payload, 6), u32_at(payload, 8))
                else {
                    return Err(damaged("parameter attribute"));
                };
                let size_bytes = match attribute {
                    ATTRIBUTE_KPARAM_INFO => packed >> KPARAM_SIZE_SHIFT,
                    _ => packed & KPARAM_V2_SIZE_MASK,
                };
                found.push((ordinal, Parameter { offset_bytes: u32::from(offset), size_bytes }));
            }
            ATTRIBUTE_CBANK_PARAM_SIZE => block_bytes = u32::from(u16_at(payload, 0).unwrap_or(0)),
            ATTRIBUTE_PARAM_CBANK if block_bytes == 0 => {
                block_bytes = u32::from(u16_at(payload, 6).ok_or(damaged("parameter block attribute"))?);
            }
            _ => {}
        }
    }
    found.sort_by_key(|&(ordinal, _)| ordinal);
    let mut end = 0;
    for (place, &(ordinal, parameter)) in found.iter().enumerate() {
        // Offsets and sizes have 16 bits, so the sum cannot overflow.
        let next = parameter.offset_bytes + parameter.size_bytes;
        if place != usize::from(ordinal) || parameter.offset_bytes < end || next > block_bytes {
            return Err(damaged("parameter layout"));
        }
        end = next;
    }
    Ok((found.into_iter().map(|(_, parameter)| parameter).collect(), block_bytes))
}

/// Register counts by symbol number, from the file's own `.nv.info`. Damaged records end the list: the counts are
/// informative, nothing depends on them.
fn read_register_counts(info: &[u8], registers: &mut HashMap<u32, u32>) {
    for (attribute, payload) in Records(info).map_while(Result::ok) {
        if attribute == ATTRIBUTE_REGCOUNT
            && let (Some(symbol), Some(count)) = (u32_at(payload, 0), u32_at(payload, 4))
        {
            registers.insert(symbol, count);
        }
    }
}

/// Older files have the register count in the highest byte of the code section's `sh_info`.
fn registers_in_section(file: &elf::File<'_>, section: u32) -> u32 {
    file.sections().get(section as usize).map_or(0, |section| section.info >> 24)
}

/// Iterator over attribute records: attribute number, payload. The first error is the last item.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(u8, &'a [u8]), ImageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.0;
        if bytes.is_empty() {
            return None;
        }
        self.0 = &[];
        let record = bytes.split_at_checked(4).and_then(|(head, rest)| {
            if head[0] != FORMAT_SIZED {
                return Some(((head[1], &head[2..]), rest));
            }
            let length = usize::from(u16_at(head, 2)?);
            let (payload, rest) = rest.split_at_checked(length)?;
            Some(((head[1], payload), rest))
        });
        match record {
            Some((record, rest)) => {
                self.0 = rest;
                Some(Ok(record))
            }
            None => Some(Err(ImageError::Malformed { what: "attribute record", offset: 0 })),
        }
    }
}
