//! The picture of a node: what is known of its GPUs and clients, as one value that events change and policies read.

mod crowd;
mod gangs;
mod homes;
mod loads;
mod seen;

pub use loads::Loads;

use crate::policy::event::{Event, Figures, Phase, Rules, What};
use crate::policy::topology::Topology;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a client that was moved may take until its worker says that it has its turn.
const SETTLING: Duration = Duration::from_millis(20);

/// What is known of a node.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    at: Duration,
    gpus: Vec<Gpu>,
    clients: BTreeMap<u64, Client>,
    loads: Loads,
    topology: Topology,
}

/// What is known of a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gpu {
    /// It serves.
    pub ready: bool,
    /// Its worker answered when all were asked last.
    pub answered: bool,
    /// Device memory that all functions together may use there; 0 before it ever served.
    pub limit_bytes: u64,
    /// When it was last seen with work.
    pub last_used: Duration,
}

impl Gpu {
    /// Whether somebody may go there.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.ready && self.answered
    }
}

/// What is known of a client.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its number.
    pub id: u64,
    /// Whose it is.
    pub function: Arc<str>,
    /// Where it is.
    pub gpu: usize,
    /// Which of its function's devices its program uses, if it has said so.
    pub home: Option<u32>,
    /// Grows whenever it begins to move, or has moved: a decision made before that is out of date.
    pub generation: u64,
    /// What holds for it.
    pub rules: Rules,
    /// Every call of it fails.
    pub failed: bool,
    /// Where it is on its way to.
    pub moving_to: Option<usize>,
    /// Since when it has been where it is, if it was moved there.
    pub moved: Option<Duration>,
    /// Since when it has waited for its turn, as far as it has told.
    pub waiting_since: Option<Duration>,
    /// What its worker said of it when all were asked last, if it did.
    pub figures: Option<Figures>,
}

impl Client {
    /// Whether a policy may move it, which stays at least so long where it is.
    #[must_use]
    pub fn may_move(&self, now: Duration, stay: Duration) -> bool {
        !self.failed
            && self.moving_to.is_none()
            && self.moved.is_none_or(|moved| now.saturating_sub(moved) >= stay)
            && !self.rules.pinned
            && self.rules.gpu.is_none()
    }

    /// Whether it comes to a GPU, and its worker may not know of it yet.
    #[must_use]
    pub fn arrives_at(&self, gpu: usize, now: Duration) -> bool {
        let settles = || self.moved.is_some_and(|moved| now.saturating_sub(moved) < SETTLING);
        self.moving_to == Some(gpu) || (self.gpu == gpu && settles())
    }
}

impl NodeView {
    /// Nothing is known of so many GPUs but how they are connected.
    #[must_use]
    pub fn new(gpus: usize, topology: Topology) -> Self {
        Self { gpus: vec![Gpu::default(); gpus], topology, ..Self::default() }
    }

