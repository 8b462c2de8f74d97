//! Clients that are moved between two simulated GPUs, by order or because one is busy.

mod migrating;
mod served;
mod server_support;
mod worker_support;

use migrating::{Program, STAY, start, start_one_at_a_time};
use server_support::server::eventually;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use torpor_proto::command::{
    ContextSynchronize, EventCreate, EventElapsed, EventQuery, EventRecord, EventSynchronize, Fill,
    GraphAppend, GraphDestroy, GraphInstantiate, GraphLaunch, HostLock, HostUnlock, KernelSetAttribute,
    LEGACY_STREAM, MemoryFree, StreamCreate, StreamDestroy, StreamQuery, StreamSynchronize, StreamWaitEvent,
};
use torpor_proto::control::admin::{LoadFunctionRequest, PinFunctionRequest};
use torpor_proto::control::event::{Event, event::What};
use torpor_proto::error::CudaError;
use worker_support::contents::fill;
use worker_support::kernels::{add_step_parameters, launch, record};

const MIB: u64 = 1 << 20;
const STAGING_BYTES: u64 = 4 * MIB;

#[test]
fn everything_a_client_has_survives_being_moved_to_and_fro() {
    let server = start();
    let mut program = Program::start(&server, "f");
    let client = &mut program.client;
    let data = client.allocate(0, 4 * MIB).unwrap();
    let gone = client.allocate(8 * MIB, 2 * MIB).unwrap();
    let pattern: Vec<u8> = (0..MIB).map(|at| (at * 7 / 3) as u8).collect();
    client.upload(data + 2 * MIB, &pattern);
    client.upload(gone, &data.to_le_bytes());
    let pinned = client.host.address + STAGING_BYTES;
    client.ask(HostLock { address: pinned, bytes: MIB }).unwrap();
    client.write_host(STAGING_BYTES, &pattern);
    client.post(StreamCreate { stream: 1, flags: 0, priority: 0, context: 0 }, &[]);
    client.post(StreamCreate { stream: 2, flags: 1, priority: -1, context: 0 }, &[]);
    client.post(StreamCreate { stream: 3, flags: 1, priority: 0, context: 0 }, &[]);
    client.post(StreamDestroy { stream: 3, reserved: 0 }, &[]);
    for (event, flags) in [(1, 0), (2, 0), (3, 2), (4, 0), (5, 0)] {
        client.post(EventCreate { event, flags }, &[]);
    }
    client.post(KernelSetAttribute { kernel: 1, attribute: 8, value: 64 << 10, reserved: 0 }, &[]);
    let parameters = add_step_parameters(data, 100);
    let mut records = Vec::new();
    record(&mut records, launch(1, 7, 2, 64, parameters.len()), &parameters);
    record(&mut records, launch(1, 7, 2, 64, parameters.len()), &parameters);
    client.post(GraphAppend { graph: 1, reserved: 0 }, bytemuck::cast_slice(&records));
    client.ask(GraphInstantiate { graph: 1, reserved: 0, flags: 0 }).unwrap();
    // Another one is only begun.
    client.post(GraphAppend { graph: 2, reserved: 0 }, bytemuck::cast_slice(&records[..5]));
    program.record(1, 1);
    program.client.add_step(data, 100, 1);
    // Only now is it certain that the first record was made.
    program.client.settle().unwrap();
    std::thread::sleep(Duration::from_millis(30));
    let before_record = Instant::now();
    program.record(2, 1);
    program.record(3, 2);
    program.client.settle().unwrap();
    program.client.ask(EventSynchronize { event: 2, reserved: 0 }).unwrap();
    let recorded = Instant::now();
    let between = program.milliseconds(1, 2);
    assert!((29.0..5000.0).contains(&between), "{between} ms");

    let (first, second) = program.gpus(&server);
    let mut added = 3;
    for (gpu, event) in [(second, 5), (first, 6), (second, 7)] {
        program.move_to(&server, gpu).unwrap();
        assert_eq!(program.gpu(&server), gpu);
        let client = &mut program.client;
        assert_eq!(client.words(data, 101), [vec![added; 100], vec![0]].concat());
        assert_eq!(client.download(data + 2 * MIB, pattern.len()), pattern);
        assert_eq!(client.download(gone, 8), data.to_le_bytes());
        // Streams and events.
        for stream in [0, 1, 2] {
            eventually("it is idle", || client.ask(StreamQuery { stream, reserved: 0 }).is_ok());
        }
        assert_eq!(client.ask(StreamQuery { stream: 3, reserved: 0 }), Err(CudaError::INVALID_HANDLE));
        for event in [1, 2, 3, 4] {
            client.ask(EventQuery { event, reserved: 0 }).unwrap();
            client.ask(EventSynchronize { event, reserved: 0 }).unwrap();
            client.post(StreamWaitEvent { stream: 2, event, ..StreamWaitEvent::default() }, &[]);
        }
        for (start, end) in [(1, 3), (1, 4), (4, 2)] {
            assert_eq!(client.ask(EventElapsed { start, end }), Err(CudaError::INVALID_HANDLE));
        }
        if event != 5 {
            client.post(EventCreate { event, flags: 0 }, &[]);
        }
        let ms = |since: Instant| since.elapsed().as_secs_f32() * 1e3;
        let least = ms(recorded);
        program.record(event, 2);
        program.client.ask(StreamSynchronize { stream: 2, reserved: 0 }).unwrap();
        let most = ms(before_record);
        let same = program.milliseconds(1, 2);
        assert!((same - between).abs() < 0.1, "{same} ms, once {between} ms");
        let told = program.milliseconds(2, event);
        // Where no CPU is free, a worker does not know better when it was that the GPU did something.
        let doubt = 20.0 + most / 4.0;
        assert!((least - doubt..most + doubt).contains(&told), "{told} ms, {least} to {most} by the clock");
        assert!((program.milliseconds(event, 2) + told).abs() < 0.1);
        // Kernels with what was set of them, and the graph.
        let client = &mut program.client;
        let parameters = add_step_parameters(data, 100);
        let mut large = launch(1, 1, 2, 64, parameters.len());
        large.shape.shared_bytes = 60 << 10;
        client.post(large, &parameters);
        client.settle().unwrap();
        client.post(GraphLaunch { graph: 1, stream: 2 }, &[]);
        client.settle().unwrap();
        added += 9;
        assert_eq!(client.words(data, 1), [added]);
        // Page-locked memory.
        client.copy(data + 3 * MIB, pinned, MIB, 1);
        client.settle().unwrap();
        assert_eq!(client.download(data + 3 * MIB, pattern.len()), pattern);
    }
    let client = &mut program.client;
    client.post(GraphAppend { graph: 2, reserved: 0 }, bytemuck::cast_slice(&records[5..]));
    client.ask(GraphInstantiate { graph: 2, reserved: 0, flags: 0 }).unwrap();
    client.post(GraphLaunch { graph: 2, stream: 0 }, &[]);
    assert_eq!(client.words(data, 1), [added + 6]);
    client.post(GraphDestroy { graph: 1, reserved: 0 }, &[]);
    client.post(MemoryFree { address: gone }, &[]);
    client.ask(HostUnlock { address: pinned }).unwrap();
    client.settle().unwrap();
    let listed = server.listed("f");
    assert_eq!((listed.gpus, listed.allocated_bytes), (vec![second], 4 * MIB));
    assert!(listed.requests > 3 && listed.swaps >= 3);
}

