//! `torpor calibrate`: what functions take on this node, as a profile for `torpor simulate`.

mod fit;
mod node;

use crate::DirectoryFlag;
use crate::error::CliError;
use crate::simulate::profile::{Model, Profile};
use fit::{line, median, paths, spread};
use node::{Loaded, Node};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use torpor_gpuserver::policy::topology::Topology;
use torpor_gpuserver::server::size::ByteSize;
use torpor_gpuserver::server::time::Time;

/// Turns of the memory's way to a GPU that are measured: of each function, and of each pair of GPUs.
const LOADS: usize = 5;

const EXAMPLES: &str = "\
Asks each function through the router, one request at a time: as many as --rounds when its memory is on its GPU, and as many after
`torpor unload`. Then memory alone is loaded, for each GPU, and for each pair of GPUs at once, which shows whether they share a link; and
functions are moved between GPUs. Give functions of different sizes, nobody else may use the node meanwhile, and all times are those of
whoever asks. What a native process takes cannot be seen here: say it.

Examples:
  torpor calibrate resnet bert --output profile.toml
  torpor calibrate f1=resnet152 f2=bert_large_qa --rounds 50 --output profile.toml
  torpor simulate --profile profile.toml --functions 160";

/// Measure what functions take on this node, and write a profile for `torpor simulate`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Calibrate {
    /// The functions, each with the name of its model [default: its own]
    #[arg(required = true, value_name = "FUNCTION[=MODEL]")]
    functions: Vec<String>,

    /// Where the profile goes
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// Requests to each function, warm and after an eviction
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(5..=10_000))]
    rounds: u32,

    /// Where the router takes requests
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "TORPOR_URL")]
    url: String,

    /// Device memory of a native process beside its weights
    #[arg(long, value_name = "SIZE", default_value = "1430MB")]
    native_overhead: ByteSize,

    /// From the start of a native process until it can answer
    #[arg(long, value_name = "TIME", default_value = "4300ms")]
    native_start: Time,

    #[command(flatten)]
    directory: DirectoryFlag,
}

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// The node has no such function, or its process has not used its GPU.
    #[error("{0} has no memory on a GPU after a request; `torpor functions` lists those that have a process")]
    NoMemory(String),
    /// A request was not answered well.
    #[error("{function} answers {status}; a function that is calibrated must answer every request")]
    Failed {
        /// Who.
        function: String,
        /// With what.
        status: hyper::StatusCode,
    },
    /// The profile is not written.
    #[error("the profile {path} cannot be written: {error}")]
    Unwritable {
        /// Where.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
}

impl Calibrate {
    /// Measures and writes.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let mut node = Node::connect(&self.directory.server(), &self.url)?;
        let mut models = BTreeMap::new();
        let mut names = Vec::new();
        for function in &self.functions {
            let (function, model) = function.split_once('=').unwrap_or((function, function));
            let measured = self.model(&mut node, function)?;
            eprintln!(
                "torpor: {function}: {} bytes, {:.2} ms, {:.2} ms after an eviction",
                measured.bytes,
                measured.warm_ms,
                measured.swapped_ms.unwrap_or_default()
            );
            names.push((function.to_owned(), measured.bytes));
            models.insert(model.to_owned(), measured);
        }
        let topology = topology(&mut node, names)?;
        let gpus = node.gpus()?;
        let least =
            |of: fn(&torpor_proto::control::admin::Gpu) -> u64| gpus.iter().map(of).min().unwrap_or(0);
        let profile = Profile {
            gpu_limit: ByteSize(least(|gpu| gpu.limit_bytes)),
            gpu_memory: ByteSize(least(|gpu| gpu.total_memory_bytes)),
            host_memory: None,
            native_overhead: self.native_overhead,
            native_start_ms: 1e3 * self.native_start.0.as_secs_f64(),
            topology,
            peer_gbps: None,
            models,
            source: format!(
                "torpor calibrate, {} GPU(s): {}. native_overhead and native_start_ms were told, not measured.",
                gpus.len(),
                gpus.first().map_or("", |gpu| &gpu.name)
            ),
        };
        let unwritable = |error| CalibrationError::Unwritable { path: self.output.clone(), error };
        std::fs::write(&self.output, profile.to_toml()).map_err(unwritable)?;
        println!("{}", self.output.display());
        Ok(ExitCode::SUCCESS)
    }

    fn model(&self, node: &mut Node, function: &str) -> Result<Model, CliError> {
        let rounds = self.rounds as usize;
        node.ask(function)?;
        let warm = (0..rounds).map(|_| node.ask(function)).collect::<Result<Vec<_>, _>>()?;
        let mut swapped = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            node.unload(function)?;
            swapped.push(node.ask(function)?);
        }
        let bytes = node.resident_bytes(function)?;
        if bytes == 0 {
            return Err(CalibrationError::NoMemory(function.to_owned()).into());
        }
        Ok(Model {
            bytes,
            warm_ms: median(&warm),
            swapped_ms: Some(median(&swapped)),
            spread: spread(&warm),
            source: format!("torpor calibrate, {function}: medians of {rounds} requests through the router"),
        })
    }
}

/// The paths to the GPUs, by the functions' memory on its way over them.
fn topology(node: &mut Node, mut functions: Vec<(String, u64)>) -> Result<Topology, CliError> {
    functions.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let count = node.gpus()?.len();
    let (mut alone, mut moves) = (Vec::new(), Vec::new());
    for gpu in 0..count {
        let mut loads = Vec::new();
        for (function, bytes) in &functions {
            let moved = node.load(function, Some(gpu as u32))?;
            if gpu > 0 {
                moves.push((gpu, *bytes, moved));
            }
            for _ in 0..LOADS {
                node.unload(function)?;
                loads.push((*bytes as f64, node.load(function, None)?));
            }
        }
        alone.push(line(&loads));
    }
    let mut together = Vec::new();
    if let [(first, first_bytes), (second, second_bytes), ..] = &functions[..] {
        let bytes = first_bytes + second_bytes;
        for (one, other) in (0..count).flat_map(|one| (one + 1..count).map(move |other| (one, other))) {
            node.load(first, Some(one as u32))?;
            node.load(second, Some(other as u32))?;
            let mut taken = Vec::new();
            for _ in 0..LOADS {
                node.unload(first)?;
                node.unload(second)?;
                let Loaded { both_ms, overhead_ms } = node.load_both(first, second, alone[one].1)?;
                taken.push(both_ms - overhead_ms);
            }
            together.push((one, other, bytes as f64 / 1e6 / median(&taken).max(1e-3)));
        }
    }
    let rates: Vec<f64> = alone.iter().map(|(gbps, _)| *gbps).collect();
    let mut topology =
        Topology { gpus: paths(&rates, &together), moving_ms: None, peers: node.topology()?.peers };
    // Each move was from the GPU before, where all of the memory was.
    let way_ms = |gpu: usize, bytes: u64| {
        let peer = topology.peer_bytes_per_second(gpu - 1, gpu);
        1e3 * bytes as f64 / peer.unwrap_or(1e9 * rates[gpu])
    };
    let beside: Vec<f64> = moves.iter().map(|&(gpu, bytes, ms)| (ms - way_ms(gpu, bytes)).max(0.0)).collect();
    topology.moving_ms = (!beside.is_empty()).then(|| median(&beside));
    Ok(topology)
}
