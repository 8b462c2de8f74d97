//! The settings file, and those who do what it says.

use crate::fresh::stamps;
use crate::gate::Gate;
use crate::registry::Registry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use torpor_gpuserver::server::settings::{FileError, SettingsFile};

/// How often the settings file is looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// The settings file of a router.
#[derive(Debug)]
pub struct Settings {
    path: PathBuf,
    registry: Arc<Registry>,
    gate: Arc<Gate>,
}

impl Settings {
    /// At a path, which holds also if the process goes elsewhere.
    #[must_use]
    pub fn new(path: &Path, registry: Arc<Registry>, gate: Arc<Gate>) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self { path, registry, gate }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Does what a settings file says.
    pub fn apply(&self, file: &SettingsFile) {
        self.registry.apply(file);
        self.gate.apply(&file.scheduler);
    }

    /// Reads it, and does what it says. With an error, nothing changes.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn read(&self) -> Result<(), FileError> {
        self.apply(&SettingsFile::read(&self.path)?);
        Ok(())
    }

    /// Reads it whenever it has changed, and has the other files looked at, for ever.
    pub async fn follow(&self, look: impl Fn()) {
        let path = std::slice::from_ref(&self.path);
        let mut known = stamps(path);
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            look();
            let now = stamps(path);
            if now != [None] && now != known {
                known = now;
                if let Err(error) = self.read() {
                    tracing::warn!("nothing changes: {error}");
                }
            }
        }
    }
}