#[test]
fn a_client_that_would_wait_behind_endless_work_runs_on_the_other_gpu() {
    let server = start_one_at_a_time();
    let (mut busy, mut other) = (Program::start(&server, "busy"), Program::start(&server, "other"));
    let (here, _) = busy.gpus(&server);
    let data = other.client.allocate(0, 2 * MIB).unwrap();
    other.client.add_step(data, 10, 0);
    other.client.settle().unwrap();
    other.move_to(&server, here).unwrap();
    std::thread::sleep(STAY);
    busy.spin();
    eventually("it has the GPU", || server.listed("busy").state == "active");
    // On a loaded machine it may have left the other one itself, before its kernel began.
    let here = busy.gpu(&server);
    other.client.add_step(data, 10, 0);
    assert_eq!(other.client.words(data, 2), [6, 6]);
    assert_eq!(busy.gpu(&server), here);
    assert_ne!(other.gpu(&server), here);
    busy.stop();
    assert_eq!(busy.gpu(&server), here);
}

#[test]
fn a_pinned_client_waits_where_it_is() {
    let server = start_one_at_a_time();
    let (mut busy, mut other) = (Program::start(&server, "busy"), Program::start(&server, "other"));
    let (here, _) = busy.gpus(&server);
    let data = other.client.allocate(0, 2 * MIB).unwrap();
    let request = PinFunctionRequest { name: "other".to_owned(), pinned: true, gpu: Some(here) };
    server.admin(async |mut api| api.pin_function(request).await).unwrap();
    assert_eq!(other.gpu(&server), here);
    busy.spin();
    eventually("it has the GPU", || server.listed("busy").state == "active");
    other.client.add_step(data, 10, 0);
    eventually("it waits", || server.listed("other").state == "waiting");
    std::thread::sleep(STAY);
    assert_eq!((server.listed("other").state.as_str(), other.gpu(&server)), ("waiting", here));
    busy.stop();
    assert_eq!(other.client.words(data, 1), [3]);
}

