//! The reader's end of a link: where the memory of clients comes from that were at another GPU before.
//!
//! One client at a time *visits*: it asks for parts of its memory, and takes each from its slot when it is there. Nothing that the
//! other side says is needed: what does not come is in the host store.

use crate::driver::{Device, Mapping, PhysicalMemory, Place, Stream, StreamWord};
use crate::worker::gpu::bandwidth;
use crate::worker::gpu::peer::desk::{Desk, Lender, REQUESTS};
use crate::worker::gpu::peer::outlet::{Landing, SLOTS, slot_bytes};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use torpor_proto::control::worker::Borrow;
use torpor_proto::error::CudaError;

/// The reader's end of a link. Fields are dropped in this order: what is locked in the desk before it.
#[derive(Debug)]
pub(crate) struct Inlet {
    drained: StreamWord,
    landing: Landing,
    desk: Desk,
    is_visited: AtomicBool,
    /// Of the last visit that is over, what it took.
    last_taken: AtomicU32,
    unlinked: AtomicBool,
}

/// What has become of something that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parcel {
    /// It is in its slot.
    Here,
    /// It may come.
    OnItsWay,
    /// It does not come.
    Gone,
}

impl Inlet {
    /// Makes it. An error is for people.
    pub(super) fn open(
        device: &Arc<Device>,
        borrow: &Borrow,
        desk: &OwnedFd,
        memory: &OwnedFd,
    ) -> Result<Self, String> {
        let cuda = |what: &'static str| move |error: CudaError| format!("{what}: {error}");
        let desk = Desk::open(desk)?;
        // As long as the other side has made it.
        let bytes = slot_bytes(borrow.bytes) * u64::from(SLOTS);
        let physical = PhysicalMemory::given(device, memory, bytes);
        let physical = physical.map_err(cuda("its memory cannot be had"))?;
        let landing =
            Landing::new(device, physical, Mapping::to_read).map_err(cuda("its memory cannot be mapped"))?;
        // SAFETY: the page is the desk's, which is dropped after this.
        let drained = unsafe { StreamWord::new(device, Desk::address_of(&desk.words().drained)) };
        let drained = drained.map_err(cuda("its word cannot be page-locked"))?;
        Ok(Self {
            drained,
            landing,
            desk,
            is_visited: AtomicBool::new(false),
            last_taken: AtomicU32::new(0),
            unlinked: AtomicBool::new(false),
        })
    }

    /// Bytes a second from there to here.
    pub(super) fn measure(&self, device: &Arc<Device>) -> Result<u64, CudaError> {
        // SAFETY: a slot is mapped as long as self is there; whatever is in it goes nowhere.
        unsafe { bandwidth::measure(device, (Place::Device, self.landing.slot(0)), self.parcel_bytes()) }
    }

    /// The other side is gone.
    pub(super) fn unlink(&self) {
        self.unlinked.store(true, Ordering::Relaxed);
    }

    /// What can be asked for at once.
    pub(crate) fn parcel_bytes(&self) -> u64 {
        slot_bytes(self.landing.bytes)
    }

    /// Begins to ask for a client's memory. `None` if that cannot be had, or another client asks.
    pub(crate) fn visit(self: &Arc<Self>, client: u64) -> Option<Visit> {
        if self.unlinked.load(Ordering::Relaxed) || !self.offers(client) {
            return None;
        }
        if self.is_visited.swap(true, Ordering::Acquire) {
            return None;
        }
        let mut visit = Visit { inlet: self.clone(), number: 0, client, asked: 0, taken: 0 };
        let words = self.desk.words();
        let last = words.reader.visit.load(Ordering::Relaxed);
        // Acquire: the lender's stream has written its last word.
        let is_closed = words.lender.closed.load(Ordering::Acquire) == last;
        let is_drained = words.drained.0.load(Ordering::Acquire) == self.last_taken.load(Ordering::Relaxed);
        if !is_closed || !is_drained {
            return None;
        }
        visit.number = last.checked_add(1)?;
        // No stream of either side writes these now.
        words.filled.0.store(0, Ordering::Relaxed);
        words.drained.0.store(0, Ordering::Relaxed);
        words.reader.asked.store(0, Ordering::Relaxed);
        words.reader.taken.store(0, Ordering::Relaxed);
        words.reader.client.store(client, Ordering::Relaxed);
        // Release: who sees the visit sees all of that.
        words.reader.visit.store(visit.number, Ordering::Release);
        Some(visit)
    }

    fn offers(&self, client: u64) -> bool {
        self.desk.words().lender.offers.iter().any(|offer| offer.load(Ordering::Acquire) == client)
    }
}

/// A client that takes its memory over a link, until this is dropped.
#[derive(Debug)]
pub(crate) struct Visit {
    inlet: Arc<Inlet>,
    /// 0 if it has not begun.
    number: u32,
    client: u64,
    asked: u32,
    taken: u32,
}

impl Visit {
    /// Asks for the next part. False if too much is asked for already.
    pub(crate) fn ask(&mut self, address: u64, bytes: u64) -> bool {
        if self.asked - self.taken >= REQUESTS as u32 || self.asked == u32::MAX {
            return false;
        }
        let words = self.inlet.desk.words();
        let request = &words.requests[self.asked as usize % REQUESTS];
        request.address.store(address, Ordering::Relaxed);
        request.bytes.store(bytes, Ordering::Relaxed);
        self.asked += 1;
        // Release: who sees the count sees the request.
        words.reader.asked.store(self.asked, Ordering::Release);
        true
    }

    /// What has become of the oldest part that was not taken.
    pub(crate) fn next(&self) -> Parcel {
        let words = self.inlet.desk.words();
        // First: what is in its slot stays there, whatever becomes of the lender.
        let is_gone = self.inlet.unlinked.load(Ordering::Relaxed)
            || !self.inlet.offers(self.client)
            || words.lender.closed.load(Ordering::Acquire) == self.number;
        // Acquire: the slot is read after it. It counts up to what was asked for.
        if words.filled.0.load(Ordering::Acquire) > self.taken {
            Parcel::Here
        } else if is_gone {
            Parcel::Gone
        } else {
            Parcel::OnItsWay
        }
    }

    /// Whether it is for the other side to do something: a slot is free.
    pub(crate) fn is_lenders_turn(&self) -> bool {
        self.taken.wrapping_sub(self.inlet.desk.words().drained.0.load(Ordering::Acquire)) < SLOTS
    }

    /// Where the oldest part is that was not taken.
    pub(crate) fn slot(&self) -> u64 {
        self.inlet.landing.slot(self.taken)
    }

    /// It is taken by what was posted to this stream.
    pub(crate) fn take(&mut self, stream: &Stream) -> Result<(), CudaError> {
        self.inlet.drained.write_from(stream, self.taken + 1)?;
        self.taken += 1;
        Ok(())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.number != 0 {
            self.inlet.last_taken.store(self.taken, Ordering::Relaxed);
            let reader = &self.inlet.desk.words().reader;
            reader.taken.store(self.taken, Ordering::Relaxed);
            // Release: who sees the end sees what was taken.
            reader.over.store(self.number, Ordering::Release);
            // Nobody has begun to serve it, and nobody will.
            let Lender { accepted, closed, .. } = &self.inlet.desk.words().lender;
            let withdrawn =
                accepted.compare_exchange(self.number - 1, self.number, Ordering::AcqRel, Ordering::Relaxed);
            if withdrawn.is_ok() {
                closed.store(self.number, Ordering::Release);
            }
        }
        self.inlet.is_visited.store(false, Ordering::Release);
    }
}
