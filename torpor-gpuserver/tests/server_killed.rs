//! A server with a keeper is killed again and again while programs run: none sees an error, and each has the memory of a reference
//! for which nothing happened.
//!
//! `PROPTEST_CASES` says how many schedules, `PROPTEST_RNG_SEED` repeats them.

mod random_programs;
mod served;
mod server_support;
mod worker_support;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use random_programs::{GPUS, Program, Step, step};
use server_support::kept::ask_one_that_may_be_killed;
use server_support::server::Server;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use torpor_proto::command::Ping;
use torpor_proto::control::admin::{LoadFunctionRequest, UnloadFunctionRequest, VerifyStoreRequest};
use torpor_proto::directory::ServerDirectory;

const CLIENTS: usize = 3;
/// Nodes side by side: they mostly wait.
const NODES: u32 = 2;
/// Schedules of each node, unless `PROPTEST_CASES` says how many.
const SCHEDULES: u32 = 4;

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    /// A program goes on.
    Goes { program: usize, step: Step },
    /// The server is killed, and nobody waits for the next one; or somebody does.
    Killed { waits: bool },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..CLIENTS, step()).prop_map(|(program, step)| Event::Goes { program, step }),
        1 => any::<bool>().prop_map(|waits| Event::Killed { waits }),
    ]
}

fn start(findings: &std::path::Path, flags: &[&str]) -> Server {
    served::serve_by(
        "--keeper true --gpus 0,1 --pinned-limit 8MiB --staging 4MiB --gpu-limit 10MiB --memory-limit 9MiB --host-slab 4MiB",
        |command| {
            command.args(flags);
            command.env("TORPOR_SIMGPU_DEVICES", GPUS.to_string());
            command.env("TORPOR_SIMGPU_CHECKS", "unordered,busy,streams").env("TORPOR_SIMGPU_LOG", findings);
        },
    )
}

/// Kills of the server while programs run.
const KILLS: u32 = 40;

/// Steps that need nothing of the admin API, which breaks off when the server is killed.
fn own_step() -> impl Strategy<Value = Step> {
    step().prop_filter("asks the server", |step| {
        !matches!(step, Step::Load | Step::Unload | Step::Move { .. } | Step::Rest)
    })
}

#[test]
fn programs_run_while_the_server_is_killed_at_any_moment() {
    let findings = tempfile::NamedTempFile::new().unwrap();
    let spill = tempfile::tempdir().unwrap();
    let spill_dir = spill.path().to_str().unwrap();
    let server = start(findings.path(), &["--host-pool", "12MiB", "--spill-dir", spill_dir]);
    let programs: Vec<_> = (0..CLIENTS).map(|number| Program::start(&server, number)).collect();
    let over = AtomicBool::new(false);
    let steps = std::thread::scope(|scope| {
        let run = |mut program: Program| {
            let (server, over) = (&server, &over);
            scope.spawn(move || {
                let (mut runner, strategy, mut steps) = (TestRunner::default(), own_step(), 0_u32);
                while !over.load(Ordering::Relaxed) {
                    let step = strategy.new_tree(&mut runner).unwrap().current();
                    program.take(server, &step).unwrap();
                    steps += 1;
                }
                program.check().unwrap();
                steps
            })
        };
        let running: Vec<_> = programs.into_iter().map(run).collect();
        let mut runner = TestRunner::default();
        for kill_number in 0..KILLS {
            // The operator moves functions and takes them off their GPUs meanwhile; whatever comes of that.
            let (function, gpu, rest) =
                (0..CLIENTS, 0..GPUS, 0..60_u64).new_tree(&mut runner).unwrap().current();
            let directory = server.directory.clone();
            scope.spawn(move || {
                ask_to_move(&directory, format!("f{function}"), (kill_number % 3 > 0).then_some(gpu))
            });
            std::thread::sleep(Duration::from_millis(rest));
            server.kill_for_the_next();
        }
        over.store(true, Ordering::Relaxed);
        running.into_iter().map(|program| program.join().unwrap()).sum::<u32>()
    });
    assert!(steps > KILLS, "only {steps} steps");
    let verified = server.admin(async |mut api| api.verify_store(VerifyStoreRequest {}).await).unwrap();
    assert_eq!((verified.damaged, verified.contradictions), (vec![], vec![]));
    let findings = fs::read_to_string(findings.path()).unwrap();
    let found: Vec<_> = findings.lines().filter(|line| line.contains(": check ")).collect();
    assert!(found.is_empty(), "the simulated GPU found something: {found:#?}");
    assert!(!server.said("mistake of its worker") && !server.said("client lost"), "{}", server.log());
}

/// Moves a function to a GPU, or takes it off its own. The server may be killed over that.
fn ask_to_move(directory: &ServerDirectory, name: String, gpu: Option<u32>) {
    ask_one_that_may_be_killed(directory, async |mut api| match gpu {
        Some(_) => api.load_function(LoadFunctionRequest { name, gpu }).await.map(drop),
        None => api.unload_function(UnloadFunctionRequest { name }).await.map(drop),
    });
}

#[test]
fn whenever_the_server_is_killed_programs_have_the_memory_that_they_wrote() {
    std::thread::scope(|scope| {
        for node in 0..NODES {
            scope.spawn(move || run_schedules(node));
        }
    });
}

fn run_schedules(node: u32) {
    let findings = tempfile::NamedTempFile::new().unwrap();
    let spill = tempfile::tempdir().unwrap();
    // One node has a pool that is too small, so that chunks go to files and come back.
    let spill_dir = spill.path().to_str().unwrap();
    let server = match node {
        0 => start(findings.path(), &["--host-pool", "40MiB"]),
        _ => start(findings.path(), &["--host-pool", "12MiB", "--spill-dir", spill_dir]),
    };
    let schedule = prop::collection::vec(event(), 10..60);
    let cases =
        if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { SCHEDULES };
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let outcome = TestRunner::new(config).run(&schedule, |schedule| {
        let mut programs: Vec<_> = (0..CLIENTS).map(|number| Program::start(&server, number)).collect();
        for event in &schedule {
            match *event {
                Event::Goes { program, ref step } => programs[program].take(&server, step)?,
                Event::Killed { waits } => {
                    server.kill_for_the_next();
                    if waits {
                        server.gpus();
                    }
                }
            }
        }
        // Once more, so that each schedule has such an end.
        server.kill_for_the_next();
        for program in &mut programs {
            program.client.ask(Ping {}).unwrap();
            program.check()?;
        }
        let verified = server.admin(async |mut api| api.verify_store(VerifyStoreRequest {}).await).unwrap();
        prop_assert_eq!((verified.damaged, verified.contradictions), (vec![], vec![]));
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}\n{}", server.log());
    }
    let findings = fs::read_to_string(findings.path()).unwrap();
    let found: Vec<_> = findings.lines().filter(|line| line.contains(": check ")).collect();
    assert!(found.is_empty(), "the simulated GPU found something: {found:#?}");
    assert!(!server.said("mistake of its worker") && !server.said("client lost"), "{}", server.log());
    assert!(server.said("going on where the server before ended"));
}
