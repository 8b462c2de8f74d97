//! The writing end: appending records, and waiting for room.

use super::record::{HEADER_WORDS, Header, MAX_RECORD_WORDS};
use super::{Control, wake_consumer};
use crate::sync::{AtomicU64, Ordering, fence, futex_wait};
use std::time::Duration;

/// The writing end. There must be one per ring.
#[derive(Debug)]
pub struct Producer {
    tail: u64,
    known_head: u64,
}

impl Producer {
    /// The writing end of a ring that nobody has written to yet.
    #[must_use]
    pub fn new() -> Self {
        Self { tail: 0, known_head: 0 }
    }

    /// Appends a record made of a fixed part and a variable part, if there is room.
    ///
    /// `words` must be a power of two long and the same at every call. Returns false, and changes nothing, if the
    /// ring is full or the record longer than [`MAX_RECORD_WORDS`].
    #[inline]
    pub fn push(
        &mut self,
        control: &Control,
        words: &[AtomicU64],
        opcode: u16,
        slot: u16,
        body: &[u64],
        tail: &[u8],
    ) -> bool {
        let length = HEADER_WORDS + body.len() + tail.len().div_ceil(8);
        if length > MAX_RECORD_WORDS || !self.has_room(control, words, length as u64) {
            return false;
        }
        let mut writer = Writer { words, mask: words.len() - 1, at: self.tail as usize };
        let header = Header { opcode, slot, words: length as u32, tail_bytes: tail.len() as u32 };
        header.encode().into_iter().for_each(|word| writer.put(word));
        body.iter().for_each(|&word| writer.put(word));
        let (whole, rest) = tail.as_chunks::<8>();
        whole.iter().for_each(|&bytes| writer.put(u64::from_le_bytes(bytes)));
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            writer.put(u64::from_le_bytes(last));
        }
        self.tail += length as u64;
        // SYNC POINT record
        control.tail.0.store(self.tail, Ordering::Release);
        // SYNC POINT sleep
        fence(Ordering::SeqCst);
        if control.consumer_sleeping.0.load(Ordering::Relaxed) != 0 {
            wake_consumer(control);
        }
        true
    }

    /// Sleeps until the consumer takes something, for `timeout` at most. Call after a refused [`Self::push`].
    pub fn wait_for_room(&mut self, control: &Control, timeout: Duration) {
        control.producer_waiting.0.store(1, Ordering::Relaxed);
        // SYNC POINT sleep
        fence(Ordering::SeqCst);
        if control.head.0.load(Ordering::Acquire) == self.known_head {
            futex_wait(&control.producer_waiting.0, 1, timeout);
        }
        control.producer_waiting.0.store(0, Ordering::Relaxed);
    }

    #[inline]
    fn has_room(&mut self, control: &Control, words: &[AtomicU64], length: u64) -> bool {
        let capacity = words.len() as u64;
        if self.tail - self.known_head + length <= capacity {
            return true;
        }
        // SYNC POINT space
        self.known_head = control.head.0.load(Ordering::Acquire);
        self.tail.wrapping_sub(self.known_head) + length <= capacity
    }
}

impl Default for Producer {
    fn default() -> Self {
        Self::new()
    }
}

struct Writer<'a> {
    words: &'a [AtomicU64],
    mask: usize,
    at: usize,
}

impl Writer<'_> {
    #[inline]
    fn put(&mut self, word: u64) {
        self.words[self.at & self.mask].store(word, Ordering::Relaxed);
        self.at += 1;
    }
}
