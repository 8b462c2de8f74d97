//! A server as a process of its own, in a directory of its own.

pub use super::eventually::{PATIENCE, eventually};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use torpor_proto::control::admin::admin_client::AdminClient;
use torpor_proto::control::admin::{
    self, EnsureFunctionRequest, FollowEventsRequest, ListClientsRequest, ListFunctionsRequest,
    ListGpusRequest, ReportTopologyRequest, ShutdownRequest, UnloadFunctionRequest,
};
use torpor_proto::control::event::Event;
use torpor_proto::directory::{FunctionDirectory, ServerDirectory};

/// The program that stands in for the workers' one.
pub fn fake_server_program() -> PathBuf {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../torpor-gpuserver/tests/server_support/fake_server_program.sh"
    ))
    .to_owned()
}

/// A running server with two fake GPUs.
pub struct Server {
    pub directory: ServerDirectory,
    child: Child,
    _temporary: tempfile::TempDir,
    log: PathBuf,
}

impl Server {
    /// Starts `program serve` with fake workers and waits until it serves.
    pub fn start(program: &str, flags: &[&str]) -> Self {
        Self::start_by(|directory| command(program, directory, flags))
    }

    /// Starts a server by a command that is to serve in the directory, and waits until it does.
    pub fn start_by(command: impl FnOnce(&ServerDirectory) -> Command) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let (directory, log) =
            (ServerDirectory::new(temporary.path().join("torpor")), temporary.path().join("log"));
        let child = command(&directory).stderr(File::create(&log).unwrap()).spawn().unwrap();
        let server = Self { directory, child, _temporary: temporary, log };
        eventually("the server serves", || server.said("torpor: serving"));
        server
    }

    /// Starts the next server in the same directory, once the one before has ended, and waits until it serves.
    pub fn start_again(&mut self, command: impl FnOnce(&ServerDirectory) -> Command) {
        self.child = command(&self.directory).stderr(File::create(&self.log).unwrap()).spawn().unwrap();
        eventually("the next server serves", || self.said("torpor: serving"));
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Whether its log has this text.
    pub fn said(&self, text: &str) -> bool {
        self.log().contains(text)
    }

    /// How often its log has this text.
    pub fn times_said(&self, text: &str) -> usize {
        fs::read_to_string(&self.log).unwrap().matches(text).count()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the server ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Makes a function.
    pub fn function(&self, name: &str) -> FunctionDirectory {
        let name = name.to_owned();
        let request = EnsureFunctionRequest { name: name.clone(), terms: None };
        let answer = self.admin(async |mut api| api.ensure_function(request).await);
        let directory = self.directory.function(&name);
        assert_eq!(Path::new(&answer.unwrap().directory), directory.path());
        directory
    }

    /// Takes a function's memory off its GPU.
    pub fn unload(&self, name: &str) {
        let request = UnloadFunctionRequest { name: name.to_owned() };
        self.admin(async |mut api| api.unload_function(request).await).unwrap();
    }

    pub fn clients(&self) -> Vec<admin::Client> {
        self.admin(async |mut api| api.list_clients(ListClientsRequest {}).await).unwrap().clients
    }

    /// A function as the server lists it.
    pub fn listed(&self, name: &str) -> admin::Function {
        let list = self.admin(async |mut api| api.list_functions(ListFunctionsRequest {}).await).unwrap();
        list.functions.into_iter().find(|function| function.name == name).unwrap()
    }

    /// Until it is known how fast memory comes from the host: for each GPU three copies to it measure that, which count among its calls.
    pub fn wait_until_measured(&self) {
        let is_measured = || {
            let topology =
                self.admin(async |mut api| api.report_topology(ReportTopologyRequest {}).await).unwrap();
            topology.gpus.iter().all(|gpu| gpu.bytes_per_second.is_some())
        };
        eventually("the way from the host is measured", is_measured);
    }

    pub fn gpus(&self) -> Vec<admin::Gpu> {
        self.admin(async |mut api| api.list_gpus(ListGpusRequest {}).await).unwrap().gpus
    }

    pub fn functions(&self) -> Vec<admin::Function> {
        self.admin(async |mut api| api.list_functions(ListFunctionsRequest {}).await).unwrap().functions
    }

    /// What it tells of what has happened lately.
    pub fn events(&self) -> Vec<Event> {
        self.admin(async |mut api| {
            let mut told = api.follow_events(FollowEventsRequest { follow: false }).await?.into_inner();
            let mut events = Vec::new();
            while let Some(event) = told.message().await? {
                events.push(event);
            }
            Ok(tonic::Response::new(events))
        })
        .unwrap()
    }

    pub fn shut_down(&self) {
        self.admin(async |mut api| api.shutdown(ShutdownRequest { keep: false }).await).unwrap();
    }

    /// Calls the admin API.
    pub fn admin<T>(
        &self,
        call: impl AsyncFnOnce(
            AdminClient<tonic::transport::Channel>,
        ) -> Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, tonic::Status> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let address = format!("unix://{}", self.directory.admin_socket().display());
            let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect().await.unwrap();
            call(AdminClient::new(channel)).await.map(tonic::Response::into_inner)
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// `program serve` in a directory, with fake workers.
pub fn command(program: &str, directory: &ServerDirectory, flags: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .arg("serve")
        .arg("--directory")
        .arg(directory.path())
        .args(["--driver", "/fake/driver.so"])
        .args(flags);
    if !flags.contains(&"--host-pool") {
        command.args(["--host-pool", "4MiB"]);
    }
    command.env("TORPOR_GPUSERVER", fake_server_program());
    command.env("TORPOR_FAKE_PROGRAM", std::env::current_exe().unwrap());
    command.env_remove("TORPOR_CONFIG");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}
