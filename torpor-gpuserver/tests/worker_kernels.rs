//! Images, kernels and graphs.

mod worker_support;

use torpor_proto::command::{
    Copy, CopyStrided, EventCreate, EventRecord, Fill, GraphAppend, GraphBody, GraphBodyEnd, GraphCondition,
    GraphConditional, GraphDependencies, GraphDestroy, GraphEmpty, GraphInstantiate, GraphLaunch,
    GraphUpdate, ImageKernels, ImageLoad, ImageLoadReply, ImageUnload, ImageUpload, KernelResolve,
    KernelSetAttribute, LaunchAttribute, LaunchShape, OccupancyBlocks, OccupancyClusterSize, OccupancyShared,
    Ping, StreamCreate, StreamSynchronize, StreamWaitEvent, TensorMapTiled,
};
use torpor_proto::control::worker::{Attach, Begin};
use torpor_proto::error::CudaError;
use worker_support::client::hash;
use worker_support::kernels::{PTX, STATE, add_step_parameters, image, launch, record};
use worker_support::{Client, Worker};

const MIB: u64 = 1 << 20;

#[test]
fn a_kernel_runs_for_two_clients_and_is_uploaded_once() {
    let mut worker = Worker::start();
    let mut first = worker.attach(0);
    first.load_kernels();
    assert_eq!(std::fs::read_dir(worker.images()).unwrap().count(), 1);
    let mut second = worker.attach(1);
    let contents = image();
    let load = ImageLoad { image: 1, reserved: 0, bytes: contents.len() as u64, hash: hash(&contents) };
    assert_eq!(second.ask(load), Ok(ImageLoadReply { known: 1 }));
    let parameters = second.resolve(1, 1, "add_step").unwrap();
    let expected: Vec<u8> = [0_u32, 8, 8, 4].iter().flat_map(|number| number.to_le_bytes()).collect();
    assert_eq!(parameters, expected, "offset and length of each parameter");
    for client in [&mut first, &mut second] {
        let address = client.allocate(0, 2 * MIB).unwrap();
        client.add_step(address, 1000, 0);
        client.add_step(address, 999, 0);
        client.settle().unwrap();
        let words = client.words(address, 1001);
        assert_eq!((words[0], words[998], words[999], words[1000]), (6, 6, 3, 0));
    }
    assert_eq!(first.resolve(1, 9, "no_such_kernel"), Err(CudaError::NOT_FOUND));
    assert_eq!(first.resolve(7, 9, "add_step"), Err(CudaError::INVALID_HANDLE));
    assert_eq!(first.resolve(1, 1, "add_step"), Err(CudaError::INVALID_VALUE), "the number is in use");
    assert_eq!(first.resolve(1, 1 << 20, "add_step"), Err(CudaError::OUT_OF_MEMORY));
    let (reply, names) = first.ask_all(ImageKernels { image: 1, first: 0 }, &[]).unwrap();
    assert_eq!((reply.total, reply.count), (6, 6));
    let mut names: Vec<_> = names.split(|&byte| byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [b"add_step".as_slice(), b"add_through", b"add_through_map", b"add_through_tables", b"poke", b"spin"]
    );
    let (reply, names) = first.ask_all(ImageKernels { image: 1, first: u32::MAX }, &[]).unwrap();
    assert_eq!((reply.total, reply.count, names.len()), (6, 0, 0));
    first.post(ImageUnload { image: 1, reserved: 0 }, &[]);
    first.settle().unwrap();
    first.add_step(first.arena.address, 10, 0);
    assert_eq!(first.settle(), Err(CudaError::INVALID_HANDLE), "its kernels go with an image");
    second.add_step(second.arena.address, 10, 0);
    second.settle().unwrap();
}

#[test]
fn another_worker_finds_the_image_in_its_file() {
    let mut worker = Worker::start();
    worker.attach(0).load_kernels();
    let name = std::fs::read_dir(worker.images()).unwrap().next().unwrap().unwrap();
    let mut other = Worker::start();
    std::fs::copy(name.path(), other.images().join(name.file_name())).unwrap();
    let mut client = other.attach(0);
    let contents = image();
    let load = ImageLoad { image: 1, reserved: 0, bytes: contents.len() as u64, hash: hash(&contents) };
    assert_eq!(client.ask(load), Ok(ImageLoadReply { known: 1 }));
    client.resolve(1, 1, "add_step").unwrap();
}

