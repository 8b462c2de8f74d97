//! `torpor bench`: what the calls of a CUDA driver cost, measured in a process like any other.
//!
//! The driver is whatever `libcuda.so.1` is here, so the command alone measures the machine's own, and
//! `torpor run -- torpor bench` the remoted one. `evaluation/microbench/run` compares the two.

mod call;
mod copy;
mod posted;
mod report;
mod summary;
mod system_calls;
mod workbench;

use crate::driver_api::{Driver, DriverError};
use crate::error::CliError;
use copy::HostMemory;
use report::Report;
use std::ffi::OsString;
use std::io;
use std::process::{ExitCode, ExitStatus};
use summary::{Figure, summarise};
use torpor_gpuserver::server::size::ByteSize;
use workbench::Workbench;

const EXAMPLES: &str = "\
One row for each kind of call: the median of the rounds, the least and the most. The first round, which loads what is
loaded lazily, is not counted. CPU time is that of all this process's threads.

Examples:
  torpor bench
  torpor run -- torpor bench
  torpor run -- torpor bench --syscalls
  torpor run --driver simulated -- torpor bench --copy-bytes 16MiB --rounds 3";

/// Measure what the calls of this process's CUDA driver cost
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Bench {
    /// The CUDA driver, as the dynamic linker finds it
    #[arg(long, value_name = "PATH", default_value = "libcuda.so.1")]
    libcuda: OsString,

    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Length of a copy. A simulated GPU copies with the CPU: give it less
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    copy_bytes: ByteSize,

    /// Count the system calls of a burst of launches instead
    #[arg(long)]
    syscalls: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The process whose system calls `torpor bench --syscalls` counts
#[derive(Debug, clap::Args)]
pub struct BenchBurst {
    /// As of `torpor bench`
    #[arg(long)]
    libcuda: OsString,

    /// As of `torpor bench`
    #[arg(long)]
    rounds: u32,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A call failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The driver does not do what it is measured at.
    #[error("what was copied to the device and back is not what it was: the driver is broken")]
    Corrupted,
    /// The clock or the counters of this process.
    #[error("this process cannot be measured: {0}")]
    Usage(io::Error),
    /// The burst runs in a process that is traced.
    #[error(
        "system calls cannot be counted here: {0}; is ptrace(2) allowed, and the kernel Linux 5.3 or newer?"
    )]
    Trace(io::Error),
    /// That process says why on standard error.
    #[error("the process whose system calls were to be counted ended early ({0})")]
    TracedProcess(ExitStatus),
}

impl Bench {
    /// Measures and prints.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let report = if self.syscalls {
            system_calls::count(&self.libcuda, self.rounds).map(Report::of_system_calls)
        } else {
            self.measure()
        }?;
        report.print(self.json);
        Ok(ExitCode::SUCCESS)
    }

    fn measure(&self) -> Result<Report, BenchError> {
        let driver = Driver::open(&self.libcuda)?;
        let mut bench = Workbench::new(&driver)?;
        let elements = usize::try_from(self.copy_bytes.0).unwrap_or(usize::MAX) / size_of::<f32>();
        let mut host = HostMemory::new(&driver, elements.max(1))?;
        copy::check(&bench, &mut host)?;
        measure_once(&mut bench, &mut host)?;
        let rounds = (0..self.rounds).map(|_| measure_once(&mut bench, &mut host));
        let rounds = rounds.collect::<Result<Vec<_>, _>>()?;
        // The process ends now, and all that it holds of the driver with it.
        Ok(Report::of_calls(bench.device_name, self.rounds, host.bytes(), summarise(&rounds)))
    }
}

/// One round of everything.
fn measure_once(bench: &mut Workbench, host: &mut HostMemory) -> Result<Vec<Figure>, BenchError> {
    let mut figures = posted::measure(bench)?;
    figures.extend(call::measure(bench)?);
    figures.extend(copy::measure(bench, host)?);
    Ok(figures)
}

impl BenchBurst {
    /// Launches between marks.
    pub fn run(self) -> Result<ExitCode, CliError> {
        system_calls::serve(&self.libcuda, self.rounds)?;
        Ok(ExitCode::SUCCESS)
    }
}
