//! Random schedules as those of `schedules.rs`, in which workers are killed: at rest, when everybody is covered, and at any other
//! moment. Who fails was not covered; who does not fail has the memory of a reference for which nothing happened.
//!
//! `PROPTEST_CASES` says how many schedules, `PROPTEST_RNG_SEED` repeats them.

mod random_programs;
mod served;
mod server_support;
mod worker_support;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use random_programs::{GPUS, Program, Step, step};
use rustix::process::{Pid, Signal, kill_process};
use server_support::server::{Server, eventually};
use std::cell::Cell;
use torpor_proto::command::Ping;

const CLIENTS: usize = 3;
/// Nodes side by side: they mostly wait.
const NODES: u32 = 4;
/// Schedules of each node, unless `PROPTEST_CASES` says how many.
const SCHEDULES: u32 = 4;

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    /// A program goes on.
    Goes { program: usize, step: Step },
    /// A worker is killed: once all programs are idle and covered, or now.
    Dies { gpu: u32, at_rest: bool },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (0..CLIENTS, step()).prop_map(|(program, step)| Event::Goes { program, step }),
        1 => (0..GPUS, any::<bool>()).prop_map(|(gpu, at_rest)| Event::Dies { gpu, at_rest }),
    ]
}

/// Kills a worker. Returns how many programs of its GPU are still served; those that failed are started anew.
fn kill_worker(server: &Server, programs: &mut [Program], gpu: usize, at_rest: bool) -> u64 {
    let is_covered = |program: &Program| server.listed(&program.name).covered_clients == 1;
    if at_rest {
        programs.iter_mut().for_each(|program| program.client.settle().unwrap());
        eventually("everybody is covered", || programs.iter().all(is_covered));
    }
    let (restarts, pid) = (server.gpus()[gpu].worker_restarts, server.gpus()[gpu].worker_pid);
    let there: Vec<bool> =
        programs.iter().map(|program| server.listed(&program.name).gpus == [gpu as u32]).collect();
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    eventually("another worker is there", || {
        let gpus = server.gpus();
        gpus[gpu].worker_restarts > restarts && gpus[gpu].state == "ready"
    });
    let mut survivors = 0;
    for (number, (program, was_there)) in programs.iter_mut().zip(there).enumerate() {
        // Who was in a request is told when it is found that it cannot do it again.
        if let Err(error) = program.client.ask(Ping {}) {
            assert!(!at_rest, "a covered client is told {error}: {}", server.log());
            *program = Program::start(server, number);
        } else {
            survivors += u64::from(was_there);
        }
    }
    survivors
}

#[test]
fn whenever_a_worker_is_killed_who_goes_on_has_the_memory_that_it_wrote() {
    std::thread::scope(|scope| {
        for _ in 0..NODES {
            scope.spawn(run_schedules);
        }
    });
}

fn run_schedules() {
    let findings = tempfile::NamedTempFile::new().unwrap();
    // The pool has room for all of them, and for the eighth that is left to those who have to leave their GPU.
    let flags = "--gpus 0,1 --pinned-limit 8MiB --staging 4MiB --gpu-limit 10MiB --memory-limit 9MiB --host-pool 40MiB --host-slab 4MiB";
    let server = served::serve_by(flags, |command| {
        command.env("TORPOR_SIMGPU_DEVICES", GPUS.to_string());
        command
            .env("TORPOR_SIMGPU_CHECKS", "unordered,busy,streams")
            .env("TORPOR_SIMGPU_LOG", findings.path());
    });
    let schedule = prop::collection::vec(event(), 10..60);
    let cases =
        if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { SCHEDULES };
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let survivors = Cell::new(0);
    let outcome = TestRunner::new(config).run(&schedule, |schedule| {
        let mut programs: Vec<_> = (0..CLIENTS).map(|number| Program::start(&server, number)).collect();
        for event in &schedule {
            match *event {
                Event::Goes { program, ref step } => programs[program].take(&server, step)?,
                Event::Dies { gpu, at_rest } => {
                    let survived = kill_worker(&server, &mut programs, gpu as usize, at_rest);
                    survivors.set(survivors.get() + survived);
                }
            }
        }
        // Once more, so that each schedule has such a death.
        let survived = (0..2).map(|gpu| kill_worker(&server, &mut programs, gpu, true)).sum::<u64>();
        survivors.set(survivors.get() + survived);
        programs.iter_mut().try_for_each(Program::check)
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let findings = std::fs::read_to_string(findings.path()).unwrap();
    let found: Vec<_> = findings.lines().filter(|line| line.contains(": check ")).collect();
    assert!(found.is_empty(), "the simulated GPU found something: {found:#?}");
    assert!(!server.said("mistake of its worker"));
    assert!(survivors.get() >= u64::from(cases), "only {} survivors in {cases} schedules", survivors.get());
}
