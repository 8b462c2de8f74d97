//! A kubelet: it finds plugins, and asks them what a real one asks.

use super::Node;
use super::process::{PATIENCE, eventually};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use torpor_kube::protocol::device_plugin::device_plugin_client::DevicePluginClient;
use torpor_kube::protocol::device_plugin::registration_server::{Registration, RegistrationServer};
use torpor_kube::protocol::device_plugin::{
    AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse, Empty, ListAndWatchResponse,
    RegisterRequest,
};
use torpor_kube::protocol::dra::dra_plugin_client::DraPluginClient;
use torpor_kube::protocol::dra::{
    Claim, NodePrepareResourceResponse, NodePrepareResourcesRequest, NodeUnprepareResourceResponse,
    NodeUnprepareResourcesRequest,
};
use torpor_kube::protocol::registration::registration_client::RegistrationClient;
use torpor_kube::protocol::registration::{InfoRequest, PluginInfo, RegistrationStatus};
use torpor_kube::protocol::v1::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
use torpor_kube::protocol::v1::{
    ListPodResourcesRequest, ListPodResourcesResponse, NodeWatchResourcesRequest, NodeWatchResourcesResponse,
};
use torpor_kube::protocol::{v1, v1alpha1};

async fn connect(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap().connect().await
}

/// A plugin for dynamic resource allocation that the kubelet has found.
pub struct DraPlugin {
    runtime: Handle,
    pub info: PluginInfo,
    pub registration_socket: PathBuf,
    channel: Channel,
}

impl DraPlugin {
    /// Looks into the registry until there is a plugin, and gets to know it.
    pub fn find(node: &Node) -> Self {
        let registry = node.path("kubelet/plugins_registry");
        let mut found = None;
        eventually("the plugin can be found", || {
            let sockets = fs::read_dir(&registry).unwrap().map(|entry| entry.unwrap().path());
            let mut sockets =
                sockets.filter(|path| path.extension().is_some_and(|extension| extension == "sock"));
            found = sockets
                .find_map(|socket| node.runtime.block_on(Self::ask(&socket)).map(|info| (socket, info)));
            found.is_some()
        });
        let (registration_socket, info) = found.unwrap();
        let channel = node.runtime.block_on(connect(Path::new(&info.endpoint))).unwrap();
        Self { runtime: node.runtime.handle().clone(), info, registration_socket, channel }
    }

    async fn ask(socket: &Path) -> Option<PluginInfo> {
        let mut client = RegistrationClient::new(connect(socket).await.ok()?);
        let info = client.get_info(InfoRequest {}).await.ok()?.into_inner();
        let status = RegistrationStatus { plugin_registered: true, error: String::new() };
        client.notify_registration_status(status).await.ok()?;
        Some(info)
    }

    pub fn prepare(&self, claims: &[Claim]) -> HashMap<String, NodePrepareResourceResponse> {
        let request = NodePrepareResourcesRequest { claims: claims.to_vec() };
        let mut client = DraPluginClient::new(self.channel.clone());
        let answer = self.runtime.block_on(client.node_prepare_resources(request)).unwrap();
        let answers = answer.into_inner().claims;
        assert!(claims.iter().all(|claim| answers.contains_key(&claim.uid)), "every claim is answered");
        answers
    }

    pub fn prepare_one(&self, claim: &Claim) -> NodePrepareResourceResponse {
        self.prepare(std::slice::from_ref(claim)).remove(&claim.uid).unwrap()
    }

    pub fn unprepare(&self, claim: &Claim) -> NodeUnprepareResourceResponse {
        let request = NodeUnprepareResourcesRequest { claims: vec![claim.clone()] };
        let mut client = DraPluginClient::new(self.channel.clone());
        let answer = self.runtime.block_on(client.node_unprepare_resources(request)).unwrap();
        answer.into_inner().claims.remove(&claim.uid).unwrap()
    }

