//! What functions bring as code is unpacked, compiled and linked here, where there is nothing to take: a worker, which maps the memory of all its
//! clients, reads no compressed bytes and no PTX of theirs, and hands its driver cubins alone whose parts it has checked.
//!
//! Each GPU has one such process (`torpor-gpuserver compiler`), which reads nothing of functions itself. A child of it loads the driver, makes
//! a context, and has a kernel of its own compiled, so that the driver's compiler is loaded. A copy of that child, without the driver's threads,
//! files and mappings, is the *original*; the child ends, and with it what it has of the GPU: the driver compiles on the CPU, for a context of
//! which nothing needs to be left. Seen on an H200 (driver 580.159): the original has no memory on the GPU.
//!
//! Each job is done by a copy of the original, which has the connection to whoever asks and no other file, may make
//! some twenty system calls, of which none opens, makes or signals anything, and ends with its answer. Whatever takes it over has one function's
//! code, and can answer with other code for the one that asked. Its siblings come from the same untouched original.
//!
//! Limits: what a kernel's code does on the GPU is not looked at, and the driver's loader of cubins is in the worker.

mod client;
mod filter;
mod job;
mod jobs;
mod kept;
mod original;
mod process;
mod wire;

pub(crate) use client::{Compiler, Plain};
#[cfg(test)]
pub(crate) use job::answer;
pub use process::{CompilerError, run};
#[cfg(test)]
pub(crate) use wire::Life;
