//! Kernels that run longer than their function's `kernel_timeout`.

mod served;
mod server_support;
mod worker_support;

use served::{Attached, attach};
use server_support::server::{Server, eventually};
use std::io::Write;
use torpor_proto::command::ContextSynchronize;
use torpor_proto::error::CudaError;

const MIB: u64 = 1 << 20;

fn start(settings: &str) -> (Server, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(settings.as_bytes()).unwrap();
    let server = served::serve_by(
        "--gpus 0 --pinned-limit 8MiB --staging 4MiB --log debug --host-pool 16MiB --host-slab 16MiB",
        |command| {
            command.arg("--config").arg(file.path());
            // A kernel takes 50 ms.
            command.env("TORPOR_SIMGPU_TIME", "real").env("TORPOR_SIMGPU_PROFILE", "small:kernel_us=50000");
        },
    );
    (server, file)
}

#[test]
fn a_kernel_that_never_ends_is_ended_with_its_worker_and_its_function_is_told_so() {
    let (server, _settings) = start("[scheduler]\ncover = false\n[functions.endless]\nkernel_timeout = '1s'");
    let Attached { client: mut neighbour, lifeline: _neighbour } = attach(&server, "neighbour");
    neighbour.load_kernels();
    let Attached { client: mut endless, lifeline: _endless } = attach(&server, "endless");
    endless.load_kernels();
    endless.spin();
    let waiting = endless.ask_later(ContextSynchronize::ALL, &[]);
    assert_eq!(endless.await_slot(waiting), Err(CudaError::LAUNCH_TIMEOUT));
    assert_eq!(endless.channel.sticky_error(), Some(CudaError::LAUNCH_TIMEOUT));
    eventually("the others are told", || neighbour.channel.sticky_error() == Some(CudaError::LAUNCH_FAILED));
    eventually("another worker is there", || server.gpus()[0].worker_restarts == 1);
    assert!(server.said("kernel of function endless"), "{}", server.log());
    let Attached { client: mut next, lifeline: _next } = attach(&server, "neighbour");
    next.load_kernels();
    let address = next.allocate(0, 2 * MIB).unwrap();
    next.add_step(address, 1, 0);
    assert_eq!(next.words(address, 1), [3]);
}

#[test]
fn a_dead_client_s_kernel_is_ended_too() {
    let (server, _settings) = start("[defaults]\nkernel_timeout = '1s'");
    let Attached { client: mut endless, lifeline } = attach(&server, "endless");
    endless.load_kernels();
    endless.spin();
    endless.ask(torpor_proto::command::Ping {}).unwrap();
    drop(lifeline);
    eventually("another worker is there", || server.gpus()[0].worker_restarts == 1);
}

#[test]
fn many_kernels_may_take_longer_than_one() {
    let (server, _settings) = start("[defaults]\nkernel_timeout = '1s'");
    let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
    client.load_kernels();
    let address = client.allocate(0, 2 * MIB).unwrap();
    for _ in 0..40 {
        client.add_step(address, 1, 0);
    }
    assert_eq!(client.words(address, 1), [120]);
    assert_eq!(server.gpus()[0].worker_restarts, 0);
}
