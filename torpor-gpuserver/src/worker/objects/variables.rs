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

use crate::worker::gpu::images::Instance;
use std::sync::Arc;
use torpor_proto::image::relocate::Relocatable;
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
    /// The bank does not have what the block has: that came from another worker.
    pub(crate) is_bank_stale: bool,
}

/// A `__constant__` variable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Constant {
    in_block: AddressRange,
    /// Its address in the driver's bank.
    in_bank: u64,
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
        instance: Option<Arc<Instance>>,
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
        Self { block, managed, layout, instance, constants, is_bank_stale: false }
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
