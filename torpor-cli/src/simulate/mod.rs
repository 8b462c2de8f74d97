//! `torpor simulate`: what a node would do with a load, in virtual time, by the policies of server and router themselves.

mod baseline;
mod fleet;
mod generate;
mod link;
mod node;
pub mod profile;
mod told;
mod work;

use crate::error::CliError;
use crate::load_test::record::{self, Record};
use crate::load_test::trace::{self, TraceError};
use crate::load_test::{LoadTestError, positive};
use baseline::Lives;
use fleet::{Room, UNBOUNDED};
use generate::{Draw, Spacing};
use node::{Node, Policies};
use profile::{Profile, ProfileError};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use told::Told;
use torpor_gpuserver::policy::eviction::Eviction;
use torpor_gpuserver::policy::placement::Placement;
use torpor_gpuserver::server::settings::Policy;
use torpor_gpuserver::server::time::Time;
use work::{Function, Request, Tally, Work};

const EXAMPLES: &str = "\
Nothing runs and nothing is measured: a profile says what models take, and time is virtual. Requests pass the router's gate in the
order of --order, wait in the GPUs' own queues, are moved by the server's own decider, and drive each other out by the workers' own
eviction. One client at a time has a GPU. A profile is v100 or h200, with a number of GPUs behind it (v100x4), or a file like those
in torpor-cli/src/simulate/profiles; each number there says where it comes from.

With --nodes, functions are spread over as many nodes before the first request, as a Kubernetes scheduler would: each goes to the node of
which least is asked so far, by memory (of the host's for Torpor, of the GPUs' for native processes) and by the part of the GPUs' time that
it uses on average, and stays there.

Without --trace, requests are drawn: their counts in each minute have the statistics of the trace of the paper's prototype. A trace is
CSV of the kinds that `torpor load-test` reads. Functions take the models in turn.

Examples:
  torpor simulate --profile v100x4 --functions 160 --models resnet152 --slo 100ms
  torpor simulate --profile v100x4 --functions 400 --order slo-aware --placement interference --eviction heavy-last --records r.csv
  torpor simulate --profile v100x4 --functions 100 --system keep-alive --json
  torpor simulate --profile v100x4 --nodes 100 --functions 10000 --models resnet152 --skew 2
  torpor report r.csv --slo 80ms";

/// Simulate a node with many functions: latencies, objectives met, GPUs at work
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Simulate {
    /// What the node is and what models take: v100 or h200 with a number of GPUs, or a file
    #[arg(long, value_name = "NAME", default_value = "v100x4")]
    profile: String,

    /// So many of these nodes; functions are spread over them by what they ask for
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    nodes: u32,

    /// With several nodes: the part of the GPUs' time that functions may ask for in all, each as much as it uses on average
    #[arg(long, value_name = "PART", default_value_t = 0.7, value_parser = positive)]
    target: f64,

    /// What serves the functions
    #[arg(long, value_enum, default_value_t = System::Torpor)]
    system: System,

    /// How many functions [default: those of the trace, else 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    functions: Option<u32>,

    /// Their models, in turn [default: all of the profile]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    models: Vec<String>,

    /// A file that says when which function is asked
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// How many minutes are drawn
    #[arg(long, value_name = "N", default_value_t = 31, conflicts_with = "trace", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    minutes: u32,

    /// How the requests of a minute are spaced
    #[arg(long, value_enum, default_value_t = Spacing::Poisson, conflicts_with = "trace")]
    spacing: Spacing,

    /// How unequal functions are: the standard deviation of their rates by the mean [default: 0.7, and none above 33 a minute]
    #[arg(long, value_name = "N", conflicts_with = "trace", value_parser = skew)]
    skew: Option<f64>,

    /// How many times as many requests, or as fast a trace
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = positive)]
    speed: f64,

    /// Of all that is drawn
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Which request passes the router's gate first
    #[arg(long, value_enum, default_value_t = Policy::Deadline)]
    order: Policy,

    /// Requests that are on the GPUs' side of the gate at once [default: as many as GPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_running: Option<u32>,

    /// Where a client goes that waits for its turn
    #[arg(long, value_enum, default_value_t = Placement::Deadline)]
    placement: Placement,

    /// Who leaves a GPU first when others need the room
    #[arg(long, value_enum, default_value_t = Eviction::Predicted)]
    eviction: Eviction,

    /// Within what time requests should be answered
    #[arg(long, value_name = "TIME", default_value = "100ms")]
    slo: Time,

    /// The same for functions of one model, as bert_large_qa=200ms; may be given several times
    #[arg(long, value_name = "MODEL=TIME", value_parser = slo_of_model)]
    slo_of: Vec<(String, Time)>,

    /// The part of a function's requests for which that should hold
    #[arg(long, value_name = "PART", default_value_t = 0.98, value_parser = part)]
    percentile: f64,

    /// How long an answer is waited for
    #[arg(long, value_name = "TIME", default_value = "60s")]
    timeout: Time,

    /// Where to write what became of each request, as CSV
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,

    /// Print JSON: an object with the totals, each function's row, and where the profile's numbers come from
    #[arg(long)]
    json: bool,
}

/// What serves functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum System {
    /// This project
    Torpor,
    /// A native process for each function that fits, for ever
    Native,
    /// A native process for each function that was asked lately
    KeepAlive,
    /// The same, by what nobody can know: all gaps of the trace
    KeepAliveOracle,
}

/// Why there is no simulation.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// The profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The trace.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A model that no GPU has room for.
    #[error(
        "{0} needs more memory than functions may use on a GPU of this profile: raise gpu_limit there, or leave it out of --models"
    )]
    TooLarge(String),
    /// There is nothing to do.
    #[error("no request comes: with --minutes, --speed or --trace as they are, there is nothing to simulate")]
    Empty,
}

