//! Which places of a cubin hold the address of a variable.

use super::super::ImageError;
use super::super::elf::{self, Relocation, Symbol};
use super::super::source::u64_at;
use super::code_pointers::CodePointer;
use super::parts::{Parts, Place};
use super::{Bases, Immovable, Part};
use std::collections::BTreeMap;

const KIND_ADDRESS: u32 = 2;
const KIND_GENERIC_ADDRESS: u32 = 4;
const KIND_LOWER_HALF: u32 = 0x38;
const KIND_UPPER_HALF: u32 = 0x39;
const KIND_FIRST_BYTE: u32 = 0x54;
const KIND_LAST_BYTE: u32 = 0x5b;

/// Where the immediate stands in an instruction.
const IMMEDIATE_OFFSET: u64 = 4;

/// A place in the file that is to hold an address in the block.
#[derive(Debug)]
pub(super) struct Reference {
    /// In the file.
    place: usize,
    field: Field,
    /// In its block, or where its end would be: an address may be that of an array's end.
    target: i64,
    is_managed: bool,
}

#[derive(Debug, Clone, Copy)]
enum Field {
    Whole,
    LowerHalf,
    UpperHalf,
    Byte(u32),
}

impl Field {
    fn bytes(self) -> usize {
        match self {
            Self::Whole => 8,
            Self::LowerHalf | Self::UpperHalf => 4,
            Self::Byte(_) => 1,
        }
    }
}

impl Reference {
    /// Puts the address in its place, for blocks that begin there.
    pub(super) fn put(&self, bases: Bases, file: &mut [u8]) {
        let address = bases.of(self.is_managed).wrapping_add_signed(self.target).to_le_bytes();
        let first = match self.field {
            Field::Whole | Field::LowerHalf => 0,
            Field::UpperHalf => 4,
            Field::Byte(number) => number as usize,
        };
        let bytes = self.field.bytes();
        file[self.place..self.place + bytes].copy_from_slice(&address[first..first + bytes]);
    }
}

/// A relocation section that loses entries.
#[derive(Debug)]
pub(super) struct Shortened {
    /// Where it begins in the file.
    pub(super) place: usize,
    /// Where the file has its length.
    pub(super) size_field: usize,
    /// Its other entries.
    pub(super) kept: Vec<u8>,
}

/// What the relocations of a file say.
#[derive(Debug, Default)]
pub(super) struct References {
    pub(super) places: Vec<Reference>,
    pub(super) shortened: Vec<Shortened>,
    /// Numbers of the symbols that something refers to.
    pub(super) referred: Vec<u32>,
    /// Places that the driver alone can fill.
    pub(super) code_pointers: Vec<CodePointer>,
    /// What cannot be followed.
    pub(super) obstacle: Option<Immovable>,
}

impl References {
    pub(super) fn read(
        file: &elf::File<'_>,
        symbols: &BTreeMap<u32, Symbol<'_>>,
        parts: &Parts,
    ) -> Result<Self, ImageError> {
        let mut all = Self::default();
        for (index, section) in file.sections().iter().enumerate() {
            let Some(entries) = file.relocations(section)? else { continue };
            let contents = file.contents(section)?;
            let stored = contents.chunks_exact((contents.len() / entries.len().max(1)).max(1));
            let mut kept = Vec::new();
            for (entry, stored) in entries.iter().zip(stored) {
                if !all.take(file, section.info as usize, entry, symbols.get(&entry.symbol), parts)? {
                    kept.extend_from_slice(stored);
                }
            }
            if kept.len() < contents.len() {
                let (place, size_field) = (section.offset as usize, file.size_field(index));
                all.shortened.push(Shortened { place, size_field, kept });
            }
        }
        Ok(all)
    }

