//! A fault costs its own function alone, also while others are in a request: they do again at the next worker what they did since they
//! were saved, and do not notice. Who cannot is told.

mod served;
mod server_support;
mod worker_support;

use served::program::{self, kill_worker};
use server_support::server::{Server, eventually};
use std::time::Duration;
use torpor_proto::command::{
    ContextSynchronize, Copy, EventCreate, EventRecord, GraphAppend, GraphInstantiate, GraphLaunch, HostLock,
    MemoryAllocate, MemoryFree, Ping, StreamCreate, StreamSynchronize,
};
use torpor_proto::error::CudaError;
use worker_support::kernels::{add_step_parameters, launch, record};

const MIB: u64 = 1 << 20;
const STAGING_BYTES: u64 = 4 * MIB;
const COUNT: u32 = 100;
const BYTES: usize = COUNT as usize * 4;

/// An address that is nobody's.
const NOWHERE: u64 = 0x1000;

fn start(settings: &str) -> (Server, tempfile::NamedTempFile) {
    program::start(1, settings)
}

/// A program with state on the GPU that its requests change.
struct Program {
    of: program::Program,
    /// [`COUNT`] words.
    data: u64,
    /// Of a kernel that runs until it is not 0.
    flag: u64,
}

impl Program {
    fn start(server: &Server, name: &str) -> Self {
        let mut of = program::Program::start(server, name);
        of.client.post(StreamCreate { stream: 1, flags: 1, priority: 0, context: 0 }, &[]);
        let data = of.client.allocate(0, 4 * MIB).unwrap();
        of.client.upload(data, &[1; BYTES]);
        of.wait_until_covered(server);
        Self { of, data, flag: data + 2 * MIB }
    }

    /// Posts a part of a request: an upload, and work on the state and on it. Its result lies at `data`.
    fn begin_request(&mut self, input: u32) {
        let staged = self.of.client.stage(&input.to_le_bytes().repeat(COUNT as usize));
        let upload = self.data + MIB;
        self.of.client.copy(upload, staged, BYTES as u64, 1);
        self.of.client.add_step(upload, COUNT, 1);
        self.of.client.add_step(self.data, COUNT, 1);
        self.of.client.copy(self.data, upload, 4, 1);
    }

    /// Posts a kernel that runs until [`Self::let_go`].
    fn hold(&mut self) {
        self.of.client.launch_at(2, self.flag, 1);
    }

    fn let_go(&mut self) {
        let staged = self.of.client.stage(&1_u32.to_le_bytes());
        self.of.client.copy(self.flag, staged, 4, 0);
    }

    /// Asks for the result.
    fn ask(&mut self) -> u16 {
        let destination = self.of.client.piece(0);
        let bytes = BYTES as u64;
        self.of.client.post(Copy { destination, source: self.data, bytes, stream: 1, reserved: 0 }, &[]);
        self.of.client.ask_later(StreamSynchronize { stream: 1, reserved: 0 }, &[])
    }

    /// The result after a request with this input, which so many came before.
    fn expect(&mut self, slot: u16, input: u32, before: u32) {
        self.of.client.await_slot(slot).unwrap();
        let first = input + 3;
        let rest = 0x0101_0101 + 3 * (before + 1);
        let found = self.of.client.read_host(self.of.client.piece(0) - self.of.client.host.address, BYTES);
        let words: Vec<u32> =
            found.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words, [vec![first], vec![rest; COUNT as usize - 1]].concat());
        assert_eq!(self.of.client.channel.take_deferred_error(), None);
    }

    /// Its last command has been executed.
    fn wait_until_executed(&self) {
        eventually("it is executed", || self.of.client.channel.ring().is_drained());
    }
}

fn restarts(server: &Server) -> u64 {
    server.gpus()[0].worker_restarts
}

#[test]
fn who_is_in_a_request_beside_a_fault_does_not_notice() {
    let (server, _settings) = start("");
    let mut others: Vec<_> = (0..3).map(|number| Program::start(&server, &format!("f{number}"))).collect();
    let mut faulty = Program::start(&server, "faulty");
    let slots: Vec<u16> = (0..)
        .zip(&mut others)
        .map(|(number, other)| {
            other.begin_request(number);
            other.hold();
            other.ask()
        })
        .collect();
    others.iter().for_each(Program::wait_until_executed);
    faulty.of.client.launch_at(3, NOWHERE, 0);
    eventually("the worker has ended", || restarts(&server) > 0);
    // What they post meanwhile comes behind.
    others.iter_mut().for_each(Program::let_go);
    for ((number, other), slot) in (0..).zip(&mut others).zip(slots) {
        other.expect(slot, number, 0);
        other.begin_request(7);
        let slot = other.ask();
        other.expect(slot, 7, 1);
        assert_eq!(other.of.error(), None);
    }
    eventually("the culprit is told", || faulty.of.error() == Some(CudaError::ILLEGAL_ADDRESS));
    others.iter().for_each(|other| assert_eq!(other.of.error(), None));
}

