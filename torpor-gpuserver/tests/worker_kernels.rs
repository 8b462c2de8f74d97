//! Kernels: launches, attributes and occupancy.

mod worker_support;

use torpor_proto::command::{
    GraphAppend, GraphInstantiate, KernelResolve, KernelSetAttribute, LaunchAttribute, LaunchShape,
    OccupancyBlocks, OccupancyClusterSize, OccupancyShared, TensorMapTiled,
};
use torpor_proto::error::CudaError;
use worker_support::kernels::{add_step_parameters, image, launch, record};
use worker_support::{Client, Worker};

const MIB: u64 = 1 << 20;

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
