//! Cubins and containers that no compiler made, written independently of the code that reads them: for tests, and for the
//! simulated GPU, whose "compiler" they come from.

use super::fatbin::EntryKind;

/// A kernel to be put into a cubin.
#[derive(Debug, Clone)]
pub struct KernelSource {
    /// Its name.
    pub name: String,
    /// (offset, bytes) of each argument.
    pub parameters: Vec<(u32, u32)>,
    /// Bytes of the parameter block.
    pub block_bytes: u32,
    /// Bytes of static shared memory.
    pub shared_bytes: u64,
    /// Registers of a thread.
    pub registers: u32,
}

/// A variable to be put into a cubin.
#[derive(Debug, Clone)]
pub struct VariableSource {
    /// `.nv.global`, `.nv.global.init` or `.nv.constant3`.
    pub section: &'static str,
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its alignment.
    pub align: u64,
    /// What it holds at first; nothing in `.nv.global`.
    pub contents: Vec<u8>,
    /// Only its own file can name it.
    pub is_local: bool,
    /// It is `__managed__`.
    pub is_managed: bool,
    /// Addresses in it: offset, of which variable, kernel or function, and what is added.
    pub addresses: Vec<(u64, String, i64)>,
}

impl VariableSource {
    /// One whose bytes are all `byte`.
    #[must_use]
    pub fn of(section: &'static str, name: &str, bytes: u64, byte: u8) -> Self {
        let contents = if section == ".nv.global" { Vec::new() } else { vec![byte; bytes as usize] };
        let name = name.to_owned();
        let (is_local, is_managed) = (false, false);
        Self { section, name, bytes, align: 8, contents, is_local, is_managed, addresses: Vec::new() }
    }
}

/// What a cubin is made of.
#[derive(Debug, Clone, Default)]
pub struct CubinSource {
    /// Its kernels.
    pub kernels: Vec<KernelSource>,
    /// Its other functions, which are reached through pointers.
    pub functions: Vec<String>,
    /// Its variables. If there are kernels, `.nv.constant4` has the address of each in device memory, in this order.
    pub variables: Vec<VariableSource>,
    /// Functions of the driver that its kernels call.
    pub calls: Vec<&'static str>,
    /// Other sections: name and contents.
    pub others: Vec<(&'static str, Vec<u8>)>,
}

struct Section {
    name: String,
    kind: u32,
    contents: Vec<u8>,
    size: u64,
    link: u32,
    info: u32,
    align: u64,
}

const PROGRAM_BITS: u32 = 1;
const SYMBOL_TABLE: u32 = 2;
const STRING_TABLE: u32 = 3;
const RELOCATIONS: u32 = 4;
const NO_BITS: u32 = 8;
const CUDA_INFO: u32 = 0x7000_0000;

/// `R_CUDA_64` and `R_CUDA_G64`.
const RELOCATION_ADDRESS: u64 = 2;
const RELOCATION_GENERIC_ADDRESS: u64 = 4;

/// Sections of variables, in the order in which they stand in a cubin.
const VARIABLE_SECTIONS: [&str; 3] = [".nv.constant3", ".nv.global.init", ".nv.global"];

fn words(fields: &[u32]) -> Vec<u8> {
    fields.iter().flat_map(|field| field.to_le_bytes()).collect()
}

fn add_string(table: &mut Vec<u8>, text: &str) -> u32 {
    let offset = table.len() as u32;
    table.extend_from_slice(text.as_bytes());
    table.push(0);
    offset
}

/// `.nv.info.K`, with the parameters in reverse order, as compilers write them.
fn kernel_info(kernel: &KernelSource) -> Vec<u8> {
    let mut info = words(&[0x0004_3704, 0x82]);
    for (ordinal, (offset, bytes)) in kernel.parameters.iter().enumerate().rev() {
        // The "space" bits 8 to 11, which sm_100 sets, are not part of the size.
        let (record, packed) = match kernel.block_bytes {
            0..=4096 => (0x000c_1704, bytes << 18 | 0x0001_f000 | (ordinal as u32 % 16) << 8),
            _ => (0x000c_4504, *bytes),
        };
        info.extend(words(&[record, 0, ordinal as u32 | offset << 16, packed]));
    }
    info.extend(words(&[0x00ff_1b03, 0x1903 | kernel.block_bytes << 16]));
    info.extend(words(&[0x0008_0a04, 29, 0x0210 | kernel.block_bytes << 16]));
    info
}

/// A file under construction.
#[derive(Default)]
struct Writer {
    sections: Vec<Section>,
    names: Vec<u8>,
    symbols: Vec<u8>,
}

impl Writer {
    /// Returns its number.
    fn section(&mut self, name: &str, kind: u32, contents: Vec<u8>, link: u32, info: u32) -> u32 {
        let size = contents.len() as u64;
        self.sections.push(Section { name: name.to_owned(), kind, contents, size, link, info, align: 4 });
        self.sections.len() as u32
    }

