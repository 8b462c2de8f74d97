//! Order between streams, events and threads: random programs through the real library, over the simulated GPU, against what
//! CUDA promises.
//!
//! A thousand programs, always the same, run in every test; which thread comes first is up to the machine, and each run sees
//! other interleavings. By hand, with the environment:
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `TORPOR_ORDER_SEED` | 1 | the first program |
//! | `TORPOR_ORDER_PROGRAMS` | 1000 | how many |
//! | `TORPOR_ORDER_SECONDS` | | so long, over and over |
//!
//! ```text
//! TORPOR_ORDER_SEED=1000000 TORPOR_ORDER_PROGRAMS=1000000 TORPOR_ORDER_SECONDS=3600 cargo test -p torpor-cli --test order_model
//! ```
//!
//! With the fix taken out, a stream's number used again (audit D1) is found after 11 programs, an event recorded by another thread
//! (D2) after 43, a deferred synchronisation taken over (D3) after 7.
//!
//! What is found names the seed and shows the program's calls; give the seed with one program and some seconds to see it again.
//! `TORPOR_ORDER_HERE=1` runs them in the test's own process, with whatever `libcuda.so.1` it finds: `torpor run` gives it
//! Torpor's, without that it is the driver of a real GPU.

mod support;

#[path = "order_model/cuda.rs"]
mod cuda;
#[path = "order_model/program.rs"]
mod program;
#[path = "order_model/random.rs"]
mod random;
#[path = "order_model/reference.rs"]
mod reference;
#[path = "order_model/run.rs"]
mod run;
#[path = "order_model/writer.rs"]
mod writer;

use program::Program;
use run::Machine;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is no number")))
}

/// A program that takes longer than this waits for ever.
const STUCK: Duration = Duration::from_secs(120);

/// Ends the process if programs do not get on: threads that wait for ever cannot be ended.
fn watch(seed: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        let mut last = (u64::MAX, Instant::now());
        loop {
            let now = seed.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            }
            if last.1.elapsed() > STUCK {
                eprintln!("seed {now} waits for ever: {:#?}", Program::new(now));
                std::process::abort();
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    });
}

/// Runs programs in this process.
fn run_here() {
    let first = number("TORPOR_ORDER_SEED").unwrap_or(1);
    let programs = number("TORPOR_ORDER_PROGRAMS").unwrap_or(1000);
    let seconds = number("TORPOR_ORDER_SECONDS");
    let begun = Instant::now();
    let machine = Machine::new().expect("a device");
    let current = Arc::new(AtomicU64::new(first));
    watch(current.clone());
    let mut done = 0_u64;
    loop {
        for seed in first..first + programs {
            if seconds.is_some_and(|seconds| begun.elapsed() >= Duration::from_secs(seconds)) {
                break;
            }
            current.store(seed, Ordering::Relaxed);
            let program = Program::new(seed);
            let broken: Vec<String> = match machine.run(&program) {
                Ok((mut calls, found)) => {
                    let broken = reference::broken(&mut calls, &found, program.operations);
                    broken.into_iter().chain(calls.iter().map(|call| format!("  {call:?}"))).collect()
                }
                Err(refusal) => vec![format!("{refusal:?}"), format!("{program:#?}")],
            };
            done += 1;
            if broken.first().is_some_and(|line| !line.starts_with("  ")) {
                panic!("seed {seed}, after {done} programs:\n{}", broken.join("\n"));
            }
        }
        if seconds.is_none_or(|seconds| begun.elapsed() >= Duration::from_secs(seconds)) {
            break;
        }
    }
    println!("{done} programs in {:.1} s", begun.elapsed().as_secs_f64());
}

#[test]
fn programs_get_what_cuda_promises() {
    if number("TORPOR_ORDER_HERE").is_some() {
        return run_here();
    }
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("log");
    let mut command = support::torpor(home.path());
    command.args(["run", "--private", "--driver", "simulated", "--"]);
    command.arg(std::env::current_exe().unwrap()).args([
        "--exact",
        "programs_get_what_cuda_promises",
        "--nocapture",
    ]);
    command.env("TORPOR_ORDER_HERE", "1");
    command.env("TORPOR_SIMGPU_CHECKS", "busy,streams").env("TORPOR_SIMGPU_LOG", &log);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\n{printed}\n{errors}", output.status);
    println!("{printed}");
    let said = std::fs::read_to_string(log).unwrap();
    assert!(!said.contains("check "), "{said}");
}

#[test]
fn a_seed_is_a_program() {
    assert_eq!(Program::new(7), Program::new(7));
    assert_ne!(Program::new(7), Program::new(8));
}
