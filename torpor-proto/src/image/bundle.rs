//! Bundles: the inputs of a linker in one piece, with what is asked of it, which the node links where it loads them.
//!
//! ```text
//! bundle   0 u32 magic 0xb1c0de7f   4 u32 version (2)   8 u64 bytes in all   16 u32 choices   20 u32 inputs, at least one
//! choice   0 u32 option (CUjit_option)   4 u32 value
//! input    0 u32 kind (CUjitInputType)   4 u32 zero   8 u64 bytes   then these, with zeroes up to a multiple of 8
//! ```
//! Choices come before inputs.
//! The format is Torpor's own: programs get a bundle from `cuLinkComplete` and hand it to a module loader, which is told no length.

use super::source::{Source, u32_at, u64_at};
use super::{ImageError, ptx};

/// The first word of a bundle; in memory it begins as no image of another kind.
pub const BUNDLE_MAGIC: u32 = 0xb1c0_de7f;

const VERSION: u32 = 2;
const HEADER_BYTES: usize = 24;
const CHOICE_BYTES: usize = 8;
const INPUT_HEADER_BYTES: usize = 16;
/// To what the length of an input is padded.
const ALIGN_BYTES: usize = 8;

/// What an input of a linker is: the numbers are those of `CUjitInputType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum InputKind {
    /// Code for one GPU.
    Cubin = 0,
    /// PTX text with its NUL.
    Ptx,
    /// A fatbin container.
    Fatbinary,
    /// An object file of the host with device code in it.
    Object,
    /// An archive of those.
    Library,
}

impl InputKind {
    const ALL: [Self; 5] = [Self::Cubin, Self::Ptx, Self::Fatbinary, Self::Object, Self::Library];

    /// The kind of a number; none for those that are not linked here (LLVM's code, or a number that is none).
    #[must_use]
    pub fn numbered(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u32 == number)
    }
}

/// An input of a linker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input<'a> {
    /// What it is, as whoever adds it says.
    pub kind: InputKind,
    /// All of it.
    pub bytes: &'a [u8],
}

/// What may be asked of the compiler and the linker: the numbers are those of `CUjit_option`. Not among them are those of logs, of the GPU
/// that code is for, of what debuggers read, and of what the driver keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum CompilerOption {
    /// How many registers a thread has at most.
    MaxRegisters = 0,
    /// Blocks of so many threads are to fit.
    ThreadsPerBlock = 1,
    /// From 0 to 4, which it is if nobody asks.
    OptimizationLevel = 7,
    /// So many blocks are to fit into a multiprocessor.
    MinBlocksPerMultiprocessor = 31,
    /// Blocks have so many threads at most.
    MaxThreadsPerBlock = 32,
    /// Options come before what the code says of the same.
    OverrideDirectives = 33,
}

impl CompilerOption {
    const ALL: [Self; 6] = [
        Self::MaxRegisters,
        Self::ThreadsPerBlock,
        Self::OptimizationLevel,
        Self::MinBlocksPerMultiprocessor,
        Self::MaxThreadsPerBlock,
        Self::OverrideDirectives,
    ];

    /// The option of a number; none for those that change nothing of the code here.
    #[must_use]
    pub fn numbered(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&option| option as u32 == number)
    }
}

/// An option and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Of which option.
    pub option: CompilerOption,
    /// What it shall be.
    pub value: u32,
}

/// What is linked, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bundle<'a> {
    /// Each option once at most.
    pub choices: Vec<Choice>,
    /// In the order in which they are linked.
    pub inputs: Vec<Input<'a>>,
}

