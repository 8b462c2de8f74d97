//! What comes out: a table, or JSON.

use super::posted::BURST;
use super::summary::{Metric, Summary};
use super::system_calls::SystemCalls;
use crate::table::{print_json, print_table};
use serde::Serialize;
use std::collections::BTreeMap;

const SYSTEM_CALLS: Metric = Metric {
    name: "launch_system_calls",
    unit: "per 2000",
    description: "system calls of the thread that launches",
};

const _: () = assert!(BURST == 2000, "the unit above says so");

/// The result of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    about: About,
    measurements: Vec<Summary>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum About {
    Calls {
        device: String,
        rounds: u32,
        copy_bytes: usize,
    },
    /// How many system calls of each number there were, in all rounds.
    SystemCalls {
        rounds: usize,
        system_call_numbers: BTreeMap<u64, u64>,
    },
}

impl Report {
    /// Of the calls to a driver.
    pub fn of_calls(device: String, rounds: u32, copy_bytes: usize, measurements: Vec<Summary>) -> Self {
        Self { about: About::Calls { device, rounds, copy_bytes }, measurements }
    }

    /// Of the system calls in bursts, of which there must be one.
    pub fn of_system_calls(counted: SystemCalls) -> Self {
        let SystemCalls { bursts, numbers } = counted;
        let about = About::SystemCalls { rounds: bursts.len(), system_call_numbers: numbers };
        let counts = bursts.into_iter().map(|count| count as f64).collect();
        Self { about, measurements: vec![Summary::of(&SYSTEM_CALLS, counts)] }
    }

    /// Prints it.
    pub fn print(&self, json: bool) {
        if json {
            return print_json(self);
        }
        let row = |Summary { metric, median, min, max }: &Summary| {
            let [median, min, max] = [median, min, max].map(|&value| readable(value));
            [metric.description.to_owned(), median, min, max, metric.unit.to_owned()]
        };
        let mut rows: Vec<_> = self.measurements.iter().map(row).collect();
        let heading = match &self.about {
            About::Calls { device, .. } => format!("CALL ({device})"),
            About::SystemCalls { rounds, system_call_numbers } => {
                rows.extend(system_call_numbers.iter().map(|(number, count)| {
                    let description = format!("  of these, number {number} (mean of all rounds)");
                    let mean = readable(*count as f64 / *rounds as f64);
                    [description, mean, String::new(), String::new(), SYSTEM_CALLS.unit.to_owned()]
                }));
                "CALL".to_owned()
            }
        };
        print_table([&heading, "MEDIAN", "MIN", "MAX", "UNIT"], &rows);
    }
}

/// Three digits at least, of whole numbers all.
fn readable(value: f64) -> String {
    match value {
        ..10.0 if value.fract() != 0.0 => format!("{value:.2}"),
        ..100.0 if value.fract() != 0.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_many_digits_as_matter() {
        let shown =
            [(0.0, "0"), (0.456, "0.46"), (3.0, "3"), (55.24, "55.2"), (100.4, "100"), (1234.5, "1234")];
        for (value, text) in shown {
            assert_eq!(readable(value), text);
        }
    }
}
