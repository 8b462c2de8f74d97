//! How clients come, are served, and go, with workers that have no GPU.

mod server_support;

use rustix::process::{Pid, Signal, kill_process};
use server_support::client::{self, connect, hello, take_memory};
use server_support::fake_worker::{self, BREAKS_PROTOCOL, DIES, IGNORED, LOSES_CONTEXT};
use server_support::server::{self, Server, eventually};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};
use torpor_proto::PROTOCOL_VERSION;
use torpor_proto::control::client::{Welcome, answer};
use torpor_proto::directory::ServerDirectory;
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;

const PROGRAM: &str = env!("CARGO_BIN_EXE_torpor-gpuserver");

/// The worker process of every other test here.
#[test]
fn fake_worker() {
    fake_worker::serve_if_asked();
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

fn is_alive(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}/exe")).exists()
}

#[test]
fn clients_get_addresses_of_their_own_and_are_spread_over_the_gpus() {
    let server =
        Server::start(PROGRAM, &["--pinned-limit", "1GiB", "--staging", "8MiB", "--memory-limit", "1GiB"]);
    assert!(server.said("2 GPUs: 2 × Fake GPU (8 GiB)"));
    let function = server.function("resnet");
    let clients = [connect(&function), connect(&function)];
    for (slot, client) in (0..).zip(&clients) {
        let welcome = &client.welcome;
        let (arena, host) = (AddressRange::arena(slot).unwrap(), AddressRange::host(slot).unwrap());
        assert_eq!((welcome.arena_address, welcome.arena_bytes), (arena.address, arena.bytes));
        assert_eq!((welcome.host_address, welcome.host_bytes), (host.address, (1 << 30) + (8 << 20)));
        assert_eq!(
            (welcome.staging_bytes, welcome.memory_limit_bytes, welcome.spin_us),
            (8 << 20, 1 << 30, 20_000)
        );
        assert_eq!(welcome.device.as_ref().unwrap().name, "Fake GPU");
        assert_eq!(client.channel.sticky_error(), None);
    }
    let mut listed = server.clients();
    listed.sort_by_key(|client| client.gpu);
    assert_eq!(listed.iter().map(|client| client.gpu).collect::<Vec<_>>(), [0, 1]);
    for client in listed {
        assert_eq!((client.function.as_str(), client.program.as_str()), ("resnet", "test program"));
        assert_eq!((client.pid, client.memory_bytes), (std::process::id(), fake_worker::MEMORY_BYTES));
        assert_eq!((client.state.as_str(), client.commands), ("idle", 7));
    }
    for gpu in server.gpus() {
        assert_eq!((gpu.clients, gpu.state.as_str(), gpu.worker_restarts), (1, "ready", 0));
        assert_eq!((gpu.free_memory_bytes, gpu.total_memory_bytes), (5 << 30, 8 << 30));
    }
}

#[test]
fn another_protocol_version_is_refused_with_both() {
    let server = Server::start(PROGRAM, &[]);
    let reason = hello(&server.directory.function("default"), 4711).unwrap_err();
    assert!(reason.contains("4711") && reason.contains(&PROTOCOL_VERSION.to_string()), "{reason}");
}

