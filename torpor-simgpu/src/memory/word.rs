//! Words that streams store and wait for.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
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

/// A word in memory that is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Word {
    /// Its address, a multiple of 4.
    pub address: u64,
    /// The value to compare with.
    pub value: u32,
    /// How.
    pub condition: Condition,
}

/// A word in memory that is stored.
#[derive(Debug, Clone, Copy)]
pub enum Stored {
    /// One of 32 bits, at a multiple of 4.
    Narrow(u64, u32),
    /// One of 64 bits, at a multiple of 8.
    Wide(u64, u64),
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
}

impl Stored {
    /// Where it is, and its length.
    pub fn place(self) -> (u64, u64) {
        match self {
            Self::Narrow(address, _) => (address, 4),
            Self::Wide(address, _) => (address, 8),
        }
    }

    fn store(self, memory: NonNull<u8>) {
        match self {
            Self::Narrow(_, value) => {
                // SAFETY: as many aligned bytes as `place` says that an accessor keeps mapped for as long as the reference lives; the
                // program and other operations share them as atomic words.
                let cell = unsafe { AtomicU32::from_ptr(memory.as_ptr().cast()) };
                cell.store(value, Ordering::Release);
            }
            Self::Wide(_, value) => {
                // SAFETY: as above.
                let cell = unsafe { AtomicU64::from_ptr(memory.as_ptr().cast()) };
                cell.store(value, Ordering::Release);
            }
        }
    }
}

fn open(
    machine: &Machine,
    accessor: &Accessor,
    (address, bytes): (u64, u64),
    intent: Intent,
) -> Result<NonNull<u8>> {
    let memory = accessor.open(address, bytes, intent);
    memory.map_err(|_| illegal_address(machine, "a stream's word operation", address, bytes))
}

/// Stores the word. What is issued from then on is ordered after what the stream did before: the host may have read it.
pub fn write(machine: &Machine, word: Stored, place: &Place) -> Result<u64> {
    let accessor = Accessor::for_copy(machine, "a word stored by a stream", place.stamp.as_ref());
    let memory = open(machine, &accessor, word.place(), Intent::Write)?;
    // Nobody issues anything between the two: who may have read the word knows what it tells, and nobody else does.
    let mut host_clocks = lock(&machine.host_clocks);
    word.store(memory);
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
    let memory = open(machine, &accessor, (word.address, 4), Intent::Move)?;
    // SAFETY: four aligned bytes that the accessor keeps mapped for as long as the reference lives; the program and other
    // operations share them as atomic words.
    let cell = unsafe { AtomicU32::from_ptr(memory.as_ptr().cast()) };
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
