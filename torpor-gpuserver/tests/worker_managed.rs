//! Managed variables of images.

mod worker_support;

use torpor_proto::command::{HostLock, HostUnlock, ImageUnload};
use torpor_proto::control::worker::Attach;
use torpor_proto::error::CudaError;
use worker_support::Worker;
use worker_support::kernels::{STATE, STATE_PTX};

const MIB: u64 = 1 << 20;

#[test]
fn a_managed_variable_is_the_same_for_the_program_and_its_kernels() {
    let mut worker = Worker::start();
    let [mut first, mut second] = [worker.attach(0), worker.attach(1)];
    let id = first.id;
    let mut pinned = || {
        let usage = worker.usage().clients.into_iter().find(|usage| usage.client == id);
        usage.unwrap().pinned_bytes
    };
    let before = pinned();
    let out = [&mut first, &mut second].map(|client| {
        client.load_state();
        client.allocate(0, 2 * MIB).unwrap()
    });
    assert_eq!(pinned() - before, 4096, "it is page-locked memory");
    assert_eq!(
        (first.managed_variable("ticks"), first.managed_variable("latest")),
        (vec![100, 0, 0, 0], vec![0; 8])
    );
    first.tick(out[0], 0);
    first.settle().unwrap();
    assert_eq!(first.managed_variable("ticks"), 101_u32.to_le_bytes());
    assert_eq!(first.managed_variable("latest"), out[0].to_le_bytes());
    let (ticks, _) = first.variable(STATE, "ticks").unwrap();
    first.write_host(ticks - first.host.address, &7_u32.to_le_bytes());
    first.tick(out[0], 0);
    first.settle().unwrap();
    assert_eq!(first.managed_variable("ticks"), 8_u32.to_le_bytes(), "the kernel saw what the program wrote");
    assert_eq!(second.managed_variable("ticks"), 100_u32.to_le_bytes(), "the other has its own");
    // Copies and fills take it as they take all page-locked memory.
    first.upload(ticks, &50_u32.to_le_bytes());
    assert_eq!((first.managed_variable("ticks"), first.words(ticks, 1)), (vec![50, 0, 0, 0], vec![50]));
    // It goes with its image, and begins anew with it.
    let in_use = first.host_bytes_in_use();
    first.post(ImageUnload { image: STATE, reserved: 0 }, &[]);
    first.settle().unwrap();
    assert_eq!(pinned(), before);
    assert_eq!(in_use - first.host_bytes_in_use(), 4096);
    first.load_state();
    assert_eq!(first.managed_variable("ticks"), 100_u32.to_le_bytes());
    assert_eq!(first.managed_variable("latest"), [0; 8]);
}

#[test]
fn the_place_of_managed_variables_is_not_the_client_s_to_lock() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    client.load_state();
    let (ticks, _) = client.variable(STATE, "ticks").unwrap();
    let address = ticks / 4096 * 4096;
    let part = client.host.for_managed_variables();
    for (address, bytes) in [(address, 4096), (part.address - 4096, 8192), (part.end() - 4096, 4096)] {
        assert_eq!(client.ask(HostLock { address, bytes }), Err(CudaError::INVALID_VALUE));
    }
    assert_eq!(client.ask(HostUnlock { address }), Err(CudaError::HOST_MEMORY_NOT_REGISTERED));
    let out = client.allocate(0, 2 * MIB).unwrap();
    client.tick(out, 0);
    client.settle().unwrap();
    assert_eq!(client.managed_variable("ticks"), 101_u32.to_le_bytes());
}

#[test]
fn an_image_whose_managed_variables_have_no_room_has_no_kernels() {
    // The function may lock its staging, and nothing beside.
    let mut worker = Worker::start();
    let attach = Worker::attach_message(0);
    let mut client = worker.attach_as(Attach { pinned_limit_bytes: attach.staging_bytes, ..attach });
    client.load_image(STATE, &[STATE_PTX.as_bytes(), b"\0"].concat()).unwrap();
    assert_eq!(client.resolve(STATE, STATE, "tick"), Err(CudaError::OUT_OF_MEMORY));
    assert_eq!(client.variable(STATE, "ticks"), Err(CudaError::OUT_OF_MEMORY));
    client.load_kernels();
    let data = client.allocate(0, 2 * MIB).unwrap();
    client.add_step(data, 1, 0);
    assert_eq!(client.words(data, 1), [3], "others run");
}
