//! Links to other GPUs' workers: how the memory of a client that moves comes from the GPU that it leaves, beside the host.
//!
//! A link has a direction. At its one end, the [outlet](outlet::Outlet), is a *landing*, a piece of device memory of which the
//! worker at the other end, the [inlet](inlet::Inlet), has been given a descriptor ahead of time; between them a desk with words.
//! The server makes links where GPUs reach each other, and says with each move over which the client's memory may be had. Whether
//! any of it comes that way makes no difference but time.

mod desk;
pub(crate) mod inlet;
pub(crate) mod outlet;

use crate::worker::gpu::Shared;
use crate::worker::gpu::peer::inlet::Inlet;
use crate::worker::gpu::peer::outlet::Outlet;
use crate::worker::sync::lock;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use torpor_proto::control::worker::{Borrow, Borrowed, Lend, Lent, from_worker};
use torpor_proto::layout::AddressRange;

#[derive(Debug, Default)]
struct Links {
    outlets: BTreeMap<u64, Arc<Outlet>>,
    inlets: BTreeMap<u64, Arc<Inlet>>,
    /// Those that were over before their end here was made.
    over: BTreeSet<u64>,
    /// All up to this one are over: a server made them that is no more.
    over_until: u64,
}

/// The ends of a link that are here: one of them, or none.
type Ends = (Option<Arc<Outlet>>, Option<Arc<Inlet>>);

impl Links {
    /// Whether a link was over before its end here was made.
    fn is_over(&mut self, link: u64) -> bool {
        self.over.remove(&link) || link <= self.over_until
    }

    fn take(&mut self, link: u64) -> Ends {
        (self.outlets.remove(&link), self.inlets.remove(&link))
    }
}

/// A client that is gone, whose memory another worker may still read.
#[derive(Debug)]
pub(crate) struct Giving {
    client: u64,
    arena: AddressRange,
    stop: AtomicBool,
}

impl Giving {
    /// Whether somebody else wants what it has.
    pub(crate) fn is_to_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The ends of links that are here.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    links: Mutex<Links>,
    giving: Mutex<Vec<Arc<Giving>>>,
    /// What came to clients here over links.
    pub(crate) from_peers_bytes: AtomicU64,
    /// What came to them from the host store.
    pub(crate) from_host_bytes: AtomicU64,
}

impl Peers {
    /// The end of a link from which another worker reads.
    pub(crate) fn outlet(&self, link: u64) -> Option<Arc<Outlet>> {
        lock(&self.links).outlets.get(&link).cloned()
    }

    /// The end of a link at which this one reads.
    pub(crate) fn inlet(&self, link: u64) -> Option<Arc<Inlet>> {
        lock(&self.links).inlets.get(&link).cloned()
    }

    fn take(&self, link: u64) -> Ends {
        let mut links = lock(&self.links);
        let ends = links.take(link);
        if let (None, None) = ends {
            links.over.insert(link);
        }
        ends
    }

    fn take_all(&self, last: u64) -> Vec<(u64, Ends)> {
        let mut links = lock(&self.links);
        links.over_until = last;
        links.over.clear();
        let theirs: BTreeSet<u64> =
            links.outlets.keys().chain(links.inlets.keys()).copied().filter(|&link| link <= last).collect();
        theirs.into_iter().map(|link| (link, links.take(link))).collect()
    }

    /// Device memory that others read from.
    pub(crate) fn landing_bytes(&self) -> u64 {
        lock(&self.links).outlets.values().map(|outlet| outlet.bytes()).sum()
    }

    /// A client is about to be gone whose memory may still be read.
    pub(crate) fn begin_giving(&self, client: u64, arena: AddressRange) -> Arc<Giving> {
        let giving = Arc::new(Giving { client, arena, stop: AtomicBool::new(false) });
        lock(&self.giving).push(giving.clone());
        giving
    }

    /// It is read no longer.
    pub(crate) fn end_giving(&self, giving: &Arc<Giving>) {
        lock(&self.giving).retain(|other| !Arc::ptr_eq(other, giving));
    }

