//! What happens on a node is told to those who follow it, in order and with whose it is.

mod served;
mod server_support;
mod worker_support;

use served::attach;
use server_support::follower::Follower;
use server_support::server::{Server, eventually};
use torpor_proto::control::admin::{LoadFunctionRequest, UnloadFunctionRequest};
use torpor_proto::control::event::{Event, event::What};

const MIB: u64 = 1 << 20;

fn start() -> Server {
    served::serve_by(
        "--gpus 0,1 --pinned-limit 8MiB --staging 4MiB --host-pool 64MiB --host-slab 16MiB",
        |command| {
            command.env("TORPOR_SIMGPU_DEVICES", "2");
        },
    )
}

fn place(events: &[Event], is_it: impl Fn(&What) -> bool) -> usize {
    events.iter().position(|event| event.what.as_ref().is_some_and(&is_it)).unwrap()
}

#[test]
fn a_client_s_life_is_told_in_order() {
    let server = start();
    server.function("before");
    let follower = Follower::new(&server);
    let attached = attach(&server, "f");
    let mut client = attached.client;
    client.allocate(0, 4 * MIB).unwrap();
    client.settle().unwrap();
    let unload = UnloadFunctionRequest { name: "f".to_owned() };
    server.admin(async |mut api| api.unload_function(unload).await).unwrap();
    follower.until(
        "its eviction is told",
        "f",
        |what| matches!(what, What::Evicted(it) if it.bytes == 4 * MIB),
    );
    for gpu in [1, 0] {
        let load = LoadFunctionRequest { name: "f".to_owned(), gpu: Some(gpu) };
        server.admin(async |mut api| api.load_function(load).await).unwrap();
    }
    drop((client, attached.lifeline));
    let events = follower.until("it is told that it left", "f", |what| matches!(what, What::ClientLeft(_)));
    let created = place(&events, |what| matches!(what, What::FunctionCreated(_)));
    assert!(events[created..].iter().any(|event| event.function == "before"), "what was before is told, too");
    let attached = place(&events, |what| matches!(what, What::ClientAttached(_)));
    let began = place(&events, |what| matches!(what, What::TurnBegan(_)));
    let evicted = place(&events, |what| matches!(what, What::Evicted(_)));
    let moved = place(&events, |what| matches!(what, What::Moved(it) if it.why == "asked"));
    let is_swap_in = |event: &Event| matches!(&event.what, Some(What::SwappedIn(it)) if it.bytes == 4 * MIB);
    let swapped_in = events.iter().rposition(is_swap_in).unwrap();
    let left = place(&events, |what| matches!(what, What::ClientLeft(_)));
    let order = [attached, began, evicted, moved, swapped_in, left];
    assert!(order.is_sorted(), "{order:?}: {events:#?}");
    let numbers: Vec<u64> = events.iter().map(|event| event.number).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
}

#[test]
fn workers_that_are_lost_and_their_clients_are_told() {
    let server = start();
    let follower = Follower::new(&server);
    let _attached = attach(&server, "f");
    let on = server.clients()[0].gpu;
    let pid = server.gpus().iter().find(|gpu| gpu.index == on).unwrap().worker_pid;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let is_it = |what: &What| matches!(what, What::WorkerLost(it) if it.gpu == on);
    follower.until("it is told that the worker is lost", "", is_it);
    let starts = |what: &What| matches!(what, What::WorkerStarted(it) if it.gpu == on);
    eventually("another one starts", || {
        let events = follower.heard();
        let lost = place(&events, is_it);
        events[lost..].iter().any(|event| event.what.as_ref().is_some_and(starts))
    });
}
