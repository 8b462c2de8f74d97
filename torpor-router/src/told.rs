//! Telling the node server when requests begin and end, so that a function's memory is on its way while the request is; and
//! hearing from it what each took.
//!
//! Words go down one stream, which is opened again if it breaks, or if one was lost; what is said meanwhile is lost, and those
//! requests are known from their commands, as all are without a router.

use crate::node::Node;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, oneshot};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;
use torpor_proto::control::admin::{
    RequestAnswered, RequestBegins, RequestCost, RequestEnds, RequestMark, request_mark,
};

/// Words that wait to be sent; older ones are lost.
const WORDS: usize = 4096;
/// Until a stream that broke is opened again.
const RETRY: Duration = Duration::from_millis(500);
/// How long an answer waits for what its request took: much longer than the node server needs, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who tells.
#[derive(Debug)]
pub struct Teller {
    requests: AtomicU64,
    words: broadcast::Sender<RequestMark>,
    /// Requests under way, by number, while somebody may hear of what they took.
    open: Mutex<HashMap<u64, oneshot::Sender<RequestCost>>>,
}

/// A request that was told of. Dropped, it has ended.
#[derive(Debug)]
pub struct Told {
    teller: Arc<Teller>,
    request: u64,
    cost: Option<oneshot::Receiver<RequestCost>>,
}

impl Told {
    /// What the request took of its process and its GPU so far; `None` if the node server does not say: it is not there, or does
    /// not know the process. Asked once.
    pub async fn cost(&mut self) -> Option<RequestCost> {
        let mut cost = self.cost.take()?;
        let told = match cost.try_recv() {
            // Whose it is is not known, which it says without being asked.
            Ok(told) => told,
            Err(oneshot::error::TryRecvError::Closed) => return None,
            Err(oneshot::error::TryRecvError::Empty) => {
                self.teller.say(self.request, request_mark::Mark::Answered(RequestAnswered {}));
                timeout(PATIENCE, cost).await.ok()?.ok()?
            }
        };
        told.known.then_some(told)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.teller.open().remove(&self.request);
        self.teller.say(self.request, request_mark::Mark::Ends(RequestEnds {}));
    }
}

impl Default for Teller {
    fn default() -> Self {
        let words = broadcast::channel(WORDS).0;
        Self { requests: AtomicU64::new(0), words, open: Mutex::default() }
    }
}

impl Teller {
    /// A request of a function begins, at a process whose group is `process_group`; 0 if that is not known.
    #[must_use]
    pub fn begin(self: &Arc<Self>, function: &str, process_group: u32) -> Told {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let (done, cost) = oneshot::channel();
        // Without a stream nobody would answer.
        if self.words.receiver_count() > 0 {
            self.open().insert(request, done);
        }
        let begins = RequestBegins { function: function.to_owned(), process_group };
        self.say(request, request_mark::Mark::Begins(begins));
        Told { teller: self.clone(), request, cost: Some(cost) }
    }

    fn say(&self, request: u64, mark: request_mark::Mark) {
        // Nobody listens while there is no stream.
        let _ = self.words.send(RequestMark { request, mark: Some(mark) });
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<RequestCost>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, cost: RequestCost) {
        if let Some(done) = self.open().remove(&cost.request) {
            // The request's client may have left.
            let _ = done.send(cost);
        }
    }

    /// Passes words on to the node server, and what it says of them back, for ever.
    pub async fn tell(&self, node: &Node) {
        loop {
            if let Ok(mut client) = node.stream_client() {
                // One that was lost may have been an end: with the stream, everything ends that was told on it.
                let words = BroadcastStream::new(self.words.subscribe()).map_while(Result::ok);
                // Its end is told by the node's watch, to whoever wants to know whether the node answers.
                if let Ok(costs) = client.mark_requests(words).await {
                    let mut costs = costs.into_inner();
                    while let Ok(Some(cost)) = costs.message().await {
                        self.hear(cost);
                    }
                }
                self.open().clear();
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_request_took_is_asked_for_once_unless_it_is_nobody_s() {
        let teller = Arc::<Teller>::default();
        assert_eq!(teller.begin("f", 0).cost().await, None, "nobody listens");
        let mut heard = teller.words.subscribe();
        let (mut known, mut nobody_s) = (teller.begin("f", 0), teller.begin("g", 0));
        teller.hear(RequestCost { request: nobody_s.request, known: false, ..RequestCost::default() });
        assert_eq!(nobody_s.cost().await, None);
        let cost = RequestCost { request: known.request, known: true, swaps: 1, ..RequestCost::default() };
        let answer = async {
            loop {
                let word = heard.recv().await.unwrap();
                if matches!(word.mark, Some(request_mark::Mark::Answered(_))) {
                    assert_eq!(word.request, cost.request);
                    return teller.hear(cost);
                }
            }
        };
        assert_eq!(tokio::join!(known.cost(), answer).0, Some(cost));
        drop((known, nobody_s));
        assert!(teller.open().is_empty());
    }
}
