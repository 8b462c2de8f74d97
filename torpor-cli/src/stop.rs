//! `torpor stop`: ends a server.

use crate::DirectoryFlag;
use crate::admin::Admin;
use crate::error::CliError;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use torpor_proto::control::admin::ShutdownRequest;

/// How long a server may take to end: its workers have five seconds to leave before they are killed.
const PATIENCE: Duration = Duration::from_secs(15);

const EXAMPLES: &str = "\
Every client's CUDA calls return an error from then on (CUDA_ERROR_DEVICE_UNAVAILABLE).

Example:
  torpor stop";

/// End the server in order
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Stop {
    #[command(flatten)]
    directory: DirectoryFlag,
}

impl Stop {
    /// Ends it, and waits until it has ended.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let server = self.directory.server();
        Admin::connect(&server)?.call(async |api| api.shutdown(ShutdownRequest {}).await)?;
        let deadline = Instant::now() + PATIENCE;
        while server.functions().exists() && server.admin_socket().exists() {
            if Instant::now() >= deadline {
                return Err(CliError::DoesNotEnd(server.path().to_owned()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(ExitCode::SUCCESS)
    }
}
