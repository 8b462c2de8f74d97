//! Everything that can go wrong on a GPU, on demand, over the preloaded library, the server, a worker and the simulated
//! GPU: what the client that meets the fault sees, and that its neighbours' results stay right.
//!
//! All clients of a GPU share one context. A fault that takes the context takes them all with the same code; neighbours
//! on other GPUs go on, and a new client finds a new worker. A fault that leaves the context leaves the neighbours.

#[allow(dead_code, reason = "the clients here use a part of it")]
#[path = "../src/driver_api/mod.rs"]
mod driver_api;
mod fault_support;
#[path = "../../torpor-gpuserver/tests/server_support/mod.rs"]
mod server_support;
mod support;

use fault_support::client::{ARRAY_BYTES, COUNT, Client};
use fault_support::node::Node;
use fault_support::program;
use fault_support::request::{Request, Value};
use server_support::server::{PATIENCE, eventually};
use std::time::Duration;

const INVALID_VALUE: i32 = 1;
const OUT_OF_MEMORY: i32 = 2;
const ECC_UNCORRECTABLE: i32 = 214;
const INVALID_HANDLE: i32 = 400;
const ILLEGAL_ADDRESS: i32 = 700;
const ASSERT: i32 = 710;
const STACK_ERROR: i32 = 714;
const ILLEGAL_INSTRUCTION: i32 = 715;
const MISALIGNED_ADDRESS: i32 = 716;
const INVALID_ADDRESS_SPACE: i32 = 717;
const INVALID_PC: i32 = 718;
const LAUNCH_FAILED: i32 = 719;
const UNKNOWN: i32 = 999;

/// Long enough for an answer that comes at all, in a test that waits for one that must not come.
const NO_ANSWER: Duration = Duration::from_millis(700);

/// An address that is no device's.
const NOWHERE: u64 = 0x1000;

const MIB: usize = 1 << 20;

/// The program of the clients of every other test here.
#[test]
fn client_program() {
    program::serve_if_asked();
}

fn addition(client: &mut Client, c: u64) -> Request {
    let [a, b] = [(); 2].map(|()| client.allocate(ARRAY_BYTES).unwrap());
    Request::VectorAdd { a, b, c, count: COUNT, stream: 0 }
}

#[test]
fn a_driver_that_hangs_is_told_of() {
    let node = Node::start(1, "call:cuMemGetInfo_v2@3:hang");
    eventually("it is seen", || node.server.gpus()[0].state == "unresponsive");
    let trouble = &node.server.gpus()[0].trouble;
    assert!(trouble.contains("the driver has not answered the worker for"), "{trouble}");
    eventually("it is in the log", || node.server.said("the driver has not answered the worker for"));
    assert_eq!(node.verb(&["doctor"]).status.code(), Some(1));
}

/// After a fault of GPU 0 that takes its context: everybody there has the code for ever, nobody else does, and the next
/// client is served.
fn assert_context_is_lost(node: &Node, code: i32, there: &mut [&mut Client], elsewhere: &mut Client) {
    for client in there {
        assert_eq!(client.compute_until_it_fails(), code);
        client.assert_stuck_with(code);
    }
    elsewhere.compute().unwrap();
    node.wait_for_replacement(0);
    let mut next = node.client_on(0);
    next.compute().unwrap();
    elsewhere.compute().unwrap();
    assert_eq!(node.server.gpus()[1].worker_restarts, 0);
}

#[test]
fn an_illegal_access_is_found_by_its_address_and_sticks() {
    let node = Node::start(2, "");
    let [mut faulty, mut neighbour, mut elsewhere] = [0, 0, 1].map(|gpu| node.client_on(gpu));
    for client in [&mut faulty, &mut neighbour, &mut elsewhere] {
        client.compute().unwrap();
    }
    let addition = addition(&mut faulty, NOWHERE);
    faulty.ask(&addition).expect("a launch returns before it runs");
    assert_eq!(faulty.synchronize(), Err(ILLEGAL_ADDRESS));
    assert_context_is_lost(&node, ILLEGAL_ADDRESS, &mut [&mut faulty, &mut neighbour], &mut elsewhere);
    let reports = node.reports();
    assert!(reports.contains("vector_add") && reports.contains("0x1000"), "{reports}");
}

#[test]
fn a_kernel_that_fails_on_demand_fails_with_its_own_code() {
    for (action, code) in [
        ("illegal-address", ILLEGAL_ADDRESS),
        ("assert", ASSERT),
        ("ecc", ECC_UNCORRECTABLE),
        ("stack-overflow", STACK_ERROR),
        ("illegal-instruction", ILLEGAL_INSTRUCTION),
        ("misaligned-address", MISALIGNED_ADDRESS),
        ("invalid-address-space", INVALID_ADDRESS_SPACE),
        ("invalid-pc", INVALID_PC),
        ("launch-failed", LAUNCH_FAILED),
    ] {
        let node = Node::start(2, &format!("launch:vector_add@2:{action}"));
        let [mut faulty, mut elsewhere] = [0, 1].map(|gpu| node.client_on(gpu));
        elsewhere.compute().unwrap();
        let c = faulty.allocate(ARRAY_BYTES).unwrap();
        let addition = addition(&mut faulty, c);
        faulty.ask(&addition).unwrap();
        faulty.synchronize().expect("the first launch is a good one");
        faulty.ask(&addition).unwrap();
        assert_eq!(faulty.synchronize(), Err(code), "{action}");
        assert_context_is_lost(&node, code, &mut [&mut faulty], &mut elsewhere);
    }
}

