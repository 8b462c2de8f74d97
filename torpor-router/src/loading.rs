//! How far a function is that has no process yet to answer: device memory that its processes have, of what one had before.
//!
//! Whoever waits is told: by the refusal if its deadline passes, by `GET /v1/functions/NAME/progress` while it waits, and by the
//! function's log.

use crate::registry::Registry;
use crate::watch::Watch;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_stream::wrappers::IntervalStream;
use torpor_gpuserver::server::size::ByteSize;

/// How often the node server is asked while something is starting.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looks from one to the next if nothing is.
const IDLE_LOOKS: u32 = 20;
/// Looks from one line in the log to the next.
const LOG_LOOKS: u32 = 4;
/// How often whoever follows is told.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// What becomes of a function's processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoadingState {
    /// It has none.
    #[default]
    Stopped,
    /// It has some, and none is healthy yet.
    Starting,
    /// One can answer.
    Ready,
}

/// How far a function is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loading {
    /// What becomes of its processes.
    pub state: LoadingState,
    /// Device memory that they have.
    pub bytes: u64,
    /// What they will have, as far as that is known from processes before them.
    pub of_bytes: Option<u64>,
    /// For how long they are starting, in milliseconds.
    pub starting_ms: u64,
    /// Requests that wait for them.
    pub waiting: usize,
}

impl Loading {
    /// For people: `512 MiB of 2.0 GiB after 4.0 s`.
    #[must_use]
    pub fn text(&self) -> String {
        let of = self.of_bytes.map(|bytes| format!(" of {}", ByteSize(bytes))).unwrap_or_default();
        format!("{}{of} of device memory after {:.1} s", ByteSize(self.bytes), self.starting_ms as f64 / 1e3)
    }
}

/// The device memory of a function's processes.
#[derive(Debug, Default)]
pub struct DeviceMemory {
    /// What all have together.
    now: AtomicU64,
    /// The most that one had when one was healthy.
    whole: AtomicU64,
}

impl DeviceMemory {
    /// Bytes now, and those of a whole process if that is known.
    #[must_use]
    pub fn get(&self) -> (u64, Option<u64>) {
        let whole = self.whole.load(Ordering::Relaxed);
        (self.now.load(Ordering::Relaxed), (whole > 0).then_some(whole))
    }

    fn set(&self, of_processes: &[u64], healthy: bool) {
        self.now
            .store(of_processes.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes)), Ordering::Relaxed);
        if healthy {
            let most = of_processes.iter().copied().max().unwrap_or(0);
            self.whole.fetch_max(most, Ordering::Relaxed);
        }
    }
}

/// Asks the node server for functions' memory, for ever, and tells their logs how far they are.
pub async fn watch(registry: &Registry, watch: &Watch) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    let mut looks = 0_u32;
    loop {
        ticks.tick().await;
        looks = looks.wrapping_add(1);
        let functions = registry.all();
        let starting = |state: LoadingState| state == LoadingState::Starting;
        let news = functions.iter().any(|served| {
            let loading = served.function.loading();
            starting(loading.state) || loading.state == LoadingState::Ready && loading.of_bytes.is_none()
        });
        if !news && !looks.is_multiple_of(IDLE_LOOKS) {
            continue;
        }
        // Without the node server nothing is known, and the router says that elsewhere.
        let Ok(report) = watch.report().await else { continue };
        let mut bytes = HashMap::<&str, Vec<u64>>::new();
        for client in &report.clients {
            bytes.entry(&client.function).or_default().push(client.allocated_bytes);
        }
        for served in functions {
            let function = &served.function;
            let of_processes = bytes.get(&*function.name).map(Vec::as_slice).unwrap_or_default();
            function.memory.set(of_processes, function.loading().state == LoadingState::Ready);
            let loading = function.loading();
            if starting(loading.state) && looks.is_multiple_of(LOG_LOOKS) {
                function.logs.push(format!("torpor: starting: {}", loading.text()));
            }
        }
    }
}

/// Tells how far a function is until it can answer, or the client leaves.
pub(crate) fn follow(how_far: impl Fn() -> Loading + Send + 'static) -> Response {
    let ticks = IntervalStream::new(tokio::time::interval(TELL_EVERY)).map(move |_| how_far());
    let events = ticks.scan(false, |over, loading| {
        let goes_on = !std::mem::replace(over, loading.state == LoadingState::Ready);
        // What cannot be written is left out; the next one comes soon.
        let event = Event::default().event("progress").json_data(loading).unwrap_or_default();
        std::future::ready(goes_on.then_some(Ok::<_, Infallible>(event)))
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::default()).into_response();
    response.headers_mut().insert("x-accel-buffering", hyper::header::HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_process_is_what_a_healthy_one_had() {
        let memory = DeviceMemory::default();
        memory.set(&[10, 20], false);
        assert_eq!(memory.get(), (30, None));
        memory.set(&[40, 50], true);
        memory.set(&[5], false);
        assert_eq!(memory.get(), (5, Some(50)));
    }

    #[test]
    fn how_far_it_is_has_numbers_with_units() {
        let loading = Loading { bytes: 512 << 20, starting_ms: 4000, ..Loading::default() };
        assert_eq!(loading.text(), "512 MiB of device memory after 4.0 s");
        let known = Loading { of_bytes: Some(2 << 30), ..loading };
        assert_eq!(known.text(), "512 MiB of 2 GiB of device memory after 4.0 s");
    }

    #[tokio::test]
    async fn who_follows_is_told_until_it_is_ready() {
        let looks = AtomicU64::new(0);
        let response = follow(move || {
            let state = match looks.fetch_add(1, Ordering::Relaxed) {
                0 => LoadingState::Stopped,
                1 => LoadingState::Starting,
                _ => LoadingState::Ready,
            };
            Loading { state, ..Loading::default() }
        });
        let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let states: Vec<_> = text.lines().filter_map(|line| line.split('"').nth(3)).collect();
        assert_eq!(states, ["stopped", "starting", "ready"], "{text}");
    }
}
