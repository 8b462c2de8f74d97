//! The page: what `torpor top` shows, live in a browser. Nothing can be changed there.
//!
//! It is served where the settings say so and nowhere else, and wants a token that is drawn at the router's start: the address
//! with it is in the router's log, and `GET /api/v1/page` of the admin socket tells it.

use crate::error::Refusal;
use crate::keys::same;
use crate::overview::Overview;
use crate::watch::Watch;
use axum::extract::{Query, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::{Stream, StreamExt};
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY};
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::wrappers::IntervalStream;

/// How often what is shown changes.
const INTERVAL: Duration = Duration::from_secs(1);

/// Nothing from elsewhere, and nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

/// What the page needs.
#[derive(Debug)]
pub struct Page {
    /// What is shown.
    pub watch: Arc<Watch>,
    /// What a visitor must know.
    pub token: String,
}

#[derive(Deserialize)]
struct Visitor {
    #[serde(default)]
    token: String,
}

/// The routes of the page.
pub fn routes(page: Arc<Page>) -> Router {
    Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/overview", get(overview))
        .route("/events", get(events))
        .fallback(async || Refusal::Path)
        .layer(from_fn_with_state(page.clone(), admit))
        .with_state(page)
}

async fn admit(
    State(page): State<Arc<Page>>,
    Query(visitor): Query<Visitor>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    if !same(page.token.as_bytes(), visitor.token.as_bytes()) {
        return Err(Refusal::Token);
    }
    let mut answer = next.run(request).await;
    for (name, value) in
        [(CONTENT_SECURITY_POLICY, POLICY), (CACHE_CONTROL, "no-store"), (REFERRER_POLICY, "no-referrer")]
    {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(answer)
}

async fn overview(State(page): State<Arc<Page>>) -> Json<Overview> {
    Json(page.watch.overview().await)
}

async fn events(State(page): State<Arc<Page>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let ticks = IntervalStream::new(tokio::time::interval(INTERVAL));
    let events = ticks.then(move |_| {
        let page = page.clone();
        async move {
            let overview = page.watch.overview().await;
            // What cannot be written is left out; the next one comes in a second.
            Ok(Event::default().json_data(overview).unwrap_or_default())
        }
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}
