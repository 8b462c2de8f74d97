//! Turns: which clients are active on the GPU. The others wait in the order in which they are [due](crate::policy::due), until the
//! [policy](crate::policy::sharing) lets the first of them join those that are active.
//!
//! A session takes a turn with its first GPU command after idleness and gives it up when it is idle: soon if somebody
//! waits, for a turn or for an active client's memory, else after the linger. Of those that wait, whose program is busy with the GPU alone is
//! in no hurry: [`Turns::is_pressed`].
//!
//! Who may not take one now (`mailbox/gate.rs`) stands in line and is passed over; nobody gives his turn up for him.
//!
//! Of those whose memory is to be brought, [a few](BRINGING) have their turns begun at a time: they share one bus, and the driver takes one
//! mapping call after the other, each of which costs a multiple where many threads wait for it. The others wait here, asleep, and those
//! that have their memory pass them.
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

/// Clients that bring their memory, or wait for room for it, at once: enough to keep the bus busy while others are asked to leave. An H200
/// brings 220 MiB 220 times a second with 4 and with 16 at once, and 80 times with 64, as unmapping takes 27 ms in place of 0.5
/// (docs/benchmarks/swapping.md).
const BRINGING: usize = 4;

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
    /// Active clients whose memory is still to be brought.
    bringing: Vec<u64>,
    /// Active clients that wait for memory of others.
    short_of_memory: Vec<u64>,
}

/// A client that waits.
#[derive(Debug)]
struct Waiting {
    /// By when it must begin, after the turns began.
    due: Duration,
    /// When its last turn ended, if its program has asked again soon.
    away_since: Option<Duration>,
    link: Arc<Link>,
}

impl Turns {
    /// Nobody has a turn yet.
    pub(crate) fn new(limit: ActiveLimit) -> Self {
        Self { limit, begin: Instant::now(), pressure: Pressure::new(), queue: Mutex::default() }
    }

    /// Takes a turn if the client is the next in line and `joins`, which is told the limit and how many are active: else the
    /// client waits in line, and its session asks again when it is woken. `is_busy`: its program asks again as soon as it has an answer.
    pub(crate) fn take(
        &self,
        link: &Arc<Link>,
        is_busy: bool,
        joins: impl FnOnce(ActiveLimit, usize) -> bool,
    ) -> bool {
        let mut queue = lock(&self.queue);
        if queue.waiting.iter().all(|other| other.link.client != link.client) {
            queue.line_up(self.begin.elapsed(), link.clone(), is_busy);
        }
        let is_next = queue.next().is_some_and(|next| next.client == link.client);
        let taken = is_next && !queue.keeps_out(link) && joins(self.limit, queue.active.len());
        if taken {
            if link.is_away.load(Ordering::Relaxed) {
                queue.bringing.push(link.client);
            }
            queue.waiting.retain(|waiting| waiting.link.client != link.client);
            queue.active.push(link.clone());
            // SYNC POINT turn: before its gate can be set again.
            link.usage.phase.store(Phase::Active as i32, Ordering::SeqCst);
            link.gate.pass();
            queue.wake_next();
        } else if queue.waits_for_the_bus(link) {
            // It may have been the next one until it lost its memory.
            queue.wake_next();
        } else if link.gate.lets_in() {
            queue.wake_active();
        }
        self.note(&queue);
        taken
    }

    /// All of an active client's memory is there or on its way.
    pub(crate) fn has_come(&self, client: u64) {
        let mut queue = lock(&self.queue);
        if queue.brings_no_more(client) {
            self.note(&queue);
            queue.wake_next();
        }
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
        queue.brings_no_more(client);
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

    /// Whether somebody waits that does not wait for a [turn](Pressure) of this length.
    pub(crate) fn is_pressed(&self, turn: Duration) -> bool {
        self.pressure.outlasts(turn, self.begin.elapsed())
    }

    fn note(&self, queue: &Queue) {
        self.pressure.note(queue.waiters());
    }
}

impl Queue {
    /// Behind those that are due earlier, or as early.
    fn line_up(&mut self, now: Duration, link: Arc<Link>, is_busy: bool) {
        let due = link.due(now);
        let ended = Some(link.turn_ended_ns.load(Ordering::Relaxed)).filter(|&ended| is_busy && ended > 0);
        let away_since = ended.map(Duration::from_nanos);
        let place = self.waiting.iter().position(|other| other.due > due).unwrap_or(self.waiting.len());
        self.waiting.insert(place, Waiting { due, away_since, link });
    }

    /// Those that wait for somebody to give his turn up: whoever is active may need what another one has.
    fn waiters(&self) -> impl Iterator<Item = Waiter> {
        let at_once = Waiter { due: Duration::ZERO, away_since: Duration::ZERO };
        let waits =
            |waiting: &&Waiting| waiting.link.gate.lets_in() && !self.waits_for_the_bus(&waiting.link);
        let in_line = self.waiting.iter().filter(waits).map(move |waiting| {
            let away_since = waiting.away_since.filter(|_| !waiting.link.gate.goes_first());
            away_since.map_or(at_once, |away_since| Waiter { due: waiting.due, away_since })
        });
        in_line.chain(self.short_of_memory.iter().map(move |_| at_once))
    }

    /// Whose turn is next: the first that may take one, or, before all others, one whose sibling may wait for it.
    fn next(&self) -> Option<&Link> {
        let mut links = self.waiting.iter().map(|waiting| &*waiting.link);
        let first = links.clone().find(|link| link.gate.goes_first());
        first.or_else(|| links.find(|link| link.gate.lets_in() && !self.waits_for_the_bus(link)))
    }

    /// Whether a client has to bring its memory, and enough others do.
    fn waits_for_the_bus(&self, link: &Link) -> bool {
        self.bringing.len() >= BRINGING && link.is_away.load(Ordering::Relaxed) && !link.gate.goes_first()
    }

    /// Whether the client has brought its memory until now.
    fn brings_no_more(&mut self, client: u64) -> bool {
        let place = self.bringing.iter().position(|&bringing| bringing == client);
        place.map(|place| self.bringing.swap_remove(place)).is_some()
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
mod tests;