#[test]
fn what_was_answered_already_is_done_again_without_a_word() {
    let (server, _settings) = start("");
    let mut program = Program::start(&server, "f");
    let room = program.of.client.arena.address + 64 * MIB;
    for round in 0..5 {
        // Busy: it is not idle for long enough to be saved in between.
        program.begin_request(round);
        program.of.client.ask(MemoryAllocate { address: room, bytes: 2 * MIB }).unwrap();
        program.of.client.add_step(room, COUNT, 1);
        program.of.client.ask(StreamSynchronize { stream: 1, reserved: 0 }).unwrap();
        program.of.client.post(MemoryFree { address: room }, &[]);
        let slot = program.ask();
        program.expect(slot, round, round);
    }
    // What the program has is its own: it is not written once more.
    let seen = program.of.client.piece(0) - program.of.client.host.address;
    program.of.client.write_host(seen, &[0xee; BYTES]);
    kill_worker(&server, 0);
    program.of.client.ask(Ping {}).unwrap();
    program.of.client.ask(ContextSynchronize::ALL).unwrap();
    assert_eq!(program.of.client.read_host(seen, BYTES), [0xee; BYTES]);
    program.begin_request(9);
    let slot = program.ask();
    program.expect(slot, 9, 5);
    assert_eq!(program.of.error(), None);
}

#[test]
fn page_locked_memory_and_graphs_are_done_again_as_long_as_nobody_was_told() {
    let (server, _settings) = start("");
    let mut program = Program::start(&server, "f");
    let (data, client) = (program.data, &mut program.of.client);
    let pinned = client.host.address + STAGING_BYTES;
    client.ask(HostLock { address: pinned, bytes: MIB }).unwrap();
    let parameters = add_step_parameters(data, COUNT);
    let mut records = Vec::new();
    record(&mut records, launch(1, 7, 2, 64, parameters.len()), &parameters);
    client.post(GraphAppend { graph: 1, reserved: 0 }, bytemuck::cast_slice(&records));
    client.ask(GraphInstantiate { graph: 1, reserved: 0, flags: 0 }).unwrap();
    program.of.wait_until_covered(&server);
    let client = &mut program.of.client;
    client.write_host(STAGING_BYTES, &[2; BYTES]);
    client.copy(data, pinned, BYTES as u64, 1);
    client.post(EventCreate { event: 1, flags: 0 }, &[]);
    client.post(EventRecord { event: 1, stream: 1, ..EventRecord::default() }, &[]);
    client.post(GraphLaunch { graph: 1, stream: 1 }, &[]);
    client.copy(pinned + 4096, data, BYTES as u64, 1);
    program.hold();
    let waiting = program.of.client.ask_later(ContextSynchronize::ALL, &[]);
    program.wait_until_executed();
    kill_worker(&server, 0);
    program.let_go();
    program.of.client.await_slot(waiting).unwrap();
    let word = (0x0202_0202_u32 + 3).to_le_bytes();
    assert_eq!(program.of.client.read_host(STAGING_BYTES + 4096, BYTES), word.repeat(COUNT as usize));
    assert_eq!(program.of.error(), None);
}

#[test]
fn who_dies_with_worker_after_worker_does_the_same_again_each_time() {
    let (server, _settings) = start("");
    let mut program = Program::start(&server, "f");
    program.begin_request(4);
    program.hold();
    let slot = program.ask();
    program.wait_until_executed();
    kill_worker(&server, 0);
    eventually("it does it again", || server.gpus()[0].state == "ready");
    kill_worker(&server, 0);
    program.let_go();
    program.expect(slot, 4, 0);
    program.of.wait_until_covered(&server);
    kill_worker(&server, 0);
    program.begin_request(5);
    let slot = program.ask();
    program.expect(slot, 5, 1);
    assert_eq!(program.of.error(), None);
}

#[test]
fn a_kernel_that_never_ends_is_not_begun_again_and_its_neighbours_are() {
    let (server, _settings) = start("[functions.endless]\nkernel_timeout = '1s'");
    let (mut endless, mut other) = (Program::start(&server, "endless"), Program::start(&server, "other"));
    other.begin_request(1);
    other.hold();
    let slot = other.ask();
    endless.hold();
    let waiting = endless.of.client.ask_later(ContextSynchronize::ALL, &[]);
    assert_eq!(endless.of.client.await_slot(waiting), Err(CudaError::LAUNCH_TIMEOUT));
    eventually("the worker has ended", || restarts(&server) == 1);
    other.let_go();
    other.expect(slot, 1, 0);
    assert_eq!((other.of.error(), restarts(&server)), (None, 1));
}

#[test]
fn who_takes_long_to_do_it_again_is_not_taken_for_the_culprit() {
    let (server, _settings) = start("");
    let (mut slow, mut faulty) = (Program::start(&server, "slow"), Program::start(&server, "faulty"));
    slow.begin_request(1);
    slow.hold();
    let slot = slow.ask();
    slow.wait_until_executed();
    faulty.of.client.launch_at(3, NOWHERE, 0);
    // It is not among those that are done yet, so the culprit is tried beside it.
    eventually("the culprit is told", || faulty.of.error() == Some(CudaError::ILLEGAL_ADDRESS));
    slow.let_go();
    slow.expect(slot, 1, 0);
    assert_eq!(slow.of.error(), None);
}

