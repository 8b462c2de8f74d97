//! A fault costs its own function alone: clients that are idle and saved go on at the next worker, and do not notice.

mod served;
mod server_support;
mod worker_support;

use served::program::{Program, kill_worker, start, start_with};
use server_support::follower::Follower;
use server_support::server::{Server, eventually};
use std::time::{Duration, Instant};
use torpor_proto::command::{
    ContextSynchronize, EventCreate, EventRecord, EventSynchronize, GraphAppend, GraphInstantiate,
    GraphLaunch, HostLock, Ping, StreamCreate,
};
use torpor_proto::control::admin::{LoadFunctionRequest, ReportStoreRequest};
use torpor_proto::control::event::{Event, event::What};
use torpor_proto::error::CudaError;
use worker_support::kernels::{add_step_parameters, launch, record};

const MIB: u64 = 1 << 20;
const STAGING_BYTES: u64 = 4 * MIB;

/// An address that is nobody's.
const NOWHERE: u64 = 0x1000;

/// Whether it is told that a program goes on at the next worker after its own died.
fn goes_on(server: &Server, program: &Program) -> bool {
    let is_it = |event: &Event| matches!(&event.what, Some(What::Moved(it)) if it.why == "lost");
    server.events().iter().any(|event| event.client == program.client.id && is_it(event))
}

/// Ends the GPU's worker by what a program does. Returns what this one sees.
fn fault(server: &Server, program: &mut Program) -> Option<CudaError> {
    let restarts = server.gpus()[0].worker_restarts;
    program.client.launch_at(3, NOWHERE, 0);
    eventually("the culprit is told", || program.error().is_some());
    eventually("the worker has ended", || server.gpus()[0].worker_restarts > restarts);
    program.error()
}

/// What the host store has.
fn used_mib(server: &Server) -> u64 {
    server.admin(async |mut api| api.report_store(ReportStoreRequest {}).await).unwrap().used_bytes / MIB
}

fn wait_for_restarts(server: &Server, restarts: u64) {
    eventually("another worker is there", || {
        let gpu = &server.gpus()[0];
        gpu.worker_restarts == restarts && gpu.state == "ready"
    });
}

#[test]
fn everything_an_evicted_client_has_survives_its_worker() {
    let (server, _settings) = start(1, "");
    let mut program = Program::start(&server, "f");
    let client = &mut program.client;
    let data = client.allocate(0, 4 * MIB).unwrap();
    let pattern: Vec<u8> = (0..MIB).map(|at| (at * 7 / 3) as u8).collect();
    client.upload(data + 2 * MIB, &pattern);
    let pinned = client.host.address + STAGING_BYTES;
    client.ask(HostLock { address: pinned, bytes: MIB }).unwrap();
    client.write_host(STAGING_BYTES, &pattern);
    client.post(StreamCreate { stream: 1, flags: 1, priority: 0, context: 0 }, &[]);
    client.post(EventCreate { event: 1, flags: 0 }, &[]);
    client.post(EventRecord { event: 1, stream: 1, ..EventRecord::default() }, &[]);
    let parameters = add_step_parameters(data, 100);
    let mut records = Vec::new();
    record(&mut records, launch(1, 7, 2, 64, parameters.len()), &parameters);
    client.post(GraphAppend { graph: 1, reserved: 0 }, bytemuck::cast_slice(&records));
    client.ask(GraphInstantiate { graph: 1, reserved: 0, flags: 0 }).unwrap();
    client.load_state();
    client.tick(data + MIB, 1);
    client.settle().unwrap();
    for round in 1..=3 {
        program.unload_and_cover(&server);
        kill_worker(&server, 0);
        let client = &mut program.client;
        // What it posts meanwhile waits.
        client.add_step(data, 100, 1);
        client.post(GraphLaunch { graph: 1, stream: 1 }, &[]);
        client.tick(data + MIB, 1);
        client.settle().unwrap();
        assert_eq!(client.words(data, 101), [vec![6 * round; 100], vec![0]].concat());
        assert_eq!(client.words(data + MIB, 1), [5 * (round + 1)]);
        assert_eq!(client.download(data + 2 * MIB, pattern.len()), pattern);
        client.ask(EventSynchronize { event: 1, reserved: 0 }).unwrap();
        client.copy(data + 3 * MIB, pinned, MIB, 1);
        client.settle().unwrap();
        assert_eq!(client.download(data + 3 * MIB, pattern.len()), pattern);
        assert_eq!(program.error(), None);
        assert_eq!(server.gpus()[0].worker_restarts, u64::from(round));
    }
}