fn part(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.5..=0.9999).contains(number));
    number.ok_or_else(|| "write a number from 0.5 to 0.9999, such as 0.98".to_owned())
}

fn skew(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.05..=5.0).contains(number));
    number.ok_or_else(|| "write a number from 0.05 to 5, such as 2".to_owned())
}

fn slo_of_model(text: &str) -> Result<(String, Time), String> {
    let parsed = text.split_once('=').and_then(|(model, time)| Some((model.to_owned(), time.parse().ok()?)));
    parsed.ok_or_else(|| "write a model and a time, such as bert_large_qa=200ms".to_owned())
}

impl Simulate {
    /// Simulates and reports.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let profile = Profile::find(&self.profile).map_err(SimulationError::from)?;
        let work = self.work(&profile)?;
        let places = self.places(&work, &profile);
        let (records, tally) = match self.nodes {
            1 => self.simulate(&work, &profile, self.seed),
            nodes => fleet::run(&work, &places, nodes as usize, |work, node| {
                self.simulate(work, &profile, self.seed + node)
            }),
        };
        if let Some(path) = &self.records {
            record::write(path, &records).map_err(|error| LoadTestError::Records {
                path: path.clone(),
                done: "written",
                error,
            })?;
        }
        let unplaced = places.iter().filter(|place| place.is_none()).count();
        let told = Told { work: &work, profile: &profile, system: self.system, nodes: self.nodes, unplaced };
        told.tell(&records, &tally, self.json);
        Ok(ExitCode::SUCCESS)
    }

    fn work<'a>(&self, profile: &'a Profile) -> Result<Work<'a>, SimulationError> {
        let arrivals: Vec<Vec<Duration>> = match &self.trace {
            Some(path) => {
                let rows: Vec<_> =
                    trace::read(path, self.seed)?.into_iter().map(|(_, arrivals)| arrivals).collect();
                let count = self.functions.map_or(rows.len(), |count| count as usize);
                let row = |function: usize| rows.get(function % rows.len().max(1)).into_iter().flatten();
                (0..count).map(|function| row(function).map(|at| at.div_f64(self.speed)).collect()).collect()
            }
            None => {
                let &Self { speed, skew, spacing, seed, .. } = self;
                let draw = Draw { minutes: self.minutes as usize, speed, skew, spacing, seed };
                (0..self.functions.unwrap_or(100) as usize)
                    .map(|function| generate::arrivals(draw, function))
                    .collect()
            }
        };
        let models: Vec<&str> = match self.models.is_empty() {
            true => profile.models.keys().map(String::as_str).collect(),
            false => self.models.iter().map(String::as_str).collect(),
        };
        let mut functions = Vec::with_capacity(arrivals.len());
        for (at, name) in models.iter().cycle().take(arrivals.len()).enumerate() {
            let model = profile.model(name)?;
            if model.bytes > profile.gpu_limit.0 {
                return Err(SimulationError::TooLarge((*name).to_owned()));
            }
            let own = self.slo_of.iter().rev().find(|(model, _)| model == name);
            let slo = own.map_or(self.slo, |(_, slo)| *slo).0;
            functions.push(Function { name: format!("{name}-{at:04}").into(), model, slo });
        }
        let of_function = |(function, arrivals): (usize, Vec<Duration>)| {
            arrivals.into_iter().map(move |at| Request { at, function })
        };
        let mut requests: Vec<Request> = arrivals.into_iter().enumerate().flat_map(of_function).collect();
        requests.sort_by_key(|request| (request.at, request.function));
        if requests.is_empty() {
            return Err(SimulationError::Empty);
        }
        let beside = Duration::from_secs_f64(profile.beside_ms / 1e3);
        Ok(Work { functions, requests, patience: self.timeout.0, beside, percentile: self.percentile })
    }

    /// The node of each function, by its memory and by how much of the GPUs it uses. One node has all.
    fn places(&self, work: &Work<'_>, profile: &Profile) -> Vec<Option<usize>> {
        if self.nodes == 1 {
            return vec![Some(0); work.functions.len()];
        }
        let gpus = profile.topology.gpus.len() as u64;
        let (of_process, of_gpu) = match self.system {
            System::Torpor => (0, profile.host_memory.map_or(UNBOUNDED, |size| size.0)),
            System::Native => (profile.native_overhead.0, profile.gpu_memory.0),
            // Their processes come and go.
            System::KeepAlive | System::KeepAliveOracle => (0, UNBOUNDED),
        };
        let node =
            Room { bytes: of_gpu.saturating_mul(gpus), share: (1e6 * self.target * gpus as f64) as u64 };
        let asks: Vec<Room> = std::iter::zip(&work.functions, fleet::shares(work))
            .map(|(function, share)| Room { bytes: function.model.bytes + of_process, share })
            .collect();
        fleet::spread(&asks, node, self.nodes as usize)
    }

    fn simulate(&self, work: &Work<'_>, profile: &Profile, seed: u64) -> (Vec<Record>, Tally) {
        let lives = match self.system {
            System::Torpor => {
                let gpus = profile.topology.gpus.len();
                let policies = Policies {
                    order: self.order,
                    placement: self.placement,
                    eviction: self.eviction,
                    max_running: self.max_running.map_or(gpus, |most| most as usize),
                    seed,
                };
                return Node::new(work, profile, policies).run();
            }
            System::Native => Lives::Forever,
            System::KeepAlive => Lives::Window,
            System::KeepAliveOracle => Lives::Oracle,
        };
        baseline::run(work, profile, lives)
    }
}
