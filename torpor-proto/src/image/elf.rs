//! The parts of 64-bit little-endian ELF that cubins use: extent, sections, symbols.
//!
//! Layouts are those of the ELF-64 object file format (`elf.h`). Names are read against a budget, so that a file
//! whose million headers share one long name costs no more time than a sound file of its size.

use std::cell::Cell;

use super::ImageError;
use super::source::{Source, u16_at, u32_at, u64_at};

/// The first word of an ELF file.
pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"\x7fELF");

const HEADER_BYTES: u64 = 64;
const PROGRAM_HEADER_BYTES: u64 = 56;
const SECTION_HEADER_BYTES: u64 = 64;
const SYMBOL_BYTES: usize = 24;
/// Class (64-bit) and data encoding (little-endian), at offset 4.
const IDENT_64_LITTLE: u16 = u16::from_le_bytes([2, 1]);
/// `SHT_SYMTAB`.
const SECTION_SYMBOLS: u32 = 2;
/// Sections that take memory but no bytes of the file: `SHT_NOBITS`, and what relocatable cubins have in its place for
/// global, local, shared and reserved shared memory.
const SECTIONS_WITHOUT_BYTES: [u32; 5] = [8, 0x7000_0007, 0x7000_0009, 0x7000_000a, 0x7000_0015];
/// `SHT_RELA`, and what an entry has.
const SECTION_RELOCATIONS_WITH_ADDENDS: u32 = 4;
const RELOCATION_WITH_ADDEND_BYTES: usize = 24;
/// `SHT_REL`, and what an entry has.
const SECTION_RELOCATIONS: u32 = 9;
const RELOCATION_BYTES: usize = 16;
/// `SHT_SYMTAB_SHNDX`: the real section numbers of symbols that say [`NUMBER_ELSEWHERE`].
const SECTION_SYMBOL_NUMBERS: u32 = 18;
/// `SHN_XINDEX`: the number is too large for 16 bits.
const NUMBER_ELSEWHERE: u16 = 0xffff;

/// Where the two header tables of a file are.
struct Tables {
    programs: (u64, u64),
    sections: (u64, u64),
    names: u32,
}

/// Whether a section of this type takes bytes of the file.
fn has_bytes(kind: u32) -> bool {
    !SECTIONS_WITHOUT_BYTES.contains(&kind)
}

fn malformed(what: &'static str, offset: u64) -> ImageError {
    ImageError::Malformed { what, offset }
}

/// The offset of a table's entry `index` (saturated: out of reach in any file).
fn slot(base: u64, index: u64, bytes: u64) -> u64 {
    base.saturating_add(index.saturating_mul(bytes))
}

fn tables<'a, S: Source<'a>>(source: S) -> Result<Tables, ImageError> {
    let header = source.bytes("ELF header", 0, HEADER_BYTES)?;
    let (u16_of, u64_of) = (|at| u16_at(header, at).unwrap_or(0), |at| u64_at(header, at).unwrap_or(0));
    if u32_at(header, 0) != Some(MAGIC) || u16_of(4) != IDENT_64_LITTLE {
        return Err(malformed("ELF identification (not 64-bit little-endian)", 0));
    }
    let (program_offset, section_offset) = (u64_of(32), u64_of(40));
    let mut program_count = if program_offset == 0 { 0 } else { u64::from(u16_of(56)) };
    let mut section_count = u64::from(u16_of(60));
    let mut names = u32::from(u16_of(62));
    if program_count > 0 && u64::from(u16_of(54)) != PROGRAM_HEADER_BYTES {
        return Err(malformed("ELF program header size", 54));
    }
    if section_offset == 0 {
        section_count = 0;
    } else {
        if u64::from(u16_of(58)) != SECTION_HEADER_BYTES {
            return Err(malformed("ELF section header size", 58));
        }
        // Numbers that do not fit in the header stand in section 0.
        let zeroth = source.bytes("ELF section header 0", section_offset, SECTION_HEADER_BYTES)?;
        if section_count == 0 {
            // It is a part of the file itself, whatever it says.
            section_count = u64_at(zeroth, 32).unwrap_or(0).max(1);
        }
        if names == u32::from(NUMBER_ELSEWHERE) {
            names = u32_at(zeroth, 40).unwrap_or(0);
        }
        if program_count == u64::from(u16::MAX) {
            program_count = u64::from(u32_at(zeroth, 44).unwrap_or(0));
        }
    }
    Ok(Tables { programs: (program_offset, program_count), sections: (section_offset, section_count), names })
}

