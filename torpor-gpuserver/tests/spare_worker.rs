//! A second worker of each GPU stands ready, and takes over at once when the first one ends.

mod served;
mod server_support;
mod worker_support;

use rustix::process::{Pid, Signal, kill_process};
use served::{Attached, attach};
use server_support::client::connect;
use server_support::fake_worker::{self, COVERED, DIES};
use server_support::process::{children_that_are, is_alive};
use server_support::server::{self, Server, eventually};
use torpor_proto::error::CudaError;

const MIB: u64 = 1 << 20;

/// An address that is nobody's.
const NOWHERE: u64 = 0x1000;

/// The worker process of the tests here that need no GPU.
#[test]
fn fake_worker() {
    fake_worker::serve_if_asked();
}

fn start(flags: &[&str]) -> Server {
    start_with(flags, "")
}

fn start_with(flags: &[&str], faults: &str) -> Server {
    served::serve_by(
        "--gpus 0 --pinned-limit 8MiB --staging 4MiB --host-pool 64MiB --host-slab 16MiB",
        |command| {
            command.args(flags);
            if !faults.is_empty() {
                command.env("TORPOR_SIMGPU_FAULTS", faults);
            }
        },
    )
}

/// One fake GPU that has room for one context. A worker that finds no room says so, or waits for it.
fn start_with_one_context(context: &tempfile::NamedTempFile, waits: bool) -> Server {
    Server::start_by(|directory| {
        let mut command = server::command(served::PROGRAM, directory, &["--gpus", "0"]);
        command.env("TORPOR_FAKE_ONE_CONTEXT", context.path());
        if waits {
            command.env("TORPOR_FAKE_WAITS", "1");
        }
        command
    })
}

fn wait_for_spare(server: &Server) -> u32 {
    eventually("a spare stands ready", || server.gpus()[0].spare == "ready");
    server.gpus()[0].spare_pid
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
}

fn wait_until_covered(server: &Server, name: &str) {
    eventually("it is covered", || server.listed(name).covered_clients == 1);
}

#[test]
fn the_spare_serves_when_the_worker_is_killed_and_covered_clients_go_on_there_each_time() {
    let server = start(&[]);
    let Attached { mut client, lifeline: _alive } = attach(&server, "f");
    client.load_kernels();
    let data = client.allocate(0, 2 * MIB).unwrap();
    for round in 1..=2 {
        client.add_step(data, 10, 0);
        client.settle().unwrap();
        wait_until_covered(&server, "f");
        let (worker, spare) = (server.gpus()[0].worker_pid, wait_for_spare(&server));
        assert!(spare != worker && is_alive(spare));
        kill(worker);
        eventually("it is dead", || server.gpus()[0].worker_restarts == round);
        assert_eq!(client.words(data, 11), [vec![3 * round as u32; 10], vec![0]].concat());
        assert_eq!((server.gpus()[0].worker_pid, client.channel.sticky_error()), (spare, None));
    }
    assert_eq!(server.times_said("the spare worker has taken over"), 2);
}

#[test]
fn the_spare_serves_after_a_fault_and_the_culprit_is_told() {
    let server = start(&[]);
    let Attached { client: mut culprit, lifeline: _alive } = attach(&server, "culprit");
    let Attached { client: mut idle, lifeline: _lives } = attach(&server, "idle");
    culprit.load_kernels();
    wait_until_covered(&server, "idle");
    let spare = wait_for_spare(&server);
    culprit.launch_at(3, NOWHERE, 0);
    eventually("the culprit is told", || culprit.channel.sticky_error() == Some(CudaError::ILLEGAL_ADDRESS));
    eventually("the spare serves", || server.gpus()[0].worker_pid == spare);
    idle.load_kernels();
    let data = idle.allocate(0, 2 * MIB).unwrap();
    idle.add_step(data, 1, 0);
    assert_eq!(idle.words(data, 1), [3]);
    assert_eq!(idle.channel.sticky_error(), None);
}

#[test]
fn a_newcomer_that_has_never_been_idle_goes_on_at_the_spare() {
    let server = start(&[]);
    // Its images the node does not have.
    wait_for_spare(&server);
    let worker = server.gpus()[0].worker_pid;
    let Attached { mut client, lifeline: _alive } = attach(&server, "f");
    client.load_kernels();
    let data = client.allocate(0, 2 * MIB).unwrap();
    for step in 1..=200 {
        client.add_step(data, 10, 0);
        assert_eq!(client.settle(), Ok(()), "{}", server.log());
        if step == 20 {
            kill(worker);
        }
    }
    assert_eq!(client.words(data, 11), [vec![600; 10], vec![0]].concat());
    assert_eq!((server.gpus()[0].worker_restarts, client.channel.sticky_error()), (1, None));
}

