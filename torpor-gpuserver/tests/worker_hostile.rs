//! Clients that break the rules, die, or never end: the worker and the other clients never notice.

#[path = "server_support/eventually.rs"]
mod eventually;
mod worker_support;

use eventually::eventually;
use std::time::{Duration, Instant};
use torpor_proto::command::{
    Command, ContextSynchronize, EventCreate, Fill, GraphAppend, GraphDestroy, GraphInstantiate,
    MemoryAllocate, MemoryFree, Ping, StreamCreate, StreamQuery, StreamSynchronize,
};
use torpor_proto::control::worker::from_worker::Body as From;
use torpor_proto::error::CudaError;
use torpor_proto::ring::NO_SLOT;
use worker_support::contents::pattern;
use worker_support::{Client, Worker};

const MIB: u64 = 1 << 20;

fn await_fault(worker: &mut Worker, client: u64) -> String {
    match worker.hear() {
        From::ClientFault(fault) if fault.client == client => fault.reason,
        other => panic!("no fault: {other:?}"),
    }
}

#[test]
fn a_ring_with_nonsense_ends_its_client_alone() {
    let mut worker = Worker::start();
    let mut victim = worker.attach(0);
    let theirs = victim.allocate(0, 2 * MIB).unwrap();
    victim.upload(theirs, &pattern(4096, 1));
    type Break = fn(&mut Client);
    let breaks: [(&str, Break); 9] = [
        ("number", |client| assert!(client.push(999, NO_SLOT, &[], &[]))),
        ("number 0", |client| assert!(client.push(0, 0, &[0; 4], &[]))),
        ("slot", |client| assert!(client.push(Ping::OPCODE, 64, &[], &[]))),
        ("no slot", |client| assert!(client.push(Ping::OPCODE, NO_SLOT, &[], &[]))),
        ("a slot", |client| assert!(client.push(Fill::OPCODE, 3, Fill::default().words(), &[]))),
        ("short", |client| assert!(client.push(Fill::OPCODE, NO_SLOT, &[1], &[]))),
        ("zeroes", |client| {
            client.scribble(0);
            client.forge_tail(64);
        }),
        ("noise", |client| {
            client.scribble(0xa7);
            client.forge_tail(1000);
        }),
        ("counters", |client| client.forge_tail(u64::MAX)),
    ];
    for (name, break_it) in breaks {
        let mut client = worker.attach(1);
        client.allocate(0, 2 * MIB).unwrap();
        let waiting = 63;
        client.channel.slots[waiting].prepare();
        break_it(&mut client);
        torpor_proto::ring::wake_consumer(client.channel.ring());
        let reason = await_fault(&mut worker, client.id);
        assert!(!reason.is_empty(), "{name}");
        assert_eq!(client.channel.sticky_error(), Some(CudaError::ILLEGAL_STATE), "{name}");
        assert_eq!(
            client.await_slot(waiting as u16),
            Err(CudaError::ILLEGAL_STATE),
            "{name}: whoever waits is woken"
        );
        worker.detach(client.id);
    }
    assert_eq!(victim.download(theirs, 4096), pattern(4096, 1));
    assert_eq!(worker.usage().clients.len(), 1);
}

#[test]
fn a_busy_client_is_detached_and_freed_when_its_work_is_done() {
    let mut worker = Worker::start();
    for round in 0..3 {
        let mut client = worker.attach(0);
        let address = client.allocate(0, 64 * MIB).unwrap();
        let fill = Fill { address, width: MIB, height: 1, value: round, element_bytes: 1, ..Fill::default() };
        for _ in 0..10_000 {
            client.post(fill, &[]);
        }
        worker.detach(client.id);
        // A busy machine may not have done all that was posted.
        eventually("it is freed", || worker.usage().clients.is_empty());
    }
}

