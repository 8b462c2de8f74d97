//! Programs of functions with `gpus = N`, over the simulated GPU.

mod support;

use std::path::Path;
use std::process::Output;

/// Runs a program of `tests/torch` that sees so many devices, on a node with so many GPUs.
fn run(script: &str, devices: &str, gpus: &str, settings: &[(&str, &str)]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch").join(script);
    let mut command = support::torpor(home.path());
    command.args(["run", "--private", "--driver", "simulated", "--devices", devices, "--"]);
    command.arg(support::torch_python()).arg(script);
    command.env("TORPOR_SIMGPU_DEVICES", gpus).env("TORPOR_TEST_DEVICES", devices);
    command.env("TORPOR_TEST_FOLDER", home.path());
    command.envs(settings.iter().copied());
    command.output().unwrap()
}

fn passes(script: &str, devices: &str, gpus: &str, settings: &[(&str, &str)]) {
    let output = run(script, devices, gpus, settings);
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {}\n{printed}\n{errors}", output.status);
    assert!(printed.contains("passed"), "{printed}");
}

#[test]
fn a_program_has_as_many_devices_as_its_function_each_with_its_own_of_everything() {
    passes("devices.py", "3", "2", &[("TORPOR_SIMGPU_TIME", "real")]);
    passes("devices.py", "2", "1", &[("TORPOR_SIMGPU_TIME", "real")]);
}

#[test]
fn pytorch_uses_two_devices_in_one_process() {
    passes("two_devices.py", "2", "2", &[("TORPOR_SIMGPU_CUBINS", "skip")]);
}

#[test]
fn nccl_brings_two_ranks_together() {
    passes("ranks.py", "2", "2", &[("TORPOR_SIMGPU_CUBINS", "skip")]);
}

#[test]
fn so_many_devices_or_none_are_no_setting() {
    for wrong in ["0", "9", "two"] {
        let output = run("devices.py", wrong, "1", &[]);
        assert!(String::from_utf8_lossy(&output.stderr).contains("1 to 8"), "{wrong}: {output:?}");
    }
}
