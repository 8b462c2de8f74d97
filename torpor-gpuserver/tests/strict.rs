//! Strict functions: each has a worker of its own, in which nobody else's memory is mapped, and nobody has its memory mapped.

mod enclosed;
mod served;
mod server_support;
mod worker_support;

use enclosed::{MIB, Program, enclosure, error_of, isolate, mapped, start};
use server_support::client::hello;
use server_support::process::{is_alive, signal};
use server_support::server::eventually;
use torpor_proto::PROTOCOL_VERSION;
use torpor_proto::control::admin::{
    Isolation, LoadFunctionRequest, ReportStoreRequest, UnloadFunctionRequest,
};
use torpor_proto::error::CudaError;

/// An address that is nobody's.
const NOWHERE: u64 = 0x1000;

/// The kernel that writes at an address.
const POKE: u32 = 3;

#[test]
fn nobody_s_kernel_reaches_a_strict_function_s_memory_nor_its_kernels_anybody_s() {
    let server = start(1, &[]);
    let mut victim = Program::strict(&server, "victim", 4 * MIB);
    let mut shared = Program::start(&server, "shared", 4 * MIB);
    let mut neighbour = Program::start(&server, "neighbour", 2 * MIB);
    // Those that share the GPU reach each other.
    neighbour.client.launch_at(POKE, shared.data, 0);
    neighbour.client.settle().unwrap();
    assert_ne!(shared.client.words(shared.data, 1), [5]);
    // What it did would be done again after each fault, when the memory that it reached is not there.
    drop(neighbour);

    for target in [victim.data, victim.client.host.address] {
        let mut hostile = Program::start(&server, "hostile", 2 * MIB);
        hostile.client.launch_at(POKE, target, 0);
        assert_eq!(error_of(&hostile.client), CudaError::ILLEGAL_ADDRESS);
        victim.request();
    }
    let mut innocent = Program::start(&server, "innocent", 2 * MIB);
    let mut other = Program::strict(&server, "other", 2 * MIB);
    for target in [innocent.data, innocent.client.host.address, other.data, other.client.host.address] {
        let mut hostile = Program::strict(&server, "strict-hostile", 2 * MIB);
        hostile.client.launch_at(POKE, target, 0);
        assert_eq!(error_of(&hostile.client), CudaError::ILLEGAL_ADDRESS);
        innocent.request();
        other.request();
        victim.request();
    }
}

#[test]
fn a_strict_function_s_fault_ends_its_own_worker_and_no_other() {
    let server = start(1, &["--cover", "false"]);
    let (mut a, mut b) = (Program::strict(&server, "a", 2 * MIB), Program::strict(&server, "b", 2 * MIB));
    let mut shared = Program::start(&server, "shared", 2 * MIB);
    let restarts = || (server.gpus()[0].worker_restarts, enclosure(&server, "b").unwrap().worker_restarts);
    a.client.launch_at(POKE, NOWHERE, 0);
    assert_eq!(error_of(&a.client), CudaError::ILLEGAL_ADDRESS);
    eventually("its next worker is there", || {
        let its = a.enclosure(&server).unwrap();
        its.worker_restarts == 1 && its.state == "ready"
    });
    shared.request();
    b.request();
    assert_eq!((restarts(), shared.error(), b.error()), ((0, 0), None, None));
    shared.client.launch_at(POKE, NOWHERE, 0);
    assert_eq!(error_of(&shared.client), CudaError::ILLEGAL_ADDRESS);
    b.request();
    assert_eq!(restarts().1, 0);
    // The function's next process is served.
    Program::start(&server, "a", 2 * MIB).request();
}

#[test]
fn a_strict_function_s_client_that_is_covered_goes_on_at_its_next_worker() {
    let server = start(1, &[]);
    let mut program = Program::strict(&server, "f", 4 * MIB);
    eventually("it is covered", || server.listed("f").covered_clients == 1);
    let worker = program.enclosure(&server).unwrap().worker_pid;
    signal(worker, rustix::process::Signal::KILL);
    program.request();
    assert_ne!(program.enclosure(&server).unwrap().worker_pid, worker);
    assert_eq!(server.gpus()[0].worker_restarts, 0);
}