#[test]
fn a_fault_ends_its_own_function_and_the_idle_ones_do_not_notice() {
    let (server, _settings) = start(1, "");
    let (mut faulty, mut idle) = (Program::start(&server, "faulty"), Program::start(&server, "idle"));
    let mut fresh = Program::start(&server, "fresh");
    let data = idle.client.allocate(0, 2 * MIB).unwrap();
    idle.client.add_step(data, 10, 0);
    idle.client.settle().unwrap();
    idle.unload_and_cover(&server);
    fresh.wait_until_covered(&server);
    assert_eq!(fault(&server, &mut faulty), Some(CudaError::ILLEGAL_ADDRESS));
    idle.client.add_step(data, 10, 0);
    assert_eq!(idle.client.words(data, 11), [vec![6; 10], vec![0]].concat());
    fresh.client.ask(Ping {}).unwrap();
    assert_eq!((idle.error(), fresh.error()), (None, None));
    assert_eq!(server.gpus()[0].worker_restarts, 1, "the culprit is not served again");
    assert_eq!(server.listed("faulty").state, "failed");
    eventually("it is told who goes on", || goes_on(&server, &idle) && goes_on(&server, &fresh));
    assert!(!goes_on(&server, &faulty));
}

#[test]
fn a_kernel_that_never_ends_costs_its_own_function_alone() {
    let (server, _settings) = start(1, "[functions.endless]\nkernel_timeout = '1s'");
    let (mut endless, mut idle) = (Program::start(&server, "endless"), Program::start(&server, "idle"));
    let data = idle.client.allocate(0, 2 * MIB).unwrap();
    idle.client.add_step(data, 10, 0);
    idle.client.settle().unwrap();
    idle.unload_and_cover(&server);
    endless.client.spin();
    let waiting = endless.client.ask_later(ContextSynchronize::ALL, &[]);
    assert_eq!(endless.client.await_slot(waiting), Err(CudaError::LAUNCH_TIMEOUT));
    eventually("the worker has ended", || server.gpus()[0].worker_restarts == 1);
    assert_eq!(idle.client.words(data, 1), [3]);
    assert_eq!((endless.error(), idle.error()), (Some(CudaError::LAUNCH_TIMEOUT), None));
}

#[test]
fn who_was_running_is_told_and_never_made_again() {
    let (server, _settings) = start(1, "");
    let (mut busy, idle) = (Program::start(&server, "busy"), Program::start(&server, "idle"));
    busy.wait_until_covered(&server);
    idle.wait_until_covered(&server);
    busy.client.spin();
    busy.client.ask(Ping {}).unwrap();
    kill_worker(&server, 0);
    eventually("it is told", || busy.error() == Some(CudaError::LAUNCH_FAILED));
    wait_for_restarts(&server, 1);
    idle.wait_until_covered(&server);
    assert_eq!(idle.error(), None);
    assert!(!goes_on(&server, &busy));
}

#[test]
fn a_client_whose_memory_is_on_the_gpu_survives_once_it_is_saved_and_is_saved_again_after_each_request() {
    let (server, _settings) = start(1, "");
    let mut program = Program::start(&server, "f");
    let data = program.client.allocate(0, 8 * MIB).unwrap();
    for chunk in 0..4 {
        program.client.upload(data + chunk * 2 * MIB, &[chunk as u8 + 1; 1000]);
    }
    for round in 1..=2 {
        program.client.add_step(data + 4 * MIB, 10, 0);
        program.client.settle().unwrap();
        program.wait_until_covered(&server);
        assert_eq!(server.listed("f").resident_bytes, 8 * MIB, "it is still there");
        kill_worker(&server, 0);
        let first = u32::from_le_bytes([3; 4]) + 3 * round;
        assert_eq!(program.client.words(data + 4 * MIB, 11), [vec![first; 10], vec![0x0303_0303]].concat());
        assert_eq!(program.client.download(data + 6 * MIB, 1001), [[4; 1000].as_slice(), &[0]].concat());
    }
    assert_eq!(program.error(), None);
    // All of it is saved, so it leaves without a copy.
    program.wait_until_covered(&server);
    assert_eq!(Follower::new(&server).evict(&server, "f").copied_back_bytes, 0);
}

