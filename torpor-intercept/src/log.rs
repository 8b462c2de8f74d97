//! The shim's log: silent unless `TORPOR_SHIM_LOG` names a file, or is `stderr`.
//!
//! With `TORPOR_LOG=debug`, every CUDA call that gives an error is named too; with `TORPOR_LOG=trace`, every call, and
//! before it every command whose answer it waited for (`awaited NAME for N µs`), and what the compile cache had.

use crate::core::CudaResult;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::panic;
use std::sync::OnceLock;
use std::time::Instant;

enum Sink {
    Nowhere,
    Stderr,
    File(File),
}

static SINK: OnceLock<Sink> = OnceLock::new();

fn sink() -> &'static Sink {
    SINK.get_or_init(|| {
        // A panic of this library is caught at the C boundary; its message belongs here, not on the program's stderr.
        panic::set_hook(Box::new(|what| write(&format!("bug: {what}"))));
        match std::env::var_os("TORPOR_SHIM_LOG") {
            None => Sink::Nowhere,
            Some(name) if name.is_empty() => Sink::Nowhere,
            Some(name) if name == "stderr" => Sink::Stderr,
            Some(name) => {
                OpenOptions::new().create(true).append(true).open(name).map_or(Sink::Nowhere, Sink::File)
            }
        }
    })
}

/// Writes one line, if anybody wants it.
pub(crate) fn write(message: &str) {
    let line = || format!("torpor[{}]: {message}\n", std::process::id());
    // A log that cannot be written must not disturb the program.
    let _ = match sink() {
        Sink::Nowhere => return,
        Sink::Stderr => std::io::stderr().write_all(line().as_bytes()),
        Sink::File(file) => { file }.write_all(line().as_bytes()),
    };
}

/// Names a CUDA call, if it is one of those that are wanted.
pub(crate) fn write_call(wanted: LoggedCalls, function: &str, outcome: CudaResult<()>) {
    match (wanted, outcome) {
        (LoggedCalls::None, _) | (LoggedCalls::Failed, Ok(())) => {}
        (LoggedCalls::Failed | LoggedCalls::All, Err(error)) => write(&format!("{function} gives {error}")),
        (LoggedCalls::All, Ok(())) => write(function),
    }
}

/// Names a command whose answer was awaited and how long, if every call is named.
#[inline]
pub(crate) fn write_awaited(command: &str, begun: Instant) {
    if LoggedCalls::wanted() == LoggedCalls::All {
        write(&format!("awaited {command} for {:.1} µs", begun.elapsed().as_secs_f64() * 1e6));
    }
}

/// Writes what is of interest with every call named.
pub(crate) fn write_detail(message: impl FnOnce() -> String) {
    if LoggedCalls::wanted() == LoggedCalls::All {
        write(&message());
    }
}

/// Which calls are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoggedCalls {
    None,
    Failed,
    All,
}

impl LoggedCalls {
    /// What `TORPOR_LOG` says.
    #[inline]
    pub(crate) fn wanted() -> Self {
        static WANTED: OnceLock<LoggedCalls> = OnceLock::new();
        *WANTED.get_or_init(|| match std::env::var("TORPOR_LOG").as_deref() {
            Ok("debug") => Self::Failed,
            Ok("trace") => Self::All,
            _ => Self::None,
        })
    }
}

/// Makes sure that panics are kept from the program's stderr from now on.
pub(crate) fn prepare() {
    sink();
}
