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
//! The consumer copies a record out once and believes nothing: counts that cannot be are [`Malformed`].

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence, futex_wait, futex_wake};
use std::time::Duration;

/// Words of a record's header.
pub const HEADER_WORDS: usize = 2;

/// The longest record: launch parameters take 4 KiB (32 KiB on newer GPUs), attributes and header the rest.
pub const MAX_RECORD_WORDS: usize = 5 * 1024;

/// The slot number of a posted command, which gets no answer.
pub const NO_SLOT: u16 = u16::MAX;

/// What a record begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which command.
    pub opcode: u16,
    /// The completion slot that takes the answer, or [`NO_SLOT`].
    pub slot: u16,
    /// Length of the whole record, header included.
    pub words: u32,
    /// Bytes of the variable part at the end of the record.
    pub tail_bytes: u32,
}

impl Header {
    fn encode(self) -> [u64; HEADER_WORDS] {
        [
            u64::from(self.words) | u64::from(self.opcode) << 32 | u64::from(self.slot) << 48,
            u64::from(self.tail_bytes),
        ]
    }

    fn decode(words: [u64; HEADER_WORDS]) -> Self {
        let [first, second] = words;
        Self {
            words: (first & 0xffff_ffff) as u32,
            opcode: (first >> 32 & 0xffff) as u16,
            slot: (first >> 48) as u16,
            tail_bytes: (second & 0xffff_ffff) as u32,
        }
    }
}

/// The ring holds what no honest producer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// More words are said to be waiting than the ring has.
    #[error("the ring's counters are impossible: {waiting} words waiting in a ring of {capacity}")]
    Counters {
        /// `tail - head`.
        waiting: u64,
        /// Words of the ring.
        capacity: u64,
    },
    /// A record's length is not between its header and what is waiting.
    #[error("a record of {words} words where {waiting} are waiting")]
    Length {
        /// The length it claims.
        words: u32,
        /// `tail - head`.
        waiting: u64,
    },
    /// The record is shorter than its command, or its variable part longer than the record.
    #[error("command {opcode} with a record of {words} words and {tail_bytes} variable bytes")]
    Shape {
        /// Which command.
        opcode: u16,
        /// The record's length.
        words: u32,
        /// The variable part's length.
        tail_bytes: u32,
    },
    /// No command has this number.
    #[error("no command has number {0}")]
    Opcode(u16),
    /// A posted command with a completion slot, or an awaited one without.
    #[error("command {opcode} with completion slot {slot}")]
    Slot {
        /// Which command.
        opcode: u16,
        /// The slot it names.
        slot: u16,
    },
}

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

/// Wakes a consumer that sleeps, whatever it sleeps for (a new record, or the end of its work).
pub fn wake_consumer(control: &Control) {
    if control.consumer_sleeping.0.swap(0, Ordering::SeqCst) != 0 {
        futex_wake(&control.consumer_sleeping.0);
    }
}

/// A record, copied out of the ring.
#[derive(Debug, Default)]
pub struct Record {
    words: Vec<u64>,
}

impl Record {
    /// A record from words of elsewhere (a graph's recorded commands). `words` begins with a header.
    ///
    /// # Errors
    /// [`Malformed::Length`] if the header's length is not that of `words`.
    pub fn from_words(words: &[u64]) -> Result<Self, Malformed> {
        let claimed = words.first_chunk().map_or(0, |&header| Header::decode(header).words);
        if words.len() < HEADER_WORDS || claimed as usize != words.len() {
            return Err(Malformed::Length { words: claimed, waiting: words.len() as u64 });
        }
        Ok(Self { words: words.to_vec() })
    }

    /// All of its words.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The header. Zeroes if the record is empty.
    #[must_use]
    pub fn header(&self) -> Header {
        Header::decode(self.words.first_chunk().copied().unwrap_or_default())
    }

    /// The fixed part of `words` words, and the variable part.
    ///
    /// # Errors
    /// [`Malformed::Shape`] if the record is not exactly that long.
    pub fn parts(&self, words: usize) -> Result<(&[u64], &[u8]), Malformed> {
        let header = self.header();
        let shape =
            Malformed::Shape { opcode: header.opcode, words: header.words, tail_bytes: header.tail_bytes };
        let body = self.words.get(HEADER_WORDS..HEADER_WORDS + words).ok_or(shape)?;
        let rest = &self.words[HEADER_WORDS + words..];
        if (header.tail_bytes as usize).div_ceil(8) != rest.len() {
            return Err(shape);
        }
        let tail = bytemuck::cast_slice(rest).get(..header.tail_bytes as usize).ok_or(shape)?;
        Ok((body, tail))
    }
}

