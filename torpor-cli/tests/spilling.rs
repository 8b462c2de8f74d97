//! The host pool and its files, full or failing: the function that wants too much has CUDA's error and a line in the log with the
//! numbers, nothing of anybody is lost, and all others go on.

#[allow(dead_code, reason = "the clients here use a part of it")]
#[path = "../src/driver_api/mod.rs"]
mod driver_api;
mod fault_support;
#[path = "../../torpor-gpuserver/tests/server_support/mod.rs"]
mod server_support;
mod support;

use fault_support::holder::{CHUNK, Holder};
use fault_support::node::{Node, assert_said, text};
use fault_support::program;
use fault_support::request::{Request, Value};
use server_support::server::{PATIENCE, eventually};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const OUT_OF_MEMORY: i32 = 2;
const MIB: usize = 1 << 20;

/// The program of the clients of every other test here.
#[test]
fn client_program() {
    program::serve_if_asked();
}

/// Files of chunks.
fn spill_files(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "torpor-chunk")).collect()
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
    // So that they leave in the order in which they came.
    let one = ["--active-per-gpu", "1"];
    let node = Node::start_limited(&[["--gpu-limit", "32MiB"], ["--host-pool", "16MiB"], one].concat());
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
fn five_clients_in_the_room_for_four_swap_a_few_times_and_not_with_every_piece_of_their_copies() {
    let node = Node::start_limited(&["--gpu-limit", "256MiB", "--host-pool", "1GiB"]);
    let mut clients: Vec<_> = (0..5).map(|_| node.client_of("f")).collect();
    clients.iter_mut().for_each(|client| client.tell(&Request::Overcommit(64 * MIB / size_of::<f32>())));
    for client in &mut clients {
        let answer = client.answer_within(PATIENCE).expect("it is not starved");
        assert_eq!(answer, Ok(Value::Nothing));
    }
    let swaps: u64 = node.server.functions().iter().map(|function| function.swaps).sum();
    // Each copies 96 pieces. Once for each of its three calls would be as it must be, without the chances of a busy machine.
    assert!(swaps <= 25, "{swaps} swaps");
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
fn a_disk_that_cannot_be_written_to_is_told_and_when_it_can_again_all_goes_on() {
    let (spill, letter) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let node = Node::start_limited(
        &[
            ["--gpu-limit", "16MiB", "--host-pool", "16MiB"],
            ["--host-slab", "16MiB", "--spill-dir", text(spill.path())],
        ]
        .concat(),
    );
    // Somebody's links in the place of files, which are not followed. One is gone when a write has failed for it.
    let block_files = || {
        for chunk in 0..256 {
            let name = format!("{chunk:016x}.torpor-chunk-unfinished");
            let _ = symlink(letter.path(), spill.path().join(name));
        }
    };
    let (mut a, mut b) = (Holder::with(&node, "a", 8, 100.0), Holder::with(&node, "b", 8, 200.0));
    let mut c = Holder::start(&node, "c");
    block_files();
    assert_eq!(c.take(8, 300.0), Err(OUT_OF_MEMORY));
    assert_said(&node, &["function b needs 16 MiB", "16 MiB of the host pool of 16 MiB", "File exists"]);
    assert_said(&node, &["function=c", "16777216 bytes"]);
    b.check().unwrap();
    assert!(spill_files(spill.path()).is_empty());
    assert_eq!(fs::read(letter.path()).unwrap(), b"", "a link was followed");
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
