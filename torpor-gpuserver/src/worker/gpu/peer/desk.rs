//! The desk of a link: memory in which its two workers say what they want and how far they have come.
//!
//! What streams write has a page of its own, so that a GPU reaches nothing else of it: the rest is mapped in the two processes and
//! in no context.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64};
use torpor_proto::layout::PAGE_BYTES;
use torpor_proto::mapping::{Mapping, check_sealed, create_sealed};

/// Requests that may be there at once.
pub(super) const REQUESTS: usize = 1024;

/// Clients that may be offered at once; memory of others comes from the host.
const OFFERS: usize = 16;

/// Part of a client's memory, by its address there.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Request {
    pub(super) address: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// What the reader says.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(super) struct Reader {
    /// Which of its visits this is. What belongs to a visit is written before.
    pub(super) visit: AtomicU32,
    /// The last visit that is over.
    pub(super) over: AtomicU32,
    /// Requests of this visit.
    pub(super) asked: AtomicU32,
    /// Of these, what it has taken, or will have when `drained` says so: said before `over`.
    pub(super) taken: AtomicU32,
    /// Whose memory it wants.
    pub(super) client: AtomicU64,
}

/// What the lender says.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(super) struct Lender {
    /// The last visit that somebody serves, or that the reader has withdrawn before anybody did.
    pub(super) accepted: AtomicU32,
    /// The last visit for which nobody does anything any more: by whoever made it the accepted one.
    pub(super) closed: AtomicU32,
    /// Clients whose memory may be had; 0 for none.
    pub(super) offers: [AtomicU64; OFFERS],
}

/// A word that a stream writes.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(super) struct Written(pub(super) AtomicU32);

/// What lies in the memory.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Words {
    pub(super) reader: Reader,
    pub(super) lender: Lender,
    /// Requests that are in their slots; by the lender's stream.
    pub(super) filled: Written,
    /// Requests whose slots are free again; by the reader's stream.
    pub(super) drained: Written,
    pub(super) requests: [Request; REQUESTS],
}

/// Bytes of a desk.
const DESK_BYTES: u64 = (size_of::<Words>() as u64).next_multiple_of(PAGE_BYTES);

/// A desk, mapped here.
#[derive(Debug)]
pub(super) struct Desk(Mapping);

impl Desk {
    /// Makes one. Returns what the other side is to be given, too; an error is for people.
    pub(super) fn make() -> Result<(Self, OwnedFd), String> {
        let file = create_sealed("torpor-link", DESK_BYTES);
        let file = file.map_err(|error| format!("its desk cannot be made: {error}"))?;
        Ok((Self::open(&file)?, file))
    }

    /// Maps it. An error is for people.
    pub(super) fn open(file: &OwnedFd) -> Result<Self, String> {
        check_sealed(file, DESK_BYTES).map_err(|error| format!("its desk cannot be used: {error}"))?;
        let mapped = Mapping::anywhere(file, DESK_BYTES as usize);
        mapped.map(Self).map_err(|error| format!("its desk cannot be mapped: {error}"))
    }

    /// What lies there.
    pub(super) fn words(&self) -> &Words {
        // SAFETY: the mapping is as long as that, begins with a page, and lives as long as self; all of it is atomics, for which any
        // bytes are values.
        unsafe { self.0.address().cast::<Words>().as_ref() }
    }

    /// Where a word's page begins.
    pub(super) fn address_of(written: &Written) -> u64 {
        std::ptr::from_ref(written).expose_provenance() as u64
    }
}
