//! Clients that are busy together on one of two GPUs spread over both.

mod served;
mod server_support;
mod worker_support;

use served::{Attached, attach};
use server_support::server::{Server, eventually};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use torpor_proto::command::HostLock;
use torpor_proto::control::admin::LoadFunctionRequest;

const MIB: u64 = 1 << 20;
/// Where page-locked memory of clients begins in their host ranges: behind the staging.
const LOCKED: u64 = 4 * MIB;
const CLIENTS: usize = 4;

fn start() -> Server {
    served::serve_by(
        "--gpus 0,1 --pinned-limit 16MiB --staging 4MiB --log debug --gpu-limit 64MiB --host-pool 128MiB --host-slab 32MiB",
        |command| {
            command.env("TORPOR_SIMGPU_DEVICES", "2");
        },
    )
}

/// Is set when this is dropped, whatever becomes of the test.
struct Set<'a>(&'a AtomicBool);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn clients_on(server: &Server, gpu: u32) -> usize {
    server.clients().iter().filter(|client| client.gpu == gpu).count()
}

#[test]
fn clients_that_never_pause_on_one_gpu_are_on_both_soon_and_compute_what_they_should() {
    let server = start();
    let mut functions: Vec<_> = (0..CLIENTS)
        .map(|at| attach(&server, &format!("f{at}")))
        .map(|Attached { client, lifeline }| (client, lifeline))
        .collect();
    for (at, (client, _)) in functions.iter_mut().enumerate() {
        client.load_kernels();
        client.allocate(0, 4 * MIB).unwrap();
        client.ask(HostLock { address: client.host.address + LOCKED, bytes: MIB }).unwrap();
        client.settle().unwrap();
        let request = LoadFunctionRequest { name: format!("f{at}"), gpu: Some(0) };
        server.admin(async |mut api| api.load_function(request).await).unwrap();
    }
    assert_eq!(clients_on(&server, 0), CLIENTS);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (client, _) in &mut functions {
            scope.spawn(|| {
                let data = client.arena.address;
                for round in 1.. {
                    // A kernel that ends when it is told, and one behind it.
                    let flag = client.write_host(LOCKED, &[0; 4]);
                    client.launch_at(2, flag, 0);
                    client.add_step(data, 1, 0);
                    std::thread::sleep(Duration::from_millis(10));
                    client.write_host(LOCKED, &[1, 0, 0, 0]);
                    assert_eq!(client.words(data, 1), [round * 3]);
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let _end = Set(&done);
        eventually("they are on both GPUs", || clients_on(&server, 1) == CLIENTS / 2);
    });
    assert!(server.gpus().iter().all(|gpu| gpu.worker_restarts == 0));
}
