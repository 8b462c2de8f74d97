//! Programs whose memory leaves their GPU between their steps.

use crate::server_support::server::Server;
use crate::support;
use std::path::Path;
use std::process::Stdio;

/// Runs a program of `tests/torch` on a node with two GPUs, and returns what the server said. Its memory is evicted and moved.
#[allow(dead_code, reason = "each test program uses its own part of this module")]
pub fn passes(script: &str, settings: &[(&str, &str)]) -> String {
    passes_with(script, 2, &["unload f", "load f --gpu 1", "unload f", "load f --gpu 0"], settings)
}

/// As [`passes`], on so many GPUs of 1 GiB, where its function may have 48 MiB of page-locked memory. `TORPOR_TEST_AWAY` has
/// `verbs` as commands, one a line, that take the program's memory off its GPU.
pub fn passes_with(script: &str, gpus: u32, verbs: &[&str], settings: &[(&str, &str)]) -> String {
    let home = tempfile::tempdir().unwrap();
    let limits = home.path().join("limits.toml");
    std::fs::write(&limits, "[functions.f]\npinned_limit = '48MiB'\n").unwrap();
    let server = Server::start_by(|directory| {
        let mut command = support::torpor(home.path());
        command.arg("serve").arg("--directory").arg(directory.path());
        command.args(["--driver", "simulated", "--staging", "4MiB", "--pinned-limit", "64MiB"]);
        command.arg("--config").arg(&limits);
        command.env("TORPOR_SIMGPU_DEVICES", gpus.to_string()).env("TORPOR_SIMGPU_MEMORY", "1GiB");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    });
    let directory = server.directory.path().display();
    let away = verbs.iter().map(|verb| format!("{} {verb} --directory {directory}", support::PROGRAM));
    let away = away.collect::<Vec<_>>().join("\n");
    let mut command = support::torpor(home.path());
    command.args(["run", "--function", "f", "--directory"]).arg(server.directory.path()).arg("--");
    command.arg(support::torch_python());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch").join(script));
    command.env("TORPOR_TEST_AWAY", away).envs(settings.iter().copied());
    let output = command.output().unwrap();
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {}\n{printed}\n{errors}\n{}", output.status, server.log());
    assert!(printed.contains("passed"), "{printed}");
    server.log()
}
