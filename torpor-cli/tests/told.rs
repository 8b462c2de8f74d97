//! The router's word: a function's memory is on its GPU before the program's first CUDA call, and its turn ends with the answer.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use support::running::{Running, eventually};
use support::torpor;

/// A function with 4 MiB, whose requests call CUDA only when a file is there.
const FUNCTION: &str = r#"
import ctypes, http.server, os, pathlib, time
cuda = ctypes.CDLL("libcuda.so.1")
def check(error):
    assert error == 0, error
check(cuda.cuInit(0))
context, device = ctypes.c_void_p(), ctypes.c_int()
check(cuda.cuDeviceGet(ctypes.byref(device), 0))
check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
address, word = ctypes.c_uint64(), ctypes.c_uint32()
check(cuda.cuCtxSetCurrent(context))
check(cuda.cuMemAlloc_v2(ctypes.byref(address), 4 << 20))
check(cuda.cuMemsetD32_v2(address, 7, 1 << 20))
check(cuda.cuCtxSynchronize())
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
        check(cuda.cuCtxSetCurrent(context))
        check(cuda.cuMemcpyDtoH_v2(ctypes.byref(word), address, 4))
        self.do_GET()
        self.wfile.write(str(word.value).encode())
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

fn json(home: &Path, arguments: &[&str]) -> serde_json::Value {
    let output = torpor(home).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// State, and bytes on the GPU.
fn listed(home: &Path) -> (String, u64) {
    let functions = json(home, &["functions", "--json"]);
    let told = functions.as_array().unwrap().iter().find(|function| function["name"] == "told").unwrap();
    (told["state"].as_str().unwrap().to_owned(), told["resident_bytes"].as_u64().unwrap())
}

fn post(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = "POST /v1/functions/told/invoke HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn memory_is_there_before_the_first_call_and_the_turn_ends_with_the_answer() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    std::fs::write(home.join("function.py"), FUNCTION).unwrap();
    let settings = "[functions.told]\ncommand = [\"python3\", \"function.py\"]\nmin_instances = 1\n";
    std::fs::write(home.join("torpor.toml"), settings).unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Without the router's word a turn would last for an hour.
    let serve =
        ["serve", "--driver", "simulated", "--linger", "1h", "--host-pool", "64MiB", "--host-slab", "16MiB"];
    let _server = Running::start(torpor(home).args(serve));
    assert!(torpor(home).arg("wait").status().unwrap().success());
    let router = ["router", "--config", "torpor.toml", "--listen", &address.to_string()];
    let _router = Running::start(torpor(home).args(router).current_dir(home));
    eventually("the router listens", || TcpStream::connect(address).is_ok());
    std::fs::write(home.join("go"), "").unwrap();
    assert!(post(address).ends_with("\r\n\r\n7"));
    eventually("its turn is over", || listed(home).0 == "idle");
    assert!(torpor(home).args(["unload", "told"]).status().unwrap().success());
    assert_eq!(listed(home).1, 0);
    std::fs::remove_file(home.join("go")).unwrap();
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| post(address));
        eventually("its memory is there", || listed(home) == ("active".to_owned(), 4 << 20));
        std::fs::write(home.join("go"), "").unwrap();
        let answer = answer.join().unwrap();
        assert!(answer.ends_with("\r\n\r\n7") && answer.contains("x-torpor-start: swap\r\n"), "{answer}");
    });
    let again = post(address);
    assert!(
        again.contains("x-torpor-start: hot\r\n") && again.contains(", swap;dur=0.000, gpu;dur="),
        "{again}"
    );
    eventually("its turn is over", || listed(home).0 == "idle");
    // The router asks the node server once for all that want to know within a second.
    eventually("top shows it", || {
        let top = json(home, &["top", "--json"]);
        let told = top["functions"].as_array().unwrap().iter().find(|function| function["name"] == "told");
        told.is_some_and(|told| {
            (&told["node"]["resident_bytes"], &told["served"]["waiting"]) == (&(4 << 20).into(), &0.into())
        })
    });
    let once = torpor(home).args(["top", "--once"]).output().unwrap();
    let once = String::from_utf8(once.stdout).unwrap();
    assert!(once.contains("told") && once.contains("(simulated)") && !once.contains("no router"), "{once}");
}