    /// Returns its number.
    fn symbol(&mut self, name: &str, (info, other): (u8, u8), section: u32, offset: u64, bytes: u64) -> u32 {
        let name = add_string(&mut self.names, name);
        self.symbols.extend(words(&[name, u32::from(info) | u32::from(other) << 8 | section << 16]));
        self.symbols.extend([offset, bytes].iter().flat_map(|field| field.to_le_bytes()));
        self.symbols.len() as u32 / 24 - 1
    }

    /// The variables of one section, behind each other.
    fn variables(&mut self, section: &'static str, all: &[VariableSource], numbers: &mut [u32]) {
        let own = all.iter().enumerate().filter(|(_, variable)| variable.section == section);
        let (mut contents, mut end, mut align) = (Vec::new(), 0_u64, 4);
        let number = self.sections.len() as u32 + 1;
        for (index, variable) in own {
            let offset = end.next_multiple_of(variable.align);
            end = offset + variable.bytes;
            align = align.max(variable.align);
            if section != ".nv.global" {
                contents.resize(offset as usize, 0);
                contents.extend_from_slice(&variable.contents);
                contents.resize(end as usize, 0);
            }
            let info = if variable.is_local { 0x01 } else { 0x11 };
            let other = if variable.is_managed { 4 } else { 0 };
            numbers[index] = self.symbol(&variable.name, (info, other), number, offset, variable.bytes);
        }
        if end > 0 {
            let kind = if section == ".nv.global" { NO_BITS } else { PROGRAM_BITS };
            let number = self.section(section, kind, contents, 0, 0) as usize;
            (self.sections[number - 1].size, self.sections[number - 1].align) = (end, align);
        }
    }

    fn find(&self, name: &str) -> Option<u32> {
        self.sections.iter().position(|section| section.name == name).map(|at| at as u32 + 1)
    }

