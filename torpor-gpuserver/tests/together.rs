//! Clients that are active on one GPU together: those whose memory has room, and what becomes of them when it has none.

mod served;
mod server_support;
mod worker_support;

use served::{Attached, attach};
use server_support::server::{Server, eventually};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;
use torpor_proto::command::MemoryAllocate;
use worker_support::Client;

const MIB: u64 = 1 << 20;

/// A server with one simulated GPU, on which functions may have 32 MiB.
fn start() -> Server {
    start_by(|_| ())
}

/// As [`start`], and its command is changed before.
fn start_by(change: impl FnOnce(&mut Command)) -> Server {
    let flags =
        "--gpus 0 --pinned-limit 8MiB --staging 4MiB --gpu-limit 32MiB --host-pool 64MiB --host-slab 16MiB";
    served::serve_by(flags, change)
}

/// A client of a function of its own, with some memory.
struct Program {
    client: Client,
    name: &'static str,
    data: u64,
    _lifeline: UnixStream,
}

impl Program {
    fn start(server: &Server, name: &'static str, bytes: u64) -> Self {
        let Attached { mut client, lifeline } = attach(server, name);
        client.load_kernels();
        let data = client.allocate(0, bytes).unwrap();
        client.add_step(data, 1, 0);
        client.settle().unwrap();
        Self { client, name, data, _lifeline: lifeline }
    }

    /// Keeps the GPU until it is told to stop.
    fn spin(&mut self, server: &Server) {
        self.client.spin();
        eventually("it has the GPU", || self.state(server) == "active");
    }

    fn stop(&mut self) {
        self.client.stop_spinning();
        self.client.settle().unwrap();
    }

    fn state(&self, server: &Server) -> String {
        server.listed(self.name).state
    }
}

#[test]
fn clients_whose_memory_has_room_together_do_not_wait_for_each_other() {
    let server = start();
    let mut programs = ["a", "b", "c"].map(|name| Program::start(&server, name, 10 * MIB));
    let [a, b, c] = &mut programs;
    a.spin(&server);
    b.spin(&server);
    c.client.add_step(c.data, 1, 0);
    assert_eq!(c.client.words(c.data, 1), [6], "though the others' kernels do not end");
    a.stop();
    b.stop();
    assert_eq!(["a", "b", "c"].map(|name| server.listed(name).swaps), [0; 3]);
}

#[test]
fn who_has_no_room_beside_those_that_are_active_waits_for_one_of_them_and_nobody_overtakes_it() {
    let server = start();
    let [mut a, mut b] = ["a", "b"].map(|name| Program::start(&server, name, 14 * MIB));
    let mut large = Program::start(&server, "large", 18 * MIB);
    let mut small = Program::start(&server, "small", 2 * MIB);
    eventually("nobody lingers", || server.functions().iter().all(|function| function.state == "idle"));
    a.spin(&server);
    b.spin(&server);
    large.client.add_step(large.data, 1, 0);
    eventually("it waits", || large.state(&server) == "waiting");
    small.client.add_step(small.data, 1, 0);
    eventually("it would have room", || small.state(&server) == "waiting");
    a.stop();
    assert_eq!(large.client.words(large.data, 1), [6]);
    assert_eq!(small.client.words(small.data, 1), [6]);
    assert_eq!(server.listed("b").resident_bytes, 14 * MIB, "who is active does not leave");
    b.stop();
    assert_eq!(b.client.words(b.data, 1), [3]);
    assert_eq!(a.client.words(a.data, 1), [3]);
}

#[test]
fn clients_that_are_active_together_and_all_want_more_get_it_one_after_the_other() {
    let server = start();
    let mut programs = ["a", "b", "c"].map(|name| Program::start(&server, name, 8 * MIB));
    for program in &mut programs {
        program.spin(&server);
    }
    let wanted = programs.each_mut().map(|Program { client, .. }| {
        let address = client.arena.address + 16 * MIB;
        (address, client.ask_later(MemoryAllocate { address, bytes: 20 * MIB }, &[]))
    });
    // Time for all to ask: the first waits for the others, who have work; these then wait for each other.
    std::thread::sleep(Duration::from_millis(50));
    for Program { client, .. } in &mut programs {
        client.stop_spinning();
    }
    for (Program { client, .. }, (address, slot)) in programs.iter_mut().zip(wanted) {
        client.await_slot(slot).unwrap();
        client.add_step(address, 1, 0);
        assert_eq!(client.words(address, 1), [3]);
        assert_eq!(client.words(client.arena.address, 1), [3]);
    }
}

#[test]
fn those_that_are_always_busy_and_do_not_fit_have_several_answers_for_each_time_that_they_are_brought() {
    const ANSWERS: u32 = 24;
    let server = start_by(|command| {
        command.args(["--busy-turn", "2s"]);
        // It takes longer to bring one than its program thinks, however busy the CPUs are.
        command.env("TORPOR_SIMGPU_TIME", "real").env("TORPOR_SIMGPU_PROFILE", "h200:host_gbps=0.1");
    });
    let mut programs = ["a", "b"].map(|name| Program::start(&server, name, 20 * MIB));
    std::thread::scope(|scope| {
        for Program { client, data, .. } in &mut programs {
            scope.spawn(|| {
                for answer in 1..=ANSWERS {
                    client.add_step(*data, 1, 0);
                    assert_eq!(client.words(*data, 1), [3 * (answer + 1)]);
                    // What a program does between two requests.
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
        }
    });
    let swaps: u64 = programs.iter().map(|program| server.listed(program.name).swaps).sum();
    assert!(swaps > 0, "they do not fit beside each other");
    assert!(swaps * 4 < 2 * u64::from(ANSWERS), "{swaps} swaps for {} answers", 2 * ANSWERS);
}