#[test]
fn memory_that_runs_out_is_one_client_s_error_and_no_lasting_one() {
    let node = Node::start_with(1, &[("TORPOR_SIMGPU_MEMORY", "256MiB")]);
    let (mut greedy, mut neighbour) = (node.client(), node.client());
    neighbour.compute().unwrap();
    let mut held = Vec::new();
    let refused = loop {
        match greedy.allocate(16 * MIB) {
            Ok(address) => held.push(address),
            Err(code) => break code,
        }
    };
    assert_eq!(refused, OUT_OF_MEMORY);
    assert!((4..=16).contains(&held.len()), "{} allocations of 16 MiB", held.len());
    greedy.synchronize().expect("the error does not stick");
    neighbour.compute().expect("who needs room gets it while the other is idle");
    neighbour.allocate(16 * MIB).expect("every function has its own limit");
    greedy.ask(&Request::Free(held[0])).unwrap();
    greedy.compute().unwrap();
    neighbour.compute().unwrap();
    assert_eq!(node.server.gpus()[0].worker_restarts, 0);
}

#[test]
fn an_allocation_that_the_driver_refuses_can_be_asked_for_again() {
    let node = Node::start(1, "call:cuMemCreate@4:out-of-memory; call:cuMemCreate@5:out-of-memory");
    let mut faulty = node.client();
    faulty.compute().unwrap();
    // Who is among a worker's first clients waits for what the worker before it had.
    std::thread::sleep(Duration::from_millis(1100));
    let mut attempts = (0..5).map(|_| faulty.allocate(4 * MIB));
    assert_eq!(attempts.find_map(Result::err), Some(OUT_OF_MEMORY));
    let mut neighbour = node.client();
    neighbour.compute().expect("the other leaves for it");
    faulty.compute().unwrap();
}

#[test]
fn a_kernel_that_never_ends_holds_up_its_own_client_alone() {
    let node = Node::start(1, "launch:vector_add:hang");
    let (mut stuck, mut neighbour) = (node.client(), node.client());
    neighbour.compute().unwrap();
    let c = stuck.allocate(ARRAY_BYTES).unwrap();
    let addition = addition(&mut stuck, c);
    stuck.ask(&addition).expect("a launch returns before it runs");
    stuck.tell(&Request::Synchronize(0));
    for _ in 0..5 {
        neighbour.compute().unwrap();
    }
    assert_eq!(stuck.answer_within(NO_ANSWER), None, "a wait for a kernel that never ends");
    stuck.kill();
    neighbour.compute().unwrap();
    let mut next = node.client();
    next.compute().unwrap();
    neighbour.compute().unwrap();
    assert_eq!(node.server.gpus()[0].worker_restarts, 0);
}

#[test]
fn a_device_that_falls_off_the_bus_takes_its_clients() {
    let node = Node::start(2, "device:0:lost@2000");
    let [mut there, mut neighbour, mut elsewhere] = [0, 0, 1].map(|gpu| node.client_on(gpu));
    for client in [&mut there, &mut neighbour, &mut elsewhere] {
        client.compute().unwrap();
    }
    assert_eq!(there.compute_until_it_fails(), UNKNOWN);
    assert_context_is_lost(&node, UNKNOWN, &mut [&mut there, &mut neighbour], &mut elsewhere);
    assert!(node.reports().contains("device 0 has fallen off the bus"), "{}", node.reports());
}

#[test]
fn clients_are_not_placed_on_a_device_that_was_never_there() {
    let node = Node::start(2, "device:0:lost");
    for _ in 0..3 {
        node.client().compute().unwrap();
    }
    eventually("GPU 0 is known to fail", || node.server.gpus()[0].state == "failed");
}

#[test]
fn a_copy_that_fails_takes_the_context() {
    let node = Node::start(2, "copy@40:fail");
    let [mut faulty, mut neighbour, mut elsewhere] = [0, 0, 1].map(|gpu| node.client_on(gpu));
    for client in [&mut faulty, &mut neighbour, &mut elsewhere] {
        client.compute().unwrap();
    }
    assert_eq!(faulty.compute_until_it_fails(), UNKNOWN);
    assert_context_is_lost(&node, UNKNOWN, &mut [&mut faulty, &mut neighbour], &mut elsewhere);
    assert!(node.reports().contains("copy number 40"), "{}", node.reports());
}

#[test]
fn a_copy_that_the_driver_refuses_fails_alone() {
    let node = Node::start(1, "call:cuMemcpyDtoHAsync_v2@3:fail=1");
    let (mut faulty, mut neighbour) = (node.client(), node.client());
    neighbour.compute().unwrap();
    let address = faulty.allocate(ARRAY_BYTES).unwrap();
    let mut codes = (0..4).map(|_| faulty.read(address, COUNT as usize));
    assert_eq!(codes.find_map(Result::err), Some(INVALID_VALUE));
    faulty.compute().unwrap();
    neighbour.compute().unwrap();
}

