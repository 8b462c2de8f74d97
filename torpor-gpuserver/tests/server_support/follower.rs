//! What a server tells of its node to one who follows it.

use super::server::{Server, eventually};
use std::sync::{Arc, Mutex};
use torpor_proto::control::admin::FollowEventsRequest;
use torpor_proto::control::admin::admin_client::AdminClient;
use torpor_proto::control::event::{Event, Evicted, event::What};

/// One who follows, with what was heard so far.
pub struct Follower {
    _runtime: tokio::runtime::Runtime,
    heard: Arc<Mutex<Vec<Event>>>,
}

impl Follower {
    pub fn new(server: &Server) -> Self {
        let address = format!("unix://{}", server.directory.admin_socket().display());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut events = runtime.block_on(async {
            let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect().await.unwrap();
            let request = FollowEventsRequest { follow: true };
            AdminClient::new(channel).follow_events(request).await.unwrap().into_inner()
        });
        let heard = Arc::<Mutex<Vec<Event>>>::default();
        let theirs = heard.clone();
        runtime.spawn(async move {
            while let Ok(Some(event)) = events.message().await {
                theirs.lock().unwrap().push(event);
            }
        });
        Self { _runtime: runtime, heard }
    }

    pub fn heard(&self) -> Vec<Event> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits for an event of a function, and gives what came until then.
    pub fn until(&self, what: &str, function: &str, is_it: impl Fn(&What) -> bool) -> Vec<Event> {
        let is_it = |event: &Event| event.function == function && event.what.as_ref().is_some_and(&is_it);
        eventually(what, || self.heard().iter().any(is_it));
        self.heard()
    }

    /// What was told of a function's evictions so far, the last one last.
    pub fn evictions(&self, function: &str) -> Vec<Evicted> {
        let evicted = |event: Event| match event.what {
            Some(What::Evicted(evicted)) if event.function == function => Some(evicted),
            _ => None,
        };
        self.heard().into_iter().filter_map(evicted).collect()
    }

    /// Takes a function's memory off its GPU, and gives what is told of that.
    pub fn evict(&self, server: &Server, function: &str) -> Evicted {
        let before = self.evictions(function).len();
        server.unload(function);
        eventually("its eviction is told", || self.evictions(function).len() > before);
        self.evictions(function)[before]
    }
}