#[test]
fn images_that_nobody_uses_leave_the_gpu() {
    let unlike = |number: u32| [format!("{PTX}// {number}").as_bytes(), b"\0"].concat();
    let limit = 3 * unlike(0).len() as u64;
    let mut worker = Worker::start_told(&[], Begin { code_limit_bytes: limit, ..Worker::begin_message() });
    let mut client = worker.attach(0);
    client.load_kernels();
    let address = client.allocate(0, 2 * MIB).unwrap();
    for number in 0..10 {
        client.load_image(2, &unlike(number)).unwrap();
        client.resolve(2, 20, "add_step").unwrap();
        client.post(ImageUnload { image: 2, reserved: 0 }, &[]);
        client.settle().unwrap();
    }
    let loaded = worker.usage().code_bytes;
    assert!((1..=limit).contains(&loaded), "{loaded} bytes are loaded, {limit} may be");
    client.add_step(address, 1, 0);
    assert_eq!(client.words(address, 1), [3], "what is used stays");
}

#[test]
fn a_function_uses_as_much_code_as_it_may() {
    let unlike = |number: u32| [format!("{PTX}// {number}").as_bytes(), b"\0"].concat();
    let limit = unlike(0).len() as u64 * 5 / 2;
    let mut worker = Worker::start();
    let [mut client, mut other] = [0, 1].map(|slot| {
        let attach = Attach { image_limit_bytes: limit, ..Worker::attach_message(slot) };
        worker.attach_as(attach)
    });
    client.load_image(1, &unlike(1)).unwrap();
    client.load_image(2, &unlike(2)).unwrap();
    other.load_image(1, &unlike(1)).unwrap();
    assert_eq!(other.load_image(2, &unlike(3)), Err(CudaError::OUT_OF_MEMORY), "both are of one function");
    let used = worker.usage().clients[0].function_image_bytes;
    assert_eq!(used, 2 * unlike(0).len() as u64);
    client.post(ImageUnload { image: 2, reserved: 0 }, &[]);
    client.settle().unwrap();
    other.load_image(2, &unlike(3)).unwrap();
}

#[test]
fn bad_images_are_refused_before_the_driver_sees_them() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    let container =
        [0xba55_ed50_u32.to_le_bytes().to_vec(), vec![1, 0, 16, 0], 4096_u64.to_le_bytes().to_vec()];
    let truncated_container = container.concat();
    let truncated_elf = [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 100]].concat();
    for contents in [truncated_container.as_slice(), &truncated_elf, PTX.as_bytes(), b"\x01\x02\x03\x04"] {
        assert_eq!(client.load_image(1, contents), Err(CudaError::INVALID_IMAGE), "{:?}", &contents[..4]);
    }
    let contents = image();
    let total_bytes = contents.len() as u64;
    let source = client.write_host(0, &contents);
    let whole = ImageUpload { hash: hash(&contents), total_bytes, offset: 0, source, bytes: total_bytes };
    let host_end = client.host.end();
    for (wrong, error) in [
        (ImageUpload { hash: [1, 2, 3, 4], ..whole }, CudaError::INVALID_IMAGE),
        (ImageUpload { offset: 8, bytes: 8, ..whole }, CudaError::INVALID_VALUE),
        (ImageUpload { bytes: total_bytes + 1, ..whole }, CudaError::INVALID_VALUE),
        (ImageUpload { offset: u64::MAX, ..whole }, CudaError::INVALID_VALUE),
        (ImageUpload { bytes: u64::MAX, total_bytes: u64::MAX, ..whole }, CudaError::OUT_OF_MEMORY),
        (ImageUpload { source: host_end - 1, ..whole }, CudaError::INVALID_VALUE),
        (ImageUpload { source: 0x1000, ..whole }, CudaError::INVALID_VALUE),
        (ImageUpload { source: client.arena.address, ..whole }, CudaError::INVALID_VALUE),
    ] {
        client.post(wrong, &[]);
        assert_eq!(client.settle(), Err(error), "{wrong:?}");
    }
    assert_eq!(std::fs::read_dir(worker.images()).unwrap().count(), 0);
    client.load_image(1, &contents).unwrap();
    // PTX that is whole but makes no sense is for the driver to refuse.
    client.load_image(2, b".version 8.0\n.target sm_80\n.address_size 64\nnonsense!\n\0").unwrap();
    assert!(client.resolve(2, 9, "nonsense").is_err());
    client.ask(Ping {}).unwrap();
    assert_eq!(client.load_image(65_536, &contents), Err(CudaError::OUT_OF_MEMORY));
}