    /// Somebody comes to these addresses.
    pub(crate) fn vacate(&self, arena: AddressRange) {
        lock(&self.giving)
            .iter()
            .filter(|giving| giving.arena.overlaps(arena))
            .for_each(|giving| giving.stop.store(true, Ordering::Relaxed));
    }

    /// A client has ended.
    pub(crate) fn forget(&self, client: u64) {
        lock(&self.giving)
            .iter()
            .filter(|giving| giving.client == client)
            .for_each(|giving| giving.stop.store(true, Ordering::Relaxed));
    }
}

/// A link is over. Its end here is given back aside, as that waits for the whole GPU.
pub(crate) fn unlink(shared: &Arc<Shared>, link: u64) {
    give_back(shared, link, shared.peers.take(link));
}

/// All links up to this one are over, as the server is that made them.
pub(crate) fn unlink_all(shared: &Arc<Shared>, last: u64) {
    for (link, ends) in shared.peers.take_all(last) {
        give_back(shared, link, ends);
    }
}

fn give_back(shared: &Arc<Shared>, link: u64, ends: Ends) {
    if let Some(outlet) = &ends.0 {
        outlet.unlink();
    }
    if let Some(inlet) = &ends.1 {
        inlet.unlink();
    }
    let there = shared.clone();
    let give_back = move || {
        there.device.make_current().map_err(|error| error.to_string())?;
        drop(ends);
        Ok(())
    };
    aside(link, give_back, |_: Result<(), String>| {});
}

/// Makes the end of a link from which another worker reads, with a thread of its own, as the server has other things to say.
pub(crate) fn lend(shared: &Arc<Shared>, lend: Lend) {
    let (there, link) = (shared.clone(), lend.link);
    let make = move || {
        there.device.make_current().map_err(|error| error.to_string())?;
        let (outlet, files) = Outlet::open(&there.device, &lend)?;
        let mut links = lock(&there.peers.links);
        if !links.is_over(link) {
            links.outlets.insert(link, Arc::new(outlet));
        }
        Ok(files)
    };
    let there = shared.clone();
    aside(link, make, move |made: Result<[OwnedFd; 2], String>| match made {
        Ok(files) => there.server.tell_lent(link, &files),
        Err(failure) => there.tell(from_worker::Body::Lent(Lent { link, failure })),
    });
}

/// Makes the end of a link at which this worker reads, in the same way.
pub(crate) fn borrow(shared: &Arc<Shared>, borrow: Borrow, descriptors: Vec<OwnedFd>) {
    let (there, link) = (shared.clone(), borrow.link);
    let make = move || {
        let [desk, memory] = &descriptors[..] else { return Err("its memory did not come".to_owned()) };
        there.device.make_current().map_err(|error| error.to_string())?;
        let inlet = Inlet::open(&there.device, &borrow, desk, memory)?;
        // Nobody depends on that.
        let measured = if borrow.measure { inlet.measure(&there.device).unwrap_or(0) } else { 0 };
        let mut links = lock(&there.peers.links);
        if !links.is_over(link) {
            links.inlets.insert(link, Arc::new(inlet));
        }
        Ok(measured)
    };
    let there = shared.clone();
    aside(link, make, move |made: Result<u64, String>| {
        let bytes_per_second = made.as_ref().copied().unwrap_or(0);
        let failure = made.err().unwrap_or_default();
        there.tell(from_worker::Body::Borrowed(Borrowed { link, failure, bytes_per_second }));
    });
}

fn aside<T: 'static>(
    link: u64,
    make: impl FnOnce() -> Result<T, String> + Send + 'static,
    tell: impl FnOnce(Result<T, String>) + Send + 'static,
) {
    let run = move || tell(make());
    if let Err(error) = std::thread::Builder::new().name(format!("link-{link}")).spawn(run) {
        // The server takes silence for a link that is not made yet.
        tracing::warn!(link, "no thread for a link to another GPU: {error}");
    }
}