#[test]
fn who_is_tried_is_not_taken_for_the_culprit_of_a_fault_that_comes_meanwhile() {
    let (server, _settings) = start("");
    let mut tried = Program::start(&server, "tried");
    let (mut faulty, mut next) = (Program::start(&server, "faulty"), Program::start(&server, "next"));
    tried.begin_request(1);
    let slot = tried.ask();
    tried.expect(slot, 1, 0);
    tried.of.wait_until_covered(&server);
    // It has had most turns, so it is tried first, until it is let go.
    tried.begin_request(2);
    tried.hold();
    let slot = tried.ask();
    tried.wait_until_executed();
    faulty.of.client.launch_at(3, NOWHERE, 0);
    let is_active = || server.clients().iter().any(|it| it.id == tried.of.client.id && it.state == "active");
    eventually("it does it again", || restarts(&server) == 1 && is_active());
    next.of.client.launch_at(3, NOWHERE, 0);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((restarts(&server), tried.of.error()), (1, None));
    tried.let_go();
    tried.expect(slot, 2, 1);
    eventually("both culprits are told", || [&faulty, &next].iter().all(|told| told.of.error().is_some()));
    tried.begin_request(3);
    let slot = tried.ask();
    tried.expect(slot, 3, 2);
    assert_eq!(tried.of.error(), None);
}

#[test]
fn a_suspect_is_tried_when_the_next_spare_stands_ready() {
    let (server, _settings) = start("");
    let mut faulty = Program::start(&server, "faulty");
    let mut other = Program::start(&server, "other");
    // It has had most turns, so it is tried first, and costs another worker.
    for before in 0..3 {
        faulty.begin_request(1);
        let slot = faulty.ask();
        faulty.expect(slot, 1, before);
        faulty.of.wait_until_covered(&server);
    }
    eventually("a spare stands ready", || server.gpus()[0].spare == "ready");
    other.begin_request(2);
    other.hold();
    let slot = other.ask();
    other.wait_until_executed();
    faulty.of.client.launch_at(3, NOWHERE, 0);
    eventually("the culprit is told", || faulty.of.error() == Some(CudaError::ILLEGAL_ADDRESS));
    other.let_go();
    other.expect(slot, 2, 0);
    assert_eq!((restarts(&server), server.times_said("the spare worker has taken over")), (2, 2));
    assert_eq!(other.of.error(), None);
}

#[test]
fn who_cannot_do_it_again_is_told_what_the_fault_was() {
    let (server, _settings) = start("");
    let (mut program, mut faulty) = (Program::start(&server, "f"), Program::start(&server, "faulty"));
    // Its kernel reads what the program writes meanwhile.
    program.of.client.spin();
    let waiting = program.of.client.ask_later(ContextSynchronize::ALL, &[]);
    program.wait_until_executed();
    faulty.of.client.launch_at(3, NOWHERE, 0);
    eventually("both are told", || [&program, &faulty].iter().all(|told| told.of.error().is_some()));
    assert_eq!(program.of.error(), Some(CudaError::ILLEGAL_ADDRESS));
    assert!(!program.of.client.is_answered(waiting));
    assert!(server.said("its kernels reach page-locked memory"));
}

#[test]
fn whose_kernels_are_led_to_page_locked_memory_by_what_was_uploaded_since_is_told() {
    let (server, _settings) = start("");
    let mut program = Program::start(&server, "f");
    let pinned = program.of.client.host.address + STAGING_BYTES;
    program.of.client.ask(HostLock { address: pinned, bytes: MIB }).unwrap();
    program.of.client.upload(program.data + MIB, &pinned.to_le_bytes());
    program.of.client.add_through(program.data + MIB, 1, 0);
    program.hold();
    program.wait_until_executed();
    kill_worker(&server, 0);
    eventually("it is told", || program.of.error() == Some(CudaError::LAUNCH_FAILED));
    assert!(server.said("its kernels reach page-locked memory"));
}

#[test]
fn who_has_heard_of_an_error_is_told() {
    let (server, _settings) = start("");
    let mut program = Program::start(&server, "f");
    program.begin_request(1);
    // Nothing of its own is there.
    program.of.client.copy(program.data + 32 * MIB, program.data, 4, 1);
    assert!(program.of.client.settle().is_err());
    // Else it is saved anew.
    program.hold();
    program.wait_until_executed();
    kill_worker(&server, 0);
    eventually("it is told", || program.of.error() == Some(CudaError::LAUNCH_FAILED));
}

#[test]
fn whose_uploads_are_overwritten_is_told() {
    let (server, _settings) = start("");
    let mut program = Program::start(&server, "f");
    // More than half of the staging area, which is what uploads have.
    for part in 0..5 {
        program.of.client.upload(program.data, &vec![part; MIB as usize / 2]);
    }
    kill_worker(&server, 0);
    eventually("it is told", || program.of.error() == Some(CudaError::LAUNCH_FAILED));
    assert!(server.said("what it uploaded is overwritten"));
}
