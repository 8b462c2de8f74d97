//! What the server wants of a worker, with whoever waits for the answer, and what is sent for it.

use crate::server::store::slab::Slab;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use tokio::sync::oneshot;
use torpor_proto::channel::MappedChannel;
use torpor_proto::control::worker::{Attach, Cost, Party, ToWorker, Usage, to_worker};
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

/// No worker serves a client.
#[derive(Debug, thiserror::Error)]
pub enum NotServed {
    /// It will not.
    #[error("{0}")]
    Refused(String),
    /// There is none now.
    #[error("{0}")]
    NoWorker(String),
    /// It died while it was asked, for this client's sake or another's.
    #[error("{0}")]
    Died(Arc<Death>),
}

/// The end of a worker.
#[derive(Debug, Default, thiserror::Error)]
#[error("{reason}")]
pub struct Death {
    /// For people.
    pub reason: String,
    /// What its context was lost with, if it was.
    pub fault: Option<CudaError>,
    /// Clients any of which may have lost it, the most suspicious last.
    pub suspects: Vec<u64>,
    /// Who has lost it, where that is known.
    pub culprit: Option<u64>,
    /// Perhaps none of the suspects has.
    pub is_unsure: bool,
}

impl Death {
    /// Of which nothing else is known.
    #[must_use]
    pub fn of(reason: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { reason: reason.into(), ..Self::default() })
    }

    /// Whether it may be this client's fault, as far as the worker knows.
    #[must_use]
    pub fn accuses(&self, client: u64) -> bool {
        self.fault.is_some()
            && self.culprit.map_or_else(|| self.suspects.contains(&client), |it| it == client)
    }
}

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
        /// Over which link its memory may be read then; 0 for none.
        link: u64,
        /// With whom it goes, or none of them does.
        party: Option<Party>,
        /// Told when the worker holds nothing of it any more, or keeps it; dropped if the client is gone.
        done: oneshot::Sender<Result<OwnedFd, NotReleased>>,
    },
    /// A client will not come back that another worker has served last.
    Forget {
        /// Which.
        client: u64,
    },
    /// Hear something about a client that has no answer.
    Tell {
        /// Which.
        client: u64,
        /// What.
        body: to_worker::Body,
    },
    /// Say what a request of a client has cost so far.
    ReportCost {
        /// Whose.
        client: u64,
        /// Which.
        request: u64,
        /// Told the answer; dropped if the client is gone.
        done: oneshot::Sender<Cost>,
    },
    /// Tell of what happens to clients, or no longer.
    Follow {
        /// Whether to tell.
        events: bool,
    },
    /// Say who uses what.
    ReportUsage {
        /// Told the answer.
        done: oneshot::Sender<Usage>,
    },
}

impl Order {
    /// Whom it is about, if it is one client.
    #[must_use]
    pub fn client(&self) -> Option<u64> {
        match self {
            Self::Attach { attach, .. } => Some(attach.client),
            Self::Detach { client, .. }
            | Self::Release { client, .. }
            | Self::Forget { client }
            | Self::Tell { client, .. }
            | Self::ReportCost { client, .. } => Some(*client),
            Self::Follow { .. } | Self::ReportUsage { .. } => None,
        }
    }
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
    /// Those of a link.
    Files(Vec<Arc<OwnedFd>>),
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
            Self::Files(files) => files.iter().map(|file| file.as_fd()).collect(),
        }
    }
}
