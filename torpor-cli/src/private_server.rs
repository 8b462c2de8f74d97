//! A server for one command: a child process in a directory of its own, which ends when this process does, however
//! that happens, because a pipe from here ends then.

use crate::admin::check_listening;
use crate::error::CliError;
use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use torpor_gpuserver::server::TuningArgs;
use torpor_proto::directory::ServerDirectory;

/// A start that takes longer than this is explained.
const SILENCE: Duration = Duration::from_secs(1);

/// How long it may take to end: its workers have five seconds to leave before it kills them.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A running private server.
#[derive(Debug)]
pub struct PrivateServer {
    directory: ServerDirectory,
    log: PathBuf,
    child: Child,
    lifeline: Option<ChildStdin>,
}

impl PrivateServer {
    /// Starts a server and waits until it serves.
    ///
    /// # Errors
    /// [`CliError::PrivateServer`] with its last words if it does not come to that.
    pub fn start(tuning: &TuningArgs) -> Result<Self, CliError> {
        let home = make_home()?;
        let (directory, log) = (ServerDirectory::new(home.join("s")), home.join("server.log"));
        let mut command = Command::new(env::current_exe()?);
        command.arg("serve").arg("--directory").arg(directory.path()).arg("--private").arg(&home);
        command.args(tuning.to_arguments());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let mut child = command.spawn()?;
        let lifeline = child.stdin.take();
        let mut server = Self { directory, log, child, lifeline };
        server.wait_until_it_serves()?;
        Ok(server)
    }

    /// Where it listens.
    pub fn directory(&self) -> &ServerDirectory {
        &self.directory
    }

    /// What it says.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    fn wait_until_it_serves(&mut self) -> Result<(), CliError> {
        let started = Instant::now();
        let mut explained = false;
        while check_listening(&self.directory).is_err() {
            if let Some(status) = self.has_ended() {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let last_words = log.lines().last().unwrap_or("none").to_owned();
                return Err(CliError::PrivateServer { status, last_words, log: self.log.clone() });
            }
            if !explained && started.elapsed() >= SILENCE {
                eprintln!(
                    "torpor: starting a private server, which takes a while (log: {})",
                    self.log.display()
                );
                explained = true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if explained {
            eprintln!("torpor: the private server is ready after {:.1} s", started.elapsed().as_secs_f32());
        }
        Ok(())
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let deadline = Instant::now() + END_TIMEOUT;
        while self.has_ended().is_none() {
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A new directory that only this user can enter. The server removes it, unless it fails: then its log stays.
fn make_home() -> Result<PathBuf, CliError> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()).map(PathBuf::from);
    let place = runtime.unwrap_or_else(|| "/tmp".into());
    let failed = |error: io::Error| CliError::TemporaryDirectory { place: place.clone(), error };
    Ok(tempfile::Builder::new().prefix("torpor-").tempdir_in(&place).map_err(failed)?.keep())
}