#[test]
fn memory_that_is_not_cleared_yet_cannot_be_read() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let path = log.path().to_str().unwrap();
    let checks = [("TORPOR_SIMGPU_CHECKS", "unordered"), ("TORPOR_SIMGPU_LOG", path)];
    let mut worker = Worker::start_with(&checks);
    let mut victim = worker.attach(0);
    let theirs = victim.allocate(0, 64 * MIB).unwrap();
    victim.upload(theirs + 63 * MIB, &pattern(MIB as usize, 5));
    victim.post(MemoryFree { address: theirs }, &[]);
    victim.settle().unwrap();
    let mut client = worker.attach(1);
    client.post(StreamCreate { stream: 1, flags: 1, ..StreamCreate::default() }, &[]);
    client.copy(client.host.address, client.host.address, 64, 1);
    client.settle().unwrap();
    // It does not wait for the answer.
    let address = client.arena.address;
    let allocated = client.ask_later(MemoryAllocate { address, bytes: 64 * MIB }, &[]);
    client.copy(client.host.address, address + 63 * MIB, MIB, 1);
    client.await_slot(allocated).unwrap();
    client.settle().unwrap();
    assert_eq!(client.read_host(0, MIB as usize), vec![0; MIB as usize]);
    let unordered = std::fs::read_to_string(log.path()).unwrap();
    assert!(!unordered.contains("check unordered"), "{unordered}");
}

#[test]
fn a_kernel_that_never_ends_keeps_only_its_own_memory() {
    let mut worker = Worker::start();
    let mut victim = worker.attach(1);
    let mut client = worker.attach(0);
    client.load_kernels();
    client.allocate(0, 2 * MIB).unwrap();
    client.spin();
    let waiting = client.ask_later(ContextSynchronize::ALL, &[]);
    assert_eq!(client.ask(StreamQuery::default()), Err(CudaError::NOT_READY));
    let theirs = victim.allocate(0, 2 * MIB).unwrap();
    victim.upload(theirs, &pattern(4096, 2));
    assert_eq!(victim.download(theirs, 4096), pattern(4096, 2));
    assert!(!client.is_answered(waiting));
    assert!(worker.usage().clients.iter().any(|usage| usage.client == client.id && usage.busy));
    worker.detach(client.id);
    // Its addresses are still taken; nobody else gets them.
    let (channel, channel_file) = torpor_proto::channel::MappedChannel::create().unwrap();
    let host = torpor_proto::mapping::create_sealed("host", worker_support::HOST_BYTES).unwrap();
    let mut again = Worker::attach_message(0);
    again.client = 99;
    let body = torpor_proto::control::worker::to_worker::Body::Attach(again);
    worker.tell(body, &[channel_file, host]);
    assert!(await_fault(&mut worker, 99).contains("in use"));
    drop(channel);
    assert_eq!(victim.download(theirs, 4096), pattern(4096, 2));
    // The kernel ends after all.
    client.stop_spinning();
    eventually("it is freed", || worker.usage().clients.len() == 1);
    let mut next = worker.attach(0);
    let address = next.allocate(0, 2 * MIB).unwrap();
    assert_eq!(next.download(address, 64), vec![0; 64]);
}

#[test]
fn more_work_than_the_driver_s_queue_holds_waits_in_the_ring() {
    let mut worker = Worker::start();
    for ends in [true, false] {
        let mut client = worker.attach(0);
        client.load_kernels();
        let address = client.allocate(0, 2 * MIB).unwrap();
        client.spin();
        for _ in 0..3000 {
            client.add_step(address, 1, 0);
        }
        let mut taken = || worker.usage().clients[0].commands;
        eventually("the queue fills", || taken() >= 256);
        // Time to take too many.
        std::thread::sleep(Duration::from_millis(200));
        let commands = taken();
        assert!(commands < 1024, "{commands} commands were taken while the GPU was stuck");
        if ends {
            client.stop_spinning();
            assert_eq!(client.words(address, 1), [9000]);
        }
        worker.detach(client.id);
        client.stop_spinning();
    }
}

