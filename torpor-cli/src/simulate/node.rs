//! A simulated node: the router's gate before it, a run queue and memory on each GPU, and the server's own decider. Virtual time.
//!
//! A request passes the gate in the order of the router's policy, and its function's client waits at the GPU where it is. When it has
//! waited for a while, the decider hears of it, as in the server, and may move it. A client that has its turn brings what is missing,
//! which may drive others out, and works meanwhile; the turn ends with the request. One client at a time has a GPU. What a client had on
//! the GPU that it came from is brought from there, where the two are joined.

mod busy;
mod gate;
mod gpus;
mod left;
mod server;

use crate::load_test::record::Record;
use crate::simulate::link::Links;
use crate::simulate::profile::{Model, Profile};
use crate::simulate::work::{Function, Request, Tally, Work};
use busy::Busy;
use left::Left;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};
use torpor_gpuserver::policy::decider::{Decider, Decision};
use torpor_gpuserver::policy::event::{Event, Figures, Rules, What};
use torpor_gpuserver::policy::eviction::Eviction;
use torpor_gpuserver::policy::placement::Placement;
use torpor_gpuserver::policy::reuse::Reuse;
use torpor_gpuserver::policy::topology::Topology;
use torpor_gpuserver::policy::view::NodeView;
use torpor_gpuserver::server::settings::Policy;
use torpor_router::order::{self, Candidate, Order};
use torpor_router::queue::Queue;

/// How long a client has waited when the server hears of it, and how long until it hears of it again: as in a worker.
const FIRST_WORD: Duration = Duration::from_micros(200);
const NEXT_WORD: Duration = Duration::from_millis(50);

/// What decides on a node.
#[derive(Clone, Copy, Debug)]
pub struct Policies {
    /// Which request passes the gate.
    pub order: Policy,
    /// Where a client goes that waits.
    pub placement: Placement,
    /// Who leaves.
    pub eviction: Eviction,
    /// Requests that may be on the GPUs' side of the gate.
    pub max_running: usize,
    /// Of what is drawn.
    pub seed: u64,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// A request comes.
    Arrive(usize),
    /// A client that waits says so, if it still waits for this request.
    Tell { client: usize, request: usize },
    /// A load may have ended, unless another load has begun or ended since.
    Loaded { loads: u64 },
    /// A turn ends.
    Finish { gpu: usize },
    /// A client comes to a GPU.
    Arrived { client: usize, to: usize, from: usize },
}

#[derive(Debug)]
struct Client<'a> {
    model: &'a Model,
    gpu: usize,
    resident_bytes: u64,
    left: Option<Left>,
    last_used: u64,
    reuse: Reuse,
    /// What it works at or waits for, beyond the gate.
    request: Option<usize>,
    passed_at: Duration,
    generation: u64,
    moving: bool,
    turns: u64,
    worked: Duration,
    /// Before the gate, the function's own.
    queue: Queue<usize>,
    gated: bool,
}

#[derive(Debug, Default)]
struct Gpu {
    active: Option<Turn>,
    /// Who waits for a turn, with when it is due.
    line: VecDeque<(Duration, usize)>,
    busy: Duration,
    lately: Busy,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    client: usize,
    began: Duration,
    loading: bool,
    /// Memory had to be brought for it.
    swaps: bool,
    /// What its inference takes without that.
    works: Duration,
}

/// The node.
pub struct Node<'a> {
    work: &'a Work<'a>,
    topology: &'a Topology,
    moves: Duration,
    limit_bytes: u64,
    policies: Policies,
    now: Duration,
    begin: Instant,
    steps: BinaryHeap<Reverse<(Duration, u64, Step)>>,
    counter: u64,
    clients: Vec<Client<'a>>,
    gpus: Vec<Gpu>,
    links: Links<'a>,
    loads: u64,
    decider: Decider,
    order: Box<dyn Order>,
    gate: Vec<Candidate>,
    /// The requests of those before the gate, in the same order.
    gated: Vec<usize>,
    passed: usize,
    tally: Tally,
    random: ChaCha8Rng,
}

impl<'a> Node<'a> {
    /// A node whose functions have each one client, spread over the GPUs, with its memory on the host.
    pub fn new(work: &'a Work<'a>, profile: &'a Profile, policies: Policies) -> Self {
        let (topology, limit_bytes) = (&profile.topology, profile.gpu_limit.0);
        let begin = Instant::now();
        let count = topology.gpus.len();
        let view = NodeView::new(count, topology.clone());
        let mut node = Self {
            work,
            topology,
            moves: profile.moves(),
            limit_bytes,
            policies,
            now: Duration::ZERO,
            begin,
            steps: BinaryHeap::new(),
            counter: 0,
            clients: Vec::new(),
            gpus: (0..count).map(|_| Gpu::default()).collect(),
            links: Links::new(topology),
            loads: 0,
            decider: Decider::new(view, policies.placement.policy(policies.seed)),
            order: order::order(policies.order, begin),
            gate: Vec::new(),
            gated: Vec::new(),
            passed: 0,
            tally: Tally::default(),
            random: ChaCha8Rng::seed_from_u64(policies.seed),
        };
        for gpu in 0..count {
            node.hear(What::WorkerStarted { gpu, limit_bytes });
        }
        for (id, function) in work.functions.iter().enumerate() {
            let gpu = id % count;
            node.clients.push(Client {
                model: function.model,
                gpu,
                resident_bytes: 0,
                left: None,
                last_used: 0,
                reuse: Reuse::default(),
                request: None,
                passed_at: Duration::ZERO,
                generation: 0,
                moving: false,
                turns: 0,
                worked: Duration::ZERO,
                queue: Queue::default(),
                gated: false,
            });
            let client = id as u64;
            node.hear(What::ClientAttached { client, function: function.name.clone(), gpu });
            let rules = Rules { slo: Some(function.slo), ..Rules::default() };
            node.hear(What::ClientRuled { client, rules });
        }
        for (id, request) in work.requests.iter().enumerate() {
            node.at(request.at, Step::Arrive(id));
        }
        node
    }

    /// Until every request has ended.
    pub fn run(mut self) -> (Vec<Record>, Tally) {
        let mut records: Vec<Option<Record>> = vec![None; self.work.requests.len()];
        while let Some(Reverse((at, _, step))) = self.steps.pop() {
            self.now = at;
            match step {
                Step::Arrive(request) => self.arrive(request),
                Step::Tell { client, request } => self.tell(client, request),
                Step::Loaded { loads } if loads == self.loads => self.loaded(),
                Step::Loaded { .. } => {}
                Step::Finish { gpu } => self.finish(gpu, &mut records),
                Step::Arrived { client, to, from } => self.arrived(client, to, from),
            }
            self.let_pass(&mut records);
        }
        self.tally.length = self.now;
        self.tally.busy = self.gpus.iter().map(|gpu| gpu.busy).collect();
        (records.into_iter().flatten().collect(), self.tally)
    }

    fn at(&mut self, at: Duration, step: Step) {
        self.counter += 1;
        self.steps.push(Reverse((at, self.counter, step)));
    }

    fn hear(&mut self, what: What) -> Vec<Decision> {
        self.decider.hear(&Event { at: self.now, what })
    }

    fn request(&self, request: usize) -> (&'a Request, &'a Function<'a>) {
        let request = &self.work.requests[request];
        (request, &self.work.functions[request.function])
    }
}

impl Client<'_> {
    fn turn(&self) -> Duration {
        Figures { turns: self.turns, worked: self.worked, ..Figures::default() }.turn()
    }
}

#[cfg(test)]
mod tests;
