//! What a client gets done while its memory is still on its way to the GPU.
//!
//! The simulated GPU takes its time here: its copy engine serves one stream as long as that has work, as on hardware.

mod served;
mod server_support;
mod worker_support;

use served::{Attached, attach};
use server_support::server::Server;
use std::process::{Command, Stdio};
use torpor_proto::command::{EventCreate, EventElapsed, EventRecord, Fill, StreamCreate};
use torpor_proto::control::admin::UnloadFunctionRequest;
use worker_support::Client;

const MIB: u64 = 1 << 20;
/// Segments of 2 MiB, each of which takes 20 ms to come back.
const SEGMENTS: u64 = 16;

fn start() -> Server {
    Server::start_by(|directory| {
        let mut command = Command::new(served::PROGRAM);
        command.arg("serve").arg("--directory").arg(directory.path()).arg("--driver").arg(served::driver());
        command.args(["--gpus", "0", "--pinned-limit", "8MiB", "--staging", "4MiB", "--log", "debug"]);
        command.args(["--host-pool", "64MiB", "--host-slab", "32MiB"]);
        command.env("TORPOR_GPUSERVER", served::PROGRAM).env("TORPOR_SIMGPU_TIME", "real");
        command.env("TORPOR_SIMGPU_PROFILE", "h200:host_gbps=0.1");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    })
}

fn record(client: &mut Client, event: u32, stream: u32) {
    client.post(EventRecord { event, stream, ..EventRecord::default() }, &[]);
}

#[test]
fn an_upload_and_what_depends_on_it_is_done_while_other_memory_is_still_on_its_way() {
    let server = start();
    let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
    client.load_kernels();
    for (stream, event) in [(1, 1), (2, 2)] {
        client.post(StreamCreate { stream, flags: 1, priority: 0, reserved: 0 }, &[]);
        client.post(EventCreate { event, flags: 0 }, &[]);
    }
    let segments: Vec<u64> =
        (0..SEGMENTS).map(|segment| client.allocate(segment * 2 * MIB, 2 * MIB).unwrap()).collect();
    for &address in &segments {
        let ones = Fill { address, width: 2 * MIB, height: 1, value: 1, element_bytes: 1, ..Fill::default() };
        client.post(ones, &[]);
    }
    let (first, last) = (segments[0], segments[segments.len() - 1]);
    client.settle().unwrap();
    let request = UnloadFunctionRequest { name: "f".to_owned() };
    server.admin(async |mut api| api.unload_function(request).await).unwrap();

    let input = client.write_host(0, &[2; MIB as usize]);
    client.copy(first, input, MIB, 1);
    client.add_step(first, 10, 1);
    record(&mut client, 1, 1);
    client.add_step(last, 10, 2);
    record(&mut client, 2, 2);
    client.settle().unwrap();
    let elapsed = client.ask(EventElapsed { start: 1, end: 2 }).unwrap();
    let milliseconds = f32::from_bits(elapsed.milliseconds_bits);
    assert!(milliseconds > 0.0, "the input's kernel came {} ms after everything else", -milliseconds);
    assert_eq!(client.words(first, 11), [vec![0x0202_0205; 10], vec![0x0202_0202]].concat());
    assert_eq!(client.words(last, 11), [vec![0x0101_0104; 10], vec![0x0101_0101]].concat());
    assert_eq!(client.words(first + MIB, 1), [0x0101_0101]);
}
