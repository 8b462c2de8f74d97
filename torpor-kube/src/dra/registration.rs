//! What the kubelet asks a plugin whose socket it has found.

use crate::dra::DRIVER;
use crate::protocol::registration::registration_server;
use crate::protocol::registration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use std::path::PathBuf;
use tonic::{Request, Response, Status};

/// The services behind the driver's other socket, as the kubelet names them.
const SERVICES: [&str; 3] = ["v1.DRAPlugin", "v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth"];

/// The driver, as the kubelet gets to know it.
#[derive(Clone, Debug)]
pub struct Registration {
    endpoint: PathBuf,
}

impl Registration {
    /// `endpoint` is the socket of its services.
    #[must_use]
    pub fn new(endpoint: PathBuf) -> Self {
        Self { endpoint }
    }
}

#[tonic::async_trait]
impl registration_server::Registration for Registration {
    async fn get_info(&self, _request: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "DRAPlugin".to_owned(),
            name: DRIVER.to_owned(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: SERVICES.map(str::to_owned).to_vec(),
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        match request.into_inner() {
            RegistrationStatus { plugin_registered: true, .. } => {
                tracing::info!("the kubelet knows {DRIVER}")
            }
            RegistrationStatus { error, .. } => tracing::error!("the kubelet refuses {DRIVER}: {error}"),
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
