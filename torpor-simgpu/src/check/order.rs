//! Which operation is ordered before which: vector clocks over streams.
//!
//! Every operation carries how much of each stream is certain to be complete before it starts: what came before it in
//! its own stream, what the events it waits for covered, and what the host had waited for when it was issued. Two
//! operations neither of which is certain to come first may run in any order, whatever happened this time. A read of
//! bytes whose last copy or fill is not ordered before it is therefore wrong even where it got the right bytes, and is
//! found whether the copy was early or late.
//!
//! A host may also wait by polling a word that a stream stores (`cuStreamWriteValue32`). Whether it does is not seen, so what
//! is issued after the word was stored counts as ordered after what that stream did before it. What was issued earlier
//! does not, even if the word was stored before it ran.
//!
//! Limits: an operation that is issued without waiting is not found once such a word tells of the copy. Order made by
//! `cuStreamWaitValue32` and by flags that kernels store is not seen.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use crate::lock;

/// How much of each stream (by number) is certain to be complete: the sequence number of its last such operation.
pub type Clocks = HashMap<u64, u64>;

/// Adds what `other` knows to `clocks`.
pub fn join(clocks: &mut Clocks, other: &Clocks) {
    for (&stream, &sequence) in other {
        let known = clocks.entry(stream).or_insert(0);
        *known = sequence.max(*known);
    }
}

/// One operation in the order of things.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// Number of its stream.
    pub stream: u64,
    /// Its position there.
    pub sequence: u64,
    /// What is complete before it starts, and itself.
    pub clocks: Arc<Clocks>,
}

impl Stamp {
    /// Whether this operation is certain to be complete before `other` starts.
    pub fn is_before(&self, other: &Self) -> bool {
        other.clocks.get(&self.stream).is_some_and(|&sequence| sequence >= self.sequence)
    }

    /// While this operation is under way: what came before it is complete, itself is not.
    pub fn begun(&self) -> Self {
        let mut clocks = (*self.clocks).clone();
        clocks.insert(self.stream, self.sequence.saturating_sub(1));
        Self { clocks: Arc::new(clocks), ..self.clone() }
    }
}

/// The last copy or fill of every range of device memory.
#[derive(Debug, Default)]
pub struct Writers {
    /// By start: end and writer.
    ranges: Mutex<BTreeMap<u64, (u64, Stamp)>>,
}

impl Writers {
    /// Notes, when a copy or fill is issued, that it will write the range.
    pub fn note(&self, start: u64, end: u64, writer: &Stamp) {
        let mut ranges = lock(&self.ranges);
        cut(&mut ranges, start, end);
        if start < end {
            ranges.insert(start, (end, writer.clone()));
        }
    }

    /// Forgets a range that is unmapped.
    pub fn forget(&self, start: u64, end: u64) {
        cut(&mut lock(&self.ranges), start, end);
    }

    /// Whether a read of the range by `reader` may meet a write that is not ordered against it.
    pub fn is_unordered(&self, start: u64, end: u64, reader: &Stamp) -> bool {
        let ranges = lock(&self.ranges);
        let before = ranges.range(..start).next_back().filter(|entry| entry.1.0 > start);
        before
            .into_iter()
            .chain(ranges.range(start..end))
            .any(|(_, (_, writer))| !writer.is_before(reader) && !reader.is_before(writer))
    }
}

/// Removes `start..end` from the ranges, splitting those that reach over its ends.
fn cut(ranges: &mut BTreeMap<u64, (u64, Stamp)>, start: u64, end: u64) {
    if let Some((&first, (last, _))) = ranges.range_mut(..start).next_back()
        && *last > start
    {
        let old_end = std::mem::replace(last, start);
        if old_end > end {
            let writer = ranges[&first].1.clone();
            ranges.insert(end, (old_end, writer));
        }
    }
    let inside: Vec<u64> = ranges.range(start..end).map(|(&from, _)| from).collect();
    for from in inside {
        if let Some((last, writer)) = ranges.remove(&from)
            && last > end
        {
            ranges.insert(end, (last, writer));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stamp(stream: u64, sequence: u64, knows: &[(u64, u64)]) -> Stamp {
        let clocks = knows.iter().copied().chain([(stream, sequence)]).collect();
        Stamp { stream, sequence, clocks: Arc::new(clocks) }
    }

    #[test]
    fn a_reader_must_know_the_writer() {
        let writers = Writers::default();
        let copy = stamp(1, 5, &[]);
        writers.note(100, 200, &copy);
        assert!(writers.is_unordered(150, 154, &stamp(2, 1, &[])));
        assert!(writers.is_unordered(150, 154, &stamp(2, 1, &[(1, 4)])));
        assert!(!writers.is_unordered(150, 154, &stamp(2, 1, &[(1, 5)])));
        assert!(!writers.is_unordered(150, 154, &stamp(1, 6, &[])), "later in the same stream");
        assert!(!writers.is_unordered(150, 154, &stamp(1, 4, &[])), "earlier in the same stream");
        assert!(!writers.is_unordered(200, 204, &stamp(2, 1, &[])), "other bytes");
        writers.forget(140, 160);
        assert!(!writers.is_unordered(140, 160, &stamp(2, 1, &[])));
        assert!(writers.is_unordered(139, 140, &stamp(2, 1, &[])));
        assert!(writers.is_unordered(160, 161, &stamp(2, 1, &[])));
    }

    #[test]
    fn an_operation_under_way_is_not_complete() {
        let (earlier, other, graph) = (stamp(1, 4, &[]), stamp(2, 7, &[]), stamp(1, 5, &[(2, 7)]));
        let reader = Stamp { stream: 3, sequence: 1, clocks: graph.begun().clocks };
        assert!(earlier.is_before(&reader) && other.is_before(&reader) && !graph.is_before(&reader));
    }

    proptest! {
        #[test]
        fn ranges_agree_with_a_list_of_bytes(steps in prop::collection::vec((0_u64..64, 0_u64..32, any::<bool>()), 0..24)) {
            let writers = Writers::default();
            let mut bytes = [0_u64; 128];
            for (index, (start, length, is_write)) in steps.into_iter().enumerate() {
                let sequence = index as u64 + 1;
                let end = start + length;
                if is_write {
                    writers.note(start, end, &stamp(1, sequence, &[]));
                } else {
                    writers.forget(start, end);
                }
                bytes[start as usize..end as usize].fill(if is_write { sequence } else { 0 });
            }
            for (at, &sequence) in bytes.iter().enumerate() {
                let at = at as u64;
                // A reader that knows exactly one operation less of stream 1 than wrote this byte.
                let reader = stamp(2, 1, &[(1, sequence.saturating_sub(1))]);
                prop_assert_eq!(writers.is_unordered(at, at + 1, &reader), sequence > 0);
            }
        }
    }
}
