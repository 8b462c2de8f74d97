//! What one worker has been asked and has not answered yet, and whose channels fail with it.

use crate::server::store::slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use tokio::sync::oneshot;
use torpor_proto::channel::MappedChannel;
use torpor_proto::control::worker::{
    Attach, Detach, Release, ReportUsage, ToWorker, Usage, from_worker, to_worker,
};
use torpor_proto::error::CudaError;

/// The shared memory of a client.
#[derive(Debug)]
pub struct ClientMemory {
    /// Its channel, as the server sees it.
    pub channel: Arc<MappedChannel>,
    /// The channel, to be handed on.
    pub channel_file: OwnedFd,
    /// The pinned host range, to be handed on. The server itself never maps it.
    pub host_file: OwnedFd,
}

/// The worker will not serve a client.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotServed(pub String);

/// A worker keeps a client.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotReleased(pub String);

/// What the server wants of a worker.
#[derive(Debug)]
pub enum Order {
    /// Serve a client.
    Attach {
        /// Which, and its limits.
        attach: Attach,
        /// Its memory.
        memory: Arc<ClientMemory>,
        /// What another worker released; `attach` says so too.
        state: Option<Arc<OwnedFd>>,
        /// Told when it is served.
        done: oneshot::Sender<Result<(), NotServed>>,
    },
    /// Let go of a client.
    Detach {
        /// Which.
        client: u64,
        /// Told when the worker holds nothing of it any more.
        done: oneshot::Sender<()>,
    },
    /// Give a client up for another worker, as soon as it is idle or waits for its turn.
    Release {
        /// Which.
        client: u64,
        /// Only if it waits for its turn now.
        while_waiting: bool,
        /// Told when the worker holds nothing of it any more, or keeps it; dropped if the client is gone.
        done: oneshot::Sender<Result<OwnedFd, NotReleased>>,
    },
    /// Hear something about a client that has no answer.
    Tell {
        /// Which.
        client: u64,
        /// What.
        body: to_worker::Body,
    },
    /// Say who uses what.
    ReportUsage {
        /// Told the answer.
        done: oneshot::Sender<Usage>,
    },
}

/// A message for the worker.
#[derive(Debug)]
pub struct Outgoing {
    /// The message.
    pub message: ToWorker,
    /// What goes with it.
    pub attachment: Attachment,
}

/// The memory whose descriptors go with a message.
#[derive(Debug)]
pub enum Attachment {
    /// None.
    Nothing,
    /// A client's: the channel's, then the host range's, then that of its state, if another worker released it.
    Client(Arc<ClientMemory>, Option<Arc<OwnedFd>>),
    /// A slab's.
    Slab(Arc<Slab>),
}

impl Attachment {
    /// The descriptors, in order.
    #[must_use]
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Client(memory, state) => {
                let memory = [memory.channel_file.as_fd(), memory.host_file.as_fd()];
                memory.into_iter().chain(state.iter().map(|state| state.as_fd())).collect()
            }
            Self::Slab(slab) => vec![slab.file()],
        }
    }
}

/// The clients of one worker.
#[derive(Debug, Default)]
pub struct Served {
    channels: HashMap<u64, Arc<MappedChannel>>,
    attaching: HashMap<u64, oneshot::Sender<Result<(), NotServed>>>,
    detaching: HashMap<u64, oneshot::Sender<()>>,
    releasing: HashMap<u64, oneshot::Sender<Result<OwnedFd, NotReleased>>>,
    reporting: VecDeque<oneshot::Sender<Usage>>,
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
                self.attaching.insert(attach.client, done);
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
            // A client that went meanwhile needs nothing.
            Order::Tell { client, body } => {
                self.channels.contains_key(&client).then_some(())?;
                (body, Attachment::Nothing)
            }
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
                if let Some(done) = self.attaching.remove(&attached.client) {
                    let _ = done.send(Ok(()));
                }
            }
            from_worker::Body::Detached(detached) => {
                self.channels.remove(&detached.client);
                self.attaching.remove(&detached.client);
                self.releasing.remove(&detached.client);
                if let Some(done) = self.detaching.remove(&detached.client) {
                    let _ = done.send(());
                }
            }
            from_worker::Body::ClientFault(fault) => {
                self.releasing.remove(&fault.client);
                if let Some(done) = self.attaching.remove(&fault.client) {
                    // Another worker may serve it yet.
                    let _ = done.send(Err(NotServed(fault.reason)));
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
            from_worker::Body::Usage(usage) => {
                if let Some(done) = self.reporting.pop_front() {
                    let _ = done.send(usage);
                }
            }
            _ => {}
        }
    }

    /// The worker holds nothing of a client any more, and says what it is.
    pub fn released(&mut self, client: u64, state: OwnedFd) {
        self.channels.remove(&client);
        if let Some(done) = self.releasing.remove(&client) {
            let _ = done.send(Ok(state));
        }
        // It was asked to let go of it too, and may not say so.
        if let Some(done) = self.detaching.remove(&client) {
            let _ = done.send(());
        }
    }

    /// Every client's later calls fail with `error`, unless they fail with another one already. Not of those that the worker
    /// has not said that it serves: another one may.
    pub fn fail(&self, error: CudaError) {
        for (client, channel) in &self.channels {
            if !self.attaching.contains_key(client) {
                channel.fail(error);
            }
        }
    }

    /// The worker's process is gone, and with it all it held: nobody need wait for it.
    pub fn bury(&mut self, reason: &str) {
        self.channels.clear();
        for (_, done) in self.attaching.drain() {
            let _ = done.send(Err(NotServed(reason.to_owned())));
        }
        for (_, done) in self.detaching.drain() {
            let _ = done.send(());
        }
        self.releasing.clear();
        self.reporting.clear();
    }
}

/// The error of a lost context; a worker that names none has one all the same.
pub fn fault_code(code: u32) -> CudaError {
    CudaError::check(code).err().unwrap_or(CudaError::LAUNCH_FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use torpor_proto::control::worker::{
        Attached, ClientFault, Detached, DeviceFault, NotReleased as NotReleasedMessage,
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
        served.bury("died");
        assert_eq!(buried.try_recv().unwrap().unwrap_err().to_string(), "died");
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
        served.hear(from_worker::Body::DeviceFault(DeviceFault { code: 700, reason: String::new() }));
        served.fail(CudaError::LAUNCH_FAILED);
        assert_eq!(channel.sticky_error(), Some(CudaError::ILLEGAL_ADDRESS));
        let (done, mut detached) = oneshot::channel();
        served.order(Order::Detach { client: 1, done });
        served.bury("died");
        detached.try_recv().unwrap();
        let (done, mut detached) = oneshot::channel();
        assert!(served.order(Order::Detach { client: 1, done }).is_none());
        detached.try_recv().unwrap();
    }
}
