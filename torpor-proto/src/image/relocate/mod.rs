//! Moving a cubin's variables to addresses of our choice.
//!
//! The driver places the variables of a module where it likes. Here they become one block of memory that the caller
//! places: [`Relocatable::contents`] is what it holds at first, [`Relocatable::code`] the cubin with the block's addresses in all
//! places that refer to a variable. Seen on an H100 (driver 580.159): the driver loads such a cubin, kernels use the
//! block, and the driver's own copies stay as they are.
//!
//! | section | relocation | what stands there |
//! |---|---|---|
//! | `.nv.constant4` | 2 (`R_CUDA_64`) | an address, which code loads |
//! | `.text.*` | 0x38, 0x39 | the lower, upper half of an address, 4 bytes into the instruction |
//! | `.nv.global.init`, `.nv.constant3` | 4 (`R_CUDA_G64`), 0x54 to 0x5b | an address in an initialiser; its bytes, one by one |
//! | the same, of a function | 2, 4 | a pointer to code (NCCL's table of kernels' bodies has them) |
//!
//! The entries are taken out of their sections: the driver refuses a cubin in which they are only made void. Those of pointers
//! to code stay: where the code is the driver decides, and its own copy of the variable gets them. Whoever fills the block copies
//! them on from there ([`Relocatable::code_pointers`]), and again for each cubin that is loaded for the same block.
//!
//! `__constant__` variables stay in the driver's constant bank, which kernels read without an address. The block has a
//! copy of them, to which their addresses lead; whoever writes into the copy must write into the bank too.
//!
//! `__managed__` variables become a block of their own, which the program can reach as well. To the driver they are
//! variables like others from then on: it need not make managed memory for its copies, which nobody uses.

mod code_pointers;
mod error;
mod parts;
mod references;

pub use code_pointers::CodePointers;
pub use error::Immovable;

use super::elf::Symbol;
use super::{ImageError, elf::File};
use parts::{Part, Parts};
use references::References;
use std::collections::{BTreeMap, HashMap};

/// Alignment of the block and of each section's part of it, in bytes: more than compilers ask for.
pub const BLOCK_ALIGN_BYTES: u64 = 512;

/// `st_other`: a `__managed__` variable.
const OTHER_MANAGED: u8 = 4;

/// `STB_LOCAL`: only its own file can name the symbol.
const BINDING_LOCAL: u8 = 0;

/// The longest local initialised variable that is taken for a writable one: counters, flags and seeds are short, tables
/// and texts are not. None of the 5932 in PyTorch 2.11 is writable.
const LONGEST_LOCAL_STATE_BYTES: u64 = 16;

/// What compilers call texts, tables of their mathematical functions, and what has no name in the source.
const COMPILERS_NAMES: [&str; 3] = ["$", "__unnamed_", "__cudart_"];

/// A variable of a cubin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Where it begins in the block, in bytes.
    pub offset: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// It is `__constant__`: kernels read it from the constant bank.
    pub is_constant: bool,
    /// It is `__managed__`, and in the block of such.
    pub is_managed: bool,
}

/// Where the blocks begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bases {
    /// That of variables in device memory, constants' copies among them.
    pub device: u64,
    /// That of `__managed__` variables.
    pub managed: u64,
}

impl Bases {
    fn of(self, is_managed: bool) -> u64 {
        if is_managed { self.managed } else { self.device }
    }
}

/// A cubin, and what is to be changed in it for other places of its variables.
#[derive(Debug)]
pub struct Relocatable {
    cubin: Vec<u8>,
    parts: Parts,
    variables: HashMap<String, Variable>,
    references: References,
    code_pointers: Vec<CodePointers>,
    has_kernels: bool,
    has_state: bool,
}

