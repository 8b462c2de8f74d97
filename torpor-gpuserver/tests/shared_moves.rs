//! Processes that have memory and events together move together: each goes on with what the others have left, and none is lost where
//! one of them cannot go.

mod served;
mod server_support;
mod sharing;
mod worker_support;

use rustix::process::{Pid, Signal, kill_process};
use server_support::kept::ask_one_that_may_be_killed;
use server_support::server::{Server, eventually};
use sharing::Process;
use std::io::Write;
use std::process::Command;
use std::time::Duration;
use tonic::Status;
use torpor_proto::command::{
    EventCreate, EventExport, EventImport, EventQuery, EventRecord, ObjectCreate, Ping, StreamWaitEvent,
};
use torpor_proto::control::admin::{LoadFunctionRequest, ReportStoreRequest};
use torpor_proto::error::CudaError;

const MIB: u64 = 1 << 20;

/// A server with two simulated GPUs.
fn start() -> Server {
    start_by(|_| ())
}

fn start_by(change: impl FnOnce(&mut Command)) -> Server {
    served::serve_by(
        "--gpus 0,1 --pinned-limit 16MiB --staging 4MiB --gpu-limit 32MiB --host-pool 64MiB --host-slab 16MiB --log debug",
        |command| {
            command.env("TORPOR_SIMGPU_DEVICES", "2");
            change(command);
        },
    )
}

fn load(server: &Server, gpu: u32) -> Result<(), Status> {
    load_function(server, "f", gpu)
}

fn load_function(server: &Server, name: &str, gpu: u32) -> Result<(), Status> {
    let request = LoadFunctionRequest { name: name.to_owned(), gpu: Some(gpu) };
    server.admin(async |mut api| api.load_function(request).await).map(drop)
}

fn used_slots(server: &Server) -> u64 {
    let report = server.admin(async |mut api| api.report_store(ReportStoreRequest::default()).await);
    report.unwrap().used_bytes / (2 * MIB)
}

/// One of two processes that have memory of each of them together, and an event of each.
struct Partner {
    process: Process,
    /// Where it has its own memory, and the other one's.
    memory: [u64; 2],
    /// What nobody else has.
    alone: u64,
}

/// The numbers of its events: its own, and the other one's.
const EVENTS: [u32; 2] = [7, 8];

impl Partner {
    fn start(server: &Server) -> Self {
        let mut process = Process::start(server, "f");
        let alone = process.client.allocate(0, 2 * MIB).unwrap();
        process.client.upload(alone, &process.client.id.to_ne_bytes());
        process.client.post(EventCreate { event: EVENTS[0], flags: 4 | 2 }, &[]);
        Self { process, memory: [0; 2], alone }
    }

    /// Gets the other one's memory, and its event.
    fn meet(&mut self, other: &mut Self) {
        let secret = other.process.export(other.memory[0]).unwrap();
        self.memory[1] = self.process.open_of(4 * MIB, secret, &other.process).unwrap();
        let secret = other.process.client.ask(EventExport { event: EVENTS[0], reserved: 0 }).unwrap().secret;
        let exporter = other.process.client.id;
        self.process.client.ask(EventImport { event: EVENTS[1], reserved: 0, secret, exporter }).unwrap();
    }

    /// Behind what the other one did: adds 3 to the words of both, and records its event, which nobody waits for here.
    fn work(&mut self) {
        let client = &mut self.process.client;
        client.post(StreamWaitEvent { event: EVENTS[1], ..StreamWaitEvent::default() }, &[]);
        for address in self.memory {
            client.add_step(address + 2 * MIB, 100, 0);
        }
        client.post(EventRecord { event: EVENTS[0], ..EventRecord::default() }, &[]);
        // It is recorded when this is answered; the kernels may run.
        client.ask(Ping {}).unwrap();
    }

    /// The first words of what both have, its own first, behind what the other one did.
    fn seen(&mut self) -> [u32; 2] {
        let client = &mut self.process.client;
        client.post(StreamWaitEvent { event: EVENTS[1], ..StreamWaitEvent::default() }, &[]);
        assert_eq!(client.download(self.alone, 8), client.id.to_ne_bytes());
        self.memory.map(|address| client.words(address + 2 * MIB, 100)).map(|words| {
            assert!(words.iter().all(|&word| word == words[0]), "{words:?}");
            words[0]
        })
    }

    fn gpu(&self, server: &Server) -> u32 {
        self.process.gpu(server)
    }
}

