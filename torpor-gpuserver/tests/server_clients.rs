//! How clients come, are served, and go, with workers that have no GPU.

mod server_support;

use server_support::client::{self, Client, connect, hello, take_memory};
use server_support::fake_worker::{self, BREAKS_PROTOCOL, IGNORED, SEEK_EACH_OTHER};
use server_support::server::{Server, eventually};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use torpor_proto::PROTOCOL_VERSION;
use torpor_proto::control::client::{Welcome, answer};
use torpor_proto::control::event::event::What;
use torpor_proto::directory::ServerDirectory;
use torpor_proto::error::CudaError;
use torpor_proto::layout::{AddressRange, DEVICE_WINDOW, HOST_WINDOW, host_range_bytes};
use torpor_proto::zmtp;

const PROGRAM: &str = env!("CARGO_BIN_EXE_torpor-gpuserver");

/// The worker process of every other test here.
#[test]
fn fake_worker() {
    fake_worker::serve_if_asked();
}

#[test]
fn clients_get_addresses_of_their_own_and_are_spread_over_the_gpus() {
    let server =
        Server::start(PROGRAM, &["--pinned-limit", "1GiB", "--staging", "8MiB", "--memory-limit", "1GiB"]);
    assert!(server.said("2 GPUs: 2 × Fake GPU (8 GiB)"));
    let function = server.function("resnet");
    let clients = [connect(&function), connect(&function)];
    let ranges = |client: &Client| {
        let welcome = &client.welcome;
        let arena = AddressRange { address: welcome.arena_address, bytes: welcome.arena_bytes };
        (arena, AddressRange { address: welcome.host_address, bytes: welcome.host_bytes })
    };
    let ((arena, host), (other_arena, other_host)) = (ranges(&clients[0]), ranges(&clients[1]));
    assert!(!arena.overlaps(other_arena) && !host.overlaps(other_host));
    for client in &clients {
        let (welcome, (arena, host)) = (&client.welcome, ranges(client));
        assert!(DEVICE_WINDOW.contains(arena.address, arena.bytes) && arena.bytes == 64 << 30);
        assert!(
            HOST_WINDOW.contains(host.address, host.bytes)
                && host.bytes == host_range_bytes((1 << 30) + (8 << 20))
        );
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
fn of_two_that_seek_each_other_one_goes() {
    let server = Server::start(PROGRAM, &[]);
    let function = server.function(SEEK_EACH_OTHER);
    let _clients = [connect(&function), connect(&function)];
    server.unload(SEEK_EACH_OTHER);
    eventually("the one that stays looks once more", || server.said("is to look once more"));
    let gpus: Vec<u32> = server.clients().iter().map(|client| client.gpu).collect();
    assert_eq!((gpus.len(), gpus[0]), (2, gpus[1]));
    let moved = server.events().into_iter().filter(|event| matches!(event.what, Some(What::Moved(_))));
    assert_eq!(moved.count(), 1);
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
fn a_refusal_ends_the_connection() {
    let server = Server::start(PROGRAM, &[]);
    let mut out = zmtp::greeting().to_vec();
    out.extend(zmtp::ready_command("REQ"));
    for _ in 0..50 {
        zmtp::put_frame(&mut out, zmtp::MORE, b"");
        zmtp::put_frame(&mut out, 0, b"\xff\xff");
    }
    let mut loud = UnixStream::connect(server.directory.function("default").control_socket()).unwrap();
    loud.write_all(&out).unwrap();
    let mut answered = Vec::new();
    // The server leaves what it has not read: that is an error on this side, after the answer.
    let _ = loud.read_to_end(&mut answered);
    let refusals = answered.windows(10).filter(|bytes| bytes == b"cannot be ").count();
    assert_eq!(refusals, 1);
    assert_eq!(server.times_said("client refused"), 1);
}

#[test]
fn a_function_that_is_refused_without_end_fills_no_log_and_holds_up_nobody() {
    const HELLOS: usize = 200;
    let server = Server::start(PROGRAM, &[]);
    let (loud, quiet) = (server.function("loud"), server.function("quiet"));
    for _ in 0..HELLOS {
        hello(&loud, 4711).unwrap_err();
    }
    connect(&quiet);
    // Every refusal was told, or counted.
    eventually("all are accounted for", || {
        let log = server.log();
        let told = log.lines().filter(|line| line.contains("client refused")).count();
        let left_out = log.lines().filter_map(|line| line.split_once(" more lines about this function"));
        let left_out = left_out.filter_map(|(before, _)| before.rsplit(' ').next()?.parse::<usize>().ok());
        assert!(told < HELLOS / 2, "{told} lines");
        told + left_out.sum::<usize>() == HELLOS
    });
}

#[test]
fn clients_are_answered_on_a_thread_of_their_own() {
    let server = Server::start(PROGRAM, &[]);
    let function = server.function("f");
    let acceptor = || {
        let threads = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
        let is_acceptor = |path: &std::path::PathBuf| {
            fs::read_to_string(path.join("comm")).is_ok_and(|name| name == "acceptor\n")
        };
        threads.filter_map(|thread| Some(thread.ok()?.path())).find(is_acceptor)
    };
    // A thread gives itself its name.
    eventually("it has its name", || acceptor().is_some());
    let sleeps = || {
        let status = fs::read_to_string(acceptor().unwrap().join("status")).unwrap();
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count.unwrap().trim().parse::<u32>().unwrap()
    };
    let before = sleeps();
    for _ in 0..100 {
        hello(&function, 4711).unwrap_err();
    }
    let since = sleeps() - before;
    assert!(since >= 50, "it woke {since} times for 100 hellos");
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
    dying.wait().unwrap();
    eventually("the client is gone", || server.clients().is_empty());
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
    let reason = take_memory(&function, &welcome).map(drop).unwrap_err();
    assert!(reason.contains("did not answer"), "{reason}");
    connect(&server.function("bystander"));
}
