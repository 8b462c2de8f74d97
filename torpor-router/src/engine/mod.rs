//! The container engine, by Docker's API.
//!
//! It is asked for nothing until a function has an image. Then the router learns where it is itself ([`mod@place`]), puts the library
//! where the engine finds it ([`library`]) and removes what a router before it has left ([`labels`]).

mod container;
pub mod describe;
mod error;
mod image;
pub mod labels;
pub mod library;
pub mod place;

pub use container::Running;
pub use error::EngineError;

use crate::engine::labels::Owner;
use crate::engine::library::OnHost;
use crate::engine::place::Place;
use bollard::Docker;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use torpor_gpuserver::server::installation::INTERCEPT_LIBRARY;
use torpor_proto::directory::ServerDirectory;

/// Where engines listen if nobody says otherwise.
const DEFAULT_ADDRESS: &str = "unix:///var/run/docker.sock";

/// How long an engine may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(10);

/// The engine of a router.
#[derive(Debug)]
pub struct Engine {
    address: String,
    directory: ServerDirectory,
    admin_socket: PathBuf,
    network: Option<String>,
    ready: OnceCell<Ready>,
}

/// An engine that has answered.
#[derive(Debug)]
pub struct Ready {
    docker: Docker,
    address: String,
    place: Place,
    library: OnHost,
    owner: Owner,
    network: Option<String>,
}

impl Engine {
    /// The engine that `$DOCKER_HOST` names, else this machine's, for a router with an admin socket. Containers are in
    /// `network`, if that is given.
    #[must_use]
    pub fn new(directory: ServerDirectory, admin_socket: PathBuf, network: Option<String>) -> Self {
        let named = std::env::var("DOCKER_HOST").ok().filter(|address| !address.is_empty());
        let address = named.unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        Self { address, directory, admin_socket, network, ready: OnceCell::new() }
    }

    /// Whether this directory's routers have had containers: then some may be left.
    #[must_use]
    pub fn had_containers(&self) -> bool {
        self.directory.containers().is_dir()
    }

    /// Connects, unless that is done.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn ready(&self) -> Result<&Ready, EngineError> {
        self.ready.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Ready, EngineError> {
        let address = self.address.clone();
        let silent = |error: &bollard::errors::Error| EngineError::Silent {
            address: address.clone(),
            error: error::whole(error),
        };
        let docker = Docker::connect_with_host(&address).map_err(|error| silent(&error))?;
        let docker = match timeout(PATIENCE, docker.negotiate_version()).await {
            Ok(docker) => docker.map_err(|error| silent(&error))?,
            Err(_) => {
                let error = format!("nothing comes within {PATIENCE:?}");
                return Err(EngineError::Silent { address, error });
            }
        };
        let place = place(&docker, &address).await?;
        let folder = absolute(&self.directory.containers());
        let library = OnHost::put(&place, &INTERCEPT_LIBRARY.find()?, &folder)?;
        let path = absolute(self.directory.path());
        let directory = place.on_host(&path).ok_or(EngineError::NotOnHost { path })?;
        let router = absolute(&self.admin_socket);
        let owner = Owner { router: place.on_host(&router).unwrap_or(router), directory };
        let network = self.network.clone().or_else(|| place.network().map(str::to_owned));
        let ready = Ready { docker, address, place, library, owner, network };
        ready.sweep().await?;
        Ok(ready)
    }

    /// Removes what is left, if there ever was a container.
    pub async fn end(&self) {
        if let Some(ready) = self.ready.get()
            && let Err(error) = ready.sweep().await
        {
            tracing::warn!("containers may be left, and the next router removes them: {error}");
        }
    }
}

impl Ready {
    /// Removes all containers of this router.
    async fn sweep(&self) -> Result<(), EngineError> {
        let failed = |what| move |error| EngineError::of(&self.address, what, &error);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&self.owner.filter()).build();
        let left = self.docker.list_containers(Some(options)).await.map_err(failed("list containers"))?;
        for id in left.into_iter().filter_map(|container| container.id) {
            tracing::info!("the container {id} is left of what a router has started: it is removed");
            self.remove(&id).await.map_err(failed("remove a container"))?;
        }
        Ok(())
    }

    /// Kills and removes a container, unless it is gone.
    async fn remove(&self, id: &str) -> Result<(), bollard::errors::Error> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.docker.remove_container(id, Some(options)).await {
            Err(error) if !error::is_missing(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Where this process is. In a container of another engine it is on the host, for this one.
async fn place(docker: &Docker, address: &str) -> Result<Place, EngineError> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some(id) = place::container_id(&mountinfo) else { return Ok(Place::Host) };
    match docker.inspect_container(id, None).await {
        Ok(container) => Ok(Place::in_container(container)),
        Err(error) if error::is_missing(&error) => Ok(Place::Host),
        Err(error) => Err(EngineError::of(address, "describe the router's own container", &error)),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
