//! Limits that are reached, over the preloaded library, the server, a worker and the simulated GPU: the function that
//! wants too much has CUDA's error and a line in the log with the numbers, nothing of anybody is lost, and all others go on.

#[allow(dead_code, reason = "the clients here use a part of it")]
#[path = "../src/driver_api/mod.rs"]
mod driver_api;
mod fault_support;
#[path = "../../torpor-gpuserver/tests/server_support/mod.rs"]
mod server_support;
mod support;

use fault_support::holder::Holder;
use fault_support::node::{Node, assert_said, text};
use fault_support::program;
use server_support::server::eventually;
use std::fs;

const OUT_OF_MEMORY: i32 = 2;
const MIB: usize = 1 << 20;

/// The program of the clients of every other test here.
#[test]
fn client_program() {
    program::serve_if_asked();
}

/// A program that is a client as soon as it is let in.
const CUDA_BEGINS: &str = "import ctypes, sys
cuda, context, address = ctypes.CDLL('libcuda.so.1'), ctypes.c_void_p(), ctypes.c_uint64()
failed = cuda.cuInit(0) or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) or cuda.cuCtxSetCurrent(context)
sys.exit(bool(failed or cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(4096))))";

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
    // The two texts, and what the compiler made of them.
    assert!(doctor.contains(" KiB in files, at most 1 MiB"), "{doctor}");
}
