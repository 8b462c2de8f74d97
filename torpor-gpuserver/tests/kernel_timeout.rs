//! Kernels that run longer than their function's `kernel_timeout`.

mod served;
mod server_support;
mod worker_support;

use served::{Attached, attach};
use server_support::server::{Server, eventually};
use std::io::Write;
use torpor_proto::command::{ContextSynchronize, KernelResolve, MemoryFree, Ping};
use torpor_proto::error::CudaError;
use worker_support::kernels::{STATE, STATE_PTX};

const MIB: u64 = 1 << 20;

fn start(settings: &str) -> (Server, tempfile::NamedTempFile) {
    start_with(settings, &[])
}

fn start_with(settings: &str, environment: &[(&str, &str)]) -> (Server, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(settings.as_bytes()).unwrap();
    let server = served::serve_by(
        "--gpus 0 --pinned-limit 8MiB --staging 4MiB --log debug --host-pool 16MiB --host-slab 16MiB",
        |command| {
            command.arg("--config").arg(file.path());
            // A kernel takes 50 ms.
            command.env("TORPOR_SIMGPU_TIME", "real").env("TORPOR_SIMGPU_PROFILE", "small:kernel_us=50000");
            command.envs(environment.iter().copied());
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
fn who_is_in_the_middle_of_a_command_then_goes_on_without_an_error() {
    // As long as another one's kernel runs that is ended meanwhile.
    let slow = ("TORPOR_SIMGPU_PROFILE", "small:kernel_us=2000000");
    let (server, _settings) = start_with("[functions.endless]\nkernel_timeout = '1s'", &[slow]);
    let Attached { client: mut neighbour, lifeline: _neighbour } = attach(&server, "neighbour");
    neighbour.load_kernels();
    let data = neighbour.allocate(0, 2 * MIB).unwrap();
    let Attached { client: mut endless, lifeline: _endless } = attach(&server, "endless");
    endless.load_kernels();
    eventually("it is covered", || server.listed("neighbour").covered_clients == 1);
    endless.spin();
    neighbour.add_step(data, 1, 0);
    let more = neighbour.allocate(2 * MIB, 2 * MIB).unwrap();
    // It waits for the kernel.
    neighbour.post(MemoryFree { address: more }, &[]);
    eventually("another worker is there", || server.gpus()[0].worker_restarts == 1);
    assert_eq!(neighbour.words(data, 1), [3]);
    assert_eq!((neighbour.channel.sticky_error(), neighbour.channel.take_deferred_error()), (None, None));
    assert_eq!(endless.channel.sticky_error(), Some(CudaError::LAUNCH_TIMEOUT));
}

#[test]
fn a_kernel_that_never_ends_is_seen_though_another_session_waits_for_it_and_keeps_its_own_from_the_driver() {
    // As over what the driver waits for kernels, and nobody waits for quiet before.
    let jam = ("TORPOR_SIMGPU_FAULTS", "call:cuLibraryLoadData:jam");
    let (server, _settings) =
        start_with("[scheduler]\ncover = false\n[functions.endless]\nkernel_timeout = '1s'", &[jam]);
    let Attached { client: mut comes, lifeline: _comes } = attach(&server, "comes");
    comes.load_image(STATE, &[STATE_PTX.as_bytes(), b"\0"].concat()).unwrap();
    let Attached { client: mut endless, lifeline: _endless } = attach(&server, "endless");
    endless.load_kernels();
    endless.spin();
    endless.ask(Ping {}).unwrap();
    comes.ask_later(KernelResolve { image: STATE, kernel: STATE }, b"tick");
    eventually("it is told", || endless.channel.sticky_error() == Some(CudaError::LAUNCH_TIMEOUT));
    eventually("so is the other", || comes.channel.sticky_error() == Some(CudaError::LAUNCH_FAILED));
    eventually("another worker is there", || server.gpus()[0].worker_restarts == 1);
    assert!(server.said("kernel of function endless"), "{}", server.log());
}

#[test]
fn who_is_idle_does_not_wait_for_sessions_that_are_in_the_driver_until_their_process_ends() {
    let jam = ("TORPOR_SIMGPU_FAULTS", "call:cuLibraryLoadData:jam");
    let (server, _settings) = start_with("[functions.endless]\nkernel_timeout = '1s'", &[jam]);
    let Attached { client: mut idle, lifeline: _idle } = attach(&server, "idle");
    idle.load_kernels();
    let data = idle.allocate(0, 2 * MIB).unwrap();
    idle.add_step(data, 1, 0);
    assert_eq!(idle.words(data, 1), [3]);
    eventually("it is covered", || server.listed("idle").covered_clients == 1);
    let Attached { client: mut comes, lifeline: _comes } = attach(&server, "comes");
    comes.load_image(STATE, &[STATE_PTX.as_bytes(), b"\0"].concat()).unwrap();
    let Attached { client: mut endless, lifeline: _endless } = attach(&server, "endless");
    endless.load_kernels();
    endless.spin();
    endless.ask(Ping {}).unwrap();
    comes.ask_later(KernelResolve { image: STATE, kernel: STATE }, b"tick");
    eventually("another worker is there", || server.gpus()[0].worker_restarts == 1);
    assert!(server.said("nothing of it reaches what it shares any more"), "{}", server.log());
    assert_eq!(idle.words(data, 1), [3]);
    assert_eq!(endless.channel.sticky_error(), Some(CudaError::LAUNCH_TIMEOUT));
}

#[test]
fn a_kernel_that_never_ends_is_seen_though_an_older_one_without_a_turn_does_not_end_either() {
    let (server, _settings) = start("[scheduler]\ncover = false\n[functions.endless]\nkernel_timeout = '1s'");
    let Attached { client: mut older, lifeline } = attach(&server, "older");
    older.load_kernels();
    older.spin();
    older.ask(Ping {}).unwrap();
    drop(lifeline);
    eventually("it overstays", || server.said("its work on the GPU goes on"));
    let Attached { client: mut endless, lifeline: _endless } = attach(&server, "endless");
    endless.load_kernels();
    endless.spin();
    eventually("another worker is there", || server.gpus()[0].worker_restarts == 1);
    assert!(server.said("may have run for longer than its kernel_timeout"), "{}", server.log());
    // It may have waited for the older one.
    assert_eq!(endless.channel.sticky_error(), Some(CudaError::LAUNCH_FAILED));
}

#[test]
fn a_dead_client_s_kernel_is_ended_too() {
    let (server, _settings) = start("[defaults]\nkernel_timeout = '1s'");
    let Attached { client: mut endless, lifeline } = attach(&server, "endless");
    endless.load_kernels();
    endless.spin();
    endless.ask(Ping {}).unwrap();
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
