//! `torpor bench` on the simulated GPU, natively and remoted: that it measures, not what.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_torpor");

const NAMES: [&str; 15] = [
    "launch_cpu",
    "launch",
    "launch_sleeps",
    "launch_preemptions",
    "event_record",
    "fill",
    "memory_info",
    "memory_info_idle",
    "launch_synchronize",
    "synchronize",
    "allocate_free",
    "pinned_to_device",
    "device_to_pinned",
    "pageable_to_device",
    "device_to_pageable",
];

/// A part of Torpor that Cargo builds beside the program, or into `deps` if only a test wants it: the newer one.
fn part(file: &str) -> PathBuf {
    let beside = Path::new(PROGRAM).parent().unwrap();
    let candidates = [beside.join(file), beside.join("deps").join(file)];
    let built = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).ok();
    let found = candidates.into_iter().filter(|path| path.is_file()).max_by_key(built);
    found.unwrap_or_else(|| panic!("{file} is missing: run `cargo build --workspace` first"))
}

/// Runs `torpor bench`, with the simulated GPU in its process.
fn native(arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(["bench", "--rounds", "2", "--libcuda"]).arg(part("libtorpor_simgpu.so")).args(arguments);
    command.env_remove("LD_PRELOAD").output().unwrap()
}

/// Runs `torpor bench` as a client of a private server with the simulated GPU.
fn remoted(arguments: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--private", "--driver", "simulated", "--", PROGRAM, "bench", "--rounds", "2"]);
    command.args(arguments);
    command.env("XDG_RUNTIME_DIR", home.path()).env_remove("LD_PRELOAD").env_remove("TORPOR_SERVER");
    command.env("TORPOR_GPUSERVER", part("torpor-gpuserver"));
    command.env("TORPOR_INTERCEPT", part("libtorpor_intercept.so"));
    command.env("TORPOR_SIMGPU", part("libtorpor_simgpu.so"));
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Every measurement has its numbers, in order. Gives the names.
fn names(report: &Value) -> Vec<&str> {
    let measurements = report["measurements"].as_array().unwrap();
    let is_whole = |measurement: &Value| {
        let number = |key: &str| measurement[key].as_f64().unwrap();
        let (min, median, max) = (number("min"), number("median"), number("max"));
        assert!((0.0..=median).contains(&min) && median <= max, "{measurement}");
        ["unit", "description"].iter().all(|key| measurement[key].is_string())
    };
    assert!(measurements.iter().all(is_whole), "{report}");
    measurements.iter().map(|measurement| measurement["name"].as_str().unwrap()).collect()
}

#[test]
fn calls_are_measured_natively_and_remoted() {
    let arguments = ["--copy-bytes", "1MiB", "--json"];
    for output in [native(&arguments), remoted(&arguments)] {
        let report = json(&output);
        assert_eq!(names(&report), NAMES);
        assert!(report["device"].is_string());
        assert_eq!((&report["rounds"], &report["copy_bytes"]), (&2.into(), &(1 << 20).into()));
    }
}

#[test]
fn system_calls_are_counted() {
    let remoted = json(&remoted(&["--syscalls", "--json"]));
    let native = json(&native(&["--syscalls", "--json"]));
    for report in [&remoted, &native] {
        assert_eq!(names(report), ["launch_system_calls"]);
        assert_eq!(report["rounds"], 2);
    }
    // The simulated GPU's queue wakes its thread with each launch: what is counted is there.
    assert!(native["measurements"][0]["min"].as_f64().unwrap() >= 1.0, "{native}");
    let numbers = native["system_call_numbers"].as_object().unwrap();
    assert!(numbers.values().map(|count| count.as_u64().unwrap()).sum::<u64>() >= 2, "{native}");
}

#[test]
fn people_get_a_table() {
    let output = native(&["--copy-bytes", "1MiB"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    let mut lines = table.lines();
    let headings: Vec<&str> = lines.next().unwrap().split_whitespace().rev().take(4).collect();
    assert_eq!(headings, ["UNIT", "MAX", "MIN", "MEDIAN"]);
    assert_eq!(lines.count(), NAMES.len());
}

#[test]
fn a_missing_driver_is_told() {
    for mode in [&["--json"][..], &["--syscalls"]] {
        let mut command = Command::new(PROGRAM);
        let output =
            command.args(["bench", "--libcuda", "/nonexistent/libcuda.so"]).args(mode).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stdout), "");
        assert!(text(&output.stderr).contains("/nonexistent/libcuda.so"), "{}", text(&output.stderr));
    }
}
