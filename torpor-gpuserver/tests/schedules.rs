//! Random schedules of allocations, copies, launches, uses of variables, evictions and moves, against a reference that never evicts.
//!
//! A few clients share two GPUs, each of which has room for about one of them, so that nearly every command brings memory in
//! or drives somebody else's out. The simulated GPU's checks must stay silent.
//!
//! `PROPTEST_CASES` says how many schedules, `PROPTEST_RNG_SEED` repeats them.

mod random_programs;
mod served;
mod server_support;
mod worker_support;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use random_programs::{GPUS, Program, step};
use std::cell::Cell;

/// What all functions together may use of a GPU: less than two of them can have.
const GPU_LIMIT: &str = "10MiB";
const CLIENTS: usize = 3;
/// Nodes side by side: they mostly wait.
const NODES: u32 = 8;
/// Schedules of each node, unless `PROPTEST_CASES` says how many.
const SCHEDULES: u32 = 125;

#[test]
fn whatever_is_evicted_and_when_programs_see_the_memory_they_wrote() {
    std::thread::scope(|scope| {
        for _ in 0..NODES {
            scope.spawn(run_schedules);
        }
    });
}

fn run_schedules() {
    let (findings, spill) = (tempfile::NamedTempFile::new().unwrap(), tempfile::tempdir().unwrap());
    // The pool has room for one of them, whose array takes a chunk: the least with which every eviction must succeed.
    let flags = "--gpus 0,1 --pinned-limit 8MiB --staging 4MiB --memory-limit 9MiB --host-pool 12MiB --host-slab 4MiB";
    let server = served::serve_by(flags, |command| {
        command.args(["--gpu-limit", GPU_LIMIT]).arg("--spill-dir").arg(spill.path());
        command
            .env("TORPOR_SIMGPU_DEVICES", GPUS.to_string())
            .env("TORPOR_SIMGPU_CHECKS", "unordered,busy,streams")
            .env("TORPOR_SIMGPU_LOG", findings.path());
    });
    let schedule = prop::collection::vec((0..CLIENTS, step()), 10..80);
    let cases =
        if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { SCHEDULES };
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 300,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let swaps = Cell::new(0);
    let outcome = TestRunner::new(config).run(&schedule, |schedule| {
        let mut programs: Vec<_> = (0..CLIENTS).map(|number| Program::start(&server, number)).collect();
        for (program, step) in &schedule {
            programs[*program].take(&server, step)?;
        }
        programs.iter_mut().try_for_each(Program::check)?;
        swaps.set(swaps.get() + server.functions().iter().map(|function| function.swaps).sum::<u64>());
        Ok(())
    });
    let findings = std::fs::read_to_string(findings.path()).unwrap();
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let found: Vec<_> = findings.lines().filter(|line| line.contains(": check ")).collect();
    assert!(found.is_empty(), "the simulated GPU found something: {found:#?}");
    assert!(!server.said("mistake of its worker"));
    assert!(swaps.get() > u64::from(cases), "only {} swaps in {cases} schedules", swaps.get());
}
