//! Events on their way to the scheduler, and to those who follow the node.

use crate::policy::event::{Event, What};
use crate::server::scheduler::chronicle::Chronicle;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep_until;
use torpor_proto::control::worker::Happened;

/// Where whoever sees something happen tells it.
#[derive(Clone, Debug)]
pub(crate) struct Teller {
    began: Instant,
    chronicle: Arc<Chronicle>,
    told: UnboundedSender<Event>,
}

/// Where it is heard, in the order in which it was told.
#[derive(Debug)]
pub(crate) struct Inbox(UnboundedReceiver<Event>);

/// Both ends, for a node that begins now, with its GPUs as the driver counts them.
pub(crate) fn channel(gpus: Vec<u32>) -> (Teller, Inbox) {
    let (told, heard) = unbounded_channel();
    (Teller { began: Instant::now(), chronicle: Arc::new(Chronicle::new(gpus)), told }, Inbox(heard))
}

impl Teller {
    /// It happened just now.
    pub(crate) fn tell(&self, what: What) {
        let at = self.began.elapsed();
        self.chronicle.note(at, &what);
        // Whoever hears it is gone when the server is ending.
        let _ = self.told.send(Event { at, what });
    }

    /// The router told of a request of a client.
    pub(crate) fn tell_request(&self, client: u64, begins: bool) {
        self.chronicle.note_request(self.began.elapsed(), client, begins);
    }

    /// A GPU's worker told of a client, for those who follow.
    pub(crate) fn tell_turn(&self, gpu: usize, happened: Happened) {
        self.chronicle.note_turn(self.began.elapsed(), gpu, happened);
    }

    /// What has happened, and who follows.
    pub(crate) fn chronicle(&self) -> &Chronicle {
        &self.chronicle
    }

    /// Waits until a moment of the node's time; for ever if there is none.
    pub(crate) async fn until(&self, at: Option<Duration>) {
        match at {
            Some(at) => sleep_until((self.began + at).into()).await,
            None => std::future::pending().await,
        }
    }
}

impl Inbox {
    /// The next event; `None` if nobody tells any more.
    pub(crate) async fn hear(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}