    /// The devices' health, as kubelets from 1.37 ask for it, and as those before do.
    pub fn watch_health(&self) -> [Streaming<NodeWatchResourcesResponse>; 2] {
        self.runtime.block_on(async {
            let mut client =
                v1::dra_resource_health_client::DraResourceHealthClient::new(self.channel.clone());
            let now = client.node_watch_resources(NodeWatchResourcesRequest {}).await.unwrap();
            let mut client =
                v1alpha1::dra_resource_health_client::DraResourceHealthClient::new(self.channel.clone());
            let before = client.node_watch_resources(NodeWatchResourcesRequest {}).await.unwrap();
            [now.into_inner(), before.into_inner()]
        })
    }
}

/// The kubelet's side of device plugins: who registers is told.
struct Registrar(Sender<RegisterRequest>);

#[tonic::async_trait]
impl Registration for Registrar {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        self.0.send(request.into_inner()).map_err(|_| Status::unavailable("the kubelet ends"))?;
        Ok(Response::new(Empty {}))
    }
}

/// A kubelet that takes device plugins.
pub struct DeviceManager {
    folder: PathBuf,
    registered: Receiver<RegisterRequest>,
    serving: JoinHandle<()>,
}

impl DeviceManager {
    /// Starts it: sockets of plugins that an earlier one knew are removed.
    pub fn start(node: &Node) -> Self {
        let folder = node.path("kubelet/device-plugins");
        for entry in fs::read_dir(&folder).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let (sender, registered) = mpsc::channel();
        let _inside = node.runtime.enter();
        let incoming = UnixListenerStream::new(UnixListener::bind(folder.join("kubelet.sock")).unwrap());
        let server = Server::builder().add_service(RegistrationServer::new(Registrar(sender)));
        let serving = node.runtime.spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
        Self { folder, registered, serving }
    }

    /// Waits until a plugin registers, and calls it back.
    pub fn registered(&self, node: &Node) -> RegisteredPlugin {
        let request = self.registered.recv_timeout(PATIENCE).expect("nobody registered");
        let socket = self.folder.join(&request.endpoint);
        let mut plugin = RegisteredPlugin {
            runtime: node.runtime.handle().clone(),
            client: DevicePluginClient::new(node.runtime.block_on(connect(&socket)).unwrap()),
            request,
            socket,
        };
        let options =
            node.runtime.block_on(plugin.client.get_device_plugin_options(Empty {})).unwrap().into_inner();
        assert_eq!(Some(options), plugin.request.options);
        plugin
    }
}

impl Drop for DeviceManager {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A device plugin that has registered.
pub struct RegisteredPlugin {
    runtime: Handle,
    client: DevicePluginClient<Channel>,
    pub request: RegisterRequest,
    pub socket: PathBuf,
}

impl RegisteredPlugin {
    pub fn watch(&mut self) -> Streaming<ListAndWatchResponse> {
        self.runtime.block_on(self.client.list_and_watch(Empty {})).unwrap().into_inner()
    }

    /// Allocates devices to containers, one list for each.
    pub fn allocate(&mut self, containers: &[&[&str]]) -> Result<Vec<ContainerAllocateResponse>, Status> {
        let request = |devices: &&[&str]| ContainerAllocateRequest {
            devices_ids: devices.iter().map(|&device| device.to_owned()).collect(),
        };
        let request = AllocateRequest { container_requests: containers.iter().map(request).collect() };
        let answer = self.runtime.block_on(self.client.allocate(request))?;
        Ok(answer.into_inner().container_responses)
    }
}

struct Pods(Vec<v1::PodResources>);

#[tonic::async_trait]
impl PodResourcesLister for Pods {
    async fn list(
        &self,
        _request: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        Ok(Response::new(ListPodResourcesResponse { pod_resources: self.0.clone() }))
    }
}

/// The part of a kubelet that tells which container has what.
pub struct PodResources {
    serving: JoinHandle<()>,
}

impl PodResources {
    pub fn start(node: &Node, pods: Vec<v1::PodResources>) -> Self {
        let folder = node.path("kubelet/pod-resources");
        fs::create_dir_all(&folder).unwrap();
        let _inside = node.runtime.enter();
        let incoming = UnixListenerStream::new(UnixListener::bind(folder.join("kubelet.sock")).unwrap());
        let server = Server::builder().add_service(PodResourcesListerServer::new(Pods(pods)));
        let serving = node.runtime.spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
        Self { serving }
    }
}

impl Drop for PodResources {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
