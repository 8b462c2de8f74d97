//! The lender's end of a link: where the memory of clients that have left for another GPU is read from, piece by piece.
//!
//! The *landing* is a piece of this GPU's memory that the other worker has mapped to read. Who gives a client's memory copies what
//! is asked for into its slots, one after the other, and each slot again when it has been read.

use crate::chunk::CHUNK_BYTES;
use crate::driver::{Device, Mapping, PhysicalMemory, Reservation, Stream, StreamWord};
use crate::worker::gpu::peer::desk::{Desk, REQUESTS};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use torpor_proto::control::worker::Lend;
use torpor_proto::error::CudaError;

/// Slots of a landing.
pub(super) const SLOTS: u32 = 4;

/// What a slot of a landing holds: a few chunks.
pub(super) fn slot_bytes(landing_bytes: u64) -> u64 {
    landing_bytes / u64::from(SLOTS) / CHUNK_BYTES * CHUNK_BYTES
}

/// Device memory at addresses of its own. Fields are dropped in this order.
#[derive(Debug)]
pub(super) struct Landing {
    _mapping: Mapping,
    _physical: PhysicalMemory,
    reservation: Reservation,
    pub(super) bytes: u64,
}

impl Landing {
    /// Maps it, perhaps to be read alone.
    pub(super) fn new(
        device: &Arc<Device>,
        physical: PhysicalMemory,
        map: fn(&PhysicalMemory, u64) -> Result<Mapping, CudaError>,
    ) -> Result<Self, CudaError> {
        let bytes = physical.bytes();
        let reservation = Reservation::anywhere(device, bytes)?;
        let mapping = map(&physical, reservation.address())?;
        Ok(Self { _mapping: mapping, _physical: physical, reservation, bytes })
    }

    /// The slot in which the request with this number is.
    pub(super) fn slot(&self, number: u32) -> u64 {
        self.reservation.address() + u64::from(number % SLOTS) * slot_bytes(self.bytes)
    }
}

/// The lender's end of a link. Fields are dropped in this order: what is locked in the desk before it.
#[derive(Debug)]
pub(crate) struct Outlet {
    filled: StreamWord,
    landing: Landing,
    desk: Desk,
    unlinked: AtomicBool,
}

/// What the reader wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing any more.
    Over,
    /// Nothing yet, or there is no slot.
    Later,
    /// So many bytes from an address of the client's, in this slot.
    Copy {
        /// As the reader says: it may be anything.
        address: u64,
        /// The same, but no more than the slot has.
        bytes: u64,
        /// Where to.
        slot: u64,
    },
}

impl Outlet {
    /// Makes it. Returns what the reader is to be given, too; an error is for people.
    pub(super) fn open(device: &Arc<Device>, lend: &Lend) -> Result<(Self, [OwnedFd; 2]), String> {
        let cuda = |what: &'static str| move |error: CudaError| format!("{what}: {error}");
        let bytes = slot_bytes(lend.bytes) * u64::from(SLOTS);
        if bytes == 0 {
            return Err(format!("{} bytes are too few", lend.bytes));
        }
        if !device.is_reached_by(lend.reader).map_err(cuda("the driver does not say who reaches it"))? {
            return Err(format!("GPU {} does not reach its memory", lend.reader));
        }
        let (desk, words) = Desk::make()?;
        let physical = PhysicalMemory::shareable(device, bytes).map_err(cuda("no memory for it"))?;
        let file = physical.give().map_err(cuda("its memory cannot be given away"))?;
        let landing =
            Landing::new(device, physical, Mapping::new).map_err(cuda("its memory cannot be mapped"))?;
        // SAFETY: the page is the desk's, which is dropped after this.
        let filled = unsafe { StreamWord::new(device, Desk::address_of(&desk.words().filled)) };
        let filled = filled.map_err(cuda("its word cannot be page-locked"))?;
        Ok((Self { filled, landing, desk, unlinked: AtomicBool::new(false) }, [words, file]))
    }

    /// Bytes of device memory.
    pub(super) fn bytes(&self) -> u64 {
        self.landing.bytes
    }

    /// The reader is gone.
    pub(super) fn unlink(&self) {
        self.unlinked.store(true, Ordering::Relaxed);
    }

    /// Tells the reader that it may have the memory of a client, as long as the result lives. `None` if it has too many to
    /// choose from.
    pub(crate) fn offer(self: &Arc<Self>, client: u64) -> Option<Offer> {
        let offers = &self.desk.words().lender.offers;
        let take = |offer: &AtomicU64| {
            offer.compare_exchange(0, client, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let place = offers.iter().position(take)?;
        Some(Offer { outlet: self.clone(), client, place })
    }
}

/// A client whose memory may be had over a link.
#[derive(Debug)]
pub(crate) struct Offer {
    outlet: Arc<Outlet>,
    client: u64,
    place: usize,
}

impl Offer {
    /// Whether nobody will ask any more.
    pub(crate) fn is_moot(&self) -> bool {
        self.outlet.unlinked.load(Ordering::Relaxed)
    }

    /// The visit that has begun for this client, from now on served by whoever calls this.
    pub(crate) fn accept(&self) -> Option<u32> {
        let words = self.outlet.desk.words();
        // Acquire: what belongs to the visit is seen, too.
        let visit = words.reader.visit.load(Ordering::Acquire);
        if visit == 0 || words.reader.client.load(Ordering::Relaxed) != self.client {
            return None;
        }
        let accepted = &words.lender.accepted;
        accepted.compare_exchange(visit - 1, visit, Ordering::AcqRel, Ordering::Relaxed).ok().map(|_| visit)
    }

    /// What is wanted behind the first so many requests of a visit.
    pub(crate) fn wanted(&self, visit: u32, posted: u32) -> Wanted {
        let words = self.outlet.desk.words();
        if words.reader.over.load(Ordering::Acquire) == visit {
            return Wanted::Over;
        }
        // Acquire: the request itself is seen; and what was read from a slot was read before it is filled again.
        let (asked, drained) =
            (words.reader.asked.load(Ordering::Acquire), words.drained.0.load(Ordering::Acquire));
        if asked == posted || posted.wrapping_sub(drained) >= SLOTS {
            return Wanted::Later;
        }
        let request = &words.requests[posted as usize % REQUESTS];
        let bytes = request.bytes.load(Ordering::Relaxed).min(slot_bytes(self.outlet.landing.bytes));
        let (address, slot) = (request.address.load(Ordering::Relaxed), self.outlet.landing.slot(posted));
        Wanted::Copy { address, bytes, slot }
    }

    /// Has a stream say, when its work is done, that so many requests are in their slots.
    pub(crate) fn fill(&self, stream: &Stream, posted: u32) -> Result<(), CudaError> {
        self.outlet.filled.write_from(stream, posted)
    }

    /// Whether what the reader takes of a visit that is over has been read.
    pub(crate) fn is_drained(&self) -> bool {
        let words = self.outlet.desk.words();
        words.drained.0.load(Ordering::Acquire) == words.reader.taken.load(Ordering::Relaxed)
    }

    /// Where the landing is, to be cleared.
    pub(crate) fn landing(&self) -> (u64, u64) {
        (self.outlet.landing.slot(0), self.outlet.landing.bytes)
    }

    /// Nothing is done for this visit any more.
    pub(crate) fn close(&self, visit: u32) {
        self.outlet.desk.words().lender.closed.store(visit, Ordering::Release);
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.outlet.desk.words().lender.offers[self.place].store(0, Ordering::Release);
    }
}
