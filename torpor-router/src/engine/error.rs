//! Why a container cannot be started, and what the operator can do.

use bollard::errors::Error;
use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use torpor_gpuserver::server::installation::MissingPart;

/// Why a container cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nobody answers.
    #[error(
        "the container engine at {address} does not answer: {error}; does it run, and may the router's user open that socket? \
         $DOCKER_HOST names another one (unix:// or tcp://)"
    )]
    Silent {
        /// The engine's.
        address: String,
        /// Why not.
        error: String,
    },
    /// It answers that it does not do it.
    #[error("the container engine does not {what}: {message}")]
    Refused {
        /// What it was asked for.
        what: &'static str,
        /// Its word.
        message: String,
    },
    /// There is no such image, here or elsewhere.
    #[error(
        "the image {image} is not on this machine and cannot be pulled: {error}; `docker pull {image}` as a user who is logged in \
         where it is, `docker load` or `docker build` puts it here"
    )]
    NoImage {
        /// Its name.
        image: String,
        /// Why not.
        error: String,
    },
    /// The preloaded library is not where it should be.
    #[error(transparent)]
    Library(#[from] MissingPart),
    /// It cannot be put where the engine finds it.
    #[error("what containers need of Torpor cannot be put into {folder}: {error}")]
    Folder {
        /// Where.
        folder: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It was put where no program may be.
    #[error(
        "{folder} is on a file system whose files cannot be executed (noexec), the library included: mount another folder of the \
         host there, into the router's container"
    )]
    NoExec {
        /// Where.
        folder: PathBuf,
    },
    /// The router's container has it, the host does not.
    #[error(
        "{path} is in the router's own container alone, where the engine cannot see it: mount a folder of the host there"
    )]
    NotOnHost {
        /// What.
        path: PathBuf,
    },
    /// The container cannot be reached.
    #[error(
        "the container has no address in the network {network}: container_network in [server] must be one in which containers have \
         addresses, such as a bridge"
    )]
    NoAddress {
        /// Where it is.
        network: String,
    },
    /// The engine has not published its port.
    #[error("the container engine has not published the container's port on the loopback interface")]
    NotPublished,
    /// The function has no directory.
    #[error("the function has no directory yet: {0}")]
    NoFunction(String),
}

impl EngineError {
    /// What went wrong when an engine at an address was asked to do something.
    #[must_use]
    pub fn of(address: &str, what: &'static str, error: &Error) -> Self {
        match error {
            Error::DockerResponseServerError { message, .. }
            | Error::DockerStreamError { error: message } => {
                Self::Refused { what, message: message.trim().to_owned() }
            }
            error => Self::Silent { address: address.to_owned(), error: whole(error) },
        }
    }
}

/// An error with all that caused it: the last one says most.
pub(super) fn whole(error: &Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Whether the engine says that there is no such thing.
pub(super) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}
