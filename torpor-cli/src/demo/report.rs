//! What the demo says in the end.

use super::session::Function;
use super::statistics::{percentile, readable};
use super::verdict::Wrong;
use crate::table::{print_json, print_table};
use serde::Serialize;
use std::io::{self, Write};
use std::time::Duration;
use torpor_gpuserver::server::size::ByteSize;
use torpor_proto::control::admin::Gpu;

/// How many wrong answers of a function are told in words.
const TOLD: usize = 5;

/// What a function did.
#[derive(Debug)]
pub struct Outcome {
    /// Which one.
    pub function: Function,
    /// From its start until it was ready.
    pub load: Duration,
    /// From sending a request to having the answer, each.
    pub latencies: Vec<Duration>,
    /// The same as the GPU's own clock measures it inside.
    pub gpu: Vec<Duration>,
    /// Wrong answers.
    pub wrong: Vec<Wrong>,
}

/// Prints the table, and which answers are wrong.
pub fn print_outcomes(outcomes: &[Outcome], took: Duration) {
    const HEADINGS: [&str; 8] = ["FUNCTION", "KERNELS", "WEIGHTS", "LOAD", "P50", "P99", "REQUESTS", "WRONG"];
    print_table(HEADINGS, &outcomes.iter().map(Outcome::cells).collect::<Vec<_>>());
    let requests: usize = outcomes.iter().map(|outcome| outcome.latencies.len()).sum();
    let wrong: usize = outcomes.iter().map(|outcome| outcome.wrong.len()).sum();
    let verdict = match wrong {
        0 => format!("All {requests} answers agree with the CPU's."),
        _ => format!("{wrong} of {requests} answers are WRONG."),
    };
    // A reader that has seen enough is no error.
    let _ = writeln!(io::stdout(), "{verdict} {} in all.", readable(took));
    for outcome in outcomes {
        for wrong in outcome.wrong.iter().take(TOLD) {
            eprintln!("torpor: {}: {}", outcome.function.name, wrong.describe());
        }
        if let Some(more @ 1..) = outcome.wrong.len().checked_sub(TOLD) {
            eprintln!("torpor: {}: and {more} more", outcome.function.name);
        }
    }
}

/// Prints the same for programs: durations in microseconds, sizes in bytes.
pub fn print_outcomes_as_json(gpus: &[Gpu], outcomes: &[Outcome], took: Duration) {
    print_json(&Report {
        gpus: gpus.iter().map(|gpu| GpuRow { name: &gpu.name, simulated: gpu.simulated }).collect(),
        functions: outcomes.iter().map(Outcome::row).collect(),
        seconds: took.as_secs_f64(),
    });
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    gpus: Vec<GpuRow<'a>>,
    functions: Vec<FunctionRow>,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct GpuRow<'a> {
    name: &'a str,
    simulated: bool,
}

#[derive(Debug, Serialize)]
struct FunctionRow {
    function: &'static str,
    kernels: Option<usize>,
    weights_bytes: u64,
    load_us: u128,
    p50_us: u128,
    p99_us: u128,
    gpu_p50_us: u128,
    requests: usize,
    wrong: usize,
    wrong_requests: Vec<u64>,
}

impl Outcome {
    fn cells(&self) -> [String; 8] {
        [
            self.function.name.to_owned(),
            self.function.kernels.map_or_else(|| "?".to_owned(), |kernels| kernels.to_string()),
            ByteSize(self.function.network.weights_bytes()).to_string(),
            readable(self.load),
            readable(percentile(&self.latencies, 50)),
            readable(percentile(&self.latencies, 99)),
            self.latencies.len().to_string(),
            self.wrong.len().to_string(),
        ]
    }

    fn row(&self) -> FunctionRow {
        FunctionRow {
            function: self.function.name,
            kernels: self.function.kernels,
            weights_bytes: self.function.network.weights_bytes(),
            load_us: self.load.as_micros(),
            p50_us: percentile(&self.latencies, 50).as_micros(),
            p99_us: percentile(&self.latencies, 99).as_micros(),
            gpu_p50_us: percentile(&self.gpu, 50).as_micros(),
            requests: self.latencies.len(),
            wrong: self.wrong.len(),
            wrong_requests: self.wrong.iter().map(|wrong| wrong.seed).collect(),
        }
    }
}