/// An allocation of the first, and an object of the second, which both have; an event of each.
fn partners(server: &Server) -> [Partner; 2] {
    let (mut one, mut other) = (Partner::start(server), Partner::start(server));
    one.memory[0] = one.process.client.allocate(4 * MIB, 4 * MIB).unwrap();
    let home = other.process.client.arena.address + sharing::HOMES + 256 * MIB;
    other.process.client.ask(ObjectCreate { home, bytes: 4 * MIB }).unwrap();
    other.memory[0] = home;
    other.meet(&mut one);
    one.meet(&mut other);
    other.memory[0] = other.process.map(home).unwrap();
    for address in one.memory {
        one.process.client.upload(address, &[0; 4 * MIB as usize]);
    }
    assert_eq!([one.gpu(server), other.gpu(server)], [one.gpu(server); 2]);
    [one, other]
}

/// Both do a step, one after the other; both see both.
fn step(partners: &mut [Partner; 2], steps: u32) {
    for partner in partners.iter_mut() {
        partner.work();
    }
    for partner in partners {
        assert_eq!(partner.seen(), [6 * steps; 2]);
    }
}

#[test]
fn partners_go_there_and_back_and_go_on_with_what_the_other_one_has_left() {
    let server = start();
    let mut both = partners(&server);
    step(&mut both, 1);
    for round in 0..4_u32 {
        let there = 1 - both[0].gpu(&server);
        // Between two steps, and idle for a while.
        std::thread::sleep(Duration::from_millis(50) * (round % 2));
        if round == 2 {
            server.unload("f");
        }
        if round == 3 {
            // Posted, and not waited for by either.
            both.iter_mut().for_each(Partner::work);
        }
        load(&server, there).unwrap();
        assert_eq!([both[0].gpu(&server), both[1].gpu(&server)], [there; 2]);
        let function = server.listed("f");
        assert_eq!((function.sharing_clients, function.allocated_bytes), (2, 12 * MIB));
        assert_eq!(function.resident_bytes, 12 * MIB, "each counts once");
        step(&mut both, round + 2 + u32::from(round == 3));
    }
    server.unload("f");
    assert_eq!(used_slots(&server), 4, "what both have is saved once");
    assert_eq!(both[1].seen(), [36; 2]);
    let [one, other] = both;
    one.process.kill(&server);
    other.process.kill(&server);
    eventually("nothing is left", || used_slots(&server) == 0);
}

#[test]
fn an_event_that_was_recorded_before_is_past_and_is_one_event_there() {
    let server = start();
    let mut both = partners(&server);
    step(&mut both, 1);
    load(&server, 1 - both[0].gpu(&server)).unwrap();
    let query = EventQuery { event: EVENTS[1], reserved: 0 };
    both[1].process.client.ask(query).unwrap();
    let first = &mut both[0].process.client;
    first.spin();
    first.post(EventRecord { event: EVENTS[0], ..EventRecord::default() }, &[]);
    first.ask(Ping {}).unwrap();
    assert_eq!(both[1].process.client.ask(query), Err(CudaError::NOT_READY));
    both[0].process.client.stop_spinning();
    eventually("it is reached", || both[1].process.client.ask(query).is_ok());
}

#[test]
fn a_third_process_imports_it_where_it_is_now_and_from_then_on_three_go() {
    let server = start();
    let mut both = partners(&server);
    let secret = both[0].process.export(both[0].memory[0]).unwrap();
    load(&server, 1 - both[0].gpu(&server)).unwrap();
    step(&mut both, 1);
    let mut third = Process::start(&server, "f");
    let address = third.open_of(4 * MIB, secret, &both[0].process).unwrap();
    assert_eq!(third.client.words(address + 2 * MIB, 4), [6; 4]);
    let there = 1 - third.gpu(&server);
    load(&server, there).unwrap();
    assert_eq!([both[0].gpu(&server), both[1].gpu(&server), third.gpu(&server)], [there; 3]);
    // What was allocated is void for others once it is freed, wherever that was.
    let freed = both[0].memory[0];
    both[0].process.free(freed);
    load(&server, 1 - there).unwrap();
    let mut fourth = Process::start(&server, "f");
    assert_eq!(fourth.open_of(4 * MIB, secret, &both[0].process), Err(CudaError::INVALID_VALUE));
    third.client.upload(address + 2 * MIB, &[1; 400]);
    assert_eq!(both[1].process.client.download(both[1].memory[1] + 2 * MIB, 400), [1; 400]);
}

#[test]
fn where_one_is_busy_for_long_both_stay_and_neither_is_lost() {
    let server = start();
    let mut both = partners(&server);
    step(&mut both, 1);
    let here = both[0].gpu(&server);
    both[1].process.client.spin();
    eventually("it is active", || server.listed("f").state == "active");
    let refused = load(&server, 1 - here).unwrap_err().to_string();
    assert!(refused.contains("was not idle within 2 s"), "{refused}");
    assert_eq!(both[0].gpu(&server), here);
    both[0].process.client.words(both[0].memory[0], 1);
    both[1].process.client.stop_spinning();
    step(&mut both, 2);
    eventually("it is not on its way any more", || load(&server, 1 - here).is_ok());
    assert_eq!([both[0].gpu(&server), both[1].gpu(&server)], [1 - here; 2]);
    step(&mut both, 3);
}

