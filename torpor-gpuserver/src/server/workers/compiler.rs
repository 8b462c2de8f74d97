//! The [compiler](crate::compiler) of a GPU: its socket, which stays as long as the server, and its process, kept running.

use crate::rate_limited::Seldom;
use crate::server::options::ServerOptions;
use crate::server::workers::gpu::stopped;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Before another process is started in the place of one that has ended.
const PAUSE: Duration = Duration::from_secs(1);

/// A GPU's compiler.
pub(crate) struct Compiler {
    program: PathBuf,
    driver: PathBuf,
    device: u32,
    socket: PathBuf,
    listener: UnixListener,
}

impl Compiler {
    /// Of a device of the driver. Whoever connects from now on is answered when there is a process.
    ///
    /// # Errors
    /// The system's, of its socket.
    pub(crate) fn listen(options: &ServerOptions, driver: &Path, device: u32) -> io::Result<Self> {
        let socket = options.directory.compiler_socket(device);
        // Of the server before.
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)?;
        fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
        let (program, driver) = (options.program.clone(), driver.to_owned());
        Ok(Self { program, driver, device, socket, listener })
    }

    /// Keeps a process running until the server is to end.
    pub(crate) fn keep(self, mut stop: watch::Receiver<bool>) -> JoinHandle<()> {
        tokio::spawn(async move {
            let mut ends = Seldom::default();
            loop {
                let ended = async {
                    match self.start() {
                        Ok(mut child) => child.wait().await.map(|status| status.to_string()),
                        Err(error) => Err(error),
                    }
                };
                let how = tokio::select! {
                    how = ended => how.unwrap_or_else(|error| error.to_string()),
                    () = stopped(&mut stop) => break,
                };
                if let Some(untold) = ends.tell(Instant::now()) {
                    tracing::error!(
                        gpu = self.device,
                        untold,
                        "the compiler ended ({how}; its message is above), and with it waits who brings PTX or compressed code; starting \
                         another"
                    );
                }
                tokio::select! {
                    () = sleep(PAUSE) => {}
                    () = stopped(&mut stop) => break,
                }
            }
            // The directory may be gone.
            let _ = fs::remove_file(&self.socket);
        })
    }

    fn start(&self) -> io::Result<Child> {
        Command::new(&self.program)
            .args(["compiler", "--device", &self.device.to_string(), "--driver"])
            .arg(&self.driver)
            .stdin(Stdio::from(OwnedFd::from(self.listener.try_clone()?)))
            .stdout(Stdio::null())
            // A Ctrl-C at the terminal is for the server, which ends it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}
