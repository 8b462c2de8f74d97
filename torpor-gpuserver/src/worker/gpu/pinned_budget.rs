//! Page-locked host memory of clients: how much of it there may be, on one GPU, for a function and for all together.
//!
//! The worker makes the pages, so they count as the server's and not as the container's: without a limit, one function could
//! take the memory of the machine.

use crate::server::size::ByteSize;
use crate::worker::sync::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Why no more may be page-locked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PinnedRefusal {
    /// The function has too much.
    #[error(
        "function {function} wants {wanted} of page-locked host memory beside the {taken} that its processes have on this GPU \
         (managed memory and staging included), and may have {limit}: raise pinned_limit in [functions.{function}] or [defaults]"
    )]
    Function { function: String, wanted: ByteSize, taken: ByteSize, limit: ByteSize },
    /// All together have too much.
    #[error(
        "function {function} wants {wanted} of page-locked host memory beside the {taken} that all functions have on this GPU \
         (managed memory and staging included), and they may have {limit}: raise pinned_limit in [memory], or end processes"
    )]
    All { function: String, wanted: ByteSize, taken: ByteSize, limit: ByteSize },
}

#[derive(Debug, Default)]
struct Taken {
    total: u64,
    functions: HashMap<String, u64>,
}

/// What of it is taken.
#[derive(Debug)]
pub(crate) struct PinnedBudget {
    limit_bytes: u64,
    taken: Mutex<Taken>,
}

/// A part of it, given back on drop.
#[derive(Debug)]
pub(crate) struct PinnedShare {
    budget: Arc<PinnedBudget>,
    function: String,
    bytes: u64,
}

impl PinnedBudget {
    /// For all functions together.
    pub(crate) fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self { limit_bytes, taken: Mutex::default() })
    }

    /// Takes a part for a function that may have so much.
    ///
    /// # Errors
    /// [`PinnedRefusal`].
    pub(crate) fn take(
        self: &Arc<Self>,
        function: &str,
        function_limit_bytes: u64,
        bytes: u64,
    ) -> Result<PinnedShare, PinnedRefusal> {
        let mut taken = lock(&self.taken);
        let its = taken.functions.get(function).copied().unwrap_or(0);
        let name = || function.to_owned();
        let wanted = ByteSize(bytes);
        if its.checked_add(bytes).is_none_or(|sum| sum > function_limit_bytes) {
            let (taken, limit) = (ByteSize(its), ByteSize(function_limit_bytes));
            return Err(PinnedRefusal::Function { function: name(), wanted, taken, limit });
        }
        if taken.total.checked_add(bytes).is_none_or(|sum| sum > self.limit_bytes) {
            let (taken, limit) = (ByteSize(taken.total), ByteSize(self.limit_bytes));
            return Err(PinnedRefusal::All { function: name(), wanted, taken, limit });
        }
        taken.total += bytes;
        taken.functions.insert(name(), its + bytes);
        Ok(PinnedShare { budget: self.clone(), function: name(), bytes })
    }
}

impl Drop for PinnedShare {
    fn drop(&mut self) {
        let mut taken = lock(&self.budget.taken);
        taken.total -= self.bytes;
        if let Some(its) = taken.functions.get_mut(&self.function) {
            *its -= self.bytes;
            if *its == 0 {
                taken.functions.remove(&self.function);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn more_than_can_be_counted_is_refused() {
        let budget = PinnedBudget::new(u64::MAX);
        let all = budget.take("f", u64::MAX, u64::MAX);
        assert!(
            all.is_ok() && budget.take("f", u64::MAX, 1).is_err() && budget.take("g", u64::MAX, 1).is_err()
        );
    }

    #[test]
    fn each_function_has_its_limit_and_all_together_theirs() {
        let budget = PinnedBudget::new(10 * MIB);
        let first = budget.take("f", 4 * MIB, 3 * MIB).unwrap();
        let refused = budget.take("f", 4 * MIB, 2 * MIB).unwrap_err().to_string();
        for word in ["function f", "2 MiB", "3 MiB", "4 MiB", "[functions.f]"] {
            assert!(refused.contains(word), "{refused}");
        }
        assert!(budget.take("f", u64::MAX, u64::MAX).is_err(), "the sum overflows");
        let _other = budget.take("g", u64::MAX, 7 * MIB).unwrap();
        let refused = budget.take("h", u64::MAX, MIB).unwrap_err().to_string();
        assert!(refused.contains("function h") && refused.contains("10 MiB"), "{refused}");
        drop(first);
        budget.take("h", u64::MAX, MIB).unwrap();
        assert_eq!(lock(&budget.taken).functions.len(), 1, "what has nothing is forgotten");
    }
}