#[test]
fn one_that_is_killed_on_the_way_leaves_the_others_right() {
    let server = start();
    for round in 0..12_u32 {
        let mut both = partners(&server);
        step(&mut both, 1);
        let there = 1 - both[0].gpu(&server);
        let [one, other] = both;
        let (killed, mut left) = if round % 2 == 0 { (one, other) } else { (other, one) };
        std::thread::scope(|scope| {
            let loaded = scope.spawn(|| load(&server, there));
            // At every point of that, over the rounds.
            std::thread::sleep(Duration::from_micros(1500) * round);
            killed.process.kill(&server);
            // It may have been the last of the two by then, and alone.
            loaded.join().unwrap().unwrap();
        });
        assert_eq!(left.gpu(&server), there);
        assert_eq!(left.seen(), [6; 2]);
        load(&server, 1 - there).unwrap();
        assert_eq!(left.seen(), [6; 2]);
        left.process.kill(&server);
        eventually("nothing is left", || used_slots(&server) == 0);
    }
}

#[test]
fn both_go_back_when_the_worker_that_is_to_take_them_dies() {
    let server = start();
    let mut both = partners(&server);
    step(&mut both, 1);
    let here = both[0].gpu(&server);
    let victim = server.gpus()[1 - here as usize].worker_pid;
    let victim = Pid::from_raw(victim.cast_signed()).unwrap();
    kill_process(victim, Signal::STOP).unwrap();
    let moved = std::thread::scope(|scope| {
        let moving = scope.spawn(|| load(&server, 1 - here));
        // Both are released, and nobody has them, while the worker sleeps.
        std::thread::sleep(Duration::from_secs(1));
        kill_process(victim, Signal::KILL).unwrap();
        moving.join().unwrap()
    });
    let refused = moved.unwrap_err().to_string();
    assert!(refused.contains("does not take it") || refused.contains("could not go with it"), "{refused}");
    assert_eq!([both[0].gpu(&server), both[1].gpu(&server)], [here; 2]);
    step(&mut both, 2);
    eventually("another worker is there", || server.gpus()[1 - here as usize].state == "ready");
    load(&server, 1 - here).unwrap();
    step(&mut both, 3);
}

#[test]
fn both_go_back_where_there_is_room_for_one() {
    let mut settings = tempfile::NamedTempFile::new().unwrap();
    settings.write_all(b"[memory]\npinned_limit = \"16MiB\"\n").unwrap();
    let server = start_by(|command| {
        command.arg("--config").arg(settings.path());
    });
    let mut both = partners(&server);
    step(&mut both, 1);
    let (here, there) = (both[0].gpu(&server), 1 - both[0].gpu(&server));
    // With theirs there are 4 of 16 MiB left that may be page-locked.
    let strangers = [(); 3].map(|()| {
        let stranger = Process::start(&server, "g");
        load_function(&server, "g", there).unwrap();
        stranger
    });
    let refused = load(&server, there).unwrap_err().to_string();
    assert!(refused.contains("does not take it") && refused.contains("page-locked"), "{refused}");
    assert_eq!([both[0].gpu(&server), both[1].gpu(&server)], [here; 2]);
    step(&mut both, 2);
    strangers.into_iter().for_each(|stranger| stranger.kill(&server));
    load(&server, there).unwrap();
    assert_eq!([both[0].gpu(&server), both[1].gpu(&server)], [there; 2]);
    step(&mut both, 3);
}

#[test]
fn whenever_the_server_is_killed_both_are_on_one_gpu_with_what_they_have() {
    let server = start_by(|command| {
        command.args(["--keeper", "true"]);
    });
    let mut both = partners(&server);
    for round in 0..24_u32 {
        both.iter_mut().for_each(Partner::work);
        let there = 1 - both[0].gpu(&server);
        let directory = server.directory.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                ask_one_that_may_be_killed(&directory, async |mut api| {
                    let request = LoadFunctionRequest { name: "f".to_owned(), gpu: Some(there) };
                    api.load_function(request).await.map(drop)
                });
            });
            // At every point of that, over the rounds.
            std::thread::sleep(Duration::from_millis(5) * round);
            server.kill_for_the_next();
        });
        for partner in &mut both {
            assert_eq!(partner.seen(), [6 * (round + 1); 2], "in round {round}");
        }
        eventually("both are on one GPU", || both[0].gpu(&server) == both[1].gpu(&server));
    }
}
