//! What streams do: the operations, and how one is executed.

use std::sync::Arc;

use crate::check::Stamp;
use crate::clock::{Resource, nanoseconds};
use crate::engine::Engine;
use crate::entry::{apply, report_faults};
use crate::error::{CudaError, Result};
use crate::event::Recording;
use crate::fault::Action;
use crate::graph::{Conditional, Program};
use crate::launch::{self, Launch};
use crate::machine::Machine;
use crate::memory::{Copy, Fill, Stored, Word, copy, fill, word};

/// A piece of work. Cheap to clone: a graph holds the same ones for every launch.
#[derive(Debug, Clone)]
pub enum Work {
    /// Moves bytes.
    Copy(Arc<Copy>),
    /// Sets bytes.
    Fill(Arc<Fill>),
    /// Runs a kernel.
    Launch(Arc<Launch>),
    /// Calls a function of the host.
    Host(HostFunction),
    /// Stores a word.
    Write(Stored),
    /// Waits until a word in memory is as wanted.
    WaitFor(Word),
    /// Takes the time for an event.
    Record(Arc<Recording>),
    /// Only waits for what is before it.
    Nothing,
    /// Several, one after the other.
    Graph(Program),
    /// Several, as a condition says.
    Conditional(Conditional),
}

/// A function of the program, called when the stream gets to it.
#[derive(Debug, Clone, Copy)]
pub struct HostFunction {
    /// Address of a C function that takes one pointer.
    pub function: u64,
    /// What it is called with.
    pub argument: u64,
}

/// Where and when an operation runs.
#[derive(Debug, Clone)]
pub struct Place {
    /// The stream's device.
    pub device: usize,
    /// The handle of the stream's green context; 0 if it is of the device's.
    pub green: u64,
    /// The stream's number.
    pub stream: u64,
    /// The time from which it may start, in nanoseconds.
    pub earliest_ns: u64,
    /// Its place in the order of things, if that is checked.
    pub stamp: Option<Stamp>,
}

impl Work {
    /// The copy engine that it needs, if it is a copy.
    pub fn engine(&self) -> Option<Engine> {
        match self {
            Self::Copy(copy) => copy.engine(),
            _ => None,
        }
    }

    /// Whether it occupies nothing, so that a copy engine sees what follows.
    pub fn is_mark(&self) -> bool {
        matches!(self, Self::Write(_) | Self::Record(_) | Self::Nothing)
    }

    /// Does it. The time at which it ended, or the sticky error that it ran into.
    pub fn execute(&self, machine: &'static Machine, place: &Place) -> Result<u64> {
        match self {
            Self::Copy(copy) => {
                let action = machine.config.faults.on_copy();
                if action.is_some() {
                    // One that hangs keeps nobody else from copying.
                    machine.engines.leave(place.stream);
                }
                on_demand(machine, action, "a copy")?;
                copy::execute(machine, copy, place)
            }
            Self::Fill(fill) => fill::execute(machine, fill, place),
            Self::Launch(launch) => {
                let action = machine.config.faults.on_launch(launch.name());
                on_demand(machine, action, launch.name())?;
                launch::execute(machine, launch, place)
            }
            Self::Host(HostFunction { function, argument }) => {
                call(*function, *argument);
                Ok(machine.clock.actual_end(place.earliest_ns))
            }
            Self::Write(word) => word::write(machine, *word, place),
            Self::WaitFor(word) => word::wait(machine, word, place),
            Self::Record(recording) => {
                recording.set(place.earliest_ns);
                Ok(place.earliest_ns)
            }
            Self::Nothing => Ok(place.earliest_ns),
            Self::Graph(program) => {
                program.begin();
                execute_all(machine, program, place.clone())
            }
            Self::Conditional(conditional) => {
                let mut place = place.clone();
                let mut round = 0;
                while let Some(program) = conditional.next(round) {
                    place.earliest_ns = execute_all(machine, program, place.clone())?;
                    machine.health(Some(place.device))?;
                    round += 1;
                }
                Ok(place.earliest_ns)
            }
        }
    }
}

/// Does one after the other. The end of the last.
fn execute_all(machine: &'static Machine, program: &Program, mut place: Place) -> Result<u64> {
    // A word stored on the way tells that the graph began, not how far it has come.
    let begun = place.stamp.as_ref().map(Stamp::begun);
    for work in program.work.iter() {
        machine.health(Some(place.device))?;
        place.earliest_ns = match work {
            Work::Write(word) => {
                word::write(machine, *word, &Place { stamp: begun.clone(), ..place.clone() })?
            }
            _ => work.execute(machine, &place)?,
        };
        machine.engines.leave(place.stream);
    }
    Ok(place.earliest_ns)
}

/// Applies a fault to an operation that is about to run.
fn on_demand(machine: &Machine, action: Option<Action>, what: &str) -> Result {
    let Some(action) = action else { return Ok(()) };
    report_faults(machine);
    match action {
        // The call that issued it returned long ago, so the error can only stick.
        Action::Fail(error) => apply(machine, Action::Stick(error), what),
        other => apply(machine, other, what),
    }
}

/// Occupies `resources` for a time and lets it pass. The end.
pub fn spend(machine: &Machine, resources: &[Resource], place: &Place, duration_ns: u64) -> u64 {
    let (_, end) = machine.clock.occupy(resources, place.earliest_ns, duration_ns);
    machine.clock.wait_for_end(end);
    machine.clock.actual_end(end)
}

/// The time of something short on the device.
pub fn short_ns() -> u64 {
    nanoseconds(1.0)
}

fn call(function: u64, argument: u64) {
    type Callback = unsafe extern "C" fn(*mut std::ffi::c_void);
    let pointer = function as usize as *const ();
    if pointer.is_null() {
        return;
    }
    // SAFETY: `cuLaunchHostFunc` demands the address of a C function that takes one pointer, valid until it was called.
    let callback: Callback = unsafe { std::mem::transmute::<*const (), Callback>(pointer) };
    // SAFETY: the program promises that it can be called from any thread with this argument.
    unsafe { callback(argument as usize as *mut std::ffi::c_void) };
}

/// The error of an operation on memory that is not there.
pub fn illegal_address(machine: &Machine, what: &str, address: u64, bytes: u64) -> CudaError {
    let freed = if machine.space.was_freed(address) { " (memory that was freed)" } else { "" };
    machine.log.line(&format!("{what} touches {bytes} bytes at {address:#x}, which it may not{freed}"));
    CudaError::ILLEGAL_ADDRESS
}
