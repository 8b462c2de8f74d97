//! The reading end: taking records, and waiting for them.

use super::Control;
use super::bell::Bell;
use super::record::{HEADER_WORDS, Header, MAX_RECORD_WORDS, Malformed, Record};
use crate::sync::{AtomicU64, Ordering, fence, futex_wait, futex_wake};
use std::time::Duration;

/// The reading end. There must be one per ring.
#[derive(Debug, Default)]
pub struct Consumer {
    head: u64,
}

impl Consumer {
    /// A reading end that goes on where the last one stopped.
    #[must_use]
    pub fn resume(control: &Control) -> Self {
        Self { head: control.head.0.load(Ordering::Acquire) }
    }

    /// Words taken since the ring was made.
    #[must_use]
    pub fn words_taken(&self) -> u64 {
        self.head
    }

    /// Takes the next record into `record`, whose memory is reused. False if there is none.
    ///
    /// # Errors
    /// [`Malformed`] if the counters or the record's length cannot be; the ring is unusable from then on.
    #[inline]
    pub fn pop(
        &mut self,
        control: &Control,
        words: &[AtomicU64],
        record: &mut Record,
    ) -> Result<bool, Malformed> {
        // SYNC POINT record
        let tail = control.tail.0.load(Ordering::Acquire);
        if tail == self.head {
            return Ok(false);
        }
        let (waiting, capacity) = (tail.wrapping_sub(self.head), words.len() as u64);
        if waiting > capacity {
            return Err(Malformed::Counters { waiting, capacity });
        }
        let mask = words.len() - 1;
        let at = self.head as usize;
        let word = |index: usize| words[at.wrapping_add(index) & mask].load(Ordering::Relaxed);
        let first = word(0);
        let length = Header::decode([first, 0]).words;
        if (length as usize) < HEADER_WORDS
            || length as usize > MAX_RECORD_WORDS
            || u64::from(length) > waiting
        {
            return Err(Malformed::Length { words: length, waiting });
        }
        record.words.clear();
        // The first word is not read a second time: a client that changes it meanwhile changes nothing.
        record.words.push(first);
        record.words.extend((1..length as usize).map(word));
        self.head = self.head.wrapping_add(u64::from(length));
        // SYNC POINT space
        control.head.0.store(self.head, Ordering::Release);
        // SYNC POINT sleep
        fence(Ordering::SeqCst);
        if control.producer_waiting.0.load(Ordering::Relaxed) != 0 {
            control.producer_waiting.0.store(0, Ordering::SeqCst);
            futex_wake(&control.producer_waiting.0);
        }
        Ok(true)
    }

    /// Sleeps until there is a record, the bell rings or somebody calls [`wake_consumer`], for `timeout` at most. If the bell has rung
    /// since the last sleep, it returns at once.
    pub fn wait(&self, control: &Control, bell: &Bell, timeout: Duration) {
        bell.lie_down();
        control.consumer_sleeping.0.store(1, Ordering::Relaxed);
        // SYNC POINT sleep, bell
        fence(Ordering::SeqCst);
        if control.tail.0.load(Ordering::Acquire) == self.head && !bell.has_rung() {
            futex_wait(&control.consumer_sleeping.0, 1, timeout);
        }
        control.consumer_sleeping.0.store(0, Ordering::Relaxed);
        bell.get_up();
    }
}

/// Wakes a consumer that says it sleeps, whatever it sleeps for.
pub fn wake_consumer(control: &Control) {
    if control.consumer_sleeping.0.swap(0, Ordering::SeqCst) != 0 {
        futex_wake(&control.consumer_sleeping.0);
    }
}
