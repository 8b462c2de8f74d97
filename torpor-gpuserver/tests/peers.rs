//! Moves between two simulated GPUs whose memory comes from the GPU that the client leaves, and what ends in the middle of that.

mod migrating;
mod served;
mod server_support;
mod worker_support;

use migrating::{Program, start, start_with, start_with_gpus, worker_pid};
use rustix::process::{Signal, kill_process};
use server_support::follower::Follower;
use server_support::server::{Server, eventually};
use torpor_proto::control::event::event::What;
use torpor_proto::error::CudaError;

const MIB: u64 = 1 << 20;

/// GPUs between which a part of a landing takes a while.
const SLOW: &str = "h200:peer_gbps=0.1";

/// Segments of a program, each with other contents; one is zero.
const SEGMENTS: [u64; 4] = [4 * MIB, 12 * MIB, 2 * MIB, 18 * MIB];

fn contents(segment: usize, bytes: u64) -> Vec<u8> {
    let mix = |at: u64| (at + segment as u64 * 1000).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..bytes / 8).flat_map(|at| mix(at).to_le_bytes()).collect()
}

/// A program with [`SEGMENTS`], whose first word it counts in.
struct Model {
    program: Program,
    segments: Vec<(u64, Vec<u8>)>,
    counted: u32,
}

impl Model {
    fn start(server: &Server, name: &str) -> Self {
        let mut program = Program::start(server, name);
        let mut segments = Vec::new();
        for (at, bytes) in SEGMENTS.into_iter().enumerate() {
            let address = program.client.allocate(at as u64 * 32 * MIB, bytes).unwrap();
            if at == 2 {
                segments.push((address, vec![0; bytes as usize]));
                continue;
            }
            let contents = contents(at, bytes);
            program.client.upload(address + MIB, &contents[MIB as usize..]);
            segments.push((address, [vec![0; MIB as usize], contents[MIB as usize..].to_vec()].concat()));
        }
        program.client.settle().unwrap();
        Self { program, segments, counted: 0 }
    }

    fn count(&mut self) {
        let (data, _) = self.segments[0];
        self.program.client.add_step(data, 1, 0);
        self.counted += 3;
        self.segments[0].1[..4].copy_from_slice(&self.counted.to_le_bytes());
    }

    /// All of its memory is what it wrote.
    fn check(&mut self) {
        for (address, contents) in &self.segments {
            let found = self.program.client.download(*address, contents.len());
            let differs = found.iter().zip(contents).position(|(found, wrote)| found != wrote);
            assert_eq!(differs, None, "segment at {address:#x}");
        }
    }
}

fn from_peers_bytes(server: &Server) -> u64 {
    server.gpus().iter().map(|gpu| gpu.from_peers_bytes).sum()
}

fn wait_for_links(server: &Server) {
    eventually("memory can come both ways", || server.times_said("memory comes from GPU to GPU") == 2);
}

#[test]
fn what_a_client_has_comes_from_the_gpu_that_it_leaves_and_is_the_same() {
    let server = start();
    wait_for_links(&server);
    let landings: Vec<u64> = server.gpus().iter().map(|gpu| gpu.landing_bytes).collect();
    assert_eq!(landings, [32 * MIB; 2]);
    let mut model = Model::start(&server, "f");
    let (here, elsewhere) = model.program.gpus(&server);
    let follower = Follower::new(&server);
    for gpu in [elsewhere, here].into_iter().cycle().take(10) {
        model.count();
        model.program.move_to(&server, gpu).unwrap();
        model.check();
    }
    let bytes = from_peers_bytes(&server);
    // Of the 34 MiB that are not zero, most of the times all.
    assert!(bytes > 170 * MIB, "{bytes} bytes of 340 MiB");
    let from_peer = |what: &What| matches!(what, What::SwappedIn(it) if it.peer_bytes > 0);
    follower.until("it is told where memory came from", "f", from_peer);
    // Nothing of it is left where it was.
    model.program.move_to(&server, here).unwrap();
    eventually("it is given back", || {
        let gpu = &server.gpus()[elsewhere as usize];
        gpu.total_memory_bytes - gpu.free_memory_bytes < 34 * MIB + gpu.landing_bytes
    });
}

#[test]
fn clients_that_come_at_once_have_their_own_memory() {
    let server = start_with(&["--gpu-limit", "256MiB", "--host-pool", "256MiB", "--pinned-limit", "64MiB"]);
    wait_for_links(&server);
    let mut models: Vec<_> = (0..3).map(|at| Model::start(&server, &format!("f{at}"))).collect();
    for round in 0..6 {
        std::thread::scope(|scope| {
            for model in &mut models {
                let server = &server;
                scope.spawn(move || {
                    model.count();
                    model.program.move_to(server, round % 2).unwrap();
                    model.check();
                });
            }
        });
    }
    assert!(from_peers_bytes(&server) > 0);
}