/// How many bytes the ELF file at the start of `source` has: the furthest end of its header, its header tables, and the
/// segments and sections that have bytes.
pub(super) fn extent_bytes<'a, S: Source<'a>>(source: S) -> Result<u64, ImageError> {
    let Tables { programs, sections, .. } = tables(source)?;
    let mut furthest = HEADER_BYTES;
    let program_bytes = programs.1.saturating_mul(PROGRAM_HEADER_BYTES);
    let table = source.bytes("ELF program headers", programs.0, program_bytes)?;
    for program in table.chunks_exact(PROGRAM_HEADER_BYTES as usize) {
        let (offset, bytes) = (u64_at(program, 8).unwrap_or(0), u64_at(program, 32).unwrap_or(0));
        if bytes > 0 {
            furthest = furthest.max(offset.saturating_add(bytes));
        }
    }
    furthest = furthest.max(slot(programs.0, programs.1, PROGRAM_HEADER_BYTES));
    let section_bytes = sections.1.saturating_mul(SECTION_HEADER_BYTES);
    let table = source.bytes("ELF section headers", sections.0, section_bytes)?;
    for section in table.chunks_exact(SECTION_HEADER_BYTES as usize).skip(1) {
        let (offset, bytes) = (u64_at(section, 24).unwrap_or(0), u64_at(section, 32).unwrap_or(0));
        if bytes > 0 && u32_at(section, 4).is_some_and(has_bytes) {
            furthest = furthest.max(offset.saturating_add(bytes));
        }
    }
    Ok(furthest.max(slot(sections.0, sections.1, SECTION_HEADER_BYTES)))
}

/// One section header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section<'a> {
    pub(super) name: &'a str,
    /// `sh_type`.
    pub(super) kind: u32,
    /// `sh_offset`: where its bytes begin.
    pub(super) offset: u64,
    /// `sh_size`; bytes of memory for one that takes none of the file.
    pub(super) size_bytes: u64,
    /// `sh_link`: for a symbol table, the section with its names.
    pub(super) link: u32,
    /// `sh_info`: in `.text.*` sections of cubins the register count stands in its highest byte; for relocations, the
    /// section that they are about.
    pub(super) info: u32,
    /// `sh_addralign`.
    pub(super) align: u64,
}

impl Section<'_> {
    /// Whether it holds relocations.
    pub(super) fn is_relocations(&self) -> bool {
        matches!(self.kind, SECTION_RELOCATIONS | SECTION_RELOCATIONS_WITH_ADDENDS)
    }
}

/// One entry of a symbol table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol<'a> {
    pub(super) name: &'a str,
    /// Bit 4 upwards of `st_info`: 0 if only this file can name it.
    pub(super) binding: u8,
    /// `st_other`.
    pub(super) other: u8,
    /// The section it is defined in.
    pub(super) section: u32,
    /// `st_value`: where it begins in its section.
    pub(super) offset: u64,
    pub(super) size_bytes: u64,
}

/// One entry of a relocation section.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relocation {
    /// Where in the section that it is about.
    pub(super) offset: u64,
    pub(super) symbol: u32,
    pub(super) kind: u32,
    /// Absent if it stands in the place itself (`SHT_REL`).
    pub(super) addend: Option<i64>,
}

/// An ELF file inside a slice.
pub(super) struct File<'a> {
    bytes: &'a [u8],
    /// Where the table of section headers begins.
    headers: u64,
    sections: Vec<Section<'a>>,
    /// How many bytes of names may still be read.
    name_budget: Cell<usize>,
}

