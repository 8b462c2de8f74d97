//! A compiler process, as the node server starts it.

use super::driver;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A compiler process, and the directory of its socket.
pub struct Compiler {
    pub child: Child,
    directory: tempfile::TempDir,
}

impl Compiler {
    /// Starts one for the driver's first device.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with environment variables.
    pub fn start_with(variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("compiler.sock")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_torpor-gpuserver"))
            .args(["compiler", "--device", "0", "--driver"])
            .arg(driver())
            .envs(variables.iter().copied())
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, directory }
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("compiler.sock")
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
