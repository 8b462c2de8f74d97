//! `torpor calibrate`: what functions take on this node, as a profile for `torpor simulate`.

mod crowded;
mod fit;
mod full;
mod node;

use crate::DirectoryFlag;
use crate::error::CliError;
use crate::simulate::profile::{Model, Profile};
use crowded::Crowded;
use fit::{line, mean, median, paths, spread};
use node::{Asked, Loaded, Node};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use torpor_gpuserver::policy::topology::Topology;
use torpor_gpuserver::server::size::ByteSize;
use torpor_gpuserver::server::time::Time;

/// Turns of the memory's way to a GPU that are measured: of each function, and of each pair of GPUs.
const LOADS: usize = 5;

/// Between two requests of functions that are asked now and then: GPU and CPU rest meanwhile, as they do where little is asked.
const SELDOM: Duration = Duration::from_millis(30);

const EXAMPLES: &str = "\
Asks the functions through the router, one after the other, now and then: as many as --rounds each when their memory is on the
GPU, and as many after `torpor unload`, when the memory of other functions has taken their room, if the node has so many; then
model by model each GPU has a line of as many to each, which take less, as clocks and caches are warm. Then memory alone is loaded, for each GPU, and for each pair of GPUs at once, which shows whether
they share a link; and functions are moved between GPUs. Nobody else may use the node meanwhile. Functions that are asked in turn
take longer than one that is asked again and again, as they do in use: give several of each model, as many as the GPUs have room for.
What a native process takes cannot be seen here: say it.

Examples:
  torpor calibrate resnet bert --output profile.toml
  torpor calibrate f1=resnet152 f2=resnet152 f3=bert_large_qa f4=bert_large_qa --rounds 20 --output profile.toml
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

    /// Requests to each function, with its memory on the GPU, and after an eviction
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
    #[error(
        "{0} has no memory on a GPU after a request: it has no process (`torpor functions` lists those that have one), or not all that are \
         given fit on the GPUs together; give fewer"
    )]
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
        let named = self.functions.iter().map(|word| word.split_once('=').unwrap_or((word, word)));
        let functions: Vec<Function<'_>> =
            named.map(|(name, model)| Function { name, model, ..Function::default() }).collect();
        let functions = self.in_turn(&mut node, functions)?;
        let crowded = self.crowd(&mut node, &functions)?;
        let beside: Vec<f64> = functions.iter().flat_map(|one| one.beside_ms.iter().copied()).collect();
        let names = functions.iter().map(|one| (one.name.to_owned(), one.bytes)).collect();
        let models = models(&functions, &crowded, self.rounds);
        for (name, model) in &models {
            eprintln!(
                "torpor: {name}: {} bytes, {:.2} ms, {:.2} in a line, {:.2} after an eviction",
                model.bytes,
                model.warm_ms,
                model.busy_ms.unwrap_or_default(),
                model.swapped_ms.unwrap_or_default()
            );
        }
        let (topology, moves_ms) = topology(&mut node, names)?;
        let gpus = node.gpus()?;
        let least =
            |of: fn(&torpor_proto::control::admin::Gpu) -> u64| gpus.iter().map(of).min().unwrap_or(0);
        let profile = Profile {
            gpu_limit: ByteSize(least(|gpu| gpu.limit_bytes)),
            gpu_memory: ByteSize(least(|gpu| gpu.total_memory_bytes)),
            host_memory: None,
            native_overhead: self.native_overhead,
            native_start_ms: 1e3 * self.native_start.0.as_secs_f64(),
            beside_ms: median(&beside).max(0.0),
            moves_ms,
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

    /// What the functions take that are asked in turn: now and then, and after they had to leave.
    fn in_turn<'a>(
        &self,
        node: &mut Node,
        mut functions: Vec<Function<'a>>,
    ) -> Result<Vec<Function<'a>>, CliError> {
        for function in &functions {
            node.ask(function.name)?;
        }
        for _ in 0..self.rounds {
            for function in &mut functions {
                std::thread::sleep(SELDOM);
                let Asked { turn_ms, beside_ms } = node.ask(function.name)?;
                function.warm_ms.push(turn_ms);
                function.beside_ms.push(beside_ms);
            }
        }
        for function in &mut functions {
            function.bytes = node.resident_bytes(function.name)?;
            if function.bytes == 0 {
                return Err(CalibrationError::NoMemory(function.name.to_owned()).into());
            }
            node.unload(function.name)?;
        }
        let measured: Vec<&str> = functions.iter().map(|function| function.name).collect();
        for _ in 0..self.rounds {
            for at in 0..functions.len() {
                // Not just before it is asked, but where there is no other.
                let other = (at + functions.len() / 2) % functions.len();
                node.unload(functions[other].name)?;
                node.fill(&measured, functions[at].bytes)?;
                std::thread::sleep(SELDOM);
                let turn_ms = node.ask(functions[at].name)?.turn_ms;
                functions[at].swapped_ms.push(turn_ms);
            }
        }
        Ok(functions)
    }
}

