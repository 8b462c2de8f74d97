//! Which host functions and posts of which streams come before which others.
//!
//! A stream is a lane. Who enters gets a place behind everybody who entered before; a function is called once everything
//! before it in its own lane has left, and in those lanes that wait for its lane: the legacy stream and every blocking stream
//! wait for each other. A post is held until no function comes before it, nor another post that is held; it may also come
//! behind something in any other lane. Places are in one order for all lanes, so no two wait for each other. Plain data:
//! `host_function.rs` has the threads.

use std::collections::{BTreeMap, VecDeque};
use torpor_proto::command::LEGACY_STREAM;

/// A stream, as far as its order with others goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) number: u32,
    /// Streams of different contexts never wait for each other.
    pub(super) place: u32,
    pub(super) role: Role,
}

/// What a stream is to its context's legacy stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Legacy,
    /// It and the legacy stream wait for each other.
    Blocking,
    NonBlocking,
}

impl Role {
    /// By the flags that the worker is told of a stream.
    #[inline]
    pub(super) fn of(flags: u32) -> Self {
        match flags {
            LEGACY_STREAM => Self::Legacy,
            0 => Self::Blocking,
            _ => Self::NonBlocking,
        }
    }
}

impl Lane {
    #[inline]
    pub(super) fn is_blocking(self) -> bool {
        self.role == Role::Blocking
    }

    /// Whether work in it waits for earlier work in the other, and the other way round.
    pub(super) fn is_ordered_with(self, other: Self) -> bool {
        self.includes(other) || other.includes(self)
    }

    /// Whether who synchronises with it waits for work in the other. That of a blocking stream that comes behind work of
    /// the legacy stream waits for that itself.
    pub(super) fn includes(self, other: Self) -> bool {
        let is_legacy_of = self.role == Role::Legacy && other.is_blocking() && self.place == other.place;
        self.number == other.number || is_legacy_of
    }
}

/// Functions of type `F`, posts of type `P` that are held, and those who post by themselves, that have not left yet.
pub(super) struct StreamOrder<F, P> {
    next_place: u64,
    /// By number; none is empty.
    lanes: BTreeMap<u32, (Lane, VecDeque<Entry<F, P>>)>,
}

struct Entry<F, P> {
    place: u64,
    kind: Kind<F, P>,
}

enum Kind<F, P> {
    Function(F),
    /// A function that somebody has taken to call it.
    Taken,
    /// A post, and the place that it comes behind besides.
    Held(P, Option<u64>),
    /// Somebody who posts by itself.
    Post,
}

impl<F, P> StreamOrder<F, P> {
    pub(super) const fn new() -> Self {
        Self { next_place: 0, lanes: BTreeMap::new() }
    }

    /// Whoever has entered so far has an earlier place.
    pub(super) fn next_place(&self) -> u64 {
        self.next_place
    }

    /// A function that is to be called.
    pub(super) fn enter_function(&mut self, lane: Lane, function: F) -> u64 {
        self.enter(lane, Kind::Function(function))
    }

    /// Somebody who is going to post.
    pub(super) fn enter_post(&mut self, lane: Lane) -> u64 {
        self.enter(lane, Kind::Post)
    }

    /// A post for whoever finds that it is its turn; it comes behind what is at the place `after`, too.
    pub(super) fn enter_held(&mut self, lane: Lane, post: P, after: Option<u64>) -> u64 {
        self.enter(lane, Kind::Held(post, after))
    }

    fn enter(&mut self, lane: Lane, kind: Kind<F, P>) -> u64 {
        let place = self.next_place;
        self.next_place += 1;
        let (_, entries) = self.lanes.entry(lane.number).or_insert_with(|| (lane, VecDeque::new()));
        entries.push_back(Entry { place, kind });
        place
    }

    /// It was called, or posted.
    pub(super) fn leave(&mut self, lane: Lane, place: u64) {
        let Some((_, entries)) = self.lanes.get_mut(&lane.number) else { return };
        if let Some(at) = entries.iter().position(|entry| entry.place == place) {
            entries.remove(at);
        }
        if entries.is_empty() {
            self.lanes.remove(&lane.number);
        }
    }

    /// A function with nothing left before it, which the caller calls now, its lane and its place.
    pub(super) fn take_ready(&mut self) -> Option<(Lane, u64, F)> {
        let lane = self.ready_lanes().next()?;
        let entry = self.lanes.get_mut(&lane.number)?.1.front_mut()?;
        match std::mem::replace(&mut entry.kind, Kind::Taken) {
            Kind::Function(function) => Some((lane, entry.place, function)),
            Kind::Taken | Kind::Post | Kind::Held(..) => None,
        }
    }

