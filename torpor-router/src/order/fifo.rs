//! First come, first served.

use super::{Candidate, Ended, Order, first_by};
use std::time::Instant;

/// Knows nothing and asks nothing.
#[derive(Debug)]
pub(super) struct Fifo;

impl Order for Fifo {
    fn next(&mut self, _now: Instant, candidates: &[Candidate]) -> Option<usize> {
        first_by(candidates, |_| ())
    }

    fn ended(&mut self, _now: Instant, _ended: &Ended) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::tests::candidate;

    #[test]
    fn who_came_first_is_first() {
        let now = Instant::now();
        let waiting = [candidate("a", now, 1, 7), candidate("b", now, 9, 3), candidate("c", now, 5, 4)];
        assert_eq!(Fifo.next(now, &waiting), Some(1));
    }
}
