//! Turns: which clients are active on the GPU. The others wait in the order in which they are [due](crate::policy::due), until the
//! [policy](crate::policy::sharing) lets the first of them join those that are active.
//!
//! A session takes a turn with its first GPU command after idleness and gives it up when it is idle: soon if somebody
//! waits, for a turn or for an active client's memory, else after the linger. Of those that wait, who had the GPU just before is
//! in no hurry: [`Turns::is_pressed`].
//!
//! Who may not take one now (`mailbox/gate.rs`) stands in line and is passed over; nobody gives his turn up for him.
//!
//! Where the turns and the GPU's memory are both locked, the turns are locked first.

use crate::policy::sharing::ActiveLimit;
use crate::worker::gpu::pressure::{Pressure, Waiter};
use crate::worker::mailbox::Link;
use crate::worker::server_socket::ServerSocket;
use crate::worker::sync::lock;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use torpor_proto::control::worker::{GateState, Phase};

/// The turns of one GPU.
#[derive(Debug)]
pub(crate) struct Turns {
    limit: ActiveLimit,
    begin: Instant,
    /// Of those that wait.
    pressure: Pressure,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    active: Vec<Arc<Link>>,
    waiting: VecDeque<Waiting>,
    /// Active clients that wait for memory of others.
    short_of_memory: Vec<u64>,
}

/// A client that waits.
#[derive(Debug)]
struct Waiting {
    /// By when it must begin, after the turns began.
    due: Duration,
    link: Arc<Link>,
}

impl Turns {
    /// Nobody has a turn yet.
    pub(crate) fn new(limit: ActiveLimit) -> Self {
        Self { limit, begin: Instant::now(), pressure: Pressure::new(), queue: Mutex::default() }
    }

    /// Takes a turn if the client is the next in line and `joins`, which is told the limit and how many are active: else the
    /// client waits in line, and its session asks again when it is woken.
    pub(crate) fn take(&self, link: &Arc<Link>, joins: impl FnOnce(ActiveLimit, usize) -> bool) -> bool {
        let mut queue = lock(&self.queue);
        if queue.waiting.iter().all(|other| other.link.client != link.client) {
            queue.line_up(link.due(self.begin.elapsed()), link.clone());
        }
        let is_next = queue.next().is_some_and(|next| next.client == link.client);
        let taken = is_next && !queue.keeps_out(link) && joins(self.limit, queue.active.len());
        if taken {
            queue.waiting.retain(|waiting| waiting.link.client != link.client);
            queue.active.push(link.clone());
            // SYNC POINT turn: before its gate can be set again.
            link.usage.phase.store(Phase::Active as i32, Ordering::SeqCst);
            link.gate.pass();
            queue.wake_next();
        } else if link.gate.lets_in() {
            queue.wake_active();
        }
        self.note(&queue);
        taken
    }

    /// An active client waits for memory that only others that are active could give up.
    pub(crate) fn want_memory(&self, client: u64) {
        let mut queue = lock(&self.queue);
        if !queue.short_of_memory.contains(&client) {
            queue.short_of_memory.push(client);
            self.note(&queue);
            queue.wake_active();
        }
    }

    /// It waits for memory no longer.
    pub(crate) fn want_no_memory(&self, client: u64) {
        let mut queue = lock(&self.queue);
        queue.short_of_memory.retain(|&short| short != client);
        self.note(&queue);
    }

    /// Gives a turn up, or a place in the line.
    pub(crate) fn give_up(&self, client: u64) {
        let mut queue = lock(&self.queue);
        if let Some(place) = queue.active.iter().position(|link| link.client == client) {
            let now = u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
            queue.active.remove(place).turn_ended_ns.store(now, Ordering::Relaxed);
        }
        queue.waiting.retain(|waiting| waiting.link.client != client);
        queue.short_of_memory.retain(|&short| short != client);
        self.note(&queue);
        queue.wake_next();
    }

    /// What kept the next in line from its turn may be over.
    pub(crate) fn go_on(&self) {
        lock(&self.queue).wake_next();
    }

    /// Says when a client takes its turns from now on; what it has of the GPU is told.
    pub(crate) fn set_gate(&self, link: &Link, number: u64, state: GateState, server: &ServerSocket) {
        let queue = lock(&self.queue);
        link.set_gate(number, state, server);
        self.note(&queue);
        link.wake();
        queue.wake_next();
        queue.wake_active();
    }

