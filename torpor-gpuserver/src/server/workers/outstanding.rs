//! What one worker has been asked and has not answered yet, whose channels fail with it, and who survives it.

use crate::server::workers::order::{Attachment, Death, NotReleased, NotServed, Order, Outgoing};
use crate::state_file;
use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::oneshot;
use torpor_proto::channel::MappedChannel;
use torpor_proto::control::worker::{
    ClientUsage, Cost, Detach, Follow, Forget, Mark, Release, ReportUsage, RequestPoint, ToWorker, Usage,
    from_worker, to_worker,
};
use torpor_proto::error::CudaError;
use torpor_proto::layout::MAX_CLIENTS;

/// Bytes of all states of one worker's clients, at most.
const MOST_STATE_BYTES: u64 = 1 << 30;

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
    /// What clients were when they were idle last, or when they came. It may hold no longer.
    states: HashMap<u64, Arc<OwnedFd>>,
    attaching: HashMap<u64, Attaching>,
    detaching: HashMap<u64, oneshot::Sender<()>>,
    releasing: HashMap<u64, oneshot::Sender<Result<OwnedFd, NotReleased>>>,
    reporting: VecDeque<oneshot::Sender<Usage>>,
    /// What has come of a usage in several parts.
    reported: Vec<ClientUsage>,
    /// By client and request.
    costing: HashMap<(u64, u64), oneshot::Sender<Cost>>,
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
            Order::Release { client, while_waiting, done } => {
                if !self.channels.contains_key(&client) {
                    let _ = done.send(Err(NotReleased("its GPU's worker does not serve it".to_owned())));
                    return None;
                }
                self.releasing.insert(client, done);
                (to_worker::Body::Release(Release { client, while_waiting }), Attachment::Nothing)
            }
            Order::Detach { client, done } => {
                if !self.channels.contains_key(&client) {
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
                self.reporting.push_back(done);
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
                if let Some(Attaching { state, done }) = self.attaching.remove(&attached.client) {
                    // It still is what it came as, until it executes something.
                    state.into_iter().for_each(|state| self.keep_state(attached.client, state));
                    let _ = done.send(Ok(()));
                }
            }
            from_worker::Body::Detached(detached) => {
                self.channels.remove(&detached.client);
                self.states.remove(&detached.client);
                self.attaching.remove(&detached.client);
                self.releasing.remove(&detached.client);
                self.costing.retain(|&(client, _), _| client != detached.client);
                if let Some(done) = self.detaching.remove(&detached.client) {
                    let _ = done.send(());
                }
            }
            from_worker::Body::ClientFault(fault) => {
                self.releasing.remove(&fault.client);
                self.states.remove(&fault.client);
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
            from_worker::Body::Usage(usage) => self.hear_usage(usage),
            from_worker::Body::Cost(cost) => {
                if let Some(done) = self.costing.remove(&(cost.client, cost.request)) {
                    let _ = done.send(cost);
                }
            }
            _ => {}
        }
    }

    fn hear_usage(&mut self, mut usage: Usage) {
        self.reported.append(&mut usage.clients);
        // A worker that never ends its list has more clients than there can be.
        if usage.more && self.reported.len() < MAX_CLIENTS as usize * 2 {
            return;
        }
        usage.clients = std::mem::take(&mut self.reported);
        if let Some(done) = self.reporting.pop_front() {
            let _ = done.send(usage);
        }
    }

    /// A client that stays is this now.
    pub fn covered(&mut self, client: u64, state: OwnedFd) {
        if self.channels.contains_key(&client) {
            self.keep_state(client, Arc::new(state));
        }
    }

    fn keep_state(&mut self, client: u64, state: Arc<OwnedFd>) {
        self.states.remove(&client);
        let kept_bytes: u64 = self.states.values().map(state_file::bytes).sum();
        if kept_bytes.saturating_add(state_file::bytes(&state)) <= MOST_STATE_BYTES {
            self.states.insert(client, state);
        } else {
            tracing::warn!(
                client,
                "it would not survive its worker: the states of others take {MOST_STATE_BYTES} bytes"
            );
        }
    }

    fn state_that_holds(&self, client: u64) -> Option<&Arc<OwnedFd>> {
        self.states.get(&client).filter(|state| state_file::holds(state))
    }

    /// Who goes on at the next worker, with what it is. The worker's process is gone: what holds now holds until then.
    #[must_use]
    pub fn survivors(&self) -> Vec<(u64, Arc<OwnedFd>)> {
        let survivor = |(&client, channel): (&u64, &Arc<MappedChannel>)| {
            // One that fails already has been told, and one that is to be let go of goes.
            let survives = channel.sticky_error().is_none() && !self.detaching.contains_key(&client);
            Some((client, self.state_that_holds(client).filter(|_| survives)?.clone()))
        };
        self.channels.iter().filter_map(survivor).collect()
    }

    /// The worker holds nothing of a client any more, and says what it is.
    pub fn released(&mut self, client: u64, state: OwnedFd) {
        self.channels.remove(&client);
        self.states.remove(&client);
        self.costing.retain(|&(whose, _), _| whose != client);
        if let Some(done) = self.releasing.remove(&client) {
            let _ = done.send(Ok(state));
        }
        // It was asked to let go of it too, and may not say so.
        if let Some(done) = self.detaching.remove(&client) {
            let _ = done.send(());
        }
    }

    /// Every client's later calls fail with `error`, unless they fail with another one already. Not of those that the worker
    /// has not said that it serves, nor of those whose state holds: another one may serve them.
    pub fn fail(&self, error: CudaError) {
        for (&client, channel) in &self.channels {
            if !self.attaching.contains_key(&client) && self.state_that_holds(client).is_none() {
                channel.fail(error);
            }
        }
    }

    /// The worker's process is gone, and with it all it held: nobody need wait for it.
    pub fn bury(&mut self, death: &Arc<Death>) {
        self.channels.clear();
        self.states.clear();
        for (_, Attaching { done, .. }) in self.attaching.drain() {
            let _ = done.send(Err(NotServed::Died(death.clone())));
        }
        for (_, done) in self.detaching.drain() {
            let _ = done.send(());
        }
        self.releasing.clear();
        self.reporting.clear();
        self.costing.clear();
        self.reported.clear();
    }
}

