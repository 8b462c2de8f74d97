//! Programs that a client starts with another environment are clients too.

#[path = "../../torpor-gpuserver/tests/server_support/mod.rs"]
mod server_support;
mod support;

use server_support::server::Server;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use support::torpor;

fn serve(home: &Path) -> Server {
    Server::start_by(|directory| {
        let mut command = torpor(home);
        command.arg("serve").arg("--directory").arg(directory.path()).args(["--driver", "simulated"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    })
}

fn run(home: &Path, server: &Server, command: impl FnOnce(&mut Command)) -> Output {
    let mut program = torpor(home);
    program.args(["run", "--function", "f", "--directory"]).arg(server.directory.path()).arg("--");
    command(&mut program);
    program.output().unwrap()
}

#[test]
fn children_find_the_gpu_whatever_their_environment_is() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(home.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch/children.py");
    let output = run(home.path(), &server, |program| {
        program.arg("python3").arg(script);
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{}", server.log());
    // Five of them print to this program's own output.
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(printed, format!("{}children passed\n", "works\n".repeat(5)), "{errors}");
}

#[test]
fn nothing_is_added_where_that_is_not_wanted() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(home.path());
    let output = run(home.path(), &server, |program| {
        program.args(["env", "-i", "env"]).env("TORPOR_CHILDREN", "off");
    });
    assert!(output.status.success());
    assert_eq!(output.stdout, b"", "{}", String::from_utf8_lossy(&output.stdout));
}
