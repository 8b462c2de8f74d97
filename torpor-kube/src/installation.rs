//! What of Torpor containers mount from the host: this process's own container has it, and no other container can see into that.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use torpor_cdi::{Installation, copy, replace};
use torpor_gpuserver::server::installation::{INTERCEPT_LIBRARY, MissingPart};

/// Why it is not there.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// This process does not have it either.
    #[error(transparent)]
    Missing(#[from] MissingPart),
    /// The host's folder cannot be written to.
    #[error(
        "the library cannot be put into {folder}: {error}; mount a writable folder of the host there, or name another with --install-dir"
    )]
    Io {
        /// Which.
        folder: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// What is there.
#[derive(Clone, Debug)]
pub struct Installed {
    library: PathBuf,
    preload: PathBuf,
}

impl Installed {
    /// Puts it into a folder of the host. Containers that have an older one mounted keep that.
    ///
    /// # Errors
    /// [`InstallError`].
    pub fn put(folder: &Path) -> Result<Self, InstallError> {
        let source = INTERCEPT_LIBRARY.find()?;
        let library = folder.join("libtorpor_intercept.so");
        let preload = folder.join("ld.so.preload");
        let put = || {
            fs::create_dir_all(folder)?;
            copy(&source, &library)?;
            replace(&preload, Installation::PRELOAD_TEXT)
        };
        put().map_err(|error| InstallError::Io { folder: folder.to_owned(), error })?;
        Ok(Self { library, preload })
    }

    /// Where it is.
    #[must_use]
    pub fn get(&self) -> Installation<'_> {
        Installation { library: &self.library, preload: &self.preload }
    }
}