#[test]
fn workers_of_strict_functions_map_no_slab_and_no_host_range_of_others() {
    let server = start(1, &[]);
    let names = ["a", "b"];
    let mut strict = names.map(|name| Program::strict(&server, name, 4 * MIB));
    let mut shared = Program::start(&server, "shared", 4 * MIB);
    let workers = || {
        let own = names.map(|name| enclosure(&server, name).unwrap().worker_pid);
        [own[0], own[1], server.gpus()[0].worker_pid]
    };
    for name in ["a", "b", "shared"] {
        let request = UnloadFunctionRequest { name: name.to_owned() };
        server.admin(async |mut api| api.unload_function(request).await).unwrap();
    }
    for file in ["torpor-store", "torpor-host", "torpor-channel"] {
        let maps = workers().map(|pid| mapped(pid, file));
        assert!(maps.iter().all(|maps| !maps.is_empty()), "{file}: {maps:?}");
        for (at, one) in maps.iter().enumerate() {
            assert!(maps[..at].iter().all(|other| one.is_disjoint(other)), "{file}: {maps:?}");
        }
    }
    // Equal contents are kept once for each of them.
    let report = server.admin(async |mut api| api.report_store(ReportStoreRequest {}).await).unwrap();
    assert_eq!(report.clients.len(), 3);
    assert!(report.used_bytes >= 3 * 2 * MIB, "{report:?}");
    strict.iter_mut().for_each(Program::request);
    shared.request();
}

#[test]
fn workers_that_have_too_little_memory_for_all_take_it_from_each_other() {
    let server = start(1, &[]);
    let mut programs = [
        Program::strict(&server, "a", 20 * MIB),
        Program::start(&server, "shared", 20 * MIB),
        Program::strict(&server, "b", 12 * MIB),
    ];
    for _ in 0..3 {
        programs.iter_mut().for_each(Program::request);
        let resident: u64 = server.functions().iter().map(|function| function.resident_bytes).sum();
        assert!(resident <= 32 * MIB, "{resident}");
    }
    for program in &programs {
        let swaps = server.listed(&program.name).swaps;
        assert!(swaps >= 2, "{}: {swaps}", program.name);
    }
}

#[test]
fn who_has_too_little_among_its_own_gets_memory_that_another_worker_used_since() {
    let server = start(1, &[]);
    let mut first = Program::start(&server, "first", 20 * MIB);
    let mut small = Program::start(&server, "small", 4 * MIB);
    let mut strict = Program::strict(&server, "strict", 20 * MIB);
    strict.request();
    // The small one has been idle for longer than the strict one, and has not enough.
    for _ in 0..2 {
        first.request();
        small.request();
        strict.request();
    }
    assert_eq!([&first, &small, &strict].map(Program::error), [None; 3]);
}

#[test]
fn who_is_active_in_one_worker_is_waited_for_by_another() {
    let server = start(1, &[]);
    for first_is_strict in [true, false] {
        let (active, waiting) = if first_is_strict { ("s1", "f1") } else { ("f2", "s2") };
        for name in ["s1", "s2"] {
            isolate(&server, name, Isolation::Strict);
        }
        let mut active = Program::start(&server, active, 20 * MIB);
        let mut waiting = Program::start(&server, waiting, 20 * MIB);
        active.request();
        active.client.spin();
        eventually("it has the GPU", || active.state(&server) == "active");
        waiting.client.add_step(waiting.data, 1, 0);
        eventually("it waits for memory", || server.listed(&waiting.name).state != "idle");
        assert_eq!(server.listed(&active.name).resident_bytes, 20 * MIB, "who is active does not leave");
        active.client.stop_spinning();
        assert_eq!(waiting.client.words(waiting.data, 2), [8, 5]);
        active.request();
    }
}

#[test]
fn host_memory_of_strict_functions_that_are_gone_is_there_for_the_next() {
    let server = start(1, &[]);
    let mut shared = Program::start(&server, "shared", 20 * MIB);
    // Each has a worker and slabs of its own for 10 s after its end, and the pool is not large enough for all of these.
    for number in 0..5 {
        let mut strict = Program::strict(&server, &format!("strict{number}"), 20 * MIB);
        for _ in 0..2 {
            shared.request();
            strict.request();
        }
    }
}

