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
    let begin = records.iter().map(|record| record.scheduled_s).fold(f64::INFINITY, f64::min);
    let end = records.iter().map(|record| record.scheduled_s + record.latency_ms / 1e3).fold(0.0, f64::max);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(function: &str, latency_ms: f64, outcome: Outcome) -> Record {
        Record {
            function: function.to_owned(),
            scheduled_s: 0.0,
            sent_s: 0.0,
            first_byte_ms: None,
            latency_ms,
            status: None,
            outcome,
            start: String::new(),
            queue_ms: None,
            bytes: 0,
        }
    }

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
}
