//! Variables of images at the client's own addresses.
//!
//! An image is shared by all clients as long as nobody can tell. A client gets variables of its own when it asks for the address
//! of one, or when it takes a kernel of an image with variables that kernels may write into: a block of its arena, which
//! is saved, brought back, moved and cleared as all its memory is, and code in which the block's addresses stand
//! ([`Relocatable`]). An image without code needs the block alone. Where that cannot be, the client gets an instance whose
//! variables the driver places, and stays on its GPU as long as it has the image.
//!
//! `__managed__` variables are in a block of the host range, where the program reaches them too (`session/managed.rs`).
//!
//! Kernels read `__constant__` variables from the constant bank of their instance. Their addresses lead to the block, and what
//! the client copies there is copied on into the bank; a new instance's bank is filled from the block.
//!
//! Pointers to code in initialisers are the instance's: the driver puts them into its own copies of the variables, from which
//! the block has them. A new instance has others, which replace those of the one before, whatever the program has put there
//! since. Who has copied them stays on its GPU, as with variables that the driver placed.

use crate::worker::gpu::images::Instance;
use std::sync::Arc;
use torpor_proto::image::relocate::{self, Immovable, Relocatable};
use torpor_proto::layout::AddressRange;

/// What a client has of an image for itself.
#[derive(Debug)]
pub(crate) enum Own {
    /// Nothing: it uses what all share.
    Nothing,
    /// Variables at addresses of its arena.
    Placed(Box<Placed>),
    /// An instance whose variables are where the driver put them.
    Fixed {
        instance: Arc<Instance>,
        /// Addresses that the client was told.
        told: Vec<u64>,
    },
}

/// Variables at addresses of the client's arena.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) block: AddressRange,
    /// The managed ones, in the client's host range.
    pub(crate) managed: Option<AddressRange>,
    pub(crate) layout: Relocatable,
    /// Absent if the image has no code.
    pub(crate) instance: Option<Arc<Instance>>,
    pub(crate) constants: Vec<Constant>,
    pub(crate) code_pointers: Vec<CodePointers>,
    /// The block came from another worker: the bank does not have what it has, and its pointers to code lead nowhere.
    pub(crate) is_stale: bool,
    /// The program has copied pointers to code.
    pub(crate) is_code_read: bool,
}

/// A `__constant__` variable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Constant {
    in_block: AddressRange,
    /// Its address in the driver's bank.
    in_bank: u64,
}

/// Pointers to code beside each other in the block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CodePointers {
    pub(crate) in_block: AddressRange,
    /// Where they are in the driver's own copy of the variable.
    pub(crate) in_copy: u64,
}

impl CodePointers {
    /// All of a block. The error: the driver does not tell of a variable, or of another one.
    pub(crate) fn of(
        layout: &Relocatable,
        block: AddressRange,
        instance: Option<&Instance>,
    ) -> Result<Vec<Self>, Immovable> {
        let mut all = Vec::new();
        for relocate::CodePointers { name, variable, places } in layout.code_pointers() {
            let copy = instance.and_then(|instance| instance.global(name).ok());
            let (copy, _) = copy
                .filter(|&(_, bytes)| bytes == variable.bytes)
                .ok_or_else(|| Immovable::CodePointers { variable: name.clone() })?;
            all.extend(places.iter().map(|place| Self {
                in_block: AddressRange {
                    address: block.address + variable.offset + place.start,
                    bytes: place.end - place.start,
                },
                in_copy: copy + place.start,
            }));
        }
        Ok(all)
    }
}

/// A copy from the block into the bank: to, from, length.
type BankCopy = (u64, u64, usize);

impl Own {
    /// The instance that the client's kernels are taken from, if it is its own.
    pub(crate) fn instance(&self) -> Option<&Arc<Instance>> {
        match self {
            Self::Nothing => None,
            Self::Placed(placed) => placed.instance.as_ref(),
            Self::Fixed { instance, .. } => Some(instance),
        }
    }
}

impl Placed {
    pub(crate) fn new(
        (block, managed): (AddressRange, Option<AddressRange>),
        layout: Relocatable,
        (instance, code_pointers): (Option<Arc<Instance>>, Vec<CodePointers>),
    ) -> Self {
        let constants = instance.iter().flat_map(|instance| {
            layout.constants().filter_map(|(name, variable)| {
                let in_block =
                    AddressRange { address: block.address + variable.offset, bytes: variable.bytes };
                // One that the host cannot name, it cannot write into either.
                let (in_bank, bytes) = instance.global(name).ok()?;
                (bytes == variable.bytes).then_some(Constant { in_block, in_bank })
            })
        });
        let constants = constants.collect();
        let (is_stale, is_code_read) = (false, false);
        Self { block, managed, layout, instance, constants, code_pointers, is_stale, is_code_read }
    }

    /// Whether there are pointers to code at these addresses.
    pub(crate) fn points_to_code(&self, range: AddressRange) -> bool {
        self.code_pointers.iter().any(|pointers| pointers.in_block.overlaps(range))
    }

    /// The place of a variable.
    pub(crate) fn variable(&self, name: &str) -> Option<AddressRange> {
        let variable = self.layout.variable(name)?;
        let block = if variable.is_managed { self.managed? } else { self.block };
        Some(AddressRange { address: block.address + variable.offset, bytes: variable.bytes })
    }

    /// The copies that follow from a write into the block.
    pub(crate) fn copies_into_bank(&self, address: u64, bytes: u64) -> impl Iterator<Item = BankCopy> {
        let end = address.saturating_add(bytes);
        self.constants.iter().filter_map(move |Constant { in_block, in_bank }| {
            let (from, to) = (address.max(in_block.address), end.min(in_block.end()));
            (from < to).then(|| (in_bank + (from - in_block.address), from, (to - from) as usize))
        })
    }
}
