//! The shim's log: silent unless `TORPOR_SHIM_LOG` names a file, or is `stderr`.
//!
//! With `TORPOR_LOG=debug`, every CUDA call that gives an error is named too; with `TORPOR_LOG=trace`, every call.

use crate::core::CudaResult;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::panic;
use std::sync::OnceLock;

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

/// Names a CUDA call, if anybody wants to know.
#[inline]
pub(crate) fn write_call(function: &str, outcome: CudaResult<()>) {
    static WANTED: OnceLock<Calls> = OnceLock::new();
    let wanted = || match std::env::var("TORPOR_LOG").as_deref() {
        Ok("debug") => Calls::Failed,
        Ok("trace") => Calls::All,
        _ => Calls::None,
    };
    match (WANTED.get_or_init(wanted), outcome) {
        (Calls::None, _) | (Calls::Failed, Ok(())) => {}
        (Calls::Failed | Calls::All, Err(error)) => write(&format!("{function} gives {error}")),
        (Calls::All, Ok(())) => write(function),
    }
}

/// Which calls are named.
enum Calls {
    None,
    Failed,
    All,
}

/// Makes sure that panics are kept from the program's stderr from now on.
pub(crate) fn prepare() {
    sink();
}
