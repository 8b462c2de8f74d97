//! Limits that are reached, over the preloaded library, the server, a worker and the simulated GPU: the function that
//! wants too much has CUDA's error and a line in the log with the numbers, nothing of anybody is lost, and all others go on.

#[allow(dead_code, reason = "the clients here use a part of it")]
#[path = "../src/driver_api/mod.rs"]
mod driver_api;
mod fault_support;
#[path = "../../torpor-gpuserver/tests/server_support/mod.rs"]
mod server_support;
mod support;

use fault_support::client::Client;
use fault_support::node::Node;
use fault_support::program;
use fault_support::request::Request;
use server_support::server::eventually;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const OUT_OF_MEMORY: i32 = 2;
const MIB: usize = 1 << 20;
const CHUNK: usize = 2 * MIB;

/// The program of the clients of every other test here.
#[test]
fn client_program() {
    program::serve_if_asked();
}

/// A client with chunks in which nothing is zero or like another's.
struct Holder {
    client: Client,
    memory: u64,
    contents: Vec<f32>,
}

impl Holder {
    /// A process of a function, with nothing.
    fn start(node: &Node, function: &str) -> Self {
        Self { client: node.client_of(function), memory: 0, contents: Vec::new() }
    }

    /// A process of a function, with so many chunks.
    fn with(node: &Node, function: &str, chunks: usize, seed: f32) -> Self {
        let mut holder = Self::start(node, function);
        holder.take(chunks, seed).unwrap();
        holder
    }

    fn take(&mut self, chunks: usize, seed: f32) -> Result<(), i32> {
        self.memory = self.client.allocate(chunks * CHUNK)?;
        self.contents = (0..chunks).map(|index| seed + index as f32).collect();
        for (index, &number) in self.contents.iter().enumerate() {
            self.client.ask(&Request::Write(self.memory + (index * CHUNK) as u64, vec![number]))?;
        }
        Ok(())
    }

    /// Panics if something is not as it was written. The error is of the call that failed.
    fn check(&mut self) -> Result<(), i32> {
        for (index, &number) in self.contents.iter().enumerate() {
            let read = self.client.read(self.memory + (index * CHUNK) as u64, 1)?;
            assert_eq!(read, [number], "chunk {index} is not as it was written");
        }
        Ok(())
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Panics unless the log has a line with all these words.
fn assert_said(node: &Node, words: &[&str]) {
    let log = node.server.log();
    assert!(log.lines().any(|line| words.iter().all(|word| line.contains(word))), "{words:?}");
}

/// Files of chunks.
fn spill_files(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "torpor-chunk")).collect()
}

#[test]
fn an_allocation_beyond_the_limit_is_refused_and_told_once_until_the_limit_is_raised() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("torpor.toml");
    fs::write(&config, "[functions.small]\nmemory_limit = '8MiB'").unwrap();
    let node = Node::start_limited(&["--config", text(&config)]);
    let (mut small, mut other) = (Holder::with(&node, "small", 2, 1.0), node.client_of("other"));
    other.compute().unwrap();
    for bytes in [6 * MIB, 8 * MIB, 16 * MIB, 1 << 40, usize::MAX] {
        assert_eq!(small.client.allocate(bytes), Err(OUT_OF_MEMORY), "{bytes}");
    }
    assert_said(&node, &["function=small", "6291456 bytes", "4194304", "8388608", "memory_limit"]);
    assert_eq!(node.server.times_said("out of memory"), 1);
    small.check().expect("the error does not stick");
    small.client.allocate(4 * MIB).expect("as much as the limit leaves");
    other.compute().unwrap();
    fs::write(&config, "[functions.small]\nmemory_limit = '32MiB'").unwrap();
    eventually("the new limit is usable", || small.client.allocate(16 * MIB).is_ok());
    small.check().unwrap();
    other.compute().unwrap();
}