#[test]
fn an_operator_reads_why_a_client_was_lost() {
    let (server, _settings) = start(1, "");
    let mut program = Program::start(&server, "f");
    program.wait_until_covered(&server);
    program.client.spin();
    program.client.ask(EventSynchronize { event: 99, reserved: 0 }).unwrap_err();
    kill_worker(&server, 0);
    eventually("it is told", || program.error().is_some());
    eventually("the log says why", || {
        server.times_said("client lost with its worker: it had been told of an error since it was saved") == 1
    });
}

#[test]
fn who_would_be_lost_gives_its_turn_up_early_and_is_saved() {
    let (server, _settings) = start(1, "[scheduler]\nlinger = '60s'");
    let mut program = Program::start(&server, "f");
    let data = program.client.allocate(0, 2 * MIB).unwrap();
    program.client.add_step(data, 1, 0);
    program.client.settle().unwrap();
    // Whatever it was saved as until now is void.
    program.client.ask(EventSynchronize { event: 99, reserved: 0 }).unwrap_err();
    program.wait_until_covered(&server);
}

#[test]
fn equal_memory_that_is_kept_once_survives_for_all_whose_it_is() {
    let (server, _settings) = start(1, "");
    let mut programs: Vec<_> = (0..3).map(|number| Program::start(&server, &format!("f{number}"))).collect();
    for program in &mut programs {
        let data = program.client.allocate(0, 4 * MIB).unwrap();
        program.client.upload(data, &vec![5; MIB as usize]);
        program.client.upload(data + 2 * MIB, &[program.client.id as u8; 100]);
    }
    programs.iter().for_each(|program| program.unload_and_cover(&server));
    kill_worker(&server, 0);
    for program in &mut programs {
        let (data, id) = (program.client.arena.address, program.client.id as u8);
        assert_eq!(program.client.download(data, MIB as usize), vec![5; MIB as usize]);
        assert_eq!(program.client.download(data + 2 * MIB, 101), [[id; 100].as_slice(), &[0]].concat());
        assert_eq!(program.error(), None);
    }
}

#[test]
fn who_has_waited_for_long_enough_is_saved_beside_another_one_s_work() {
    let (server, _settings) = start(1, "");
    let follower = Follower::new(&server);
    let (mut program, mut busy) = (Program::start(&server, "f"), Program::start(&server, "busy"));
    busy.client.spin();
    busy.client.ask(Ping {}).unwrap();
    let data = program.client.allocate(0, 2 * MIB).unwrap();
    program.client.upload(data, &[7; 1000]);
    follower.until("it is saved", "f", |what| matches!(what, What::SavedAhead(_)));
    busy.client.stop_spinning();
    busy.client.settle().unwrap();
}

#[test]
fn what_requests_change_is_not_looked_for_equals_of_in_between() {
    let (server, _settings) = start(1, "");
    let follower = Follower::new(&server);
    let mut program = Program::start(&server, "f");
    let data = program.client.allocate(0, 4 * MIB).unwrap();
    let change = |client: &mut worker_support::Client| {
        client.add_step(data, 8, 0);
        client.add_step(data + 2 * MIB, 8, 0);
    };
    for times in 1..=2 {
        change(&mut program.client);
        program.client.settle().unwrap();
        let is_saved = |event: &&Event| matches!(event.what, Some(What::SavedAhead(_)));
        eventually("it is saved", || follower.heard().iter().filter(is_saved).count() >= times);
        if times == 1 {
            program.wait_until_covered(&server);
        }
    }
    // The next request comes just then. To find an equal would have made the state void.
    change(&mut program.client);
    kill_worker(&server, 0);
    assert_eq!(program.client.words(data, 8), [9; 8]);
    assert_eq!(program.error(), None);
}

