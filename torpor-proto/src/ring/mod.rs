//! The ring of commands: one producer (the client), one consumer (a worker), in shared memory.
//!
//! A record is a number of 64-bit words, the first two of which are its [`Header`]. Words are relaxed atomics, so
//! that a hostile or racing other side is never undefined behaviour; two counters give them order:
//!
//! - `tail` counts the words the producer has written, `head` those the consumer has taken. Neither ever wraps.
//! - SYNC POINT `record`: the producer releases `tail` after the words; the consumer acquires it before reading.
//! - SYNC POINT `space`: the consumer releases `head` after copying; the producer acquires it before overwriting.
//! - SYNC POINT `sleep`: the consumer announces its sleep in `consumer_sleeping`, fences, and looks at `tail` once
//!   more; the producer publishes `tail`, fences, and looks at `consumer_sleeping`. One of the two sees the other.
//!   `producer_waiting` does the same for a producer that waits for space.
//!
//! What was taken stays readable until the producer has come round ([`taken_since`]). That is seen as of a sequence lock: the
//! producer's fence of `sleep` stands between the `tail` of one record and the words of the next.
//!
//! The consumer copies a record out once and believes nothing: counts that cannot be are [`Malformed`].

mod bell;
mod consumer;
mod history;
#[cfg(all(test, loom))]
mod model;
mod producer;
mod record;
#[cfg(all(test, not(loom)))]
mod tests;

pub use bell::Bell;
pub use consumer::{Consumer, wake_consumer};
pub use history::{HistoryError, Taken, taken_since};
pub use producer::Producer;
pub use record::{HEADER_WORDS, Header, MAX_RECORD_WORDS, Malformed, NO_SLOT, Record, encode_record};

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The counters of a ring. Each lies in a cache line of its own, so that the sides do not disturb each other.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Control {
    tail: Line<AtomicU64>,
    head: Line<AtomicU64>,
    consumer_sleeping: Line<AtomicU32>,
    producer_waiting: Line<AtomicU32>,
}

#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Line<T>(T);

impl Control {
    /// Whether the consumer has taken everything, as far as this side knows.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.head.0.load(Ordering::Acquire) == self.tail.0.load(Ordering::Acquire)
    }
}
