//! Strict functions of a whole server, over the simulated GPU.
#![allow(dead_code, reason = "each test program uses its own part of this module")]

use crate::served::{self, Attached, attach};
use crate::server_support::server::{Server, eventually};
use crate::worker_support::Client;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;
use torpor_proto::control::admin::{Enclosure, EnsureFunctionRequest, Isolation, Terms};
use torpor_proto::error::CudaError;

pub const MIB: u64 = 1 << 20;

/// A server with so many simulated GPUs, on each of which functions may have 32 MiB.
pub fn start(gpus: u32, flags: &[&str]) -> Server {
    served::serve_by(
        "--pinned-limit 8MiB --staging 4MiB --gpu-limit 32MiB --host-pool 128MiB --host-slab 16MiB --log debug",
        |command| {
            command.args(flags);
            command.env("TORPOR_SIMGPU_DEVICES", gpus.to_string());
        },
    )
}

/// Says how the next processes of a function are kept apart.
pub fn isolate(server: &Server, name: &str, isolation: Isolation) {
    let terms = Some(Terms { isolation: Some(isolation.into()), ..Terms::default() });
    let request = EnsureFunctionRequest { name: name.to_owned(), terms };
    server.admin(async |mut api| api.ensure_function(request).await).unwrap();
}

/// A client of a function of its own, with memory in which each word is 5.
pub struct Program {
    pub client: Client,
    pub name: String,
    pub data: u64,
    bytes: u64,
    /// What each word is.
    value: u32,
    pub lifeline: UnixStream,
}

impl Program {
    pub fn strict(server: &Server, name: &str, bytes: u64) -> Self {
        isolate(server, name, Isolation::Strict);
        Self::start(server, name, bytes)
    }

    pub fn start(server: &Server, name: &str, bytes: u64) -> Self {
        let Attached { mut client, lifeline } = attach(server, name);
        client.load_kernels();
        let data = client.allocate(0, bytes).unwrap();
        let mut program = Self { client, name: name.to_owned(), data, bytes, value: 5, lifeline };
        program.client.upload(data, &5_u32.to_le_bytes().repeat(bytes as usize / 4));
        program.check();
        program
    }

    /// A request: every word grows, and all of them are looked at.
    pub fn request(&mut self) {
        self.client.add_step(self.data, (self.bytes / 4) as u32, 0);
        self.value += 3;
        self.check();
    }

    /// Whether its memory is what it wrote there.
    pub fn check(&mut self) {
        let words = self.client.words(self.data, (self.bytes / 4) as usize);
        assert!(words.iter().all(|&word| word == self.value), "{}: {:?}", self.name, &words[..4]);
    }

    pub fn error(&self) -> Option<CudaError> {
        self.client.channel.sticky_error()
    }

    /// Its worker.
    pub fn enclosure(&self, server: &Server) -> Option<Enclosure> {
        enclosure(server, &self.name)
    }

    pub fn state(&self, server: &Server) -> String {
        server.listed(&self.name).state
    }
}

/// The worker of a strict function.
pub fn enclosure(server: &Server, name: &str) -> Option<Enclosure> {
    server.gpus().into_iter().flat_map(|gpu| gpu.enclosures).find(|one| one.function == name)
}

/// Waits until somebody's calls fail, and says with what.
pub fn error_of(client: &Client) -> CudaError {
    eventually("it is told", || client.channel.sticky_error().is_some());
    client.channel.sticky_error().unwrap()
}

/// The files in memory of this name that a process has mapped: their numbers.
pub fn mapped(pid: u32, name: &str) -> BTreeSet<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let its = maps.lines().filter(|line| line.contains(&format!("/memfd:{name} ")));
    its.map(|line| line.split_whitespace().nth(4).unwrap().parse().unwrap()).collect()
}