/// A function that is measured.
#[derive(Clone, Debug, Default)]
struct Function<'a> {
    name: &'a str,
    model: &'a str,
    bytes: u64,
    warm_ms: Vec<f64>,
    swapped_ms: Vec<f64>,
    beside_ms: Vec<f64>,
}

/// What models take whose functions took so much.
fn models(
    functions: &[Function<'_>],
    crowded: &BTreeMap<String, Crowded>,
    rounds: u32,
) -> BTreeMap<String, Model> {
    let mut by_model: BTreeMap<&str, Vec<&Function<'_>>> = BTreeMap::new();
    functions.iter().for_each(|function| by_model.entry(function.model).or_default().push(function));
    let model = |(name, all): (&str, Vec<&Function<'_>>)| {
        let warm_ms: Vec<f64> = all.iter().flat_map(|one| one.warm_ms.iter().copied()).collect();
        let spread = spread(crowded.get(name).map_or(&warm_ms, |crowded| &crowded.turns_ms));
        let swapped_ms: Vec<f64> = all.iter().flat_map(|one| one.swapped_ms.iter().copied()).collect();
        let model = Model {
            bytes: all.iter().map(|one| one.bytes).max().unwrap_or(0),
            warm_ms: median(&warm_ms),
            // Of what is drawn from the spread the mean is what each takes in a line.
            busy_ms: crowded.get(name).map(|crowded| crowded.each_ms / mean(&spread)),
            swapped_ms: Some(median(&swapped_ms)),
            spread,
            source: format!(
                "torpor calibrate: medians of {rounds} requests through the router to each of {} functions",
                all.len()
            ),
        };
        (name.to_owned(), model)
    };
    by_model.into_iter().map(model).collect()
}

/// The paths to the GPUs, by the functions' memory on its way over them, and how long a move takes beside the way.
fn topology(node: &mut Node, mut functions: Vec<(String, u64)>) -> Result<(Topology, Option<f64>), CliError> {
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
    let known = node.topology()?;
    let copied: Vec<Option<f64>> =
        (0..count).map(|gpu| known.gpus.get(gpu).and_then(|path| path.host_gbps)).collect();
    // What the server expects of a move is its own.
    let topology = Topology { gpus: paths(&rates, &copied, &together), ..known };
    // Each move was from the GPU before, where all of the memory was.
    let way_ms = |gpu: usize, bytes: u64| {
        let peer = topology.peer_bytes_per_second(gpu - 1, gpu);
        1e3 * bytes as f64 / peer.unwrap_or(1e9 * rates[gpu])
    };
    // A load without a move takes something, too.
    let beside_ms = |&(gpu, bytes, ms): &(usize, u64, f64)| (ms - alone[gpu].1 - way_ms(gpu, bytes)).max(0.0);
    let beside: Vec<f64> = moves.iter().map(beside_ms).collect();
    Ok((topology, (!beside.is_empty()).then(|| median(&beside))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_one_model_are_one_model_s() {
        let function = |name, model, bytes, warm_ms: f64| Function {
            name,
            model,
            bytes,
            warm_ms: vec![warm_ms; 3],
            swapped_ms: vec![2.0 * warm_ms; 3],
            beside_ms: Vec::new(),
        };
        let functions = [
            function("a", "small", 10, 4.0),
            function("b", "large", 90, 9.0),
            function("c", "small", 12, 5.0),
        ];
        let crowded = Crowded { each_ms: 3.5, turns_ms: vec![2.0, 4.0] };
        let models = models(&functions, &BTreeMap::from([("large".to_owned(), crowded)]), 3);
        let figures = |name: &str| (models[name].bytes, models[name].warm_ms, models[name].swapped_ms);
        assert_eq!(models.len(), 2);
        assert_eq!(figures("small"), (12, 4.0, Some(8.0)));
        assert_eq!(figures("large"), (90, 9.0, Some(18.0)));
        assert_eq!(models["small"].spread.last(), Some(&1.25));
        let (busy_ms, spread) = (models["large"].busy_ms.unwrap(), &models["large"].spread);
        assert!((busy_ms * mean(spread) - 3.5).abs() < 1e-9 && models["small"].busy_ms.is_none());
    }
}
