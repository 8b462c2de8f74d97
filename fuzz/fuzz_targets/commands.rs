//! Well-formed commands of several clients in any order: a worker executes or refuses each, and a bystander's memory stays.
//!
//! The worker is that of production, in this process, over the simulated GPU (`TORPOR_FUZZ_DRIVER`, README.md). A panic of a
//! session, an answer that never comes and a changed byte of the bystander are findings.
#![no_main]

#[path = "../commands/arrays.rs"]
mod arrays;
#[allow(dead_code, reason = "the worker's tests use more of it")]
#[path = "../../torpor-gpuserver/tests/worker_support/client.rs"]
mod client;
#[path = "../commands/program.rs"]
mod program;
#[path = "../commands/records.rs"]
mod records;
#[path = "../commands/speaker.rs"]
mod speaker;
#[path = "../commands/worker.rs"]
mod worker;

use libfuzzer_sys::fuzz_target;
use program::Program;
use worker::Worker;

fuzz_target!(|program: Program| {
    Worker::with(|worker| program.run(worker));
});