#[test]
fn a_spare_that_is_killed_is_made_again_and_no_client_notices() {
    let server = start(&[]);
    let Attached { mut client, lifeline: _alive } = attach(&server, "f");
    let (worker, spare) = (server.gpus()[0].worker_pid, wait_for_spare(&server));
    kill(spare);
    eventually("it stands ready no more", || server.gpus()[0].spare_pid != spare);
    assert_ne!(wait_for_spare(&server), spare);
    client.load_kernels();
    client.settle().unwrap();
    let gpu = &server.gpus()[0];
    assert_eq!((gpu.worker_pid, gpu.worker_restarts, client.channel.sticky_error()), (worker, 0, None));
}

#[test]
fn clients_that_come_while_the_context_is_lost_are_served_by_the_next_worker() {
    // Whoever makes the fortieth stream of a worker finds the context lost, before it is served.
    let faults = "call:cuStreamCreateWithPriority@40:illegal-address";
    let server = start_with(&[], faults);
    let function = server.function("f");
    let restarts = || server.gpus()[0].worker_restarts;
    eventually("a context is lost", || {
        let client = connect(&function);
        assert_eq!(client.channel.sticky_error(), None);
        restarts() > 0
    });
    assert!(server.said("comes: the GPU refuses it"), "{}", server.log());
    assert!(!server.said("does not take the client"), "{}", server.log());
}

#[test]
fn worker_and_spare_killed_together_are_both_replaced() {
    let server = start(&[]);
    let Attached { mut client, lifeline: _alive } = attach(&server, "f");
    client.load_kernels();
    client.settle().unwrap();
    wait_until_covered(&server, "f");
    let (worker, spare) = (server.gpus()[0].worker_pid, wait_for_spare(&server));
    kill(spare);
    kill(worker);
    let data = client.allocate(0, 2 * MIB).unwrap();
    client.add_step(data, 1, 0);
    assert_eq!(client.words(data, 1), [3]);
    assert!(![worker, spare].contains(&server.gpus()[0].worker_pid));
    wait_for_spare(&server);
}

#[test]
fn without_a_spare_a_gpu_has_one_worker_and_functions_have_the_spare_s_memory() {
    let (with, without) = (start(&[]), start(&["--spare-worker", "false"]));
    assert_eq!((without.gpus()[0].spare.as_str(), without.gpus()[0].spare_pid), ("off", 0));
    assert!(with.gpus()[0].limit_bytes < without.gpus()[0].limit_bytes);
    wait_for_spare(&with);
    let workers = |server: &Server| children_that_are(server.pid(), "worker").len();
    assert_eq!((workers(&with), workers(&without)), (2, 1));
}

#[test]
fn a_server_that_ends_takes_its_spare_along() {
    let mut server = start(&[]);
    let spare = wait_for_spare(&server);
    server.shut_down();
    assert!(server.wait().success() && !is_alive(spare));
    let mut server = start(&[]);
    let spare = wait_for_spare(&server);
    kill(server.pid());
    server.wait();
    eventually("the spare is gone", || !is_alive(spare));
}

#[test]
fn where_no_spare_can_be_made_the_server_says_so_once_and_serves_without() {
    let context = tempfile::NamedTempFile::new().unwrap();
    let server = start_with_one_context(&context, false);
    let client = connect(&server.function(COVERED));
    eventually("it is tried again", || server.times_said("fake worker: no room for a context") == 2);
    assert_eq!(server.gpus()[0].state, "ready");
    assert_eq!(server.times_said("no spare worker stands ready"), 1, "{}", server.log());
    let worker = server.gpus()[0].worker_pid;
    kill(worker);
    eventually("another worker serves", || {
        let gpu = &server.gpus()[0];
        gpu.state == "ready" && gpu.worker_pid != worker
    });
    eventually("the client goes on", || server.said("the client goes on at another worker"));
    assert_eq!(client.channel.sticky_error(), None);
}

#[test]
fn a_spare_that_is_still_being_started_takes_over_as_soon_as_it_is_ready() {
    let context = tempfile::NamedTempFile::new().unwrap();
    let server = start_with_one_context(&context, true);
    let survivor = connect(&server.function(COVERED));
    eventually("the spare waits", || server.said("fake worker: waits for a context"));
    assert_eq!(server.gpus()[0].spare, "starting");
    let _victim = connect(&server.function(DIES));
    eventually("the client goes on", || server.said("the client goes on at another worker"));
    assert_eq!(server.times_said("fake worker: begins"), 2, "{}", server.log());
    assert_eq!(survivor.channel.sticky_error(), None);
}
