//! A client of the node, and how far it has come.

use crate::policy::event::Rules;
use crate::server::clients::addresses::Addresses;
use crate::server::clients::{ClientId, Token};
use crate::server::workers::executor::Executor;
use crate::server::workers::order::ClientMemory;
use std::sync::Arc;
use std::time::Instant;
use torpor_proto::control::worker;

/// What is known of a client from the start.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// Its function: the directory through which it came.
    pub function: String,
    /// What it says its program is.
    pub program: String,
    /// Where it is served. The only place that knows.
    pub at: Arc<Executor>,
}

impl Introduction {
    /// Index into the server's GPUs: that on which it is served.
    #[must_use]
    pub fn gpu(&self) -> usize {
        self.at.gpu
    }
}

/// A client.
#[derive(Debug)]
pub struct Client {
    /// Its identity.
    pub id: ClientId,
    /// What it alone may use.
    pub addresses: Addresses,
    /// Who it says it is.
    pub introduction: Introduction,
    /// Its process, as this server's kernel names it; 0 if it does not.
    pub pid: u32,
    /// Since when it has been there.
    pub since: Instant,
    /// What its worker was told last of its function's settings.
    pub told: worker::Settings,
    /// What the scheduler was told last of its function's settings.
    pub rules: Rules,
    /// The GPU that it is being moved to.
    pub moving_to: Option<usize>,
    /// Grows whenever it begins to move, and when that is over.
    pub generation: u64,
    /// Which of its function's devices its program uses, if it has begun to use one.
    pub home: Option<u32>,
    /// It has been handed its memory.
    pub has_memory: bool,
    pub(super) phase: Phase,
}

/// How far it has come.
#[derive(Debug)]
pub(super) enum Phase {
    Admitted { token: Token, until: Instant },
    Joining,
    Serving(Arc<ClientMemory>),
    Leaving,
}

impl Client {
    /// Whether its worker serves it, or did until it failed.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Serving(_))
    }

    /// Its memory, while it is served.
    #[must_use]
    pub fn memory(&self) -> Option<&Arc<ClientMemory>> {
        match &self.phase {
            Phase::Serving(memory) => Some(memory),
            _ => None,
        }
    }

    /// Whether every later call of it fails.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        matches!(&self.phase, Phase::Serving(memory) if memory.channel.sticky_error().is_some())
    }
}