    /// When the last event was.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.at
    }

    /// The GPUs.
    #[must_use]
    pub fn gpus(&self) -> &[Gpu] {
        &self.gpus
    }

    /// How they are connected.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// All clients, by number.
    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.values()
    }

    /// A client.
    #[must_use]
    pub fn client(&self, id: u64) -> Option<&Client> {
        self.clients.get(&id)
    }

    /// How much of the time clients have work.
    #[must_use]
    pub fn loads(&self) -> &Loads {
        &self.loads
    }

    /// Whether a GPU has room for what a client may allocate, and no other was asked for.
    #[must_use]
    pub fn may_be_on(&self, client: &Client, gpu: usize) -> bool {
        if let Some(only) = client.rules.gpu {
            return only == gpu;
        }
        let largest = self.gpus.iter().map(|gpu| gpu.limit_bytes).max().unwrap_or(0);
        let limit = client.rules.memory_limit_bytes.unwrap_or(0).min(largest);
        // A GPU that is being started may turn out to be large enough.
        self.gpus.get(gpu).is_some_and(|gpu| gpu.limit_bytes == 0 || gpu.limit_bytes >= limit)
    }

    /// A client is to move; its move begins, or [`What::Stayed`] says that it does not.
    pub fn expect_move(&mut self, id: u64, to: usize) {
        let at = self.at;
        self.change(id, |client| client.moving_to = Some(to));
        self.change_gpu(to, |gpu| gpu.last_used = at);
    }

    /// Something happened.
    pub fn apply(&mut self, event: &Event) {
        self.at = self.at.max(event.at);
        match &event.what {
            What::WorkerStarted { gpu, limit_bytes } => {
                self.change_gpu(*gpu, |gpu| (gpu.ready, gpu.limit_bytes) = (true, *limit_bytes));
            }
            What::WorkerLost { gpu, .. } => self.change_gpu(*gpu, |gpu| gpu.ready = false),
            What::ClientAttached { client, function, gpu } => {
                let attached = Client {
                    id: *client,
                    function: function.clone(),
                    gpu: *gpu,
                    home: None,
                    generation: 0,
                    rules: Rules::default(),
                    failed: false,
                    moving_to: None,
                    moved: None,
                    waiting_since: None,
                    figures: None,
                };
                self.clients.insert(*client, attached);
            }
            What::ClientHome { client, home } => self.change(*client, |client| client.home = Some(*home)),
            What::ClientRuled { client, rules } => self.change(*client, |client| client.rules = *rules),
            What::ClientFailed { client, .. } => self.change(*client, |client| client.failed = true),
            What::ClientLeft { client } => {
                self.clients.remove(client);
                self.loads.forget(*client);
            }
            What::Waiting { client } => {
                self.change(*client, |client| {
                    client.waiting_since.get_or_insert(event.at);
                });
            }
            What::MoveBegan { client, to, generation, .. } => self.change(*client, |client| {
                client.moving_to = Some(*to);
                client.generation = client.generation.max(*generation);
            }),
            What::Moved { client, to, generation, .. } => self.change(*client, |client| {
                (client.gpu, client.moving_to, client.moved) = (*to, None, Some(event.at));
                client.generation = client.generation.max(*generation);
            }),
            What::Stayed { client, generation, .. } => self.change(*client, |client| {
                (client.moving_to, client.moved) = (None, Some(event.at));
                client.generation = client.generation.max(*generation);
            }),
            What::Reported { figures } => self.hear(event.at, figures),
            What::Linked { from, to, bytes_per_second } => {
                let gbps = bytes_per_second.map(|bytes| bytes as f64 / 1e9);
                self.topology.set_peer(*from, *to, Some(gbps));
            }
            What::Unlinked { from, to } => self.topology.set_peer(*from, *to, None),
            What::FunctionCreated { .. }
            | What::Crowded { .. }
            | What::SessionBegan { .. }
            | What::RankSaid { .. } => {}
        }
    }

    fn hear(&mut self, at: Duration, figures: &[Option<Vec<Figures>>]) {
        for (gpu, said) in self.gpus.iter_mut().zip(figures) {
            gpu.answered = said.is_some();
            let works = |its: &Figures| its.busy || its.phase == Phase::Waiting;
            if said.iter().flatten().any(works) {
                gpu.last_used = at;
            }
        }
        self.clients.values_mut().for_each(|client| client.figures = None);
        for (gpu, its) in
            figures.iter().enumerate().flat_map(|(gpu, said)| said.iter().map(move |its| (gpu, its)))
        {
            for figures in its {
                // Where it was before a move, it is no more.
                if let Some(client) = self.clients.get_mut(&figures.client).filter(|client| client.gpu == gpu)
                {
                    client.figures = Some(*figures);
                    if figures.phase != Phase::Waiting {
                        client.waiting_since = None;
                    }
                }
            }
        }
        let worked = self.clients.values().filter_map(|client| Some((client.id, client.figures?.worked)));
        self.loads.hear(at, worked);
    }

    fn change(&mut self, client: u64, change: impl FnOnce(&mut Client)) {
        // One that has left needs no change.
        self.clients.get_mut(&client).map(change);
    }

    fn change_gpu(&mut self, gpu: usize, change: impl FnOnce(&mut Gpu)) {
        self.gpus.get_mut(gpu).map(change);
    }
}
