//! Builds cubins and containers for tests, independently of the code that reads them.

use super::fatbin::EntryKind;

/// A kernel to be put into a cubin.
pub(crate) struct KernelSource {
    pub(crate) name: &'static str,
    /// (offset, bytes) of each argument.
    pub(crate) parameters: Vec<(u32, u32)>,
    pub(crate) block_bytes: u32,
    pub(crate) shared_bytes: u64,
    pub(crate) registers: u32,
}

/// What a cubin is made of.
pub(crate) struct CubinSource {
    pub(crate) kernels: Vec<KernelSource>,
    /// (section, name, bytes) of each variable; one per section.
    pub(crate) globals: Vec<(&'static str, &'static str, u64)>,
}

struct Section {
    name: String,
    kind: u32,
    contents: Vec<u8>,
    size: u64,
    link: u32,
    info: u32,
}

const PROGRAM_BITS: u32 = 1;
const SYMBOL_TABLE: u32 = 2;
const STRING_TABLE: u32 = 3;
const NO_BITS: u32 = 8;
const CUDA_INFO: u32 = 0x7000_0000;

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

/// A cubin with the sections that ptxas writes for `source`. The first kernel's register count stands in `.nv.info`, the
/// others' in `sh_info` of their code, as newer and older compilers do.
pub(crate) fn cubin(source: &CubinSource) -> Vec<u8> {
    let mut sections: Vec<Section> = Vec::new();
    let mut section = |name: &str, kind, contents: Vec<u8>, link, info| {
        let size = contents.len() as u64;
        sections.push(Section { name: name.to_owned(), kind, contents, size, link, info });
        sections.len() as u32
    };
    let (mut names, mut symbols) = (vec![0], vec![0; 24]);
    let mut symbol = |name: &str, info: u8, other: u8, section: u32, bytes: u64| {
        symbols.extend(words(&[
            add_string(&mut names, name),
            u32::from(info) | u32::from(other) << 8 | section << 16,
        ]));
        symbols.extend([0, bytes].iter().flat_map(|field: &u64| field.to_le_bytes()));
        symbols.len() as u32 / 24 - 1
    };
    let mut register_counts = Vec::new();
    let mut no_bits = Vec::new();
    for (place, kernel) in source.kernels.iter().enumerate() {
        let name = kernel.name;
        section(&format!(".nv.info.{name}"), CUDA_INFO, kernel_info(kernel), 3, 0);
        let old_count = if place == 0 { 0 } else { kernel.registers << 24 };
        let code = section(&format!(".text.{name}"), PROGRAM_BITS, vec![0x90; 128], 3, old_count | 17);
        symbol(&format!("${name}$helper"), 0x02, 0, code, 64);
        let number = symbol(name, 0x12, 0x10, code, 128);
        if place == 0 {
            register_counts = words(&[0x0008_2f04, number, kernel.registers]);
        }
        if kernel.shared_bytes > 0 {
            let kind = if place == 0 { 0x7000_000a } else { NO_BITS };
            let index = section(&format!(".nv.shared.{name}"), kind, Vec::new(), 0, 17);
            no_bits.push((index, kernel.shared_bytes));
        }
    }
    for &(place, name, bytes) in &source.globals {
        let index = if place == ".nv.global" {
            let index = section(place, NO_BITS, Vec::new(), 0, 0);
            no_bits.push((index, bytes));
            index
        } else {
            section(place, PROGRAM_BITS, vec![1; bytes as usize], 0, 0)
        };
        symbol(name, 0x11, 0, index, bytes);
    }
    section(".nv.info", CUDA_INFO, register_counts, 3, 0);
    let strings = section(".strtab", STRING_TABLE, names, 0, 0);
    section(".symtab", SYMBOL_TABLE, symbols, strings, 1);
    for (index, bytes) in no_bits {
        sections[index as usize - 1].size = bytes;
    }
    file(sections)
}

/// An ELF file with one section, as host libraries keep their fatbins.
pub(crate) fn library(section: &str, contents: &[u8]) -> Vec<u8> {
    let size = contents.len() as u64;
    let name = section.to_owned();
    file(vec![Section { name, kind: PROGRAM_BITS, contents: contents.to_vec(), size, link: 0, info: 0 }])
}

/// Lays out an ELF file: header, contents, section headers.
fn file(mut sections: Vec<Section>) -> Vec<u8> {
    let mut names = vec![0];
    let mut offsets: Vec<u32> =
        sections.iter().map(|section| add_string(&mut names, &section.name)).collect();
    offsets.push(add_string(&mut names, ".shstrtab"));
    let size = names.len() as u64;
    let name = String::new();
    sections.push(Section { name, kind: STRING_TABLE, contents: names, size, link: 0, info: 0 });

    let mut bytes = vec![0; 64];
    let mut headers = vec![0; 64];
    for (section, name) in sections.iter().zip(offsets) {
        headers.extend(words(&[name, section.kind]));
        let fields = [0, 0, bytes.len() as u64, section.size];
        headers.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
        headers.extend(words(&[section.link, section.info]));
        headers.extend([4, 0].iter().flat_map(|field: &u64| field.to_le_bytes()));
        bytes.extend_from_slice(&section.contents);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x41");
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
pub(crate) fn plain_entry(kind: EntryKind, sm: u32, header_bytes: u32, payload: &[u8]) -> Vec<u8> {
    entry(kind, sm, header_bytes, 0x11, 0, 0, payload)
}

/// An entry that is stored as an LZ4 block.
pub(crate) fn lz4_entry(kind: EntryKind, sm: u32, header_bytes: u32, payload: &[u8]) -> Vec<u8> {
    let stored = lz4_flex::block::compress(payload);
    entry(kind, sm, header_bytes, 0x2011, stored.len() as u32, payload.len() as u64, &stored)
}

/// An entry that is stored as a zstd frame.
pub(crate) fn zstd_entry(kind: EntryKind, sm: u32, header_bytes: u32, payload: &[u8]) -> Vec<u8> {
    let stored = zstd::bulk::compress(payload, 3).expect("zstd compresses");
    entry(kind, sm, header_bytes, 0x8011, stored.len() as u32, payload.len() as u64, &stored)
}

/// A container of `entries`.
pub(crate) fn container(entries: &[Vec<u8>]) -> Vec<u8> {
    let body = entries.concat();
    let mut bytes = words(&[0xba55_ed50, 0x0010_0001]);
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(body);
    bytes
}