impl Relocatable {
    /// Reads a cubin.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn read(cubin: Vec<u8>) -> Result<Self, Immovable> {
        let file = File::parse(&cubin)?;
        let symbols: BTreeMap<u32, Symbol<'_>> = file.symbols(|_, _| true)?.into_iter().collect();
        let parts = Parts::of(&file, &symbols)?;
        let mut references = References::read(&file, &symbols, &parts)?;
        let has_kernels = file.sections().iter().any(|section| section.name.starts_with(".text."));
        let referred = Referred::new(&references.referred, &symbols);
        // The program may write into managed variables wherever kernels only read them.
        let (mut variables, mut has_state) = (HashMap::new(), parts.managed_bytes > 0);
        for (&number, symbol) in symbols.iter().filter(|(_, symbol)| symbol.size_bytes > 0) {
            let Some(part) = parts.of_symbol(symbol) else { continue };
            let Some(offset) = part.offset_of(symbol) else {
                let what = "variable outside its section";
                return Err(ImageError::Malformed { what, offset: symbol.offset }.into());
            };
            let Part { is_constant, is_managed, .. } = *part;
            has_state |=
                !is_constant && referred.has(number, symbol) && is_state(symbol, !part.initial.is_empty());
            let variable = Variable { offset, bytes: symbol.size_bytes, is_constant, is_managed };
            // Several files that were linked may each have a local one of the same name.
            if symbol.binding != BINDING_LOCAL || !variables.contains_key(symbol.name) {
                variables.insert(symbol.name.to_owned(), variable);
            }
        }
        let pointers = std::mem::take(&mut references.code_pointers);
        let code_pointers = code_pointers::in_variables(pointers, &symbols, &parts, &variables);
        let code_pointers = code_pointers.unwrap_or_else(|pointer| {
            let section = file.sections().get(pointer.section as usize);
            references.obstacle = Some(Immovable::Reference {
                symbol: symbols.get(&pointer.symbol).map_or("", |symbol| symbol.name).to_owned(),
                section: section.map_or("", |section| section.name).to_owned(),
                kind: pointer.kind,
            });
            Vec::new()
        });
        Ok(Self { parts, variables, references, code_pointers, has_kernels, has_state, cubin })
    }

    /// What keeps the variables from being moved, if there is code that refers to them.
    #[must_use]
    pub fn obstacle(&self) -> Option<&Immovable> {
        self.references.obstacle.as_ref()
    }

    /// Length of the block in device memory, in bytes; 0 if there are no variables for it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.device_bytes
    }

    /// Length of the block of managed variables, in bytes; 0 if there are none.
    #[must_use]
    pub fn managed_bytes(&self) -> u64 {
        self.parts.managed_bytes
    }

    /// The variable of this (mangled) name.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<Variable> {
        self.variables.get(name).copied()
    }

    /// Whether the cubin has code at all. Without, nothing refers to its variables.
    #[must_use]
    pub fn has_kernels(&self) -> bool {
        self.has_kernels
    }

    /// Whether kernels may write into variables: all that they refer to but constants, texts, tables, and the tags of one byte
    /// that stand for types.
    #[must_use]
    pub fn has_state(&self) -> bool {
        self.has_state
    }

    /// The `__constant__` variables by name.
    pub fn constants(&self) -> impl Iterator<Item = (&str, Variable)> {
        let constants = self.variables.iter().filter(|(_, variable)| variable.is_constant);
        constants.map(|(name, &variable)| (name.as_str(), variable))
    }

    /// Pointers to code in the block: what the driver's copies of these variables hold there belongs there.
    #[must_use]
    pub fn code_pointers(&self) -> &[CodePointers] {
        &self.code_pointers
    }

    /// What the block in device memory holds at first: addresses and bytes. The rest is zero, and pointers to code are to be
    /// put in their places.
    #[must_use]
    pub fn contents(&self, bases: Bases) -> Vec<(u64, Vec<u8>)> {
        self.contents_of(false, bases)
    }

    /// As [`Self::contents`], of the managed block.
    #[must_use]
    pub fn managed_contents(&self, bases: Bases) -> Vec<(u64, Vec<u8>)> {
        self.contents_of(true, bases)
    }

    fn contents_of(&self, is_managed: bool, bases: Bases) -> Vec<(u64, Vec<u8>)> {
        let relocated = self.relocated(bases);
        let parts =
            self.parts.all.iter().filter(|part| part.is_managed == is_managed && !part.initial.is_empty());
        let contents =
            |part: &Part| (bases.of(is_managed) + part.offset, relocated[part.initial.clone()].to_vec());
        parts.map(contents).collect()
    }

    /// The cubin for blocks that begin there.
    #[must_use]
    pub fn code(&self, bases: Bases) -> Vec<u8> {
        let mut code = self.relocated(bases);
        for references::Shortened { place, size_field, kept } in &self.references.shortened {
            code[*place..*place + kept.len()].copy_from_slice(kept);
            code[*size_field..*size_field + 8].copy_from_slice(&(kept.len() as u64).to_le_bytes());
        }
        for &place in &self.parts.managed_marks {
            code[place] &= !OTHER_MANAGED;
        }
        code
    }

    fn relocated(&self, bases: Bases) -> Vec<u8> {
        let mut file = self.cubin.clone();
        self.references.places.iter().for_each(|reference| reference.put(bases, &mut file));
        file
    }
}

/// Whether kernels that refer to a variable in device memory may write into it.
fn is_state(symbol: &Symbol<'_>, is_initialised: bool) -> bool {
    match is_initialised {
        false => symbol.size_bytes > 1,
        true if symbol.binding != BINDING_LOCAL => true,
        true => {
            symbol.size_bytes <= LONGEST_LOCAL_STATE_BYTES
                && !COMPILERS_NAMES.iter().any(|prefix| symbol.name.starts_with(prefix))
        }
    }
}

/// What is referred to: by a symbol of its own, or by that of its section, which has no size.
struct Referred {
    symbols: Vec<u32>,
    sections: Vec<u32>,
}

impl Referred {
    fn new(numbers: &[u32], symbols: &BTreeMap<u32, Symbol<'_>>) -> Self {
        let mut numbers = numbers.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        let of_sections = numbers.iter().filter_map(|number| symbols.get(number));
        let sections =
            of_sections.filter(|symbol| symbol.size_bytes == 0).map(|symbol| symbol.section).collect();
        Self { symbols: numbers, sections }
    }

    fn has(&self, number: u32, symbol: &Symbol<'_>) -> bool {
        self.symbols.binary_search(&number).is_ok() || self.sections.contains(&symbol.section)
    }
}

#[cfg(test)]
mod tests;
