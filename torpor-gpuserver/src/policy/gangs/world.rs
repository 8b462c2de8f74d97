//! A node for tests, in steps of time: clients whose kernels end by themselves or wait for their siblings', workers that give turns, and
//! words that take their time.

use super::{Gangs, Gate, Word};
use crate::policy::event::{Event, Phase, Rules, What};
use crate::policy::topology::Topology;
use crate::policy::view::NodeView;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// What a GPU has.
pub const CAPACITY: u64 = 100;

/// How long a step takes.
const STEP: Duration = Duration::from_millis(20);

/// Commands of a turn, while others wait.
const LONGEST_TURN: usize = 40;

/// Kernels that a client posts ahead of the GPU.
const AHEAD: usize = 6;

/// Steps between two words of a client that waits.
const AGAIN: u64 = 3;

/// What a program does.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// A kernel that runs for so long.
    Kernel(u64),
    /// A kernel that runs until each rank has posted as many of these.
    Collective,
    /// Waits for the GPU, and then thinks for so long.
    Settle(u64),
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Until(u64),
    Collective(usize),
}

/// A client, with what its worker knows of it.
#[derive(Debug)]
pub struct Client {
    pub function: Arc<str>,
    pub gpu: usize,
    pub needs: u64,
    pub program: VecDeque<Op>,
    pub begins: u64,
    work: VecDeque<Work>,
    collectives: usize,
    thinks_until: u64,
    phase: Phase,
    commands: usize,
    is_brief: bool,
    is_ending: bool,
    waits_since: u64,
    gate: Gate,
    number: u64,
}

/// The node.
pub struct World {
    pub clients: BTreeMap<u64, Client>,
    pub gangs: Gangs,
    pub view: NodeView,
    /// Without gangs, all gates stay open.
    pub has_gangs: bool,
    /// On each GPU.
    lines: Vec<Vec<u64>>,
    now: u64,
    to_server: VecDeque<(u64, What)>,
    to_workers: VecDeque<(u64, Word)>,
    delays: u64,
}

impl World {
    pub fn new(gpus: usize, has_gangs: bool, delays: u64) -> Self {
        let mut world = Self {
            clients: BTreeMap::new(),
            gangs: Gangs::new(0),
            view: NodeView::new(gpus, Topology::default()),
            has_gangs,
            lines: vec![Vec::new(); gpus],
            now: 0,
            to_server: VecDeque::new(),
            to_workers: VecDeque::new(),
            delays,
        };
        (0..gpus).for_each(|gpu| world.hear(What::WorkerStarted { gpu, limit_bytes: CAPACITY }));
        world
    }

    pub fn add(
        &mut self,
        (function, home): (&str, Option<u32>),
        gpu: usize,
        needs: u64,
        begins: u64,
        program: Vec<Op>,
    ) {
        let (client, function): (u64, Arc<str>) = (self.clients.len() as u64, function.into());
        self.hear(What::ClientAttached { client, function: function.clone(), gpu });
        let rules = Rules { memory_limit_bytes: Some(needs), ..Rules::default() };
        self.hear(What::ClientRuled { client, rules });
        let added = Client {
            function,
            gpu,
            needs,
            program: program.into(),
            begins,
            work: VecDeque::new(),
            collectives: 0,
            thinks_until: 0,
            phase: Phase::Idle,
            commands: 0,
            is_brief: false,
            is_ending: false,
            waits_since: 0,
            gate: Gate::Open,
            number: 0,
        };
        self.clients.insert(client, added);
        home.into_iter().for_each(|home| self.hear(What::ClientHome { client, home }));
    }

    fn hear(&mut self, what: What) {
        let event = Event { at: STEP * u32::try_from(self.now).unwrap(), what };
        self.view.apply(&event);
        for word in self.gangs.hear(&event, &self.view) {
            let at = self.now + self.delay();
            self.to_workers.push_back((at, word));
        }
    }

