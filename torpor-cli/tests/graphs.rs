//! Graphs that a program builds, edits and captures, while its memory is taken off the GPU and it is moved to another one.

#[path = "../../torpor-gpuserver/tests/server_support/mod.rs"]
mod server_support;
mod support;

use server_support::server::Server;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use support::torpor;

#[test]
fn graphs_are_evicted_and_moved_between_steps() {
    let said = moved_between_steps("graphs.py");
    assert_eq!(said.last().map(String::as_str), Some("graphs passed"), "{said:?}");
}

#[test]
fn graphs_that_copy_pageable_memory_are_evicted_and_moved_between_steps_and_in_the_middle_of_a_launch() {
    let said = moved_between_steps("graph_copies.py");
    assert_eq!(said.last().map(String::as_str), Some("graph copies passed"), "{said:?}");
}

#[test]
fn graphs_have_the_page_locked_memory_of_those_that_are_gone() {
    let home = tempfile::tempdir().unwrap();
    let mut command = torpor(home.path());
    command.args(["run", "--private", "--driver", "simulated", "--pinned-limit", "64MiB", "--", "python3"]);
    let output = command.arg(script("graph_staging.py")).output().unwrap();
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("graph staging passed"), "{}\n{printed}\n{errors}", output.status);
}

#[test]
fn the_legacy_stream_is_barred_while_a_blocking_one_is_captured() {
    passes("barred.py", "barred passed");
}

#[test]
fn a_captured_fill_may_have_any_address() {
    passes("stand_ins.py", "stand-ins passed");
}

/// Runs a program by itself.
fn passes(name: &str, last: &str) {
    let home = tempfile::tempdir().unwrap();
    let mut command = torpor(home.path());
    command.args(["run", "--private", "--driver", "simulated", "--", "python3"]);
    let output = command.arg(script(name)).output().unwrap();
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains(last), "{}\n{printed}\n{errors}", output.status);
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch").join(name)
}

/// Runs a program that waits behind each of its steps, where its memory or itself goes elsewhere; gives what it said.
fn moved_between_steps(name: &str) -> Vec<String> {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start_by(|directory| {
        let mut command = torpor(home.path());
        command.arg("serve").arg("--directory").arg(directory.path()).args(["--driver", "simulated"]);
        command.env("TORPOR_SIMGPU_DEVICES", "2").stdin(Stdio::null()).stdout(Stdio::null());
        command
    });
    let verb = |arguments: &[&str]| {
        let mut command = torpor(home.path());
        let output =
            command.args(arguments).arg("--directory").arg(server.directory.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let mut program = torpor(home.path())
        .args(["run", "--function", "f", "--directory"])
        .arg(server.directory.path())
        .args(["--", "python3"])
        .arg(script(name))
        .arg("wait")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = program.stdin.take().unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(program.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let is_last = line.contains("passed");
        said.push(line);
        if is_last {
            break;
        }
        match said.len() % 3 {
            0 => verb(&["unload", "f"]),
            _ => verb(&["load", "f", "--gpu", if said.len() % 2 == 0 { "0" } else { "1" }]),
        }
        // A program that has failed reads nothing any more; the assertions below tell.
        let _ = input.write_all(b"\n");
    }
    assert!(program.wait().unwrap().success(), "{said:?}");
    assert!(said.len() > 10, "{said:?}");
    said
}
