//! What the router counts, for Prometheus. Names and units are those of `docs/configuration.md`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// A function.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FunctionLabel {
    function: String,
}

/// A function and how its requests were answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    function: String,
    code: u16,
}

type Times = Family<FunctionLabel, Histogram, fn() -> Histogram>;

/// All metrics of a router.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<CodeLabels, Counter>,
    running: Family<FunctionLabel, Gauge>,
    waiting: Family<FunctionLabel, Gauge>,
    duration: Times,
    queued: Times,
    instances: Family<FunctionLabel, Gauge>,
    starts: Family<FunctionLabel, Counter>,
    missed: Family<FunctionLabel, Counter>,
}

/// The metrics of one function.
#[derive(Clone, Debug)]
pub struct FunctionMetrics {
    function: String,
    requests: Family<CodeLabels, Counter>,
    /// Requests that a process is answering.
    pub running: Gauge,
    /// Requests that wait for a process.
    pub waiting: Gauge,
    /// Seconds from a request's arrival to the end of its answer.
    pub duration: Histogram,
    /// Seconds until a process took it.
    pub queued: Histogram,
    /// Processes, healthy or starting.
    pub instances: Gauge,
    /// Processes started.
    pub starts: Counter,
    /// Requests that were not answered well within their objective: late, failed or refused.
    pub missed: Counter,
}

fn times() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 20))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("torpor");
        let metrics = Self {
            requests: Family::default(),
            running: Family::default(),
            waiting: Family::default(),
            duration: Family::new_with_constructor(times),
            queued: Family::new_with_constructor(times),
            instances: Family::default(),
            starts: Family::default(),
            missed: Family::default(),
            registry: Registry::default(),
        };
        registry.register("requests", "Requests answered", metrics.requests.clone());
        registry.register(
            "requests_running",
            "Requests that a process is answering",
            metrics.running.clone(),
        );
        registry.register("requests_waiting", "Requests that wait for a process", metrics.waiting.clone());
        let (seconds, duration, queued) = (Unit::Seconds, metrics.duration.clone(), metrics.queued.clone());
        registry.register_with_unit("request_duration", "Time to the end of the answer", seconds, duration);
        registry.register_with_unit(
            "request_queue",
            "Time until a process took the request",
            Unit::Seconds,
            queued,
        );
        registry.register("instances", "Processes, healthy or starting", metrics.instances.clone());
        registry.register("instance_starts", "Processes started", metrics.starts.clone());
        registry.register("slo_violations", "Requests late, failed or refused", metrics.missed.clone());
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// The metrics of one function.
    #[must_use]
    pub fn of(&self, function: &str) -> FunctionMetrics {
        let label = FunctionLabel { function: function.to_owned() };
        FunctionMetrics {
            function: function.to_owned(),
            requests: self.requests.clone(),
            running: self.running.get_or_create_owned(&label),
            waiting: self.waiting.get_or_create_owned(&label),
            duration: self.duration.get_or_create_owned(&label),
            queued: self.queued.get_or_create_owned(&label),
            instances: self.instances.get_or_create_owned(&label),
            starts: self.starts.get_or_create_owned(&label),
            missed: self.missed.get_or_create_owned(&label),
        }
    }

    /// The text that Prometheus reads: these metrics, and those of the node.
    #[must_use]
    pub fn text(&self, node: &Registry) -> String {
        let mut text = String::new();
        let written = encode_registry(&mut text, &self.registry).and_then(|()| encode(&mut text, node));
        written.expect("a String takes all that is written");
        text
    }
}

impl FunctionMetrics {
    /// Counts an answered request.
    pub fn answered(&self, code: u16) {
        self.requests.get_or_create(&CodeLabels { function: self.function.clone(), code }).inc();
    }
}
