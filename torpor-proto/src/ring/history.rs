//! What was taken from a ring already, read once more: it stays there until the producer has come round.

use super::Control;
use super::record::{HEADER_WORDS, Header, MAX_RECORD_WORDS, Record};
use crate::sync::{AtomicU64, Ordering, fence};

/// A record that was taken before.
#[derive(Debug)]
pub struct Taken {
    /// It.
    pub record: Record,
    /// Words taken with it.
    pub end: u64,
}

/// Why a part of a ring cannot be read once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The producer has come round.
    #[error("what it posted is overwritten: the ring has {capacity} words")]
    Overwritten {
        /// Words of the ring.
        capacity: u64,
    },
    /// No honest producer wrote that.
    #[error("the ring holds what is no record")]
    Malformed,
}

/// The records that were taken since so many words had been, the producer going on meanwhile.
///
/// # Errors
/// [`HistoryError`].
pub fn taken_since(control: &Control, words: &[AtomicU64], since: u64) -> Result<Vec<Taken>, HistoryError> {
    let (capacity, head) = (words.len() as u64, control.head.0.load(Ordering::Acquire));
    let overwritten = HistoryError::Overwritten { capacity };
    let length = head.checked_sub(since).ok_or(HistoryError::Malformed)?;
    if length > capacity {
        return Err(overwritten);
    }
    let at = |position: u64| words[position as usize & (words.len() - 1)].load(Ordering::Relaxed);
    let copied: Vec<u64> = (since..head).map(at).collect();
    // SYNC POINT record: whoever wrote one of these words again had published all records before by then.
    fence(Ordering::Acquire);
    let written = control.tail.0.load(Ordering::Relaxed).saturating_sub(since);
    if written.saturating_add(MAX_RECORD_WORDS as u64) > capacity {
        return Err(overwritten);
    }
    let (mut rest, mut taken, mut end) = (&copied[..], Vec::new(), since);
    while !rest.is_empty() {
        let length = Header::decode([rest[0], 0]).words as usize;
        if !(HEADER_WORDS..=MAX_RECORD_WORDS).contains(&length) || length > rest.len() {
            return Err(HistoryError::Malformed);
        }
        let (record, behind) = rest.split_at(length);
        end += length as u64;
        taken.push(Taken { record: Record { words: record.to_vec() }, end });
        rest = behind;
    }
    Ok(taken)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::{Consumer, NO_SLOT, Producer};
    use super::*;

    #[test]
    fn what_was_taken_can_be_read_until_the_producer_comes_round() {
        let words: Vec<AtomicU64> =
            (0..8 * MAX_RECORD_WORDS.next_power_of_two()).map(|_| AtomicU64::new(0)).collect();
        let (control, mut producer, mut consumer) =
            (Control::default(), Producer::new(), Consumer::default());
        let mut record = Record::default();
        let mut post = |opcode, length| {
            assert!(producer.push(&control, &words, opcode, NO_SLOT, &vec![7; length], &[]));
            assert!(consumer.pop(&control, &words, &mut record).unwrap());
            consumer.words_taken()
        };
        let since = post(1, 3);
        let ends = [post(2, 5), post(3, 0)];
        let taken = taken_since(&control, &words, since).unwrap();
        let seen = taken.iter().map(|taken| (taken.record.header().opcode, taken.end)).collect::<Vec<_>>();
        assert_eq!(seen, [(2, ends[0]), (3, ends[1])]);
        assert_eq!(taken[0].record.words()[HEADER_WORDS..], [7; 5]);
        assert!(taken_since(&control, &words, ends[1]).unwrap().is_empty());
        assert_eq!(taken_since(&control, &words, ends[1] + 1).unwrap_err(), HistoryError::Malformed);
        let capacity = words.len() as u64;
        while post(4, MAX_RECORD_WORDS - HEADER_WORDS) + MAX_RECORD_WORDS as u64 - since <= capacity {
            assert!(taken_since(&control, &words, since).is_ok());
        }
        assert_eq!(taken_since(&control, &words, since).unwrap_err(), HistoryError::Overwritten { capacity });
    }

    #[test]
    fn a_liar_s_ring_has_no_history() {
        let words: Vec<AtomicU64> =
            (0..8 * MAX_RECORD_WORDS.next_power_of_two()).map(|_| AtomicU64::new(0)).collect();
        let control = Control::default();
        control.head.0.store(100, Ordering::Relaxed);
        assert_eq!(taken_since(&control, &words, 0).unwrap_err(), HistoryError::Malformed);
        words[0].store(101, Ordering::Relaxed);
        assert_eq!(taken_since(&control, &words, 0).unwrap_err(), HistoryError::Malformed);
        control.head.0.store(u64::MAX, Ordering::Relaxed);
        assert!(matches!(taken_since(&control, &words, 0), Err(HistoryError::Overwritten { .. })));
    }
}
