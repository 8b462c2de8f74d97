//! How far the staging area of a client is free again, and how its client waits for that.
//!
//! Positions count the bytes that were ever staged. SYNC POINT `staging`: the client announces its sleep in `waiting`,
//! fences, and looks at `released` once more; the worker releases, fences, and looks at `waiting`. One of the two sees the
//! other.
//!
//! What was staged stays until something else is staged there, so the next worker can read it again if this one dies. SYNC POINT
//! `reserve`: the client says up to where it is about to overwrite, and looks at `released` once more; the next worker takes
//! `released` back, and looks how far was reserved. One of the two sees the other.

//!
//! The pages of a staging area that nobody has used for long are given back. SYNC POINT `vacate`: the client says that it copies, fences,
//! and looks whether the worker is about to give the pages back, for which it waits; the worker says that it is, fences, and looks whether the
//! client copies. One of the two sees the other.

use crate::layout::AddressRange;
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence, futex_wait, futex_wake};
use std::time::Duration;

/// Bytes of one download, of which the area for downloads is a multiple, as is that for uploads.
pub const DOWNLOAD_BYTES: u64 = 1 << 20;

/// Where a client of this staging area stages uploads: its first half.
#[must_use]
pub fn upload_area(staging: AddressRange) -> AddressRange {
    AddressRange { address: staging.address, bytes: staging.bytes / 2 / DOWNLOAD_BYTES * DOWNLOAD_BYTES }
}

/// Where its downloads arrive, piece by piece, each of which is held until its bytes were copied out.
#[must_use]
pub fn download_area(staging: AddressRange) -> AddressRange {
    let AddressRange { address, bytes } = upload_area(staging);
    AddressRange { address: address + bytes, bytes }
}

/// The part of a channel that is about staging.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Staging {
    released: AtomicU64,
    /// Set by the client before it sleeps; only one of its threads at a time does.
    waiting: AtomicU32,
    /// Threads of the client that are in the middle of a copy of pageable memory.
    copying: AtomicU32,
    /// Bytes up to this position may be overwritten by now.
    reserved: AtomicU64,
    /// Set by the worker while it gives pages back.
    vacating: AtomicU32,
}

impl Staging {
    /// Worker: staged bytes up to this position are free again.
    pub fn release(&self, position: u64) {
        self.released.fetch_max(position, Ordering::Release);
        // SYNC POINT staging
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) != 0 {
            self.waiting.store(0, Ordering::SeqCst);
            futex_wake(&self.waiting);
        }
    }

    /// Client: see [`Self::release`].
    #[must_use]
    pub fn released(&self) -> u64 {
        self.released.load(Ordering::Acquire)
    }

    /// Client: it is about to stage bytes up to this position, of an area of so many bytes. False if what is there is not free after
    /// all: then nothing may be written.
    #[must_use]
    pub fn reserve(&self, position: u64, area_bytes: u64) -> bool {
        let before = self.reserved.load(Ordering::Relaxed);
        self.reserved.store(position, Ordering::Relaxed);
        // SYNC POINT reserve
        fence(Ordering::SeqCst);
        let is_free = position - self.released.load(Ordering::Acquire).min(position) <= area_bytes;
        if !is_free {
            self.reserved.store(before, Ordering::Relaxed);
        }
        is_free
    }

    /// Worker: what was staged behind this position is to be read again, and is not free from now on. False if it may have been
    /// overwritten in an area of so many bytes.
    #[must_use]
    pub fn take_back(&self, position: u64, area_bytes: u64) -> bool {
        self.released.store(position, Ordering::Relaxed);
        // SYNC POINT reserve
        fence(Ordering::SeqCst);
        self.reserved.load(Ordering::Acquire).saturating_sub(position) <= area_bytes
    }

    /// Client: sleeps until more than `known` is free again, for `timeout` at most. May return early: look again.
    pub fn wait(&self, known: u64, timeout: Duration) {
        self.waiting.store(1, Ordering::Relaxed);
        // SYNC POINT staging
        fence(Ordering::SeqCst);
        if self.released.load(Ordering::Acquire) == known {
            futex_wait(&self.waiting, 1, timeout);
        }
        self.waiting.store(0, Ordering::Relaxed);
    }

    /// Client: a copy of several commands begins: the client is not idle between them. It ends with the guard. Nothing may be staged, nor
    /// a place for it be told, as long as the worker [is vacating](Self::is_vacating) the area.
    pub fn begin_copy(&self) -> Copying<'_> {
        self.copying.fetch_add(1, Ordering::Relaxed);
        // SYNC POINT vacate
        fence(Ordering::SeqCst);
        Copying(self)
    }

    /// Client: whether the worker is about to give the area's pages back, or at it. Of use within a copy alone.
    #[must_use]
    pub fn is_vacating(&self) -> bool {
        self.vacating.load(Ordering::Acquire) != 0
    }

    /// Worker: gives the area's pages back by `give_back`, unless a thread of the client is in the middle of a copy.
    pub fn vacate(&self, give_back: impl FnOnce()) {
        self.vacating.store(1, Ordering::Relaxed);
        // SYNC POINT vacate
        fence(Ordering::SeqCst);
        if !self.is_copying() {
            give_back();
        }
        self.vacating.store(0, Ordering::Release);
    }

    /// Worker, at the beginning: the one before may have died in the middle of giving pages back.
    pub fn occupy(&self) {
        self.vacating.store(0, Ordering::Release);
    }

    /// Worker: whether the client says that more commands of a copy come.
    #[must_use]
    pub fn is_copying(&self) -> bool {
        self.copying.load(Ordering::Acquire) != 0
    }
}

