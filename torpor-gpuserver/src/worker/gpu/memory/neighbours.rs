//! Neighbours: other workers that share the GPU's memory with this one, each for a strict function, by what the server allows each.
//!
//! Who is short asks the server, before anybody who was used more lately than others' idle clients has to leave here. What others are
//! short of is given up on a thread of its own: first what nobody uses, then what idle clients have. While somebody outside waits for
//! active clients here, these give their turns up as if he stood in line, and nobody gets a turn or memory before him.
//!
//! A worker without neighbours is allowed all that there is, and asks nobody.

use super::{GpuMemory, Reserved, State};
use crate::policy::eviction::{Eviction, Resident, victims};
use crate::worker::gpu::Shared;
use crate::worker::gpu::run_queue::Turns;
use crate::worker::mailbox::Wish;
use crate::worker::sync::lock;
use std::io;
use std::sync::{Arc, MutexGuard};
use std::thread::Thread;
use std::time::Duration;
use torpor_proto::control::worker::{MemoryWanted, MemoryYielded, YieldMemory, from_worker};

/// Who waits outside, among those that are short of memory; no client has this number.
const SOMEBODY_OUTSIDE: u64 = u64::MAX;

/// Between two looks while something is demanded: what could not be saved may be saved later.
const LOOK: Duration = Duration::from_millis(100);

/// What is known of the other workers.
#[derive(Debug)]
pub(super) struct Neighbours {
    /// What clients may have here.
    pub(super) allowance_bytes: u64,
    demand: Option<Demand>,
    asked: Asked,
    /// Gives up what is demanded.
    giver: Option<Thread>,
}

/// What another worker is short of.
#[derive(Clone, Copy, Debug)]
struct Demand {
    number: u64,
    bytes: u64,
    /// Of clients that have been idle for so long; zero: of active ones, too.
    idle: Duration,
    /// Whether the server knows that more is leaving, and that more comes later.
    told: Option<(bool, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Wanted,
    Refused,
}

/// What the other workers are to one that is short of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outside {
    /// The server is to be told this, and then they are asked for it.
    Ask(MemoryWanted),
    /// They are asked for it.
    Asked,
    /// They want memory themselves, and come first.
    Demands,
    /// They have nothing for it.
    Nothing,
}

impl Neighbours {
    pub(super) fn new(allowance_bytes: u64) -> Self {
        Self { allowance_bytes, demand: None, asked: Asked::Nothing, giver: None }
    }

    /// Whether somebody outside waits for memory, also of active clients: whoever is in line here is behind.
    pub(super) fn waits_outside(&self) -> bool {
        self.demand.as_ref().is_some_and(|demand| demand.idle.is_zero())
    }

    /// Something has changed: more may be given up.
    pub(super) fn look_again(&self) {
        if self.demand.is_some() {
            self.giver.iter().for_each(Thread::unpark);
        }
    }
}

/// Starts the thread that gives up what other workers are short of.
pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let theirs = shared.clone();
    let thread = std::thread::Builder::new().name("neighbours".to_owned()).spawn(move || give(&theirs))?;
    lock(&shared.memory.state).neighbours.giver = Some(thread.thread().clone());
    Ok(())
}

fn give(shared: &Shared) {
    loop {
        while shared.memory.give_up_and_tell(&shared.turns) {}
        let is_demanded = lock(&shared.memory.state).neighbours.demand.is_some();
        match is_demanded {
            true => std::thread::park_timeout(LOOK),
            false => std::thread::park(),
        }
    }
}

impl State {
    /// Asks other workers for what a client is short of, once they have any of what is not allowed here.
    fn ask_outside(&mut self, client: u64, missing_bytes: u64) -> Outside {
        let Neighbours { allowance_bytes, asked, .. } = self.neighbours;
        if self.neighbours.waits_outside() {
            return Outside::Demands;
        }
        match asked {
            Asked::Wanted => Outside::Asked,
            Asked::Refused => {
                self.neighbours.asked = Asked::Nothing;
                Outside::Nothing
            }
            // What the driver does not have, nobody can give.
            Asked::Nothing if allowance_bytes >= self.available_bytes => Outside::Nothing,
            Asked::Nothing => {
                self.neighbours.asked = Asked::Wanted;
                let others = self.clients.values().filter(|other| other.link.client != client);
                let idle: Vec<_> = others.filter(|other| other.is_evictable()).collect();
                let own_bytes: u64 = idle.iter().map(|other| other.evictable_bytes()).sum();
                let longest = idle.iter().map(|other| other.idle_since.elapsed()).max().unwrap_or_default();
                // Whoever is idle elsewhere has to leave, however lately it became so, if those here that are do not have enough.
                let longest = if own_bytes < missing_bytes { Duration::ZERO } else { longest };
                let idle_us = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
                Outside::Ask(MemoryWanted { bytes: missing_bytes, idle_us })
            }
        }
    }
}

