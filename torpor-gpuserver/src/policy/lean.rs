//! Lean: whether a client whose memory has no room beside those that are busy is active with a part of it.
//!
//! Busy clients that do not fit beside each other would have whole turns, for each of which everything of the one leaves and everything
//! of the other comes. A client that mostly reads what it has, in the same order each time, does nearly as much with a part of
//! its memory there, through which the rest passes while it works. So it takes what the others leave, and they keep what they have.

/// How a client becomes active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// With all of its memory, for which idle clients leave.
    Whole,
    /// With so many bytes of it, for which as few leave that are busy as can be.
    Lean(u64),
}

/// A client's memory, where a part of it is enough for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// The least with which it gets on: what has to stay, and a window for the rest.
    pub least_bytes: u64,
    /// What of it is on the GPU now.
    pub held_bytes: u64,
}

/// What a client that waits finds, and what it is itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowded {
    /// It may become active as a whole, whoever that puts out.
    pub joins: bool,
    /// It was active a moment ago, and some of its memory is missing.
    pub is_busy: bool,
    /// All of its memory.
    pub needed_bytes: u64,
    /// What there is beside those that are active, and those that were a moment ago and are on the GPU.
    pub left_bytes: u64,
    /// What there is beside those that are active.
    pub room_bytes: u64,
}

/// How a client enters now; not at all yet, if that is nothing. `fit` is asked for if it matters: what the client could do with.
///
/// ```
/// use torpor_gpuserver::policy::lean::{Crowded, Entry, Fit, entry};
///
/// let crowded = Crowded { joins: false, is_busy: true, needed_bytes: 1380, left_bytes: 532, room_bytes: 532 };
/// let fit = || Some(Fit { least_bytes: 400, held_bytes: 0 });
/// assert_eq!(entry(crowded, fit), Some(Entry::Lean(532)));
///
/// // With less it would wait for its memory all the time, and some cannot go on without all of it.
/// assert_eq!(entry(Crowded { left_bytes: 399, room_bytes: 399, ..crowded }, fit), None);
/// assert_eq!(entry(crowded, || None), None);
///
/// // It puts nobody out that is about to go on,
/// assert_eq!(entry(Crowded { joins: true, ..crowded }, fit), Some(Entry::Lean(532)));
/// // or not as many as it would as a whole, if it gets on with half.
/// assert_eq!(entry(Crowded { left_bytes: 100, ..crowded }, fit), Some(Entry::Lean(400)));
///
/// // A stranger comes as a whole, and so does whoever has not asked again at once: that one is no candidate.
/// assert_eq!(entry(Crowded { joins: true, is_busy: false, ..crowded }, fit), Some(Entry::Whole));
/// ```
#[must_use]
pub fn entry(crowded: Crowded, fit: impl FnOnce() -> Option<Fit>) -> Option<Entry> {
    let Crowded { joins, is_busy, needed_bytes, left_bytes, room_bytes } = crowded;
    let is_short = is_busy && needed_bytes > left_bytes;
    let bytes = is_short.then(fit).flatten().and_then(|Fit { least_bytes, held_bytes }| {
        let least_bytes = least_bytes.max(held_bytes);
        // Who needs most of what it has takes turns with the others sooner than it is slow beside them.
        let spares_others = least_bytes <= room_bytes.min(needed_bytes / 2);
        (left_bytes >= least_bytes || spares_others).then_some(left_bytes.max(least_bytes))
    });
    match bytes {
        Some(bytes) => Some(Entry::Lean(bytes)),
        None => joins.then_some(Entry::Whole),
    }
}

/// The least with which a client gets on of whose memory so much stays and so much passes, in pieces of which the largest is so
/// long: some are used, some come and some go at any moment, and with little of the rest there the bus is all that it does.
#[must_use]
pub fn least_bytes(staying_bytes: u64, passing_bytes: u64, largest_bytes: u64) -> u64 {
    let window = (3 * largest_bytes).max(passing_bytes / 8);
    let least = staying_bytes.saturating_add(window);
    least.max(staying_bytes.saturating_add(passing_bytes) / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_large_model_has_a_window_for_an_eighth_and_no_less_than_a_quarter_of_all() {
        assert_eq!(least_bytes(200, 1200, 20), 200 + 150);
        assert_eq!(least_bytes(100, 80, 20), 100 + 3 * 20, "three of the largest");
        assert_eq!(least_bytes(0, 800, 2), 200, "a quarter");
    }

    proptest! {
        #[test]
        fn nobody_busy_is_put_out_by_one_that_gets_on_without(
            joins: bool,
            is_busy: bool,
            needed_bytes in 0..1000_u64,
            left_bytes in 0..1000_u64,
            room_bytes in 0..1000_u64,
            least_bytes in 0..1000_u64,
            held_bytes in 0..1000_u64,
        ) {
            let crowded = Crowded { joins, is_busy, needed_bytes, left_bytes, room_bytes };
            match entry(crowded, || Some(Fit { least_bytes, held_bytes })) {
                Some(Entry::Lean(bytes)) => {
                    prop_assert!(is_busy && left_bytes < needed_bytes && bytes < needed_bytes);
                    prop_assert!(bytes <= left_bytes || bytes <= room_bytes.min(needed_bytes / 2));
                    prop_assert!(bytes >= least_bytes && bytes >= held_bytes);
                }
                Some(Entry::Whole) => {
                    prop_assert!(joins);
                    let gets_on = left_bytes >= least_bytes.max(held_bytes);
                    prop_assert!(!is_busy || needed_bytes <= left_bytes || !gets_on);
                }
                None => prop_assert!(!joins),
            }
        }

        #[test]
        fn who_is_no_candidate_enters_as_without_this(
            joins: bool,
            is_busy: bool,
            needed_bytes: u64,
            left_bytes: u64,
            room_bytes: u64,
        ) {
            let crowded = Crowded { joins, is_busy, needed_bytes, left_bytes, room_bytes };
            prop_assert_eq!(entry(crowded, || None), joins.then_some(Entry::Whole));
        }
    }
}
