//! What many records say together. Requests that failed count as never answered: percentiles and attainment know them.

use crate::load_test::record::{Outcome, Record};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// What became of a function's requests, or of all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The function, or `total`.
    pub function: String,
    /// Requests that were due.
    pub requests: usize,
    /// By outcome.
    pub ok: usize,
    /// By outcome.
    pub errors: usize,
    /// By outcome.
    pub timeouts: usize,
    /// By outcome.
    pub unsent: usize,
    /// Requests answered well in each second, from the first that was due to the end of the last.
    pub ok_per_s: f64,
    /// Latencies in milliseconds, of all requests; `None` where that request was never answered.
    pub p50_ms: Option<f64>,
    /// 98 of 100 were answered within.
    pub p98_ms: Option<f64>,
    /// 99 of 100 were answered within.
    pub p99_ms: Option<f64>,
    /// The objective.
    pub slo_ms: Option<f64>,
    /// Which part of the requests was answered well within the objective.
    pub attainment: Option<f64>,
    /// Requests that waited for a process to start.
    pub cold: usize,
}

/// Sums records up: of each function by name, then of all. `objective` says within what time a function's requests should be
/// answered.
#[must_use]
pub fn summarise(records: &[Record], objective: impl Fn(&str) -> Option<Duration>) -> Vec<Summary> {
    let mut functions = BTreeMap::<&str, Vec<&Record>>::new();
    for record in records {
        functions.entry(&record.function).or_default().push(record);
    }
    let mut rows: Vec<_> = functions.iter().map(|(name, of)| summary(name, of, &objective)).collect();
    if rows.len() > 1 {
        let all: Vec<_> = records.iter().collect();
        rows.push(summary("total", &all, &objective));
    }
    rows
}

fn summary(name: &str, records: &[&Record], objective: &impl Fn(&str) -> Option<Duration>) -> Summary {
    let count = |outcome| records.iter().filter(|record| record.outcome == outcome).count();
    let mut latencies: Vec<_> = records.iter().map(|record| latency_ms(record)).collect();
    latencies.sort_by(f64::total_cmp);
    let percentile = |percent: usize| {
        let rank = (latencies.len() * percent).div_ceil(100).max(1);
        latencies.get(rank - 1).copied().filter(|latency| latency.is_finite())
    };
    let within = |record: &&Record| {
        objective(&record.function)
            .map(|objective| f64::from(u8::from(latency_ms(record) <= objective.as_secs_f64() * 1e3)))
    };
    let judged: Vec<f64> = records.iter().filter_map(within).collect();
    let (begin, end) = span(records);
    Summary {
        function: name.to_owned(),
        requests: records.len(),
        ok: count(Outcome::Ok),
        errors: count(Outcome::Error),
        timeouts: count(Outcome::Timeout),
        unsent: count(Outcome::Unsent),
        ok_per_s: count(Outcome::Ok) as f64 / (end - begin).max(1e-3),
        p50_ms: percentile(50),
        p98_ms: percentile(98),
        p99_ms: percentile(99),
        slo_ms: objective(name).map(|objective| objective.as_secs_f64() * 1e3),
        attainment: (!judged.is_empty()).then(|| judged.iter().sum::<f64>() / judged.len() as f64),
        cold: records.iter().filter(|record| record.start == "cold").count(),
    }
}

/// What a GPU did of the requests.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GpuLoad {
    /// As the driver counts.
    pub gpu: u32,
    /// Requests whose process was there when their answer began.
    pub requests: usize,
    /// Of these, those whose memory had to come.
    pub swaps: usize,
    /// How long they used it, in seconds, until their answers began.
    pub used_s: f64,
    /// Which part of the time from the first request to the end of the last that is.
    pub used: f64,
}

/// Sums up what each GPU did, as far as answers say it.
#[must_use]
pub fn gpu_loads(records: &[Record]) -> Vec<GpuLoad> {
    let (begin, end) = span(&records.iter().collect::<Vec<_>>());
    let mut gpus = BTreeMap::<u32, GpuLoad>::new();
    for record in records {
        let (Some(gpu), Some(ms)) = (record.gpu, record.gpu_ms) else { continue };
        let none = GpuLoad { gpu, requests: 0, swaps: 0, used_s: 0.0, used: 0.0 };
        let load = gpus.entry(gpu).or_insert(none);
        load.requests += 1;
        load.swaps += usize::from(record.start == "swap");
        load.used_s += ms / 1e3;
        load.used = load.used_s / (end - begin).max(1e-3);
    }
    gpus.into_values().collect()
}

