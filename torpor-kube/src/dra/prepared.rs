//! Claims that are prepared: each is a function of the node server, and a file for the container runtime, which is also the record.

use crate::dra::claim::FUNCTION_PREFIX;
use crate::health::Health;
use crate::installation::Installed;
use crate::node_server::{NodeError, NodeServer};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};
use torpor_cdi::{Kind, Spec, replace};
use torpor_proto::control::admin::Terms;

/// Why a claim is not prepared, or still is.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The node server made no function.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The runtime's file cannot be.
    #[error("the file {path} of the container runtime cannot be changed: {error}; see --cdi-dir")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// The prepared claims of a node.
#[derive(Debug)]
pub struct Prepared {
    server: NodeServer,
    installed: Installed,
    folder: PathBuf,
    /// One claim at a time, so that nothing is tidied up that is just being made.
    turn: Mutex<()>,
}

impl Prepared {
    /// Those whose files are in a folder.
    #[must_use]
    pub fn new(server: NodeServer, installed: Installed, folder: PathBuf) -> Self {
        Self { server, installed, folder, turn: Mutex::new(()) }
    }

    /// Makes a claim's function, and tells the container runtime of it. Gives the name under which it knows it.
    ///
    /// # Errors
    /// [`PrepareError`]; what was done is no harm, and is found when it is tried again.
    pub async fn add(&self, function: &str, terms: Terms) -> Result<String, PrepareError> {
        let _turn = self.turn.lock().await;
        self.server.ensure(function, terms).await?;
        let functions = [function.to_owned()];
        let spec = Spec::new(Kind::Pod, self.server.directory(), &functions, self.installed.get());
        let path = self.file(function);
        let write = || {
            fs::create_dir_all(&self.folder)?;
            replace(&path, &spec.text())
        };
        write().map_err(|error| PrepareError::File { path: path.clone(), error })?;
        Ok(format!("{}={function}", Kind::Pod))
    }

    /// No container is this function any more. One that is not prepared is no error.
    ///
    /// # Errors
    /// [`PrepareError::File`]. A function that the server does not remove now is removed when it answers again.
    pub async fn remove(&self, function: &str) -> Result<(), PrepareError> {
        let _turn = self.turn.lock().await;
        let path = self.file(function);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(PrepareError::File { path, error });
            }
            _ => {}
        }
        if let Err(error) = self.server.remove(function).await {
            tracing::warn!(function, "the function stays until the node server can remove it: {error}");
        }
        Ok(())
    }

    fn file(&self, function: &str) -> PathBuf {
        self.folder.join(format!("torpor.dev-pod-{function}.json"))
    }

    async fn remove_leftovers(&self) -> Result<(), NodeError> {
        let _turn = self.turn.lock().await;
        for function in self.server.functions().await? {
            if function.name.starts_with(FUNCTION_PREFIX) && !self.file(&function.name).exists() {
                tracing::info!(function = function.name, "removing the function of a claim that is no more");
                self.server.remove(&function.name).await?;
            }
        }
        Ok(())
    }
}

/// Removes what is left of claims that went while the node server did not answer, whenever it answers again.
pub async fn tidy_up(prepared: Arc<Prepared>, mut health: watch::Receiver<Health>) {
    let mut silent = true;
    loop {
        let answers = health.borrow_and_update().silence.is_none();
        if answers && silent {
            silent =
                prepared.remove_leftovers().await.inspect_err(|error| tracing::warn!("{error}")).is_err();
        } else {
            silent = !answers;
        }
        if health.changed().await.is_err() {
            return;
        }
    }
}
