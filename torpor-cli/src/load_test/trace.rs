//! Traces: files that say when which function was asked.
//!
//! The heading says which kind a file is:
//!
//! | columns | kind |
//! |---|---|
//! | `function` (or `HashFunction`) and numbers (`1`, `2`, ...) | requests in each minute, as in Azure's data of 2019 |
//! | `func`, `end_timestamp`, `duration` | requests by their ends and lengths in seconds, as in Azure's data of 2021 |
//! | `function` and `seconds` (or `scheduled_s`, as in our records) | requests by when they came |

use crate::load_test::arrivals::{random, spread};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A trace must fit into memory.
const MOST_ARRIVALS: u64 = 50_000_000;

/// The functions of a trace, each with its arrivals in order.
pub type Trace = Vec<(String, Vec<Duration>)>;

/// Why a file is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It cannot be read, or is no CSV.
    #[error("the trace {path} cannot be read: {error}")]
    Csv {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: csv::Error,
    },
    /// No kind has these columns.
    #[error(
        "the trace {0} has none of the known headings: function and 1,2,3,... (requests in each minute); function and seconds; \
         func, end_timestamp and duration"
    )]
    Kind(PathBuf),
    /// A number is none.
    #[error("the trace {path}, line {line}: {text:?} is no {expected}")]
    Number {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is there.
        text: String,
        /// What should be.
        expected: &'static str,
    },
    /// It is too long.
    #[error("the trace {0} has more than {MOST_ARRIVALS} requests; cut it")]
    TooLong(PathBuf),
}

enum Kind {
    PerMinute { name: usize, minutes: Vec<usize> },
    Ends { name: usize, end: usize, duration: usize },
    Arrivals { name: usize, at: usize },
}

impl Kind {
    fn of(heading: &csv::StringRecord) -> Option<Self> {
        let column = |names: &[&str]| heading.iter().position(|column| names.contains(&column.trim()));
        let minutes: Vec<_> =
            (0..heading.len()).filter(|&at| heading[at].trim().parse::<u32>().is_ok()).collect();
        if let (Some(name), false) = (column(&["function", "HashFunction"]), minutes.is_empty()) {
            return Some(Self::PerMinute { name, minutes });
        }
        if let (Some(end), Some(duration)) = (column(&["end_timestamp"]), column(&["duration"])) {
            return Some(Self::Ends { name: column(&["func"])?, end, duration });
        }
        Some(Self::Arrivals { name: column(&["function"])?, at: column(&["seconds", "scheduled_s"])? })
    }
}

/// Reads a trace. What it does not say, where in its minute a request came, is drawn from the seed.
///
/// # Errors
/// [`TraceError`].
pub fn read(path: &Path, seed: u64) -> Result<Trace, TraceError> {
    let in_csv = |error| TraceError::Csv { path: path.to_owned(), error };
    let mut reader = csv::Reader::from_path(path).map_err(in_csv)?;
    let kind =
        Kind::of(reader.headers().map_err(in_csv)?).ok_or_else(|| TraceError::Kind(path.to_owned()))?;
    let mut functions = Trace::new();
    let mut known = BTreeMap::<String, usize>::new();
    let mut total = 0;
    for row in reader.into_records() {
        let row = row.map_err(in_csv)?;
        let number = |at: usize, expected| {
            let text = row.get(at).unwrap_or_default().trim();
            let found = text.parse::<f64>().ok().filter(|number| (0.0..1e12).contains(number));
            let line = row.position().map_or(0, csv::Position::line);
            found.ok_or_else(|| TraceError::Number {
                path: path.to_owned(),
                line,
                text: text.to_owned(),
                expected,
            })
        };
        let (name, arrivals) = match &kind {
            Kind::PerMinute { name, minutes } => {
                let counts = minutes.iter().map(|&at| number(at, "number of requests").map(|n| n as u32));
                let counts = counts.collect::<Result<Vec<_>, _>>()?;
                total += counts.iter().map(|&count| u64::from(count)).sum::<u64>();
                if total > MOST_ARRIVALS {
                    return Err(TraceError::TooLong(path.to_owned()));
                }
                (name, spread(&counts, &mut random(seed, functions.len())))
            }
            Kind::Ends { name, end, duration } => {
                let begin = number(*end, "time in seconds")? - number(*duration, "time in seconds")?;
                (name, vec![Duration::from_secs_f64(begin.max(0.0))])
            }
            Kind::Arrivals { name, at } => {
                (name, vec![Duration::from_secs_f64(number(*at, "time in seconds")?)])
            }
        };
        let name = row.get(*name).unwrap_or_default().to_owned();
        let at = *known.entry(name.clone()).or_insert_with(|| {
            functions.push((name, Vec::new()));
            functions.len() - 1
        });
        functions[at].1.extend(arrivals);
    }
    functions.iter_mut().for_each(|(_, arrivals)| arrivals.sort_unstable());
    Ok(functions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Trace, TraceError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path(), 1)
    }

    fn counts(trace: &Trace) -> Vec<(&str, usize)> {
        trace.iter().map(|(name, arrivals)| (name.as_str(), arrivals.len())).collect()
    }

    #[test]
    fn each_kind_is_known_by_its_heading() {
        let azure_2019 =
            "HashOwner,HashApp,HashFunction,Trigger,1,2,3\no,a,f,http,2,0,1\no,a,g,timer,0,0,0\n";
        let trace = read_text(azure_2019).unwrap();
        assert_eq!(counts(&trace), [("f", 3), ("g", 0)]);
        assert!(trace[0].1[2] >= Duration::from_secs(120));
        assert_eq!(counts(&read_text("function,1,2\nf,4,4\n").unwrap()), [("f", 8)]);
        let azure_2021 = read_text("app,func,end_timestamp,duration\na,f,10.5,0.5\na,f,3,1\n").unwrap();
        assert_eq!(azure_2021, [("f".to_owned(), vec![Duration::from_secs(2), Duration::from_secs(10)])]);
        let arrivals = read_text("function,seconds\ng,1.5\nf,1\ng,0.25\n").unwrap();
        let ms = Duration::from_millis;
        assert_eq!(arrivals, [("g".to_owned(), vec![ms(250), ms(1500)]), ("f".to_owned(), vec![ms(1000)])]);
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        assert!(matches!(read_text("when,who\n1,2\n"), Err(TraceError::Kind(_))));
        for text in ["function,seconds\nf,1\nf,soon\n", "function,seconds\nf,1\nf,-1\n"] {
            assert!(read_text(text).unwrap_err().to_string().contains("line 3"));
        }
        assert!(matches!(read_text("function,1\nf,60000000\n"), Err(TraceError::TooLong(_))));
    }
}