/// From the first request that was due to the end of the last, in seconds.
fn span(records: &[&Record]) -> (f64, f64) {
    let begin = records.iter().map(|record| record.scheduled_s).fold(f64::INFINITY, f64::min);
    let end = records.iter().map(|record| record.scheduled_s + record.latency_ms / 1e3).fold(0.0, f64::max);
    (begin, end)
}

fn latency_ms(record: &Record) -> f64 {
    if record.outcome == Outcome::Ok { record.latency_ms } else { f64::INFINITY }
}

/// Headings of [`Summary::cells`].
pub const HEADINGS: [&str; 13] = [
    "FUNCTION", "REQUESTS", "OK", "ERRORS", "TIMEOUTS", "UNSENT", "OK/S", "P50", "P98", "P99", "SLO",
    "ATTAINED", "COLD",
];

impl Summary {
    /// For people. A percentile that falls on a request without a good answer is `never`.
    #[must_use]
    pub fn cells(&self) -> [String; 13] {
        let ms = |ms: Option<f64>, none: &str| ms.map_or_else(|| none.to_owned(), |ms| format!("{ms:.1} ms"));
        [
            self.function.clone(),
            self.requests.to_string(),
            self.ok.to_string(),
            self.errors.to_string(),
            self.timeouts.to_string(),
            self.unsent.to_string(),
            format!("{:.1}", self.ok_per_s),
            ms(self.p50_ms, "never"),
            ms(self.p98_ms, "never"),
            ms(self.p99_ms, "never"),
            ms(self.slo_ms, "-"),
            self.attainment.map_or_else(|| "-".to_owned(), |part| format!("{:.1} %", 100.0 * part)),
            self.cold.to_string(),
        ]
    }
}

/// Headings of [`GpuLoad::cells`].
pub const GPU_HEADINGS: [&str; 4] = ["GPU", "REQUESTS", "SWAPS", "USED"];

impl GpuLoad {
    /// For people.
    #[must_use]
    pub fn cells(&self) -> [String; 4] {
        let used = format!("{:.1} %", 100.0 * self.used);
        [self.gpu.to_string(), self.requests.to_string(), self.swaps.to_string(), used]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_test::record::tests::record;

    #[test]
    fn a_request_that_failed_fast_is_no_fast_request() {
        let mut records: Vec<_> = (1..=97).map(|ms| record("f", f64::from(ms), Outcome::Ok)).collect();
        records.push(record("f", 0.1, Outcome::Error));
        records.push(record("f", 1000.0, Outcome::Timeout));
        records.push(record("f", 0.0, Outcome::Unsent));
        let [row] = &summarise(&records, |_| Some(Duration::from_millis(50)))[..] else {
            panic!("one function")
        };
        assert_eq!((row.ok, row.errors, row.timeouts, row.unsent), (97, 1, 1, 1));
        assert_eq!((row.p50_ms, row.p98_ms, row.p99_ms), (Some(50.0), None, None));
        assert_eq!(row.attainment, Some(0.5));
        assert!((row.ok_per_s - 97.0).abs() < 1e-9);
    }

    #[test]
    fn the_total_judges_each_function_by_its_own_objective() {
        let records =
            [record("a", 10.0, Outcome::Ok), record("b", 10.0, Outcome::Ok), record("c", 1.0, Outcome::Ok)];
        let objective = |name: &str| match name {
            "a" => Some(Duration::from_millis(5)),
            "b" => Some(Duration::from_millis(20)),
            _ => None,
        };
        let rows = summarise(&records, objective);
        assert_eq!(
            rows.iter().map(|row| row.function.as_str()).collect::<Vec<_>>(),
            ["a", "b", "c", "total"]
        );
        assert_eq!(
            rows.iter().map(|row| row.attainment).collect::<Vec<_>>(),
            [Some(0.0), Some(1.0), None, Some(0.5)]
        );
    }

    #[test]
    fn a_gpu_s_load_is_what_answers_say_of_it() {
        let on = |gpu, gpu_ms, start: &str| Record {
            gpu: Some(gpu),
            gpu_ms: Some(gpu_ms),
            start: start.to_owned(),
            ..record("f", 1000.0, Outcome::Ok)
        };
        let records = [
            on(1, 100.0, "hot"),
            on(0, 400.0, "swap"),
            on(1, 200.0, "hot"),
            record("g", 2000.0, Outcome::Ok),
        ];
        let loads = gpu_loads(&records);
        let told: Vec<_> = loads.iter().map(|one| (one.gpu, one.requests, one.swaps)).collect();
        assert_eq!(told, [(0, 1, 1), (1, 2, 0)]);
        assert!((loads[0].used - 0.2).abs() < 1e-9 && (loads[1].used - 0.15).abs() < 1e-9, "{loads:?}");
        assert_eq!(gpu_loads(&records[3..]), []);
    }
}