#[test]
fn a_global_is_private_to_who_asks_for_it() {
    let mut worker = Worker::start();
    let mut clients = [worker.attach(0), worker.attach(1)];
    for client in &mut clients {
        client.load_kernels();
        client.allocate(0, 2 * MIB).unwrap();
    }
    let [first, second] = &mut clients;
    assert_eq!(first.variable(1, "no_such_global"), Err(CudaError::NOT_FOUND));
    let (address, bytes) = first.variable(1, "step").unwrap();
    assert_eq!(bytes, 4);
    assert_eq!(first.words(address, 1), [3]);
    first.upload(address, &100_u32.to_le_bytes());
    second.copy(second.host.address, address, 4, 0);
    assert_eq!(second.settle(), Err(CudaError::INVALID_VALUE), "another client's global");
    // A kernel resolved before uses the private copy, and one resolved later too.
    first.resolve(1, 9, "add_step").unwrap();
    for client in [&mut *first, &mut *second] {
        client.add_step(client.arena.address, 1, 0);
    }
    let parameters = add_step_parameters(first.arena.address, 1);
    first.post(launch(9, 0, 1, 1, parameters.len()), &parameters);
    assert_eq!(first.words(first.arena.address, 1), [200]);
    assert_eq!(second.words(second.arena.address, 1), [3]);
    assert_eq!(first.variable(1, "step"), Ok((address, 4)), "the same again");
    first.post(ImageUnload { image: 1, reserved: 0 }, &[]);
    first.copy(first.host.address, address, 4, 0);
    assert_eq!(first.settle(), Err(CudaError::INVALID_VALUE), "gone with its image");
}

#[test]
fn no_client_sees_what_another_s_kernels_wrote_into_variables() {
    let mut worker = Worker::start();
    let [mut first, mut second] = [worker.attach(0), worker.attach(1)];
    for client in [&mut first, &mut second] {
        client.load_state();
        client.allocate(0, 2 * MIB).unwrap();
    }
    let tick = |client: &mut Client| {
        client.tick(client.arena.address, 0);
        client.words(client.arena.address, 1)[0]
    };
    assert_eq!([tick(&mut first), tick(&mut first), tick(&mut first)], [5, 10, 15]);
    assert_eq!(tick(&mut second), 5, "it counts for itself");
    let (counter, bytes) = first.variable(STATE, "counter").unwrap();
    assert!(bytes == 4 && first.arena.contains(counter, 4), "{counter:#x}");
    assert_eq!(first.words(counter, 1), [3], "what was written before the question is there");
    let place = first.variable(STATE, "place").unwrap().0;
    assert_eq!(first.download(place, 8), counter.to_le_bytes());
    first.upload(counter, &100_u32.to_le_bytes());
    assert_eq!([tick(&mut first), tick(&mut second)], [505, 10]);
    first.post(ImageUnload { image: STATE, reserved: 0 }, &[]);
    first.load_state();
    assert_eq!([tick(&mut first), tick(&mut second)], [5, 15], "a new image begins anew");
}

#[test]
fn what_is_written_into_a_constant_is_read_from_the_constant_bank() {
    let mut worker = Worker::start();
    let [mut first, mut second] = [worker.attach(0), worker.attach(1)];
    for client in [&mut first, &mut second] {
        client.load_state();
        client.allocate(0, 2 * MIB).unwrap();
    }
    let out = first.arena.address;
    let (factor, bytes) = first.variable(STATE, "factor").unwrap();
    assert_eq!((bytes, first.words(factor, 1)), (4, vec![5]));
    first.upload(factor, &7_u32.to_le_bytes());
    first.tick(out, 0);
    assert_eq!((first.words(out, 1), first.words(factor, 1)), (vec![7], vec![7]));
    let fill = Fill { address: factor, width: 1, height: 1, value: 3, element_bytes: 4, ..Fill::default() };
    first.post(fill, &[]);
    first.tick(out, 0);
    assert_eq!(first.words(out, 1), [6]);
    let source = first.write_host(0, &[[1, 0, 0, 0], [9; 4]].concat());
    let rows = CopyStrided {
        destination: factor,
        destination_pitch: 2,
        destination_height: 2,
        source,
        source_pitch: 4,
        source_height: 2,
        width_bytes: 2,
        height: 2,
        depth: 1,
        ..CopyStrided::default()
    };
    first.post(rows, &[]);
    first.tick(out, 0);
    assert_eq!(first.words(factor, 1), [0x0909_0001]);
    assert_eq!(first.words(out, 1), [3 * 0x0909_0001]);
    second.tick(second.arena.address, 0);
    assert_eq!(second.words(second.arena.address, 1), [5]);
}

