//! A server that is open to a group: its members reach it, others do not, and without the flag nobody else does.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use support::running::{Running, eventually};
use support::torpor;

/// A group that nobody is in, as root may give a directory to it.
const GROUP: u32 = 54321;

/// Connects to a socket as a user of a group; prints what came of it.
const CONNECT: &str = "
import os, socket, sys
group = int(sys.argv[1])
os.setgroups([]); os.setgid(group); os.setuid(54322)
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[2])
    print('reached')
except PermissionError:
    print('denied')
";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn as_member_of(group: u32, socket: &Path) -> String {
    let output =
        Command::new("python3").args(["-c", CONNECT, &group.to_string()]).arg(socket).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_group_reaches_the_server_and_its_functions_and_others_do_not() {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let group = if is_root { GROUP } else { rustix::process::getegid().as_raw() };
    let directory = home.path().join("new/torpor");
    let start = |flags: &[&str]| {
        let mut serve = torpor(home.path());
        serve.args(["serve", "--driver", "simulated", "--host-pool", "64MiB", "--directory"]).arg(&directory);
        let server = Running::start(serve.args(flags));
        let wait = torpor(home.path()).args(["wait", "--directory"]).arg(&directory).status().unwrap();
        assert!(wait.success());
        server
    };
    let server = start(&["--group", &group.to_string()]);
    fs::write(home.path().join("torpor.toml"), "").unwrap();
    let mut router = torpor(home.path());
    router.args(["router", "--listen", "127.0.0.1:0", "--directory"]).arg(&directory);
    let router = Running::start(router.arg("--config").arg(home.path().join("torpor.toml")));
    let create = ["run", "--function", "f", "--directory", directory.to_str().unwrap(), "true"];
    assert!(torpor(home.path()).args(create).status().unwrap().success());
    let (admin, routers) = (directory.join("admin.sock"), directory.join("router.sock"));
    let control = torpor_proto::directory::ServerDirectory::new(&directory).function("f").control_socket();
    eventually("the router is there", || routers.exists() && mode(&routers) == 0o660);
    assert_eq!((mode(&directory), mode(&admin)), (0o750, 0o660));
    assert!([&directory, &admin, &routers].iter().all(|path| fs::metadata(path).unwrap().gid() == group));
    if is_root {
        for socket in [&admin, &routers, &control] {
            assert_eq!(as_member_of(GROUP, socket), "reached", "{}", socket.display());
            assert_eq!(as_member_of(GROUP + 1, socket), "denied", "{}", socket.display());
        }
    }
    drop((router, server));
    let _server = start(&[]);
    assert_eq!((mode(&directory), mode(&admin)), (0o700, 0o600));
    if is_root {
        assert_eq!(as_member_of(GROUP, &control), "denied");
    }
}
