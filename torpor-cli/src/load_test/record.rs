//! What became of each request, one line of CSV for each: also of those that failed or were never sent.

use serde::{Deserialize, Serialize};
use std::path::Path;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A status of success, and the whole body.
    Ok,
    /// Another status, or the connection broke.
    Error,
    /// Later than the load test waits, or 504.
    Timeout,
    /// Too many were under way already.
    Unsent,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Whom it asked.
    pub function: String,
    /// When it was to be sent, in seconds since the beginning.
    pub scheduled_s: f64,
    /// When it was.
    pub sent_s: f64,
    /// From when it was to be sent to the head of its answer, in milliseconds.
    pub first_byte_ms: Option<f64>,
    /// From when it was to be sent to its end.
    pub latency_ms: f64,
    /// HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
    /// `x-torpor-start`, if the answer had one.
    pub start: String,
    /// How long it waited in the router, in milliseconds, if the answer says so.
    pub queue_ms: Option<f64>,
    /// Bytes of the answer.
    pub bytes: u64,
    /// How long memory of its process took to come, in milliseconds, if the answer says so.
    #[serde(default)]
    pub swap_ms: Option<f64>,
    /// How long it used its GPU until its answer began, in milliseconds, if the answer says so.
    #[serde(default)]
    pub gpu_ms: Option<f64>,
    /// Which GPU.
    #[serde(default)]
    pub gpu: Option<u32>,
}

impl Record {
    /// A request of which nothing is known but that it was due.
    #[must_use]
    pub fn unsent(function: &str, scheduled_s: f64) -> Self {
        Self {
            function: function.to_owned(),
            scheduled_s,
            sent_s: scheduled_s,
            first_byte_ms: None,
            latency_ms: 0.0,
            status: None,
            outcome: Outcome::Unsent,
            start: String::new(),
            queue_ms: None,
            bytes: 0,
            swap_ms: None,
            gpu_ms: None,
            gpu: None,
        }
    }
}

/// Writes records.
///
/// # Errors
/// Of the file.
pub fn write(path: &Path, records: &[Record]) -> Result<(), csv::Error> {
    let mut writer = csv::Writer::from_path(path)?;
    records.iter().try_for_each(|record| writer.serialize(record))?;
    Ok(writer.flush()?)
}

/// Reads records.
///
/// # Errors
/// Of the file, with the line that is no record.
pub fn read(path: &Path) -> Result<Vec<Record>, csv::Error> {
    csv::Reader::from_path(path)?.into_deserialize().collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A request that was due at the beginning.
    pub fn record(function: &str, latency_ms: f64, outcome: Outcome) -> Record {
        Record { latency_ms, outcome, ..Record::unsent(function, 0.0) }
    }

    #[test]
    fn records_of_an_older_version_are_read_too() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let heading =
            "function,scheduled_s,sent_s,first_byte_ms,latency_ms,status,outcome,start,queue_ms,bytes";
        std::fs::write(file.path(), format!("{heading}\nf,0.0,0.0,,5.0,,ok,,,0\n")).unwrap();
        assert_eq!(read(file.path()).unwrap(), [record("f", 5.0, Outcome::Ok)]);
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let record = Record {
            scheduled_s: 0.5,
            sent_s: 0.500_1,
            queue_ms: Some(0.25),
            gpu: Some(1),
            gpu_ms: Some(3.5),
            ..record("a,b", 1000.0, Outcome::Timeout)
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        write(file.path(), std::slice::from_ref(&record)).unwrap();
        assert_eq!(read(file.path()).unwrap(), [record]);
    }
}
