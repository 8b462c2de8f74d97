//! The clients of one worker: what it has been asked for them and has not answered yet, and whose channels fail with it.
//!
//! [`states`] is what each of them can go on from elsewhere, [`survivors`] who does when the worker dies, [`inherited`] who was served
//! when another server ended.

mod inherited;
mod states;
mod survivors;
mod usage;

pub use inherited::Coming;
pub use states::STATE;

use crate::server::workers::order::{Attachment, Death, NotReleased, NotServed, Order, Outgoing};
use crate::server::workers::served::states::States;
use crate::server::workers::served::usage::UsageReports;
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::oneshot;
use torpor_proto::channel::MappedChannel;
use torpor_proto::control::worker::{
    Cost, Detach, Follow, Forget, Mark, Release, ReportUsage, RequestPoint, ToWorker, from_worker, to_worker,
};
use torpor_proto::error::CudaError;

/// Why a client is not given up that is not there.
const NOT_SERVED: &str = "its GPU's worker does not serve it";

/// A client that the worker has not said that it serves.
#[derive(Debug)]
struct Attaching {
    /// What it is to go on from.
    state: Option<Arc<OwnedFd>>,
    done: oneshot::Sender<Result<(), NotServed>>,
}

/// The clients of one worker.
#[derive(Debug, Default)]
pub struct Served {
    channels: HashMap<u64, Arc<MappedChannel>>,
    states: States,
    attaching: HashMap<u64, Attaching>,
    detaching: HashMap<u64, oneshot::Sender<()>>,
    releasing: HashMap<u64, oneshot::Sender<Result<OwnedFd, NotReleased>>>,
    usage: UsageReports,
    /// By client and request.
    costing: HashMap<(u64, u64), oneshot::Sender<Cost>>,
    /// Of a server before; the worker has not said again that it serves them.
    unconfirmed: HashSet<u64>,
    /// Of a server before: the worker is only to let go of them.
    going: HashSet<u64>,
    /// Of those that it has not said again that it serves: a server before has had it let go of them.
    let_go: HashSet<u64>,
    /// The worker has not said yet that this was all: what it says of the ends of clients is what a server before asked for.
    is_resuming: bool,
}

impl Served {
    /// Those that it serves.
    pub fn clients(&self) -> impl Iterator<Item = u64> {
        self.channels.keys().copied().filter(|client| !self.attaching.contains_key(client))
    }

    /// Clients it serves, or is asked to.
    #[must_use]
    pub fn count(&self) -> usize {
        self.channels.len()
    }

    /// Notes an order. Returns what the worker is to be sent, if anything.
    pub fn order(&mut self, order: Order) -> Option<Outgoing> {
        let (body, attachment) = match order {
            Order::Attach { attach, memory, state, done } => {
                self.channels.insert(attach.client, memory.channel.clone());
                self.attaching.insert(attach.client, Attaching { state: state.clone(), done });
                (to_worker::Body::Attach(attach), Attachment::Client(memory, state))
            }
            Order::Release { client, while_waiting, link, party, done } => {
                if !self.channels.contains_key(&client) {
                    let _ = done.send(Err(NotReleased(NOT_SERVED.to_owned())));
                    return None;
                }
                self.releasing.insert(client, done);
                let release = Release { client, while_waiting, link, party };
                (to_worker::Body::Release(release), Attachment::Nothing)
            }
            Order::Detach { client, done } => {
                if !self.channels.contains_key(&client) && !self.going.contains(&client) {
                    // It was served by a worker that is no more, and went with it.
                    let _ = done.send(());
                    return None;
                }
                self.detaching.insert(client, done);
                (to_worker::Body::Detach(Detach { client }), Attachment::Nothing)
            }
            Order::Forget { client } => (to_worker::Body::Forget(Forget { client }), Attachment::Nothing),
            // A client that went meanwhile needs nothing.
            Order::Tell { client, body } => {
                self.channels.contains_key(&client).then_some(())?;
                (body, Attachment::Nothing)
            }
            Order::ReportCost { client, request, done } => {
                self.channels.contains_key(&client).then_some(())?;
                self.costing.insert((client, request), done);
                let mark = Mark { client, request, point: RequestPoint::Answered.into() };
                (to_worker::Body::Mark(mark), Attachment::Nothing)
            }
            Order::Follow { events } => (to_worker::Body::Follow(Follow { events }), Attachment::Nothing),
            Order::ReportUsage { done } => {
                self.usage.ask(done);
                (to_worker::Body::ReportUsage(ReportUsage {}), Attachment::Nothing)
            }
        };
        Some(Outgoing { message: ToWorker { body: Some(body) }, attachment })
    }