#[test]
fn launches_that_cannot_be_are_refused_and_the_rest_goes_on() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    client.load_kernels();
    let address = client.allocate(0, 2 * MIB).unwrap();
    let parameters = add_step_parameters(address, 1);
    let good = launch(1, 0, 1, 32, parameters.len());
    let shape = |change: fn(&mut LaunchShape)| {
        let mut launch = good;
        change(&mut launch.shape);
        launch
    };
    for (wrong, error) in [
        (shape(|shape| shape.kernel = 77), CudaError::INVALID_HANDLE),
        (shape(|shape| shape.kernel = u32::MAX), CudaError::INVALID_HANDLE),
        (shape(|shape| shape.stream = 77), CudaError::INVALID_HANDLE),
        (shape(|shape| shape.grid[1] = 0), CudaError::INVALID_VALUE),
        (shape(|shape| shape.block[0] = 4096), CudaError::INVALID_VALUE),
        (shape(|shape| shape.shared_bytes = u32::MAX), CudaError::INVALID_VALUE),
        (shape(|shape| shape.parameter_bytes = 8), CudaError::INVALID_VALUE),
        (shape(|shape| shape.parameter_bytes = u32::MAX), CudaError::INVALID_VALUE),
        (shape(|shape| shape.attributes = 1), CudaError::INVALID_VALUE),
        (shape(|shape| shape.attributes = u32::MAX), CudaError::INVALID_VALUE),
    ] {
        client.post(wrong, &parameters);
        assert_eq!(client.settle(), Err(error), "{wrong:?}");
    }
    client.post(shape(|shape| shape.parameter_bytes = 4), &parameters[..4]);
    assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE), "a block that is too short");
    for (id, value, error) in [(7, 5, CudaError::INVALID_HANDLE), (13, 0, CudaError::NOT_SUPPORTED)] {
        let attribute = LaunchAttribute { id, reserved: 0, value: [value, 0, 0, 0, 0, 0, 0, 0] };
        let tail = [bytemuck::bytes_of(&attribute), &parameters].concat();
        client.post(shape(|shape| shape.attributes = 1), &tail);
        assert_eq!(client.settle(), Err(error), "attribute {id}");
    }
    // CU_LAUNCH_ATTRIBUTE_IGNORE, and a parameter block that is longer than the kernel's.
    let ignored = LaunchAttribute::default();
    let longer = [&parameters[..], &[0; 4]].concat();
    let tail = [bytemuck::bytes_of(&ignored), &longer].concat();
    client.post(shape(|shape| (shape.attributes, shape.parameter_bytes) = (1, 16)), &tail);
    client.settle().unwrap();
    assert_eq!(client.words(address, 1), [3]);
}

#[test]
fn attributes_and_occupancy_are_the_driver_s() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    client.load_image(1, &image()).unwrap();
    let (reply, _) = client.ask_all(KernelResolve { image: 1, kernel: 1 }, b"add_step").unwrap();
    // CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK.
    assert!((64..=1024).contains(&reply.attributes[0]), "{reply:?}");
    let occupancy = OccupancyBlocks { kernel: 1, block_threads: 128, shared_bytes: 0, flags: 0, reserved: 0 };
    let blocks = client.ask(occupancy).unwrap().value;
    assert!((1..=64).contains(&blocks), "{blocks}");
    let shared = OccupancyShared { kernel: 1, blocks: 1, block_threads: 128, reserved: 0 };
    assert!(client.ask(shared).unwrap().value > 0);
    assert_eq!(client.ask(OccupancyBlocks { kernel: 5, ..occupancy }), Err(CudaError::INVALID_HANDLE));
    let set = |attribute, value| KernelSetAttribute { kernel: 1, attribute, value, reserved: 0 };
    client.post(set(8, 64 * 1024), &[]);
    client.settle().unwrap();
    client.post(set(8, i32::MAX), &[]);
    assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE));
    client.post(set(8, -1), &[]);
    assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE));
    client.post(set(4711, 1), &[]);
    assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE));
    let address = client.allocate(0, 2 * MIB).unwrap();
    let parameters = add_step_parameters(address, 1);
    let mut large = launch(1, 0, 1, 32, parameters.len());
    large.shape.shared_bytes = 60 * 1024;
    client.post(large, &parameters);
    client.settle().unwrap();
    // A second client's launches are held to what that client asked for.
    let mut other = worker.attach(1);
    other.load_kernels();
    let address = other.allocate(0, 2 * MIB).unwrap();
    let parameters = add_step_parameters(address, 1);
    other.post(large, &parameters);
    assert_eq!(other.settle(), Err(CudaError::INVALID_VALUE));
    let map = TensorMapTiled { address, rank: 6, ..TensorMapTiled::default() };
    assert_eq!(other.ask(map), Err(CudaError::INVALID_VALUE));
}

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

