//! What one worker has been asked and has not answered yet, and whose channels fail with it.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::oneshot;
use torpor_proto::channel::MappedChannel;
use torpor_proto::control::worker::{Attach, Detach, ReportUsage, ToWorker, Usage, from_worker, to_worker};
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

/// What the server wants of a worker.
#[derive(Debug)]
pub enum Order {
    /// Serve a client.
    Attach {
        /// Which, and its limits.
        attach: Attach,
        /// Its memory.
        memory: Arc<ClientMemory>,
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

/// A message for the worker, with the memory whose descriptors go with it.
#[derive(Debug)]
pub struct Outgoing {
    /// The message.
    pub message: ToWorker,
    /// Its descriptors: the channel's, then the host range's.
    pub memory: Option<Arc<ClientMemory>>,
}

/// The clients of one worker.
#[derive(Debug, Default)]
pub struct Served {
    channels: HashMap<u64, Arc<MappedChannel>>,
    attaching: HashMap<u64, oneshot::Sender<Result<(), NotServed>>>,
    detaching: HashMap<u64, oneshot::Sender<()>>,
    reporting: VecDeque<oneshot::Sender<Usage>>,
}

impl Served {
    /// Clients it serves, or is asked to.
    #[must_use]
    pub fn count(&self) -> usize {
        self.channels.len()
    }

    /// Notes an order. Returns what the worker is to be sent, if anything.
    pub fn order(&mut self, order: Order) -> Option<Outgoing> {
        let (body, memory) = match order {
            Order::Attach { attach, memory, done } => {
                self.channels.insert(attach.client, memory.channel.clone());
                self.attaching.insert(attach.client, done);
                (to_worker::Body::Attach(attach), Some(memory))
            }
            Order::Detach { client, done } => {
                if !self.channels.contains_key(&client) {
                    // It was served by a worker that is no more, and went with it.
                    let _ = done.send(());
                    return None;
                }
                self.detaching.insert(client, done);
                (to_worker::Body::Detach(Detach { client }), None)
            }
            // A client that went meanwhile needs nothing.
            Order::Tell { client, body } => {
                self.channels.contains_key(&client).then_some(())?;
                (body, None)
            }
            Order::ReportUsage { done } => {
                self.reporting.push_back(done);
                (to_worker::Body::ReportUsage(ReportUsage {}), None)
            }
        };
        Some(Outgoing { message: ToWorker { body: Some(body) }, memory })
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
                if let Some(done) = self.detaching.remove(&detached.client) {
                    let _ = done.send(());
                }
            }
            from_worker::Body::ClientFault(fault) => {
                if let Some(channel) = self.channels.get(&fault.client) {
                    channel.fail(CudaError::LAUNCH_FAILED);
                }
                if let Some(done) = self.attaching.remove(&fault.client) {
                    let _ = done.send(Err(NotServed(fault.reason)));
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

    /// Every client's later calls fail with `error`, unless they fail with another one already.
    pub fn fail(&self, error: CudaError) {
        for channel in self.channels.values() {
            channel.fail(error);
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
    use torpor_proto::control::worker::{Attached, ClientFault, Detached, DeviceFault};
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
        assert!(served.order(Order::Attach { attach, memory, done }).unwrap().memory.is_some());
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
        let ((bad, mut answer), (good, _)) = (attach(&mut served, 1), attach(&mut served, 2));
        served.hear(from_worker::Body::ClientFault(ClientFault { client: 1, reason: "nonsense".to_owned() }));
        assert_eq!(bad.sticky_error(), Some(CudaError::LAUNCH_FAILED));
        assert_eq!(good.sticky_error(), None);
        assert_eq!(answer.try_recv().unwrap().unwrap_err().to_string(), "nonsense");
    }

    #[test]
    fn a_lost_context_fails_everybody_with_its_code_even_after_the_worker_died() {
        let mut served = Served::default();
        let (channel, _) = attach(&mut served, 1);
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
