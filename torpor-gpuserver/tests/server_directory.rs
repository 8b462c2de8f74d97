//! A server's directory: who may have it, and what becomes of it when the server ends, dies, or something in it is deleted.

mod server_support;

use rustix::process::Signal;
use server_support::client::connect;
use server_support::fake_worker;
use server_support::process::{is_alive, signal};
use server_support::server::{self, Server, eventually};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use torpor_proto::directory::ServerDirectory;
use torpor_proto::error::CudaError;

const PROGRAM: &str = env!("CARGO_BIN_EXE_torpor-gpuserver");

/// The worker process of every other test here.
#[test]
fn fake_worker() {
    fake_worker::serve_if_asked();
}

#[test]
fn a_directory_has_one_server() {
    let server = Server::start(PROGRAM, &[]);
    let second = server::command(PROGRAM, &server.directory, &[]).stderr(Stdio::piped()).output().unwrap();
    assert!(!second.status.success());
    let complaint = String::from_utf8(second.stderr).unwrap();
    assert!(complaint.contains("another server already listens"), "{complaint}");
    connect(&server.directory.function("default"));
}

#[test]
fn a_server_that_ends_fails_its_clients_ends_its_workers_and_removes_its_sockets() {
    type End = fn(&Server);
    let ends: [End; 2] = [|server| signal(server.pid(), Signal::TERM), Server::shut_down];
    for end in ends {
        let mut server = Server::start(PROGRAM, &[]);
        let mut client = connect(&server.directory.function("default"));
        let workers: Vec<u32> = server.gpus().iter().map(|gpu| gpu.worker_pid).collect();
        end(&server);
        assert!(server.wait().success());
        assert_eq!(client.channel.sticky_error(), Some(CudaError::DEVICE_UNAVAILABLE));
        assert!(client.is_dropped());
        assert!(workers.iter().all(|&worker| !is_alive(worker)));
        assert!(!server.directory.admin_socket().exists());
        assert!(!server.directory.function("default").control_socket().exists());
    }
}

#[test]
fn a_server_that_is_killed_takes_its_workers_along_and_leaves_room_for_the_next() {
    let mut server = Server::start(PROGRAM, &[]);
    let mut client = connect(&server.directory.function("default"));
    let workers: Vec<u32> = server.gpus().iter().map(|gpu| gpu.worker_pid).collect();
    signal(server.pid(), Signal::KILL);
    server.wait();
    eventually("the client notices", || client.is_dropped());
    eventually("the workers are gone", || workers.iter().all(|&worker| !is_alive(worker)));
    let mut next = server::command(PROGRAM, &server.directory, &[]).stderr(Stdio::null()).spawn().unwrap();
    eventually("another serves", || UnixStream::connect(server.directory.admin_socket()).is_ok());
    connect(&server.directory.function("default"));
    next.kill().unwrap();
    next.wait().unwrap();
}

#[test]
fn a_container_s_mount_outlives_the_server() {
    type End = fn(&Server);
    let ends: [End; 2] = [|server| signal(server.pid(), Signal::KILL), Server::shut_down];
    for end in ends {
        let mut server = Server::start(PROGRAM, &[]);
        let function = server.function("mounted");
        // What a bind mount is: the directory itself, whatever becomes of its name.
        let directory = File::open(function.path()).unwrap();
        let mount = tempfile::tempdir().unwrap();
        fs::create_dir(mount.path().join("functions")).unwrap();
        let inside = ServerDirectory::new(mount.path()).function("mounted");
        symlink(format!("/proc/self/fd/{}", directory.as_raw_fd()), inside.path()).unwrap();
        connect(&inside);
        end(&server);
        server.wait();
        let mut next =
            server::command(PROGRAM, &server.directory, &[]).stderr(Stdio::null()).spawn().unwrap();
        eventually("another serves", || UnixStream::connect(server.directory.admin_socket()).is_ok());
        connect(&inside);
        assert!(server.functions().iter().any(|function| function.name == "mounted"));
        next.kill().unwrap();
        next.wait().unwrap();
    }
}

#[test]
fn a_function_whose_directory_was_deleted_is_made_again() {
    let server = Server::start(PROGRAM, &[]);
    let function = server.function("f");
    let mut served = connect(&function);
    fs::remove_dir_all(function.path()).unwrap();
    connect(&server.function("f"));
    // A socket is enough.
    fs::remove_file(function.lifeline_socket()).unwrap();
    connect(&server.function("f"));
    assert!(!served.is_dropped(), "who was served is served");
    assert_eq!(server.times_said("making them again"), 2);
}

#[test]
fn an_admin_socket_that_was_removed_is_there_again() {
    let server = Server::start(PROGRAM, &[]);
    fs::remove_file(server.directory.admin_socket()).unwrap();
    eventually("it is there again", || UnixStream::connect(server.directory.admin_socket()).is_ok());
    assert_eq!(server.gpus().len(), 2);
}

#[test]
fn a_function_name_that_leaves_the_directory_is_refused() {
    let server = Server::start(PROGRAM, &[]);
    let request =
        torpor_proto::control::admin::EnsureFunctionRequest { name: "../evil".to_owned(), terms: None };
    let refused = server.admin(async |mut api| api.ensure_function(request).await).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(!server.directory.path().join("evil").exists());
}
