//! `torpor load-test` and `torpor report`: requests at given or random times, and what became of them.

pub mod arrivals;
mod clock;
mod figures;
pub mod record;
pub mod report;
pub mod send;
pub mod trace;

use crate::error::CliError;
use crate::router::Payload;
use crate::table::{print_json, print_table};
use arrivals::{Process, draw, random};
use record::Record;
use send::{Plan, Target, follow};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::Builder;
use torpor_gpuserver::server::settings::SettingsFile;
use torpor_gpuserver::server::time::Time;
use torpor_router::client::{function_uri, headers};

const EXAMPLES: &str = "\
Requests are sent when they are due, whatever became of those before (an open loop), and their latency counts from then. With the
same --seed they come at the same times. Without --trace each function gets --rate requests a second for --duration. Ctrl-C ends
it early, with the report of what was sent.

A trace is CSV, and its heading says what it is: `function,1,2,3,...` or Azure's data of 2019 (requests in each minute),
`function,seconds` or the records of an earlier test (when each came), Azure's data of 2021 (`end_timestamp` and `duration`). Its
functions are taken by name, or given to the named ones in turn.

Examples:
  torpor load-test classify --rate 20 --duration 1m --data '{}'
  torpor load-test classify detect --arrivals bursty --cv 4 --rate 5 --seed 7 --records records.csv
  torpor load-test --trace minutes.csv --duration 10m --speed 2 classify detect
  torpor report records.csv --slo 200ms --figures figures";

/// Send requests to functions at random times or as a trace says, and report what became of them
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct LoadTest {
    /// The functions [default: those of the trace]
    #[arg(value_name = "FUNCTION", required_unless_present = "trace")]
    functions: Vec<String>,

    /// How requests come
    #[arg(long, value_enum, default_value_t = Process::Poisson, conflicts_with = "trace")]
    arrivals: Process,

    /// Requests a second, of each function
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = positive, conflicts_with = "trace")]
    rate: f64,

    /// Coefficient of variation of the gaps between bursty requests
    #[arg(long, value_name = "N", default_value_t = 3.0, value_parser = positive)]
    cv: f64,

    /// A file that says when which function is asked
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// How many times as fast as the trace
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = positive, requires = "trace")]
    speed: f64,

    /// How much of the trace to leave out at its beginning
    #[arg(long, value_name = "TIME", default_value = "0s", requires = "trace")]
    skip: Time,

    /// For how long [default: 10s, or all of the trace]
    #[arg(long, value_name = "TIME")]
    duration: Option<Time>,

    /// What the random times are drawn from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// How long an answer is waited for; a request without one counts as a time-out
    #[arg(long, value_name = "TIME", default_value = "60s")]
    timeout: Time,

    /// Requests under way at once; further ones are counted and not sent
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_in_flight: usize,

    /// Where to write what became of each request, as CSV
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,

    #[command(flatten)]
    payload: Payload,

    #[command(flatten)]
    form: Form,
}

/// Report on the records of `torpor load-test`: percentiles, throughput, attainment, errors
#[derive(Debug, clap::Args)]
pub struct Report {
    /// Records
    #[arg(required = true, value_name = "FILE")]
    records: Vec<PathBuf>,

    #[command(flatten)]
    form: Form,
}

/// How a report looks.
#[derive(Debug, clap::Args)]
struct Form {
    /// Within what time requests should be answered
    #[arg(long, value_name = "TIME")]
    slo: Option<Time>,

    /// The settings file, where a function's slo_ms says it
    #[arg(long, value_name = "FILE", conflicts_with = "slo", env = "TORPOR_CONFIG")]
    config: Option<PathBuf>,

    /// Where to draw latency, attainment and use of the GPUs, each as SVG and as PNG
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,

    /// Print JSON: an object with the functions, the last of them all together, and the GPUs
    #[arg(long)]
    json: bool,
}

/// Why there was no load, or no report.
#[derive(Debug, thiserror::Error)]
pub enum LoadTestError {
    /// The trace.
    #[error(transparent)]
    Trace(#[from] trace::TraceError),
    /// The records.
    #[error("the records {path} cannot be {done}: {error}")]
    Records {
        /// The file.
        path: PathBuf,
        /// read or written
        done: &'static str,
        /// Why not.
        error: csv::Error,
    },
    /// The figures.
    #[error(transparent)]
    Figure(#[from] figures::FigureError),
    /// There is nothing to send.
    #[error("no request is due: with --rate, --duration and --skip as they are, the test would be empty")]
    Empty,
}

/// A flag that is a number above zero.
///
/// # Errors
/// What to write instead.
pub fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (1e-6..=1e6).contains(number));
    number.ok_or_else(|| "write a number above zero, such as 0.5 or 20".to_owned())
}

