//! Why a function is not as it was asked to be, and what the operator can do.

use crate::server::node::FunctionError;
use crate::server::scheduler::moves::MoveError;
use crate::server::settings::TermsError;
use crate::server::size::ByteSize;
use std::time::Duration;
use tonic::Status;

/// How long memory may stay where it is before whoever waits for it is told.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Why a function is not as it was asked to be.
#[derive(Debug, thiserror::Error)]
pub enum FunctionOrderError {
    /// There is none of that name.
    #[error("there is no function {name}{hint} (`torpor functions` lists them)")]
    Unknown {
        /// The name.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// There is no such GPU.
    #[error("GPU {gpu} is not served; those that are: {served}")]
    NoSuchGpu {
        /// Which was asked for.
        gpu: u32,
        /// Which there are.
        served: String,
    },
    /// It stays elsewhere.
    #[error(
        "a process of function {name} cannot be moved from GPU {is} to GPU {asked}: {reason}; where it cannot be moved, end \
         it, say `torpor pin {name} --gpu {asked}`, and start it again"
    )]
    NotMoved {
        /// The function.
        name: String,
        /// Where it is.
        is: u32,
        /// Where it was asked to be.
        asked: u32,
        /// Why it stays.
        reason: MoveError,
    },
    /// It goes elsewhere later.
    #[error(
        "function {name} is busy on GPU {is} after {} seconds; it moves to GPU {asked} as soon as it is idle",
        PATIENCE.as_secs()
    )]
    Busy {
        /// The function.
        name: String,
        /// Where it is.
        is: u32,
        /// Where it was asked to be.
        asked: u32,
    },
    /// No process of it is there.
    #[error(
        "no process of function {0} runs, so there is nothing to load; start one with `torpor run --function {0}`"
    )]
    NoClients(String),
    /// Its memory does not come.
    #[error(
        "function {name}: {resident} of {allocated} are on the GPU, and no more came for {} seconds; is the GPU full or \
         busy? See `torpor functions` and `torpor gpus`",
        PATIENCE.as_secs()
    )]
    NotLoaded {
        /// The function.
        name: String,
        /// What is there.
        resident: ByteSize,
        /// What it has.
        allocated: ByteSize,
    },
    /// Its memory does not go.
    #[error(
        "function {name} is busy: {resident} of it are still on the GPU after {} seconds; they leave as soon as it is idle, \
         unless the server's log says why they cannot be saved",
        PATIENCE.as_secs()
    )]
    NotUnloaded {
        /// The function.
        name: String,
        /// What is there.
        resident: ByteSize,
    },
    /// Its worker says nothing.
    #[error(
        "the GPU's worker does not say what function {0} has there; see `torpor gpus` and the server's log"
    )]
    Silent(String),
}

impl From<FunctionOrderError> for Status {
    fn from(error: FunctionOrderError) -> Self {
        let text = error.to_string();
        match error {
            FunctionOrderError::Unknown { .. } | FunctionOrderError::NoSuchGpu { .. } => {
                Self::not_found(text)
            }
            FunctionOrderError::NotMoved { .. } | FunctionOrderError::NoClients(_) => {
                Self::failed_precondition(text)
            }
            FunctionOrderError::Busy { .. }
            | FunctionOrderError::NotLoaded { .. }
            | FunctionOrderError::NotUnloaded { .. }
            | FunctionOrderError::Silent(_) => Self::unavailable(text),
        }
    }
}

impl From<FunctionError> for Status {
    fn from(error: FunctionError) -> Self {
        let text = error.to_string();
        match error {
            FunctionError::Name(_) => Self::invalid_argument(text),
            FunctionError::Named(_) => Self::failed_precondition(text),
            FunctionError::Directory(_) | FunctionError::Sockets { .. } => Self::internal(text),
        }
    }
}

impl From<TermsError> for Status {
    fn from(error: TermsError) -> Self {
        let text = error.to_string();
        match error {
            TermsError::MemoryLimit(_)
            | TermsError::Isolation(_)
            | TermsError::Slo
            | TermsError::Gpus(_)
            | TermsError::AboveGpu(_) => Self::invalid_argument(text),
            TermsError::InUse(_) => Self::failed_precondition(text),
            TermsError::Io { .. } => Self::internal(text),
        }
    }
}
