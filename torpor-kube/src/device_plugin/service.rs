//! What the kubelet asks a device plugin.

use crate::device_plugin::slots::Slots;
use crate::health::Health;
use crate::installation::Installed;
use crate::node_server::{NodeError, NodeServer};
use crate::protocol::device_plugin::device_plugin_server::DevicePlugin;
use crate::protocol::device_plugin::{
    AllocateRequest, AllocateResponse, ContainerAllocateResponse, DevicePluginOptions, Empty,
    ListAndWatchResponse, Mount, PreStartContainerRequest, PreStartContainerResponse,
    PreferredAllocationRequest, PreferredAllocationResponse,
};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};
use torpor_cdi::Edits;
use torpor_proto::control::admin::Terms;

/// The plugin.
#[derive(Debug)]
pub struct Service {
    server: NodeServer,
    installed: Installed,
    slots: Slots,
    terms: Terms,
    health: watch::Receiver<Health>,
}

impl Service {
    /// Slots of a server, all on the same terms.
    #[must_use]
    pub fn new(
        server: NodeServer,
        installed: Installed,
        slots: Slots,
        terms: Terms,
        health: watch::Receiver<Health>,
    ) -> Self {
        Self { server, installed, slots, terms, health }
    }

    /// What a container is given that has a slot. Mounts and variables, which runtimes without CDI know, too.
    fn edits(&self, function: &str) -> ContainerAllocateResponse {
        let function = self.server.directory().function(function);
        let edits = Edits::of_all(self.installed.get()).and(Edits::of_function(&function));
        let mount = |mount: torpor_cdi::Mount| Mount {
            container_path: mount.container_path,
            host_path: mount.host_path,
            read_only: true,
        };
        let variable =
            |text: &String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        ContainerAllocateResponse {
            envs: edits.env.iter().filter_map(variable).collect(),
            mounts: edits.mounts.into_iter().map(mount).collect(),
            ..ContainerAllocateResponse::default()
        }
    }
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    type ListAndWatchStream = BoxStream<'static, Result<ListAndWatchResponse, Status>>;

    async fn get_device_plugin_options(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(DevicePluginOptions::default()))
    }

    async fn list_and_watch(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let slots = self.slots;
        let list = move |health: Health| Ok(ListAndWatchResponse { devices: slots.devices(health.serves()) });
        Ok(Response::new(WatchStream::new(self.health.clone()).map(list).boxed()))
    }

    async fn get_preferred_allocation(
        &self,
        _request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        Err(Status::unimplemented("all slots are alike"))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let mut container_responses = Vec::new();
        for container in &request.get_ref().container_requests {
            let function = self.slots.function(container).map_err(|error| {
                tracing::warn!("{error}");
                Status::invalid_argument(error.to_string())
            })?;
            self.server.ensure(&function, self.terms).await.map_err(|error| {
                tracing::warn!(function, "{error}");
                match error {
                    NodeError::Silent { .. } => Status::unavailable(error.to_string()),
                    NodeError::Refused(_) => Status::failed_precondition(error.to_string()),
                }
            })?;
            tracing::info!(function, "allocated");
            container_responses.push(self.edits(&function));
        }
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    async fn pre_start_container(
        &self,
        _request: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        Ok(Response::new(PreStartContainerResponse {}))
    }
}