/// `CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH`.
const CLUSTER_WIDTH: u32 = 11;

#[test]
fn what_a_client_sets_of_a_kernel_does_not_reach_its_neighbours_launches() {
    let mut worker = Worker::start();
    let (mut client, mut neighbour) = (worker.attach(0), worker.attach(1));
    let [own, theirs] = [&mut client, &mut neighbour].map(|client| {
        client.load_kernels();
        client.allocate(0, 2 * MIB).unwrap()
    });
    let set = KernelSetAttribute { kernel: 1, attribute: CLUSTER_WIDTH, value: 2, reserved: 0 };
    client.post(set, &[]);
    client.settle().unwrap();
    neighbour.add_step(theirs, 1, 0);
    assert_eq!(neighbour.settle(), Ok(()), "a grid of one block is no multiple of the other's cluster");
    assert_eq!(neighbour.words(theirs, 2), [3, 0]);
    client.add_step(own, 1, 0);
    assert_eq!(client.settle(), Err(CudaError::INVALID_CLUSTER_SIZE), "it is one of the client's own");
    client.add_step(own, 128, 0);
    assert_eq!(client.words(own, 1), [3]);
}

#[test]
fn what_a_client_sets_of_a_kernel_does_not_show_in_its_neighbours_occupancy() {
    let mut worker = Worker::start();
    let (mut client, mut neighbour) = (worker.attach(0), worker.attach(1));
    let shape = LaunchShape { kernel: 1, grid: [16, 1, 1], block: [64, 1, 1], ..LaunchShape::default() };
    let questions = |client: &mut Client| {
        let blocks = [48 << 10, 100 << 10].map(|shared_bytes| {
            let occupancy =
                OccupancyBlocks { kernel: 1, block_threads: 64, shared_bytes, ..OccupancyBlocks::default() };
            client.ask(occupancy).unwrap().value
        });
        let shared = OccupancyShared { kernel: 1, blocks: 1, block_threads: 64, reserved: 0 };
        let (shared, size) =
            (client.ask(shared).unwrap(), client.ask(OccupancyClusterSize { shape }).unwrap());
        (blocks, shared.value, size.value)
    };
    client.load_kernels();
    neighbour.load_kernels();
    let before = questions(&mut neighbour);
    assert!(before.0[0] > 0 && before.0[1] == 0 && before.1 == 48 << 10, "{before:?}");
    for (attribute, value) in [(8, 100 << 10), (9, 20), (CLUSTER_WIDTH, 2), (14, 1), (15, 1)] {
        client.post(KernelSetAttribute { kernel: 1, attribute, value, reserved: 0 }, &[]);
    }
    client.settle().unwrap();
    let own = questions(&mut client);
    assert!(own.0[1] > 0 && own.1 > before.1 && own.2 > before.2, "{own:?}");
    assert_eq!(questions(&mut neighbour), before);
}

#[test]
fn flags_that_are_not_known_are_refused() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    client.load_kernels();
    let address = client.allocate(0, 2 * MIB).unwrap();
    let mut records = Vec::new();
    let parameters = add_step_parameters(address, 1);
    record(&mut records, launch(1, 1, 1, 64, parameters.len()), &parameters);
    client.post(GraphAppend { graph: 1, reserved: 0 }, bytemuck::cast_slice(&records));
    for flags in [4, 16, 1 << 40] {
        let instantiated = client.ask(GraphInstantiate { graph: 1, reserved: 0, flags });
        assert_eq!(instantiated, Err(CudaError::NOT_SUPPORTED), "{flags}");
    }
    client.ask(GraphInstantiate { graph: 1, reserved: 0, flags: 8 }).unwrap();
    for id in [3, 13, 17, 1000] {
        let attribute = LaunchAttribute { id, ..LaunchAttribute::default() };
        let mut command = launch(1, 0, 1, 64, parameters.len());
        command.shape.attributes = 1;
        client.post(command, &[bytemuck::bytes_of(&attribute), &parameters].concat());
        assert_eq!(client.settle(), Err(CudaError::NOT_SUPPORTED), "{id}");
    }
}
