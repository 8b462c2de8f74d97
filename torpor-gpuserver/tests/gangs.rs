//! Ranks of a function that wait for each other on different GPUs: two such functions do not keep each other from theirs.

mod served;
mod server_support;
mod worker_support;

use served::{Attached, attach};
use server_support::server::{Server, eventually};
use std::thread::sleep;
use std::time::Duration;
use torpor_proto::command::{Home, MemoryAllocate};
use torpor_proto::control::admin::{EnsureFunctionRequest, LoadFunctionRequest, Terms};
use torpor_proto::error::CudaError;

const MIB: u64 = 1 << 20;

/// Where a rank's kernels say that they run, in its host range.
const ARRIVED: u64 = 1 << 16;

/// A server with so many simulated GPUs, on each of which functions may have 32 MiB.
fn start(gpus: &str) -> Server {
    served::serve_by(
        "--pinned-limit 64MiB --staging 4MiB --gpu-limit 32MiB --host-pool 256MiB --host-slab 32MiB --log debug",
        |command| {
            command.args(["--gpus", gpus]);
            command.env("TORPOR_SIMGPU_DEVICES", "2");
        },
    )
}

/// A process of a function with two devices, and its memory.
struct Rank {
    process: Attached,
    data: u64,
}

impl Rank {
    /// Posts a request: a kernel that says that it runs, and one that runs until the siblings say so, too.
    fn begin(&mut self) {
        let client = &mut self.process.client;
        let flag = client.write_host(0, &[0; 64]);
        let arrived = client.write_host(ARRIVED, &[0; 64]);
        client.add_step(self.data, 1, 0);
        client.launch_at(3, arrived, 0);
        client.launch_at(2, flag, 0);
        client.add_step(self.data, 1, 0);
    }

    fn has_arrived(&self) -> bool {
        self.process.client.read_host(ARRIVED, 1) != [0]
    }

    fn end(&mut self, steps: u32) {
        let Self { process: Attached { client, .. }, data } = self;
        assert_eq!(client.words(*data, 1), [3 * steps]);
    }
}

/// A function's ranks, one on each of these GPUs.
fn ranks(server: &Server, function: &str, gpus: [u32; 2], bytes: u64) -> [Rank; 2] {
    let terms = Terms { gpus: Some(2), ..Terms::default() };
    let request = EnsureFunctionRequest { name: function.to_owned(), terms: Some(terms) };
    server.admin(async |mut api| api.ensure_function(request).await).unwrap();
    let at_first = gpus[0];
    let mut ranks = [0, 1].map(|device| {
        let mut process = attach(server, function);
        process.client.load_kernels();
        let request = LoadFunctionRequest { name: function.to_owned(), gpu: Some(at_first) };
        server.admin(async |mut api| api.load_function(request).await).unwrap();
        process.client.post(Home { device, reserved: 0 }, &[]);
        process.client.settle().unwrap();
        let data = process.client.allocate(0, bytes).unwrap();
        Rank { process, data }
    });
    let is_there = || {
        let clients = server.clients().into_iter().filter(|client| client.function == function);
        clients.map(|client| client.gpu).eq(gpus)
    };
    eventually("each rank is on its GPU", is_there);
    ranks.iter_mut().for_each(|rank| rank.process.client.settle().unwrap());
    ranks
}

/// What a program does whose ranks hear of each other: their kernels go on once all have arrived.
fn go_on(gang: &mut [Rank; 2], steps: u32) {
    eventually("both ranks are on their GPUs", || gang.iter().all(Rank::has_arrived));
    gang.iter().for_each(|rank| rank.process.client.stop_spinning());
    gang.iter_mut().for_each(|rank| rank.end(steps));
}

#[test]
fn two_functions_whose_ranks_wait_for_each_other_have_their_gpus_one_after_the_other() {
    let server = start("0,1");
    let [mut a, mut b] = ["a", "b"].map(|function| ranks(&server, function, [0, 1], 20 * MIB));
    for round in 1..5 {
        // Each function's first rank comes before the other's second one.
        for (gang, rank) in [(0, 0), (1, 1), (0, 1), (1, 0)] {
            let gang = if gang == 0 { &mut a } else { &mut b };
            gang[rank].begin();
            sleep(Duration::from_millis(50));
        }
        std::thread::scope(|scope| {
            for gang in [&mut a, &mut b] {
                scope.spawn(move || go_on(gang, 2 * round));
            }
        });
    }
}

#[test]
fn a_client_that_waits_for_a_rank_s_room_does_not_keep_its_sibling_out() {
    let server = start("0");
    let mut gang = ranks(&server, "gang", [0, 0], 8 * MIB);
    let mut other = attach(&server, "other");
    other.client.load_kernels();
    let data = other.client.allocate(0, 28 * MIB).unwrap();
    other.client.settle().unwrap();
    gang[0].begin();
    eventually("the first rank has the GPU", || gang[0].has_arrived());
    other.client.add_step(data, 1, 0);
    // Its turn is over by then, but not its work.
    sleep(Duration::from_millis(1500));
    gang[1].begin();
    go_on(&mut gang, 2);
    assert_eq!(other.client.words(data, 1), [3]);
}

#[test]
fn ranks_that_have_no_room_together_are_named_and_one_is_out_of_memory() {
    let server = start("0");
    let mut gang = ranks(&server, "crowded", [0, 0], 20 * MIB);
    gang[0].begin();
    eventually("the first rank has the GPU", || gang[0].has_arrived());
    // It waits for its turn.
    let [first, second] = &mut gang;
    let address = second.process.client.arena.address + 24 * MIB;
    let asked = second.process.client.ask_later(MemoryAllocate { address, bytes: 2 * MIB }, &[]);
    eventually("people are told", || {
        server.said("2 processes of function crowded use different devices of it")
    });
    assert_eq!(server.times_said("use different devices of it"), 1);
    eventually("it is out of memory", || second.process.client.is_answered(asked));
    assert_eq!(second.process.client.await_slot(asked), Err(CudaError::OUT_OF_MEMORY));
    first.process.client.stop_spinning();
    first.end(2);
}
