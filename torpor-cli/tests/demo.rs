//! `torpor demo` on the simulated GPU, with every part of Torpor at work.

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::{PROGRAM, part, torpor};

/// The demo, with its private server in `home`.
fn demo(home: &Path, arguments: &[&str]) -> Command {
    let mut command = torpor(home);
    command.args(["demo", "--driver", "simulated"]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn ended_with(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// Nothing is left in the server's place, and no process that was started with it.
fn assert_nothing_is_left(home: &Path) {
    let left: Vec<PathBuf> = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [] as [PathBuf; 0]);
    let setting = format!("XDG_RUNTIME_DIR={}\0", home.display());
    let holds =
        |environment: Vec<u8>| environment.windows(setting.len()).any(|window| window == setting.as_bytes());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut environments = processes.filter_map(|process| fs::read(process.path().join("environ")).ok());
    assert!(!environments.any(holds), "a process is left");
}

#[test]
fn a_function_serves_from_any_driver_of_cuda() {
    for (kind, values) in [("mlp", 16 * 16), ("convnet", 16)] {
        let mut command = Command::new(PROGRAM);
        command.args(["demo-function", kind, "--seed", "9", "--libcuda"]).arg(part("libtorpor_simgpu.so"));
        let mut function = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        function.stdin.take().unwrap().write_all(b"5\n6\n5\n").unwrap();
        let output = function.wait_with_output().unwrap();
        ended_with(&output, 0);
        let said = text(&output.stdout);
        let answers: Vec<Vec<&str>> = said
            .lines()
            .filter_map(|line| Some(line.strip_prefix("answer ")?.split(' ').collect()))
            .collect();
        assert_eq!(answers.iter().map(|words| words[0]).collect::<Vec<_>>(), ["5", "6", "5"]);
        assert_eq!(answers[0].len(), 2 + values);
        assert_eq!(answers[0][2..], answers[2][2..], "the same request has the same answer");
        assert_ne!(answers[0][2..], answers[1][2..]);
    }
}

#[test]
fn a_function_says_why_it_cannot_serve() {
    let mut command = Command::new(PROGRAM);
    command.args(["demo-function", "mlp", "--seed", "1", "--libcuda", "/nonexistent/libcuda.so"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    ended_with(&output, 1);
    let said = text(&output.stdout);
    assert!(said.starts_with("failed ") && said.contains("/nonexistent/libcuda.so"), "{said}");
}

#[test]
fn every_answer_is_right_and_nothing_is_left() {
    let home = tempfile::tempdir().unwrap();
    let output = demo(home.path(), &["--requests", "12", "--json"]).output().unwrap();
    ended_with(&output, 0);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["gpus"][0]["simulated"], true);
    let functions = report["functions"].as_array().unwrap();
    assert_eq!(functions.len(), 4);
    for function in functions {
        assert_eq!(
            (function["requests"].as_u64(), function["wrong"].as_u64()),
            (Some(3), Some(0)),
            "{report}"
        );
        let [load, p50, p99] = ["load_us", "p50_us", "p99_us"].map(|field| function[field].as_u64().unwrap());
        assert!(0 < load && 0 < p50 && p50 <= p99, "{report}");
    }
    assert!(text(&output.stderr).contains("simulated on this machine's CPU"));
    assert_nothing_is_left(home.path());
}

#[test]
fn people_get_a_table() {
    let home = tempfile::tempdir().unwrap();
    let output = demo(home.path(), &["--requests", "4"]).output().unwrap();
    ended_with(&output, 0);
    let said = text(&output.stdout);
    let words: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    let headings = ["FUNCTION", "KERNELS", "WEIGHTS", "LOAD", "P50", "P99", "REQUESTS", "WRONG"];
    assert_eq!(words[0], headings);
    assert_eq!(words[1][..4], ["mlp-a", "23", "16.1", "MiB"]);
    assert!(said.contains("All 4 answers agree with the CPU's."), "{said}");
}

#[test]
fn checks_of_the_simulated_gpu_find_nothing() {
    let (home, reports) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = reports.path().join("log");
    let mut command = demo(home.path(), &["--requests", "4"]);
    ended_with(
        &command.env("TORPOR_SIMGPU_CHECKS", "all").env("TORPOR_SIMGPU_LOG", &log).output().unwrap(),
        0,
    );
    let said = fs::read_to_string(log).unwrap();
    assert!(!said.is_empty() && !said.contains("check "), "{said}");
}

#[test]
fn a_gpu_that_fails_is_no_success() {
    let home = tempfile::tempdir().unwrap();
    let mut command = demo(home.path(), &["--requests", "8"]);
    let output = command.env("TORPOR_SIMGPU_FAULTS", "launch:softmax@3:illegal-address").output().unwrap();
    ended_with(&output, 1);
    let complaint = text(&output.stderr);
    assert!(complaint.contains("the function ") && complaint.contains("CUDA_ERROR_"), "{complaint}");
    assert_nothing_is_left(home.path());
}

#[test]
fn an_interrupt_leaves_nothing() {
    for (signal, code, moment) in [(Signal::INT, 130, "GPU 0"), (Signal::TERM, 143, "ready in")] {
        let home = tempfile::tempdir().unwrap();
        let mut running = demo(home.path(), &["--requests", "100000"]).spawn().unwrap();
        let mut lines = BufReader::new(running.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains(moment)), "the demo begins");
        let asked = Instant::now();
        kill_process(Pid::from_child(&running), signal).unwrap();
        let said: Vec<String> = lines.map_while(Result::ok).collect();
        let output = running.wait_with_output().unwrap();
        ended_with(&output, code);
        assert!(asked.elapsed() < Duration::from_secs(15));
        assert!(said.iter().any(|line| line == "torpor: interrupted"), "{said:?}");
        assert_nothing_is_left(home.path());
    }
}
