//! Who is served here, and what the server hears when that changes.
//!
//! A session leaves the list and the server is told so while the list is locked, as it is while [another server](Shared::resume) is told
//! who is there. So that one hears of each client either that it is here, or what became of it, before it hears that this was all; and
//! what it hears of a client's end afterwards is the answer to what it has asked for itself.

use crate::worker::gpu::Shared;
use crate::worker::mailbox::Link;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use torpor_proto::control::worker::{Detached, Resumed, from_worker};
use torpor_proto::layout::AddressRange;

impl Shared {
    /// Notes a new session, unless its number or its addresses are taken.
    pub(crate) fn enlist(
        &self,
        client: u64,
        function: &str,
        arena: AddressRange,
    ) -> Result<Arc<Link>, String> {
        let mut links = self.links();
        if links.contains_key(&client) {
            return Err(format!("client {client} is attached already"));
        }
        if let Some(other) = links.values().find(|link| link.arena.overlaps(arena)) {
            return Err(format!("its addresses are still in use by client {}", other.client));
        }
        let link = Arc::new(Link::new(client, function, arena));
        links.insert(client, link.clone());
        Ok(link)
    }

    /// The server wants a session to end, and hears when it has.
    pub(crate) fn detach(&self, client: u64) {
        let links = self.links();
        match links.get(&client) {
            Some(link) => {
                link.presence.await_end();
                link.stop();
            }
            None => self.tell(from_worker::Body::Detached(Detached { client })),
        }
    }

    /// A session's work goes on though its client is gone. True if the server, which waits for the end, has been told of it now.
    pub(crate) fn detach_early(&self, link: &Link) -> bool {
        let _links = self.links();
        self.tell_end(link)
    }

    /// Forgets a session that has ended, and tells the server if that waits for it.
    pub(crate) fn delist(&self, client: u64, tell: bool) {
        self.memory.leave(client);
        self.take_rights(client);
        let mut links = self.links();
        let link = links.remove(&client);
        if let Some(link) = link.filter(|_| tell) {
            self.tell_end(&link);
        }
    }

    /// Forgets a session that has given its client up, but for the memory that it has not given back yet, and tells the server what the
    /// client is.
    pub(crate) fn delist_released(&self, client: u64, state: &OwnedFd) {
        self.take_rights(client);
        let mut links = self.links();
        links.remove(&client);
        self.server.tell_released(client, state);
    }

    /// Tells another server, which goes on where the one before was killed, what it needs to know.
    pub(crate) fn resume(&self, server: u64) {
        self.follow(false);
        self.memory.resume();
        let links = self.links();
        for link in links.values() {
            link.end_requests();
            // Who has not come by now goes on from its state where this one is.
            link.company.proceed();
            // Of one that the server before has detached, it hears so; for its end it asks itself.
            if link.is_stopping() {
                link.presence.take_end();
                self.tell(from_worker::Body::Detached(Detached { client: link.client }));
            } else {
                link.presence.tell_again(&self.server, link.client);
            }
        }
        drop(links);
        self.ipc.parties.resume();
        self.store.resume();
        self.tell(from_worker::Body::Resumed(Resumed { server }));
    }

    /// Tells the server that a session has ended, if it waits for that. Call it with the list locked.
    fn tell_end(&self, link: &Link) -> bool {
        let is_awaited = link.presence.take_end();
        if is_awaited {
            self.tell(from_worker::Body::Detached(Detached { client: link.client }));
        }
        is_awaited
    }

    /// A session has nothing any more of what clients have one after the other.
    fn take_rights(&self, client: u64) {
        self.pen.give_up(client);
        self.ipc.parties.forget(client);
        self.limits.forget(client);
        self.turns.give_up(client);
        self.gpu_time.end(client);
    }
}
