//! `torpor demo`: several small functions share whatever GPU there is, and every answer of theirs is checked.
//!
//! The functions are processes of their own that know nothing of Torpor ([`function`]; one in PyTorch where that can run).
//! They load, are asked one request after another in a random order, and end; then the server ends; then the CPU
//! computes every answer again ([`mod@reference`]), when that disturbs no latency any more.

mod device_network;
mod function;
mod interrupt;
mod network;
mod plan;
mod process;
mod protocol;
mod pytorch;
mod random;
mod reference;
mod report;
mod session;
mod statistics;
mod verdict;

pub use function::DemoFunction;

use crate::admin::Admin;
use crate::error::CliError;
use crate::private_server::PrivateServer;
use crate::run::preload;
use process::{Event, FunctionProcess};
use report::{Outcome, print_outcomes, print_outcomes_as_json};
use rustix::process::Signal;
use session::{Function, Running, Session, next};
use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;
use torpor_gpuserver::server::TuningArgs;
use torpor_gpuserver::server::installation::INTERCEPT_LIBRARY;
use torpor_gpuserver::server::options::{DriverChoice, Flags};
use torpor_gpuserver::server::size::ByteSize;
use torpor_proto::control::admin::{EnsureFunctionRequest, Gpu, ListGpusRequest};

/// How many lines of the server's log are shown when something goes wrong.
const LOG_LINES: usize = 5;

const EXAMPLES: &str = "\
FUNCTION is a process with a network of its own; KERNELS are those of a request; LOAD is from its start until it is
ready; P50 and P99 are of the time from a request to its answer; WRONG counts answers that are not what the CPU
computes. Exits with status 1 if there is one.

Examples:
  torpor demo
  torpor demo --driver simulated
  torpor demo --requests 1000 --json";

/// Run several small functions on whatever GPU there is, and check every answer
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Demo {
    /// The CUDA driver: "auto" (the system's, or the simulated one where there is none), "simulated", or a path
    #[arg(long, value_name = "DRIVER", default_value = "auto")]
    driver: DriverChoice,

    /// Requests in all
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,

    /// Print JSON: sizes in bytes, durations in microseconds
    #[arg(long)]
    json: bool,
}

/// Why the demo cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The user has seen enough.
    #[error("interrupted")]
    Interrupted(Signal),
    /// A function is gone or talks nonsense.
    #[error("the function {function} fails: {reason}")]
    Function {
        /// Its name.
        function: &'static str,
        /// Why.
        reason: String,
    },
    /// Nothing happens.
    #[error("no function has said anything for {seconds} s; is the machine overloaded, or the GPU stuck?")]
    Silence {
        /// How long.
        seconds: u64,
    },
}

impl Demo {
    /// Demonstrates.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let done = self.demonstrate();
        if let Err(CliError::Demo(DemoError::Interrupted(signal))) = done {
            eprintln!("torpor: interrupted");
            return Ok(ExitCode::from(interrupt::exit_code(signal)));
        }
        done
    }

    fn demonstrate(self) -> Result<ExitCode, CliError> {
        let began = Instant::now();
        let (sender, events) = channel();
        interrupt::watch(sender.clone())?;
        let flags = Flags { driver: Some(self.driver), ..Flags::default() };
        let tuning = TuningArgs { flags, ..TuningArgs::default() };
        let server = PrivateServer::start(&tuning)?;
        let mut admin = Admin::connect(server.directory())?;
        let gpus = admin.call(async |api| api.list_gpus(ListGpusRequest {}).await)?.gpus;
        gpus.iter().for_each(|gpu| eprintln!("{}", describe(gpu)));
        let planned = plan::plan(&gpus, &events)?;
        let session = start(&mut admin, planned, &sender, &events)?;
        drop(admin);
        let ran = session.run(self.requests as usize).inspect_err(|error| tell_log(error, server.log()))?;
        drop(server);
        let outcomes = check(ran, &sender, &events)?;
        if self.json {
            print_outcomes_as_json(&gpus, &outcomes, began.elapsed());
        } else {
            print_outcomes(&outcomes, began.elapsed());
        }
        let right = outcomes.iter().all(|outcome| outcome.wrong.is_empty());
        Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn describe(gpu: &Gpu) -> String {
    let memory = ByteSize(gpu.total_memory_bytes);
    let simulated = if gpu.simulated { ", simulated on this machine's CPU" } else { "" };
    format!("GPU {}: {}, {memory}{simulated}", gpu.index, gpu.name)
}

/// Starts all functions, as `torpor run` would.
fn start<'a>(
    admin: &mut Admin,
    planned: Vec<(Function, Command)>,
    sender: &Sender<Event>,
    events: &'a Receiver<Event>,
) -> Result<Session<'a>, CliError> {
    let preloaded = preload(&INTERCEPT_LIBRARY.find()?, env::var_os("LD_PRELOAD"))?;
    let mut session = Session { functions: Vec::new(), events };
    for (number, (function, mut command)) in planned.into_iter().enumerate() {
        let name = function.name.to_owned();
        let made =
            admin.call(async |api| api.ensure_function(EnsureFunctionRequest { name, terms: None }).await)?;
        command.env("LD_PRELOAD", &preloaded).env("TORPOR_SERVER", made.directory);
        let program = command.get_program().to_owned();
        let process = FunctionProcess::start(command, number, sender.clone())
            .map_err(|error| CliError::Command { command: program, error })?;
        session.functions.push(Running::new(function, process));
    }
    Ok(session)
}

/// Compares every answer with the CPU's, on a thread per function.
fn check(
    ran: Vec<Running>,
    sender: &Sender<Event>,
    events: &Receiver<Event>,
) -> Result<Vec<Outcome>, DemoError> {
    let outcomes = ran.into_iter().enumerate().map(|(number, running)| {
        let Running { function, load, latencies, gpu, answers, .. } = running;
        let (network, sender) = (Arc::clone(&function.network), sender.clone());
        thread::spawn(move || {
            let wrong = verdict::check(&network, &answers);
            // Nobody waits for it if the demo was interrupted.
            let _ = sender.send(Event::Checked { function: number, wrong });
        });
        Outcome { function, load: load.unwrap_or_default(), latencies, gpu, wrong: Vec::new() }
    });
    let mut outcomes: Vec<Outcome> = outcomes.collect();
    for _ in 0..outcomes.len() {
        match next(events)? {
            Event::Checked { function, wrong } => outcomes[function].wrong = wrong,
            Event::Interrupted(signal) => return Err(DemoError::Interrupted(signal)),
            other => unreachable!("all functions have ended, and none said this: {other:?}"),
        }
    }
    Ok(outcomes)
}

/// Shows what the server complained about before an error: its log goes when it does.
fn tell_log(error: &DemoError, log: &Path) {
    if matches!(error, DemoError::Interrupted(_)) {
        return;
    }
    let log = fs::read_to_string(log).unwrap_or_default();
    let complains = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
    let lines: Vec<&str> = log.lines().filter(complains).collect();
    for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
        eprintln!("torpor: the server's log: {line}");
    }
}