#[test]
fn a_worker_that_is_killed_is_replaced() {
    // A worker begins with some hundreds of calls.
    for (action, call) in [("kill", 4000), ("abort", 3500)] {
        let node = Node::start(2, &format!("call@{call}:{action}"));
        let [mut there, mut neighbour, mut elsewhere] = [0, 0, 1].map(|gpu| node.client_on(gpu));
        for client in [&mut there, &mut neighbour, &mut elsewhere] {
            client.compute().unwrap();
        }
        assert_eq!(there.compute_until_it_fails(), LAUNCH_FAILED, "{action}");
        assert_context_is_lost(&node, LAUNCH_FAILED, &mut [&mut there, &mut neighbour], &mut elsewhere);
    }
}

/// The checks that hardware does not make: most mistakes that they are about never reach the GPU through Torpor.
#[test]
fn mistakes_that_hardware_lets_pass_are_refused_before_they_reach_it() {
    let node = Node::start_with(1, &[("TORPOR_SIMGPU_CHECKS", "all")]);
    let (mut careless, mut neighbour) = (node.client(), node.client());
    neighbour.compute().unwrap();
    let numbers = vec![1.0; COUNT as usize];

    let large = careless.allocate(4 * MIB).unwrap();
    assert_eq!(careless.read(large, 3).unwrap(), [0.0; 3], "memory is cleared: none was never written");
    let end = large + 4 * MIB as u64;
    for (outside, what) in [(end + (1 << 30), "outside any allocation"), (end - 8, "beyond the end")] {
        assert_eq!(careless.ask(&Request::Write(outside, numbers.clone())), Err(INVALID_VALUE), "{what}");
        assert_eq!(careless.read(outside, 3), Err(INVALID_VALUE), "{what}");
    }

    careless.ask(&Request::Free(large)).unwrap();
    assert_eq!(careless.ask(&Request::Free(large)), Err(INVALID_VALUE), "a second free");
    let after_free = careless.ask(&Request::Write(large, numbers));
    assert_eq!(after_free, Err(INVALID_VALUE), "a copy to freed memory");

    let stream = careless.create_stream().unwrap();
    careless.ask(&Request::DestroyStream(stream)).unwrap();
    assert_eq!(careless.ask(&Request::Synchronize(stream)), Err(INVALID_HANDLE), "a destroyed stream");
    assert_eq!(careless.ask(&Request::DestroyStream(stream)), Err(INVALID_HANDLE), "destroyed again");
    let late = Request::Saxpy { alpha: 1.0, x: NOWHERE, y: NOWHERE, count: COUNT, stream };
    assert_eq!(careless.ask(&late), Err(INVALID_HANDLE), "a launch into a destroyed stream");

    careless.compute().unwrap();
    neighbour.compute().unwrap();
    assert_eq!(node.reports(), "", "nothing of this reached the simulated GPU");
}

#[test]
fn memory_freed_while_a_kernel_uses_it_stays_until_the_kernel_is_done() {
    let node = Node::start_with(1, &[("TORPOR_SIMGPU_CHECKS", "busy,freed,streams")]);
    let (mut client, mut neighbour) = (node.client(), node.client());
    neighbour.compute().unwrap();
    let count = MIB as i32 / 4;
    let [x, y] = [(); 2].map(|()| client.allocate(MIB).unwrap());
    client.ask(&Request::Write(x, vec![1.0; count as usize])).unwrap();
    for _ in 0..4 {
        client.tell(&Request::Saxpy { alpha: 1.0, x, y, count, stream: 0 });
    }
    client.tell(&Request::Free(x));
    for _ in 0..5 {
        assert_eq!(client.answer_within(PATIENCE), Some(Ok(Value::Nothing)));
    }
    assert_eq!(client.read(y, count as usize).unwrap(), vec![4.0; count as usize]);
    neighbour.compute().unwrap();
    assert_eq!(node.reports(), "", "the memory was not freed under a kernel");
}

#[test]
fn a_kernel_that_uses_freed_memory_fails_as_on_hardware_and_the_report_says_why() {
    let node = Node::start_with(2, &[("TORPOR_SIMGPU_CHECKS", "freed")]);
    let [mut careless, mut elsewhere] = [0, 1].map(|gpu| node.client_on(gpu));
    elsewhere.compute().unwrap();
    let freed = careless.allocate(4 * MIB).unwrap();
    let addition = addition(&mut careless, freed);
    careless.ask(&Request::Free(freed)).unwrap();
    careless.ask(&addition).unwrap();
    assert_eq!(careless.synchronize(), Err(ILLEGAL_ADDRESS));
    assert_context_is_lost(&node, ILLEGAL_ADDRESS, &mut [&mut careless], &mut elsewhere);
    assert!(node.reports().contains("the memory there was freed"), "{}", node.reports());
}