#[test]
fn what_requests_change_is_not_looked_for_equals_of_at_the_next_worker_either() {
    // All comes from the host store.
    let (server, _settings) = start_with(2, "", &[("TORPOR_SIMGPU_PROFILE", "h200:peer_gbps=0")]);
    let mut program = Program::start(&server, "f");
    let data = program.client.allocate(0, 4 * MIB).unwrap();
    let used = || {
        let report = server.admin(async |mut api| api.report_store(ReportStoreRequest {}).await).unwrap();
        report.used_bytes / MIB
    };
    let change = |program: &mut Program| {
        program.client.add_step(data, 8, 0);
        program.client.add_step(data + 2 * MIB, 8, 0);
        program.client.settle().unwrap();
        program.wait_until_covered(&server);
    };
    change(&mut program);
    eventually("they are found to be equal", || used() == 2);
    for attempt in 2..10 {
        change(&mut program);
        let is_apart = used() == 4;
        let began = Instant::now();
        let to = 1 - server.listed("f").gpus[0];
        let request = LoadFunctionRequest { name: "f".to_owned(), gpu: Some(to) };
        server.admin(async |mut api| api.load_function(request).await).unwrap();
        for chunk in [data, data + 2 * MIB] {
            assert_eq!(program.client.words(chunk, 8), [3 * attempt; 8]);
        }
        program.wait_until_covered(&server);
        let is_still = used() == 4;
        // After a second of rest they are looked for, which a slow machine may give it.
        if is_apart && began.elapsed() < Duration::from_secs(1) {
            assert!(is_still, "they were looked for at once");
            break;
        }
    }
    assert_eq!(program.error(), None);
}

#[test]
fn a_client_that_ends_while_its_gpu_has_no_worker_leaves_nothing() {
    let (server, _settings) = start(1, "");
    let mut program = Program::start(&server, "f");
    let data = program.client.allocate(0, 2 * MIB).unwrap();
    program.client.upload(data, &[7; 1000]);
    program.unload_and_cover(&server);
    kill_worker(&server, 0);
    drop(program);
    eventually("it is gone", || server.clients().is_empty());
    wait_for_restarts(&server, 1);
    eventually("its memory is free", || used_mib(&server) == 0);
    let mut next = Program::start(&server, "f");
    let data = next.client.allocate(0, 2 * MIB).unwrap();
    next.client.add_step(data, 1, 0);
    assert_eq!(next.client.words(data, 1), [3]);
}

#[test]
fn a_client_that_is_to_move_while_its_gpu_has_no_worker_moves_afterwards() {
    let (server, _settings) = start(2, "");
    let mut program = Program::start(&server, "f");
    let data = program.client.allocate(0, 2 * MIB).unwrap();
    program.client.add_step(data, 10, 0);
    program.client.settle().unwrap();
    program.unload_and_cover(&server);
    let gpu = server.listed("f").gpus[0];
    kill_worker(&server, gpu);
    let request = LoadFunctionRequest { name: "f".to_owned(), gpu: Some(1 - gpu) };
    server.admin(async |mut api| api.load_function(request).await).unwrap();
    assert_eq!(server.listed("f").gpus, [1 - gpu]);
    program.client.add_step(data, 10, 0);
    assert_eq!(program.client.words(data, 1), [6]);
    assert_eq!(program.error(), None);
}

#[test]
fn without_covering_everybody_of_a_gpu_is_told() {
    let (server, _settings) = start(1, "[scheduler]\ncover = false");
    let (mut faulty, idle) = (Program::start(&server, "faulty"), Program::start(&server, "idle"));
    server.unload(&idle.name);
    fault(&server, &mut faulty);
    eventually("the neighbour is told", || idle.error() == Some(CudaError::ILLEGAL_ADDRESS));
    assert_eq!(server.listed("idle").covered_clients, 0);
}
