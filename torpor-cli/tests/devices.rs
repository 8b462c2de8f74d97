//! Programs of functions with `gpus = N`, over the simulated GPU.

#[path = "../../torpor-gpuserver/tests/server_support/mod.rs"]
mod server_support;
mod support;

use server_support::server::Server;
use std::path::Path;
use std::process::{Output, Stdio};
use support::running::{Running, eventually};

/// Uses the device that it is told, and waits.
const RANK: &str = "
import ctypes as c, sys, time
runtime, address = c.CDLL(None), c.c_void_p()
assert runtime.cudaSetDevice(int(sys.argv[1])) == 0
assert runtime.cudaMalloc(c.byref(address), c.c_size_t(1 << 22)) == 0
time.sleep(120)
";

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
fn a_rank_leaves_the_gpu_where_another_one_began_with_another_device() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start_by(|directory| {
        let mut command = support::torpor(home.path());
        command.arg("serve").arg("--directory").arg(directory.path()).args(["--driver", "simulated"]);
        command.env("TORPOR_SIMGPU_DEVICES", "2").stdin(Stdio::null()).stdout(Stdio::null());
        command
    });
    let gpus_of = |function: &str| -> Vec<u32> {
        let clients = server.clients().into_iter();
        let its = clients.filter(|client| client.function == function && client.allocated_bytes > 0);
        its.map(|client| client.gpu).collect()
    };
    let mut running = Vec::new();
    // New clients take turns with the GPUs: both ranks begin on the first one.
    for (function, devices, device) in [("ranks", "2", "0"), ("other", "1", "0"), ("ranks", "2", "1")] {
        let mut command = support::torpor(home.path());
        command.args(["run", "--function", function, "--devices", devices, "--directory"]);
        command.arg(server.directory.path()).arg("--").arg(support::torch_python());
        command.args(["-c", RANK, device]);
        let before = gpus_of(function).len();
        running.push(Running::start(&mut command));
        eventually("it has memory", || gpus_of(function).len() > before);
    }
    eventually("the ranks are on two GPUs", || matches!(gpus_of("ranks")[..], [one, other] if one != other));
    let log = server.log();
    assert_eq!(gpus_of("other").len(), 1, "{log}");
}

#[test]
fn so_many_devices_or_none_are_no_setting() {
    for wrong in ["0", "9", "two"] {
        let output = run("devices.py", wrong, "1", &[]);
        assert!(String::from_utf8_lossy(&output.stderr).contains("1 to 8"), "{wrong}: {output:?}");
    }
}
