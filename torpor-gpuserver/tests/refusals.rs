//! Driver calls that are refused once, and whom that hurts: at most the client that wanted something of them.

mod served;
mod server_support;
mod worker_support;

use served::{Attached, attach};
use server_support::server::{Server, eventually};
use torpor_proto::control::admin::{ReportStoreRequest, UnloadFunctionRequest};
use torpor_proto::error::CudaError;

const MIB: u64 = 1 << 20;

/// A server with one simulated GPU of which functions may use 20 MiB, with these faults.
fn start(faults: &str) -> Server {
    served::serve_by(
        "--gpus 0 --gpu-limit 20MiB --pinned-limit 8MiB --staging 4MiB --host-pool 64MiB --host-slab 16MiB --log debug",
        |command| {
            // Which call is refused is counted, so nothing is saved when there is time.
            command.args(["--cover", "false"]).env("TORPOR_SIMGPU_FAULTS", faults);
        },
    )
}

fn stored_bytes(server: &Server) -> u64 {
    server.admin(async |mut api| api.report_store(ReportStoreRequest {}).await).unwrap().used_bytes
}

/// A client of function f, and the address of 5000 sevens.
fn with_contents(server: &Server) -> (Attached, u64) {
    let mut attached = attach(server, "f");
    let address = attached.client.allocate(0, 2 * MIB).unwrap();
    attached.client.upload(address, &[7; 5000]);
    (attached, address)
}

#[test]
fn an_eviction_that_the_driver_refuses_hurts_nobody_and_leaves_nothing_behind() {
    // The second copy of the eviction, when the first is under way; and the first look at what changed.
    for refused in ["cuMemcpyDtoHAsync_v2@2", "cuLaunchKernelEx@1"] {
        let server = start(&format!("call:{refused}:fail=1"));
        let Attached { client: mut first, lifeline: _first } = attach(&server, "first");
        let Attached { client: mut second, lifeline: _second } = attach(&server, "second");
        let address = first.allocate(0, 18 * MIB).unwrap();
        first.upload(address, &[7; 5000]);
        first.upload(address + 8 * MIB, &[8; 5000]);
        assert_eq!(second.allocate(0, 4 * MIB), Err(CudaError::OUT_OF_MEMORY), "{refused}");
        assert!(server.said("its memory stays on the GPU"), "{refused}");
        eventually("the places are given back", || stored_bytes(&server) == 0);
        assert_eq!(first.download(address, 5001), [[7; 5000].as_slice(), &[0]].concat());
        // It was used, so it may be evicted again.
        let others = second.allocate(0, 4 * MIB).unwrap();
        second.upload(others, &[9; 100]);
        assert_eq!(stored_bytes(&server), 4 * MIB, "{refused}");
        assert_eq!(first.download(address + 8 * MIB, 5001), [[8; 5000].as_slice(), &[0]].concat());
        assert_eq!(second.download(others, 101), [[9; 100].as_slice(), &[0]].concat());
        assert_eq!(server.gpus()[0].worker_restarts, 0, "{refused}");
    }
}

#[test]
fn what_a_program_tries_in_vain_again_and_again_is_told_once() {
    let server = start("call:cuMemcpyDtoHAsync_v2:fail=1");
    let Attached { client: mut first, lifeline: _first } = attach(&server, "first");
    let Attached { client: mut second, lifeline: _second } = attach(&server, "second");
    let address = first.allocate(0, 18 * MIB).unwrap();
    first.upload(address, &[7; 5000]);
    for _ in 0..20 {
        assert_eq!(second.allocate(0, 4 * MIB), Err(CudaError::OUT_OF_MEMORY));
    }
    for what in ["no room on the GPU", "its memory stays on the GPU"] {
        assert_eq!(server.log().matches(what).count(), 1, "{}", server.log());
    }
}

#[test]
fn a_full_host_pool_is_told_once_however_often_room_in_it_is_wanted() {
    let options = "--gpus 0 --gpu-limit 20MiB --pinned-limit 8MiB --staging 4MiB --host-pool 8MiB --host-slab 8MiB --log debug";
    let server = served::serve_by(options, |command| _ = command.args(["--cover", "false"]));
    let Attached { client: mut first, lifeline: _first } = attach(&server, "first");
    let Attached { client: mut second, lifeline: _second } = attach(&server, "second");
    let address = first.allocate(0, 18 * MIB).unwrap();
    for (chunk, offset) in (1..).zip((0..18 * MIB).step_by(2 << 20)) {
        first.upload(address + offset, &[chunk; 5000]);
    }
    // What does not leave is left alone for a while.
    eventually("room is wanted again", || {
        assert_eq!(second.allocate(0, 4 * MIB), Err(CudaError::OUT_OF_MEMORY));
        server.said("once more: function first needs 18 MiB of host memory")
    });
    let told =
        |line: &&str| line.contains("ERROR") && line.contains("function first needs 18 MiB of host memory");
    // By the store, and by the worker.
    assert_eq!(server.log().lines().filter(told).count(), 2, "{}", server.log());
}

#[test]
fn a_function_that_cannot_be_unloaded_for_once_is_unloaded_a_little_later() {
    let server = start("call:cuMemcpyDtoHAsync_v2@1:fail=1");
    let (Attached { mut client, lifeline: _lifeline }, address) = with_contents(&server);
    server.unload("f");
    assert!(server.said("its memory stays on the GPU"));
    assert_eq!(client.download(address, 5001), [[7; 5000].as_slice(), &[0]].concat());
}

#[test]
fn an_eviction_that_finds_the_gpu_gone_ends_the_worker() {
    // CUDA_ERROR_UNKNOWN is what the driver says of a device that fell off the bus.
    let server = start("call:cuMemcpyDtoHAsync_v2@1:fail");
    let (Attached { client, lifeline: _lifeline }, _) = with_contents(&server);
    let request = UnloadFunctionRequest { name: "f".to_owned() };
    let _ = server.admin(async |mut api| api.unload_function(request).await);
    eventually("another worker serves", || server.gpus()[0].worker_restarts == 1);
    assert_eq!(client.channel.sticky_error(), Some(CudaError::UNKNOWN));
}

#[test]
fn memory_that_cannot_be_brought_ahead_of_need_is_brought_when_it_is_needed() {
    // The fourth copy to the GPU, behind the three that measure, is that of the second group of the swap-in, for which nobody waits.
    let server = start("call:cuMemcpyHtoDAsync_v2@7:fail=1");
    server.wait_until_measured();
    let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
    client.load_kernels();
    let addresses = [0, 8].map(|offset| client.allocate(offset * MIB, 8 * MIB).unwrap());
    addresses.iter().for_each(|&address| client.upload(address, &[7; 5000]));
    server.unload("f");
    client.add_step(addresses[0] + MIB, 1, 0);
    client.settle().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    for address in addresses {
        assert_eq!(client.download(address, 5001), [[7; 5000].as_slice(), &[0]].concat());
    }
    assert_eq!(client.words(addresses[0] + MIB, 2), [3, 0]);
    assert_eq!(server.gpus()[0].worker_restarts, 0);
}
