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
use fault_support::request::{Request, Value};
use server_support::server::{PATIENCE, eventually};
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

/// A program that is a client as soon as it is let in.
const CUDA_BEGINS: &str = "import ctypes, sys
cuda, context, address = ctypes.CDLL('libcuda.so.1'), ctypes.c_void_p(), ctypes.c_uint64()
failed = cuda.cuInit(0) or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) or cuda.cuCtxSetCurrent(context)
sys.exit(bool(failed or cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(4096))))";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Panics unless the log has a line with all these words.
fn assert_said(node: &Node, words: &[&str]) {
    let log = node.server.log();
    assert!(log.lines().any(|line| words.iter().all(|word| line.contains(word))), "{words:?} in {log}");
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
fn a_function_has_as_many_clients_as_it_may_and_others_are_let_in() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("torpor.toml");
    fs::write(&config, "[functions.many]\nmax_clients = 2").unwrap();
    let node = Node::start_limited(&["--config", text(&config)]);
    let mut clients = [node.client_of("many"), node.client_of("many")];
    let refused = node.verb(&["run", "--function", "many", "--", "python3", "-c", CUDA_BEGINS]);
    assert!(!refused.status.success());
    assert_said(&node, &["function many has 2 clients", "max_clients", "[functions.many]"]);
    node.client_of("other").compute().unwrap();
    clients.iter_mut().for_each(|client| client.compute().unwrap());
    let listed = String::from_utf8(node.verb(&["functions"]).stdout).unwrap();
    assert!(listed.lines().any(|line| line.starts_with("many") && line.contains(" 2/2 ")), "{listed}");
    clients[0].kill();
    eventually("there is room for another", || {
        node.server.functions().iter().any(|function| function.name == "many" && function.clients == 1)
    });
    node.client_of("many").compute().unwrap();
}

#[test]
fn a_node_has_as_many_clients_as_it_may() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("torpor.toml");
    fs::write(&config, "[scheduler]\nmax_clients = 2").unwrap();
    let node = Node::start_limited(&["--config", text(&config)]);
    let mut clients = [node.client_of("f"), node.client_of("g")];
    let refused = node.verb(&["run", "--function", "h", "--", "python3", "-c", CUDA_BEGINS]);
    assert!(!refused.status.success());
    assert_said(&node, &["function=\"h\"", "2 clients", "max_clients in [scheduler]"]);
    clients.iter_mut().for_each(|client| client.compute().unwrap());
    clients[0].kill();
    eventually("there is room for another", || node.server.clients().len() == 1);
    node.client_of("h").compute().unwrap();
}

#[test]
fn page_locked_memory_beyond_a_function_s_limit_is_refused_with_the_numbers() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("torpor.toml");
    // The staging of a client is 4 MiB.
    fs::write(&config, "[memory]\npinned_limit = '17MiB'\n[functions.f]\npinned_limit = '9MiB'").unwrap();
    let node = Node::start_limited(&["--config", text(&config)]);
    let mut f = [node.client_of("f"), node.client_of("f")];
    let refused = node.verb(&["run", "--function", "f", "--", "python3", "-c", CUDA_BEGINS]);
    assert!(!refused.status.success());
    assert_said(&node, &["function f wants 4 MiB", "8 MiB", "may have 9 MiB", "[functions.f]"]);
    let mut g = [node.client_of("g"), node.client_of("g")];
    assert!(!node.verb(&["run", "--function", "g", "--", "python3", "-c", CUDA_BEGINS]).status.success());
    assert_said(&node, &["function g wants 4 MiB", "16 MiB", "may have 17 MiB", "[memory]"]);
    f.iter_mut().chain(&mut g).for_each(|client| client.compute().unwrap());
    let said = |verb: &str| String::from_utf8(node.verb(&[verb]).stdout).unwrap();
    let (functions, doctor) = (said("functions"), said("doctor"));
    assert!(
        functions.lines().any(|line| line.starts_with("f ") && line.contains("8 MiB/9 MiB")),
        "{functions}"
    );
    assert!(doctor.contains("16 MiB of 17 MiB"), "{doctor}");
}

/// Loads an image of 64 KiB, another one, and that again without the first.
const LOADS_TWO_IMAGES: &str = "
import ctypes
cuda, context = ctypes.CDLL('libcuda.so.1'), ctypes.c_void_p()
assert cuda.cuInit(0) == 0 and cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
assert cuda.cuCtxSetCurrent(context) == 0
def load(letter):
    text = b'.version 8.0\\n.target sm_70\\n.address_size 64\\n.visible .entry k(){ret;}\\n//'
    image, module = text + letter * ((64 << 10) - 1 - len(text)) + b'\\0', ctypes.c_void_p()
    return cuda.cuModuleLoadData(ctypes.byref(module), image), module
first, module = load(b'a')
second, _ = load(b'b')
assert cuda.cuModuleUnload(module) == 0
print(first, second, load(b'b')[0])
";

#[test]
fn code_beyond_a_function_s_limit_is_refused_with_the_numbers() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("torpor.toml");
    fs::write(&config, "[memory]\nimage_limit = '1MiB'\n[functions.f]\nimage_limit = '100KiB'").unwrap();
    let node = Node::start_limited(&["--config", text(&config)]);
    let loads = |function: &str| {
        let output = node.verb(&["run", "--function", function, "--", "python3", "-c", LOADS_TWO_IMAGES]);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(loads("f"), "0 2 0");
    assert_said(&node, &["function f wants an image of 64 KiB", "may use 100 KiB", "[functions.f]"]);
    assert_eq!(loads("other"), "0 0 0");
    let said = |verb: &str| String::from_utf8(node.verb(&[verb]).stdout).unwrap();
    let (functions, doctor) = (said("functions"), said("doctor"));
    assert!(
        functions.lines().any(|line| line.starts_with("f ") && line.contains("0 B/100 KiB")),
        "{functions}"
    );
    assert!(functions.lines().any(|line| line.contains("0 B/512 KiB")), "{functions}");
    assert!(doctor.contains("images:     128 KiB in files, at most 1 MiB"), "{doctor}");
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
