//! What every exported function goes through: counting, faults, sticky errors, panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::context;
use crate::error::{CudaError, Result};
use crate::fault::Action;
use crate::machine::{Machine, machine};

/// Runs the body of a function that needs the machine, and gives its result code.
pub fn call(name: &'static str, body: impl FnOnce(&'static Machine) -> Result) -> i32 {
    code(|| {
        let machine = machine()?;
        let action = machine.config.faults.on_call(name);
        report_faults(machine);
        machine.wait_while_jammed()?;
        match action {
            None => {}
            Some(Action::Fail(error)) => return Err(error),
            Some(action) => apply(machine, action, name)?,
        }
        machine.health(context::current_device())?;
        body(machine)
    })
}

/// Runs the body of a function that works without the machine and with a sticky error.
pub fn call_always(body: impl FnOnce() -> Result) -> i32 {
    code(body)
}

fn code(body: impl FnOnce() -> Result) -> i32 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => error.0,
        Err(_) => CudaError::UNKNOWN.0,
    }
}

/// Writes the faults applied since the last call to the log.
pub fn report_faults(machine: &Machine) {
    for line in machine.config.faults.take_applied() {
        machine.log.line(&line);
    }
}

/// Does what a fault says, other than just failing. `Err` is the sticky error.
pub fn apply(machine: &Machine, action: Action, what: &str) -> Result {
    match action {
        Action::Fail(error) => Err(error),
        Action::Stick(error) => {
            machine.stick(error, &format!("on demand at {what}"));
            Err(error)
        }
        Action::Hang => loop {
            machine.health(None)?;
            std::thread::sleep(Duration::from_millis(2));
        },
        Action::Jam => {
            // Two that jam would each wait for the other.
            if machine.is_jammed.swap(true, Ordering::SeqCst) {
                return machine.wait_while_jammed();
            }
            let waited = context::current(machine).and_then(|context| context.synchronize(machine));
            machine.is_jammed.store(false, Ordering::SeqCst);
            waited
        }
        Action::Abort => std::process::abort(),
        Action::Kill => {
            // A failure leaves the process alive, which the test that asked for the fault will see.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            Ok(())
        }
    }
}
