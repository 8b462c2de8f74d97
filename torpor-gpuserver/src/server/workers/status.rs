//! What is known of a GPU: whether it can serve, by what worker, and what is wrong.

use crate::server::workers::heartbeat::Silence;
use std::sync::Arc;
use torpor_proto::control::client::Device;

/// Whether a GPU can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its worker is being started.
    Starting,
    /// It serves.
    Ready,
    /// Its worker could not be started; that is tried again and again.
    Failed(String),
}

/// How its spare worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpareState {
    /// It never has one.
    Off,
    /// One is made, or soon.
    Starting,
    /// This process can take over at once.
    Ready(u32),
    /// None could be made; that is tried again and again.
    Failed,
}

impl SpareState {
    /// Whether one can take over at once.
    #[must_use]
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Ready(_))
    }

    /// The process that can.
    #[must_use]
    pub fn pid(self) -> Option<u32> {
        match self {
            Self::Ready(pid) => Some(pid),
            _ => None,
        }
    }

    /// In one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Starting => "starting",
            Self::Ready(_) => "ready",
            Self::Failed => "failed",
        }
    }
}

/// What is known of a GPU.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether it can serve.
    pub state: State,
    /// What its worker says of it, once one was ready.
    pub device: Option<Arc<Device>>,
    /// Its worker's process.
    pub worker_pid: Option<u32>,
    /// Workers that ended.
    pub worker_restarts: u64,
    /// Whether worker or driver do not answer, though the GPU is ready.
    pub silence: Option<Silence>,
    /// How its spare worker is.
    pub spare: SpareState,
}

impl Status {
    /// Whether it can serve, in one word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self.state {
            State::Starting => "starting",
            State::Ready if self.silence.is_some() => "unresponsive",
            State::Ready => "ready",
            State::Failed(_) => "failed",
        }
    }

    /// What is wrong with it, for people; empty if nothing is.
    #[must_use]
    pub fn trouble(&self) -> String {
        match (&self.state, &self.silence) {
            (State::Failed(reason), _) => reason.clone(),
            (State::Ready, Some(silence)) => silence.to_string(),
            _ => String::new(),
        }
    }
}
