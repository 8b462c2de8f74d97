//! A server with a keeper is killed while strict functions are there: they are lost with it, those that share the GPU go on, and the
//! GPU's memory is accounted for anew.

mod enclosed;
mod served;
mod server_support;
mod worker_support;

use enclosed::{MIB, Program, isolate, start};
use server_support::process::is_alive;
use server_support::server::{Server, eventually};
use std::io::Read;
use torpor_proto::control::admin::Isolation;

/// Kills the server's process, and waits until the next one serves.
fn kill(server: &Server) {
    let before = server.times_said("torpor: serving");
    server.kill_for_the_next();
    eventually("it serves", || server.times_said("torpor: serving") > before);
}

fn start_kept() -> Server {
    start(1, &["--keeper", "true"])
}

/// Functions use each other's memory, and never more than there is.
fn take_turns(server: &Server, programs: &mut [&mut Program]) {
    for _ in 0..2 {
        for program in &mut *programs {
            program.request();
            let resident: u64 = server.functions().iter().map(|function| function.resident_bytes).sum();
            assert!(resident <= 32 * MIB, "{resident}");
        }
    }
}

#[test]
fn strict_functions_are_lost_with_the_server_and_no_others() {
    let server = start_kept();
    let mut shared = Program::start(&server, "shared", 20 * MIB);
    let mut strict = Program::strict(&server, "f", 20 * MIB);
    take_turns(&server, &mut [&mut shared, &mut strict]);
    let enclosure = strict.enclosure(&server).unwrap().worker_pid;
    let worker = server.gpus()[0].worker_pid;
    kill(&server);
    assert!(!is_alive(enclosure), "the next server waits for its end");
    assert_eq!(strict.lifeline.read(&mut [0]).unwrap(), 0, "its process is told");
    shared.request();
    assert_eq!((server.gpus()[0].worker_pid, server.clients().len()), (worker, 1));
    // What the strict function had is there for others.
    let mut large = Program::start(&server, "large", 30 * MIB);
    large.request();
    // The next process of the function is served, and memory goes to and fro.
    let mut next = Program::start(&server, "f", 20 * MIB);
    assert_ne!(next.enclosure(&server).unwrap().worker_pid, enclosure);
    take_turns(&server, &mut [&mut shared, &mut next]);
    drop(large);
    kill(&server);
    shared.request();
}

#[test]
fn who_waited_for_a_strict_function_s_memory_waits_no_longer() {
    let server = start_kept();
    let mut strict = Program::strict(&server, "f", 20 * MIB);
    let mut waiting = Program::start(&server, "waiting", 20 * MIB);
    strict.request();
    strict.client.spin();
    eventually("it has the GPU", || strict.state(&server) == "active");
    waiting.client.add_step(waiting.data, 1, 0);
    eventually("it waits for memory", || server.listed("waiting").state != "idle");
    kill(&server);
    assert_eq!(waiting.client.words(waiting.data, 2), [8, 5]);
    waiting.client.upload(waiting.data, &5_u32.to_le_bytes());
    // It can want memory again.
    let mut next = Program::start(&server, "f", 20 * MIB);
    take_turns(&server, &mut [&mut waiting, &mut next]);
}

#[test]
fn what_a_strict_function_waited_for_is_demanded_no_longer() {
    let server = start_kept();
    isolate(&server, "f", Isolation::Strict);
    let mut active = Program::start(&server, "active", 20 * MIB);
    let mut strict = Program::start(&server, "f", 20 * MIB);
    active.request();
    active.client.spin();
    eventually("it has the GPU", || active.state(&server) == "active");
    strict.client.add_step(strict.data, 1, 0);
    eventually("it waits for memory", || server.listed("f").state != "idle");
    kill(&server);
    active.client.stop_spinning();
    // Others get turns and memory, as nobody outside waits for any.
    Program::start(&server, "other", 4 * MIB).request();
    active.request();
    let mut next = Program::start(&server, "f", 20 * MIB);
    take_turns(&server, &mut [&mut active, &mut next]);
}