impl LoadTest {
    /// Sends everything and reports.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let objectives = self.form.objectives()?;
        let (names, plan) = self.plan()?;
        if plan.is_empty() {
            return Err(LoadTestError::Empty.into());
        }
        let functions = names
            .into_iter()
            .map(|name| function_uri(&self.payload.url, &name, "invoke").map(|uri| (name, uri)));
        let target = Target {
            connector: self.payload.connector()?,
            functions: functions.collect::<Result<_, _>>()?,
            headers: headers(&self.payload.header)?,
            body: self.payload.body()?.into(),
            patience: self.timeout.0,
            most_at_once: self.max_in_flight,
        };
        let length = plan.last().map_or(Duration::ZERO, |&(at, _)| at);
        eprintln!("torpor: {} requests within {length:.0?}", plan.len());
        let stop = async {
            // Without the signal the test goes on to its end.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending().await
            }
        };
        let mut records =
            Builder::new_multi_thread().enable_all().build()?.block_on(follow(&plan, target, stop));
        records.sort_by(|a, b| a.scheduled_s.total_cmp(&b.scheduled_s));
        if let Some(path) = &self.records {
            record::write(path, &records).map_err(|error| LoadTestError::Records {
                path: path.clone(),
                done: "written",
                error,
            })?;
        }
        self.form.tell(&records, &objectives)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Whom to ask, and when.
    fn plan(&self) -> Result<(Vec<String>, Plan), LoadTestError> {
        let Some(path) = &self.trace else {
            let length = self.duration.map_or(Duration::from_secs(10), |duration| duration.0);
            let arrivals = (0..self.functions.len()).map(|function| {
                draw(self.arrivals, self.rate, self.cv, length, &mut random(self.seed, function))
            });
            return Ok((self.functions.clone(), merge(arrivals.enumerate())));
        };
        let trace = trace::read(path, self.seed)?;
        let names = match self.functions.is_empty() {
            true => trace.iter().map(|(name, _)| name.clone()).collect(),
            false => self.functions.clone(),
        };
        let length = self.duration.map_or(Duration::MAX, |duration| duration.0);
        let arrivals = trace.into_iter().enumerate().map(|(row, (_, arrivals))| {
            let shown =
                arrivals.into_iter().filter_map(|at| Some(at.checked_sub(self.skip.0)?.div_f64(self.speed)));
            (row % names.len(), shown.take_while(|&at| at < length).collect())
        });
        let plan = merge(arrivals);
        Ok((names, plan))
    }
}

/// All functions' arrivals in order.
fn merge(arrivals: impl Iterator<Item = (usize, Vec<Duration>)>) -> Plan {
    let mut plan: Plan = arrivals
        .flat_map(|(function, arrivals)| arrivals.into_iter().map(move |at| (at, function)))
        .collect();
    plan.sort_unstable();
    plan
}

impl Report {
    /// Reads and reports.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let objectives = self.form.objectives()?;
        let mut records = Vec::new();
        for path in self.records {
            let read = record::read(&path);
            records.extend(read.map_err(|error| LoadTestError::Records { path, done: "read", error })?);
        }
        self.form.tell(&records, &objectives)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A report, for programs.
#[derive(Serialize)]
struct Whole<'a> {
    functions: &'a [report::Summary],
    gpus: &'a [report::GpuLoad],
}

/// Within what time each function's requests should be answered.
struct Objectives {
    all: Option<Duration>,
    by_function: BTreeMap<String, Duration>,
}

impl Form {
    fn objectives(&self) -> Result<Objectives, CliError> {
        let file = match &self.config {
            Some(path) => SettingsFile::read(path).map_err(torpor_router::RouterError::Settings)?,
            None => SettingsFile::default(),
        };
        let ms = |ms: std::num::NonZeroU32| Duration::from_millis(ms.get().into());
        let by_function =
            file.functions.into_iter().filter_map(|(name, section)| Some((name.0, ms(section.slo_ms?))));
        let all = self.slo.map(|slo| slo.0).or(file.defaults.slo_ms.map(ms));
        Ok(Objectives { all, by_function: by_function.collect() })
    }

    fn tell(&self, records: &[Record], objectives: &Objectives) -> Result<(), LoadTestError> {
        let rows =
            report::summarise(records, |name| objectives.by_function.get(name).copied().or(objectives.all));
        let gpus = report::gpu_loads(records);
        if self.json {
            print_json(&Whole { functions: &rows, gpus: &gpus });
        } else {
            let cells: Vec<_> = rows.iter().map(report::Summary::cells).collect();
            print_table(report::HEADINGS, &cells);
            if !gpus.is_empty() {
                println!();
                let cells: Vec<_> = gpus.iter().map(report::GpuLoad::cells).collect();
                print_table(report::GPU_HEADINGS, &cells);
            }
        }
        if let Some(folder) = &self.figures {
            for file in figures::draw(folder, records, &rows)? {
                eprintln!("torpor: {}", file.display());
            }
        }
        Ok(())
    }
}
