//! The order in which waiting requests get a place: by class, then by deadline, then by arrival.
//!
//! Earliest deadline first meets every deadline that any order could meet as long as there are enough places. Where there are not, those
//! that are late let the others of their class pass ([`Turns`]). The class is the client's word that one request matters more than
//! another (`x-torpor-priority`).

use crate::late::Turns;
use std::collections::BTreeMap;
use std::time::Instant;

/// How much a request matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Before all others.
    High,
    /// What a request has that says nothing.
    #[default]
    Normal,
    /// When no other request waits.
    Low,
}

/// A request's place in a [`Queue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    priority: Priority,
    deadline: Instant,
    arrival: u64,
}

/// Requests that wait.
#[derive(Debug)]
pub struct Queue<T> {
    waiting: BTreeMap<Ticket, T>,
    arrivals: u64,
    turns: Turns,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), arrivals: 0, turns: Turns::default() }
    }
}

impl<T> Queue<T> {
    /// Adds a request.
    pub fn push(&mut self, priority: Priority, deadline: Instant, request: T) -> Ticket {
        self.arrivals += 1;
        let ticket = Ticket { priority, deadline, arrival: self.arrivals };
        self.waiting.insert(ticket, request);
        ticket
    }

    /// Takes out the request whose turn it is.
    pub fn pop(&mut self, now: Instant) -> Option<T> {
        let (&first, _) = self.waiting.first_key_value()?;
        let in_time = Ticket { deadline: now, arrival: 0, ..first };
        let others =
            self.waiting.range(in_time..).next().filter(|(other, _)| other.priority == first.priority);
        let next = match others {
            Some((&other, _)) if !self.turns.is_of_late() => other,
            _ => first,
        };
        self.turns.note(next.deadline < now);
        self.waiting.remove(&next)
    }

    /// Takes out a request whose client no longer waits; `None` if it was popped before.
    pub fn remove(&mut self, ticket: Ticket) -> Option<T> {
        self.waiting.remove(&ticket)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn requests_leave_by_class_then_deadline_then_arrival(requests in prop::collection::vec((0..3_u8, 0..5_u64), 0..50)) {
            let begin = Instant::now();
            let mut queue = Queue::default();
            for (index, &(class, deadline)) in requests.iter().enumerate() {
                let priority = [Priority::High, Priority::Normal, Priority::Low][usize::from(class)];
                queue.push(priority, begin + Duration::from_secs(deadline), (class, deadline, index));
            }
            let mut expected: Vec<_> = requests.iter().enumerate().map(|(index, &(class, deadline))| (class, deadline, index)).collect();
            expected.sort_unstable();
            let popped: Vec<_> = std::iter::from_fn(|| queue.pop(begin)).collect();
            prop_assert_eq!(popped, expected);
        }

        #[test]
        fn a_removed_request_is_not_popped(count in 1..20_usize, removed in 0..20_usize) {
            let mut queue = Queue::default();
            let deadline = Instant::now();
            let tickets: Vec<_> = (0..count).map(|index| queue.push(Priority::Normal, deadline, index)).collect();
            let removed = removed % count;
            prop_assert_eq!(queue.remove(tickets[removed]), Some(removed));
            prop_assert_eq!(queue.remove(tickets[removed]), None);
            prop_assert_eq!(queue.len(), count - 1);
            prop_assert!(!std::iter::from_fn(|| queue.pop(deadline)).any(|index| index == removed));
        }
    }

    #[test]
    fn who_is_late_lets_others_of_its_class_pass_but_not_for_ever() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut queue = Queue::default();
        queue.push(Priority::High, after(1), "urgent, and late");
        for (due, name) in [[(2, "late"); 2].as_slice(), &[(4, "in time"); 9]].concat() {
            queue.push(Priority::Normal, after(due), name);
        }
        queue.push(Priority::Low, after(9), "low");
        let left: Vec<_> = std::iter::from_fn(|| queue.pop(after(3))).collect();
        let mut expected = vec!["urgent, and late"];
        expected.extend([["in time"; 7].as_slice(), &["late"], &["in time"; 2], &["late", "low"]].concat());
        assert_eq!(left, expected);
    }
}