impl GpuMemory {
    /// Asks other workers before anybody has to leave here for a client that is short of memory. `Err`: what becomes of its reservation
    /// first.
    pub(super) fn ask_others_first<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        client: u64,
        missing_bytes: u64,
    ) -> Result<MutexGuard<'a, State>, Reserved> {
        match state.ask_outside(client, missing_bytes) {
            Outside::Nothing => Ok(state),
            Outside::Ask(wanted) => {
                drop(state);
                self.server.tell(from_worker::Body::MemoryWanted(wanted));
                Err(Reserved::Later)
            }
            Outside::Demands if state.may_leave(client) => {
                state.want_nothing(client);
                Err(Reserved::StepBack)
            }
            Outside::Asked | Outside::Demands => Err(Reserved::Later),
        }
    }

    /// So much is for the clients here, as the account begins that the server keeps.
    pub(crate) fn allow(&self, bytes: u64) {
        let mut state = lock(&self.state);
        state.neighbours.allowance_bytes = bytes;
        // Of a server that is no more.
        state.neighbours.asked = Asked::Nothing;
        state.wake_waiting();
    }

    /// Another server goes on where the one before was killed, whose account is closed: what that demanded is demanded no more, and what
    /// was given up for it has been told when this returns.
    pub(crate) fn resume(&self) {
        let _told = lock(&self.giving);
        let mut state = lock(&self.state);
        state.neighbours.demand = None;
        state.neighbours.giver.iter().for_each(Thread::unpark);
        state.wake_waiting();
    }

    /// So much more is.
    pub(crate) fn grant(&self, bytes: u64) {
        let mut state = lock(&self.state);
        let neighbours = &mut state.neighbours;
        neighbours.allowance_bytes = neighbours.allowance_bytes.saturating_add(bytes);
        neighbours.asked = Asked::Nothing;
        state.wake_waiting();
    }

    /// Nobody has what was wanted.
    pub(crate) fn refuse(&self) {
        let mut state = lock(&self.state);
        state.neighbours.asked = Asked::Refused;
        state.wake_waiting();
    }

    /// Another worker is short of memory, or no longer.
    pub(crate) fn demand(&self, YieldMemory { demand, bytes, idle_us }: YieldMemory) {
        let mut state = lock(&self.state);
        let (number, idle) = (demand, Duration::from_micros(idle_us));
        state.neighbours.demand = (bytes > 0).then_some(Demand { number, bytes, idle, told: None });
        state.neighbours.giver.iter().for_each(Thread::unpark);
        if bytes == 0 {
            state.wake_waiting();
        }
    }

    /// Gives up what can be given up now of what is demanded, and tells the server. False if there is nothing to say.
    fn give_up_and_tell(&self, turns: &Turns) -> bool {
        let _giving = lock(&self.giving);
        let yielded = self.give_up(turns);
        yielded.is_some_and(|yielded| {
            self.server.tell(from_worker::Body::MemoryYielded(yielded));
            true
        })
    }

    /// Gives up what can be given up now of what is demanded. Returns what there is to say of it.
    fn give_up(&self, turns: &Turns) -> Option<MemoryYielded> {
        let line = turns.line();
        let mut state = lock(&self.state);
        let Some(mut demand) = state.neighbours.demand else {
            drop(state);
            turns.want_no_memory(SOMEBODY_OUTSIDE);
            turns.go_on();
            return None;
        };
        let unused_bytes = state.neighbours.allowance_bytes.saturating_sub(state.used_bytes);
        let given_bytes = unused_bytes.min(demand.bytes);
        state.neighbours.allowance_bytes -= given_bytes;
        demand.bytes -= given_bytes;
        let surplus = state.take_surplus();
        let (leaving, later) = if demand.bytes > 0 {
            let leaving = state.send_away(&line, &demand, self.eviction);
            (leaving, demand.idle.is_zero() && state.clients.values().any(|client| client.may_leave()))
        } else {
            (false, false)
        };
        let is_news = given_bytes > 0 || demand.told != Some((leaving, later));
        demand.told = Some((leaving, later));
        // Who has nothing more is asked again another time.
        state.neighbours.demand = (leaving || later).then_some(demand);
        drop(state);
        // The driver has it back before anybody is told.
        drop(surplus);
        match later {
            true => turns.want_memory(SOMEBODY_OUTSIDE),
            false => turns.want_no_memory(SOMEBODY_OUTSIDE),
        }
        is_news.then_some(MemoryYielded { demand: demand.number, bytes: given_bytes, leaving, later })
    }
}

impl State {
    /// Whether the client has memory that it could give up with its turn.
    fn may_leave(&self, client: u64) -> bool {
        self.clients.get(&client).is_some_and(|client| client.may_leave())
    }

    /// The client waits for nothing any more.
    fn want_nothing(&mut self, client: u64) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.wanted_bytes = 0;
        }
    }

    /// Asks idle clients to leave whose memory is demanded. False if there are none.
    fn send_away(&self, line: &[u64], demand: &Demand, eviction: Eviction) -> bool {
        let idle_enough = |resident: &Resident| {
            self.clients.get(&resident.client).is_some_and(|its| its.idle_since.elapsed() >= demand.idle)
        };
        let residents = self.residents(SOMEBODY_OUTSIDE, line).into_iter();
        let residents: Vec<Resident> =
            residents.filter(|one| one.evictable && one.bytes > 0 && idle_enough(one)).collect();
        let all: u64 = residents.iter().map(|one| one.bytes).sum();
        let chosen = victims(&residents, demand.bytes.min(all), eviction).unwrap_or_default();
        for victim in chosen.iter().filter_map(|victim| self.clients.get(victim)) {
            victim.link.ask(Wish::Evict);
        }
        !chosen.is_empty()
    }
}
