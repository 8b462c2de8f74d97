//! What can go wrong, and the exit code it ends with.

use crate::bench::BenchError;
use crate::calibrate::CalibrationError;
use crate::demo::DemoError;
use crate::deploy::DeployError;
use crate::load_test::LoadTestError;
use crate::server_process::InBrackets;
use crate::simulate::SimulationError;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use torpor_gpuserver::server::ServerError;
use torpor_gpuserver::server::installation::MissingPart;
use torpor_gpuserver::server::logging::InvalidLevel;
use torpor_gpuserver::server::options::OptionsError;
use torpor_router::RouterError;
use torpor_router::client::ClientError;

/// Why a verb failed. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Nobody is there to talk to.
    #[error(
        "no server listens in {0}; start one with `torpor serve`, or name another directory with --directory"
    )]
    NoServer(PathBuf),
    /// Somebody is there, but not for us.
    #[error(
        "the server in {directory} cannot be reached: {error}; are you the user who started it, or in the group of its \
         `torpor serve --group`? `torpor run --private` needs no server, --directory names another"
    )]
    Unreachable {
        /// Where it listens.
        directory: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Somebody holds the directory and does not listen.
    #[error("the server in {directory}{process} does not listen: it is still starting or ending, or hangs")]
    DoesNotListen {
        /// Where it was to listen.
        directory: PathBuf,
        /// Its process.
        process: InBrackets,
    },
    /// Device files for containers cannot be read or written.
    #[error("{folder}: {error}; are you root? --spec-dir names another folder for device files")]
    Cdi {
        /// Where.
        folder: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The server says no.
    #[error("the server refuses: {0}")]
    Refused(String),
    /// The server says nothing.
    #[error("the server in {directory}{process} has not answered for {seconds} seconds")]
    Silent {
        /// Where it listens.
        directory: PathBuf,
        /// Its process.
        process: InBrackets,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The connection to it ended before its answer.
    #[error("the server in {directory}{process} broke off: {reason}")]
    BrokeOff {
        /// Where it listens, or did.
        directory: PathBuf,
        /// Its process.
        process: InBrackets,
        /// What became of the connection.
        reason: String,
    },
    /// It was told to end and does not.
    #[error(
        "the server in {directory}{process} does not end; `kill -KILL` ends it at once, and its workers with it"
    )]
    DoesNotEnd {
        /// Where it listened.
        directory: PathBuf,
        /// Its process.
        process: InBrackets,
    },
    /// The server that this command was to have for itself.
    #[error(
        "the private server did not start ({status}); its last words: {last_words}\n  the whole log: {log}"
    )]
    PrivateServer {
        /// How it ended.
        status: ExitStatus,
        /// The last line of its log.
        last_words: String,
        /// Its log.
        log: PathBuf,
    },
    /// No room for its directory.
    #[error("a private server needs a directory in {place}: {error}; set XDG_RUNTIME_DIR to another place")]
    TemporaryDirectory {
        /// Where it was to be.
        place: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// `LD_PRELOAD` is separated by colons and spaces.
    #[error("{0} cannot be preloaded, for its path has a space or a colon; install Torpor elsewhere")]
    Unpreloadable(PathBuf),
    /// The command is not there, or is no program.
    #[error("{command:?} cannot be executed: {error}")]
    Command {
        /// As it was given.
        command: OsString,
        /// Why not.
        error: io::Error,
    },
    /// A file of the installation is not there.
    #[error(transparent)]
    Installation(#[from] MissingPart),
    /// A flag makes no sense.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// A log level makes no sense.
    #[error(transparent)]
    Log(#[from] InvalidLevel),
    /// The server that this process was to be.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The benchmark.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// The router that this process was to be.
    #[error(transparent)]
    Router(#[from] RouterError),
    /// A router that was asked.
    #[error(transparent)]
    RouterClient(#[from] ClientError),
    /// What was to be deployed.
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// The load test.
    #[error(transparent)]
    LoadTest(#[from] LoadTestError),
    /// The simulation.
    #[error(transparent)]
    Simulation(#[from] SimulationError),
    /// The demo.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// Where the manual pages were to go.
    #[error("the manual pages cannot be written to {directory}: {error}; make the folder first")]
    Manual {
        /// The folder.
        directory: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// There is no profile.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// The operating system refused something that it usually does not.
    #[error("the operating system refuses: {0}")]
    Io(#[from] io::Error),
}

impl CliError {
    /// See `torpor --help`.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::NoServer(_) | Self::RouterClient(ClientError::NoRouter { .. }) => 3,
            Self::Options(_) | Self::Log(_) | Self::Deploy(_) => 2,
            Self::Command { error, .. } if error.kind() == io::ErrorKind::NotFound => 127,
            Self::Command { .. } => 126,
            _ => 1,
        })
    }
}