/// Encodes a record on its own, as [`Producer::push`] writes it into the ring.
pub fn encode_record(out: &mut Vec<u64>, opcode: u16, slot: u16, body: &[u64], tail: &[u8]) {
    let length = HEADER_WORDS + body.len() + tail.len().div_ceil(8);
    let header = Header { opcode, slot, words: length as u32, tail_bytes: tail.len() as u32 };
    out.extend(header.encode());
    out.extend_from_slice(body);
    for chunk in tail.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        out.push(u64::from_le_bytes(word));
    }
}

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

    /// Sleeps until there is a record or somebody calls [`wake_consumer`], for `timeout` at most.
    pub fn wait(&self, control: &Control, timeout: Duration) {
        control.consumer_sleeping.0.store(1, Ordering::Relaxed);
        // SYNC POINT sleep
        fence(Ordering::SeqCst);
        if control.tail.0.load(Ordering::Acquire) == self.head {
            futex_wait(&control.consumer_sleeping.0, 1, timeout);
        }
        control.consumer_sleeping.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(words: usize) -> (Control, Vec<AtomicU64>) {
        (Control::default(), (0..words).map(|_| AtomicU64::new(0)).collect())
    }

    proptest! {
        #[test]
        fn records_come_out_as_they_went_in(
            records in prop::collection::vec(
                (0..100u16, prop::collection::vec(any::<u64>(), 0..8), prop::collection::vec(any::<u8>(), 0..50)),
                0..40,
            )
        ) {
            let (control, words) = ring(64);
            let (mut producer, mut consumer) = (Producer::new(), Consumer::default());
            let mut record = Record::default();
            for (opcode, body, tail) in &records {
                while !producer.push(&control, &words, *opcode, NO_SLOT, body, tail) {
                    prop_assert!(consumer.pop(&control, &words, &mut record).unwrap());
                }
                while consumer.pop(&control, &words, &mut record).unwrap() {}
                prop_assert_eq!(record.header().opcode, *opcode);
                prop_assert_eq!(record.parts(body.len()).unwrap(), (&body[..], &tail[..]));
            }
        }

        #[test]
        fn nonsense_is_refused_and_never_read_out_of_bounds(
            tail in any::<u64>(), contents in prop::collection::vec(any::<u64>(), 64), body in 0..6000usize
        ) {
            let (control, words) = ring(64);
            control.tail.0.store(tail, Ordering::Release);
            for (word, value) in words.iter().zip(contents) {
                word.store(value, Ordering::Relaxed);
            }
            let mut record = Record::default();
            let mut consumer = Consumer::default();
            while let Ok(true) = consumer.pop(&control, &words, &mut record) {
                let _ = record.parts(body);
            }
        }

        #[test]
        fn a_record_encoded_alone_is_the_record_of_the_ring(
            body in prop::collection::vec(any::<u64>(), 0..8), tail in prop::collection::vec(any::<u8>(), 0..50)
        ) {
            let mut alone = Vec::new();
            encode_record(&mut alone, 7, 3, &body, &tail);
            let (control, words) = ring(64);
            prop_assert!(Producer::new().push(&control, &words, 7, 3, &body, &tail));
            let mut record = Record::default();
            prop_assert!(Consumer::default().pop(&control, &words, &mut record).unwrap());
            prop_assert_eq!(&record.words, &alone);
            prop_assert_eq!(&Record::from_words(&alone).unwrap().words, &alone);
        }
    }

    #[test]
    fn a_full_ring_refuses_and_keeps_what_it_has() {
        let (control, words) = ring(8);
        let mut producer = Producer::new();
        assert!(producer.push(&control, &words, 1, NO_SLOT, &[11, 12, 13, 14], &[]));
        assert!(!producer.push(&control, &words, 2, NO_SLOT, &[21], &[]));
        let (mut consumer, mut record) = (Consumer::default(), Record::default());
        assert!(consumer.pop(&control, &words, &mut record).unwrap());
        assert_eq!(record.parts(4).unwrap().0, [11, 12, 13, 14]);
        assert!(producer.push(&control, &words, 2, NO_SLOT, &[21], &[]));
        assert!(consumer.pop(&control, &words, &mut record).unwrap());
        assert_eq!(record.parts(1).unwrap().0, [21]);
    }
}

#[cfg(all(test, loom))]
mod model {
    //! Run with `RUSTFLAGS="--cfg loom" cargo test -p torpor-proto --release --lib ring::model`.

    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    fn ring(words: usize) -> Arc<(Control, Vec<AtomicU64>)> {
        Arc::new((Control::default(), (0..words).map(|_| AtomicU64::new(0)).collect()))
    }

    fn take(shared: &(Control, Vec<AtomicU64>), consumer: &mut Consumer, record: &mut Record) -> u64 {
        while !consumer.pop(&shared.0, &shared.1, record).unwrap() {
            consumer.wait(&shared.0, Duration::MAX);
        }
        record.parts(1).unwrap().0[0]
    }

    #[test]
    fn every_record_arrives_whole_and_no_wake_up_is_lost() {
        loom::model(|| {
            let shared = ring(8);
            let theirs = shared.clone();
            let producer = thread::spawn(move || {
                let mut producer = Producer::new();
                for value in [1, 2] {
                    assert!(producer.push(&theirs.0, &theirs.1, 9, NO_SLOT, &[value], &[]));
                }
            });
            let (mut consumer, mut record) = (Consumer::default(), Record::default());
            assert_eq!(take(&shared, &mut consumer, &mut record), 1);
            assert_eq!(take(&shared, &mut consumer, &mut record), 2);
            producer.join().unwrap();
        });
    }

    #[test]
    fn a_producer_that_waits_for_room_gets_it() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let shared = ring(4);
            let theirs = shared.clone();
            let producer = thread::spawn(move || {
                let mut producer = Producer::new();
                for value in [1, 2] {
                    while !producer.push(&theirs.0, &theirs.1, 9, NO_SLOT, &[value], &[]) {
                        producer.wait_for_room(&theirs.0, Duration::MAX);
                    }
                }
            });
            let (mut consumer, mut record) = (Consumer::default(), Record::default());
            assert_eq!(take(&shared, &mut consumer, &mut record), 1);
            assert_eq!(take(&shared, &mut consumer, &mut record), 2);
            producer.join().unwrap();
        });
    }
}