    /// A post whose turn it is: it has left the order.
    pub(super) fn take_held(&mut self) -> Option<P> {
        let is_next = |(lane, entries): &(Lane, VecDeque<Entry<F, P>>)| {
            let front = entries.front()?;
            let Kind::Held(_, after) = &front.kind else { return None };
            let may_go =
                !self.is_behind(*lane, front.place) && !after.is_some_and(|place| self.contains(place));
            may_go.then_some((*lane, front.place))
        };
        let (lane, place) = self.lanes.values().find_map(is_next)?;
        let entry = self.lanes.get_mut(&lane.number)?.1.pop_front()?;
        self.leave(lane, place);
        if let Kind::Held(post, _) = entry.kind { Some(post) } else { None }
    }

    /// Whether what has this place has not left.
    pub(super) fn contains(&self, place: u64) -> bool {
        self.lanes.values().any(|(_, entries)| entries.iter().any(|entry| entry.place == place))
    }

    /// Whether anything with a place before this one has not left.
    pub(super) fn has_any_before(&self, place: u64) -> bool {
        self.lanes.values().any(|(_, entries)| entries.front().is_some_and(|front| front.place < place))
    }

    /// How many functions could be called at once now.
    pub(super) fn ready(&self) -> usize {
        self.ready_lanes().count()
    }

    fn ready_lanes(&self) -> impl Iterator<Item = Lane> {
        self.lanes.values().filter_map(|(lane, entries)| {
            let front = entries.front()?;
            (matches!(front.kind, Kind::Function(_)) && !self.is_behind(*lane, front.place)).then_some(*lane)
        })
    }

    /// Whether anything in another lane comes before.
    fn is_behind(&self, lane: Lane, place: u64) -> bool {
        let is_earlier = |(_, entries): &(Lane, VecDeque<Entry<F, P>>)| {
            entries.front().is_some_and(|front| front.place < place)
        };
        // Its own lane is not another one.
        self.lanes
            .values()
            .any(|other| other.0.number != lane.number && lane.is_ordered_with(other.0) && is_earlier(other))
    }

