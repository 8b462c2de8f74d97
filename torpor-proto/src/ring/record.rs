//! Records: what they begin with, what they are made of, and what no honest producer writes.

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
    pub(super) fn encode(self) -> [u64; HEADER_WORDS] {
        [
            u64::from(self.words) | u64::from(self.opcode) << 32 | u64::from(self.slot) << 48,
            u64::from(self.tail_bytes),
        ]
    }

    pub(super) fn decode(words: [u64; HEADER_WORDS]) -> Self {
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

/// A record, copied out of the ring.
#[derive(Debug, Default)]
pub struct Record {
    pub(super) words: Vec<u64>,
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

/// Encodes a record on its own, as [`Producer::push`](super::Producer::push) writes it into the ring.
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
