//! `torpor stop`: ends a server.

use crate::DirectoryFlag;
use crate::admin::Admin;
use crate::error::CliError;
use crate::server_process::{InBrackets, ServerProcess};
use crate::table::print_json;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use torpor_proto::control::admin::{ListGpusRequest, ShutdownRequest};
use torpor_proto::directory::ServerDirectory;

/// How long a server may take to end: its workers have five seconds to leave before they are killed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at a server whose process cannot be watched.
const LOOK_EVERY: Duration = Duration::from_millis(20);

const EXAMPLES: &str = "\
Every client's CUDA calls return an error from then on (CUDA_ERROR_DEVICE_UNAVAILABLE); their programs must be started again.
Returns when the server's process has ended.

With --keep, programs notice nothing: the server's keeper (`torpor serve --keeper true`) starts the next one from the program that lies
there now, which goes on where this one was. Returns when that serves.

Examples:
  torpor stop
  torpor stop --keep      # after an upgrade";

/// End the server in order
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Stop {
    /// Let the next server go on with clients and workers: its keeper starts it
    #[arg(long)]
    keep: bool,

    /// Print JSON: an object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    directory: DirectoryFlag,
}

impl Stop {
    /// Ends it, and waits until it has ended.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let server = self.directory.server();
        let mut admin = Admin::connect(&server)?;
        let process = ServerProcess::of(&server);
        let watched = process.and_then(ServerProcess::watch);
        let keep = self.keep;
        admin.call(async |api| api.shutdown(ShutdownRequest { keep }).await)?;
        let ended = match watched {
            Some(process) => ends(&process)?,
            // The keeper never lets go.
            None if keep => true,
            None => lets_go(&server),
        };
        if keep && ended {
            // It answers once it serves.
            Admin::connect_patiently(&server)?.ask(async |api| api.list_gpus(ListGpusRequest {}).await)?;
        }
        if ended {
            if self.json {
                print_json(&json!({"stopped": true, "kept": keep, "directory": server.path()}));
            }
            Ok(ExitCode::SUCCESS)
        } else {
            Err(CliError::DoesNotEnd { directory: server.path().to_owned(), process: InBrackets(process) })
        }
    }
}

/// Waits for a process; false if it takes too long.
fn ends(process: &OwnedFd) -> io::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until nobody holds the directory any more; false if it takes too long.
fn lets_go(server: &ServerDirectory) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while ServerProcess::of(server).is_some() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
}
