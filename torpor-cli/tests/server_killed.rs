//! Programs through the library, while a server with a keeper is killed and replaced: those that run, and those that begin meanwhile.

#[path = "../../torpor-gpuserver/tests/server_support/mod.rs"]
mod server_support;
mod support;

use rustix::process::{Pid, Signal, kill_process};
use server_support::server::{Server, eventually};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::torpor;

/// Writes memory and reads it, as often as it is told to, a new piece each time.
const PROGRAM: &str = "
import ctypes, sys
cuda = ctypes.CDLL('libcuda.so.1')
def check(error):
    assert error == 0, error
check(cuda.cuInit(0))
context = ctypes.c_void_p()
check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
check(cuda.cuCtxSetCurrent(context))
WORDS = 1 << 19
kept = []
for turn in range(int(sys.argv[1])):
    address = ctypes.c_uint64()
    check(cuda.cuMemAlloc_v2(ctypes.byref(address), WORDS * 4))
    check(cuda.cuMemsetD32_v2(address, turn, WORDS))
    kept.append((turn, address))
    if len(kept) > 3:
        check(cuda.cuMemFree_v2(kept.pop(0)[1]))
    for value, there in kept:
        words = (ctypes.c_uint32 * WORDS)()
        check(cuda.cuMemcpyDtoH_v2(words, there, WORDS * 4))
        assert words[0] == words[WORDS - 1] == value, (words[0], words[WORDS - 1], value)
";

fn start(home: &Path) -> Server {
    Server::start_by(|directory| {
        let mut command = torpor(home);
        command.arg("serve").arg("--directory").arg(directory.path()).args(["--driver", "simulated"]);
        command.args([
            "--keeper",
            "true",
            "--gpu-limit",
            "24MiB",
            "--host-pool",
            "128MiB",
            "--host-slab",
            "16MiB",
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    })
}

fn program(home: &Path, server: &Server, function: &str, turns: u32) -> Command {
    let mut command = torpor(home);
    command.args(["run", "--function", function, "--directory"]).arg(server.directory.path()).arg("--");
    command.args(["python3", "-c", PROGRAM, &turns.to_string()]).stdin(Stdio::null());
    command
}

fn ends_well(program: &mut Child) {
    assert!(program.wait().unwrap().success());
}

#[test]
fn programs_begin_run_and_end_while_the_server_is_killed() {
    let home = tempfile::tempdir().unwrap();
    let server = start(home.path());
    let functions = ["one", "two"];
    let long = functions.map(|function| program(home.path(), &server, function, 150).spawn().unwrap());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (home, server, over) = (home.path(), &server, &over);
        let short = scope.spawn(move || {
            let mut count = 0;
            while !over.load(Ordering::Relaxed) || count < 3 {
                ends_well(&mut program(home, server, "short", 2).spawn().unwrap());
                count += 1;
            }
        });
        for kill in 0..12 {
            std::thread::sleep(Duration::from_millis(50 + 37 * kill % 200));
            server.kill_for_the_next();
        }
        over.store(true, Ordering::Relaxed);
        short.join().unwrap();
    });
    long.into_iter().for_each(|mut program| ends_well(&mut program));
    eventually("nobody is left", || server.clients().is_empty());
    assert!(!server.said("client lost"), "{}", server.log());
}

#[test]
fn a_server_is_replaced_when_it_is_told_to_and_ends_with_its_keeper() {
    let home = tempfile::tempdir().unwrap();
    let mut server = start(home.path());
    let mut long = program(home.path(), &server, "one", 60).spawn().unwrap();
    eventually("it is served", || !server.clients().is_empty());
    let before = (server.serving_pid(), server.clients()[0].id, server.gpus()[0].worker_pid);
    let stop = |words: &[&str]| {
        let directory = server.directory.path();
        torpor(home.path()).arg("stop").args(words).arg("--directory").arg(directory).output().unwrap()
    };
    let stopped = stop(&["--keep"]);
    assert!(stopped.status.success(), "{stopped:?}");
    assert_ne!(server.serving_pid(), before.0);
    assert_eq!((server.clients()[0].id, server.gpus()[0].worker_pid), (before.1, before.2));
    ends_well(&mut long);
    assert!(stop(&[]).status.success());
    assert!(server.wait().success());
    let worker = Pid::from_raw(before.2.cast_signed()).unwrap();
    eventually("its worker has ended", || rustix::process::test_kill_process(worker).is_err());
}

#[test]
fn nothing_is_left_of_a_server_whose_keeper_is_killed() {
    let home = tempfile::tempdir().unwrap();
    let mut server = start(home.path());
    let (pid, worker) = (server.serving_pid().unwrap(), server.gpus()[0].worker_pid);
    kill_process(Pid::from_raw(server.pid().cast_signed()).unwrap(), Signal::KILL).unwrap();
    server.wait();
    for process in [pid, Pid::from_raw(worker.cast_signed()).unwrap()] {
        eventually("it has ended", || rustix::process::test_kill_process(process).is_err());
    }
    // Without a keeper there is nobody to replace it.
    let mut next = None;
    server.start_again(|directory| {
        next = Some(directory.clone());
        let mut command = torpor(home.path());
        command.arg("serve").arg("--directory").arg(directory.path()).args(["--driver", "simulated"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    });
    let stopped = torpor(home.path())
        .args(["stop", "--keep", "--directory"])
        .arg(next.unwrap().path())
        .output()
        .unwrap();
    assert!(!stopped.status.success());
    let reason = String::from_utf8(stopped.stderr).unwrap();
    assert!(reason.contains("--keeper true"), "{reason}");
}