    /// Who waits, the next one first.
    pub(crate) fn line(&self) -> Vec<u64> {
        lock(&self.queue).waiting.iter().map(|waiting| waiting.link.client).collect()
    }

    /// Whether somebody waits.
    #[inline]
    pub(crate) fn is_contended(&self) -> bool {
        self.pressure.exists()
    }

    /// Whether somebody waits that does not wait for a turn that is [worth](Pressure) so much.
    pub(crate) fn is_pressed(&self, worth: Duration) -> bool {
        self.pressure.outweighs(worth, self.begin.elapsed())
    }

    fn note(&self, queue: &Queue) {
        self.pressure.note(queue.waiters());
    }
}

impl Queue {
    /// Behind those that are due earlier, or as early.
    fn line_up(&mut self, due: Duration, link: Arc<Link>) {
        let place = self.waiting.iter().position(|other| other.due > due).unwrap_or(self.waiting.len());
        self.waiting.insert(place, Waiting { due, link });
    }

    /// Those that wait for somebody to give his turn up: whoever is active may need what another one has.
    fn waiters(&self) -> impl Iterator<Item = Waiter> {
        let at_once = Waiter { due: Duration::ZERO, away_since: Duration::ZERO };
        let in_line = self.waiting.iter().filter(|waiting| waiting.link.gate.lets_in()).map(move |waiting| {
            match waiting.link.turn_ended_ns.load(Ordering::Relaxed) {
                _ if waiting.link.gate.goes_first() => at_once,
                // It has not had one yet.
                0 => at_once,
                ended => Waiter { due: waiting.due, away_since: Duration::from_nanos(ended) },
            }
        });
        in_line.chain(self.short_of_memory.iter().map(move |_| at_once))
    }

    /// Whose turn is next: the first that may take one, or, before all others, one whose sibling may wait for it.
    fn next(&self) -> Option<&Link> {
        let mut links = self.waiting.iter().map(|waiting| &*waiting.link);
        let first = links.clone().find(|link| link.gate.goes_first());
        first.or_else(|| links.find(|link| link.gate.lets_in()))
    }

    /// Whether one of those that are active and this one has the GPU to itself.
    fn keeps_out(&self, link: &Link) -> bool {
        let mut active = self.active.iter();
        !self.active.is_empty() && (link.trial.is_on() || active.any(|active| active.trial.is_on()))
    }

    fn wake_next(&self) {
        self.next().into_iter().for_each(Link::wake);
    }

