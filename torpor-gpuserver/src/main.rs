//! `torpor-gpuserver`: the node server, and (as hidden subcommands) the processes that it starts.

use clap::{Parser, Subcommand};
use rustix::process::Signal;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use torpor_gpuserver::server::{self, ServeArgs, logging};
use torpor_gpuserver::swap_mode::SwapMode;
use torpor_gpuserver::worker::{self, WorkerOptions};

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
    Serve(ServeArgs),
    /// Serve the clients of one GPU; standard input is the socket to the node server
    #[command(hide = true)]
    Worker {
        #[arg(long)]
        device: u32,
        #[arg(long)]
        driver: PathBuf,
        #[arg(long)]
        images: PathBuf,
        #[arg(long)]
        spin_us: u64,
        #[arg(long, default_value_t = 0)]
        gpu_limit_bytes: u64,
        #[arg(long, default_value_t = 1)]
        active_clients: usize,
        #[arg(long, default_value_t = 100_000)]
        linger_us: u64,
        #[arg(long)]
        swap: SwapMode,
        #[arg(long)]
        swap_group_bytes: u64,
        #[arg(long)]
        log: String,
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
        Verb::Serve(arguments) => serve(arguments),
        Verb::Worker {
            device,
            driver,
            images,
            spin_us,
            gpu_limit_bytes,
            active_clients,
            linger_us,
            swap,
            swap_group_bytes,
            log,
        } => work(&log, |server| WorkerOptions {
            driver,
            device,
            server,
            images,
            spin: Duration::from_micros(spin_us),
            memory_limit_bytes: gpu_limit_bytes,
            active_clients,
            linger: Duration::from_micros(linger_us),
            swap,
            group_bytes: swap_group_bytes,
        }),
        Verb::Probe { driver } => server::probe(&driver).map(|devices| println!("{devices}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("torpor-gpuserver: {reason}");
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

fn work(log: &str, options: impl FnOnce(OwnedFd) -> WorkerOptions) -> Result<(), String> {
    // A server that is killed takes its workers along even while they are busy and do not look at their socket.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| error.to_string())?;
    logging::begin(log).map_err(|error| error.to_string())?;
    let server = take_standard_input().map_err(|error| error.to_string())?;
    worker::run(options(server)).map_err(|error| error.to_string())
}

/// Standard input as a descriptor of our own, and nothing in its place for libraries that would read from it.
fn take_standard_input() -> io::Result<OwnedFd> {
    let taken = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(taken)
}
