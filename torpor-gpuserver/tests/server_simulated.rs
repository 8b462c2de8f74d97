//! The whole server: real workers, over the simulated GPU or the driver that `TORPOR_TEST_DRIVER` names.

mod served;
mod server_support;
mod worker_support;

use rustix::process::{Pid, Signal, kill_process};
use server_support::client::connect;
use server_support::ring::RingClient;
use server_support::server::{PATIENCE, Server, eventually};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use torpor_proto::command::Ping;
use torpor_proto::directory::ServerDirectory;
use torpor_proto::error::CudaError;

const MIB: u64 = 1 << 20;

fn start() -> Server {
    start_with(&[])
}

fn start_with(flags: &[&str]) -> Server {
    served::serve_by("--gpus 0 --pinned-limit 64MiB --staging 4MiB --host-pool 16MiB", |command| {
        command.args(flags);
    })
}

fn send_signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

#[test]
fn eight_clients_at_once_have_memory_of_their_own() {
    let server = start();
    let function = server.function("f");
    let mut clients: Vec<_> = (0..8).map(|_| RingClient::connect(&function)).collect();
    for (value, client) in (1..).zip(&mut clients) {
        client.allocate(2 * MIB);
        client.fill(value, MIB);
    }
    for (value, client) in (1..).zip(&mut clients) {
        assert_eq!(client.read(MIB), vec![value; MIB as usize]);
    }
    let listed = server.clients();
    assert_eq!(listed.len(), 8);
    assert!(listed.iter().all(|client| client.memory_bytes == 2 * MIB && client.commands > 1));
}

#[test]
fn the_first_slab_of_the_host_store_is_page_locked_at_start() {
    let server = start();
    let total = || {
        let request = torpor_proto::control::admin::ReportStoreRequest {};
        server.admin(async |mut api| api.report_store(request).await).unwrap().total_bytes
    };
    eventually("the slab can be used", || total() == 16 * MIB);
}

#[test]
fn a_client_killed_with_memory_leaves_nothing_within_a_second_and_others_do_not_notice() {
    let server = start();
    let function = server.function("f");
    let mut bystander = RingClient::connect(&function);
    let free_bytes = || server.gpus()[0].free_memory_bytes;
    bystander.allocate(2 * MIB);
    bystander.fill(1, MIB);
    bystander.ask(Ping {}).unwrap();
    // What measures takes memory of the GPU meanwhile.
    server.wait_until_measured();
    let before = free_bytes();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env("TORPOR_VICTIM", function.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("victim holds memory")));
    assert_eq!(before - free_bytes(), 64 * MIB);
    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("its memory is free", || free_bytes() == before);
    eventually("it is listed no more", || server.clients().len() == 1);
    bystander.ask(Ping {}).unwrap();
    assert_eq!(bystander.channel.sticky_error(), None);
}

/// The client of the test above.
#[test]
fn victim() {
    let Some(directory) = std::env::var_os("TORPOR_VICTIM") else { return };
    let directory = PathBuf::from(directory);
    let name = directory.file_name().unwrap().to_str().unwrap();
    let function = ServerDirectory::new(directory.ancestors().nth(2).unwrap()).function(name);
    let mut client = RingClient::connect(&function);
    client.allocate(64 * MIB);
    client.fill(1, MIB);
    client.ask(Ping {}).unwrap();
    println!("victim holds memory");
    std::thread::sleep(PATIENCE);
}

#[test]
fn a_worker_that_is_killed_fails_its_clients_and_the_next_one_serves() {
    let server = start_with(&["--cover", "false"]);
    let function = server.function("f");
    let lost = RingClient::connect(&function);
    let worker = server.gpus()[0].worker_pid;
    send_signal(worker, Signal::KILL);
    eventually("the client fails", || lost.channel.sticky_error() == Some(CudaError::LAUNCH_FAILED));
    eventually("another worker is ready", || server.gpus()[0].state == "ready");
    assert_ne!(server.gpus()[0].worker_pid, worker);
    RingClient::connect(&function).ask(Ping {}).unwrap();
}

#[test]
fn a_ring_with_nonsense_fails_its_client_alone() {
    let server = start();
    let function = server.function("f");
    let (mut bad, mut good) = (RingClient::connect(&function), RingClient::connect(&function));
    bad.push(9999, 3, &[1, 2, 3]);
    eventually("the client fails", || bad.channel.sticky_error().is_some());
    good.ask(Ping {}).unwrap();
    eventually("one has failed, the other has not", || {
        let states: Vec<_> = server.clients().into_iter().map(|client| client.state).collect();
        states == ["failed", "idle"]
    });
    assert_eq!(server.gpus()[0].worker_restarts, 0);
}

#[test]
fn a_server_that_is_killed_takes_its_busy_worker_along() {
    let mut server = start();
    let mut client = connect(&server.function("f"));
    let worker = server.gpus()[0].worker_pid;
    // A worker that does not look at its socket.
    send_signal(worker, Signal::STOP);
    send_signal(server.pid(), Signal::KILL);
    server.wait();
    let gone = |pid: u32| !Path::new(&format!("/proc/{pid}/exe")).exists();
    eventually("the worker is gone", || gone(worker));
    eventually("the client notices", || client.is_dropped());
}
