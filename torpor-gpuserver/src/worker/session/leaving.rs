//! What a client leaves here that goes on at another worker, and finds again if it comes back: its host range, in the
//! [anteroom](crate::worker::gpu::anteroom). The rest is given back, once the server knows that the client may go on.

use crate::worker::gpu::Shared;
use crate::worker::gpu::anteroom::Left;
use crate::worker::mailbox::Link;
use crate::worker::memory::host_range::HostMemory;
use crate::worker::session::Session;
use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use torpor_proto::control::worker::Attach;
use torpor_proto::layout::AddressRange;

impl Session {
    /// The client is this state from now on. Its work here is done, but that its memory may be read from here.
    pub(super) fn leave(self, state: &OwnedFd) {
        let (shared, client) = (self.shared.clone(), self.link.client);
        let ranges = [self.space.host.range(), self.link.arena];
        shared.anteroom.depart(ranges);
        // Before the server can tell the other worker.
        let gift = self.offer_memory();
        shared.delist_released(client, state);
        let Self { space, arrays, mut streams, link, .. } = self;
        // Their memory goes first: nobody reads it from here.
        drop(arrays);
        let (host, memory) = space.take_apart();
        let (range, locked_bytes) = (host.range(), host.locked_bytes());
        shared.anteroom.keep(Left { client, range, locked_bytes, host: Box::new(host) });
        if let Some(gift) = gift {
            gift.give((&shared, &link), &mut streams, &memory);
        }
        drop(memory);
        shared.memory.leave(client);
        shared.anteroom.departed(ranges);
    }
}

impl Session {
    /// The client is gone: what it had here is given back, its page-locked memory aside, as that waits for the whole GPU.
    pub(super) fn give_back(self) {
        let (anteroom, client) = (self.shared.anteroom.clone(), self.link.client);
        let Self { space, arrays, streams, .. } = self;
        drop((arrays, streams));
        let (host, memory) = space.take_apart();
        let (range, locked_bytes) = (host.range(), host.locked_bytes());
        drop(memory);
        anteroom.let_go(Left { client, range, locked_bytes, host: Box::new(host) });
    }
}

/// The host range of a client that comes: as it left it here, or mapped anew.
///
/// # Errors
/// Why it cannot be, for people.
pub(super) fn host_memory(
    shared: &Shared,
    link: &Arc<Link>,
    attach: &Attach,
    file: OwnedFd,
) -> Result<HostMemory, String> {
    let range = AddressRange { address: attach.host_address, bytes: attach.host_bytes };
    let left = shared.anteroom.take(link.client, range);
    let left = left.and_then(|left| (left.host as Box<dyn Any>).downcast::<HostMemory>().ok());
    if let Some(mut host) = left.filter(|host| host.is(&file, range, attach.staging_bytes)) {
        host.hand_to(link);
        return Ok(*host);
    }
    let share = shared.take_pinned(&link.function, attach.pinned_limit_bytes, attach.staging_bytes);
    let share = share.map_err(|refusal| refusal.to_string())?;
    HostMemory::new(shared, link, file, (range, attach.staging_bytes), share)
        .map_err(|error| format!("its host range cannot be mapped at {:#x}: {error}", range.address))
}
