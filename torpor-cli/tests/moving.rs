//! Unmodified PyTorch, moved between two simulated GPUs. Kernels of libraries are skipped there, so this is about what
//! libraries ask for and what memory contains, not about what they compute.

#[path = "../../torpor-gpuserver/tests/server_support/mod.rs"]
mod server_support;
mod support;

use server_support::server::{Server, eventually};
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use support::{torch_python, torpor};
use torpor_gpuserver::policy::topology::Topology;

/// Multiplies matrices, for which cuBLAS asks for the address of a variable, whenever it is told to.
const PROGRAM: &str = "
import sys, torch
torch.manual_seed(0)
matrix = torch.randn(64, 64)
there = matrix.to('cuda')
for _ in range(3):
    there @ there
    torch.cuda.synchronize()
    assert torch.equal(there.cpu(), matrix)
    print('multiplied', flush=True)
    sys.stdin.readline()
";

/// Runs a program statement by statement, and waits between them once it uses the GPU.
const STEP_BY_STEP: &str = "
import ast, sys
name = sys.argv[1]
names, moves = {'__name__': '__main__'}, False
for at, statement in enumerate(ast.parse(open(name).read()).body):
    exec(compile(ast.Module([statement], []), name, 'exec'), names)
    moves |= 'torch.empty' in ast.unparse(statement)
    if moves and at % 4 == 0:
        print('next', flush=True)
        sys.stdin.readline()
print('done')
";

/// Where the function is; nothing keeps it there.
fn gpus(home: &Path, server: &Server) -> String {
    let list =
        torpor(home).args(["functions", "--json", "--directory"]).arg(server.directory.path()).output();
    let rows: serde_json::Value = serde_json::from_slice(&list.unwrap().stdout).unwrap();
    let mine = rows.as_array().unwrap().iter().find(|row| row["name"] == "mine").unwrap();
    assert_eq!(mine["fixed_images"], 0);
    mine["gpus"].to_string()
}

fn start(home: &Path) -> Server {
    Server::start_by(|directory| {
        let mut command = torpor(home);
        command.arg("serve").arg("--directory").arg(directory.path()).args(["--driver", "simulated"]);
        command.env("TORPOR_SIMGPU_DEVICES", "2").env("TORPOR_SIMGPU_CUBINS", "skip");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    })
}

#[test]
fn how_gpus_are_connected_is_shown_and_can_be_read_again() {
    let home = tempfile::tempdir().unwrap();
    let server = start(home.path());
    let show = |flags: &[&str]| {
        let mut command = torpor(home.path());
        command.arg("topology").args(flags).arg("--directory").arg(server.directory.path());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let read = || serde_json::from_str::<Topology>(&show(&["--json"])).unwrap();
    eventually("both ways are measured", || {
        let topology = read();
        topology.peers.len() == 2
            && topology.peers.iter().all(|peer| peer.gbps.is_some_and(|gbps| gbps > 0.0))
    });
    let topology = read();
    assert_eq!(topology.gpus.len(), 2);
    assert_eq!(topology.gpus[1].pci.as_deref(), Some("0000:11:00.0"));
    let table = show(&[]);
    assert!(table.starts_with("GPU  PCI") && table.contains("0000:10:00.0"), "{table}");
}

/// Starts a program of PyTorch's, whose output and input these are.
fn run(
    home: &Path,
    server: &Server,
    arguments: &[&str],
) -> (Child, Lines<BufReader<ChildStdout>>, ChildStdin) {
    let mut program = torpor(home)
        .args(["run", "--function", "mine", "--directory"])
        .arg(server.directory.path())
        .arg("--")
        .arg(torch_python())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let orders = program.stdin.take().unwrap();
    (program, lines, orders)
}

fn move_to(home: &Path, server: &Server, gpu: &str) {
    let mut moving = torpor(home);
    moving.args(["load", "mine", "--gpu", gpu, "--directory"]).arg(server.directory.path());
    let moved = moving.output().unwrap();
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
    assert_eq!(gpus(home, server), format!("[{gpu}]"));
}

#[test]
fn a_program_with_cublas_moves_between_gpus() {
    let home = tempfile::tempdir().unwrap();
    let server = start(home.path());
    let (mut program, mut lines, mut orders) = run(home.path(), &server, &["-c", PROGRAM]);
    for gpu in ["1", "0", "1"] {
        assert_eq!(lines.next().unwrap().unwrap(), "multiplied");
        move_to(home.path(), &server, gpu);
        orders.write_all(b"\n").unwrap();
    }
    assert!(program.wait().unwrap().success());
}

#[test]
fn a_program_with_arrays_and_objects_moves_wherever_it_is() {
    let home = tempfile::tempdir().unwrap();
    let server = start(home.path());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torch/arrays.py");
    let (mut program, mut lines, mut orders) = run(home.path(), &server, &["-c", STEP_BY_STEP, script]);
    let mut moves = 0;
    while lines.next().is_some_and(|line| line.unwrap() == "next") {
        moves += 1;
        move_to(home.path(), &server, if moves % 2 == 0 { "0" } else { "1" });
        orders.write_all(b"\n").unwrap();
    }
    assert!(program.wait().unwrap().success());
    assert!(moves > 20, "{moves} moves");
}
