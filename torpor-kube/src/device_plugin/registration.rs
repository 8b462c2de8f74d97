//! The kubelet forgets its plugins when it ends, and removes their sockets when it starts: then the plugin registers again.

use crate::device_plugin::RESOURCE;
use crate::protocol::device_plugin::registration_client::RegistrationClient;
use crate::protocol::device_plugin::{DevicePluginOptions, RegisterRequest};
use crate::reason::reason;
use crate::socket::{Identity, Socket};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::sleep;
use tonic::service::Routes;
use tonic::transport::Endpoint;

/// The plugin's socket, in the kubelet's folder.
const ENDPOINT: &str = "torpor.dev-gpu.sock";

/// The protocol's version.
const VERSION: &str = "v1beta1";

/// Between two looks whether the kubelet is another.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the kubelet may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the kubelet does not know the plugin.
#[derive(Debug, thiserror::Error)]
enum RegistrationError {
    #[error("the kubelet does not listen at {socket}: {}", reason(error))]
    Silent { socket: PathBuf, error: tonic::transport::Error },
    #[error("the kubelet refuses the plugin: {0}")]
    Refused(String),
}

/// The kubelet's folder for device plugins.
#[derive(Clone, Debug)]
pub struct Kubelet {
    folder: PathBuf,
}

impl Kubelet {
    /// That of a kubelet.
    #[must_use]
    pub fn new(kubelet: &Path) -> Self {
        Self { folder: kubelet.join("device-plugins") }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("kubelet.sock")
    }

    async fn register(&self) -> Result<(), RegistrationError> {
        let silent = |error| RegistrationError::Silent { socket: self.socket(), error };
        let address = format!("unix://{}", self.socket().display());
        let endpoint = Endpoint::from_shared(address).map_err(silent)?.timeout(PATIENCE);
        let channel = endpoint.connect().await.map_err(silent)?;
        let request = RegisterRequest {
            version: VERSION.to_owned(),
            endpoint: ENDPOINT.to_owned(),
            resource_name: RESOURCE.to_owned(),
            options: Some(DevicePluginOptions::default()),
        };
        let answer = RegistrationClient::new(channel).register(request).await;
        answer.map(drop).map_err(|status| RegistrationError::Refused(status.message().to_owned()))
    }
}

/// Why the plugin is served no more, for people.
#[derive(Debug)]
enum Ended {
    /// The kubelet never knew of it.
    Unknown(String),
    /// The kubelet knows of it no more.
    Forgotten(&'static str),
}

/// Serves the plugin, and sees to it that the kubelet knows of it, for ever.
pub async fn keep_registered(kubelet: &Kubelet, routes: Routes) -> Infallible {
    let mut told = String::new();
    loop {
        match serve(kubelet, routes.clone()).await {
            Ended::Forgotten(why) => {
                tracing::info!("{why}; registering again");
                told.clear();
            }
            Ended::Unknown(why) if why != told => {
                tracing::warn!("{why}; trying again");
                told = why;
            }
            Ended::Unknown(_) => {}
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn serve(kubelet: &Kubelet, routes: Routes) -> Ended {
    // Before the kubelet knows of it: it calls back while the plugin registers.
    let socket = match Socket::serve(&kubelet.folder.join(ENDPOINT), routes) {
        Ok(socket) => socket,
        Err(error) => return Ended::Unknown(error.to_string()),
    };
    let registered_with = Identity::of(&kubelet.socket());
    if let Err(error) = kubelet.register().await {
        return Ended::Unknown(error.to_string());
    }
    tracing::info!("the kubelet knows {RESOURCE}");
    loop {
        sleep(LOOK_EVERY).await;
        if !socket.is_there() {
            return Ended::Forgotten("the kubelet has removed the plugin's socket");
        }
        if Identity::of(&kubelet.socket()) != registered_with {
            return Ended::Forgotten("the kubelet has started again");
        }
    }
}
