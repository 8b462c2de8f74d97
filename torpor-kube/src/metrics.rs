//! What pods have and do, as metrics: the kubelet knows which container has which function, and the node server the rest.

use crate::device_plugin::RESOURCE;
use crate::dra::DRIVER;
use crate::node_server::NodeServer;
use crate::protocol::v1::pod_resources_lister_client::PodResourcesListerClient;
use crate::protocol::v1::{ContainerResources, ListPodResourcesRequest, ListPodResourcesResponse};
use crate::reason::reason;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::transport::Endpoint;
use torpor_cdi::Kind;
use torpor_proto::control::admin::Function;

/// How long the kubelet may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest list of pods. Source: the kubelet's own limit.
const MOST_BYTES: usize = 16 << 20;

/// Nobody can look.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be served at {address}: {error}; give another --metrics")]
pub struct MetricsError {
    address: SocketAddr,
    error: io::Error,
}

/// A container that is a function.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    namespace: String,
    pod: String,
    container: String,
    function: String,
}

#[derive(Debug)]
struct Sources {
    server: NodeServer,
    kubelet: PathBuf,
}

/// Serves metrics, each time as they are then, until the process ends.
///
/// # Errors
/// [`MetricsError`].
pub async fn serve(address: SocketAddr, server: NodeServer, kubelet: &Path) -> Result<(), MetricsError> {
    let listener = TcpListener::bind(address).await.map_err(|error| MetricsError { address, error })?;
    let sources = Arc::new(Sources { server, kubelet: kubelet.join("pod-resources/kubelet.sock") });
    let service = axum::Router::new().route("/metrics", get(answer)).with_state(sources);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, service).await {
            tracing::error!("metrics are served no more: {error}");
        }
    });
    Ok(())
}

async fn answer(State(sources): State<Arc<Sources>>) -> Result<String, (StatusCode, String)> {
    let unavailable = |error: String| (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"));
    let functions = sources.server.functions().await.map_err(|error| unavailable(error.to_string()))?;
    let pods = sources.pods().await.map_err(unavailable)?;
    let mut text = String::new();
    encode(&mut text, &registry(functions, &pods)).map_err(|error| unavailable(error.to_string()))?;
    Ok(text)
}

impl Sources {
    async fn pods(&self) -> Result<ListPodResourcesResponse, String> {
        let silent = |error: &str| {
            format!("the kubelet does not say which pod has what ({}): {error}", self.kubelet.display())
        };
        let endpoint = Endpoint::from_shared(format!("unix://{}", self.kubelet.display()));
        let endpoint = endpoint.map_err(|error| silent(&reason(&error)))?.timeout(PATIENCE);
        let channel = endpoint.connect().await.map_err(|error| silent(&reason(&error)))?;
        let mut client = PodResourcesListerClient::new(channel).max_decoding_message_size(MOST_BYTES);
        let answer = client.list(ListPodResourcesRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(|status| silent(status.message()))
    }
}

/// The functions that a container is.
fn functions_of(container: &ContainerResources) -> impl Iterator<Item = &str> {
    let slots = container.devices.iter().filter(|devices| devices.resource_name == RESOURCE);
    let claims = container.dynamic_resources.iter().flat_map(|resource| &resource.claim_resources);
    let claims = claims.filter(|claim| claim.driver_name == DRIVER).flat_map(|claim| &claim.cdi_devices);
    let claims = claims.filter_map(|device| device.name.split_once('='));
    let claims = claims.filter(|(kind, _)| *kind == Kind::Pod.to_string()).map(|(_, function)| function);
    slots.flat_map(|devices| &devices.device_ids).map(String::as_str).chain(claims)
}

/// A number that is told of each function.
type Amount = fn(&Function) -> u64;

fn registry(functions: Vec<Function>, pods: &ListPodResourcesResponse) -> Registry {
    let functions: HashMap<String, Function> =
        functions.into_iter().map(|function| (function.name.clone(), function)).collect();
    let mut containers = Vec::new();
    for pod in &pods.pod_resources {
        for container in &pod.containers {
            for function in functions_of(container).filter_map(|name| functions.get(name)) {
                let labels = Labels {
                    namespace: pod.namespace.clone(),
                    pod: pod.name.clone(),
                    container: container.name.clone(),
                    function: function.name.clone(),
                };
                containers.push((labels, function));
            }
        }
    }
    let gauge = |of: Amount| {
        let family = Family::<Labels, Gauge>::default();
        for (labels, function) in &containers {
            family.get_or_create(labels).set(of(function).try_into().unwrap_or(i64::MAX));
        }
        family
    };
    let counter = |of: Amount| {
        let family = Family::<Labels, Counter>::default();
        for (labels, function) in &containers {
            family.get_or_create(labels).inc_by(of(function));
        }
        family
    };
    let mut registry = Registry::with_prefix("torpor_pod");
    registry.register("processes", "Processes with CUDA", gauge(|function| function.clients.into()));
    let gauges: [(&str, &str, Amount); 4] = [
        ("memory_limit", "Device memory that each process may allocate", |function| {
            function.memory_limit_bytes
        }),
        ("memory_allocated", "Device memory that was allocated", |function| function.allocated_bytes),
        ("memory_resident", "Device memory that is on GPUs", |function| function.resident_bytes),
        ("memory_host", "Device memory that the host keeps", |function| function.host_bytes),
    ];
    for (name, help, of) in gauges {
        registry.register_with_unit(name, help, Unit::Bytes, gauge(of));
    }
    registry.register("turns", "Times that a GPU was given to it", counter(|function| function.requests));
    registry.register("swaps", "Times that memory had to come for that", counter(|function| function.swaps));
    registry
}
