//! A node with two simulated GPUs, and clients that are moved between them.
#![allow(dead_code, reason = "each test program uses its own part of this module")]

use crate::served;
pub use crate::served::program::Program;
use crate::server_support::server::Server;
use rustix::process::Pid;
use std::process::Command;
use std::time::Duration;
use tonic::Status;
use torpor_proto::command::{EventElapsed, EventRecord};
use torpor_proto::control::admin::LoadFunctionRequest;

/// Longer than a client stays at least where it was moved to.
pub const STAY: Duration = Duration::from_millis(150);

/// A server on which nobody waits for another.
pub fn start() -> Server {
    start_with(&[])
}

/// A server on which clients wait for each other.
pub fn start_one_at_a_time() -> Server {
    start_with(&["--active-per-gpu", "1"])
}

pub fn start_with(flags: &[&str]) -> Server {
    start_with_gpus("h200", flags)
}

/// A server with GPUs of this profile.
pub fn start_with_gpus(profile: &str, flags: &[&str]) -> Server {
    start_changed(profile, flags, |_| ())
}

/// As [`start`], and its command is changed before.
pub fn start_by(change: impl FnOnce(&mut Command)) -> Server {
    start_changed("h200", &[], change)
}

fn start_changed(profile: &str, flags: &[&str], change: impl FnOnce(&mut Command)) -> Server {
    served::serve_by("--gpus 0,1 --staging 4MiB --log debug --host-slab 32MiB", |command| {
        for (flag, value) in
            [("--pinned-limit", "16MiB"), ("--gpu-limit", "64MiB"), ("--host-pool", "128MiB")]
        {
            if !flags.contains(&flag) {
                command.args([flag, value]);
            }
        }
        command.env("TORPOR_SIMGPU_PROFILE", profile);
        command.env("TORPOR_SIMGPU_DEVICES", "2");
        command.env("TORPOR_SIMGPU_TIME", "real");
        command.args(flags);
        change(command);
    })
}

impl Program {
    pub fn gpu(&self, server: &Server) -> u32 {
        let clients = server.clients();
        clients.iter().find(|client| client.id == self.client.id).unwrap().gpu
    }

    /// Which GPU it is on, and the other one.
    pub fn gpus(&self, server: &Server) -> (u32, u32) {
        let here = self.gpu(server);
        (here, 1 - here)
    }

    pub fn move_to(&self, server: &Server, gpu: u32) -> Result<(), Status> {
        let request = LoadFunctionRequest { name: self.name.clone(), gpu: Some(gpu) };
        server.admin(async |mut api| api.load_function(request).await).map(drop)
    }

    pub fn milliseconds(&mut self, start: u32, end: u32) -> f32 {
        f32::from_bits(self.client.ask(EventElapsed { start, end }).unwrap().milliseconds_bits)
    }

    pub fn record(&mut self, event: u32, stream: u32) {
        self.client.post(EventRecord { event, stream, ..EventRecord::default() }, &[]);
    }

    /// Makes a kernel run in stream 0 until [`Self::stop`].
    pub fn spin(&mut self) {
        self.client.spin();
    }

    pub fn stop(&mut self) {
        self.client.stop_spinning();
        self.client.settle().unwrap();
    }
}

pub fn worker_pid(server: &Server, gpu: u32) -> Pid {
    Pid::from_raw(server.gpus()[gpu as usize].worker_pid.cast_signed()).unwrap()
}
