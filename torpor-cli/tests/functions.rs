//! Settings and functions from end to end: a program over the preloaded library, a real worker and the simulated GPU.

#[path = "../../torpor-gpuserver/tests/server_support/mod.rs"]
mod server_support;
mod support;

use server_support::server::Server;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use support::torpor;

const MIB: u64 = 1 << 20;

/// Allocates 4 MiB, tells what cuMemGetInfo says, and waits.
const PROGRAM: &str = "
import ctypes, sys
cuda = ctypes.CDLL('libcuda.so.1')
def check(code):
    assert code == 0, code
context, address = ctypes.c_void_p(), ctypes.c_uint64()
free, total = ctypes.c_size_t(), ctypes.c_size_t()
check(cuda.cuInit(0))
check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
check(cuda.cuCtxSetCurrent(context))
check(cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(4 << 20)))
check(cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
too_much = cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(64 << 20))
print(free.value, total.value, too_much, flush=True)
sys.stdin.read()
";

#[test]
fn a_program_sees_the_limit_of_its_function_and_the_list_shows_what_it_has() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("torpor.toml");
    fs::write(&config, "[functions.mine]\nmemory_limit = '64MiB'\nslo_ms = 200\npinned = true").unwrap();
    let server = Server::start_by(|directory| {
        let mut command = torpor(home.path());
        command.arg("serve").arg("--directory").arg(directory.path()).args(["--driver", "simulated"]);
        command.arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
        command
    });
    let mut program = torpor(home.path())
        .args(["run", "--function", "mine", "--directory"])
        .arg(server.directory.path())
        .args(["--", "python3", "-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let numbers: Vec<u64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
    // CUDA_ERROR_OUT_OF_MEMORY is 2.
    assert_eq!(numbers, [60 * MIB, 64 * MIB, 2]);

    let list = torpor(home.path())
        .args(["functions", "--json", "--directory"])
        .arg(server.directory.path())
        .output()
        .unwrap();
    let rows: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    let names: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["default", "mine"]);
    let mine = &rows[1];
    for (key, value) in
        [("allocated_bytes", 4 * MIB), ("memory_limit_bytes", 64 * MIB), ("clients", 1), ("slo_ms", 200)]
    {
        assert_eq!(mine[key].as_u64(), Some(value), "{key}");
    }
    assert_eq!((mine["pinned"].as_bool(), mine["gpus"][0].as_u64()), (Some(true), Some(0)));
    let other = &rows[0];
    assert_eq!((other["slo_ms"].as_u64(), other["clients"].as_u64()), (None, Some(0)));
    assert!(other["memory_limit_bytes"].as_u64().unwrap() > 64 * MIB);

    drop(program.stdin.take());
    assert!(program.wait().unwrap().success());
}

#[test]
fn a_program_that_is_run_strictly_has_a_worker_of_its_own() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start_by(|directory| {
        let mut command = torpor(home.path());
        command.arg("serve").arg("--directory").arg(directory.path()).args(["--driver", "simulated"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    });
    let mut program = torpor(home.path())
        .args(["run", "--function", "mine", "--isolation", "strict", "--directory"])
        .arg(server.directory.path())
        .args(["--", "python3", "-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let listed = |verb: &str| -> serde_json::Value {
        let list =
            torpor(home.path()).args([verb, "--json", "--directory"]).arg(server.directory.path()).output();
        serde_json::from_slice(&list.unwrap().stdout).unwrap()
    };
    let functions = listed("functions");
    let mine = functions.as_array().unwrap().iter().find(|function| function["name"] == "mine").unwrap();
    assert_eq!((&mine["isolation"], &mine["strict_clients"]), (&"strict".into(), &1.into()));
    let gpu = &listed("gpus")[0];
    let own = &gpu["enclosures"][0];
    assert_eq!((&own["function"], &own["clients"]), (&"mine".into(), &1.into()));
    assert_ne!(own["worker_pid"], gpu["worker_pid"]);
    drop(program.stdin.take());
    program.wait().unwrap();
}