#[test]
fn a_function_that_the_host_pool_cannot_take_stays_on_the_gpu_and_the_next_one_is_refused() {
    let node = Node::start_limited(&["--gpu-limit", "32MiB", "--host-pool", "8MiB"]);
    let mut first = Holder::with(&node, "first", 10, 1.0);
    let mut second = Holder::start(&node, "second");
    assert_eq!(second.take(10, 100.0), Err(OUT_OF_MEMORY));
    assert_said(&node, &["function first needs 20 MiB of host memory", "the host pool is 8 MiB"]);
    assert_said(&node, &["function=second", "20971520 bytes", "33554432"]);
    first.check().unwrap();
    second.take(4, 200.0).expect("what the GPU has beside the first");
    for _ in 0..2 {
        first.check().unwrap();
        second.check().unwrap();
    }
    drop(first);
    second.take(10, 300.0).expect("the first is gone");
    second.check().unwrap();
}

#[test]
fn when_gpu_and_host_pool_are_full_allocations_fail_and_nothing_is_lost() {
    let node = Node::start_limited(&["--gpu-limit", "32MiB", "--host-pool", "16MiB"]);
    let [mut a, mut b, mut c] =
        [("a", 100.0), ("b", 200.0), ("c", 300.0)].map(|(name, seed)| Holder::with(&node, name, 8, seed));
    let mut d = Holder::start(&node, "d");
    assert_eq!(d.take(8, 400.0), Err(OUT_OF_MEMORY));
    assert_said(&node, &["function b needs 16 MiB", "16 MiB of the host pool of 16 MiB", "--spill-dir"]);
    assert_said(&node, &["function=d", "16777216 bytes", "33554432"]);
    b.check().unwrap();
    c.check().unwrap();
    // Nobody can make room for the one that is on the host.
    assert_eq!(a.check(), Err(OUT_OF_MEMORY));
    b.check().unwrap();
    drop(c);
    eventually("there is room again", || a.check().is_ok());
    b.check().unwrap();
    assert_eq!(node.server.gpus()[0].worker_restarts, 0);
}

#[test]
fn what_the_host_pool_has_no_room_for_lies_in_files_that_doctor_checks() {
    let spill = tempfile::tempdir().unwrap();
    let node = Node::start_limited(
        &[
            ["--gpu-limit", "16MiB", "--host-pool", "16MiB"],
            ["--host-slab", "4MiB", "--spill-dir", text(spill.path())],
        ]
        .concat(),
    );
    let names = ["a", "b", "c", "d"];
    let mut holders: Vec<_> = (100..)
        .step_by(100)
        .zip(names)
        .map(|(seed, name)| Holder::with(&node, name, 6, seed as f32))
        .collect();
    for _ in 0..3 {
        holders.iter_mut().for_each(|holder| holder.check().unwrap());
    }
    // 24 chunks, of which the pool has 8 and the GPU another 8.
    assert!(spill_files(spill.path()).len() >= 8);
    let listed = node.server.functions();
    let spilled: u64 = listed.iter().map(|function| function.spilled_bytes).sum();
    assert_eq!(spilled, (spill_files(spill.path()).len() * CHUNK) as u64);
    let well = node.verb(&["doctor"]);
    let said = String::from_utf8(well.stdout).unwrap();
    assert!(well.status.success() && said.ends_with("no problems\n"), "{said}");

    let victim = &spill_files(spill.path())[0];
    let mut bytes = fs::read(victim).unwrap();
    bytes[CHUNK - 1] ^= 1;
    fs::write(victim, bytes).unwrap();
    let ill = node.verb(&["doctor", "--json"]);
    assert_eq!(ill.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&ill.stdout).unwrap();
    let problem = &report["problems"][0];
    let what = problem["what"].as_str().unwrap();
    assert!(what.contains("of function ") && what.contains(text(victim)), "{what}");
    assert!(problem["remedy"].as_str().unwrap().contains("restart"));
    let told = String::from_utf8(node.verb(&["doctor"]).stdout).unwrap();
    assert!(told.contains(&format!("problem: {what}\n  restart")), "{told}");
    let name = what.split("of function ").nth(1).unwrap().split(':').next().unwrap();
    let index = names.iter().position(|other| *other == name).unwrap();
    assert_eq!(holders[index].check(), Err(OUT_OF_MEMORY), "damaged memory is given to nobody");
    assert_said(&node, &[&format!("function {name}"), "damaged"]);
    drop(holders.remove(index));
    for _ in 0..2 {
        holders.iter_mut().for_each(|holder| holder.check().unwrap());
    }
    holders.clear();
    eventually("all files are gone", || spill_files(spill.path()).is_empty());
    assert!(node.verb(&["doctor"]).status.success());
}

