//! What operators may ask, on a Unix socket that only the router's user can open: metrics, functions, logs, scale.

use crate::error::Refusal;
use crate::node_metrics;
use crate::overview::Overview;
use crate::registry::{Registry, Served};
use crate::settings::Settings;
use crate::watch::Watch;
use axum::body::Body;
use axum::extract::{FromRef, Path, State};
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::sync::Arc;
use tokio_stream::wrappers::BroadcastStream;

/// A function, as `torpor scale` and the API show it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FunctionRow {
    /// Its name.
    pub name: String,
    /// Requests that wait for a process.
    pub waiting: usize,
    /// Its processes.
    pub instances: Vec<ProcessRow>,
}

/// A process of a function.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessRow {
    /// Its number among the function's.
    pub id: u64,
    /// starting, ready or stopping
    pub state: String,
    /// Requests that it is answering.
    pub requests: usize,
    /// Where it listens, once it is healthy.
    pub address: Option<String>,
}

/// What `PUT /api/v1/functions/{name}/scale` takes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Scale {
    /// Processes kept from now on; `null` for what the settings file says.
    pub min_instances: Option<usize>,
}

/// What operators may ask about.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The functions.
    pub registry: Arc<Registry>,
    /// How everything is.
    pub watch: Arc<Watch>,
    /// Where the page is, with its token.
    pub page: Option<Arc<str>>,
    /// The settings file, and what does as it says.
    pub settings: Arc<Settings>,
}

impl FromRef<Admin> for Arc<Registry> {
    fn from_ref(admin: &Admin) -> Self {
        admin.registry.clone()
    }
}

/// The routes of the admin socket.
pub fn routes(admin: Admin) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/api/v1/overview", get(overview))
        .route("/api/v1/page", get(page))
        .route("/api/v1/settings", get(settings))
        .route("/api/v1/reload", post(reload))
        .route("/api/v1/functions", get(list))
        .route("/api/v1/functions/{name}", delete(remove))
        .route("/api/v1/functions/{name}/scale", put(scale))
        .route("/logs/{name}", get(logs))
        .route("/logs/stream/{name}", get(follow_logs))
        .fallback(async || Refusal::Path)
        .with_state(admin)
}

fn served(registry: &Registry, name: &str) -> Result<Served, Refusal> {
    registry.get(name).ok_or_else(|| Refusal::Unknown(name.to_owned()))
}

async fn metrics(State(admin): State<Admin>) -> ([(&'static str, &'static str); 1], String) {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    // Without the node server there are no numbers of it.
    let node = admin.watch.report().await.unwrap_or_default();
    ([("content-type", kind)], admin.registry.metrics.text(&node_metrics::registry(&node)))
}

async fn overview(State(admin): State<Admin>) -> Json<Overview> {
    Json(admin.watch.overview().await)
}

async fn page(State(admin): State<Admin>) -> Result<String, Refusal> {
    admin.page.as_deref().map(str::to_owned).ok_or(Refusal::NoPage)
}

async fn settings(State(admin): State<Admin>) -> String {
    admin.settings.path().display().to_string()
}

async fn reload(State(admin): State<Admin>) -> Result<(), Refusal> {
    admin.settings.read().map_err(|error| Refusal::Settings(error.to_string()))
}

fn row(served: &Served) -> FunctionRow {
    let (instances, waiting) = served.function.rows();
    let instances = instances.into_iter().map(|instance| ProcessRow {
        id: instance.id,
        state: instance.state.to_owned(),
        requests: instance.requests,
        address: instance.address.map(|address| address.to_string()),
    });
    FunctionRow { name: served.function.name.to_string(), waiting, instances: instances.collect() }
}

async fn list(State(registry): State<Arc<Registry>>) -> Json<Vec<FunctionRow>> {
    Json(registry.all().iter().map(row).collect())
}

async fn remove(State(registry): State<Arc<Registry>>, Path(name): Path<String>) -> Result<(), Refusal> {
    if registry.remove(&name) { Ok(()) } else { Err(Refusal::Unknown(name)) }
}

async fn scale(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
    Json(scale): Json<Scale>,
) -> Result<Json<FunctionRow>, Refusal> {
    let served = served(&registry, &name)?;
    served.function.scale(scale.min_instances);
    Ok(Json(row(&served)))
}

async fn logs(State(registry): State<Arc<Registry>>, Path(name): Path<String>) -> Result<String, Refusal> {
    let (last, _) = served(&registry, &name)?.function.logs.follow();
    Ok(last.iter().map(|line| format!("{line}\n")).collect())
}

async fn follow_logs(
    State(registry): State<Arc<Registry>>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let (last, next) = served(&registry, &name)?.function.logs.follow();
    // A follower that is too slow misses lines, and goes on.
    let next = BroadcastStream::new(next).filter_map(async |line| line.ok());
    let lines = stream::iter(last).chain(next).map(|line| Ok::<_, Infallible>(line + "\n"));
    Ok(Response::new(Body::from_stream(lines)))
}