    /// Whether a function, or a post that is held, that entered before a place is left in a lane that `matters`.
    pub(super) fn has_function_before(&self, place: u64, matters: impl Fn(Lane) -> bool) -> bool {
        self.lanes.values().any(|(lane, entries)| {
            let first = entries.iter().find(|entry| !matches!(entry.kind, Kind::Post));
            matters(*lane) && first.is_some_and(|first| first.place < place)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEFAULT: Lane = Lane { number: 0, place: 0, role: Role::Legacy };
    const A: Lane = Lane { number: 1, place: 0, role: Role::Blocking };
    const B: Lane = Lane { number: 2, place: 0, role: Role::Blocking };
    const FREE: Lane = Lane { number: 3, place: 0, role: Role::NonBlocking };

    /// Takes everything that is ready.
    fn take_all(order: &mut StreamOrder<u32, u32>) -> Vec<(Lane, u64, u32)> {
        std::iter::from_fn(|| order.take_ready()).collect()
    }

    fn names(taken: &[(Lane, u64, u32)]) -> Vec<u32> {
        taken.iter().map(|&(.., name)| name).collect()
    }

    #[test]
    fn one_function_of_each_stream_at_once() {
        let mut order = StreamOrder::<u32, u32>::new();
        for (lane, name) in [(A, 1), (A, 2), (B, 3), (FREE, 4), (FREE, 5)] {
            order.enter_function(lane, name);
        }
        assert_eq!(order.ready(), 3);
        let first = take_all(&mut order);
        assert_eq!(names(&first), [1, 3, 4]);
        assert_eq!(order.ready(), 0);
        order.leave(FREE, first[2].1);
        order.leave(A, first[0].1);
        assert_eq!(names(&take_all(&mut order)), [2, 5]);
    }

    #[test]
    fn the_legacy_stream_and_blocking_streams_wait_for_each_other() {
        let mut order = StreamOrder::<u32, u32>::new();
        for (lane, name) in [(A, 1), (DEFAULT, 2), (B, 3), (FREE, 4)] {
            order.enter_function(lane, name);
        }
        let first = take_all(&mut order);
        assert_eq!(names(&first), [1, 4]);
        order.leave(A, first[0].1);
        let second = take_all(&mut order);
        assert_eq!(names(&second), [2]);
        order.leave(DEFAULT, second[0].1);
        assert_eq!(names(&take_all(&mut order)), [3]);
    }

    #[test]
    fn streams_of_two_contexts_do_not_wait_for_each_other() {
        let mut order = StreamOrder::<u32, u32>::new();
        let other = |lane: Lane| Lane { number: lane.number + 10, place: 1, ..lane };
        for (lane, name) in [(DEFAULT, 1), (other(A), 2), (other(DEFAULT), 3), (A, 4)] {
            order.enter_function(lane, name);
        }
        let first = take_all(&mut order);
        assert_eq!(names(&first), [1, 2]);
        order.leave(other(A), first[1].1);
        assert_eq!(names(&take_all(&mut order)), [3]);
        order.leave(DEFAULT, first[0].1);
        assert_eq!(names(&take_all(&mut order)), [4]);
        assert!(!DEFAULT.includes(other(A)) && other(DEFAULT).includes(other(A)));
    }

    #[test]
    fn posts_wait_for_earlier_functions_and_later_functions_for_them() {
        let mut order = StreamOrder::<u32, u32>::new();
        order.enter_function(A, 1);
        let post = order.enter_post(A);
        order.enter_function(A, 2);
        let other_post = order.enter_post(B);
        let before = |order: &StreamOrder<u32, u32>, place, lane: Lane| {
            order.has_function_before(place, |other| lane.is_ordered_with(other))
        };
        assert!(before(&order, post, A) && !before(&order, other_post, B));
        let taken = take_all(&mut order);
        assert_eq!(names(&taken), [1]);
        assert!(before(&order, post, A), "it is called now");
        order.leave(A, taken[0].1);
        assert!(!before(&order, post, A), "the function behind it does not hold it up");
        assert_eq!(order.ready(), 0, "the post has not left");
        order.leave(A, post);
        assert_eq!(names(&take_all(&mut order)), [2]);
    }

    #[test]
    fn held_posts_go_behind_earlier_functions_and_each_other() {
        let mut order = StreamOrder::<u32, u32>::new();
        order.enter_function(A, 1);
        let first = order.enter_held(A, 2, None);
        order.enter_held(DEFAULT, 3, None);
        order.enter_held(FREE, 4, Some(first));
        order.enter_held(B, 5, None);
        order.enter_function(FREE, 6);
        assert_eq!((order.take_held(), order.ready()), (None, 1));
        assert!(order.has_function_before(u64::MAX, |lane| lane == B) && order.contains(first));
        let taken = take_all(&mut order);
        order.leave(A, taken[0].1);
        let posted: Vec<_> = std::iter::from_fn(|| order.take_held()).collect();
        assert!(
            posted.iter().position(|&post| post == 2) < posted.iter().position(|&post| post == 4),
            "{posted:?}"
        );
        assert_eq!(posted.iter().filter(|&&post| post != 4).copied().collect::<Vec<_>>(), [2, 3, 5]);
        assert!(!order.contains(first));
        assert_eq!(names(&take_all(&mut order)), [6]);
    }

    #[test]
    fn who_synchronises_waits_for_what_the_stream_includes() {
        let mut order = StreamOrder::<u32, u32>::new();
        order.enter_function(A, 1);
        let waits = |lane: Lane, order: &StreamOrder<u32, u32>| {
            order.has_function_before(9, |other| lane.includes(other))
        };
        assert!(waits(A, &order) && waits(DEFAULT, &order) && !waits(B, &order) && !waits(FREE, &order));
        order.enter_function(DEFAULT, 2);
        assert!(!waits(B, &order) && !waits(FREE, &order));
        assert!(!order.has_function_before(0, |_| true), "entered later");
    }

    proptest! {
        /// Whatever enters, everything is called, in the order that streams have, and nobody waits for ever.
        #[test]
        fn everything_gets_its_turn(steps in prop::collection::vec((0..4usize, prop::bool::ANY), 1..60)) {
            let lanes = [DEFAULT, A, B, FREE];
            let mut order = StreamOrder::<u32, u32>::new();
            let mut posts = Vec::new();
            for &(lane, is_post) in &steps {
                let lane = lanes[lane];
                if is_post {
                    posts.push((lane, order.enter_post(lane)));
                } else {
                    order.enter_function(lane, 0);
                }
            }
            let mut left: Vec<(Lane, u64)> = Vec::new();
            while left.len() < steps.len() {
                let mut leaving: Vec<(Lane, u64)> =
                    take_all(&mut order).into_iter().map(|(lane, place, _)| (lane, place)).collect();
                let may_post = |&(lane, place): &(Lane, u64)| {
                    !order.has_function_before(place, |other| lane.is_ordered_with(other))
                };
                leaving.extend(posts.extract_if(.., |post| may_post(post)));
                prop_assert!(!leaving.is_empty(), "everybody waits");
                for &(lane, place) in &leaving {
                    order.leave(lane, place);
                }
                left.extend(leaving);
            }
            prop_assert!(order.lanes.is_empty());
            let is_function = |place: u64| !steps[place as usize].1;
            for (index, &(lane, place)) in left.iter().enumerate() {
                for &(earlier_lane, earlier_place) in &left[..index] {
                    let matters = is_function(place) || is_function(earlier_place);
                    let in_order = !lane.is_ordered_with(earlier_lane) || earlier_place < place;
                    prop_assert!(!matters || in_order, "{earlier_place} came before {place}");
                }
            }
        }
    }
}
