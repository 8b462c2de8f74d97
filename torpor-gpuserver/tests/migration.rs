//! Clients that are moved between two simulated GPUs, by order or because one is busy.

mod served;
mod server_support;
mod worker_support;

use rustix::process::{Pid, Signal, kill_process};
use served::{Attached, attach};
use server_support::server::{Server, eventually};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tonic::Status;
use torpor_proto::command::{
    ArrayCreate, ArrayDestroy, EventCreate, EventElapsed, EventQuery, EventRecord, EventSynchronize, Fill,
    GraphAppend, GraphDestroy, GraphInstantiate, GraphLaunch, HostLock, HostUnlock, ImageGlobal, ImageUnload,
    KernelSetAttribute, MemoryFree, StreamCreate, StreamDestroy, StreamQuery, StreamSynchronize,
    StreamWaitEvent,
};
use torpor_proto::control::admin::{LoadFunctionRequest, PinFunctionRequest, UnloadFunctionRequest};
use torpor_proto::control::event::{Event, event::What};
use torpor_proto::error::CudaError;
use torpor_proto::image::synthetic::{self, CubinSource, KernelSource, VariableSource};
use worker_support::Client;
use worker_support::kernels::{STATE, add_step_parameters, launch, record};

const MIB: u64 = 1 << 20;
const STAGING_BYTES: u64 = 4 * MIB;
/// Longer than a client stays at least where it was moved to.
const STAY: Duration = Duration::from_millis(150);

fn start() -> Server {
    start_with(&[])
}

/// A server on which clients wait for each other.
fn start_one_at_a_time() -> Server {
    start_with(&["--active-per-gpu", "1"])
}

fn start_with(flags: &[&str]) -> Server {
    Server::start_by(|directory| {
        let mut command = Command::new(served::PROGRAM);
        command.arg("serve").arg("--directory").arg(directory.path()).arg("--driver").arg(served::driver());
        command.args(["--gpus", "0,1", "--pinned-limit", "16MiB", "--staging", "4MiB", "--log", "debug"]);
        command.args(["--gpu-limit", "64MiB", "--host-pool", "128MiB", "--host-slab", "32MiB"]);
        command.env("TORPOR_SIMGPU_DEVICES", "2").env("TORPOR_GPUSERVER", served::PROGRAM);
        command.env("TORPOR_SIMGPU_TIME", "real");
        command.args(flags).stdin(Stdio::null()).stdout(Stdio::null());
        command
    })
}

/// A client of a function of its own.
struct Program {
    client: Client,
    name: String,
    _lifeline: UnixStream,
}

impl Program {
    fn start(server: &Server, name: &str) -> Self {
        let Attached { mut client, lifeline } = attach(server, name);
        client.load_kernels();
        Self { client, name: name.to_owned(), _lifeline: lifeline }
    }

    fn gpu(&self, server: &Server) -> u32 {
        let clients = server.clients();
        clients.iter().find(|client| client.id == self.client.id).unwrap().gpu
    }

    /// Which GPU it is on, and the other one.
    fn gpus(&self, server: &Server) -> (u32, u32) {
        let here = self.gpu(server);
        (here, 1 - here)
    }

    fn move_to(&self, server: &Server, gpu: u32) -> Result<(), Status> {
        let request = LoadFunctionRequest { name: self.name.clone(), gpu: Some(gpu) };
        server.admin(async |mut api| api.load_function(request).await).map(drop)
    }

    fn milliseconds(&mut self, start: u32, end: u32) -> f32 {
        f32::from_bits(self.client.ask(EventElapsed { start, end }).unwrap().milliseconds_bits)
    }

    fn record(&mut self, event: u32, stream: u32) {
        self.client.post(EventRecord { event, stream, ..EventRecord::default() }, &[]);
    }

    /// Makes a kernel run in stream 0 until [`Self::stop`].
    fn spin(&mut self) {
        self.client.spin();
    }

    fn stop(&mut self) {
        self.client.stop_spinning();
        self.client.settle().unwrap();
    }
}

