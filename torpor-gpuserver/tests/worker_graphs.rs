//! Graphs.

mod worker_support;

use torpor_proto::command::{
    Copy, EventCreate, EventRecord, Fill, GraphAppend, GraphBody, GraphBodyEnd, GraphCondition,
    GraphConditional, GraphDependencies, GraphDestroy, GraphEmpty, GraphInstantiate, GraphLaunch,
    GraphUpdate, StreamCreate, StreamSynchronize, StreamWaitEvent,
};
use torpor_proto::error::CudaError;
use worker_support::kernels::{add_step_parameters, launch, record};
use worker_support::{Client, Worker};

const MIB: u64 = 1 << 20;

/// What the next node of a graph comes behind, alone.
fn behind(words: &mut Vec<u64>, nodes: &[u64]) {
    let pairs: Vec<[u64; 2]> = nodes.iter().map(|&node| [node, 0]).collect();
    record(words, GraphDependencies::default(), bytemuck::cast_slice(&pairs));
}

/// A graph: add, and a fill beside it; behind both a copy.
fn graph_records(address: u64) -> Vec<u64> {
    let parameters = add_step_parameters(address, 16);
    let mut words = Vec::new();
    record(&mut words, launch(1, 1, 1, 16, parameters.len()), &parameters);
    behind(&mut words, &[]);
    let fill = Fill {
        address: address + 4096,
        width: 16,
        height: 1,
        value: 7,
        element_bytes: 4,
        stream: 2,
        ..Fill::default()
    };
    record(&mut words, fill, &[]);
    behind(&mut words, &[0, 1]);
    let copy = Copy { destination: address + 4096 + 32, source: address, bytes: 32, stream: 1, reserved: 0 };
    record(&mut words, copy, &[]);
    words
}

fn append(client: &mut Client, graph: u32, words: &[u64]) {
    // In pieces that cut records anywhere.
    for piece in words.chunks(5) {
        client.post(GraphAppend { graph, reserved: 0 }, bytemuck::cast_slice(piece));
    }
}

#[test]
fn a_graph_is_replayed_and_launched_again_and_again() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    client.load_kernels();
    let address = client.allocate(0, 2 * MIB).unwrap();
    for stream in [1, 2] {
        client.post(StreamCreate { stream, flags: 1, ..StreamCreate::default() }, &[]);
    }
    append(&mut client, 5, &graph_records(address));
    client.post(GraphLaunch { graph: 5, stream: 1 }, &[]);
    assert_eq!(client.settle(), Err(CudaError::INVALID_HANDLE), "not instantiated yet");
    client.ask(GraphInstantiate { graph: 5, reserved: 0, flags: 0 }).unwrap();
    assert_eq!(client.words(address, 1), [0], "nothing runs while it is recorded");
    for _ in 0..3 {
        client.post(GraphLaunch { graph: 5, stream: 1 }, &[]);
    }
    client.ask(StreamSynchronize { stream: 1, reserved: 0 }).unwrap();
    client.settle().unwrap();
    assert_eq!(client.words(address, 17), [vec![9; 16], vec![0]].concat());
    assert_eq!(client.words(address + 4096, 16), [vec![7; 8], vec![9; 8]].concat());
    client.post(GraphLaunch { graph: 5, stream: 0 }, &[]);
    client.post(GraphDestroy { graph: 5, reserved: 0 }, &[]);
    client.settle().unwrap();
    assert_eq!(client.words(address, 1), [12]);
    client.post(GraphLaunch { graph: 5, stream: 0 }, &[]);
    assert_eq!(client.settle(), Err(CudaError::INVALID_HANDLE));
}

#[test]
fn a_graph_is_updated_before_its_next_launch() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    client.load_kernels();
    let address = client.allocate(0, 2 * MIB).unwrap();
    let adds = |count: u32, nodes: usize| {
        let parameters = add_step_parameters(address, count);
        let mut words = Vec::new();
        (0..nodes).for_each(|_| record(&mut words, launch(1, 1, 1, 64, parameters.len()), &parameters));
        words
    };
    append(&mut client, 5, &adds(8, 2));
    client.ask(GraphInstantiate { graph: 5, reserved: 0, flags: 0 }).unwrap();
    client.post(GraphLaunch { graph: 5, stream: 0 }, &[]);
    // What is appended counts from the update on; then the same nodes with other parameters, then other nodes.
    append(&mut client, 5, &adds(16, 2));
    client.post(GraphLaunch { graph: 5, stream: 0 }, &[]);
    client.settle().unwrap();
    assert_eq!(client.words(address, 9), [vec![12; 8], vec![0]].concat());
    client.post(GraphUpdate { graph: 5, reserved: 0 }, &[]);
    client.post(GraphLaunch { graph: 5, stream: 0 }, &[]);
    client.settle().unwrap();
    assert_eq!(client.words(address, 17), [vec![18; 8], vec![6; 8], vec![0]].concat());
    append(&mut client, 5, &adds(32, 3));
    client.post(GraphUpdate { graph: 5, reserved: 0 }, &[]);
    client.post(GraphLaunch { graph: 5, stream: 0 }, &[]);
    client.settle().unwrap();
    assert_eq!(client.words(address + 64, 17), [vec![9; 16], vec![0]].concat());
    client.post(GraphUpdate { graph: 5, reserved: 0 }, &[]);
    client.post(GraphLaunch { graph: 5, stream: 0 }, &[]);
    client.settle().unwrap();
    assert_eq!(client.words(address + 64, 1), [9], "nothing was appended, so it does nothing");
}

