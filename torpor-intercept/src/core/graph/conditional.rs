//! Conditions: values that kernels set, and the graphs that run or do not for them.
//!
//! What the program gets for a condition is a number that no other one of this process has. A worker makes a condition of
//! its driver for it, and puts that one's number in its place among the parameters of the graph's kernels.

use super::Graph;
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// `CUgraphConditionalNodeType`: how many graphs a condition has at least and at most, by its kind.
const BODIES: [std::ops::RangeInclusive<u32>; 3] = [1..=2, 1..=1, 1..=MOST_BODIES];

/// Graphs of a `SWITCH`; more are a sign of a wrong structure.
const MOST_BODIES: u32 = 1024;

/// A condition of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) number: u64,
    /// What it is at every launch, if the flags say so.
    pub(super) value: u32,
    /// 1: it gets its value at every launch.
    pub(super) flags: u32,
}

impl Condition {
    /// A new one.
    pub(super) fn new(value: u32, flags: u32) -> Self {
        /// Spreads the numbers, so that no length, count or address among kernels' parameters is one of them. None is negative for
        /// who takes it for a signed one, as `cuda.core` does.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        static MADE: AtomicU64 = AtomicU64::new(1);
        let spread = MADE.fetch_add(1, Ordering::Relaxed).wrapping_mul(STEP);
        let number = spread & !(1 << 63) | 1 << 62;
        Self { number, value, flags }
    }
}

/// What a node with a condition does.
#[derive(Clone, Debug)]
pub struct Conditional {
    /// The number of its condition.
    pub(in crate::core) number: u64,
    /// `CUgraphConditionalNodeType`: 0 if, 1 while, 2 switch.
    pub(in crate::core) kind: u32,
    pub(in crate::core) bodies: Arc<[&'static Graph]>,
    /// The same graphs as the program has them, as long as the node is there.
    handles: Arc<[usize]>,
}

impl Conditional {
    pub(super) fn new(number: u64, kind: u32, bodies: Vec<&'static Graph>) -> Self {
        let handles = bodies.iter().map(|graph| graph.handle().expose_provenance()).collect();
        Self { number, kind, bodies: bodies.into(), handles }
    }

    /// Whether a condition of this kind may have so many graphs.
    pub(super) fn fits(kind: u32, bodies: u32) -> bool {
        BODIES.get(kind as usize).is_some_and(|range| range.contains(&bodies))
    }

    /// `phGraph_out`: the graphs' handles, valid as long as the node.
    #[must_use]
    pub fn handles(&self) -> *mut *mut c_void {
        self.handles.as_ptr().cast_mut().cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_have_numbers_of_their_own() {
        let numbers = [Condition::new(0, 0), Condition::new(0, 0)].map(|condition| condition.number);
        assert_ne!(numbers[0], numbers[1]);
        assert!(numbers.iter().all(|&number| number > u64::from(u32::MAX) && i64::try_from(number).is_ok()));
        assert!(Conditional::fits(0, 2) && !Conditional::fits(1, 2) && !Conditional::fits(3, 1));
    }
}
