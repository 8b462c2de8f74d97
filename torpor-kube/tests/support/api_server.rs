//! As much of an API server as a driver asks: claims, nodes and slices (`resource.k8s.io/v1`), which it keeps as they are sent.

use super::Node;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use k8s_openapi::api::resource::v1::ResourceSlice;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The node that the driver is on.
pub const NODE: &str = "node-1";

/// What it keeps.
#[derive(Default)]
struct World {
    /// By namespace and name.
    claims: HashMap<(String, String), Value>,
    slices: HashMap<String, Value>,
    /// As a cluster without consumable capacity: what it does not know is dropped.
    drops_sharing: bool,
}

type Shared = Arc<Mutex<World>>;

/// An API server, which ends when it is dropped.
pub struct ApiServer {
    world: Shared,
    serving: JoinHandle<()>,
}

impl ApiServer {
    /// Starts it, and makes it known to the node's processes.
    pub fn start(node: &Node) -> Self {
        let world = Shared::default();
        let claim = "/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims/{name}";
        let slice = "/apis/resource.k8s.io/v1/resourceslices/{name}";
        let service = axum::Router::new()
            .route(claim, get(get_claim))
            .route(slice, get(get_slice).patch(apply_slice))
            .route("/api/v1/nodes/{name}", get(get_node))
            .with_state(world.clone());
        let listener = node.runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": address}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(node.path("kubeconfig"), config.to_string()).unwrap();
        let serving = node.runtime.spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { world, serving }
    }

    pub fn drop_sharing(&self) {
        self.world.lock().unwrap().drops_sharing = true;
    }

    /// Somebody makes a claim, and the scheduler allocates it.
    pub fn allocate(&self, name: &str, uid: &str, memory: &str, config: &Value) {
        let result = json!({
            "request": "gpu", "driver": "gpu.torpor.dev", "pool": NODE, "device": "gpu-0",
            "shareID": "5a1f0c3e-0000-4000-8000-000000000000", "consumedCapacity": {"memory": memory},
        });
        let claim = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"namespace": "team", "name": name, "uid": uid},
            "spec": {},
            "status": {"allocation": {"devices": {"results": [result], "config": config}}},
        });
        self.world.lock().unwrap().claims.insert(("team".to_owned(), name.to_owned()), claim);
    }

    pub fn delete_claim(&self, name: &str) {
        self.world.lock().unwrap().claims.remove(&("team".to_owned(), name.to_owned()));
    }

    /// What is published, if it is what the types of the API say.
    pub fn slice(&self) -> Option<ResourceSlice> {
        let world = self.world.lock().unwrap();
        world
            .slices
            .get(&format!("{NODE}-gpu.torpor.dev"))
            .map(|slice| serde_json::from_value(slice.clone()).unwrap())
    }

    pub fn devices(&self) -> Vec<String> {
        let devices = self.slice().and_then(|slice| slice.spec.devices).unwrap_or_default();
        devices.into_iter().map(|device| device.name).collect()
    }

    pub fn delete_slices(&self) {
        self.world.lock().unwrap().slices.clear();
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn found(object: Option<&Value>) -> Response {
    match object {
        Some(object) => Json(object.clone()).into_response(),
        None => {
            let status = json!({
                "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404,
                "message": "not found",
            });
            (StatusCode::NOT_FOUND, Json(status)).into_response()
        }
    }
}

async fn get_claim(State(world): State<Shared>, Path(key): Path<(String, String)>) -> Response {
    found(world.lock().unwrap().claims.get(&key))
}

async fn get_slice(State(world): State<Shared>, Path(name): Path<String>) -> Response {
    found(world.lock().unwrap().slices.get(&name))
}

async fn get_node(Path(name): Path<String>) -> Response {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "uid": "node-uid"}});
    found(Some(&node).filter(|_| name == NODE))
}

/// Server-side apply, of one who applies all of the object.
async fn apply_slice(
    State(world): State<Shared>,
    Path(name): Path<String>,
    Query(how): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    assert_eq!(headers["content-type"], "application/apply-patch+yaml");
    assert_eq!((how["fieldManager"].as_str(), how["force"].as_str()), ("torpor-kube", "true"));
    let mut slice: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&slice["apiVersion"], &slice["kind"]),
        (&json!("resource.k8s.io/v1"), &json!("ResourceSlice"))
    );
    assert_eq!(slice["metadata"]["name"], name);
    let mut world = world.lock().unwrap();
    if world.drops_sharing {
        for device in slice["spec"]["devices"].as_array_mut().unwrap() {
            device.as_object_mut().unwrap().remove("allowMultipleAllocations");
        }
    }
    let generation = |slice: &Value| slice["spec"]["pool"]["generation"].as_i64().unwrap();
    if let Some(before) = world.slices.get(&name) {
        assert!(generation(&slice) > generation(before), "the scheduler believes the highest generation");
    }
    world.slices.insert(name, slice.clone());
    Json(slice).into_response()
}
