//! Which sections, and which parts of them, become which block.

use super::super::ImageError;
use super::super::elf::{File, Section, Symbol};
use super::{BLOCK_ALIGN_BYTES, Immovable, OTHER_MANAGED};
use std::collections::BTreeMap;
use std::ops::Range;

/// More than the memory of any GPU.
const MAX_BLOCK_BYTES: u64 = 1 << 40;

/// A stretch of a section, in one of the blocks.
#[derive(Debug)]
pub(super) struct Part {
    section: usize,
    /// Where it begins in its section.
    start: u64,
    /// Where it begins in the block.
    pub(super) offset: u64,
    bytes: u64,
    pub(super) is_constant: bool,
    /// It is of the block of managed variables.
    pub(super) is_managed: bool,
    /// Where the file has its first contents, if it has.
    pub(super) initial: Range<usize>,
}

impl Part {
    pub(super) fn is_constant(section: &str) -> bool {
        section == ".nv.constant3"
    }

    pub(super) fn is_variables(section: &str) -> bool {
        section.starts_with(".nv.global") || Self::is_constant(section)
    }

    /// Where the block has a symbol that lies in this part as a whole.
    pub(super) fn offset_of(&self, symbol: &Symbol<'_>) -> Option<u64> {
        let inside = symbol.offset.checked_sub(self.start)?;
        let end = inside.checked_add(symbol.size_bytes)?;
        (end <= self.bytes).then(|| self.offset + inside)
    }

    /// Where the block has, or would have, a place of the section.
    pub(super) fn address_of(&self, offset: u64) -> i64 {
        self.offset.wrapping_add(offset).wrapping_sub(self.start).cast_signed()
    }
}

/// The parts of both blocks.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) all: Vec<Part>,
    pub(super) device_bytes: u64,
    pub(super) managed_bytes: u64,
    /// Where the file says of a symbol that it is managed.
    pub(super) managed_marks: Vec<usize>,
    /// Sections with managed variables. What refers to such a section as a whole may mean any of them.
    mixed: Vec<u32>,
}

/// Where a symbol is.
pub(super) enum Place {
    /// In no block.
    Outside,
    /// In this part of a block.
    In { offset: i64, is_managed: bool },
    /// It stands for a whole section that is in both blocks.
    Unclear,
}

fn is_managed(symbol: &Symbol<'_>) -> bool {
    symbol.other & OTHER_MANAGED != 0
}

impl Parts {
    pub(super) fn of(file: &File<'_>, symbols: &BTreeMap<u32, Symbol<'_>>) -> Result<Self, Immovable> {
        let mut parts = Self::default();
        for (section, header) in file.sections().iter().enumerate() {
            if header.size_bytes == 0 || !Part::is_variables(header.name) || header.is_relocations() {
                continue;
            }
            if header.align > BLOCK_ALIGN_BYTES {
                return Err(Immovable::Alignment { section: header.name.to_owned(), bytes: header.align });
            }
            let own = symbols.iter().filter(|(_, symbol)| symbol.section as usize == section);
            let marked: Vec<_> = own.clone().filter(|(_, symbol)| is_managed(symbol)).collect();
            if marked.is_empty() {
                parts.add(file, (section, header), 0..header.size_bytes, false)?;
                continue;
            }
            parts.mixed.push(section as u32);
            parts.managed_marks.extend(marked.iter().filter_map(|&(&number, _)| file.other_field(number)));
            let (managed, others): (Vec<_>, Vec<_>) = own
                .map(|(_, symbol)| symbol)
                .filter(|symbol| symbol.size_bytes > 0)
                .partition(|symbol| is_managed(symbol));
            for (symbols, is_managed) in [(others, false), (managed, true)] {
                if let Some(window) = window(&symbols, header.size_bytes) {
                    parts.add(file, (section, header), window, is_managed)?;
                }
            }
        }
        Ok(parts)
    }

    fn add(
        &mut self,
        file: &File<'_>,
        (section, header): (usize, &Section<'_>),
        window: Range<u64>,
        is_managed: bool,
    ) -> Result<(), Immovable> {
        let block_bytes = if is_managed { &mut self.managed_bytes } else { &mut self.device_bytes };
        let offset = block_bytes.next_multiple_of(BLOCK_ALIGN_BYTES);
        let bytes = window.end - window.start;
        *block_bytes =
            offset.checked_add(bytes).filter(|&end| end <= MAX_BLOCK_BYTES).ok_or(ImageError::TooLarge {
                what: "variables",
                bytes: header.size_bytes,
                maximum: MAX_BLOCK_BYTES,
            })?;
        // A section without contents in the file has none here.
        let stored = file.contents(header)?.len() as u64;
        let place = |at: u64| header.offset.saturating_add(at.min(stored)) as usize;
        self.all.push(Part {
            section,
            start: window.start,
            offset,
            bytes,
            is_constant: Part::is_constant(header.name),
            is_managed,
            initial: place(window.start)..place(window.end),
        });
        Ok(())
    }

    /// The part that a variable lies in.
    pub(super) fn of_symbol(&self, symbol: &Symbol<'_>) -> Option<&Part> {
        let is_managed = is_managed(symbol);
        let is_its =
            |part: &&Part| part.section as u64 == u64::from(symbol.section) && part.is_managed == is_managed;
        self.all.iter().find(is_its)
    }

    /// Where a symbol is that something refers to.
    pub(super) fn place_of(&self, symbol: &Symbol<'_>) -> Place {
        if symbol.size_bytes == 0 && self.mixed.contains(&symbol.section) {
            return Place::Unclear;
        }
        match self.of_symbol(symbol) {
            Some(part) => Place::In { offset: part.address_of(symbol.offset), is_managed: part.is_managed },
            None => Place::Outside,
        }
    }
}

/// From the first symbol to the end of the last, as far as the section has that; `None` without symbols. It begins where an
/// aligned variable stays aligned.
fn window(symbols: &[&Symbol<'_>], section_bytes: u64) -> Option<Range<u64>> {
    let first = symbols.iter().map(|symbol| symbol.offset).min()?.min(section_bytes);
    let end = symbols.iter().map(|symbol| symbol.offset.saturating_add(symbol.size_bytes)).max()?;
    Some(first / BLOCK_ALIGN_BYTES * BLOCK_ALIGN_BYTES..end.min(section_bytes).max(first))
}
