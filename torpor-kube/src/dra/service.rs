//! What the kubelet asks a driver.

use crate::dra::api::{Api, ApiError};
use crate::dra::claim::{ClaimError, ClaimName, function_of};
use crate::dra::prepared::{PrepareError, Prepared};
use crate::dra::slice::Offer;
use crate::health::Health;
use crate::protocol::dra::dra_plugin_server::DraPlugin;
use crate::protocol::dra::{
    Claim, Device, NodePrepareResourceResponse, NodePrepareResourcesRequest, NodePrepareResourcesResponse,
    NodeUnprepareResourceResponse, NodeUnprepareResourcesRequest, NodeUnprepareResourcesResponse,
};
use crate::protocol::v1::{NodeWatchResourcesRequest, NodeWatchResourcesResponse};
use crate::protocol::{v1, v1alpha1};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

/// How often health is told though nothing is new: the kubelet believes it for 30 s.
const REPEAT: Duration = Duration::from_secs(10);

/// Why a claim is not prepared, or still is.
#[derive(Debug, thiserror::Error)]
enum ServiceError {
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
}

/// The driver's calls.
pub struct Service {
    api: Api,
    node: String,
    prepared: Arc<Prepared>,
}

impl Service {
    /// Of a node.
    #[must_use]
    pub fn new(api: Api, node: String, prepared: Arc<Prepared>) -> Self {
        Self { api, node, prepared }
    }

    async fn prepare(&self, claim: &Claim) -> Result<Device, ServiceError> {
        let name = ClaimName::new(claim)?;
        let function = function_of(&claim.uid)?;
        let found = self.api.claim(&name.namespace, &name.name).await?;
        let allocation = name.allocation(&found, &self.node)?;
        let id = self.prepared.add(&function, allocation.terms).await?;
        tracing::info!(function, "prepared the claim {}/{}", name.namespace, name.name);
        Ok(Device {
            request_names: vec![allocation.request],
            pool_name: self.node.clone(),
            device_name: allocation.device,
            cdi_device_ids: vec![id],
            share_id: allocation.share_id,
        })
    }

    /// The claim's object may be gone: its UID is all that is needed.
    async fn unprepare(&self, claim: &Claim) -> Result<(), ServiceError> {
        let function = function_of(&claim.uid)?;
        self.prepared.remove(&function).await?;
        tracing::info!(function, "unprepared a claim");
        Ok(())
    }
}

fn told(claim: &Claim, error: &ServiceError) -> String {
    tracing::warn!("the claim {}/{} ({}): {error}", claim.namespace, claim.name, claim.uid);
    error.to_string()
}

#[tonic::async_trait]
impl DraPlugin for Service {
    async fn node_prepare_resources(
        &self,
        request: Request<NodePrepareResourcesRequest>,
    ) -> Result<Response<NodePrepareResourcesResponse>, Status> {
        let mut claims = HashMap::new();
        for claim in request.into_inner().claims {
            let answer = match self.prepare(&claim).await {
                Ok(device) => NodePrepareResourceResponse { devices: vec![device], error: String::new() },
                Err(error) => {
                    NodePrepareResourceResponse { devices: Vec::new(), error: told(&claim, &error) }
                }
            };
            claims.insert(claim.uid, answer);
        }
        Ok(Response::new(NodePrepareResourcesResponse { claims }))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<NodeUnprepareResourcesRequest>,
    ) -> Result<Response<NodeUnprepareResourcesResponse>, Status> {
        let mut claims = HashMap::new();
        for claim in request.into_inner().claims {
            let error = self.unprepare(&claim).await.err().map(|error| told(&claim, &error));
            let answer = NodeUnprepareResourceResponse { error: error.unwrap_or_default() };
            claims.insert(claim.uid, answer);
        }
        Ok(Response::new(NodeUnprepareResourcesResponse { claims }))
    }
}

/// The devices' health, for the status of the pods that have them.
#[derive(Clone, Debug)]
pub struct HealthService {
    offer: Offer,
    health: watch::Receiver<Health>,
}

impl HealthService {
    /// Of what is offered.
    #[must_use]
    pub fn new(offer: Offer, health: watch::Receiver<Health>) -> Self {
        Self { offer, health }
    }

    /// All devices at once, whenever something is new, and again and again.
    fn stream(&self) -> BoxStream<'static, Result<NodeWatchResourcesResponse, Status>> {
        let Self { offer, mut health } = self.clone();
        health.mark_changed();
        let next = async |(offer, mut health): (Offer, watch::Receiver<Health>)| {
            // Time that is over is as good as something new.
            if let Ok(Err(_)) = timeout(REPEAT, health.changed()).await {
                return None;
            }
            let devices = offer.health(&health.borrow_and_update());
            Some((Ok(NodeWatchResourcesResponse { devices }), (offer, health)))
        };
        stream::unfold((offer, health), next).boxed()
    }
}

#[tonic::async_trait]
impl v1::dra_resource_health_server::DraResourceHealth for HealthService {
    type NodeWatchResourcesStream = BoxStream<'static, Result<NodeWatchResourcesResponse, Status>>;

    async fn node_watch_resources(
        &self,
        _request: Request<NodeWatchResourcesRequest>,
    ) -> Result<Response<Self::NodeWatchResourcesStream>, Status> {
        Ok(Response::new(self.stream()))
    }
}

#[tonic::async_trait]
impl v1alpha1::dra_resource_health_server::DraResourceHealth for HealthService {
    type NodeWatchResourcesStream = BoxStream<'static, Result<NodeWatchResourcesResponse, Status>>;

    async fn node_watch_resources(
        &self,
        _request: Request<NodeWatchResourcesRequest>,
    ) -> Result<Response<Self::NodeWatchResourcesStream>, Status> {
        Ok(Response::new(self.stream()))
    }
}