    /// Relocations of one section: offset, symbol, kind, addend. Their symbol table is the last section but one.
    fn relocations(&mut self, target: &str, entries: &[(u64, u32, u64, i64)]) {
        let Some(info) = self.find(target).filter(|_| !entries.is_empty()) else { return };
        let field = |&(offset, symbol, kind, addend): &(u64, u32, u64, i64)| {
            [offset, u64::from(symbol) << 32 | kind, addend.cast_unsigned()]
        };
        let contents = entries.iter().flat_map(field).flat_map(u64::to_le_bytes).collect();
        self.section(&format!(".rela{target}"), RELOCATIONS, contents, 0, info);
    }
}

/// A cubin with the sections that ptxas writes for `source`. The first kernel's register count stands in `.nv.info`, the
/// others' in `sh_info` of their code, as newer and older compilers do.
#[must_use]
pub fn cubin(source: &CubinSource) -> Vec<u8> {
    let mut writer = Writer { names: vec![0], symbols: vec![0; 24], ..Writer::default() };
    let mut register_counts = Vec::new();
    let mut functions = Vec::new();
    for (place, kernel) in source.kernels.iter().enumerate() {
        let name = &kernel.name;
        writer.section(&format!(".nv.info.{name}"), CUDA_INFO, kernel_info(kernel), 3, 0);
        let old_count = if place == 0 { 0 } else { kernel.registers << 24 };
        let code = writer.section(&format!(".text.{name}"), PROGRAM_BITS, vec![0x90; 128], 3, old_count | 17);
        writer.symbol(&format!("${name}$helper"), (0x02, 0), code, 0, 64);
        let number = writer.symbol(name, (0x12, 0x10), code, 0, 128);
        functions.push((name.as_str(), number));
        if place == 0 {
            register_counts = words(&[0x0008_2f04, number, kernel.registers]);
        }
        if kernel.shared_bytes > 0 {
            let kind = if place == 0 { 0x7000_000a } else { NO_BITS };
            let index = writer.section(&format!(".nv.shared.{name}"), kind, Vec::new(), 0, 17);
            writer.sections[index as usize - 1].size = kernel.shared_bytes;
        }
    }
    for name in &source.functions {
        let code = writer.section(&format!(".text.{name}"), PROGRAM_BITS, vec![0x90; 128], 3, 17);
        functions.push((name.as_str(), writer.symbol(name, (0x12, 0), code, 0, 128)));
    }
    for name in &source.calls {
        functions.push((*name, writer.symbol(name, (0x12, 0), 0, 0, 0)));
    }
    let mut numbers = vec![0; source.variables.len()];
    for section in VARIABLE_SECTIONS {
        writer.variables(section, &source.variables, &mut numbers);
    }
    let in_memory = source.variables.iter().zip(&numbers).filter(|(one, _)| one.section != ".nv.constant3");
    let slot =
        |(at, (_, &number)): (usize, (&VariableSource, &u32))| (at as u64 * 8, number, RELOCATION_ADDRESS, 0);
    let slots: Vec<_> = in_memory.enumerate().map(slot).collect();
    if !source.kernels.is_empty() && !slots.is_empty() {
        writer.section(".nv.constant4", PROGRAM_BITS, vec![0; slots.len() * 8], 0, 0);
        writer.relocations(".nv.constant4", &slots);
    }
    for section in VARIABLE_SECTIONS {
        let entries = initial_addresses(source, section, (&numbers, &functions));
        writer.relocations(section, &entries);
    }
    writer.section(".nv.info", CUDA_INFO, register_counts, 3, 0);
    for (name, contents) in &source.others {
        writer.section(name, PROGRAM_BITS, contents.clone(), 0, 0);
    }
    let names = std::mem::take(&mut writer.names);
    let strings = writer.section(".strtab", STRING_TABLE, names, 0, 0);
    let symbols = std::mem::take(&mut writer.symbols);
    let symbols = writer.section(".symtab", SYMBOL_TABLE, symbols, strings, 1);
    for section in writer.sections.iter_mut().filter(|section| section.kind == RELOCATIONS) {
        section.link = symbols;
    }
    file(writer.sections)
}

/// The relocations of a section's initialisers. The symbols: of the variables, and of functions by name.
fn initial_addresses(
    source: &CubinSource,
    section: &str,
    (numbers, functions): (&[u32], &[(&str, u32)]),
) -> Vec<(u64, u32, u64, i64)> {
    let (mut entries, mut end) = (Vec::new(), 0_u64);
    for variable in source.variables.iter().filter(|variable| variable.section == section) {
        let start = end.next_multiple_of(variable.align);
        end = start + variable.bytes;
        for (offset, name, addend) in &variable.addresses {
            if let Some(target) = source.variables.iter().position(|other| &other.name == name) {
                entries.push((start + offset, numbers[target], RELOCATION_GENERIC_ADDRESS, *addend));
            } else if let Some(&(_, number)) = functions.iter().find(|(other, _)| other == name) {
                entries.push((start + offset, number, RELOCATION_ADDRESS, *addend));
            }
        }
    }
    entries
}

/// An ELF file with one section, as host libraries keep their fatbins.
#[must_use]
pub fn library(section: &str, contents: &[u8]) -> Vec<u8> {
    let size = contents.len() as u64;
    let name = section.to_owned();
    file(vec![Section {
        name,
        kind: PROGRAM_BITS,
        contents: contents.to_vec(),
        size,
        link: 0,
        info: 0,
        align: 4,
    }])
}

/// Lays out an ELF file: header, contents, section headers.
fn file(mut sections: Vec<Section>) -> Vec<u8> {
    let mut names = vec![0];
    let mut offsets: Vec<u32> =
        sections.iter().map(|section| add_string(&mut names, &section.name)).collect();
    offsets.push(add_string(&mut names, ".shstrtab"));
    let size = names.len() as u64;
    let name = String::new();
    sections.push(Section { name, kind: STRING_TABLE, contents: names, size, link: 0, info: 0, align: 4 });

    let mut bytes = vec![0; 64];
    let mut headers = vec![0; 64];
    for (section, name) in sections.iter().zip(offsets) {
        headers.extend(words(&[name, section.kind]));
        let fields = [0, 0, bytes.len() as u64, section.size];
        headers.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
        headers.extend(words(&[section.link, section.info]));
        headers.extend([section.align, 0].iter().flat_map(|field: &u64| field.to_le_bytes()));
        bytes.extend_from_slice(&section.contents);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x41");
    // A linked file for CUDA.
    bytes[16..20].copy_from_slice(&[2, 0, 190, 0]);
    let at = bytes.len() as u64;
    bytes[40..48].copy_from_slice(&at.to_le_bytes());
    bytes[58..60].copy_from_slice(&64_u16.to_le_bytes());
    bytes[60..62].copy_from_slice(&(sections.len() as u16 + 1).to_le_bytes());
    bytes[62..64].copy_from_slice(&(sections.len() as u16).to_le_bytes());
    bytes.extend(headers);
    bytes
}

fn entry(
    kind: EntryKind,
    sm: u32,
    header_bytes: u32,
    flags: u64,
    compressed: u32,
    plain: u64,
    payload: &[u8],
) -> Vec<u8> {
    let mut payload = payload.to_vec();
    payload.resize(payload.len().next_multiple_of(8), 0);
    let mut header =
        words(&[0x0101_0000 | u32::from(kind.0), header_bytes, payload.len() as u32, 0, compressed]);
    header.extend(words(&[0, 0x0001_0000, sm, 0, 0]));
    header.extend([flags, 0, plain].iter().flat_map(|field| field.to_le_bytes()));
    header.resize(header_bytes as usize, 0);
    header.extend(payload);
    header
}

/// An entry that is stored as it is.
#[must_use]
pub fn plain_entry(kind: EntryKind, sm: u32, header_bytes: u32, payload: &[u8]) -> Vec<u8> {
    entry(kind, sm, header_bytes, 0x11, 0, 0, payload)
}

/// An entry that is stored as an LZ4 block.
#[must_use]
pub fn lz4_entry(kind: EntryKind, sm: u32, header_bytes: u32, payload: &[u8]) -> Vec<u8> {
    let stored = lz4_flex::block::compress(payload);
    entry(kind, sm, header_bytes, 0x2011, stored.len() as u32, payload.len() as u64, &stored)
}

/// An entry that is stored as a zstd frame.
#[must_use]
pub fn zstd_entry(kind: EntryKind, sm: u32, header_bytes: u32, payload: &[u8]) -> Vec<u8> {
    let stored = zstd::bulk::compress(payload, 3).expect("zstd compresses");
    entry(kind, sm, header_bytes, 0x8011, stored.len() as u32, payload.len() as u64, &stored)
}

/// A container of `entries`.
#[must_use]
pub fn container(entries: &[Vec<u8>]) -> Vec<u8> {
    let body = entries.concat();
    let mut bytes = words(&[0xba55_ed50, 0x0010_0001]);
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(body);
    bytes
}
