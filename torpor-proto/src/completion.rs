//! Where answers to awaited commands arrive: slots of shared memory, one per waiting thread.
//!
//! A slot goes round: the client sets `PENDING`, posts its command, spins and then sleeps as `SLEEPING`; the
//! worker writes the answer and sets `DONE` (SYNC POINT `answer`: released there, acquired by the client).

use crate::error::CudaError;
use crate::sync::{AtomicU32, AtomicU64, Ordering, futex_wait, futex_wake};
use std::time::Duration;

/// Slots of a channel: threads of one client that can wait at once. More wait for a slot first.
pub const SLOTS: usize = 64;

/// Bytes of an answer.
pub const PAYLOAD_BYTES: usize = PAYLOAD_WORDS * 8;

const PAYLOAD_WORDS: usize = 2046;

const PENDING: u32 = 1;
const SLEEPING: u32 = 2;
const DONE: u32 = 3;

/// One answer: 16 KiB, unless a model asks for less.
#[derive(Debug)]
#[repr(C)]
pub struct Slot<const WORDS: usize = PAYLOAD_WORDS> {
    state: AtomicU32,
    status: AtomicU32,
    bytes: AtomicU32,
    reserved: AtomicU32,
    payload: [AtomicU64; WORDS],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot>() == 16 * 1024);

/// What came of waiting.
#[derive(Debug, PartialEq, Eq)]
pub enum Waited {
    /// The answer is there.
    Done,
    /// Not yet.
    TimedOut,
}

impl<const WORDS: usize> Slot<WORDS> {
    /// A slot for a test, or a model.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: AtomicU32::new(0),
            status: AtomicU32::new(0),
            bytes: AtomicU32::new(0),
            reserved: AtomicU32::new(0),
            payload: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Client: makes the slot ready for a command that is about to be posted.
    pub fn prepare(&self) {
        self.state.store(PENDING, Ordering::Relaxed);
    }

    /// Client: whether the answer is there.
    #[inline]
    #[must_use]
    pub fn is_done(&self) -> bool {
        // SYNC POINT answer
        self.state.load(Ordering::Acquire) == DONE
    }

    /// Client: sleeps until the answer is there, for `timeout` at most.
    pub fn sleep(&self, timeout: Duration) -> Waited {
        let asleep = self.state.compare_exchange(PENDING, SLEEPING, Ordering::Acquire, Ordering::Acquire);
        if asleep.is_ok() || asleep == Err(SLEEPING) {
            futex_wait(&self.state, SLEEPING, timeout);
        }
        if self.is_done() { Waited::Done } else { Waited::TimedOut }
    }

    /// Client: the answer's status and bytes, once [`Self::is_done`].
    pub fn take(&self, payload: &mut Vec<u64>) -> (Result<(), CudaError>, usize) {
        let bytes = (self.bytes.load(Ordering::Relaxed) as usize).min(PAYLOAD_BYTES);
        payload.clear();
        let words = self.payload.iter().take(bytes.div_ceil(8));
        payload.extend(words.map(|word| word.load(Ordering::Relaxed)));
        (CudaError::check(self.status.load(Ordering::Relaxed)), bytes)
    }

    /// Worker: gives the answer: a fixed part (whole words) and a variable part, cut at [`PAYLOAD_BYTES`].
    pub fn complete(&self, status: Result<(), CudaError>, body: &[u64], tail: &[u8]) {
        self.publish(status, body, tail).wake();
    }

    /// Worker: as [`Self::complete`], but whoever sleeps for the answer is woken by the caller. One that never is wakes by itself in the end.
    pub fn publish(&self, status: Result<(), CudaError>, body: &[u64], tail: &[u8]) -> Sleeper<'_> {
        let (fixed, variable) = self.payload.split_at(body.len().min(WORDS));
        for (word, value) in fixed.iter().zip(body) {
            word.store(*value, Ordering::Relaxed);
        }
        for (word, chunk) in variable.iter().zip(tail.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
        let bytes = (body.len() * 8 + tail.len()).min(PAYLOAD_BYTES);
        self.bytes.store(bytes as u32, Ordering::Relaxed);
        self.status.store(status.err().map_or(0, |error| error.0), Ordering::Relaxed);
        // SYNC POINT answer
        let sleeps = self.state.swap(DONE, Ordering::AcqRel) == SLEEPING;
        Sleeper(sleeps.then_some(&self.state))
    }
}

/// Whoever sleeps for an answer that is there.
#[derive(Debug)]
#[must_use = "it is to be woken"]
pub struct Sleeper<'a>(Option<&'a AtomicU32>);

impl Sleeper<'_> {
    /// Nobody sleeps.
    pub const NONE: Self = Self(None);

    /// Wakes it.
    pub fn wake(self) {
        self.0.into_iter().for_each(futex_wake);
    }
}

impl<const WORDS: usize> Default for Slot<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_answer_carries_status_words_and_bytes() {
        let slot: Slot = Slot::new();
        slot.prepare();
        assert!(!slot.is_done());
        assert_eq!(slot.sleep(Duration::from_millis(1)), Waited::TimedOut);
        slot.complete(Err(CudaError::NOT_FOUND), &[7, 8], b"abc");
        assert_eq!(slot.sleep(Duration::from_secs(1)), Waited::Done);
        let mut payload = Vec::new();
        assert_eq!(slot.take(&mut payload), (Err(CudaError::NOT_FOUND), 19));
        assert_eq!(payload[..2], [7, 8]);
        assert_eq!(&payload[2].to_le_bytes()[..3], b"abc");
    }

    #[test]
    fn an_answer_longer_than_the_slot_is_cut() {
        let slot: Slot = Slot::new();
        slot.complete(Ok(()), &[], &vec![1; PAYLOAD_BYTES + 100]);
        assert_eq!(slot.take(&mut Vec::new()), (Ok(()), PAYLOAD_BYTES));
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn a_sleeper_always_gets_its_answer() {
        loom::model(|| {
            let slot = Arc::new(Slot::<1>::new());
            slot.prepare();
            let theirs = slot.clone();
            let worker = loom::thread::spawn(move || theirs.complete(Ok(()), &[42], &[]));
            while slot.sleep(Duration::MAX) != Waited::Done {}
            let mut payload = Vec::new();
            assert_eq!(slot.take(&mut payload), (Ok(()), 8));
            assert_eq!(payload, [42]);
            worker.join().unwrap();
        });
    }
}
