//! What kernels say reaches the program whose kernels they are, and nobody else.

#[path = "../../torpor-gpuserver/tests/server_support/mod.rs"]
mod server_support;
mod support;

use server_support::server::Server;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use support::torpor;

/// Threads of the kernel that prints.
const THREADS: usize = 8;
/// How often it is launched by itself; a graph launches it once more.
const TURNS: usize = 20;

/// A server for so many GPUs of 4 GiB, and more of its command line.
fn serve(home: &Path, gpus: &str, arguments: &[&str]) -> Server {
    Server::start_by(|directory| {
        let mut command = torpor(home);
        command.arg("serve").arg("--directory").arg(directory.path()).args(["--driver", "simulated"]);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        command.env("TORPOR_SIMGPU_MEMORY", "4GiB").env("TORPOR_SIMGPU_DEVICES", gpus);
        command
    })
}

/// The program of a function of its own.
fn program(home: &Path, server: &Server, name: &str, action: &str) -> Command {
    let mut command = torpor(home);
    command.args(["run", "--function", name, "--directory"]).arg(server.directory.path());
    command.args(["--", "python3"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch/printing.py")).args([name, action]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The lines of the program, each turn's before the line that says that it is over.
fn check_lines(name: &str, output: &Output, server: &Server) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {errors}\n{}", server.log());
    let printed = String::from_utf8(output.stdout.clone()).unwrap();
    let mut wanted = String::new();
    for turn in 0..=TURNS {
        (0..THREADS).for_each(|thread| wanted += &format!("{name} turn {turn} thread {thread}\n"));
        wanted += &format!("{name} after {turn}\n");
    }
    wanted += &format!("{name} ends\n");
    assert_eq!(printed, wanted);
    assert!(!server.log().contains("text that kernels print is lost"), "{}", server.log());
}

#[test]
fn each_of_several_programs_gets_its_own_kernels_text_in_order() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(home.path(), "1", &["--active-per-gpu", "4"]);
    let names = ["one", "two", "three", "four"];
    let programs: Vec<Child> =
        names.iter().map(|name| program(home.path(), &server, name, "print").spawn().unwrap()).collect();
    for (name, program) in names.iter().zip(programs) {
        check_lines(name, &program.wait_with_output().unwrap(), &server);
    }
}

#[test]
fn text_that_was_not_taken_goes_with_the_program_to_another_gpu() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(home.path(), "2", &["--linger", "1ms"]);
    let mut child = program(home.path(), &server, "f", "wait").stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for turn in 0..=TURNS {
        let mut moving = torpor(home.path());
        moving.args(["load", "f", "--gpu", if turn % 2 == 0 { "1" } else { "0" }, "--directory"]);
        let _ = moving.arg(server.directory.path()).output().unwrap();
        input.write_all(b"\n").unwrap();
    }
    check_lines("f", &child.wait_with_output().unwrap(), &server);
}

#[test]
fn a_failed_assertion_is_told_to_the_program_whose_kernel_it_was() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(home.path(), "1", &["--active-per-gpu", "4"]);
    let mut neighbour = program(home.path(), &server, "other", "wait").stdin(Stdio::piped()).spawn().unwrap();
    let output = program(home.path(), &server, "mine", "assert").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{}", server.log());
    let said = "a.cu:7: a.cu: block: [0,0,0], thread: [0,0,0] Assertion `mine < 3` failed.";
    assert_eq!(errors.matches(said).count(), 1, "{errors}");
    drop(neighbour.stdin.take());
    let errors = neighbour.wait_with_output().unwrap().stderr;
    assert!(!String::from_utf8_lossy(&errors).contains("mine"), "a stranger hears it");
}
