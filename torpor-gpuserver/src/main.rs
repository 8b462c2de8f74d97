//! `torpor-gpuserver`: the node server, and (as hidden subcommands) the processes that it starts.

use clap::{Parser, Subcommand};
use rustix::process::Signal;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use torpor_gpuserver::server::{self, ServeArgs, logging};
use torpor_gpuserver::worker::{self, Console, WorkerOptions};

/// The GPU server of a Torpor node.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve this node's GPUs, in the foreground, until SIGINT or SIGTERM (the same as `torpor serve`)
    Serve(Box<ServeArgs>),
    /// Serve the clients of one GPU; standard input is the socket to the node server
    #[command(hide = true)]
    Worker {
        #[arg(long)]
        device: u32,
    },
    /// Count the GPUs of a driver
    #[command(hide = true)]
    Probe {
        #[arg(long)]
        driver: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Serve(arguments) => serve(*arguments),
        Verb::Worker { device } => work(device),
        Verb::Probe { driver } => server::probe(&driver).map(|devices| println!("{devices}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tell(&reason);
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: ServeArgs) -> Result<(), String> {
    let options = arguments.options().map_err(|error| error.to_string())?;
    logging::begin(&options.log).map_err(|error| error.to_string())?;
    server::run(options, std::future::pending(), |serving| eprintln!("torpor: {serving}"))
        .map_err(|error| error.to_string())
}

fn work(device: u32) -> Result<(), String> {
    // A server that is killed takes its workers along even while they are busy and do not look at their socket.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| error.to_string())?;
    let server = take_standard_input().map_err(|error| error.to_string())?;
    let console = Arc::new(Console::capture().map_err(|error| error.to_string())?);
    let done = begin(device, server, &console);
    console.release();
    if let Err(reason) = done {
        tell(&reason);
        // Without running the driver's exit handlers: they would give back what a lost context has, piece by piece.
        // SAFETY: ends the process; nothing of it is used afterwards.
        unsafe { libc::_exit(1) }
    }
    Ok(())
}

fn tell(reason: &str) {
    eprintln!("torpor-gpuserver: {reason}");
}

fn begin(device: u32, server: OwnedFd, console: &Arc<Console>) -> Result<(), String> {
    let Some(begin) = worker::hear_first(&server).map_err(|error| error.to_string())? else { return Ok(()) };
    logging::begin_in(&begin.log, console.log()).map_err(|error| error.to_string())?;
    let options = WorkerOptions { device, server, console: Some(console.clone()), begin };
    worker::run(options).map_err(|error| error.to_string())
}

/// Standard input as a descriptor of our own, and nothing in its place for libraries that would read from it.
fn take_standard_input() -> io::Result<OwnedFd> {
    let taken = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(taken)
}
