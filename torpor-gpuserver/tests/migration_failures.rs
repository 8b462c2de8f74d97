//! Moves during which a worker or the client ends.

mod migrating;
mod served;
mod server_support;
mod worker_support;

use migrating::{Program, start, start_with, worker_pid};
use rustix::process::{Signal, kill_process};
use server_support::server::eventually;
use std::time::Duration;
use torpor_proto::control::admin::{LoadFunctionRequest, UnloadFunctionRequest};
use torpor_proto::error::CudaError;

const MIB: u64 = 1 << 20;

#[test]
fn a_client_goes_back_when_the_worker_that_is_to_take_it_dies() {
    let server = start();
    let mut program = Program::start(&server, "f");
    let data = program.client.allocate(0, 2 * MIB).unwrap();
    program.client.add_step(data, 10, 0);
    program.client.settle().unwrap();
    let (here, elsewhere) = program.gpus(&server);
    let victim = worker_pid(&server, elsewhere);
    kill_process(victim, Signal::STOP).unwrap();
    let moved = std::thread::scope(|scope| {
        let moving = scope.spawn(|| program.move_to(&server, elsewhere));
        // It is released, and nobody has it, while the worker sleeps.
        std::thread::sleep(Duration::from_millis(300));
        kill_process(victim, Signal::KILL).unwrap();
        moving.join().unwrap()
    });
    let refused = moved.unwrap_err();
    assert!(refused.message().contains("the GPU's worker does not take it"), "{refused}");
    assert_eq!(program.gpu(&server), here);
    program.client.add_step(data, 10, 0);
    assert_eq!(program.client.words(data, 1), [6]);
    eventually("another worker is there", || server.gpus()[elsewhere as usize].state == "ready");
    program.move_to(&server, elsewhere).unwrap();
    program.client.add_step(data, 10, 0);
    assert_eq!(program.client.words(data, 1), [9]);
}

#[test]
fn a_client_whose_worker_dies_before_it_is_released_fails() {
    let server = start_with(&["--cover", "false"]);
    let program = Program::start(&server, "f");
    let (here, elsewhere) = program.gpus(&server);
    let victim = worker_pid(&server, here);
    kill_process(victim, Signal::STOP).unwrap();
    let moved = std::thread::scope(|scope| {
        let moving = scope.spawn(|| program.move_to(&server, elsewhere));
        std::thread::sleep(Duration::from_millis(300));
        kill_process(victim, Signal::KILL).unwrap();
        moving.join().unwrap()
    });
    assert!(moved.unwrap_err().message().contains("no process of function f runs"));
    assert_eq!(program.client.channel.sticky_error(), Some(CudaError::LAUNCH_FAILED));
}

#[test]
fn a_client_that_ends_while_it_is_moved_leaves_nothing() {
    let server = start();
    let program = Program::start(&server, "f");
    let (_, elsewhere) = program.gpus(&server);
    let worker = worker_pid(&server, elsewhere);
    kill_process(worker, Signal::STOP).unwrap();
    std::thread::scope(|scope| {
        let (name, server) = (program.name.clone(), &server);
        let moving = scope.spawn(move || {
            let request = LoadFunctionRequest { name, gpu: Some(elsewhere) };
            server.admin(async |mut api| api.load_function(request).await)
        });
        std::thread::sleep(Duration::from_millis(300));
        drop(program);
        std::thread::sleep(Duration::from_millis(100));
        kill_process(worker, Signal::CONT).unwrap();
        assert!(moving.join().unwrap().unwrap_err().message().contains("no process of function f runs"));
    });
    eventually("it is gone", || server.clients().is_empty());
    // Its addresses and its slot can be used again.
    let mut next = Program::start(&server, "f");
    let data = next.client.allocate(0, 2 * MIB).unwrap();
    next.client.add_step(data, 1, 0);
    assert_eq!(next.client.words(data, 1), [3]);
    let request = UnloadFunctionRequest { name: "f".to_owned() };
    server.admin(async |mut api| api.unload_function(request).await).unwrap();
}