impl<'a> File<'a> {
    /// The file at the start of `bytes`.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let Tables { sections: (offset, count), names, .. } = tables(bytes)?;
        let table = bytes.bytes("ELF section headers", offset, count.saturating_mul(SECTION_HEADER_BYTES))?;
        let headers: Vec<Section<'a>> =
            table.chunks_exact(SECTION_HEADER_BYTES as usize).map(section).collect();
        let name_budget = Cell::new(bytes.len().saturating_mul(4));
        let mut file = Self { bytes, headers: offset, sections: headers, name_budget };
        if let Some(strings) = file.sections.get(names as usize).copied() {
            let strings = file.contents(&strings)?;
            for (index, header) in table.chunks_exact(SECTION_HEADER_BYTES as usize).enumerate() {
                let name = file.name(strings, u32_at(header, 0).unwrap_or(0))?;
                file.sections[index].name = name;
            }
        }
        Ok(file)
    }

    /// All sections, in order.
    pub(super) fn sections(&self) -> &[Section<'a>] {
        &self.sections
    }

    /// The bytes of `section`; none for one that takes none.
    pub(super) fn contents(&self, section: &Section<'a>) -> Result<&'a [u8], ImageError> {
        if !has_bytes(section.kind) {
            return Ok(&[]);
        }
        self.bytes.bytes("ELF section", section.offset, section.size_bytes)
    }

    /// The symbols of the first symbol table for which `wanted(kind, other)` holds, each with its number; `kind` is
    /// `st_info & 15`, `other` is `st_other`.
    pub(super) fn symbols(
        &self,
        wanted: impl Fn(u8, u8) -> bool,
    ) -> Result<Vec<(u32, Symbol<'a>)>, ImageError> {
        let Some(place) = self.sections.iter().position(|section| section.kind == SECTION_SYMBOLS) else {
            return Ok(Vec::new());
        };
        let table = self.sections[place];
        let strings =
            self.sections.get(table.link as usize).ok_or(malformed("ELF symbol names", table.offset))?;
        let (symbols, strings) = (self.contents(&table)?, self.contents(strings)?);
        let far = self
            .sections
            .iter()
            .find(|section| section.kind == SECTION_SYMBOL_NUMBERS && section.link as usize == place);
        let far = far.map_or(Ok::<&[u8], _>(&[]), |section| self.contents(section))?;
        let mut found = Vec::new();
        for (number, symbol) in symbols.chunks_exact(SYMBOL_BYTES).enumerate() {
            let (kind, other) = (symbol[4] & 15, symbol[5]);
            if !wanted(kind, other) {
                continue;
            }
            let near = u16_at(symbol, 6).unwrap_or(0);
            let section = if near == NUMBER_ELSEWHERE {
                u32_at(far, number.saturating_mul(4)).ok_or(malformed("ELF section number", table.offset))?
            } else {
                u32::from(near)
            };
            let name = self.name(strings, u32_at(symbol, 0).unwrap_or(0))?;
            let size_bytes = u64_at(symbol, 16).unwrap_or(0);
            let number = u32::try_from(number).map_err(|_| malformed("ELF symbol count", table.offset))?;
            let (binding, offset) = (symbol[4] >> 4, u64_at(symbol, 8).unwrap_or(0));
            found.push((number, Symbol { name, binding, other, section, offset, size_bytes }));
        }
        Ok(found)
    }

    /// Where the file has `st_other` of a symbol of the first symbol table.
    pub(super) fn other_field(&self, number: u32) -> Option<usize> {
        let table = self.sections.iter().find(|section| section.kind == SECTION_SYMBOLS)?;
        (table.offset as usize).checked_add(number as usize * SYMBOL_BYTES)?.checked_add(5)
    }

    /// The entries of a relocation section; `None` for a section of another kind.
    pub(super) fn relocations(&self, section: &Section<'a>) -> Result<Option<Vec<Relocation>>, ImageError> {
        let entry_bytes = match section.kind {
            SECTION_RELOCATIONS_WITH_ADDENDS => RELOCATION_WITH_ADDEND_BYTES,
            SECTION_RELOCATIONS => RELOCATION_BYTES,
            _ => return Ok(None),
        };
        let entry = |entry: &[u8]| {
            let info = u64_at(entry, 8).unwrap_or(0);
            Relocation {
                offset: u64_at(entry, 0).unwrap_or(0),
                symbol: (info >> 32) as u32,
                kind: info as u32,
                addend: u64_at(entry, 16).map(u64::cast_signed),
            }
        };
        Ok(Some(self.contents(section)?.chunks_exact(entry_bytes).map(entry).collect()))
    }

    /// Where the file has `sh_size` of a section.
    pub(super) fn size_field(&self, section: usize) -> usize {
        slot(self.headers, section as u64, SECTION_HEADER_BYTES).saturating_add(32) as usize
    }

    /// The NUL-terminated name at `offset` of a string table.
    fn name(&self, strings: &'a [u8], offset: u32) -> Result<&'a str, ImageError> {
        let bad = malformed("ELF name", u64::from(offset));
        let rest = strings.get(offset as usize..).ok_or(bad.clone())?;
        let budget = self.name_budget.get();
        let end = rest.iter().take(budget).position(|&byte| byte == 0).ok_or(bad.clone())?;
        self.name_budget.set(budget - end);
        std::str::from_utf8(&rest[..end]).map_err(|_| bad)
    }
}

/// A section header without its name.
fn section<'a>(header: &[u8]) -> Section<'a> {
    let (u32_of, u64_of) = (|at| u32_at(header, at).unwrap_or(0), |at| u64_at(header, at).unwrap_or(0));
    Section {
        name: "",
        kind: u32_of(4),
        offset: u64_of(24),
        size_bytes: u64_of(32),
        link: u32_of(40),
        info: u32_of(44),
        align: u64_of(48),
    }
}
