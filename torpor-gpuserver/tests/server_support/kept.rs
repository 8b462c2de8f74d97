//! A server that has a keeper: its process is another one than what was started.

use super::eventually::eventually;
use super::server::Server;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;

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