/// A copy that is under way.
#[derive(Debug)]
pub struct Copying<'a>(&'a Staging);

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        self.0.copying.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_released_never_goes_back() {
        let staging = Staging::default();
        staging.release(7);
        staging.release(5);
        assert_eq!(staging.released(), 7);
        // There is more than is known, so there is nothing to wait for.
        staging.wait(5, Duration::MAX);
    }

    #[test]
    fn what_was_staged_can_be_taken_back_until_something_else_is_staged_there() {
        let staging = Staging::default();
        assert!(staging.reserve(60, 100));
        staging.release(60);
        assert!(staging.reserve(100, 100), "nothing is overwritten");
        assert!(staging.take_back(0, 100));
        assert!(!staging.reserve(110, 100), "the first ten bytes are to be read again");
        assert!(staging.take_back(0, 100), "nothing was written");
        staging.release(60);
        assert!(staging.reserve(110, 100));
        assert!(!staging.take_back(0, 100));
        assert!(staging.take_back(10, 100));
    }

    #[test]
    fn both_areas_are_whole_pieces_of_the_staging_area() {
        let staging = AddressRange { address: 1 << 30, bytes: 7 * DOWNLOAD_BYTES };
        let (up, down) = (upload_area(staging), download_area(staging));
        assert_eq!((up.address, up.bytes), (1 << 30, 3 * DOWNLOAD_BYTES));
        assert_eq!((down.address, down.bytes), ((1 << 30) + 3 * DOWNLOAD_BYTES, 3 * DOWNLOAD_BYTES));
    }

    #[test]
    fn an_area_is_vacated_unless_somebody_copies() {
        let staging = Staging::default();
        let mut vacated = 0;
        staging.vacate(|| {
            assert!(staging.is_vacating());
            vacated += 1;
        });
        let copying = staging.begin_copy();
        staging.vacate(|| vacated += 1);
        assert!(!staging.is_vacating());
        drop(copying);
        assert_eq!(vacated, 1);
    }

    #[test]
    fn a_copy_lasts_as_long_as_one_of_the_threads_makes_one() {
        let staging = Staging::default();
        let (first, second) = (staging.begin_copy(), staging.begin_copy());
        drop(first);
        assert!(staging.is_copying());
        drop(second);
        assert!(!staging.is_copying());
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn what_is_read_again_is_not_overwritten_meanwhile() {
        loom::model(|| {
            let staging = Arc::new(Staging::default());
            staging.release(1);
            let theirs = staging.clone();
            // An area of one byte, which is overwritten with the second.
            let client = loom::thread::spawn(move || theirs.reserve(2, 1));
            let is_whole = staging.take_back(0, 1);
            let overwrites = client.join().unwrap();
            assert!(!(is_whole && overwrites));
        });
    }

    #[test]
    fn who_waits_for_staging_is_always_woken() {
        loom::model(|| {
            let staging = Arc::new(Staging::default());
            let theirs = staging.clone();
            let worker = loom::thread::spawn(move || {
                theirs.release(1);
                theirs.release(2);
            });
            // Looked at once for both: to wait for more than all that comes would be to wait for ever.
            let mut known = staging.released();
            while known < 2 {
                staging.wait(known, Duration::MAX);
                known = staging.released();
            }
            worker.join().unwrap();
        });
    }

    #[test]
    fn what_is_staged_is_never_given_back() {
        loom::model(|| {
            // The staged byte, which the worker's giving back makes 0.
            let shared = Arc::new((Staging::default(), AtomicU32::new(0)));
            let theirs = shared.clone();
            let client = loom::thread::spawn(move || {
                let copying = theirs.0.begin_copy();
                while theirs.0.is_vacating() {
                    loom::thread::yield_now();
                }
                theirs.1.store(7, Ordering::Relaxed);
                let staged = theirs.1.load(Ordering::Relaxed);
                drop(copying);
                staged
            });
            shared.0.vacate(|| shared.1.store(0, Ordering::Relaxed));
            assert_eq!(client.join().unwrap(), 7);
        });
    }
}
