//! A server that has a keeper: its process is another one than what was started.

use super::eventually::eventually;
use super::server::Server;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use tonic::transport::{Channel, Endpoint};
use torpor_proto::control::admin::admin_client::AdminClient;
use torpor_proto::directory::ServerDirectory;

impl Server {
    /// The server's process.
    pub fn serving_pid(&self) -> Option<Pid> {
        let pid = fs::read_to_string(self.directory.lock_file()).ok()?;
        Pid::from_raw(pid.trim().parse().ok()?)
    }

    /// Kills the server's process, and waits until there is another one.
    pub fn kill_for_the_next(&self) {
        let pid = self.serving_pid().unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        eventually("another server is there", || self.serving_pid().is_some_and(|next| next != pid));
    }
}

/// Calls the admin API of a server that may be killed before it takes the call, or over it.
pub fn ask_one_that_may_be_killed(
    directory: &ServerDirectory,
    call: impl AsyncFnOnce(AdminClient<Channel>) -> Result<(), tonic::Status>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let address = format!("unix://{}", directory.admin_socket().display());
        if let Ok(channel) = Endpoint::from_shared(address).unwrap().connect().await {
            let _ = call(AdminClient::new(channel)).await;
        }
    });
}
