//! Pointers to code in initialisers: the driver alone knows what they are, once it has loaded the code.
//!
//! Their relocations stay in the cubin, so the driver's own copy of the variable gets them, and the block has them from there.

use super::super::elf::Symbol;
use super::parts::Parts;
use super::{BINDING_LOCAL, Variable};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// Bytes of a pointer.
const POINTER_BYTES: u64 = 8;

/// Where a variable points to code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodePointers {
    /// The variable's name, by which the driver says where its own copy is.
    pub name: String,
    /// The variable, which is not managed.
    pub variable: Variable,
    /// Stretches of the variable that hold nothing else, in bytes from its beginning; they end in it.
    pub places: Vec<Range<u64>>,
}

/// A place of an initialiser that is to hold the address of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CodePointer {
    /// The section of the initialiser, and where in it.
    pub(super) section: u32,
    pub(super) offset: u64,
    /// The function.
    pub(super) symbol: u32,
    /// `r_type`.
    pub(super) kind: u32,
}

/// Finds the variables of pointers to code. The error is one that lies in none whose copy the driver would tell of.
pub(super) fn in_variables(
    mut pointers: Vec<CodePointer>,
    symbols: &BTreeMap<u32, Symbol<'_>>,
    parts: &Parts,
    variables: &HashMap<String, Variable>,
) -> Result<Vec<CodePointers>, CodePointer> {
    pointers.sort_unstable();
    let is_named = |symbol: &&Symbol<'_>| symbol.binding != BINDING_LOCAL && symbol.size_bytes > 0;
    let mut named: Vec<_> = symbols.values().filter(is_named).collect();
    named.sort_by_key(|symbol| (symbol.section, symbol.offset));
    let mut found: Vec<CodePointers> = Vec::new();
    for pointer in pointers {
        let place = (pointer.section, pointer.offset);
        let behind = named.partition_point(|symbol| (symbol.section, symbol.offset) <= place);
        let symbol = behind.checked_sub(1).and_then(|at| named.get(at)).ok_or(pointer)?;
        let variable = variables.get(symbol.name).copied().ok_or(pointer)?;
        let offset = pointer.offset.checked_sub(symbol.offset).ok_or(pointer)?;
        let end = offset.checked_add(POINTER_BYTES).ok_or(pointer)?;
        // The last of several symbols with that name, which the driver need not mean, may be another.
        let is_its = symbol.section == pointer.section
            && parts.of_symbol(symbol).and_then(|part| part.offset_of(symbol)) == Some(variable.offset)
            && variable.bytes == symbol.size_bytes;
        if !is_its || variable.is_managed || end > variable.bytes {
            return Err(pointer);
        }
        if found.last().is_none_or(|last| last.name != symbol.name) {
            found.push(CodePointers { name: symbol.name.to_owned(), variable, places: Vec::new() });
        }
        let Some(CodePointers { places, .. }) = found.last_mut() else { continue };
        match places.last_mut() {
            Some(last) if offset <= last.end => last.end = last.end.max(end),
            _ => places.push(offset..end),
        }
    }
    Ok(found)
}