#[test]
fn where_gpus_do_not_reach_each_other_memory_comes_from_the_host() {
    for server in [start_with_gpus("h200:peer_gbps=0", &[]), start_with(&["--peer-buffer", "0B"])] {
        let mut model = Model::start(&server, "f");
        let (_, elsewhere) = model.program.gpus(&server);
        model.program.move_to(&server, elsewhere).unwrap();
        model.check();
        let gpus = server.gpus();
        assert!(gpus.iter().all(|gpu| (gpu.from_peers_bytes, gpu.landing_bytes) == (0, 0)));
        assert!(gpus[elsewhere as usize].from_host_bytes >= 34 * MIB);
    }
}

/// The first parts may come too late, where all CPUs are taken.
fn move_until_memory_comes_from_the_other_gpu(server: &Server, model: &mut Model) {
    let before = from_peers_bytes(server);
    eventually("memory comes from the other GPU", || {
        let (_, elsewhere) = model.program.gpus(server);
        model.program.move_to(server, elsewhere).unwrap();
        model.check();
        from_peers_bytes(server) > before
    });
}

/// Moves a client over slow links, and does something when some of its memory has come.
fn in_the_middle(server: &Server, model: &mut Model, meanwhile: impl FnOnce(u32, u32)) {
    let came = || server.gpus().iter().map(|gpu| gpu.from_peers_bytes + gpu.from_host_bytes).sum::<u64>();
    let (before, (here, elsewhere)) = (came(), model.program.gpus(server));
    std::thread::scope(|scope| {
        // Whoever waits for it may see the worker end.
        scope.spawn(|| drop(model.program.move_to(server, elsewhere)));
        eventually("a part has come", || came() > before);
        meanwhile(here, elsewhere);
    });
}

#[test]
fn what_has_not_come_when_the_worker_dies_that_has_it_comes_from_the_host() {
    let server = start_with_gpus(SLOW, &[]);
    wait_for_links(&server);
    let mut model = Model::start(&server, "f");
    in_the_middle(&server, &mut model, |here, _| {
        kill_process(worker_pid(&server, here), Signal::KILL).unwrap();
    });
    model.count();
    model.check();
    eventually("there are links again", || server.times_said("memory comes from GPU to GPU") == 4);
    move_until_memory_comes_from_the_other_gpu(&server, &mut model);
}

#[test]
fn a_worker_that_dies_with_half_of_a_client_s_memory_loses_none() {
    let server = start_with_gpus(SLOW, &[]);
    wait_for_links(&server);
    let mut model = Model::start(&server, "f");
    in_the_middle(&server, &mut model, |_, elsewhere| {
        kill_process(worker_pid(&server, elsewhere), Signal::KILL).unwrap();
    });
    model.count();
    model.check();
    assert_eq!(model.program.client.channel.sticky_error(), None::<CudaError>);
}

#[test]
fn a_server_that_goes_on_where_another_was_killed_makes_links_of_its_own() {
    let server = start_with_gpus(SLOW, &["--keeper", "true"]);
    wait_for_links(&server);
    let mut model = Model::start(&server, "f");
    in_the_middle(&server, &mut model, |_, _| server.kill_for_the_next());
    model.count();
    model.check();
    eventually("there are links again", || server.times_said("memory comes from GPU to GPU") == 4);
    let landings = || server.gpus().iter().map(|gpu| gpu.landing_bytes).collect::<Vec<u64>>();
    eventually("the others are given back", || landings() == [32 * MIB; 2]);
    move_until_memory_comes_from_the_other_gpu(&server, &mut model);
    assert_eq!(model.program.client.channel.sticky_error(), None::<CudaError>);
}

#[test]
fn nothing_is_left_of_a_client_that_ends_half_way() {
    let server = start_with_gpus(SLOW, &[]);
    wait_for_links(&server);
    let mut model = Model::start(&server, "f");
    in_the_middle(&server, &mut model, |_, _| {});
    drop(model);
    eventually("its memory is given back", || {
        let used = |gpu: &torpor_proto::control::admin::Gpu| gpu.total_memory_bytes - gpu.free_memory_bytes;
        server.gpus().iter().all(|gpu| used(gpu) <= gpu.landing_bytes + 8 * MIB)
    });
    // The links are as good as before.
    let mut other = Model::start(&server, "other");
    move_until_memory_comes_from_the_other_gpu(&server, &mut other);
}
