//! Numbers that the program has for what it does, such as PyTorch's for an operator: the last one of each kind goes with every call.

use super::record::{ExternalCorrelationRecord, kind};
use super::result::CuptiError;
use super::{activity, buffers};
use crate::driver::argument::Out;
use std::cell::RefCell;

/// `CUPTI_EXTERNAL_CORRELATION_KIND_SIZE`: kinds are 1 to 5.
const KINDS: usize = 6;

/// Numbers that a thread may have open; a program that only pushes must not take all memory.
const MOST: usize = 1 << 16;

thread_local! {
    static NUMBERS: RefCell<[Vec<u64>; KINDS]> = const { RefCell::new([const { Vec::new() }; KINDS]) };
}

fn with<T>(kind: u32, what: impl FnOnce(&mut Vec<u64>) -> Result<T, CuptiError>) -> Result<T, CuptiError> {
    let found = NUMBERS.try_with(|numbers| {
        let mut numbers = numbers.borrow_mut();
        let numbers = numbers.get_mut(kind as usize).filter(|_| kind != 0);
        what(numbers.ok_or(CuptiError::InvalidParameter)?)
    });
    found.unwrap_or(Err(CuptiError::NotInitialized))
}

/// Writes what goes with a call.
pub(super) fn write(correlation: u32) {
    if !activity::is_enabled(kind::EXTERNAL_CORRELATION) {
        return;
    }
    let last = |numbers: &RefCell<[Vec<u64>; KINDS]>| {
        numbers.borrow().each_ref().map(|numbers| numbers.last().copied())
    };
    let Ok(last) = NUMBERS.try_with(last) else { return };
    for (external_kind, external) in last.into_iter().enumerate() {
        let Some(external) = external else { continue };
        buffers::write(&ExternalCorrelationRecord {
            kind: kind::EXTERNAL_CORRELATION,
            external_kind: external_kind as u32,
            external,
            correlation,
            reserved: 0,
        });
    }
}

super::cupti_functions! {
    /// From now on, the calling thread's calls have this number.
    fn cuptiActivityPushExternalCorrelationId(kind: u32, number: u64) {
        with(kind, |numbers| {
            if numbers.len() >= MOST {
                return Err(CuptiError::MaxLimitReached);
            }
            numbers.push(number);
            Ok(())
        })
    }

    /// Takes the last number back; the program may want to know which it was.
    fn cuptiActivityPopExternalCorrelationId(kind: u32, last: Out<u64>) {
        last.put_if_wanted(with(kind, |numbers| numbers.pop().ok_or(CuptiError::QueueEmpty))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_each_kind_are_taken_back_in_reverse() {
        let pop = |kind| with(kind, |numbers| numbers.pop().ok_or(CuptiError::QueueEmpty));
        for (kind, number) in [(3, 7), (4, 8), (3, 9)] {
            let push = |numbers: &mut Vec<u64>| {
                numbers.push(number);
                Ok(())
            };
            assert_eq!(with(kind, push), Ok(()));
        }
        assert_eq!([pop(3), pop(3), pop(4)], [Ok(9), Ok(7), Ok(8)]);
        assert_eq!(pop(3), Err(CuptiError::QueueEmpty));
        assert_eq!([pop(0), pop(6)], [Err(CuptiError::InvalidParameter); 2]);
    }
}