#[test]
fn two_that_both_want_each_other_s_memory_get_it_one_after_the_other() {
    let server = start(1, &[]);
    let mut programs = [Program::strict(&server, "a", 12 * MIB), Program::start(&server, "b", 12 * MIB)];
    for program in &mut programs {
        program.request();
        program.client.spin();
    }
    let wanted = programs.each_mut().map(|program| {
        let address = program.client.arena.address + 64 * MIB;
        let allocate = torpor_proto::command::MemoryAllocate { address, bytes: 14 * MIB };
        (address, program.client.ask_later(allocate, &[]))
    });
    std::thread::sleep(std::time::Duration::from_millis(50));
    programs.iter().for_each(|program| program.client.stop_spinning());
    for (program, (address, slot)) in programs.iter_mut().zip(wanted) {
        program.client.await_slot(slot).unwrap();
        program.client.add_step(address, 1, 0);
        assert_eq!(program.client.words(address, 1), [3]);
        program.request();
    }
}

#[test]
fn an_enclosure_ends_when_nobody_needs_it_and_leaves_nothing() {
    let server = start(1, &["--spare-worker", "false"]);
    let program = Program::strict(&server, "f", 4 * MIB);
    let worker = program.enclosure(&server).unwrap().worker_pid;
    let images = || std::fs::read_dir(server.directory.enclosures()).unwrap().count();
    assert!(is_alive(worker) && images() == 1);
    drop(program);
    eventually("its worker is gone", || enclosure(&server, "f").is_none() && !is_alive(worker));
    eventually("and what it kept", || images() == 0);
    // All of the memory is there for others again.
    Program::start(&server, "shared", 30 * MIB).request();
    Program::start(&server, "f", 4 * MIB).request();
}

#[test]
fn a_gpu_has_as_many_enclosures_as_it_may_and_the_refusal_names_them() {
    let server = start(1, &["--strict-per-gpu", "1"]);
    let first = Program::strict(&server, "first", 2 * MIB);
    isolate(&server, "second", Isolation::Strict);
    let refused = hello(&server.function("second"), PROTOCOL_VERSION).unwrap_err();
    for word in ["GPU 0", "first", "strict_per_gpu", "1 enclosure"] {
        assert!(refused.contains(word), "{refused}");
    }
    let mut another = Program::start(&server, "first", 2 * MIB);
    another.request();
    assert_eq!(first.enclosure(&server).unwrap().clients, 2);
}

#[test]
fn another_isolation_is_that_of_the_next_processes() {
    let server = start(1, &[]);
    let mut before = Program::start(&server, "f", 2 * MIB);
    isolate(&server, "f", Isolation::Strict);
    let mut after = Program::start(&server, "f", 2 * MIB);
    before.request();
    after.request();
    let listed = server.listed("f");
    assert_eq!((listed.clients, listed.strict_clients, listed.isolation()), (2, 1, Isolation::Strict));
    let secret = before.client.ask(torpor_proto::command::MemoryExport { home: before.data }).unwrap().secret;
    let home = after.client.arena.address + (1 << 32);
    let exporter = before.client.id;
    let import = torpor_proto::command::MemoryImport { home, bytes: 2 * MIB, secret, exporter };
    assert!(after.client.ask(import).is_err(), "nothing is shared between them");
}

#[test]
fn a_strict_function_begins_on_the_gpu_with_least_and_moves_when_it_is_asked_to() {
    let server = start(2, &[]);
    let shared = Program::start(&server, "shared", 2 * MIB);
    let mut program = Program::strict(&server, "f", 4 * MIB);
    let gpu_of = |name: &str| server.listed(name).gpus[0];
    let (began, busy) = (gpu_of("f"), gpu_of(&shared.name));
    assert_ne!(began, busy);
    let request = LoadFunctionRequest { name: "f".to_owned(), gpu: Some(busy) };
    server.admin(async |mut api| api.load_function(request).await).unwrap();
    program.request();
    assert_eq!(gpu_of("f"), busy);
}
