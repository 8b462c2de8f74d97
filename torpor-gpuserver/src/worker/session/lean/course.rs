//! Course: in which order a client uses its memory, and so when it will use a segment next.
//!
//! A program that answers one request after the other goes through its weights in the same order each time. So what it used after
//! the last time that it was where it is now is what it will use. Nobody says where a request begins or ends, and nobody has to.

use std::collections::HashMap;

/// Uses that are remembered: several rounds of a large model.
const MOST_USES: usize = 8192;

/// A use again so soon says nothing: what is used all the time is between any two others.
const SOON: usize = 2;

/// How far ahead a use may come earlier than it did the last time.
const SKIPPED: usize = 16;

/// After so many uses that were not expected, the client is somewhere else.
const MOST_SURPRISES: u32 = 8;

/// What a client used, and where in that it is again.
#[derive(Debug, Default)]
pub(crate) struct Course {
    /// Segments as they were used.
    uses: Vec<u64>,
    /// Where that stands which is expected next.
    next: usize,
    surprises: u32,
    /// What was used last, the last one first.
    noted: [u64; SOON],
}

impl Course {
    /// Nothing is used yet, and this is expected.
    pub(super) fn expecting(uses: Vec<u64>) -> Self {
        Self { uses, ..Self::default() }
    }

    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.uses.is_empty()
    }

    /// How many uses are remembered.
    pub(super) fn len(&self) -> usize {
        self.uses.len()
    }

    /// The client uses this one now.
    pub(super) fn note(&mut self, segment: u64) {
        if self.noted.contains(&segment) {
            return;
        }
        self.noted.rotate_right(1);
        self.noted[0] = segment;
        let ahead = self.uses[self.next..].iter().take(SKIPPED);
        match ahead.enumerate().find(|&(_, &expected)| expected == segment) {
            Some((skipped, _)) => {
                self.next += skipped + 1;
                self.surprises = 0;
            }
            None => {
                self.surprises += 1;
                if self.surprises >= MOST_SURPRISES
                    && let Some(place) = self.place_of(segment)
                {
                    self.next = place + 1;
                    self.surprises = 0;
                }
            }
        }
        self.uses.push(segment);
        if self.uses.len() > MOST_USES {
            let forgotten = MOST_USES / 4;
            self.uses.drain(..forgotten);
            self.next = self.next.saturating_sub(forgotten);
        }
    }

    /// The last time that a segment was used, if possible behind the same one as now.
    fn place_of(&self, segment: u64) -> Option<usize> {
        let before = self.uses.last();
        let places = || (0..self.uses.len()).rev().filter(|&at| self.uses[at] == segment);
        let same = places().find(|&at| at > 0 && self.uses.get(at - 1) == before);
        same.or_else(|| places().next())
    }

    /// What will be used, the next one first.
    pub(super) fn ahead(&self) -> impl Iterator<Item = u64> {
        self.uses[self.next..].iter().copied()
    }

    /// After how many uses of others each segment will be used; those that are left out will not be, for all that is known. What was used
    /// just now may be used again at once.
    pub(super) fn distances(&self) -> HashMap<u64, usize> {
        let mut distances: HashMap<u64, usize> = self.noted.iter().map(|&segment| (segment, 0)).collect();
        for (distance, segment) in self.ahead().enumerate() {
            distances.entry(segment).or_insert(distance);
        }
        distances
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(uses: &[u64]) -> Course {
        let mut course = Course::default();
        uses.iter().for_each(|&segment| course.note(segment));
        course
    }

    fn ahead(course: &Course, count: usize) -> Vec<u64> {
        course.ahead().take(count).collect()
    }

    #[test]
    fn what_comes_round_is_expected_in_its_order() {
        let round = [1, 2, 9, 3, 4, 5, 6, 9, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22];
        let mut course = Course::expecting(round.to_vec());
        for _ in 0..3 {
            for (at, &segment) in round.iter().enumerate() {
                assert_eq!(course.ahead().next(), Some(segment));
                course.note(segment);
                let distances = course.distances();
                assert_eq!(distances.get(&segment), Some(&0), "it may be used again");
                let before = (at + round.len() - SOON) % round.len();
                assert_eq!(distances.get(&round[before]).copied(), later(&round, before));
            }
        }
        assert_eq!(ahead(&course, 5), [1, 2, 9, 3, 4]);
    }

    /// After how many others it comes again in a round that is repeated, as seen a little later.
    fn later(round: &[u64], at: usize) -> Option<usize> {
        (1..=round.len()).find(|by| round[(at + by) % round.len()] == round[at]).map(|by| by - 1 - SOON)
    }

    #[test]
    fn what_is_used_all_the_time_is_noted_now_and_then() {
        assert_eq!(after(&[1, 1, 1, 2, 2]).len(), 2);
        assert_eq!(after(&[9, 1, 9, 2, 9, 3, 9, 4, 9, 5]).uses, [9, 1, 2, 9, 3, 4, 9, 5]);
    }

    #[test]
    fn one_that_was_not_expected_or_is_left_out_changes_nothing_ahead() {
        let mut course = Course::expecting(vec![1, 2, 3, 4, 5]);
        [1, 70, 2].iter().for_each(|&segment| course.note(segment));
        assert_eq!(ahead(&course, 3), [3, 4, 5]);
        course.note(4);
        assert_eq!(ahead(&course, 1), [5]);
    }

    #[test]
    fn a_client_that_does_something_else_is_found_again() {
        let (one, other): (Vec<u64>, Vec<u64>) = ((1..40).collect(), (100..140).collect());
        let mut course = after(&[&one[..], &other, &one].concat());
        other.iter().take(20).for_each(|&segment| course.note(segment));
        assert_eq!(ahead(&course, 3), [120, 121, 122]);
    }

    #[test]
    fn what_is_long_ago_is_forgotten_and_the_place_is_kept() {
        let round: Vec<u64> = (0..1000).collect();
        let mut course = Course::expecting(round.clone());
        for _ in 0..20 {
            round.iter().for_each(|&segment| course.note(segment));
        }
        assert!(course.len() <= MOST_USES);
        assert_eq!(ahead(&course, 2), [0, 1]);
    }
}
