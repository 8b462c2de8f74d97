//! Clients of a whole server whose workers are real ones, over the simulated GPU.
#![allow(dead_code, reason = "each test program uses its own part of this module")]

pub mod program;

use crate::server_support::client::{self, connect};
use crate::server_support::server::Server;
use crate::worker_support::Client;
pub use crate::worker_support::driver;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use torpor_proto::control::worker::Attach;

/// The server's program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_torpor-gpuserver");

/// A server over the simulated GPU, with these flags.
pub fn serve(flags: &str) -> Server {
    serve_by(flags, |_| ())
}

/// The same, and its command is changed before.
pub fn serve_by(flags: &str, change: impl FnOnce(&mut Command)) -> Server {
    Server::start_by(|directory| {
        let mut command = Command::new(PROGRAM);
        command.arg("serve").arg("--directory").arg(directory.path()).arg("--driver").arg(driver());
        command.args(flags.split_whitespace()).env("TORPOR_GPUSERVER", PROGRAM);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        change(&mut command);
        command
    })
}

/// A client that its worker serves.
pub struct Attached {
    pub client: Client,
    /// Closing it ends the client.
    pub lifeline: UnixStream,
}

/// Becomes a client of a function, which is made if need be.
pub fn attach(server: &Server, function: &str) -> Attached {
    let client::Client { welcome, channel, channel_file, lifeline, host_file } =
        connect(&server.function(function));
    let attach = Attach {
        client: welcome.client,
        arena_address: welcome.arena_address,
        arena_bytes: welcome.arena_bytes,
        host_address: welcome.host_address,
        host_bytes: welcome.host_bytes,
        staging_bytes: welcome.staging_bytes,
        ..Attach::default()
    };
    Attached { client: Client::new(&attach, channel, channel_file, host_file), lifeline }
}