    /// Of 0 to 2 steps.
    fn delay(&mut self) -> u64 {
        self.delays = self.delays.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.delays >> 33) % 3
    }

    fn tell(&mut self, client: u64) {
        let at = self.now + self.delay();
        let Client { number, phase, .. } = self.clients[&client];
        self.to_server.push_back((at, What::RankSaid { client, number, phase }));
    }

    fn set(&mut self, word: Word) {
        let client = self.clients.get_mut(&word.client).unwrap();
        // A turn that it has is not given once more.
        let is_had = client.phase == Phase::Active && matches!(word.gate, Gate::Once | Gate::Briefly);
        (client.gate, client.number) = (if is_had { Gate::Shut } else { word.gate }, word.number);
        if word.gate != Gate::Open {
            self.tell(word.client);
        }
    }

    fn needs(&self, client: &Client) -> bool {
        client.begins <= self.now
            && client.thinks_until <= self.now
            && match client.program.front() {
                Some(Op::Settle(_)) => client.work.is_empty(),
                Some(_) => client.work.len() < AHEAD,
                None => false,
            }
    }

    fn is_wanted(&self, client: &Client) -> bool {
        client.gate != Gate::Open
            || self.lines[client.gpu].iter().any(|other| self.clients[other].gate != Gate::Shut)
    }

    /// True if all programs have ended.
    pub fn step(&mut self) -> bool {
        self.now += 1;
        // In order, as a socket is.
        while self.to_workers.front().is_some_and(|&(at, _)| at <= self.now) {
            let (_, word) = self.to_workers.pop_front().unwrap();
            if self.has_gangs {
                self.set(word);
            }
        }
        while self.to_server.front().is_some_and(|&(at, _)| at <= self.now) {
            let (_, what) = self.to_server.pop_front().unwrap();
            self.hear(what);
        }
        let all: Vec<u64> = self.clients.keys().copied().collect();
        self.finish_work(&all);
        for &id in &all {
            let phase = self.clients[&id].phase;
            match phase {
                Phase::Idle if !self.needs(&self.clients[&id]) || self.takes_no_turn(id) => {}
                Phase::Idle => self.line_up(id),
                Phase::Waiting => self.wait(id),
                Phase::Active => self.go_on(id),
            }
        }
        self.clients.values().all(|client| client.program.is_empty() && client.work.is_empty())
    }

    /// A pause needs no turn.
    fn takes_no_turn(&mut self, id: u64) -> bool {
        let now = self.now;
        let client = self.clients.get_mut(&id).unwrap();
        let Some(&Op::Settle(thinks)) = client.program.front() else { return false };
        client.program.pop_front();
        client.thinks_until = now + thinks;
        true
    }

    fn finish_work(&mut self, all: &[u64]) {
        for id in all {
            let client = &self.clients[id];
            let is_done = |work: &Work| match *work {
                Work::Until(at) => at <= self.now,
                Work::Collective(number) => {
                    let mut siblings =
                        self.clients.values().filter(|other| other.function == client.function);
                    siblings.all(|other| other.collectives >= number)
                }
            };
            // In one stream.
            let done = client.work.iter().take_while(|work| is_done(work)).count();
            self.clients.get_mut(id).unwrap().work.drain(..done);
        }
    }

    fn line_up(&mut self, id: u64) {
        let now = self.now;
        let client = self.clients.get_mut(&id).unwrap();
        (client.phase, client.waits_since) = (Phase::Waiting, now);
        self.lines[client.gpu].push(id);
    }

    fn wait(&mut self, id: u64) {
        let client = &self.clients[&id];
        let (gpu, gate, waits) = (client.gpu, client.gate, self.now - client.waits_since);
        if gate != Gate::Open && waits % AGAIN == 1 {
            self.tell(id);
        } else if waits % AGAIN == 1 {
            self.to_server.push_back((self.now, What::Waiting { client: id }));
        }
        let with = |gate: &dyn Fn(Gate) -> bool| {
            self.lines[gpu].iter().copied().find(|other| gate(self.clients[other].gate))
        };
        let first = with(&|gate| gate == Gate::Briefly).or_else(|| with(&|gate| gate != Gate::Shut));
        let others = self.clients.values().filter(|other| other.gpu == gpu && other.phase == Phase::Active);
        let taken: u64 = others.map(|other| other.needs).sum();
        if first == Some(id) && taken + self.clients[&id].needs <= CAPACITY {
            self.lines[gpu].retain(|&other| other != id);
            let client = self.clients.get_mut(&id).unwrap();
            (client.phase, client.commands, client.is_ending) = (Phase::Active, 0, false);
            client.is_brief = gate == Gate::Briefly;
            if gate != Gate::Open {
                client.gate = Gate::Shut;
                self.tell(id);
            }
        }
    }

    /// Executes a command, or ends the turn once all work is done.
    fn go_on(&mut self, id: u64) {
        let client = &self.clients[&id];
        let (is_wanted, needs) = (self.is_wanted(client), self.needs(client));
        let longest = if client.is_brief { 1 } else { LONGEST_TURN };
        let is_overdue = is_wanted && client.commands >= longest;
        let now = self.now;
        let client = self.clients.get_mut(&id).unwrap();
        client.is_ending |= is_overdue;
        if client.work.is_empty() && (client.is_ending || is_wanted && !needs) {
            client.phase = Phase::Idle;
            if client.gate != Gate::Open {
                self.tell(id);
            }
            return;
        }
        if client.is_ending || !needs {
            return;
        }
        client.commands += 1;
        match client.program.pop_front() {
            Some(Op::Kernel(lasts)) => client.work.push_back(Work::Until(now + lasts)),
            Some(Op::Collective) => {
                client.collectives += 1;
                client.work.push_back(Work::Collective(client.collectives));
            }
            Some(Op::Settle(thinks)) => client.thinks_until = now + thinks,
            None => {}
        }
    }

    /// Gangs that have a rank with a turn, and no room with another one that has.
    pub fn clashes(&self) -> usize {
        let has_turn = |function: &Arc<str>| {
            self.clients.values().any(|client| client.function == *function && client.phase == Phase::Active)
        };
        let functions: Vec<_> = self.clients.values().map(|client| client.function.clone()).collect();
        let clash = |one: &Arc<str>, other: &Arc<str>| {
            one < other
                && [one, other].into_iter().all(|it| self.view.is_gang(it) && has_turn(it))
                && !self.view.has_room_beside(one, std::slice::from_ref(other))
        };
        functions.iter().map(|one| functions.iter().filter(|other| clash(one, other)).count()).sum()
    }

    /// Runs until all have ended, or for so many steps.
    pub fn run(&mut self, most: u64) -> Result<u64, String> {
        for step in 0..most {
            if self.step() {
                return Ok(step);
            }
            if self.has_gangs && self.clashes() > 0 {
                return Err(format!(
                    "two gangs have their turn at {}: {:?} {:?}",
                    self.now, self.clients, self.gangs
                ));
            }
        }
        Err(format!("nothing ends: {:?} {:?} {:?}", self.lines, self.clients, self.gangs))
    }
}
