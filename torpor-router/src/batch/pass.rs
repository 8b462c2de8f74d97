//! A request's way through a batch: it joins one, and the one that opened it takes all of them to a process.

use crate::batch::kind::{Kind, merge, split};
use crate::batch::{Batch, Batching, Key, Member, Part};
use crate::body::Accounted;
use crate::error::Refusal;
use crate::function::Lease;
use crate::phases::Phases;
use crate::proxy::{Proxy, REQUEST_ID, request_id};
use crate::registry::Served;
use crate::spans::parent_of;
use crate::terms::Terms;
use crate::waiting::own;
use axum::body::Body;
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;
use tokio::time::{timeout, timeout_at};

/// How many requests a batch has, for the process and for its clients.
const BATCH: HeaderName = HeaderName::from_static("x-torpor-batch");
/// Bodies of batches are kept in memory; others stream through.
const BODY_MIB: usize = 16;
/// So may their answers be.
const ANSWER_MIB: usize = 64;

impl Proxy {
    /// Answers a request as part of a batch.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) async fn pass_in_batch(
        &self,
        mut accounted: Box<Accounted>,
        (kind, batching): (Kind, Batching),
        path: &str,
        request: Box<Request<Body>>,
    ) -> Result<Response, Refusal> {
        let (served, arrived) = (accounted.served.clone(), accounted.arrived);
        let (mut head, body) = request.into_parts();
        let terms = Terms::of(&head.headers, arrived, served.function.deployment.timeout);
        let terms = accounted.answered(terms)?;
        let body = accounted.answered(gather(body, terms).await)?;
        let read = kind.read(&body).map_err(|_| Refusal::BatchBody { limit_mib: BODY_MIB });
        let Some((item, signature)) = accounted.answered(read)? else {
            let request = Box::new(Request::from_parts(head, Body::from(body)));
            return self.pass_alone(accounted, path, request).await;
        };
        let (answer, told) = oneshot::channel();
        own(&mut head.headers);
        let id = request_id(&head.headers);
        let key = Key { kind, path: path.to_owned(), priority: terms.priority, signature };
        let (due, trace) = (served.due(terms, arrived), parent_of(&head.headers));
        let member = Member { item, terms, due, id: id.clone(), trace, answer };
        // What is asked for is a copy, too.
        drop((head, body));
        if let Some(batch) = served.function.batches.join(key, member, batching.size) {
            // Not here: the others wait for it though this one's client leaves.
            tokio::spawn(self.clone().take(served, batch, batching));
        }
        let part = match timeout_at(terms.deadline.into(), told).await {
            Ok(Ok(part)) => part,
            Ok(Err(_)) => Err(Refusal::WaitedTooLong { starting: None }),
            Err(_) => Err(Refusal::AnsweredTooLate),
        };
        let part = accounted.answered(part)?;
        Ok(tell(&part, id, &mut accounted))
    }

    /// Takes a batch to a process, and shares the answer out.
    async fn take(self, served: Served, batch: Arc<Batch>, batching: Batching) {
        let opened = Instant::now();
        // Full, or over.
        let _ = timeout(batching.window, batch.full.notified()).await;
        let placed = loop {
            let Some((terms, due)) = batch.terms(Instant::now()) else {
                batch.close();
                return;
            };
            match self.place(&served, terms, due).await {
                // Others may have joined that are more patient.
                Err(Refusal::WaitedTooLong { .. }) if batch.terms(Instant::now()).is_some() => {}
                placed => break placed.map(|lease| (lease, terms)),
            }
        };
        let members = batch.close();
        if members.is_empty() {
            return;
        }
        let outcome = match placed {
            Ok((lease, terms)) => self.ask_for_all(lease, terms, &batch.key, opened, &members).await,
            Err(refusal) => Err(refusal),
        };
        share(members, outcome);
    }

    async fn ask_for_all(
        &self,
        mut lease: Lease,
        terms: Terms,
        key: &Key,
        opened: Instant,
        members: &[Member],
    ) -> Result<Part, Refusal> {
        let passed = Instant::now();
        let answer = self.ask(&lease, &key.path, Box::new(one(members)), terms.deadline).await?;
        let phases = lease.phases(passed - opened, passed.elapsed()).await;
        let (head, body) = answer.into_parts();
        let limited = Limited::new(body, ANSWER_MIB << 20).collect();
        let whole = timeout_at(terms.deadline.into(), limited).await;
        let whole = whole.map_err(|_| Refusal::AnsweredTooLate)?;
        Ok(Part {
            status: head.status,
            content_type: head.headers.get(CONTENT_TYPE).cloned(),
            body: whole.map_err(|error| Refusal::Broken(error.to_string()))?.to_bytes(),
            requests: members.len(),
            passed,
            phases,
        })
    }
}

/// A body in memory.
async fn gather(body: Body, terms: Terms) -> Result<Bytes, Refusal> {
    let whole = timeout_at(terms.deadline.into(), Limited::new(body, BODY_MIB << 20).collect()).await;
    match whole.map_err(|_| Refusal::SlowBatchBody)? {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::BatchBody { limit_mib: BODY_MIB }),
        Err(_) => Err(Refusal::Hangup),
    }
}

/// The request that a process gets for all of them. What their heads say is theirs alone and not passed on, but for their names.
fn one(members: &[Member]) -> Request<Body> {
    let items: Vec<_> = members.iter().map(|member| member.item.clone()).collect();
    let mut request = Request::new(Body::from(merge(&items)));
    *request.method_mut() = Method::POST;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(BATCH, HeaderValue::from(members.len()));
    // Of several traces it can be part of one.
    if let Some(trace) = members.iter().find_map(|member| member.trace.clone()) {
        headers.insert("traceparent", trace);
    }
    for member in members {
        headers.append(REQUEST_ID, member.id.clone());
    }
    request
}

/// Gives each its own. An answer that is no success is everybody's.
fn share(members: Vec<Member>, outcome: Result<Part, Refusal>) {
    let parts = outcome.and_then(|part| {
        if !part.status.is_success() {
            return Ok(vec![part; members.len()]);
        }
        let items: Vec<_> = members.iter().map(|member| member.item.clone()).collect();
        let bodies = split(&items, &part.body).map_err(Refusal::NoBatch)?;
        Ok(bodies.into_iter().map(|body| Part { body: Bytes::from(body), ..part.clone() }).collect())
    });
    match parts {
        Ok(parts) => {
            for (member, part) in members.into_iter().zip(parts) {
                // Its client may have left.
                let _ = member.answer.send(Ok(part));
            }
        }
        Err(refusal) => members.into_iter().for_each(|member| _ = member.answer.send(Err(refusal.clone()))),
    }
}

fn tell(part: &Part, id: HeaderValue, accounted: &mut Accounted) -> Response {
    accounted.code = part.status.as_u16();
    accounted.passed = Some(part.passed);
    let mut response = Response::new(Body::from(part.body.clone()));
    *response.status_mut() = part.status;
    let headers = response.headers_mut();
    if let Some(kind) = &part.content_type {
        headers.insert(CONTENT_TYPE, kind.clone());
    }
    headers.insert(REQUEST_ID, id);
    headers.insert(BATCH, HeaderValue::from(part.requests));
    let queue = part.passed.saturating_duration_since(accounted.arrived);
    accounted.served.function.metrics.queued.observe(queue.as_secs_f64());
    let phases = Phases { queue, ..part.phases };
    phases.tell(headers);
    accounted.begins_answer(phases);
    response
}
