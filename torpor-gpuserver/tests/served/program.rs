//! Clients of functions of their own, on a node whose worker may die.
#![allow(dead_code, reason = "each test program uses its own part of this module")]

use super::{Attached, attach, serve_by};
use crate::server_support::process::signal;
use crate::server_support::server::{Server, eventually};
use crate::worker_support::Client;
use rustix::process::Signal;
use std::io::Write;
use std::os::unix::net::UnixStream;
use torpor_proto::error::CudaError;

/// A server with so many simulated GPUs and these settings, which lie in the file.
pub fn start(gpus: u32, settings: &str) -> (Server, tempfile::NamedTempFile) {
    start_with(gpus, settings, &[])
}

/// The same with these variables of its environment.
pub fn start_with(
    gpus: u32,
    settings: &str,
    environment: &[(&str, &str)],
) -> (Server, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(settings.as_bytes()).unwrap();
    let server = serve_by(
        "--pinned-limit 8MiB --staging 4MiB --log debug --host-pool 128MiB --host-slab 16MiB",
        |command| {
            command.arg("--config").arg(file.path());
            command.env("TORPOR_SIMGPU_DEVICES", gpus.to_string());
            command.envs(environment.iter().copied());
        },
    );
    (server, file)
}

/// A client of a function of its own, with the tests' kernels. It ends with this.
pub struct Program {
    pub client: Client,
    pub name: String,
    _lifeline: UnixStream,
}

impl Program {
    pub fn start(server: &Server, name: &str) -> Self {
        let Attached { mut client, lifeline } = attach(server, name);
        client.load_kernels();
        Self { client, name: name.to_owned(), _lifeline: lifeline }
    }

    pub fn wait_until_covered(&self, server: &Server) {
        eventually("it is covered", || server.listed(&self.name).covered_clients == 1);
    }

    pub fn unload_and_cover(&self, server: &Server) {
        server.unload(&self.name);
        self.wait_until_covered(server);
    }

    pub fn error(&self) -> Option<CudaError> {
        self.client.channel.sticky_error()
    }
}

/// Kills a GPU's worker. When this returns, it executes nothing more.
pub fn kill_worker(server: &Server, gpu: u32) {
    let gpu = gpu as usize;
    let restarts = server.gpus()[gpu].worker_restarts;
    signal(server.gpus()[gpu].worker_pid, Signal::KILL);
    eventually("it is dead", || server.gpus()[gpu].worker_restarts > restarts);
}