#[test]
fn a_function_grows_though_its_own_copy_fills_the_host_pool_that_the_others_need() {
    let spill = tempfile::tempdir().unwrap();
    let flags = [
        ["--gpu-limit", "16MiB", "--host-pool", "16MiB"],
        ["--host-slab", "16MiB", "--spill-dir", text(spill.path())],
    ];
    let node = Node::start_limited(&flags.concat());
    let mut grows = Holder::with(&node, "grows", 4, 100.0);
    let mut other = Holder::with(&node, "other", 8, 200.0);
    grows.check().unwrap();
    let mut small = Holder::with(&node, "small", 4, 300.0);
    grows.check().unwrap();
    // The other's copy, this one's and that of the small one, which has to leave now, are more than the pool.
    let more = grows.client.allocate(4 * CHUNK).unwrap();
    grows.client.ask(&Request::Write(more, vec![5.0])).unwrap();
    for holder in [&mut other, &mut small, &mut grows] {
        holder.check().unwrap();
    }
    assert_eq!(grows.client.read(more, 1).unwrap(), [5.0]);
}

#[test]
fn when_the_spill_limit_is_reached_too_allocations_fail_and_nothing_is_lost() {
    let spill = tempfile::tempdir().unwrap();
    let node = Node::start_limited(
        &[
            ["--gpu-limit", "16MiB", "--host-pool", "16MiB"],
            ["--spill-limit", "8MiB", "--spill-dir", text(spill.path())],
        ]
        .concat(),
    );
    let (mut a, mut b) = (Holder::with(&node, "a", 8, 100.0), Holder::with(&node, "b", 4, 200.0));
    let mut c = Holder::start(&node, "c");
    c.take(8, 300.0).expect("4 chunks of the others are in files");
    let mut d = Holder::start(&node, "d");
    assert_eq!(d.take(8, 400.0), Err(OUT_OF_MEMORY));
    assert_said(&node, &["function c needs 16 MiB", "8 MiB of the spill limit of 8 MiB", "--spill-limit"]);
    assert_said(&node, &["function=d", "16777216 bytes"]);
    c.check().unwrap();
    drop(c);
    for _ in 0..2 {
        a.check().unwrap();
        b.check().unwrap();
    }
}

#[test]
fn a_full_disk_is_told_and_when_it_has_room_again_all_goes_on() {
    let spill = tempfile::tempdir().unwrap();
    let node = Node::start_limited(
        &[
            ["--gpu-limit", "16MiB", "--host-pool", "16MiB"],
            ["--host-slab", "16MiB", "--spill-dir", text(spill.path())],
        ]
        .concat(),
    );
    // Writing to /dev/full fails as writing to a full disk does. A link is gone when a write through it has failed.
    let fill_disk = || {
        for chunk in 0..256 {
            let _ = symlink("/dev/full", spill.path().join(format!("{chunk:016x}.torpor-chunk-unfinished")));
        }
    };
    let (mut a, mut b) = (Holder::with(&node, "a", 8, 100.0), Holder::with(&node, "b", 8, 200.0));
    let mut c = Holder::start(&node, "c");
    fill_disk();
    assert_eq!(c.take(8, 300.0), Err(OUT_OF_MEMORY));
    assert_said(
        &node,
        &["function b needs 16 MiB", "16 MiB of the host pool of 16 MiB", "No space left on device"],
    );
    assert_said(&node, &["function=c", "16777216 bytes"]);
    b.check().unwrap();
    assert!(spill_files(spill.path()).is_empty());
    for entry in fs::read_dir(spill.path()).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_symlink() {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    eventually("there is room again", || c.take(8, 300.0).is_ok());
    for holder in [&mut a, &mut b, &mut c] {
        holder.check().unwrap();
    }
}
