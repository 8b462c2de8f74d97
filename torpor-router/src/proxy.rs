//! Passing a request on to a process of its function, and the answer back.

use crate::batch::kind::Kind;
use crate::body::{Accounted, LeasedBody};
use crate::error::Refusal;
use crate::function::Lease;
use crate::gate::Gate;
use crate::order::Candidate;
use crate::registry::Served;
use crate::spans::Spans;
use crate::terms::Terms;
use crate::told::Teller;
use crate::waiting::with_own_bytes;
use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::{HeaderMap, Request, Uri, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request's name in the logs of all who see it.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Connections to a process that are kept for its next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Passes requests on.
#[derive(Clone, Debug)]
pub struct Proxy {
    gate: Arc<Gate>,
    teller: Arc<Teller>,
    client: Client<HttpConnector, Body>,
    spans: Option<Arc<Spans>>,
}

impl Proxy {
    /// Passes requests on when the gate lets them, and tells of them.
    #[must_use]
    pub fn new(gate: Arc<Gate>, teller: Arc<Teller>, spans: Option<Arc<Spans>>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_TIMEOUT);
        Self { gate, teller, client: client.build(connector), spans }
    }

    /// Passes a request on to a function, at `path` (with its query) of one of its processes. What is large of it is in boxes: while
    /// it waits, each function on the way to here would keep room for it.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn pass(
        &self,
        served: &Served,
        path: &str,
        mut request: Box<Request<Body>>,
    ) -> Result<Response, Refusal> {
        let id = request_id(request.headers());
        request.headers_mut().insert(REQUEST_ID, id);
        let method = request.method().clone();
        let name = &served.function.name;
        let span =
            self.spans.as_ref().map(|spans| spans.begin(name, method.as_str(), path, request.headers_mut()));
        // A client that leaves drops it, and 499 is counted.
        let accounted = Box::new(Accounted::begin(served.clone(), self.gate.clone(), span));
        let kind = Kind::of(request.method(), path, request.headers());
        match served.function.deployment.batching.zip(kind) {
            Some((batching, kind)) => {
                Box::pin(self.pass_in_batch(accounted, (kind, batching), path, request)).await
            }
            None => self.pass_alone(accounted, path, request).await,
        }
    }

    pub(crate) async fn pass_alone(
        &self,
        mut accounted: Box<Accounted>,
        path: &str,
        request: Box<Request<Body>>,
    ) -> Result<Response, Refusal> {
        let forwarded = self.forward(&mut accounted, path, request).await;
        let (mut lease, deadline, answer) = accounted.answered(forwarded)?;
        let passed = accounted.passed.unwrap_or(accounted.arrived);
        let phases = lease.phases(passed - accounted.arrived, passed.elapsed()).await;
        let (mut head, body) = answer.into_parts();
        phases.tell(&mut head.headers);
        accounted.begins_answer(phases);
        let body = LeasedBody::new(body, head.status.as_u16(), deadline, lease, accounted);
        Ok(Response::from_parts(head, Body::new(body)))
    }

    async fn forward(
        &self,
        accounted: &mut Accounted,
        path: &str,
        mut request: Box<Request<Body>>,
    ) -> Result<(Lease, Instant, Response<Incoming>), Refusal> {
        let (served, arrived) = (&accounted.served, accounted.arrived);
        let terms = Terms::of(request.headers(), arrived, served.function.deployment.timeout)?;
        // The process gets its method, headers and body.
        *request.uri_mut() = Uri::default();
        *request.version_mut() = Version::default();
        request.extensions_mut().clear();
        let lease = {
            let place = pin!(self.place(served, terms, served.due(terms, arrived)));
            with_own_bytes(&mut request, place).await?
        };
        let passed = Instant::now();
        served.function.metrics.queued.observe((passed - arrived).as_secs_f64());
        accounted.passed = Some(passed);
        let id = request_id(request.headers());
        request.headers_mut().remove(HOST);
        remove_hop_headers(request.headers_mut());
        let mut answer = self.ask(&lease, path, request, terms.deadline).await?;
        remove_hop_headers(answer.headers_mut());
        answer.headers_mut().insert(REQUEST_ID, id);
        Ok((lease, terms.deadline, answer))
    }

    /// Waits for a place at a process, and then for the GPUs.
    pub(crate) async fn place(&self, served: &Served, terms: Terms, due: Instant) -> Result<Lease, Refusal> {
        let function = &served.function;
        let mut lease = function.lease(terms).await?;
        let candidate = Candidate {
            function: function.name.clone(),
            priority: terms.priority,
            due,
            arrival: 0,
            percentile: served.percentile,
        };
        lease.pass = Some(self.gate.pass(candidate, terms.deadline).await?);
        lease.told = Some(self.teller.begin(&function.name, lease.process_group));
        Ok(lease)
    }

    /// Sends a request to the process of a lease.
    pub(crate) async fn ask(
        &self,
        lease: &Lease,
        path: &str,
        mut request: Box<Request<Body>>,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Refusal> {
        let uri = Uri::builder().scheme("http").authority(&*lease.address).path_and_query(path).build();
        *request.uri_mut() = uri.map_err(|_| Refusal::Path)?;
        match tokio::time::timeout_at(deadline.into(), self.client.request(*request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Refusal::Broken(error.to_string())),
            Err(_) => Err(Refusal::AnsweredTooLate),
        }
    }
}

/// Removes what is said between two neighbours and not to the end. Source: RFC 9110, section 7.6.1.
fn remove_hop_headers(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let always = [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    for name in named.into_iter().chain(always) {
        headers.remove(name);
    }
}

/// The name that the client gave its request, or a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> HeaderValue {
    headers.get(REQUEST_ID).filter(|value| value.len() <= 128).cloned().unwrap_or_else(|| {
        let mut bytes = [0; 16];
        // Without random bytes all requests have one name, which is no reason to refuse them.
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("0"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_neighbours_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("connection", "close, X-Secret"), ("x-secret", "1"), ("te", "trailers"), ("x-kept", "1")]
        {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        remove_hop_headers(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
    }
}
