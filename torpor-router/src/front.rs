//! What clients may ask: functions by name, models by name as OpenAI and KServe have it, health.

use crate::error::Refusal;
use crate::fresh::Fresh;
use crate::keys::Keys;
use crate::loading;
use crate::node::Node;
use crate::proxy::Proxy;
use crate::registry::{Registry, Served};
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use hyper::header::{ACCEPT, AUTHORIZATION};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// A body in which the model's name is looked for is kept in memory; others stream through.
const MODEL_BODY_MIB: usize = 16;
/// How long it may take to come; nobody has given the request a deadline yet.
const MODEL_BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What all requests share.
#[derive(Debug)]
pub struct Front {
    /// The functions.
    pub registry: Arc<Registry>,
    /// Whether GPUs answer.
    pub node: Arc<Node>,
    /// Whom to let in; everybody without.
    pub keys: Option<Arc<Fresh<Keys>>>,
    /// The way to processes.
    pub proxy: Proxy,
}

/// The routes of the front.
pub fn routes(front: Arc<Front>) -> Router {
    Router::new()
        .route("/v1/functions/{name}/invoke", any(invoke))
        .route("/v1/functions/{name}/invoke/{*rest}", any(invoke_below))
        .route("/v1/functions/{name}/progress", get(progress))
        .route("/v1/functions", get(list_functions))
        .route("/v1/models", get(list_models))
        .route("/v1/chat/completions", post(by_model))
        .route("/v1/completions", post(by_model))
        .route("/v1/embeddings", post(by_model))
        .route("/v2", get(kserve))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{name}", any(kserve_model))
        .route("/v2/models/{name}/{*rest}", any(kserve_model))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/openapi.json", get(openapi))
        .fallback(async || Refusal::Path)
        .with_state(front)
}

impl Front {
    fn served(&self, name: &str) -> Result<Served, Refusal> {
        self.registry.get(name).ok_or_else(|| Refusal::Unknown(name.to_owned()))
    }

    fn admit(&self, request: &Request) -> Result<(), Refusal> {
        let authorization = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
        match &self.keys {
            Some(keys) if !keys.get().admit(authorization) => Err(Refusal::Key),
            _ => Ok(()),
        }
    }

    async fn pass(&self, name: &str, path: &str, request: Box<Request>) -> Result<Response, Refusal> {
        self.admit(&request)?;
        let served = self.served(name)?;
        let path = match request.uri().query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        self.proxy.pass(&served, &path, request).await
    }
}

type Answer = Result<Response, Refusal>;

async fn invoke(State(front): State<Arc<Front>>, Path(name): Path<String>, request: Request) -> Answer {
    front.pass(&name, "/invoke", Box::new(request)).await
}

async fn invoke_below(
    State(front): State<Arc<Front>>,
    Path((name, _)): Path<(String, String)>,
    request: Request,
) -> Answer {
    // As it was written: decoding and encoding again could change it.
    let path = request.uri().path().splitn(5, '/').nth(4).map(|rest| format!("/{rest}")).unwrap_or_default();
    front.pass(&name, &path, Box::new(request)).await
}

/// Requests whose body names the function as `model` (OpenAI).
async fn by_model(State(front): State<Arc<Front>>, request: Request) -> Answer {
    front.admit(&request)?;
    let refusal = || Refusal::Model { limit_mib: MODEL_BODY_MIB };
    let (head, body) = request.into_parts();
    let whole = timeout(MODEL_BODY_TIMEOUT, Limited::new(body, MODEL_BODY_MIB << 20).collect()).await;
    let bytes = whole.map_err(|_| Refusal::SlowBody)?.map_err(|_| refusal())?.to_bytes();
    let named: Value = serde_json::from_slice(&bytes).map_err(|_| refusal())?;
    let name = named.get("model").and_then(Value::as_str).ok_or_else(refusal)?;
    let path = head.uri.path().to_owned();
    front.pass(name, &path, Box::new(Request::from_parts(head, Body::from(bytes)))).await
}

async fn kserve_model(State(front): State<Arc<Front>>, request: Request) -> Answer {
    let path = request.uri().path().to_owned();
    let name = path.split('/').nth(3).unwrap_or_default().to_owned();
    if path.ends_with("/ready") {
        front.served(&name)?;
        return Ok(ready(State(front)).await.into_response());
    }
    front.pass(&name, &path, Box::new(request)).await
}

/// How far a function is that has no process yet: once, or again and again for whoever takes a stream of events.
async fn progress(State(front): State<Arc<Front>>, Path(name): Path<String>, request: Request) -> Answer {
    front.admit(&request)?;
    let function = front.served(&name)?.function;
    let accepts = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepts.contains("text/event-stream") {
        return Ok(loading::follow(move || function.loading()));
    }
    Ok(Json(function.loading()).into_response())
}

async fn kserve() -> Json<Value> {
    Json(json!({"name": "torpor", "version": env!("CARGO_PKG_VERSION"), "extensions": []}))
}

async fn list_functions(State(front): State<Arc<Front>>, request: Request) -> Result<Json<Value>, Refusal> {
    front.admit(&request)?;
    let names = front.registry.all().into_iter().map(|served| json!({"name": *served.function.name}));
    Ok(Json(json!({"functions": names.collect::<Vec<_>>()})))
}

async fn list_models(State(front): State<Arc<Front>>, request: Request) -> Result<Json<Value>, Refusal> {
    front.admit(&request)?;
    let model =
        |served: Served| json!({"id": *served.function.name, "object": "model", "owned_by": "torpor"});
    Ok(Json(
        json!({"object": "list", "data": front.registry.all().into_iter().map(model).collect::<Vec<_>>()}),
    ))
}

async fn live() -> StatusCode {
    StatusCode::OK
}

/// Ready means that a GPU of the node has answered lately.
async fn ready(State(front): State<Arc<Front>>) -> (StatusCode, String) {
    match front.node.trouble() {
        None => (StatusCode::OK, String::new()),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, trouble),
    }
}

async fn openapi() -> Response {
    ([("content-type", "application/json")], include_str!("openapi.json")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_request_that_waits_has_no_room_for_what_comes_later() {
        let sizes = [size(invoke), size(invoke_below)];
        assert!(sizes.iter().all(|&size| size < 2 << 10), "{sizes:?}");
    }
}
