//! Why a process does not become a client, and whether it may if it asks again.

use crate::server::clients::NoRoom;
use crate::server::node::ATTACH_TIMEOUT;
use crate::server::workers::enclosures::TooManyEnclosures;
use crate::server::workers::order::NotServed;
use std::io;
use torpor_proto::channel::ChannelError;

/// Why a client is not let in. The text is what its user reads.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// Too many are there.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// No worker is ready, and none will be soon.
    #[error("no GPU is ready{0}; see `torpor gpus` and the server's log")]
    NoGpu(String),
    /// A worker is being started.
    #[error("no GPU is ready yet; see `torpor gpus` and the server's log")]
    GpuStarting,
    /// It would be one enclosure too many.
    #[error(transparent)]
    Enclosures(#[from] TooManyEnclosures),
    /// The server is ending.
    #[error("the server is ending")]
    Ending,
    /// The kernel gave no random bytes.
    #[error("the server has no random numbers: {0}")]
    Random(io::Error),
}

impl AdmitError {
    /// Whether the next try may end otherwise, soon.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoRoom(NoRoom::Admissions) | Self::GpuStarting | Self::Ending => true,
            Self::NoRoom(NoRoom::Function { .. } | NoRoom::Places { .. } | NoRoom::Addresses)
            | Self::NoGpu(_)
            | Self::Enclosures(_)
            | Self::Random(_) => false,
        }
    }
}

/// Why a client gets no memory.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Its token is not known (any more), or another function's.
    #[error("the token is not known: it is good once, for two seconds, for the function that got it")]
    Token,
    /// The kernel gave no memory.
    #[error("the server cannot make shared memory: {0}")]
    Memory(#[from] ChannelError),
    /// The worker would not have it.
    #[error("the GPU's worker does not take the client: {0}")]
    Worker(#[from] NotServed),
    /// The worker said nothing.
    #[error("the GPU's worker did not answer within {} seconds{silence}", ATTACH_TIMEOUT.as_secs())]
    Slow {
        /// Whether that is known of it.
        silence: String,
    },
}

impl JoinError {
    /// Whether the next try, with another hello, may end otherwise, soon. A node that is very busy lets tokens run out.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Token | Self::Slow { .. } | Self::Worker(NotServed::NoWorker(_) | NotServed::Died(_)) => {
                true
            }
            Self::Memory(_) | Self::Worker(NotServed::Refused(_)) => false,
        }
    }
}