impl<'a> Bundle<'a> {
    /// In one piece.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let padded = |input: &Input<'_>| input.bytes.len().next_multiple_of(ALIGN_BYTES);
        let bytes = HEADER_BYTES
            + self.choices.len() * CHOICE_BYTES
            + self.inputs.iter().map(|input| INPUT_HEADER_BYTES + padded(input)).sum::<usize>();
        let mut bundle = Vec::with_capacity(bytes);
        bundle.extend(BUNDLE_MAGIC.to_le_bytes());
        bundle.extend(VERSION.to_le_bytes());
        bundle.extend((bytes as u64).to_le_bytes());
        bundle.extend((self.choices.len() as u32).to_le_bytes());
        bundle.extend((self.inputs.len() as u32).to_le_bytes());
        for choice in &self.choices {
            bundle.extend((choice.option as u32).to_le_bytes());
            bundle.extend(choice.value.to_le_bytes());
        }
        for input in &self.inputs {
            bundle.extend((input.kind as u32).to_le_bytes());
            bundle.extend([0; 4]);
            bundle.extend((input.bytes.len() as u64).to_le_bytes());
            bundle.extend_from_slice(input.bytes);
            bundle.resize(bundle.len().next_multiple_of(ALIGN_BYTES), 0);
        }
        bundle
    }

    /// The bundle that fills `bytes`.
    ///
    /// # Errors
    /// If it is none or more follows it; if it has an unknown option, or one twice; if it has no input, one of an unknown kind, one without
    /// bytes, one that reaches beyond its end or is a bundle itself; if a text has no NUL at its end.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let damaged = |what, offset: usize| ImageError::Malformed { what, offset: offset as u64 };
        if u32_at(bytes, 0) != Some(BUNDLE_MAGIC) || u32_at(bytes, 4) != Some(VERSION) {
            return Err(damaged("bundle magic number or version", 0));
        }
        if u64_at(bytes, 8) != Some(bytes.len() as u64) {
            return Err(damaged("bundle size", 8));
        }
        let asked = u32_at(bytes, 16).ok_or(damaged("number of choices", 16))?;
        let count = u32_at(bytes, 20).filter(|&count| count > 0).ok_or(damaged("number of inputs", 20))?;
        let mut bundle = Self::default();
        let mut at = HEADER_BYTES;
        for _ in 0..asked {
            let is_new = |choice: &Choice| bundle.choices.iter().all(|other| other.option != choice.option);
            let choice = bytes.get(at..).and_then(choice).filter(is_new).ok_or(damaged("choice", at))?;
            bundle.choices.push(choice);
            at += CHOICE_BYTES;
        }
        for _ in 0..count {
            let (input, length) = bytes.get(at..).and_then(input).ok_or(damaged("input", at))?;
            bundle.inputs.push(input);
            at += length;
        }
        if at == bytes.len() { Ok(bundle) } else { Err(damaged("end of the last input", at)) }
    }
}

/// The bundle at the start of `source`, whose inputs all lie in it.
pub(super) fn extent<'a, S: Source<'a>>(source: S) -> Result<&'a [u8], ImageError> {
    let header = source.bytes("bundle header", 0, HEADER_BYTES as u64)?;
    let bytes = u64_at(header, 8).unwrap_or(0).max(HEADER_BYTES as u64);
    let bundle = source.bytes("bundle", 0, bytes)?;
    Bundle::parse(bundle)?;
    Ok(bundle)
}

/// The choice at the start of `bytes`.
fn choice(bytes: &[u8]) -> Option<Choice> {
    Some(Choice { option: CompilerOption::numbered(u32_at(bytes, 0)?)?, value: u32_at(bytes, 4)? })
}

/// The input at the start of `bytes`, and its length with header and padding.
fn input(bytes: &[u8]) -> Option<(Input<'_>, usize)> {
    let kind = InputKind::numbered(u32_at(bytes, 0)?)?;
    let length = usize::try_from(u64_at(bytes, 8)?).ok().filter(|&length| length > 0)?;
    let end = INPUT_HEADER_BYTES.checked_add(length)?.checked_next_multiple_of(ALIGN_BYTES)?;
    let contents = bytes.get(INPUT_HEADER_BYTES..end)?.get(..length)?;
    let is_text = contents.last() == Some(&0) && ptx::text(contents).is_some();
    let is_bundle = u32_at(contents, 0) == Some(BUNDLE_MAGIC);
    let is_input = !is_bundle && (kind != InputKind::Ptx || is_text);
    is_input.then_some((Input { kind, bytes: contents }, end))
}

