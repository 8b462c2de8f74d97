//! A router with functions that need no GPU: `torpor run` is stood in for by a script that starts the command as it is.

#![allow(dead_code, reason = "each of the test programs that share this uses a part of it")]

pub mod engine;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A function: echoes a request's path, headers and body; `/sleep?ms=N` answers later, `/die` never, `/stream` in pieces.
pub const ENDPOINT: &str = r#"
import http.server, json, os, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def answer(self, body, status=200):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-from", "function")
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/health":
            return self.answer(b"")
        self.do_POST()
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path.startswith("/invoke/die"):
            os._exit(3)
        if self.path.startswith("/invoke/sleep"):
            time.sleep(int(self.path.rpartition("=")[2]) / 1000)
        if self.path.startswith("/invoke/big"):
            return self.answer(b"x" * (int(self.path.rpartition("=")[2]) << 20))
        if "smuggled" in self.path:
            print("smuggled", flush=True)
        if self.path.startswith("/invoke/stream"):
            self.send_response(200); self.send_header("transfer-encoding", "chunked"); self.end_headers()
            for piece in (b"one", b"two", b"three"):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece)); self.wfile.flush(); time.sleep(0.05)
            return self.wfile.write(b"0\r\n\r\n")
        if "x-torpor-batch" in self.headers and "wrong" not in self.path:
            bodies = json.loads(body)
            if "inputs" in bodies:
                x = bodies["inputs"][0]
                out = {"name": "y", "shape": x["shape"], "datatype": "FP32", "data": [2 * v for v in x["data"]]}
                return self.answer(json.dumps({"model_name": "m", "outputs": [out]}).encode())
            return self.answer(json.dumps([{"of": len(bodies), "you": one} for one in bodies]).encode())
        told = {"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}, "body": body.decode(), "pid": os.getpid()}
        self.answer(json.dumps(told).encode())
print("serving", flush=True)
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
server.serve_forever()
"#;

/// A router process in a directory of its own.
pub struct Router {
    child: Child,
    pub directory: Arc<tempfile::TempDir>,
    pub address: SocketAddr,
}

impl Router {
    /// Starts one with functions: text for the settings file, in which ENDPOINT is the command of [`ENDPOINT`].
    pub fn start(functions: &str) -> Self {
        Self::start_with(functions, &[])
    }

    /// The same with variables in its environment.
    pub fn start_with(functions: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), functions, variables)
    }

    /// The same in a directory in which one may have been before.
    pub fn start_in(directory: Arc<tempfile::TempDir>, functions: &str, variables: &[(&str, &str)]) -> Self {
        let path = |name: &str| directory.path().join(name);
        fs::write(path("endpoint.py"), ENDPOINT).unwrap();
        // `torpor run --directory D --function F -- COMMAND...`
        let torpor = path("torpor");
        fs::write(&torpor, "#!/bin/sh\nshift 6\nexec \"$@\"\n").unwrap();
        fs::set_permissions(&torpor, fs::Permissions::from_mode(0o755)).unwrap();
        let router = path("torpor-router");
        // One that is executed cannot be written to.
        let _ = fs::remove_file(&router);
        fs::copy(env!("CARGO_BIN_EXE_torpor-router"), &router).unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        write_settings(directory.path(), functions);
        let mut command = Command::new(router);
        command.args(["--listen", &address.to_string(), "--config"]).arg(path("torpor.toml"));
        command.arg("--directory").arg(directory.path()).stdin(Stdio::null());
        command.envs(variables.iter().copied());
        let child = loop {
            match command.spawn() {
                // A process that another test is starting has not yet closed what it had of the copy.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                started => break started.unwrap(),
            }
        };
        let router = Self { child, directory, address };
        router.eventually("the router listens", || TcpStream::connect(router.address).is_ok());
        router
    }

    /// Writes other functions into its settings file.
    pub fn settings(&self, functions: &str) {
        write_settings(self.directory.path(), functions);
    }

    /// Waits until something holds.
    pub fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < PATIENCE, "never: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends bytes as they are, and reads until the connection is closed.
    pub fn raw(&self, request: &[u8]) -> Answer {
        Self::raw_at(self.address, request)
    }

    /// As [`Self::raw`], to another address of it.
    pub fn raw_at(address: SocketAddr, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Who is answered before all of it is sent may find that the router has hung up: what it answered is there to be read.
        let _ = stream.write_all(request);
        Answer::read(&mut stream)
    }

    /// POSTs a body.
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.raw(&request("POST", path, headers, body))
    }

    /// Asks the admin socket.
    pub fn admin(&self, method: &str, path: &str, body: &str) -> Answer {
        let connect = || UnixStream::connect(self.directory.path().join("router.sock"));
        // It is made after the router listens.
        self.eventually("the router has its admin socket", || connect().is_ok());
        let mut stream = connect().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&request(method, path, &[("content-type", "application/json")], body)).unwrap();
        Answer::read(&mut stream)
    }

    /// A metric's value; 0 if there is none.
    pub fn metric(&self, line: &str) -> f64 {
        let text = self.admin("GET", "/metrics", "").body;
        text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0.0)
    }

    /// Physical memory of its process.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Kills it. Gives its directory.
    pub fn kill(mut self) -> Arc<tempfile::TempDir> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.directory.clone()
    }

    /// Asks it to end, and returns how it did.
    pub fn end(mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let pid = rustix::process::Pid::from_child(&self.child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

fn write_settings(directory: &Path, functions: &str) {
    let endpoint: PathBuf = directory.join("endpoint.py");
    let text = functions.replace("ENDPOINT", &format!("[\"python3\", {endpoint:?}]"));
    fs::write(directory.join("torpor.new"), text).unwrap();
    fs::rename(directory.join("torpor.new"), directory.join("torpor.toml")).unwrap();
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: router\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
        .into_bytes()
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    fn read(stream: &mut impl Read) -> Self {
        let mut bytes = Vec::new();
        // A connection that breaks off has said what it said.
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let head = head.to_lowercase();
        let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
        Self { status, head, body }
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

fn unchunk(body: &str) -> String {
    let mut lines = body.split("\r\n");
    let mut whole = String::new();
    while let Some(size) =
        lines.next().and_then(|line| usize::from_str_radix(line, 16).ok()).filter(|&size| size > 0)
    {
        let piece = lines.next().unwrap_or_default();
        assert_eq!(piece.len(), size);
        whole.push_str(piece);
    }
    whole
}
