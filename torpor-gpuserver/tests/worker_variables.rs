//! Variables of images: each client has its own.

mod worker_support;

use torpor_proto::command::{CopyStrided, Fill, ImageUnload};
use torpor_proto::error::CudaError;
use worker_support::kernels::{STATE, add_step_parameters, launch};
use worker_support::{Client, Worker};

const MIB: u64 = 1 << 20;

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