#[cfg(test)]
mod tests {
    use super::super::{Image, ImageKind, measure};
    use super::*;

    const TEXT: Input<'_> = Input { kind: InputKind::Ptx, bytes: b".version 8.0\n\0" };
    const LIBRARY: Input<'_> = Input { kind: InputKind::Library, bytes: b"!<arch>\n" };

    const CHOICES: [Choice; 2] = [
        Choice { option: CompilerOption::MaxRegisters, value: 32 },
        Choice { option: CompilerOption::OptimizationLevel, value: 1 },
    ];

    fn bundle_of(inputs: &[Input<'_>]) -> Vec<u8> {
        Bundle { choices: CHOICES.to_vec(), inputs: inputs.to_vec() }.to_bytes()
    }

    /// With another word at an offset.
    fn with(offset: usize, word: u32) -> Vec<u8> {
        let mut bundle = bundle_of(&[TEXT, LIBRARY]);
        bundle[offset..offset + 4].copy_from_slice(&word.to_le_bytes());
        bundle
    }

    #[test]
    fn choices_and_inputs_come_out_as_they_were_put_in() {
        for (choices, inputs) in [
            (&[][..], &[TEXT][..]),
            (&CHOICES, &[TEXT]),
            (&CHOICES[1..], &[TEXT, LIBRARY]),
            (&CHOICES, &[LIBRARY, TEXT, TEXT]),
        ] {
            let put = Bundle { choices: choices.to_vec(), inputs: inputs.to_vec() };
            let bundle = put.to_bytes();
            assert_eq!(Bundle::parse(&bundle).unwrap(), put);
            let longer = [&bundle[..], &[7; 9]].concat();
            let parsed = Image::parse(&longer).unwrap();
            assert_eq!((parsed.kind, parsed.bytes), (ImageKind::Bundle, &bundle[..]));
            // SAFETY: a complete bundle lies there, and outlives the result.
            assert_eq!(unsafe { measure(longer.as_ptr()) }.unwrap(), parsed);
            assert!(Bundle::parse(&longer).is_err(), "what follows is no part of it");
        }
        let numbers = [0, 1, 2, 3, 4].map(|number| InputKind::numbered(number).map(|kind| kind as u32));
        assert_eq!(numbers, [0, 1, 2, 3, 4].map(Some));
        assert_eq!([5, u32::MAX].map(InputKind::numbered), [None; 2]);
        let numbers = [0, 1, 7, 31, 32, 33];
        let options = numbers.map(|number| CompilerOption::numbered(number).map(|option| option as u32));
        assert_eq!(options, numbers.map(Some));
        assert_eq!([2, 5, u32::MAX].map(CompilerOption::numbered), [None; 3]);
    }

    #[test]
    fn what_is_no_whole_bundle_is_refused() {
        let whole = bundle_of(&[TEXT, LIBRARY]);
        for cut in 0..whole.len() {
            assert!(Image::parse(&whole[..cut]).is_err(), "{cut} bytes");
        }
        let first = HEADER_BYTES + 2 * CHOICE_BYTES;
        let second = first + INPUT_HEADER_BYTES + 16;
        for (offset, word) in [
            (4, 1),
            (8, 0),
            (8, whole.len() as u32 - 8),
            (12, 1),
            (16, 0),
            (16, 3),
            (16, u32::MAX),
            (20, 0),
            (20, 1),
            (20, 3),
            (20, u32::MAX),
            (24, 2),
            (24, CompilerOption::OptimizationLevel as u32),
            (first, 5),
            (first + 8, 0),
            (first + 8, 13),
            (first + 8, 17),
            (first + 12, u32::MAX),
            (second, 1),
            (second + 8, 9),
            (second + 12, 0x8000_0000),
        ] {
            assert!(Image::parse(&with(offset, word)).is_err(), "{word} at {offset}");
        }
        assert!(Image::parse(&bundle_of(&[])).is_err());
        let inside = bundle_of(&[TEXT]);
        for kind in InputKind::ALL {
            assert!(Image::parse(&bundle_of(&[Input { kind, bytes: &inside }])).is_err(), "one in another");
        }
    }
}
