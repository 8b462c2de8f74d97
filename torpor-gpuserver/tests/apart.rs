//! Processes of one function that use different devices of it are on different GPUs, where the node has them.

mod served;
mod server_support;
mod worker_support;

use served::{Attached, attach};
use server_support::server::{Server, eventually};
use std::time::Duration;
use torpor_proto::command::Home;
use torpor_proto::control::admin::{EnsureFunctionRequest, LoadFunctionRequest, Terms};

const MIB: u64 = 1 << 20;

fn start(gpus: &str) -> Server {
    served::serve_by(
        "--pinned-limit 32MiB --staging 4MiB --log debug --gpu-limit 64MiB --host-pool 128MiB --host-slab 32MiB",
        |command| {
            command.args(["--gpus", gpus]);
            command.env("TORPOR_SIMGPU_DEVICES", "4");
        },
    )
}

fn with_devices(server: &Server, function: &str, gpus: u32) {
    let terms = Terms { gpus: Some(gpus), ..Terms::default() };
    let request = EnsureFunctionRequest { name: function.to_owned(), terms: Some(terms) };
    let made = server.admin(async |mut api| api.ensure_function(request).await).unwrap();
    assert_eq!(made.devices, gpus);
}

fn load(server: &Server, function: &str, gpu: u32) {
    let request = LoadFunctionRequest { name: function.to_owned(), gpu: Some(gpu) };
    server.admin(async |mut api| api.load_function(request).await).unwrap();
}

/// The GPUs of a function's processes, by their numbers.
fn gpus_of(server: &Server, function: &str) -> Vec<u32> {
    let clients = server.clients().into_iter().filter(|client| client.function == function);
    clients.map(|client| client.gpu).collect()
}

/// Processes of a function, all on the first GPU, each with some memory.
fn processes(server: &Server, function: &str, count: usize) -> Vec<Attached> {
    let mut processes: Vec<_> = (0..count).map(|_| attach(server, function)).collect();
    for process in &mut processes {
        process.client.allocate(0, 2 * MIB).unwrap();
        process.client.settle().unwrap();
    }
    load(server, function, 0);
    processes
}

fn say_homes(processes: &mut [Attached]) {
    for (device, process) in (0..).zip(processes) {
        process.client.post(Home { device, reserved: 0 }, &[]);
        process.client.settle().unwrap();
    }
}

fn are_apart(gpus: &[u32]) -> bool {
    (1..gpus.len()).all(|at| !gpus[..at].contains(&gpus[at]))
}

#[test]
fn ranks_go_to_gpus_of_their_own_and_others_stay() {
    let server = start("0,1,2,3");
    with_devices(&server, "ranks", 4);
    let mut others = processes(&server, "others", 2);
    let mut ranks = processes(&server, "ranks", 4);
    assert_eq!(gpus_of(&server, "ranks"), [0; 4]);
    say_homes(&mut ranks);
    eventually("the ranks are apart", || are_apart(&gpus_of(&server, "ranks")));
    // Of a function whose programs see one device, it means nothing.
    say_homes(&mut others);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(gpus_of(&server, "others"), [0; 2]);
    for process in ranks.iter_mut().chain(&mut others) {
        process.client.settle().unwrap();
    }
}

#[test]
fn with_fewer_gpus_than_ranks_they_share_and_all_go_on() {
    let server = start("0,1");
    with_devices(&server, "f", 3);
    let mut ranks = processes(&server, "f", 3);
    say_homes(&mut ranks);
    eventually("both GPUs have one", || {
        let gpus = gpus_of(&server, "f");
        gpus.contains(&0) && gpus.contains(&1)
    });
    ranks.iter_mut().for_each(|rank| rank.client.settle().unwrap());
}

#[test]
fn a_home_is_the_first_that_is_said() {
    let server = start("0,1");
    with_devices(&server, "f", 2);
    let mut ranks = processes(&server, "f", 2);
    for rank in &mut ranks {
        // The second word of each would be another home.
        for device in [0, 1] {
            rank.client.post(Home { device, reserved: 0 }, &[]);
        }
        rank.client.settle().unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(gpus_of(&server, "f"), [0, 0]);
}
