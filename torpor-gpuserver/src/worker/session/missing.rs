//! What of a client's memory is to be brought, and in which order.

use crate::worker::memory::units::Units;
use crate::worker::session::Session;
use std::collections::HashSet;

/// Segments that are to be brought, with their lengths.
pub(crate) type Missing = Vec<(u64, u64)>;

impl Session {
    /// Segments that are not resident and can be reached (all of them, if the operator wants it), with their lengths: first those
    /// that the last request touched, in its order, each followed by what it leads to, because whoever waits for one waits for the
    /// other.
    pub(super) fn missing(&self) -> Missing {
        let (mut seen, mut missing) = (HashSet::new(), Vec::new());
        let units = Units::of(&self.space);
        let others = self.space.segments().map(|(address, _)| address);
        for first in self.residency.order.iter().copied().chain(others) {
            let mut open = vec![first];
            while let Some(address) = open.pop() {
                let Some((start, _)) = self.space.resolve(address) else { continue };
                let Some((_, segment)) = self.space.segment_of(start) else { continue };
                if seen.insert(start) {
                    if segment.needs_memory() && (segment.is_reachable() || self.residency.is_loading()) {
                        missing.push((start, segment.bytes));
                    }
                    open.extend(segment.pointers());
                    // What is beside it comes before what it points to.
                    open.extend(units.beside(start).iter().rev().filter(|home| !seen.contains(home)));
                }
            }
        }
        missing
    }
}
