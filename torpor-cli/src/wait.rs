//! `torpor wait`: until a server listens.

use crate::DirectoryFlag;
use crate::admin::check_listening;
use crate::error::CliError;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use torpor_gpuserver::server::time::Time;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

const EXAMPLES: &str = "\
For scripts that start a server in the background. Exits with 3 if none listens in time.

Example:
  torpor serve & torpor wait && torpor run -- python infer.py";

/// Wait until a server listens
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Wait {
    #[command(flatten)]
    directory: DirectoryFlag,

    /// How long, at most
    #[arg(long, value_name = "TIME", default_value = "60s")]
    timeout: Time,
}

impl Wait {
    /// Waits.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let server = self.directory.server();
        let began = Instant::now();
        loop {
            match check_listening(&server) {
                Ok(()) => return Ok(ExitCode::SUCCESS),
                Err(CliError::NoServer(_)) if began.elapsed() < self.timeout.0 => {
                    std::thread::sleep(LOOK_EVERY);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