#[test]
fn a_busy_client_moves_by_order_once_it_is_idle_and_nobody_need_wait_for_it() {
    let server = start();
    let mut program = Program::start(&server, "f");
    let (_, elsewhere) = program.gpus(&server);
    program.spin();
    eventually("it has the GPU", || server.listed("f").state == "active");
    let busy = program.move_to(&server, elsewhere).unwrap_err();
    assert!(busy.message().contains("it moves to GPU"), "{busy}");
    program.stop();
    eventually("it moves", || program.gpu(&server) == elsewhere);
    let data = program.client.allocate(0, 2 * MIB).unwrap();
    program.client.add_step(data, 10, 0);
    assert_eq!(program.client.words(data, 1), [3]);
}

#[test]
fn clients_that_are_moved_while_they_work_compute_what_they_should() {
    const ROUNDS: u32 = 120;
    const MOVES: usize = 11;
    // Requests to move one of them, after which they stop working though they have not been moved as often.
    const MOST_REQUESTS: usize = 5000;
    let server = start();
    let moves = || {
        let moved = |event: &&Event| matches!(&event.what, Some(What::Moved(it)) if it.why == "asked");
        server.events().iter().filter(moved).count()
    };
    let enough = AtomicBool::new(false);
    let mut programs: Vec<_> = (0..5).map(|at| Program::start(&server, &format!("f{at}"))).collect();
    let names: Vec<_> = programs.iter().map(|program| program.name.clone()).collect();
    std::thread::scope(|scope| {
        let enough = &enough;
        let working: Vec<_> = programs
            .iter_mut()
            .enumerate()
            .map(|(number, Program { client, .. })| {
                scope.spawn(move || {
                    let data = client.allocate(0, 16 * MIB).unwrap();
                    client.post(StreamCreate { stream: 1, flags: 1, priority: 0, context: 0 }, &[]);
                    client.post(EventCreate { event: 1, flags: 0 }, &[]);
                    let is_over = |round: u32| round > ROUNDS && enough.load(Ordering::Relaxed);
                    for round in (1..).take_while(|&round| !is_over(round)) {
                        for chunk in 0..8 {
                            client.add_step(data + chunk * 2 * MIB, 200, 1);
                        }
                        client.post(EventRecord { event: 1, stream: 1, ..EventRecord::default() }, &[]);
                        client.ask(EventSynchronize { event: 1, reserved: 0 }).unwrap();
                        let chunk = u64::from(round) % 8;
                        let words = client.words(data + chunk * 2 * MIB, 201);
                        assert_eq!(words, [vec![round * 3; 200], vec![0]].concat());
                        std::thread::sleep(Duration::from_millis(number as u64 * 3));
                    }
                })
            })
            .collect();
        for at in 0.. {
            if working.iter().all(|thread| thread.is_finished()) {
                break;
            }
            let request = LoadFunctionRequest { name: names[at % 5].clone(), gpu: Some((at as u32 / 3) % 2) };
            // One that is never idle stays, for the moment.
            let _ = server.admin(async |mut api| api.load_function(request).await);
            enough.fetch_or(moves() >= MOVES || at >= MOST_REQUESTS, Ordering::Relaxed);
        }
    });
    assert!(moves() >= MOVES, "only {} moves", moves());
    assert!(programs.iter().all(|program| program.client.channel.sticky_error().is_none()));
}

#[test]
fn streams_are_of_the_same_devices_after_a_move() {
    let server = start();
    let mut program = Program::start(&server, "f");
    let data = program.client.allocate(0, 4 * MIB).unwrap();
    for (stream, flags, device) in [(4, LEGACY_STREAM, 1), (5, 0, 1)] {
        program.client.post(StreamCreate { stream, flags, context: device, priority: 0 }, &[]);
    }
    program.client.settle().unwrap();
    let (_, other) = program.gpus(&server);
    program.move_to(&server, other).unwrap();
    program.spin();
    let client = &mut program.client;
    client.post(Fill { stream: 5, ..fill(data, 64, 7, 1) }, &[]);
    client.copy(client.host.address + 4096, data, 64, 4);
    client.ask(ContextSynchronize { context: 1, reserved: 0 }).unwrap();
    assert_eq!(client.read_host(4096, 64), [7; 64]);
    assert_eq!(client.ask(StreamQuery { stream: 0, reserved: 0 }), Err(CudaError::NOT_READY));
    program.stop();
}
