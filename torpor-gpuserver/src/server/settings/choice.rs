//! Settings that are one of a few words.

use serde::Deserialize;
use std::fmt;
use torpor_proto::control::{admin, worker};

/// In which order requests that wait in the router come to the GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// As they came
    Fifo,
    /// The one that must begin first to be in time
    Deadline,
    /// Those of functions whose objectives can still be kept, as in the paper
    SloAware,
}

/// What a function is kept apart from others by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// By its commands alone: its kernels run in one context with those of all functions that share a GPU
    #[default]
    Shared,
    /// By a worker process of its own on each GPU, in which nobody else's memory is mapped
    Strict,
}

impl From<admin::Isolation> for Isolation {
    fn from(isolation: admin::Isolation) -> Self {
        match isolation {
            admin::Isolation::Shared => Self::Shared,
            admin::Isolation::Strict => Self::Strict,
        }
    }
}

impl From<Isolation> for admin::Isolation {
    fn from(isolation: Isolation) -> Self {
        match isolation {
            Isolation::Shared => Self::Shared,
            Isolation::Strict => Self::Strict,
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Shared => "shared",
            Self::Strict => "strict",
        })
    }
}

/// What becomes of writes when a client gives its GPU up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Writeback {
    /// Everything is kept.
    #[default]
    Changed,
    /// What kernels write after the first request is scratch.
    Never,
}

impl fmt::Display for Writeback {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Changed => "changed",
            Self::Never => "never",
        })
    }
}

impl From<Writeback> for worker::Writeback {
    fn from(writeback: Writeback) -> Self {
        match writeback {
            Writeback::Changed => Self::Changed,
            Writeback::Never => Self::Never,
        }
    }
}