#[test]
fn graphs_that_cannot_be_are_refused_and_leave_nothing_capturing() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    client.load_kernels();
    let address = client.allocate(0, 2 * MIB).unwrap();
    client.post(EventCreate { event: 1, flags: 0 }, &[]);
    let good = graph_records(address);
    let parameters = add_step_parameters(address, 16);
    let mut later = Vec::new();
    behind(&mut later, &[0]);
    record(&mut later, launch(1, 1, 1, 16, parameters.len()), &parameters);
    let mut no_pairs = Vec::new();
    record(&mut no_pairs, GraphDependencies::default(), &[0; 24]);
    let mut inner_event = Vec::new();
    record(&mut inner_event, StreamWaitEvent { stream: 1, event: 1, ..StreamWaitEvent::default() }, &[]);
    let mut no_event = Vec::new();
    record(&mut no_event, EventRecord { event: 9, flags: 1, ..EventRecord::default() }, &[]);
    let mut unconditional = Vec::new();
    record(&mut unconditional, GraphConditional { condition: 7, kind: 0, bodies: 1 }, &[]);
    let mut many_bodies = Vec::new();
    record(&mut many_bodies, GraphCondition { condition: 7, value: 0, flags: 0 }, &[]);
    record(&mut many_bodies, GraphConditional { condition: 7, kind: 2, bodies: u32::MAX }, &[]);
    let mut no_body = Vec::new();
    record(&mut no_body, GraphBody::default(), &[]);
    let mut endless_body = Vec::new();
    record(&mut endless_body, GraphCondition { condition: 7, value: 0, flags: 0 }, &[]);
    record(&mut endless_body, GraphConditional { condition: 7, kind: 0, bodies: 1 }, &[]);
    record(&mut endless_body, GraphBody::default(), &[]);
    let mut ends_too_often = Vec::new();
    record(&mut ends_too_often, GraphBodyEnd::default(), &[]);
    let mut nested = Vec::new();
    record(&mut nested, StreamCreate::default(), &[]);
    let mut outside = Vec::new();
    record(
        &mut outside,
        Copy { destination: 0x1000, source: address, bytes: 8, stream: 1, reserved: 0 },
        &[],
    );
    let mut unknown = Vec::new();
    record(&mut unknown, launch(99, 1, 1, 1, 0), &[]);
    for (name, words, error) in [
        ("cut", &good[..good.len() - 1], Some(CudaError::INVALID_VALUE)),
        ("zero", &[0][..], Some(CudaError::INVALID_VALUE)),
        ("huge", &[u64::MAX][..], Some(CudaError::INVALID_VALUE)),
        ("nested", &nested, Some(CudaError::INVALID_VALUE)),
        ("outside", &outside, Some(CudaError::INVALID_VALUE)),
        ("unknown", &unknown, Some(CudaError::INVALID_HANDLE)),
        ("behind a later node", &later, Some(CudaError::INVALID_VALUE)),
        ("behind half a node", &no_pairs, Some(CudaError::INVALID_VALUE)),
        ("an event of its own", &inner_event, Some(CudaError::INVALID_VALUE)),
        ("no event", &no_event, Some(CudaError::INVALID_HANDLE)),
        ("no condition", &unconditional, Some(CudaError::INVALID_VALUE)),
        ("many bodies", &many_bodies, Some(CudaError::INVALID_VALUE)),
        ("no body", &no_body, Some(CudaError::INVALID_VALUE)),
        ("endless body", &endless_body, Some(CudaError::INVALID_VALUE)),
        ("ends too often", &ends_too_often, Some(CudaError::INVALID_VALUE)),
    ] {
        append(&mut client, 9, words);
        let refused = client.ask(GraphInstantiate { graph: 9, reserved: 0, flags: 0 });
        assert!(refused.is_err() && error.is_none_or(|error| refused == Err(error)), "{name}: {refused:?}");
        client.post(GraphDestroy { graph: 9, reserved: 0 }, &[]);
        client.settle().unwrap();
        client.add_step(address, 1, 0);
        client.settle().unwrap();
    }
    assert_eq!(client.words(address, 1), [45], "only the launches outside");
    for command in [4, 8] {
        append(&mut client, 9, &good);
        let refused = client.ask(GraphInstantiate { graph: 9, reserved: 0, flags: command });
        assert_eq!(refused.is_err(), command == 4, "kernels get no handles of graphs");
        client.post(GraphDestroy { graph: 9, reserved: 0 }, &[]);
    }
    client.post(GraphEmpty {}, &[]);
    assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE), "no graph is being built");
    client.post(GraphUpdate { graph: 9, reserved: 0 }, &[]);
    assert_eq!(client.settle(), Err(CudaError::INVALID_HANDLE), "there is no such graph");
    assert_eq!(
        client.ask(GraphInstantiate { graph: 3, reserved: 0, flags: 0 }),
        Err(CudaError::INVALID_HANDLE)
    );
    client.post(GraphAppend { graph: 1 << 16, reserved: 0 }, &[]);
    assert_eq!(client.settle(), Err(CudaError::OUT_OF_MEMORY));
}