fn worker_pid(server: &Server, gpu: u32) -> Pid {
    Pid::from_raw(server.gpus()[gpu as usize].worker_pid.cast_signed()).unwrap()
}

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
    client.post(StreamCreate { stream: 1, flags: 0, priority: 0, reserved: 0 }, &[]);
    client.post(StreamCreate { stream: 2, flags: 1, priority: -1, reserved: 0 }, &[]);
    client.post(StreamCreate { stream: 3, flags: 1, priority: 0, reserved: 0 }, &[]);
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
    program.record(2, 1);
    program.record(3, 2);
    let recorded = Instant::now();
    program.client.settle().unwrap();
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
        program.record(event, 2);
        program.client.ask(StreamSynchronize { stream: 2, reserved: 0 }).unwrap();
        let same = program.milliseconds(1, 2);
        assert!((same - between).abs() < 0.1, "{same} ms, once {between} ms");
        let (since, told) = (recorded.elapsed().as_secs_f32() * 1e3, program.milliseconds(2, event));
        assert!((told - since).abs() < 20.0 + since / 4.0, "{told} ms, {since} ms by the clock");
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
    let (here, elsewhere) = busy.gpus(&server);
    let data = other.client.allocate(0, 2 * MIB).unwrap();
    other.client.add_step(data, 10, 0);
    other.client.settle().unwrap();
    other.move_to(&server, here).unwrap();
    std::thread::sleep(STAY);
    busy.spin();
    eventually("it has the GPU", || server.listed("busy").state == "active");
    other.client.add_step(data, 10, 0);
    assert_eq!(other.client.words(data, 2), [6, 6]);
    assert_eq!((busy.gpu(&server), other.gpu(&server)), (here, elsewhere));
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
    let server = start();
    let mut programs: Vec<_> = (0..5).map(|at| Program::start(&server, &format!("f{at}"))).collect();
    let names: Vec<_> = programs.iter().map(|program| program.name.clone()).collect();
    std::thread::scope(|scope| {
        let working: Vec<_> = programs
            .iter_mut()
            .enumerate()
            .map(|(number, Program { client, .. })| {
                scope.spawn(move || {
                    let data = client.allocate(0, 16 * MIB).unwrap();
                    client.post(StreamCreate { stream: 1, flags: 1, priority: 0, reserved: 0 }, &[]);
                    client.post(EventCreate { event: 1, flags: 0 }, &[]);
                    for round in 1..=ROUNDS {
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
        }
    });
    let moved = |event: &Event| matches!(&event.what, Some(What::Moved(it)) if it.why == "asked");
    let moves = server.events().iter().filter(|event| moved(event)).count();
    assert!(moves > 10, "only {moves} moves");
    assert!(programs.iter().all(|program| program.client.channel.sticky_error().is_none()));
}

#[test]
fn variables_move_with_the_client() {
    let server = start();
    let mut program = Program::start(&server, "f");
    let (here, elsewhere) = program.gpus(&server);
    let client = &mut program.client;
    client.load_state();
    let out = client.allocate(0, 2 * MIB).unwrap();
    let (factor, counter) =
        (client.variable(STATE, "factor").unwrap().0, client.variable(STATE, "counter").unwrap().0);
    // A graph that counts, and one that sets the factor.
    let mut records = Vec::new();
    record(&mut records, launch(STATE, 7, 1, 1, 8), &out.to_le_bytes());
    client.post(GraphAppend { graph: 1, reserved: 0 }, bytemuck::cast_slice(&records));
    client.ask(GraphInstantiate { graph: 1, reserved: 0, flags: 0 }).unwrap();
    let mut records = Vec::new();
    let fill = Fill {
        address: factor,
        width: 1,
        height: 1,
        element_bytes: 4,
        stream: 7,
        value: 11,
        ..Fill::default()
    };
    record(&mut records, fill, &[]);
    client.post(GraphAppend { graph: 2, reserved: 0 }, bytemuck::cast_slice(&records));
    client.ask(GraphInstantiate { graph: 2, reserved: 0, flags: 0 }).unwrap();
    // The image whose variable is only read is shared, until it is asked for.
    let data = client.allocate(8 * MIB, 2 * MIB).unwrap();
    client.add_step(data, 1, 0);
    let step = client.variable(1, "step").unwrap().0;
    client.upload(step, &100_u32.to_le_bytes());
    let (mut ticks, mut added) = (0, 3);
    for (gpu, scale) in [(elsewhere, 2), (here, 3), (elsewhere, 4)] {
        let client = &mut program.client;
        client.upload(factor, &u32::to_le_bytes(scale));
        client.tick(out, 0);
        ticks += 1;
        assert_eq!(client.words(out, 1), [ticks * scale]);
        program.move_to(&server, gpu).unwrap();
        assert_eq!(program.gpu(&server), gpu);
        let client = &mut program.client;
        client.tick(out, 0);
        ticks += 1;
        assert_eq!(client.words(out, 1), [ticks * scale], "counter and factor have come along");
        assert_eq!((client.words(factor, 1), client.words(counter, 1)), (vec![scale], vec![ticks]));
        assert_eq!(client.managed_variable("ticks"), (100 + ticks).to_le_bytes());
        assert_eq!(client.managed_variable("latest"), out.to_le_bytes());
        client.post(GraphLaunch { graph: 1, stream: 0 }, &[]);
        ticks += 1;
        assert_eq!(client.words(out, 1), [ticks * scale]);
        client.post(GraphLaunch { graph: 2, stream: 0 }, &[]);
        client.tick(out, 0);
        ticks += 1;
        assert_eq!(client.words(out, 1), [ticks * 11]);
        client.add_step(data, 1, 0);
        added += 100;
        assert_eq!(client.words(data, 1), [added]);
        assert_eq!(client.variable(STATE, "counter").unwrap().0, counter);
    }
}

#[test]
fn a_client_whose_variables_only_the_driver_can_place_stays_and_the_log_says_which() {
    let server = start();
    let mut program = Program::start(&server, "f");
    let (here, elsewhere) = program.gpus(&server);
    let mut wide = VariableSource::of(".nv.global", "wide", 4096, 0);
    wide.align = 4096;
    let kernel = KernelSource {
        name: "kernel".to_owned(),
        parameters: Vec::new(),
        block_bytes: 0,
        shared_bytes: 0,
        registers: 8,
    };
    let source = CubinSource { kernels: vec![kernel], variables: vec![wide], ..CubinSource::default() };
    program.client.load_image(2, &synthetic::cubin(&source)).unwrap();
    program.client.variable(2, "wide").unwrap();
    let stays = program.move_to(&server, elsewhere).unwrap_err();
    assert!(stays.message().contains("variables of an image"), "{stays}");
    assert_eq!((program.gpu(&server), server.listed("f").fixed_images), (here, 1));
    assert!(server.said("wide") && server.said("aligned to 4096 bytes"));
    program.client.post(ImageUnload { image: 2, reserved: 0 }, &[]);
    program.client.settle().unwrap();
    program.move_to(&server, elsewhere).unwrap();
    assert_eq!((program.gpu(&server), server.listed("f").fixed_images), (elsewhere, 0));
}

#[test]
fn a_client_with_an_array_stays_and_is_counted() {
    let server = start();
    let mut program = Program::start(&server, "f");
    let (here, elsewhere) = program.gpus(&server);
    let array =
        ArrayCreate { array: 3, format: 1, channels: 1, width: 1024, height: 1024, ..Default::default() };
    program.client.ask(array).unwrap();
    let stays = program.move_to(&server, elsewhere).unwrap_err();
    assert!(stays.message().contains("it has arrays"), "{stays}");
    let listed = server.listed("f");
    assert_eq!((program.gpu(&server), listed.arrays, listed.array_bytes), (here, 1, MIB));
    program.client.post(ArrayDestroy { array: 3, reserved: 0 }, &[]);
    program.client.settle().unwrap();
    program.move_to(&server, elsewhere).unwrap();
    assert_eq!((program.gpu(&server), server.listed("f").arrays), (elsewhere, 0));
}

#[test]
fn variables_of_an_image_without_kernels_are_the_client_s_memory() {
    let server = start();
    let mut program = Program::start(&server, "f");
    let (first, second) = program.gpus(&server);
    let client = &mut program.client;
    let variables = vec![
        VariableSource::of(".nv.global.init", "constants", 112, 7),
        VariableSource::of(".nv.global", "buffer", 3 * MIB, 0),
    ];
    let image = synthetic::cubin(&CubinSource { variables, ..CubinSource::default() });
    client.load_image(2, &image).unwrap();
    let address_of = |client: &mut Client, name: &str| {
        let answer = client.ask_all(ImageGlobal { image: 2, reserved: 0 }, name.as_bytes());
        answer.map(|(reply, _)| (reply.address, reply.bytes))
    };
    assert_eq!(address_of(client, "nothing"), Err(CudaError::NOT_FOUND));
    let (constants, bytes) = address_of(client, "constants").unwrap();
    assert_eq!((bytes, client.download(constants, 112)), (112, vec![7; 112]));
    let (buffer, bytes) = address_of(client, "buffer").unwrap();
    assert_eq!(bytes, 3 * MIB);
    assert!(client.download(buffer, bytes as usize).iter().all(|&byte| byte == 0));
    assert!(client.arena.contains(constants, 112) && client.arena.contains(buffer, bytes));
    client.post(MemoryFree { address: constants / (2 * MIB) * (2 * MIB) }, &[]);
    assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE), "it is no allocation");
    for (gpu, byte) in [(second, 1), (first, 2), (second, 3)] {
        program.client.upload(buffer + 2 * MIB, &[byte; 100]);
        program.move_to(&server, gpu).unwrap();
        assert_eq!(program.gpu(&server), gpu);
        let client = &mut program.client;
        assert_eq!(client.download(constants, 112), [7; 112]);
        assert_eq!(client.download(buffer + 2 * MIB, 101), [vec![byte; 100], vec![0]].concat());
        assert_eq!(address_of(client, "buffer"), Ok((buffer, 3 * MIB)));
    }
    let client = &mut program.client;
    client.post(ImageUnload { image: 2, reserved: 0 }, &[]);
    client.copy(client.host.address, constants, 4, 0);
    assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE), "gone with its image");
    assert_eq!(server.listed("f").allocated_bytes, 0);
    client.load_image(2, &image).unwrap();
    assert_eq!(address_of(client, "constants").unwrap().0, constants);
    assert_eq!(client.download(buffer + 2 * MIB, 100), [0; 100]);
}

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
