//! A node: the server over a simulated GPU, `torpor-kube`, and whom it talks to.

#![allow(dead_code, reason = "each of the test programs that share this uses a part of it")]

pub mod api_server;
pub mod kubelet;
pub mod process;

use process::{Process, eventually, kube, part};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio::runtime::Runtime;
use torpor_proto::control::admin::admin_client::AdminClient;
use torpor_proto::control::admin::{Function, Gpu, ListFunctionsRequest, ListGpusRequest};
use torpor_proto::directory::ServerDirectory;

/// A node of a cluster.
pub struct Node {
    // Before the folder with their logs is gone.
    server: Option<Process>,
    kube: Option<Process>,
    pub runtime: Runtime,
    pub home: tempfile::TempDir,
}

impl Node {
    /// With nothing that runs.
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("kubelet/plugins_registry")).unwrap();
        std::fs::create_dir_all(home.path().join("kubelet/device-plugins")).unwrap();
        Self { home, runtime: runtime.unwrap(), server: None, kube: None }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn directory(&self) -> ServerDirectory {
        ServerDirectory::new(self.path("torpor"))
    }

    /// Starts the node server, and waits until it serves.
    pub fn start_server(&mut self) {
        let program = part("torpor-gpuserver");
        let mut command = Command::new(&program);
        command.arg("serve").arg("--directory").arg(self.directory().path());
        command.args([
            "--driver",
            "simulated",
            "--gpus",
            "0",
            "--host-pool",
            "16MiB",
            "--pinned-limit",
            "64MiB",
        ]);
        command.args(["--staging", "4MiB"]);
        command.env("TORPOR_GPUSERVER", program).env("TORPOR_SIMGPU", part("libtorpor_simgpu.so"));
        command.env_remove("TORPOR_CONFIG");
        let server = Process::start(command, &self.path("server.log"));
        eventually("the node server serves", || server.said("serving"));
        self.server = Some(server);
    }

    pub fn kill_server(&mut self) {
        self.server = None;
    }

    /// Starts `torpor-kube`.
    pub fn start_kube(&mut self, way: &str, flags: &[&str]) {
        let mut command = kube();
        command.arg(way).arg("--directory").arg(self.directory().path());
        command
            .arg("--kubelet-dir")
            .arg(self.path("kubelet"))
            .arg("--install-dir")
            .arg(self.path("installed"));
        command.args(flags).env("TORPOR_INTERCEPT", part("libtorpor_intercept.so"));
        command.env("KUBECONFIG", self.path("kubeconfig"));
        self.kube = None;
        self.kube = Some(Process::start(command, &self.path("kube.log")));
    }

    /// Kills it, so that its sockets stay.
    pub fn kill_kube(&mut self) {
        self.kube = None;
    }

    /// Ends it as the kubelet does.
    pub fn end_kube(&mut self) {
        let mut kube = self.kube.take().unwrap();
        signal(kube.pid(), Signal::TERM);
        assert!(kube.wait().success());
    }

    pub fn kube_said(&self, text: &str) -> bool {
        self.kube.as_ref().unwrap().said(text)
    }

    pub fn functions(&self) -> Vec<Function> {
        let listed = async |mut api: AdminClient<_>| api.list_functions(ListFunctionsRequest {}).await;
        self.runtime.block_on(async { listed(self.admin().await).await }).unwrap().into_inner().functions
    }

    pub fn function(&self, name: &str) -> Option<Function> {
        self.functions().into_iter().find(|function| function.name == name)
    }

    pub fn gpus(&self) -> Vec<Gpu> {
        self.runtime
            .block_on(async { self.admin().await.list_gpus(ListGpusRequest {}).await })
            .unwrap()
            .into_inner()
            .gpus
    }

    /// Stops the GPU's worker, as a driver that hangs does; what goes on again when it is let go on is given.
    pub fn hang_worker(&self) -> u32 {
        let worker = self.gpus()[0].worker_pid;
        signal(worker, Signal::STOP);
        worker
    }

    pub fn go_on(&self, worker: u32) {
        signal(worker, Signal::CONT);
    }

    async fn admin(&self) -> AdminClient<tonic::transport::Channel> {
        let address = format!("unix://{}", self.directory().admin_socket().display());
        AdminClient::new(tonic::transport::Endpoint::from_shared(address).unwrap().connect().await.unwrap())
    }
}

/// A container that has mounts (host, container) and variables, and otherwise nothing of Torpor. It is only thought: paths in it are
/// those of the host.
#[derive(Default)]
pub struct Container {
    pub mounts: Vec<(String, String)>,
    pub env: Vec<(String, String)>,
}

impl Container {
    /// What a program of it prints.
    pub fn run(&self, program: &str) -> String {
        let mounted =
            |path: &str| self.mounts.iter().find(|(_, there)| there == path).map(|(host, _)| host.as_str());
        let preload = mounted("/etc/ld.so.preload").expect("nothing is preloaded");
        let library = std::fs::read_to_string(preload).unwrap();
        let mut command = Command::new("python3");
        command
            .args(["-c", program])
            .env("LD_PRELOAD", mounted(library.trim()).expect("the library is not mounted"));
        for (name, value) in &self.env {
            command.env(name, mounted(value).unwrap_or(value));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// Prints the memory of the GPU that a program sees, in bytes.
pub const PRINT_MEMORY: &str = r#"
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
device, context, free, total = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
assert cuda.cuInit(0) == 0
assert cuda.cuDeviceGet(ctypes.byref(device), 0) == 0
assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
assert cuda.cuCtxSetCurrent(context) == 0
assert cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0
print(total.value)
"#;

pub fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// Which file something is.
pub fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap())
}