#[test]
fn a_worker_ends_even_if_its_kernels_do_not() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    client.load_kernels();
    client.spin();
    client.ask(Ping {}).unwrap();
    assert_eq!(worker.end().code(), Some(0));
}

#[test]
fn a_lost_context_fails_every_client_and_ends_the_worker() {
    let mut worker = Worker::start();
    let victim = worker.attach(1);
    let mut client = worker.attach(0);
    client.load_kernels();
    client.launch_at(3, 0x10, 0);
    let slot = client.ask_later(ContextSynchronize::ALL, &[]);
    let error = client.await_slot(slot).unwrap_err();
    assert!(error.is_sticky(), "{error}");
    match worker.hear() {
        From::DeviceFault(fault) => assert_eq!(fault.code, error.0),
        other => panic!("no device fault: {other:?}"),
    }
    eventually("the other client learns of it", || victim.channel.sticky_error().is_some());
    assert_eq!(victim.channel.sticky_error(), Some(error));
    assert_eq!(client.channel.sticky_error(), Some(error));
    assert_ne!(worker.end().code(), Some(0));
}

#[test]
fn a_fault_that_nobody_waits_for_is_noticed() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    client.load_kernels();
    client.launch_at(3, 0x10, 0);
    assert!(matches!(worker.hear(), From::DeviceFault(_)));
    assert!(client.channel.sticky_error().is_some_and(CudaError::is_sticky));
}

#[test]
fn a_completion_slot_that_is_used_again_before_its_answer_ends_its_client() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    client.load_kernels();
    client.spin();
    for _ in 0..2 {
        assert!(client.push(StreamSynchronize::OPCODE, 5, StreamSynchronize::default().words(), &[]));
    }
    assert!(await_fault(&mut worker, client.id).contains("slot 5"));
    client.stop_spinning();
    worker.detach(client.id);
}

#[test]
fn graphs_that_are_destroyed_behind_endless_work_are_not_collected_without_end() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    client.load_kernels();
    let address = client.allocate(0, 2 * MIB).unwrap();
    let parameters = worker_support::kernels::add_step_parameters(address, 1);
    let mut records = Vec::new();
    let launch = worker_support::kernels::launch(1, 1, 1, 64, parameters.len());
    worker_support::kernels::record(&mut records, launch, &parameters);
    client.spin();
    let mut made = 0;
    for graph in 0..400 {
        client.post(GraphAppend { graph, reserved: 0 }, bytemuck::cast_slice(&records));
        let instantiated = client.ask_later(GraphInstantiate { graph, reserved: 0, flags: 0 }, &[]);
        client.post(GraphDestroy { graph, reserved: 0 }, &[]);
        let began = Instant::now();
        while !client.is_answered(instantiated) && began.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_micros(100));
        }
        if !client.is_answered(instantiated) {
            break;
        }
        made += 1;
    }
    assert!((128..400).contains(&made), "{made} graphs were kept");
    client.stop_spinning();
    client.settle().unwrap();
}

#[test]
fn numbers_beyond_the_most_there_may_be_are_refused() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    client.post(EventCreate { event: (1 << 16) - 1, flags: 0 }, &[]);
    client.settle().unwrap();
    client.post(EventCreate { event: 1 << 16, flags: 0 }, &[]);
    assert_eq!(client.settle(), Err(CudaError::OUT_OF_MEMORY));
}

#[test]
fn a_client_that_wakes_its_session_for_nothing_does_not_keep_it_awake() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    client.ask(Ping {}).unwrap();
    let (hostile, stop) = (client.second_channel(), std::sync::atomic::AtomicBool::new(false));
    let asleep = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                torpor_proto::ring::wake_consumer(hostile.ring());
            }
        });
        let looks = (0..200).map(|_| {
            std::thread::sleep(Duration::from_millis(5));
            worker.state_of_session(client.id)
        });
        let asleep = looks.filter(|&state| state == 'S').count();
        client.ask(Ping {}).unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        asleep
    });
    assert!(asleep > 140, "it sleeps in {asleep} of 200 looks");
}
