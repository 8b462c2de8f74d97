//! `torpor serve`: the node server, in this process.

use crate::error::CliError;
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::sync::oneshot;
use torpor_gpuserver::server::{self, ServeArgs, keeper, logging};

const EXAMPLES: &str = "\
Prints one line on standard error when clients can come. Ends at SIGINT, SIGTERM or `torpor stop`. With --keeper true, this process
starts the server as its child, and again if that is killed: programs go on.

Examples:
  torpor serve
  torpor serve --gpus 0,1 --memory-limit 20GiB
  torpor serve --config /etc/torpor.toml
  torpor serve --driver simulated      # no GPU needed

A container becomes a client by the directory of its function, DIR/functions/NAME, mounted into it and named by
TORPOR_SERVER, with libtorpor_intercept.so preloaded.";

/// Serve this node's GPUs, in the foreground
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Serve {
    #[command(flatten)]
    serve: ServeArgs,

    /// Serve `torpor run` alone: end with standard input, and remove this directory then
    #[arg(long, hide = true, value_name = "DIR")]
    private: Option<PathBuf>,
}

impl Serve {
    /// Serves until told to end.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let options = self.serve.options()?;
        // A private server ends with its command, whatever ends that.
        if self.private.is_none() && options.flags.keeper() && !keeper::is_kept() {
            return Ok(keeper::process::run()?);
        }
        logging::begin(&options.log)?;
        let announce = |serving: &server::Serving| eprintln!("torpor: {serving}");
        match self.private {
            None => server::run(options, std::future::pending(), announce)?,
            Some(directory) => {
                // A Ctrl-C at the terminal is for the command; this server ends when `torpor run` does.
                rustix::process::setsid().map_err(io::Error::from)?;
                server::run(options, end_of_standard_input(), announce)?;
                fs::remove_dir_all(directory)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Is over when nobody holds the other end of standard input any more.
fn end_of_standard_input() -> impl Future<Output = ()> {
    let (ended, end) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let mut ignored = [0; 64];
        while matches!(io::stdin().read(&mut ignored), Ok(1..)) {}
        drop(ended);
    });
    async {
        // The sender never sends: its end is the message.
        let _ = end.await;
    }
}
