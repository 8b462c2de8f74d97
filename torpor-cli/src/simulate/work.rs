//! What a simulated node has to do: functions, their requests, and what came of it.

use crate::load_test::record::{Outcome, Record};
use crate::simulate::profile::Model;
use std::sync::Arc;
use std::time::Duration;

/// All that is asked of a node.
#[derive(Debug)]
pub struct Work<'a> {
    /// The functions.
    pub functions: Vec<Function<'a>>,
    /// Their requests, in the order in which they come.
    pub requests: Vec<Request>,
    /// How long a request waits for an answer.
    pub patience: Duration,
    /// What a request takes beside the turn of its function, and nobody else waits for.
    pub beside: Duration,
    /// The part of a function's requests that should be answered in time.
    pub percentile: f64,
}

/// A function.
#[derive(Clone, Debug)]
pub struct Function<'a> {
    /// Its name.
    pub name: Arc<str>,
    /// What it runs.
    pub model: &'a Model,
    /// Within what time its requests should be answered.
    pub slo: Duration,
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it comes.
    pub at: Duration,
    /// The place of its function.
    pub function: usize,
}

/// What a node did.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Turns that had to bring memory, and how much they brought.
    pub swaps: u64,
    /// Bytes of those.
    pub swapped_bytes: u64,
    /// Turns whose memory began to come from another GPU.
    pub swaps_from_peers: u64,
    /// Clients that had to leave for others.
    pub evictions: u64,
    /// Clients that went to another GPU.
    pub moves: u64,
    /// Processes that were started for a request.
    pub starts: u64,
    /// How long each GPU worked.
    pub busy: Vec<Duration>,
    /// From the first request to the end of the last.
    pub length: Duration,
}

impl Tally {
    /// With what another node did meanwhile.
    pub fn add(&mut self, other: Self) {
        self.swaps += other.swaps;
        self.swapped_bytes += other.swapped_bytes;
        self.swaps_from_peers += other.swaps_from_peers;
        self.evictions += other.evictions;
        self.moves += other.moves;
        self.starts += other.starts;
        self.busy.extend(other.busy);
        self.length = self.length.max(other.length);
    }

    /// GPUs that were at work, on average.
    pub fn busy_gpus(&self) -> f64 {
        let busy: Duration = self.busy.iter().sum();
        busy.as_secs_f64() / self.length.as_secs_f64().max(1e-9)
    }
}

/// What became of a request.
pub fn record(
    request: &Request,
    function: &Function<'_>,
    latency: Duration,
    outcome: Outcome,
    start: &str,
) -> Record {
    Record {
        latency_ms: 1e3 * latency.as_secs_f64(),
        outcome,
        start: start.to_owned(),
        ..Record::unsent(&function.name, request.at.as_secs_f64())
    }
}
