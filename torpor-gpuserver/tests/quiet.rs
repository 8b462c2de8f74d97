//! What the driver waits for every kernel over, beside kernels that wait for something themselves.

mod served;
mod server_support;
mod worker_support;

use served::program::{Program, start_with};
use server_support::server::{Server, eventually};
use std::thread::sleep;
use std::time::Duration;
use torpor_proto::command::{ContextSynchronize, HostLock, HostUnlock, KernelResolve, StreamCreate};
use worker_support::Client;
use worker_support::kernels::{STATE, STATE_PTX};

const MIB: u64 = 1 << 20;

/// Until who waits for quiet has had some windows.
const WHILE: Duration = Duration::from_millis(300);

/// A node where this call waits for all kernels, and keeps everybody else from calling.
fn start(jam: &str) -> (Server, tempfile::NamedTempFile) {
    let faults = format!("call:{jam}:jam");
    start_with(1, "", &[("TORPOR_SIMGPU_TIME", "real"), ("TORPOR_SIMGPU_FAULTS", &faults)])
}

/// A client with a stream of its own and something in memory.
fn with_memory(server: &Server, name: &str) -> (Program, u64) {
    let mut program = Program::start(server, name);
    program.client.post(StreamCreate { stream: 1, flags: 1, priority: 0, context: 0 }, &[]);
    let data = program.client.allocate(0, 2 * MIB).unwrap();
    program.client.add_step(data, 1, 0);
    assert_eq!(program.client.words(data, 1), [3]);
    (program, data)
}

/// What a client asks for beside a kernel that spins until a later one of its own is launched: it is answered behind both.
fn is_answered_behind_a_pair(server: &Server, client: &mut Client, ask: impl FnOnce(&mut Client) -> u16) {
    let (mut pair, _) = with_memory(server, "pair");
    pair.client.spin();
    eventually("it spins", || server.listed("pair").state == "active");
    let slot = ask(client);
    sleep(WHILE);
    assert!(!client.is_answered(slot), "the kernel still runs");
    // `poke`
    pair.client.launch_at(3, pair.client.host.address, 1);
    pair.client.ask(ContextSynchronize::ALL).unwrap();
    client.await_slot(slot).unwrap();
}

/// A client with an image whose kernel nobody has looked for yet.
fn with_image(server: &Server, name: &str) -> Program {
    let mut program = Program::start(server, name);
    program.client.load_image(STATE, &[STATE_PTX.as_bytes(), b"\0"].concat()).unwrap();
    program
}

/// Looks for it.
fn seek_kernel(client: &mut Client) -> u16 {
    client.ask_later(KernelResolve { image: STATE, kernel: STATE }, b"tick")
}

#[test]
fn a_kernel_that_waits_for_a_later_one_ends_though_a_neighbour_looks_for_a_kernel() {
    let (server, _settings) = start("cuKernelGetFunction");
    let mut comes = with_image(&server, "comes");
    is_answered_behind_a_pair(&server, &mut comes.client, seek_kernel);
}

#[test]
fn others_go_on_while_one_waits_for_a_long_kernel() {
    let (server, _settings) = start("cuKernelGetFunction");
    let (mut long, _) = with_memory(&server, "long");
    let (mut other, data) = with_memory(&server, "other");
    let mut comes = with_image(&server, "comes");
    long.client.spin();
    eventually("it spins", || server.listed("long").state == "active");
    let sought = seek_kernel(&mut comes.client);
    sleep(WHILE);
    other.client.add_step(data, 1, 0);
    assert_eq!(other.client.words(data, 1), [6]);
    assert!(!comes.client.is_answered(sought));
    long.client.stop_spinning();
    comes.client.await_slot(sought).unwrap();
}

#[test]
fn a_kernel_that_waits_for_a_later_one_ends_though_a_neighbour_unlocks_memory() {
    let (server, _settings) = start("cuMemHostUnregister");
    let mut comes = Program::start(&server, "comes");
    // Behind its staging area.
    let address = comes.client.host.address + 4 * MIB;
    comes.client.ask(HostLock { address, bytes: MIB }).unwrap();
    let unlock = |client: &mut Client| client.ask_later(HostUnlock { address }, &[]);
    is_answered_behind_a_pair(&server, &mut comes.client, unlock);
}

#[test]
fn its_own_kernels_keep_nobody_else_from_launching() {
    let (server, _settings) = start("cuKernelGetFunction");
    let mut own = with_image(&server, "own");
    let (mut other, data) = with_memory(&server, "other");
    own.client.spin();
    let sought = seek_kernel(&mut own.client);
    sleep(WHILE);
    other.client.add_step(data, 1, 0);
    assert_eq!(other.client.words(data, 1), [6]);
    assert!(!own.client.is_answered(sought));
    own.client.stop_spinning();
    own.client.await_slot(sought).unwrap();
}

#[test]
fn many_look_for_kernels_at_once_beside_one_that_works() {
    let (server, _settings) = start("cuKernelGetFunction");
    let (mut busy, data) = with_memory(&server, "busy");
    let mut programs: Vec<Program> =
        (0..6).map(|number| with_image(&server, &format!("comes-{number}"))).collect();
    let sought: Vec<u16> = programs.iter_mut().map(|program| seek_kernel(&mut program.client)).collect();
    for step in 2..100 {
        busy.client.add_step(data, 1, 0);
        assert_eq!(busy.client.words(data, 1), [3 * step]);
    }
    for (program, slot) in programs.iter_mut().zip(sought) {
        program.client.await_slot(slot).unwrap();
    }
}