    /// Those that are active but idle sleep until somebody wants what they have.
    fn wake_active(&self) {
        self.active.iter().for_each(|active| active.wake());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sharing::joins;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::num::NonZeroUsize;
    use torpor_proto::layout::AddressRange;

    fn link(client: u64) -> Arc<Link> {
        Arc::new(Link::new(client, "f", AddressRange { address: client << 32, bytes: 1 << 32 }))
    }

    fn take(turns: &Turns, link: &Arc<Link>) -> bool {
        turns.take(link, |limit, active| joins(limit, active, 0, || unreachable!("the limit is a number")))
    }

    #[test]
    fn turns_are_taken_in_the_order_of_asking() {
        let turns = Turns::new(ActiveLimit::AtMost(NonZeroUsize::MIN));
        let [first, second, third] = [1, 2, 3].map(link);
        assert!(take(&turns, &first));
        assert!(!turns.is_contended());
        assert!(!take(&turns, &second) && !take(&turns, &third) && !take(&turns, &second));
        assert!(turns.is_contended());
        assert_eq!(turns.line(), [2, 3]);
        turns.give_up(1);
        assert!(!take(&turns, &third), "it is not the next one");
        assert!(take(&turns, &second));
        assert!(!take(&turns, &first), "whoever had a turn is behind those that wait");
        turns.give_up(2);
        assert!(take(&turns, &third));
        turns.give_up(3);
        assert!(take(&turns, &first));
        assert!(!turns.is_contended());
    }

    #[test]
    fn who_is_tried_is_active_alone_until_it_has_done_again_what_it_did() {
        let turns = Turns::new(ActiveLimit::Auto);
        let [first, tried, other] = [1, 2, 3].map(link);
        tried.trial.begin();
        let take = |link| turns.take(link, |_, _| true);
        assert!(take(&first) && !take(&tried), "another one may have work");
        turns.give_up(1);
        assert!(take(&tried) && !take(&other));
        tried.trial.end();
        assert!(take(&other) && take(&first));
    }

    #[test]
    fn who_is_due_first_is_first_and_of_equals_who_came_first() {
        let mut queue = Queue::default();
        for (client, due_ms) in [(1, 1000), (2, 80), (3, 1000), (4, 200), (5, 80)] {
            queue.line_up(Duration::from_millis(due_ms), link(client));
        }
        let line: Vec<_> = queue.waiting.iter().map(|waiting| waiting.link.client).collect();
        assert_eq!(line, [2, 5, 4, 1, 3]);
    }

    #[test]
    fn an_objective_lets_a_client_overtake_those_that_have_none() {
        let (patient, urgent) = (link(1), link(2));
        urgent.slo_ms.store(80, Ordering::Relaxed);
        let at = Duration::from_millis;
        assert!(urgent.due(at(100)) < patient.due(at(0)));
        assert!(urgent.due(at(1000)) > patient.due(at(0)), "but not for ever");
    }

    #[test]
    fn who_was_put_out_just_now_waits_for_what_the_turn_is_worth_and_a_stranger_does_not() {
        let turns = Turns::new(ActiveLimit::AtMost(NonZeroUsize::MIN));
        let [first, second, stranger] = [1, 2, 3].map(link);
        let worth = Duration::from_millis(900);
        assert!(take(&turns, &first));
        turns.give_up(1);
        assert!(take(&turns, &second) && !take(&turns, &first));
        assert!(turns.is_contended() && !turns.is_pressed(worth));
        assert!(turns.is_pressed(Duration::ZERO), "of a turn that cost nothing");
        assert!(!take(&turns, &stranger) && turns.is_pressed(worth));
        turns.give_up(3);
        assert!(!turns.is_pressed(worth));
        turns.want_memory(2);
        assert!(turns.is_pressed(worth), "nobody else can give it");
    }

    #[test]
    fn a_place_in_the_line_can_be_given_up() {
        let turns = Turns::new("2".parse().expect("a number"));
        let [first, second, third, fourth] = [1, 2, 3, 4].map(link);
        assert!(take(&turns, &first) && take(&turns, &second));
        assert!(!take(&turns, &third) && !take(&turns, &fourth));
        turns.give_up(3);
        turns.give_up(1);
        assert!(take(&turns, &fourth));
        assert!(!turns.is_contended());
    }

    #[test]
    fn nobody_overtakes_one_that_waits_for_more_room() {
        let turns = Turns::new(ActiveLimit::Auto);
        let [large, small] = [1, 2].map(link);
        assert!(!turns.take(&large, |_, _| false));
        assert!(!turns.take(&small, |_, _| true));
        assert!(turns.take(&large, |_, _| true) && turns.take(&small, |_, _| true));
    }

    #[test]
    fn who_is_not_let_in_is_passed_over_and_whose_sibling_waits_for_it_is_before_all() {
        let (_ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let server = ServerSocket::new(theirs);
        let turns = Turns::new(ActiveLimit::AtMost(NonZeroUsize::MIN));
        let [active, shut, other] = [1, 2, 3].map(link);
        assert!(take(&turns, &active));
        turns.set_gate(&shut, 1, GateState::Shut, &server);
        assert!(!take(&turns, &shut));
        assert!(!turns.is_contended(), "nobody gives his turn up for it");
        assert!(!take(&turns, &other) && turns.is_contended());
        turns.give_up(1);
        assert!(take(&turns, &other));
        assert!(!take(&turns, &active));
        turns.set_gate(&shut, 2, GateState::Briefly, &server);
        turns.give_up(3);
        assert!(!take(&turns, &active) && take(&turns, &shut));
        assert!(shut.gate.is_brief() && !shut.gate.lets_in(), "once");
        turns.set_gate(&shut, 3, GateState::Once, &server);
        assert!(!shut.gate.lets_in(), "it has its turn already");
    }

    #[test]
    fn who_is_short_of_memory_is_waited_for_like_one_that_waits_for_a_turn() {
        let turns = Turns::new(ActiveLimit::Auto);
        assert!(turns.take(&link(1), |_, _| true) && turns.take(&link(2), |_, _| true));
        turns.want_memory(1);
        turns.want_memory(1);
        assert!(turns.is_contended());
        turns.want_no_memory(1);
        assert!(!turns.is_contended());
        turns.want_memory(2);
        turns.give_up(2);
        assert!(!turns.is_contended());
    }
}
