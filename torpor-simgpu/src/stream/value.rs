//! `cuStreamWriteValue32`, `cuStreamWriteValue64` and `cuStreamWaitValue32`: words in memory that streams set and wait for.

use super::{enqueue, find};
use crate::error::{CudaError, Result};
use crate::machine::Machine;
use crate::memory::{Condition, Stored, Word};
use crate::operation::Work;

/// Flags that only ask for a memory barrier or for none.
const BARRIER_FLAGS: u32 = 1 | 1 << 30;

fn checked(machine: &Machine, (address, bytes): (u64, u64)) -> Result {
    let snapshot = machine.space.snapshot();
    let covered = crate::memory::cover(&snapshot, address, bytes).is_some();
    if covered && address.is_multiple_of(bytes) { Ok(()) } else { Err(CudaError::INVALID_VALUE) }
}

pub fn write(machine: &'static Machine, stream: u64, word: Stored, flags: u32) -> Result {
    let (context, queue) = find(machine, stream)?;
    checked(machine, word.place())?;
    if flags & !1 != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    enqueue(machine, &context, &queue, Work::Write(word), Vec::new()).map(drop)
}

pub fn wait(machine: &'static Machine, stream: u64, address: u64, value: u32, flags: u32) -> Result {
    let (context, queue) = find(machine, stream)?;
    checked(machine, (address, 4))?;
    let condition = match flags & !(BARRIER_FLAGS & !3) {
        0 => Condition::AtLeast,
        1 => Condition::Equal,
        2 => Condition::AnyBit,
        3 => Condition::MissingBit,
        _ => return Err(CudaError::INVALID_VALUE),
    };
    let word = Word { address, value, condition };
    enqueue(machine, &context, &queue, Work::WaitFor(word), Vec::new()).map(drop)
}