/// The error of a lost context; a worker that names none has one all the same.
pub fn fault_code(code: u32) -> CudaError {
    CudaError::check(code).err().unwrap_or(CudaError::LAUNCH_FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::workers::order::ClientMemory;
    use torpor_proto::control::worker::{
        Attach, Attached, ClientFault, Detached, DeviceFault, NotReleased as NotReleasedMessage,
    };
    use torpor_proto::mapping::create_sealed;

    fn memory() -> Arc<ClientMemory> {
        let (channel, channel_file) = MappedChannel::create().unwrap();
        let host_file = create_sealed("host", 4096).unwrap();
        Arc::new(ClientMemory { channel: Arc::new(channel), channel_file, host_file })
    }

    fn attach(
        served: &mut Served,
        client: u64,
    ) -> (Arc<MappedChannel>, oneshot::Receiver<Result<(), NotServed>>) {
        let (memory, (done, answer)) = (memory(), oneshot::channel());
        let channel = memory.channel.clone();
        let attach = Attach { client, ..Attach::default() };
        let outgoing = served.order(Order::Attach { attach, memory, state: None, done }).unwrap();
        assert_eq!(outgoing.attachment.descriptors().len(), 2);
        (channel, answer)
    }

    #[test]
    fn a_client_is_served_when_the_worker_says_so_and_gone_when_it_says_so() {
        let mut served = Served::default();
        let (_, mut attached) = attach(&mut served, 5);
        assert!(attached.try_recv().is_err());
        served.hear(from_worker::Body::Attached(Attached { client: 5 }));
        attached.try_recv().unwrap().unwrap();
        let (done, mut detached) = oneshot::channel();
        assert!(served.order(Order::Detach { client: 5, done }).is_some());
        assert!(detached.try_recv().is_err());
        served.hear(from_worker::Body::Detached(Detached { client: 5 }));
        detached.try_recv().unwrap();
        assert_eq!(served.count(), 0);
    }

    #[test]
    fn a_client_that_breaks_the_protocol_fails_alone() {
        let mut served = Served::default();
        let ((bad, _answer), (good, _)) = (attach(&mut served, 1), attach(&mut served, 2));
        served.hear(from_worker::Body::Attached(Attached { client: 1 }));
        served.hear(from_worker::Body::ClientFault(ClientFault { client: 1, reason: "nonsense".to_owned() }));
        assert_eq!(bad.sticky_error(), Some(CudaError::LAUNCH_FAILED));
        assert_eq!(good.sticky_error(), None);
    }

    #[test]
    fn a_client_that_is_not_served_yet_does_not_fail_with_its_worker() {
        let mut served = Served::default();
        let ((first, mut refused), (second, mut buried)) = (attach(&mut served, 1), attach(&mut served, 2));
        served.hear(from_worker::Body::ClientFault(ClientFault { client: 1, reason: "no room".to_owned() }));
        assert_eq!(refused.try_recv().unwrap().unwrap_err().to_string(), "no room");
        assert_eq!(first.sticky_error(), None);
        served.fail(CudaError::LAUNCH_FAILED);
        assert_eq!(second.sticky_error(), None);
        served.bury(&Death::of("died"));
        assert_eq!(buried.try_recv().unwrap().unwrap_err().to_string(), "died");
    }

    #[test]
    fn a_usage_in_parts_is_answered_whole() {
        let mut served = Served::default();
        let ask = |served: &mut Served| {
            let (done, answer) = oneshot::channel();
            served.order(Order::ReportUsage { done }).unwrap();
            answer
        };
        let part = |client, more| {
            let clients = vec![ClientUsage { client, ..ClientUsage::default() }];
            from_worker::Body::Usage(Usage { clients, more, ..Usage::default() })
        };
        let (mut first, mut second) = (ask(&mut served), ask(&mut served));
        served.hear(part(1, true));
        assert!(first.try_recv().is_err());
        served.hear(part(2, false));
        served.hear(part(3, false));
        let clients = |usage: Usage| usage.clients.iter().map(|usage| usage.client).collect::<Vec<_>>();
        assert_eq!(clients(first.try_recv().unwrap()), [1, 2]);
        assert_eq!(clients(second.try_recv().unwrap()), [3]);
    }

    #[test]
    fn a_released_client_is_nobody_s_any_more() {
        let mut served = Served::default();
        let release = |served: &mut Served| {
            let (done, answer) = oneshot::channel();
            (served.order(Order::Release { client: 1, while_waiting: false, done }).is_some(), answer)
        };
        let (asked, mut answer) = release(&mut served);
        assert!(!asked && answer.try_recv().unwrap().is_err(), "it is not there");
        let (channel, _) = attach(&mut served, 1);
        served.hear(from_worker::Body::Attached(Attached { client: 1 }));
        let (_, mut answer) = release(&mut served);
        let reason = "it has its turn".to_owned();
        served.hear(from_worker::Body::NotReleased(NotReleasedMessage { client: 1, reason }));
        assert_eq!(answer.try_recv().unwrap().unwrap_err().to_string(), "it has its turn");
        let (_, mut answer) = release(&mut served);
        served.released(1, create_sealed("state", 8).unwrap());
        assert!(answer.try_recv().unwrap().is_ok());
        served.fail(CudaError::LAUNCH_FAILED);
        assert_eq!((served.count(), channel.sticky_error()), (0, None));
    }

    #[test]
    fn a_lost_context_fails_everybody_with_its_code_even_after_the_worker_died() {
        let mut served = Served::default();
        let (channel, _) = attach(&mut served, 1);
        served.hear(from_worker::Body::Attached(Attached { client: 1 }));
        served.hear(from_worker::Body::DeviceFault(DeviceFault { code: 700, ..DeviceFault::default() }));
        served.fail(CudaError::LAUNCH_FAILED);
        assert_eq!(channel.sticky_error(), Some(CudaError::ILLEGAL_ADDRESS));
        let (done, mut detached) = oneshot::channel();
        served.order(Order::Detach { client: 1, done });
        served.bury(&Death::of("died"));
        detached.try_recv().unwrap();
        let (done, mut detached) = oneshot::channel();
        assert!(served.order(Order::Detach { client: 1, done }).is_none());
        detached.try_recv().unwrap();
    }
}
