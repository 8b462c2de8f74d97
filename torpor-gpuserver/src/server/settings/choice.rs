//! Settings that are one of a few words.

use serde::Deserialize;
use std::fmt;
use torpor_proto::control::worker;

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