    /// The worker's answer, or news.
    ///
    /// Receivers that are gone do not want to know any more, so sending to them may fail everywhere here.
    pub fn hear(&mut self, body: from_worker::Body) {
        match body {
            from_worker::Body::Attached(attached) => {
                self.unconfirmed.remove(&attached.client);
                if let Some(Attaching { state, done }) = self.attaching.remove(&attached.client) {
                    // It still is what it came as, until it executes something.
                    state.into_iter().for_each(|state| self.states.keep(attached.client, state));
                    let _ = done.send(Ok(()));
                }
            }
            from_worker::Body::Detached(detached) if self.is_resuming => self.was_let_go(detached.client),
            from_worker::Body::Detached(detached) => {
                self.unconfirmed.remove(&detached.client);
                self.going.remove(&detached.client);
                self.channels.remove(&detached.client);
                self.states.remove(detached.client);
                self.attaching.remove(&detached.client);
                self.releasing.remove(&detached.client);
                self.costing.retain(|&(client, _), _| client != detached.client);
                if let Some(done) = self.detaching.remove(&detached.client) {
                    let _ = done.send(());
                }
            }
            // It goes on from its state once the worker has said all.
            from_worker::Body::ClientFault(fault) if self.is_resuming && self.was_refused(fault.client) => {}
            from_worker::Body::ClientFault(fault) => {
                self.releasing.remove(&fault.client);
                self.states.remove(fault.client);
                if let Some(Attaching { done, .. }) = self.attaching.remove(&fault.client) {
                    // Another worker may serve it yet.
                    let _ = done.send(Err(NotServed::Refused(fault.reason)));
                } else if let Some(channel) = self.channels.get(&fault.client) {
                    channel.fail(CudaError::LAUNCH_FAILED);
                }
            }
            from_worker::Body::NotReleased(kept) => {
                if let Some(done) = self.releasing.remove(&kept.client) {
                    let _ = done.send(Err(NotReleased(kept.reason)));
                }
            }
            from_worker::Body::DeviceFault(fault) => self.fail(fault_code(fault.code)),
            from_worker::Body::Usage(usage) => self.usage.hear(usage),
            from_worker::Body::Cost(cost) => {
                if let Some(done) = self.costing.remove(&(cost.client, cost.request)) {
                    let _ = done.send(cost);
                }
            }
            _ => {}
        }
    }

    /// A client that stays is this now.
    pub fn covered(&mut self, client: u64, state: OwnedFd) {
        if self.channels.contains_key(&client) {
            self.states.keep(client, Arc::new(state));
        }
    }

    /// Whether a client is its own, or is to be.
    #[must_use]
    pub fn has(&self, client: u64) -> bool {
        self.channels.contains_key(&client)
    }

    /// The worker holds nothing of a client any more, and says what it is. Returns that if nobody waits for it.
    #[must_use]
    pub fn released(&mut self, client: u64, state: OwnedFd) -> Option<OwnedFd> {
        self.states.note_released(client, &state);
        self.unconfirmed.remove(&client);
        self.channels.remove(&client);
        self.attaching.remove(&client);
        self.states.remove(client);
        self.costing.retain(|&(whose, _), _| whose != client);
        let is_going = self.detaching.contains_key(&client);
        let unasked = match self.releasing.remove(&client) {
            Some(done) => {
                let _ = done.send(Ok(state));
                None
            }
            None => Some(state).filter(|_| !is_going),
        };
        // It was asked to let go of it too, and may not say so.
        if let Some(done) = self.detaching.remove(&client) {
            let _ = done.send(());
        }
        unasked
    }

    /// Every client's later calls fail with `error`, unless they fail with another one already. Not of those that the worker
    /// has not said that it serves, nor of those whose state holds: another one may serve them.
    pub fn fail(&self, error: CudaError) {
        for (&client, channel) in &self.channels {
            if !self.attaching.contains_key(&client) && self.states.that_holds(client).is_none() {
                channel.fail(error);
            }
        }
    }

    /// The worker's process is gone, and with it all it held: nobody need wait for it.
    pub fn bury(&mut self, death: &Arc<Death>) {
        self.channels.clear();
        self.states.clear();
        self.unconfirmed.clear();
        self.going.clear();
        self.let_go.clear();
        self.is_resuming = false;
        for (_, Attaching { done, .. }) in self.attaching.drain() {
            let _ = done.send(Err(NotServed::Died(death.clone())));
        }
        for (_, done) in self.detaching.drain() {
            let _ = done.send(());
        }
        self.releasing.clear();
        self.usage.clear();
        self.costing.clear();
    }
}

/// The error of a lost context; a worker that names none has one all the same.
pub fn fault_code(code: u32) -> CudaError {
    CudaError::check(code).err().unwrap_or(CudaError::LAUNCH_FAILED)
}

#[cfg(test)]
mod tests;
