//! Clients of a whole server whose workers are real ones, over the simulated GPU.

pub mod program;

use crate::server_support::client::{self, connect};
use crate::server_support::server::Server;
use crate::worker_support::Client;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use torpor_proto::control::worker::Attach;

/// The server's program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_torpor-gpuserver");

/// The simulated driver.
pub fn driver() -> PathBuf {
    let beside = Path::new(PROGRAM).parent().unwrap();
    let candidates = [beside.join("libtorpor_simgpu.so"), beside.join("deps/libtorpor_simgpu.so")];
    let found = candidates.into_iter().find(|path| path.exists());
    found.expect("no simulated driver beside the program: run `cargo build -p torpor-simgpu` first")
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
