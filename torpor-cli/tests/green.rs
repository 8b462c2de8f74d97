//! Green contexts, over the simulated GPU, which tells kernels on which multiprocessors they run.

#[path = "../../torpor-gpuserver/tests/server_support/mod.rs"]
mod server_support;
mod support;
#[path = "support/travels.rs"]
mod travels;

use std::path::{Path, PathBuf};
use support::{torch_python, torpor};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch").join(name)
}

/// Runs a program as a client of a private server. What it prints, and what the library logs.
fn passes(name: &str, settings: &[(&str, &str)]) -> (String, String) {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("log");
    let mut command = torpor(home.path());
    command.args(["run", "--private", "--driver", "simulated", "--"]).arg(torch_python()).arg(script(name));
    command.env("TORPOR_SHIM_LOG", &log).envs(settings.iter().copied());
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{printed}\n{errors}", output.status);
    (printed, std::fs::read_to_string(log).unwrap_or_default())
}

#[test]
fn a_green_context_has_its_part_of_the_gpu_and_streams_of_its_own() {
    let (printed, said) = passes("green.py", &[]);
    assert!(printed.contains("green passed"), "{printed}");
    assert!(!said.contains("not supported"), "{said}");
}

#[test]
fn pytorch_s_green_contexts_are_green() {
    let (printed, said) = passes("green_torch.py", &[("TORPOR_SIMGPU_CUBINS", "skip")]);
    assert!(printed.contains("green torch passed"), "{printed}");
    assert!(!said.contains("Green"), "{said}");
}

#[test]
fn a_program_with_green_contexts_is_evicted_and_moved() {
    travels::passes("green.py", &[]);
}
