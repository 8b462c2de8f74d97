//! Words that streams store and wait for.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::access::{Accessor, Intent};
use crate::check::join;
use crate::error::Result;
use crate::lock;
use crate::machine::Machine;
use crate::operation::{Place, illegal_address, short_ns, spend};

/// When a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The word is at or beyond the value, as a signed difference.
    AtLeast,
    /// They are equal.
    Equal,
    /// They share a bit.
    AnyBit,
    /// Some bit is in neither.
    MissingBit,
}

/// A word in memory and a value for it.
#[derive(Debug, Clone, Copy)]
pub struct Word {
    /// Its address, a multiple of 4.
    pub address: u64,
    /// The value to store, or to compare with.
    pub value: u32,
    /// For waits, the comparison.
    pub condition: Condition,
}

impl Word {
    fn is_met(&self, found: u32) -> bool {
        match self.condition {
            Condition::AtLeast => found.wrapping_sub(self.value).cast_signed() >= 0,
            Condition::Equal => found == self.value,
            Condition::AnyBit => found & self.value != 0,
            Condition::MissingBit => !(found | self.value) != 0,
        }
    }

    fn cell<'a>(&self, machine: &Machine, accessor: &'a Accessor, intent: Intent) -> Result<&'a AtomicU32> {
        let memory = accessor.open(self.address, 4, intent);
        let memory =
            memory.map_err(|_| illegal_address(machine, "a stream's word operation", self.address, 4))?;
        // SAFETY: four aligned bytes that the accessor keeps mapped for as long as the reference lives; the program
        // and other operations share them as atomic words.
        Ok(unsafe { AtomicU32::from_ptr(memory.as_ptr().cast()) })
    }
}

/// Stores the word. What is issued from then on is ordered after what the stream did before: the host may have read it.
pub fn write(machine: &Machine, word: &Word, place: &Place) -> Result<u64> {
    let accessor = Accessor::for_copy(machine, "a word stored by a stream", place.stamp.as_ref());
    let cell = word.cell(machine, &accessor, Intent::Write)?;
    // Nobody issues anything between the two: who may have read the word knows what it tells, and nobody else does.
    let mut host_clocks = lock(&machine.host_clocks);
    cell.store(word.value, Ordering::Release);
    if let Some(stamp) = &place.stamp {
        join(&mut host_clocks, &stamp.clocks);
    }
    drop(host_clocks);
    Ok(spend(machine, &[], place, short_ns()))
}

/// Waits for the word.
pub fn wait(machine: &Machine, word: &Word, place: &Place) -> Result<u64> {
    // The word is written by others while this waits, so order and earlier writes say nothing about it.
    let accessor = Accessor::for_copy(machine, "a word that a stream waits for", None);
    let cell = word.cell(machine, &accessor, Intent::Move)?;
    let mut spins = 0_u32;
    while !word.is_met(cell.load(Ordering::Acquire)) {
        machine.health(Some(place.device))?;
        spins = spins.saturating_add(1);
        if spins < 1000 {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    let earliest_ns = place.earliest_ns.max(machine.clock.host_ns());
    Ok(spend(machine, &[], &Place { earliest_ns, ..place.clone() }, short_ns()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_those_of_the_header() {
        let met = |condition, value, found| Word { address: 0, value, condition }.is_met(found);
        assert!(
            met(Condition::AtLeast, 5, 5) && met(Condition::AtLeast, 5, 6) && !met(Condition::AtLeast, 5, 4)
        );
        assert!(met(Condition::AtLeast, u32::MAX, 1), "counters may wrap");
        assert!(met(Condition::Equal, 5, 5) && !met(Condition::Equal, 5, 6));
        assert!(met(Condition::AnyBit, 6, 2) && !met(Condition::AnyBit, 6, 1));
        assert!(met(Condition::MissingBit, 1, 2) && !met(Condition::MissingBit, u32::MAX, 0));
    }
}
