//! `torpor-gpuserver`: the node server, and (as hidden subcommands) the processes that it starts.

use clap::{Parser, Subcommand};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use torpor_gpuserver::compiler;
use torpor_gpuserver::server::{self, ServeArgs, keeper, logging};
use torpor_gpuserver::standard_input;
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
        /// The server has a keeper
        #[arg(long)]
        kept: bool,
    },
    /// Unpack and compile what functions bring as code, for one GPU; standard input is the socket to listen at
    #[command(hide = true)]
    Compiler {
        #[arg(long)]
        driver: PathBuf,
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
        Verb::Serve(arguments) => match serve(*arguments) {
            Ok(code) => return code,
            Err(reason) => Err(reason),
        },
        Verb::Worker { device, kept } => work(device, kept),
        Verb::Compiler { driver, device } => compile(&driver, device),
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

fn serve(arguments: ServeArgs) -> Result<ExitCode, String> {
    let options = arguments.options().map_err(|error| error.to_string())?;
    if options.flags.keeper() && !keeper::is_kept() {
        return keeper::process::run().map_err(|error| error.to_string());
    }
    logging::begin(&options.log).map_err(|error| error.to_string())?;
    server::run(options, std::future::pending(), |serving| eprintln!("torpor: {serving}"))
        .map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn work(device: u32, kept: bool) -> Result<(), String> {
    worker::die_with_server(kept).map_err(|error| error.to_string())?;
    let server = standard_input::take().map_err(|error| error.to_string())?;
    let console = Arc::new(Console::capture().map_err(|error| error.to_string())?);
    let done = begin(device, kept, server, &console);
    console.release();
    if let Err(reason) = done {
        tell(&reason);
        // Without running the driver's exit handlers: they would give back what a lost context has, piece by piece.
        // SAFETY: ends the process; nothing of it is used afterwards.
        unsafe { libc::_exit(1) }
    }
    Ok(())
}

fn compile(driver: &Path, device: u32) -> Result<(), String> {
    worker::die_with_server(false).map_err(|error| error.to_string())?;
    let listener = standard_input::take().map_err(|error| error.to_string())?;
    compiler::run(driver, device, &listener).map_err(|error| format!("the compiler of GPU {device}: {error}"))
}

fn tell(reason: &str) {
    eprintln!("torpor-gpuserver: {reason}");
}

fn begin(device: u32, kept: bool, server: OwnedFd, console: &Arc<Console>) -> Result<(), String> {
    let Some(begin) = worker::hear_first(&server).map_err(|error| error.to_string())? else { return Ok(()) };
    logging::begin_in(&begin.log, console.log()).map_err(|error| error.to_string())?;
    let options = WorkerOptions { device, server, console: Some(console.clone()), begin, kept };
    worker::run(options).map_err(|error| error.to_string())
}