#[test]
fn nonsense_is_refused_and_hurts_nobody() {
    let server = Server::start(PROGRAM, &[]);
    let function = server.directory.function("default");
    let refused = client::ask(&function, b"\xff\xff\xff\xff".to_vec());
    assert!(matches!(refused.body, Some(answer::Body::Refusal(_))));
    // What ends a server that believes frame headers: see the module `zmtp`.
    let mut greeting = [0; 64];
    (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
    greeting[12..16].copy_from_slice(b"NULL");
    let mut attacker = UnixStream::connect(function.control_socket()).unwrap();
    attacker.write_all(&greeting).unwrap();
    attacker.write_all(b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03REQ\x02\0\0\x40\0\0\0\0\0").unwrap();
    eventually("the attacker is dropped", || server.said("control connection dropped"));
    connect(&function);
}

#[test]
fn a_token_is_good_once_and_for_its_function_alone() {
    let server = Server::start(PROGRAM, &[]);
    let (function, other) = (server.function("mine"), server.function("other"));
    let welcome = hello(&function, PROTOCOL_VERSION).unwrap();
    assert!(take_memory(&other, &welcome).unwrap_err().contains("token"));
    let _served = take_memory(&function, &welcome).unwrap();
    assert!(take_memory(&function, &welcome).unwrap_err().contains("token"));
    let forged = Welcome { token: vec![7; 16], ..welcome };
    assert!(take_memory(&function, &forged).unwrap_err().contains("token"));
}

#[test]
fn a_client_that_dies_is_gone_though_its_child_holds_the_lifeline() {
    let server = Server::start(PROGRAM, &[]);
    let function = server.function("f");
    // A process that takes its memory, hands the connection to a child, and is killed.
    let program = std::env::current_exe().unwrap();
    let mut dying = std::process::Command::new(program)
        .args(["--exact", "dying_client", "--nocapture"])
        .env("TORPOR_DYING_CLIENT", function.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the client is served", || server.clients().len() == 1);
    assert_eq!(server.clients()[0].pid, dying.id());
    dying.kill().unwrap();
    let killed = Instant::now();
    dying.wait().unwrap();
    eventually("the client is gone", || server.clients().is_empty());
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
}

/// The client of the test above.
#[test]
fn dying_client() {
    let Some(directory) = std::env::var_os("TORPOR_DYING_CLIENT") else { return };
    let directory = std::path::PathBuf::from(directory);
    let name = directory.file_name().unwrap().to_str().unwrap();
    let function = ServerDirectory::new(directory.ancestors().nth(2).unwrap()).function(name);
    let client = connect(&function);
    let copy = client.lifeline.try_clone().unwrap();
    let inherited = Stdio::from(std::os::fd::OwnedFd::from(copy));
    let mut child = std::process::Command::new("sleep").arg("10").stdin(inherited).spawn().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_client_that_speaks_is_dropped() {
    let server = Server::start(PROGRAM, &[]);
    let mut client = connect(&server.directory.function("default"));
    assert!(!client.is_dropped());
    client.lifeline.set_nonblocking(false).unwrap();
    client.lifeline.write_all(b"!").unwrap();
    eventually("the client is dropped", || client.is_dropped());
    eventually("it is listed no more", || server.clients().is_empty());
}

#[test]
fn a_worker_that_dies_fails_its_clients_and_nobody_else() {
    let server = Server::start(PROGRAM, &[]);
    let (victim, bystander) = (server.function(DIES), server.function("bystander"));
    let mut safe = connect(&bystander);
    let mut lost = connect(&victim);
    eventually("the client fails", || lost.channel.sticky_error() == Some(CudaError::LAUNCH_FAILED));
    assert!(!lost.is_dropped(), "a failed client keeps its lifeline");
    assert!(server.clients().iter().any(|client| client.function == DIES && client.state == "failed"));
    eventually("the worker is back", || {
        let gpus = server.gpus();
        gpus.iter().all(|gpu| gpu.state == "ready")
            && gpus.iter().map(|gpu| gpu.worker_restarts).sum::<u64>() == 1
    });
    assert_eq!(safe.channel.sticky_error(), None);
    assert!(!safe.is_dropped());
    drop(lost);
    eventually("the failed client is gone", || server.clients().len() == 1);
    let (_first, _second) = (connect(&bystander), connect(&bystander));
    assert_eq!(server.clients().len(), 3);
}

#[test]
fn a_lost_context_fails_its_clients_with_its_code() {
    let server = Server::start(PROGRAM, &["--gpus", "1"]);
    let bystander = connect(&server.function("bystander"));
    let lost = connect(&server.function(LOSES_CONTEXT));
    for client in [&lost, &bystander] {
        eventually("the client fails", || client.channel.sticky_error() == Some(CudaError::ILLEGAL_ADDRESS));
    }
    assert!(server.said("CUDA_ERROR_ILLEGAL_ADDRESS (700): the kernel read nonsense"));
}

#[test]
fn a_client_that_breaks_the_protocol_fails_alone() {
    let server = Server::start(PROGRAM, &["--gpus", "0"]);
    let safe = connect(&server.function("bystander"));
    let bad = connect(&server.function(BREAKS_PROTOCOL));
    eventually("the client fails", || bad.channel.sticky_error() == Some(CudaError::LAUNCH_FAILED));
    assert_eq!(safe.channel.sticky_error(), None);
}

#[test]
fn a_client_that_its_worker_ignores_learns_it_in_time() {
    let server = Server::start(PROGRAM, &["--gpus", "0"]);
    let function = server.function(IGNORED);
    let welcome = hello(&function, PROTOCOL_VERSION).unwrap();
    let asked = Instant::now();
    let reason = take_memory(&function, &welcome).map(drop).unwrap_err();
    assert!(reason.contains("did not answer"), "{reason}");
    assert!(asked.elapsed() < Duration::from_secs(5));
    connect(&server.function("bystander"));
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
        assert!(!server.directory.functions().exists());
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
fn a_function_name_that_leaves_the_directory_is_refused() {
    let server = Server::start(PROGRAM, &[]);
    let request = torpor_proto::control::admin::EnsureFunctionRequest { name: "../evil".to_owned() };
    let refused = server.admin(async |mut api| api.ensure_function(request).await).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(!server.directory.path().join("evil").exists());
}
