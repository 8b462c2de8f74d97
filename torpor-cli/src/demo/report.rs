//! What the demo says in the end.

use super::statistics::{percentile, readable};
use super::verdict::Wrong;
use crate::table::{print_json_value, print_table};
use serde::Serialize;
use std::time::Duration;
use torpor_gpuserver::server::size::ByteSize;
use torpor_proto::control::admin::Gpu;

/// How many wrong answers of a function are told in words.
const TOLD: usize = 5;

/// What a function did.
#[derive(Debug)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Kernels of a request, if known.
    pub kernels: Option<usize>,
    /// Bytes of its weights.
    pub weights_bytes: u64,
    /// From its start until it was ready.
    pub load: Duration,
    /// From sending a request to having the answer, each.
    pub latencies: Vec<Duration>,
    /// The same as the GPU's own clock measures it inside.
    pub gpu: Vec<Duration>,
    /// Wrong answers.
    pub wrong: Vec<Wrong>,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    gpus: Vec<GpuRow<'a>>,
    functions: Vec<FunctionRow<'a>>,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct GpuRow<'a> {
    name: &'a str,
    simulated: bool,
}

#[derive(Debug, Serialize)]
struct FunctionRow<'a> {
    function: &'a str,
    kernels: Option<usize>,
    weights_bytes: u64,
    load_us: u128,
    p50_us: u128,
    p99_us: u128,
    gpu_p50_us: u128,
    requests: usize,
    wrong: usize,
}

impl Outcome {
    fn cells(&self) -> [String; 8] {
        [
            self.name.clone(),
            self.kernels.map_or_else(|| "?".to_owned(), |kernels| kernels.to_string()),
            ByteSize(self.weights_bytes).to_string(),
            readable(self.load),
            readable(percentile(&self.latencies, 50)),
            readable(percentile(&self.latencies, 99)),
            self.latencies.len().to_string(),
            self.wrong.len().to_string(),
        ]
    }

    fn row(&self) -> FunctionRow<'_> {
        FunctionRow {
            function: &self.name,
            kernels: self.kernels,
            weights_bytes: self.weights_bytes,
            load_us: self.load.as_micros(),
            p50_us: percentile(&self.latencies, 50).as_micros(),
            p99_us: percentile(&self.latencies, 99).as_micros(),
            gpu_p50_us: percentile(&self.gpu, 50).as_micros(),
            requests: self.latencies.len(),
            wrong: self.wrong.len(),
        }
    }
}
