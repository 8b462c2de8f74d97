//! Sending requests when they are due, whatever becomes of those before (open loop), and noting what became of each.

use crate::load_test::clock;
use crate::load_test::record::{Outcome, Record};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use torpor_router::client::Connector;

/// Between the order to begin and the first request, for threads and connections to be there.
const HEAD_START: Duration = Duration::from_millis(100);

/// What each request is.
#[derive(Debug)]
pub struct Target {
    /// How they are reached.
    pub connector: Connector,
    /// Each function, and where it is asked.
    pub functions: Vec<(String, Uri)>,
    /// Beside those of HTTP.
    pub headers: HeaderMap,
    /// Of every request.
    pub body: Bytes,
    /// How long an answer is waited for.
    pub patience: Duration,
    /// Requests under way at once; further ones are not sent.
    pub most_at_once: usize,
}

/// When which of the target's functions is asked, in order.
pub type Plan = Vec<(Duration, usize)>;

type HttpClient = Client<Connector, Full<Bytes>>;

/// Follows the plan to its end, or until `stop`. Returns the records of all that was due by then.
pub async fn follow(plan: &Plan, target: Target, stop: impl Future<Output = ()>) -> Vec<Record> {
    let client: HttpClient = Client::builder(TokioExecutor::new()).build(target.connector.clone());
    let target = Arc::new(target);
    let begin = Instant::now() + HEAD_START;
    let mut under_way = JoinSet::new();
    let mut records = Vec::with_capacity(plan.len());
    let mut stop = std::pin::pin!(stop);
    let mut clock = clock::tell(begin.into_std(), plan.iter().map(|&(at, _)| at).collect());
    for &(at, function) in plan {
        tokio::select! {
            told = clock.recv() => if told.is_none() { break },
            () = &mut stop => break,
        }
        while let Some(ended) = under_way.try_join_next() {
            records.extend(ended);
        }
        let due = Due { begin, at, function };
        if under_way.len() < target.most_at_once {
            under_way.spawn(due.send(client.clone(), target.clone()));
        } else {
            records.push(due.record(&target));
        }
    }
    records.extend(under_way.join_all().await);
    records
}

/// A request that is to be sent now.
#[derive(Clone, Copy, Debug)]
struct Due {
    begin: Instant,
    at: Duration,
    function: usize,
}

impl Due {
    /// The record of a request that was not sent.
    fn record(self, target: &Target) -> Record {
        let record = Record::unsent(&target.functions[self.function].0, self.at.as_secs_f64());
        Record { sent_s: self.begin.elapsed().as_secs_f64(), ..record }
    }

    async fn send(self, client: HttpClient, target: Arc<Target>) -> Record {
        let mut record = self.record(&target);
        let scheduled = self.begin + self.at;
        let answered = async {
            let mut request = Request::new(Full::new(target.body.clone()));
            *request.method_mut() = hyper::Method::POST;
            *request.uri_mut() = target.functions[self.function].1.clone();
            *request.headers_mut() = target.headers.clone();
            let Ok(answer) = client.request(request).await else { return Outcome::Error };
            record.first_byte_ms = Some(scheduled.elapsed().as_secs_f64() * 1e3);
            note_head(&mut record, &answer);
            let (status, mut body) = (answer.status(), answer.into_body());
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return Outcome::Error };
                record.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
            }
            match status {
                StatusCode::GATEWAY_TIMEOUT => Outcome::Timeout,
                status if status.is_success() => Outcome::Ok,
                _ => Outcome::Error,
            }
        };
        let outcome = timeout_at(scheduled + target.patience, answered).await;
        record.outcome = outcome.unwrap_or(Outcome::Timeout);
        record.latency_ms = scheduled.elapsed().as_secs_f64() * 1e3;
        record
    }
}

fn note_head<B>(record: &mut Record, answer: &Response<B>) {
    record.status = Some(answer.status().as_u16());
    let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    record.start = text("x-torpor-start").unwrap_or_default().to_owned();
    let phase = |name: &str| phase(answer.headers(), name);
    record.queue_ms = phase("queue").map(|(ms, _)| ms);
    record.swap_ms = phase("swap").map(|(ms, _)| ms);
    (record.gpu_ms, record.gpu) = phase("gpu").map_or((None, None), |(ms, gpu)| (Some(ms), gpu));
}

/// What the router says of a phase of a request: milliseconds, and the number in its description.
pub fn phase(headers: &HeaderMap, name: &str) -> Option<(f64, Option<u32>)> {
    // The router's comes after what the function says of itself.
    let timings = headers.get_all("server-timing").iter().filter_map(|value| value.to_str().ok());
    timings.filter_map(|timing| told(timing, name)).next_back()
}

/// What `Server-Timing` says of a phase: milliseconds, and the number in its description.
fn told(timing: &str, phase: &str) -> Option<(f64, Option<u32>)> {
    timing.split(',').find_map(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        if parts.next() != Some(phase) {
            return None;
        }
        let (mut ms, mut number) = (None, None);
        for part in parts {
            match part.split_once('=') {
                Some(("dur", value)) => ms = value.parse().ok(),
                Some(("desc", value)) => number = value.parse().ok(),
                _ => {}
            }
        }
        Some((ms?, number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_found_in_server_timing() {
        let timing = "queue;dur=1.250, function;dur=3.000, gpu;dur=2.5;desc=1";
        assert_eq!(told(timing, "queue"), Some((1.25, None)));
        assert_eq!(told(timing, "gpu"), Some((2.5, Some(1))));
        assert_eq!(told(timing, "swap"), None);
        assert_eq!(told("queue;desc=1", "queue"), None);
    }
}
