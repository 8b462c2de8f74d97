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
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let record = Record {
            function: "a,b".to_owned(),
            scheduled_s: 0.5,
            sent_s: 0.500_1,
            first_byte_ms: None,
            latency_ms: 1000.0,
            status: None,
            outcome: Outcome::Timeout,
            start: String::new(),
            queue_ms: Some(0.25),
            bytes: 0,
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        write(file.path(), std::slice::from_ref(&record)).unwrap();
        assert_eq!(read(file.path()).unwrap(), [record]);
    }
}
