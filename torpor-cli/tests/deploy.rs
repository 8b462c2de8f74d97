//! Functions that are deployed while everything runs: what never fits is refused with numbers, and who waits for a start is told how
//! far it is.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;
use support::running::{Running, eventually};
use support::torpor;

/// A function that takes 4 MiB, waits for a file, takes 4 MiB more, and answers.
const FUNCTION: &str = r#"
import ctypes, http.server, os, pathlib, time
cuda = ctypes.CDLL("libcuda.so.1")
def check(error):
    assert error == 0, error
check(cuda.cuInit(0))
context, address = ctypes.c_void_p(), ctypes.c_uint64()
check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
check(cuda.cuCtxSetCurrent(context))
check(cuda.cuMemAlloc_v2(ctypes.byref(address), 4 << 20))
while not pathlib.Path("go").exists():
    time.sleep(0.01)
check(cuda.cuMemAlloc_v2(ctypes.byref(address), 4 << 20))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"answer")
    do_POST = do_GET
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

struct Node {
    home: tempfile::TempDir,
    address: SocketAddr,
    _router: Running,
    _server: Running,
}

impl Node {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("function.py"), FUNCTION).unwrap();
        fs::write(home.path().join("torpor.toml"), "# ours\n[functions]\n").unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let serve = [
            "serve",
            "--driver",
            "simulated",
            "--gpu-limit",
            "64MiB",
            "--host-pool",
            "64MiB",
            "--config",
            "torpor.toml",
        ];
        let server = Running::start(torpor(home.path()).args(serve).current_dir(home.path()));
        assert!(torpor(home.path()).arg("wait").status().unwrap().success());
        let router = ["router", "--config", "torpor.toml", "--listen", &address.to_string()];
        let router = Running::start(
            torpor(home.path())
                .args(router)
                .current_dir(home.path())
                .env("DOCKER_HOST", "unix:///nowhere/docker.sock"),
        );
        let node = Self { home, address, _router: router, _server: server };
        eventually("the router listens", || TcpStream::connect(address).is_ok());
        node
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        torpor(self.path()).args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    fn deploy(&self, functions: &str) -> Output {
        let file = self.path().join("new.toml");
        fs::write(&file, functions).unwrap();
        self.run(&["deploy", file.to_str().unwrap(), "--json"])
    }

    fn ask(&self, method: &str, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "{method} /v1/functions/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: 0\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn progress(&self) -> serde_json::Value {
        let answer = self.ask("GET", "slow/progress", "");
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const SLOW: &str = "[functions.slow]\ncommand = [\"python3\", \"function.py\"]\n";

#[test]
fn who_waits_for_a_start_is_told_how_many_bytes_are_there() {
    let node = Node::start();
    let added = node.deploy(SLOW);
    assert!(added.status.success(), "{added:?}");
    let rows: serde_json::Value = serde_json::from_slice(&added.stdout).unwrap();
    assert_eq!((&rows[0]["name"], &rows[0]["deployed"]), (&"slow".into(), &"added".into()));
    assert_eq!(node.progress()["state"], "stopped");
    let url = format!("http://{}", node.address);
    let invoke = ["invoke", "slow", "--url", &url, "--progress"];
    std::thread::scope(|scope| {
        let invoked = scope.spawn(|| node.run(&invoke));
        eventually("4 MiB are there", || node.progress()["bytes"] == 4 << 20);
        assert_eq!(
            (&node.progress()["state"], &node.progress()["of_bytes"]),
            (&"starting".into(), &().into())
        );
        let late = node.ask("POST", "slow/invoke", "x-torpor-deadline: 100ms\r\n");
        assert!(
            late.starts_with("HTTP/1.1 504") && late.contains("one is starting: 4 MiB of device memory"),
            "{late}"
        );
        let body: serde_json::Value = serde_json::from_str(late.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(body["loading"]["bytes"], 4 << 20, "{body}");
        eventually("the log says so, too", || {
            text(&node.run(&["logs", "slow"]).stdout).contains("starting: 4 MiB of device")
        });
        let followed = scope.spawn(|| node.ask("GET", "slow/progress", "accept: text/event-stream\r\n"));
        // What it tells first is what it was asked in the middle of.
        std::thread::sleep(Duration::from_millis(300));
        fs::write(node.path().join("go"), "").unwrap();
        let followed = followed.join().unwrap();
        assert!(
            followed.contains("event: progress") && followed.contains("\"state\":\"ready\""),
            "{followed}"
        );
        let invoked = invoked.join().unwrap();
        assert_eq!(text(&invoked.stdout), "answer");
        assert!(text(&invoked.stderr).contains("slow is starting: 4 MiB"), "{invoked:?}");
    });
    eventually("a whole process is known", || node.progress()["of_bytes"] == 8 << 20);
    assert!(node.run(&["delete", "slow", "--forget"]).status.success());
    assert_eq!(fs::read_to_string(node.path().join("torpor.toml")).unwrap(), "# ours\n[functions]\n");
}

#[test]
fn what_never_fits_is_refused_with_both_numbers() {
    let node = Node::start();
    let too_large = format!("{SLOW}memory_limit = \"96MiB\"\n");
    let refused = node.deploy(&too_large);
    let error: serde_json::Value = serde_json::from_slice(&refused.stderr).unwrap();
    let error = error["error"].as_str().unwrap();
    assert!(error.contains("functions.slow may use 96 MiB") && error.contains("has 64 MiB"), "{error}");
    assert_eq!(refused.status.code(), Some(2));
    assert!(node.ask("POST", "slow/invoke", "").starts_with("HTTP/1.1 404"), "nothing has changed");
    // Somebody who writes it into the settings file gets no process of it either.
    fs::write(node.path().join("torpor.toml"), format!("{too_large}min_instances = 1\n")).unwrap();
    let mut answer = String::new();
    eventually("it is refused", || {
        answer = node.ask("POST", "slow/invoke", "x-torpor-deadline: 100ms\r\n");
        answer.starts_with("HTTP/1.1 507")
    });
    assert!(
        answer.contains("96 MiB") && answer.contains("64 MiB") && answer.contains("memory_limit"),
        "{answer}"
    );
    let log = text(&node.run(&["logs", "slow"]).stdout);
    assert!(log.contains("96 MiB") && !log.contains("started on"), "it takes nobody's room: {log}");
    fs::write(node.path().join("go"), "").unwrap();
    let fits = node.deploy(&format!("{SLOW}memory_limit = \"32MiB\"\n"));
    assert!(fits.status.success() && text(&fits.stdout).contains("changed"), "{fits:?}");
    assert!(node.ask("POST", "slow/invoke", "").ends_with("answer"));
    fs::write(node.path().join("new.toml"), "[scheduler]\nlinger = \"1s\"\n").unwrap();
    let others = node.run(&["deploy", node.path().join("new.toml").to_str().unwrap()]);
    assert!(text(&others.stderr).contains("other sections"), "{others:?}");
}

#[test]
fn a_function_is_deployed_by_its_image() {
    let node = Node::start();
    let by_image = ["deploy", "--image", "any/image", "--function", "boxed"];
    let added = node.run(&[&by_image[..], &["--", "python", "app.py"]].concat());
    assert!(added.status.success() && text(&added.stdout).contains("added"), "{added:?}");
    let settings = fs::read_to_string(node.path().join("torpor.toml")).unwrap();
    let section = "[functions.boxed]\nimage = \"any/image\"\ncommand = [\"python\", \"app.py\"]\n";
    assert!(settings.starts_with("# ours\n") && settings.ends_with(section), "{settings}");
    let refused = node.ask("POST", "boxed/invoke", "");
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("/nowhere/docker.sock"), "{refused}");
    for wrong in [
        &["deploy"][..],
        &["deploy", "--image", "x"],
        &["deploy", "f.toml", "--image", "x", "--function", "f"],
    ] {
        assert_eq!(node.run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}
