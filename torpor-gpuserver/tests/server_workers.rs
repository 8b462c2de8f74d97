//! Workers that die, hang or lose their context, as the node server and its clients see it.

mod server_support;

use rustix::process::Signal;
use server_support::client::{connect, hello, take_memory};
use server_support::fake_worker::{
    self, BUSY_AGAIN, COMES_TO_A_LOSS, COVERED, DEADLY, DIES, FORGOTTEN, LOSES_CONTEXT,
    LOSES_CONTEXT_AND_STAYS,
};
use server_support::process::{is_alive, signal};
use server_support::server::{self, Server, eventually};
use std::fs;
use torpor_proto::PROTOCOL_VERSION;
use torpor_proto::control::event::{Event, event::What};
use torpor_proto::error::CudaError;

const PROGRAM: &str = env!("CARGO_BIN_EXE_torpor-gpuserver");

/// The worker process of every other test here.
#[test]
fn fake_worker() {
    fake_worker::serve_if_asked();
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

/// How often it is told that a client goes on at another worker, since its own died.
fn times_served_again(server: &Server) -> usize {
    let is_it = |event: &Event| matches!(&event.what, Some(What::Moved(it)) if it.why == "lost");
    server.events().iter().filter(|event| is_it(event)).count()
}

#[test]
fn a_worker_that_stays_though_its_context_is_lost_gets_no_more_clients_and_is_killed() {
    let server = Server::start(PROGRAM, &["--gpus", "0"]);
    let worker = server.gpus()[0].worker_pid;
    let lost = connect(&server.function(LOSES_CONTEXT_AND_STAYS));
    eventually("the client fails", || lost.channel.sticky_error() == Some(CudaError::ILLEGAL_ADDRESS));
    let gpu = &server.gpus()[0];
    assert!(gpu.worker_pid != worker || gpu.state != "ready", "{gpu:?}");
    eventually("it is killed", || !is_alive(worker));
    eventually("another one serves", || server.gpus()[0].state == "ready");
    connect(&server.function("next"));
}

#[test]
fn a_client_that_comes_to_a_worker_whose_context_is_just_lost_is_served_by_the_next_one() {
    let losses = tempfile::NamedTempFile::new().unwrap();
    let server = Server::start_by(|directory| {
        let mut command = server::command(PROGRAM, directory, &["--gpus", "0"]);
        command.env("TORPOR_FAKE_LOSSES", losses.path());
        command
    });
    let function = server.function(COMES_TO_A_LOSS);
    fs::write(&losses, "..").unwrap();
    let client = connect(&function);
    assert_eq!((client.channel.sticky_error(), server.gpus()[0].worker_restarts), (None, 2));
    assert_eq!(server.clients().len(), 1);
    // A client that comes to nothing else is what ends them.
    fs::write(&losses, "....").unwrap();
    let welcome = hello(&function, PROTOCOL_VERSION).unwrap();
    let reason = take_memory(&function, &welcome).err().unwrap();
    assert!(reason.contains("its GPU's worker died"), "{reason}");
    assert_eq!(fs::read(&losses).unwrap().len(), 1);
    eventually("nothing is left of it", || server.clients().len() == 1);
}

#[test]
fn a_client_whose_state_holds_survives_its_worker_and_one_whose_does_not_is_told() {
    let server = Server::start(PROGRAM, &["--gpus", "0"]);
    let (survivor, busy) = (connect(&server.function(COVERED)), connect(&server.function(BUSY_AGAIN)));
    for restarts in 1..=2 {
        signal(server.gpus()[0].worker_pid, Signal::KILL);
        eventually("the client is served again", || times_served_again(&server) == restarts);
    }
    assert_eq!(busy.channel.sticky_error(), Some(CudaError::LAUNCH_FAILED));
    assert_eq!(survivor.channel.sticky_error(), None);
    assert_eq!(server.gpus()[0].worker_restarts, 2);
    drop((survivor, busy));
    eventually("nobody is left", || server.clients().is_empty());
}

#[test]
fn a_client_that_kills_whoever_makes_it_again_kills_three_workers_and_the_others_survive_them() {
    let server = Server::start(PROGRAM, &["--gpus", "0"]);
    let (survivor, deadly) = (connect(&server.function(COVERED)), connect(&server.function(DEADLY)));
    signal(server.gpus()[0].worker_pid, Signal::KILL);
    eventually("it is given up", || deadly.channel.sticky_error() == Some(CudaError::LAUNCH_FAILED));
    let is_given_up = |event: &Event| matches!(&event.what, Some(What::ClientFailed(it)) if it.reason.contains("each of 3 workers died"));
    assert!(server.events().iter().any(is_given_up), "{}", server.log());
    eventually("a worker is there", || server.gpus()[0].state == "ready");
    eventually("the other is served again", || times_served_again(&server) > 0);
    assert_eq!((survivor.channel.sticky_error(), server.gpus()[0].worker_restarts), (None, 4));
}

#[test]
fn a_worker_that_is_stopped_is_told_of_until_it_goes_on() {
    let server = Server::start(PROGRAM, &[]);
    let worker = server.gpus()[1].worker_pid;
    signal(worker, Signal::STOP);
    eventually("it is seen", || server.gpus()[1].state == "unresponsive");
    assert!(server.gpus()[1].trouble.contains("the worker has not answered for"));
    assert_eq!(server.gpus()[0].state, "ready");
    eventually("it is in the log", || server.said("the worker has not answered for"));
    // The next clients go where somebody answers.
    let clients = [(); 4].map(|()| connect(&server.directory.function("default")));
    assert_eq!(server.gpus()[0].clients, 4);
    signal(worker, Signal::CONT);
    eventually("it goes on", || server.gpus()[1].state == "ready");
    assert_eq!((server.gpus()[1].trouble.as_str(), server.gpus()[1].worker_restarts), ("", 0));
    eventually("that is in the log too", || server.said("answer again"));
    assert_eq!(server.times_said("the worker has not answered for"), 1);
    drop(clients);
}

#[test]
fn a_client_goes_on_that_is_nowhere_when_its_server_is_killed_and_the_next_one_too_before_it_hears_so() {
    let server = Server::start(PROGRAM, &["--gpus", "0", "--keeper", "true"]);
    let client = connect(&server.function(FORGOTTEN));
    server.kill_for_the_next();
    eventually("its worker is to let go of it", || server.said("fake worker: lets go of a client, unheard"));
    server.kill_for_the_next();
    eventually("the client goes on", || server.said("the client goes on at another worker"));
    assert_eq!(client.channel.sticky_error(), None);
    assert!(!server.said("client lost"), "{}", server.log());
}
