//! The workers that are there, and which slabs each of them has page-locked.

use crate::server::store::slab::Slab;
use crate::server::workers::order::{Attachment, Outgoing};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::mpsc;
use torpor_proto::control::worker::{ReturnSlab, Slab as SlabMessage, ToWorker, to_worker};

/// One life of a worker; never given twice, by no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkerId(pub u64);

/// Whether a worker can reach slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All that can be given out.
    All,
    /// It is still page-locking.
    Soon,
    /// It cannot, for this reason.
    Never(String),
}

#[derive(Debug)]
struct Worker {
    gpu: u32,
    outbox: mpsc::UnboundedSender<Outgoing>,
    /// What became of each slab that it was told of.
    slabs: BTreeMap<u32, Reach>,
    /// Those that it is to let go of.
    returning: BTreeSet<u32>,
}

/// The workers that are there.
#[derive(Debug, Default)]
pub struct Workers {
    workers: BTreeMap<WorkerId, Worker>,
}

impl Workers {
    /// Another worker is ready: it is told of all slabs.
    pub fn connect<'a>(
        &mut self,
        id: WorkerId,
        gpu: u32,
        outbox: mpsc::UnboundedSender<Outgoing>,
        slabs: impl Iterator<Item = &'a Arc<Slab>>,
    ) {
        self.reconnect(id, gpu, outbox, std::iter::empty());
        self.offer_missing(id, slabs);
    }

    /// A worker is there that knows of some of these slabs.
    pub fn reconnect<'a>(
        &mut self,
        id: WorkerId,
        gpu: u32,
        outbox: mpsc::UnboundedSender<Outgoing>,
        slabs: impl Iterator<Item = &'a Arc<Slab>>,
    ) {
        let slabs = slabs.map(|slab| (slab.index(), Reach::Soon)).collect();
        self.workers.insert(id, Worker { gpu, outbox, slabs, returning: BTreeSet::new() });
    }

    /// Tells a worker of the slabs of which it has not said what became of them.
    pub fn offer_missing<'a>(&mut self, id: WorkerId, slabs: impl Iterator<Item = &'a Arc<Slab>>) {
        if let Some(worker) = self.workers.get_mut(&id) {
            let missing = |worker: &Worker, slab: &Slab| {
                worker.slabs.get(&slab.index()).is_none_or(|reach| *reach == Reach::Soon)
            };
            slabs.for_each(|slab| {
                if missing(worker, slab) {
                    worker.offer(slab);
                }
            });
        }
    }

    /// A worker is gone: nobody waits for it.
    pub fn disconnect(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
    }

    /// Tells all workers of a new slab.
    pub fn offer(&mut self, slab: &Arc<Slab>) {
        self.workers.values_mut().for_each(|worker| worker.offer(slab));
    }

    /// A worker has page-locked a slab, or cannot. Says why not, if not.
    pub fn answered(&mut self, worker: WorkerId, slab: u32, failure: &str) -> Option<String> {
        let worker = self.workers.get_mut(&worker)?;
        let reach = worker.slabs.get_mut(&slab)?;
        if failure.is_empty() {
            *reach = Reach::All;
            return None;
        }
        let reason = format!("the worker of GPU {} cannot page-lock slab {slab}: {failure}", worker.gpu);
        *reach = Reach::Never(reason.clone());
        Some(reason)
    }

    /// All workers that have a slab are to let go of it.
    pub fn take_back(&mut self, slab: u32) {
        for worker in self.workers.values_mut() {
            if worker.slabs.remove(&slab).is_some() {
                worker.returning.insert(slab);
                let body = to_worker::Body::ReturnSlab(ReturnSlab { index: slab });
                worker.tell(body, Attachment::Nothing);
            }
        }
    }

    /// A worker has done so.
    pub fn returned(&mut self, worker: WorkerId, slab: u32) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.returning.remove(&slab);
        }
    }

    /// Whether any has still to.
    #[must_use]
    pub fn hold(&self, slab: u32) -> bool {
        self.workers.values().any(|worker| worker.returning.contains(&slab))
    }

    /// Whether all workers can reach a slab.
    #[must_use]
    pub fn reach(&self, slab: u32) -> Reach {
        worst(self.workers.values().filter_map(|worker| worker.slabs.get(&slab)))
    }

    /// Whether a worker can reach all of the first `slabs` slabs.
    #[must_use]
    pub fn reach_of(&self, worker: WorkerId, slabs: u32) -> Reach {
        match self.workers.get(&worker) {
            Some(worker) => worst(worker.slabs.range(..slabs).map(|(_, reach)| reach)),
            None => Reach::Never("its worker is gone".to_owned()),
        }
    }

    /// Tells a worker something. One that is gone need not know.
    pub fn tell(&self, worker: WorkerId, body: to_worker::Body) {
        if let Some(worker) = self.workers.get(&worker) {
            worker.tell(body, Attachment::Nothing);
        }
    }
}

impl Worker {
    fn offer(&mut self, slab: &Arc<Slab>) {
        self.slabs.insert(slab.index(), Reach::Soon);
        let message = SlabMessage { index: slab.index(), bytes: slab.bytes() };
        self.tell(to_worker::Body::Slab(message), Attachment::Slab(slab.clone()));
    }

    fn tell(&self, body: to_worker::Body, attachment: Attachment) {
        // Its supervisor ends the conversation when the worker is gone.
        let _ = self.outbox.send(Outgoing { message: ToWorker { body: Some(body) }, attachment });
    }
}

fn worst<'a>(reaches: impl Iterator<Item = &'a Reach>) -> Reach {
    let mut worst = Reach::All;
    for reach in reaches {
        match reach {
            Reach::All => {}
            Reach::Soon => worst = Reach::Soon,
            Reach::Never(_) => return reach.clone(),
        }
    }
    worst
}
