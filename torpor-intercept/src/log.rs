//! The shim's log: silent unless `TORPOR_SHIM_LOG` names a file, or is `stderr`.
//!
//! With `TORPOR_LOG=debug`, every CUDA call that gives an error is named too.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::panic;
use std::sync::OnceLock;
use torpor_proto::error::CudaError;

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

/// Names a function that gave an error, if anybody wants to know.
pub(crate) fn write_failure(function: &str, error: CudaError) {
    static WANTED: OnceLock<bool> = OnceLock::new();
    let wanted = || std::env::var("TORPOR_LOG").is_ok_and(|level| level == "debug" || level == "trace");
    if *WANTED.get_or_init(wanted) {
        write(&format!("{function} gives {error}"));
    }
}

/// Makes sure that panics are kept from the program's stderr from now on.
pub(crate) fn prepare() {
    sink();
}