    /// Takes a relocation over; false if it stays for the driver.
    fn take(
        &mut self,
        file: &elf::File<'_>,
        target: usize,
        entry: &Relocation,
        symbol: Option<&Symbol<'_>>,
        parts: &Parts,
    ) -> Result<bool, ImageError> {
        let section = file.sections().get(target).ok_or_else(damaged)?;
        let obstacle = || {
            Some(Immovable::Reference {
                symbol: symbol.map_or("", |symbol| symbol.name).to_owned(),
                section: section.name.to_owned(),
                kind: entry.kind,
            })
        };
        let place = symbol.map_or(Place::Outside, |symbol| parts.place_of(symbol));
        let (Some(symbol), Place::In { offset, is_managed }) = (symbol, &place) else {
            if is_initialiser(section.name)
                && matches!(entry.kind, KIND_ADDRESS | KIND_GENERIC_ADDRESS)
                && symbol.is_some_and(|symbol| is_function(file, symbol))
            {
                let (section, offset) = (target as u32, entry.offset);
                let Relocation { symbol, kind, .. } = *entry;
                self.code_pointers.push(CodePointer { section, offset, symbol, kind });
                return Ok(false);
            }
            let is_unclear = matches!(place, Place::Unclear) && !is_for_debuggers(section.name);
            if is_unclear || is_initialiser(section.name) {
                // The block would need what the driver puts there.
                self.obstacle = obstacle();
            }
            return Ok(false);
        };
        if is_for_debuggers(section.name) {
            return Ok(false);
        }
        let is_code = section.name.starts_with(".text.");
        let field = match entry.kind {
            KIND_ADDRESS if section.name == ".nv.constant4" => Field::Whole,
            KIND_LOWER_HALF if is_code => Field::LowerHalf,
            KIND_UPPER_HALF if is_code => Field::UpperHalf,
            KIND_GENERIC_ADDRESS if is_initialiser(section.name) => Field::Whole,
            kind @ KIND_FIRST_BYTE..=KIND_LAST_BYTE if is_initialiser(section.name) => {
                Field::Byte(kind - KIND_FIRST_BYTE)
            }
            // Where a constant stands in its bank: there it stays.
            _ if is_constant(file, symbol) => return Ok(false),
            _ => {
                self.referred.push(entry.symbol);
                self.obstacle = obstacle();
                return Ok(false);
            }
        };
        let shift = if is_code { IMMEDIATE_OFFSET } else { 0 };
        let start =
            entry.offset.checked_add(shift).and_then(|at| usize::try_from(at).ok()).ok_or_else(damaged)?;
        let end = start.checked_add(field.bytes()).ok_or_else(damaged)?;
        let stored = file.contents(section)?.get(start..end).ok_or_else(damaged)?;
        let addend = match (entry.addend, field) {
            (Some(addend), _) => addend,
            (None, Field::Whole) => u64_at(stored, 0).unwrap_or(0).cast_signed(),
            (None, _) if stored.iter().all(|&byte| byte == 0) => 0,
            // A part of an addend says nothing of the sum.
            (None, _) => {
                self.obstacle = obstacle();
                0
            }
        };
        let (target, is_managed) = (offset.wrapping_add(addend), *is_managed);
        self.referred.push(entry.symbol);
        self.places.push(Reference { place: section.offset as usize + start, field, target, is_managed });
        Ok(true)
    }
}

fn damaged() -> ImageError {
    ImageError::Malformed { what: "relocation", offset: 0 }
}

fn is_constant(file: &elf::File<'_>, symbol: &Symbol<'_>) -> bool {
    file.sections().get(symbol.section as usize).is_some_and(|section| Part::is_constant(section.name))
}

/// Whether the cubin has code for it.
fn is_function(file: &elf::File<'_>, symbol: &Symbol<'_>) -> bool {
    file.sections().get(symbol.section as usize).is_some_and(|section| section.name.starts_with(".text."))
}

fn is_initialiser(section: &str) -> bool {
    Part::is_variables(section)
}

fn is_for_debuggers(section: &str) -> bool {
    section.starts_with(".debug") || section.starts_with(".nv_debug")
}
