//! Images, kernels and graphs.

mod worker_support;

use torpor_proto::command::{
    Command, Copy, EventCreate, EventRecord, Fill, GraphAppend, GraphDestroy, GraphInstantiate, GraphLaunch,
    ImageGlobal, ImageKernels, ImageLoad, ImageLoadReply, ImageUnload, ImageUpload, KernelResolve,
    KernelSetAttribute, LaunchAttribute, LaunchShape, OccupancyBlocks, OccupancyShared, Ping, StreamCreate,
    StreamSynchronize, StreamWaitEvent, TensorMapTiled,
};
use torpor_proto::error::CudaError;
use worker_support::client::hash;
use worker_support::kernels::{PTX, add_step_parameters, image, launch, record};
use worker_support::{Client, Worker};

const MIB: u64 = 1 << 20;

fn global(client: &mut Client, image: u32, name: &str) -> Result<(u64, u64), CudaError> {
    let (reply, _) = client.ask_all(ImageGlobal { image, reserved: 0 }, name.as_bytes())?;
    Ok((reply.address, reply.bytes))
}

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
    assert_eq!((reply.total, reply.count), (4, 4));
    let mut names: Vec<_> = names.split(|&byte| byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    assert_eq!(names, [b"add_step".as_slice(), b"add_through", b"poke", b"spin"]);
    let (reply, names) = first.ask_all(ImageKernels { image: 1, first: u32::MAX }, &[]).unwrap();
    assert_eq!((reply.total, reply.count, names.len()), (4, 0, 0));
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
    assert_eq!(global(first, 1, "no_such_global"), Err(CudaError::NOT_FOUND));
    let (address, bytes) = global(first, 1, "step").unwrap();
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
    assert_eq!(global(first, 1, "step"), Ok((address, 4)), "the same again");
    first.post(ImageUnload { image: 1, reserved: 0 }, &[]);
    first.copy(first.host.address, address, 4, 0);
    assert_eq!(first.settle(), Err(CudaError::INVALID_VALUE), "gone with its image");
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

/// A graph over streams 1 and 2: add, fork, fill on the other, join, copy.
fn graph_records(address: u64) -> Vec<u64> {
    let parameters = add_step_parameters(address, 16);
    let mut words = Vec::new();
    record(&mut words, launch(1, 1, 1, 16, parameters.len()), &parameters);
    record(&mut words, EventRecord { event: 1, stream: 1, ..EventRecord::default() }, &[]);
    record(&mut words, StreamWaitEvent { stream: 2, event: 1, ..StreamWaitEvent::default() }, &[]);
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
    record(&mut words, EventRecord { event: 2, stream: 2, ..EventRecord::default() }, &[]);
    record(&mut words, StreamWaitEvent { stream: 1, event: 2, ..StreamWaitEvent::default() }, &[]);
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
    client.ask(GraphInstantiate { graph: 5, origin: 1, flags: 0 }).unwrap();
    assert_eq!(client.words(address, 1), [0], "nothing runs while it is recorded");
    for _ in 0..3 {
        client.post(GraphLaunch { graph: 5, stream: 1 }, &[]);
    }
    client.ask(StreamSynchronize { stream: 1, reserved: 0 }).unwrap();
    client.settle().unwrap();
    assert_eq!(client.words(address, 17), [vec![9; 16], vec![0]].concat());
    assert_eq!(client.words(address + 4096, 16), [vec![7; 8], vec![9; 8]].concat());
    client.post(GraphAppend { graph: 5, reserved: 0 }, &[0; 8]);
    assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE), "it is whole already");
    client.post(GraphLaunch { graph: 5, stream: 0 }, &[]);
    client.post(GraphDestroy { graph: 5, reserved: 0 }, &[]);
    client.settle().unwrap();
    assert_eq!(client.words(address, 1), [12]);
    client.post(GraphLaunch { graph: 5, stream: 0 }, &[]);
    assert_eq!(client.settle(), Err(CudaError::INVALID_HANDLE));
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
    let mut foreign_stream = Vec::new();
    record(&mut foreign_stream, launch(1, 2, 1, 16, parameters.len()), &parameters);
    let mut foreign_event = Vec::new();
    record(&mut foreign_event, StreamWaitEvent { stream: 1, event: 1, ..StreamWaitEvent::default() }, &[]);
    let mut unjoined = good.clone();
    let copy_words = 2 + Copy::default().words().len();
    let wait_words = 2 + StreamWaitEvent::default().words().len();
    unjoined.truncate(good.len() - copy_words - wait_words);
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
        ("foreign stream", &foreign_stream, Some(CudaError::STREAM_CAPTURE_ISOLATION)),
        ("foreign event", &foreign_event, Some(CudaError::STREAM_CAPTURE_ISOLATION)),
        ("unjoined", &unjoined, None),
    ] {
        append(&mut client, 9, words);
        let refused = client.ask(GraphInstantiate { graph: 9, origin: 1, flags: 0 });
        assert!(refused.is_err() && error.is_none_or(|error| refused == Err(error)), "{name}: {refused:?}");
        client.post(GraphDestroy { graph: 9, reserved: 0 }, &[]);
        client.settle().unwrap();
        client.add_step(address, 1, 0);
        client.settle().unwrap();
    }
    assert_eq!(client.words(address, 1), [27], "only the launches outside");
    assert_eq!(
        client.ask(GraphInstantiate { graph: 3, origin: 0, flags: 0 }),
        Err(CudaError::INVALID_HANDLE)
    );
    client.post(GraphAppend { graph: 4096, reserved: 0 }, &[]);
    assert_eq!(client.settle(), Err(CudaError::OUT_OF_MEMORY));
}
