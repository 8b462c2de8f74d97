//! Links between GPUs' workers, over which the memory of clients that move comes without the host.
//!
//! A link has a direction: one worker lends device memory, another one reads it. They are made ahead of time, for each two GPUs
//! that are alike, and are over with either worker, and with the server: one that goes on where another was killed makes its own,
//! with greater numbers. Where GPUs do not reach each other there are none, and nothing else changes.
//!
//! ```text
//! Lend ─▶ lender ─▶ Lent, descriptors ─▶ Borrow, descriptors ─▶ reader ─▶ Borrowed: it may be used
//! ```

use crate::policy::event::What;
use crate::server::keeper::{Heritage, Keeper};
use crate::server::workers::order::{Attachment, Outgoing};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use torpor_proto::control::keeper::Counter;
use torpor_proto::control::worker::{Borrow, Borrowed, Lend, Lent, ToWorker, Unlink, to_worker};

/// Under what name the greatest number of a link is kept.
const COUNTER: &str = "links";

/// A worker that is there.
#[derive(Debug)]
struct Worker {
    /// Its GPU's number, as the driver counts.
    index: u32,
    /// What GPU that is.
    name: String,
    outbox: mpsc::UnboundedSender<Outgoing>,
}

/// A link, by the places of its GPUs among the server's.
#[derive(Clone, Copy, Debug)]
struct Link {
    lender: usize,
    reader: usize,
    /// The reader has its end.
    is_open: bool,
}

#[derive(Debug, Default)]
struct State {
    workers: BTreeMap<usize, Worker>,
    links: BTreeMap<u64, Link>,
    /// The greatest number of a link so far, and who knows it after this server.
    last: u64,
    keeper: Keeper,
    /// Bytes a second from one GPU to another, as was measured once; by their places.
    between: BTreeMap<(usize, usize), u64>,
    /// The same from the host.
    from_host: BTreeMap<usize, u64>,
}

/// All links.
#[derive(Debug, Default)]
pub struct Peers {
    /// Device memory of each.
    bytes: u64,
    /// The greatest number of a link that a server before this one made.
    inherited: u64,
    state: Mutex<State>,
}

impl Peers {
    /// Links with so much device memory each; none if that is 0.
    #[must_use]
    pub fn new(bytes: u64, keeper: &Keeper, heritage: &mut Heritage) -> Self {
        let last = heritage.take::<Counter>(COUNTER).map_or(0, |(counter, _)| counter.last);
        let state = State { last, keeper: keeper.clone(), ..State::default() };
        Self { bytes, inherited: last, state: Mutex::new(state) }
    }

    /// The greatest number of a link that a server before this one made: those are over.
    #[must_use]
    pub fn inherited(&self) -> u64 {
        self.inherited
    }

    /// A worker is ready, on the GPU at this place, with this number and name: links to the others are begun.
    pub(super) fn connect(
        &self,
        at: usize,
        (index, name): (u32, &str),
        outbox: &mpsc::UnboundedSender<Outgoing>,
    ) {
        let mut state = self.state();
        let worker = Worker { index, name: name.to_owned(), outbox: outbox.clone() };
        state.workers.insert(at, worker);
        if self.bytes == 0 {
            return;
        }
        let alike =
            |(&other, worker): (&usize, &Worker)| (other != at && worker.name == name).then_some(other);
        let others: Vec<usize> = state.workers.iter().filter_map(alike).collect();
        for other in others {
            state.begin(at, other, self.bytes);
            state.begin(other, at, self.bytes);
        }
    }

    /// The worker on that GPU is gone. Returns what that means for moves.
    pub(super) fn disconnect(&self, at: usize) -> Vec<What> {
        let mut state = self.state();
        state.workers.remove(&at);
        let theirs: Vec<u64> = state
            .links
            .iter()
            .filter_map(|(&link, it)| [it.lender, it.reader].contains(&at).then_some(link))
            .collect();
        theirs.into_iter().filter_map(|link| state.end(link)).collect()
    }

    /// A worker has made its end of a link, or cannot.
    pub(super) fn hear_lent(&self, at: usize, lent: Lent, files: Vec<OwnedFd>) {
        let mut state = self.state();
        let Lent { link, failure } = lent;
        let Some(&Link { lender, reader, .. }) = state.links.get(&link).filter(|it| it.lender == at) else {
            return;
        };
        if !failure.is_empty() || files.is_empty() {
            tracing::info!(lender, reader, "memory does not come from GPU to GPU: {failure}");
            state.end(link);
            return;
        }
        let files = files.into_iter().map(Arc::new).collect();
        let measure = !state.between.contains_key(&(lender, reader));
        let body = to_worker::Body::Borrow(Borrow { link, bytes: self.bytes, measure });
        state.tell(reader, body, Attachment::Files(files));
    }

    /// A worker has made its end of a link at which it reads, or cannot. Returns what that means for moves.
    pub(super) fn hear_borrowed(&self, at: usize, borrowed: Borrowed) -> Option<What> {
        let mut state = self.state();
        let Borrowed { link, failure, bytes_per_second } = borrowed;
        let it = state.links.get_mut(&link).filter(|it| it.reader == at)?;
        it.is_open = failure.is_empty();
        let Link { lender, reader, is_open } = *it;
        if !is_open {
            tracing::info!(lender, reader, "memory does not come from GPU to GPU: {failure}");
            state.end(link);
            return None;
        }
        if bytes_per_second > 0 {
            state.between.insert((lender, reader), bytes_per_second);
        }
        tracing::debug!(lender, reader, link, bytes_per_second, "memory comes from GPU to GPU");
        let bytes_per_second = state.between.get(&(lender, reader)).copied();
        Some(What::Linked { from: lender, to: reader, bytes_per_second })
    }

    /// A worker has measured how fast memory comes to its GPU from the host.
    pub(super) fn hear_host(&self, at: usize, bytes_per_second: u64) {
        if bytes_per_second > 0 {
            self.state().from_host.entry(at).or_insert(bytes_per_second);
        }
    }

    /// How fast memory comes to a GPU from the host, if that was measured.
    #[must_use]
    pub fn host_speed(&self, at: usize) -> Option<u64> {
        self.state().from_host.get(&at).copied()
    }

    /// From which GPUs memory comes to which, and how fast, if that was measured.
    #[must_use]
    pub fn open(&self) -> Vec<(usize, usize, Option<u64>)> {
        let state = self.state();
        let open = state.links.values().filter(|it| it.is_open).map(|it| (it.lender, it.reader));
        open.map(|pair| (pair.0, pair.1, state.between.get(&pair).copied())).collect()
    }

    /// The link over which memory comes from one GPU to another; 0 if there is none.
    #[must_use]
    pub fn link(&self, from: usize, to: usize) -> u64 {
        let state = self.state();
        let is_it = |it: &Link| it.is_open && (it.lender, it.reader) == (from, to);
        state.links.iter().find_map(|(&link, it)| is_it(it).then_some(link)).unwrap_or(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn begin(&mut self, lender: usize, reader: usize, bytes: u64) {
        let Some(number) = self.workers.get(&reader).map(|reader| reader.index) else { return };
        self.last += 1;
        let link = self.last;
        self.keeper.keep(COUNTER, &Counter { last: link }, &[]);
        self.links.insert(link, Link { lender, reader, is_open: false });
        let body = to_worker::Body::Lend(Lend { link, reader: number, bytes });
        self.tell(lender, body, Attachment::Nothing);
    }

    /// Those of its workers that are there hear that it is over. Returns what that means for moves.
    fn end(&mut self, link: u64) -> Option<What> {
        let Link { lender, reader, is_open } = self.links.remove(&link)?;
        for at in [lender, reader] {
            self.tell(at, to_worker::Body::Unlink(Unlink { link }), Attachment::Nothing);
        }
        is_open.then_some(What::Unlinked { from: lender, to: reader })
    }

    fn tell(&self, at: usize, body: to_worker::Body, attachment: Attachment) {
        if let Some(worker) = self.workers.get(&at) {
            let message = ToWorker { body: Some(body) };
            // One that is gone is about to be disconnected.
            let _ = worker.outbox.send(Outgoing { message, attachment });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(bytes: u64) -> Peers {
        Peers::new(bytes, &Keeper::default(), &mut Heritage::default())
    }

    fn connect(peers: &Peers, at: usize, name: &str) -> mpsc::UnboundedReceiver<Outgoing> {
        let (outbox, outgoing) = mpsc::unbounded_channel();
        peers.connect(at, (at as u32 + 10, name), &outbox);
        outgoing
    }

    fn body(outgoing: &mut mpsc::UnboundedReceiver<Outgoing>) -> Option<to_worker::Body> {
        outgoing.try_recv().ok()?.message.body
    }

    fn lent(link: u64) -> (Lent, Vec<OwnedFd>) {
        let file = || std::fs::File::open("/dev/null").unwrap().into();
        (Lent { link, failure: String::new() }, vec![file(), file()])
    }

    #[test]
    fn a_link_is_open_when_both_ends_are_made_and_over_with_either_worker() {
        let peers = links(1 << 20);
        let (mut first, mut second) = (connect(&peers, 0, "H100"), connect(&peers, 1, "H100"));
        let lend = |link, reader| Some(to_worker::Body::Lend(Lend { link, reader, bytes: 1 << 20 }));
        assert_eq!((body(&mut second), body(&mut first)), (lend(1, 10), lend(2, 11)));
        let (message, files) = lent(1);
        peers.hear_lent(0, message.clone(), files);
        assert_eq!(body(&mut first), None, "it is not its link");
        peers.hear_lent(1, message, lent(1).1);
        let borrow = Borrow { link: 1, bytes: 1 << 20, measure: true };
        assert_eq!(body(&mut first), Some(to_worker::Body::Borrow(borrow)));
        assert_eq!(peers.link(1, 0), 0);
        peers.hear_borrowed(0, Borrowed { link: 1, bytes_per_second: 7, ..Borrowed::default() });
        assert_eq!(peers.open(), [(1, 0, Some(7))]);
        assert_eq!((peers.link(1, 0), peers.link(0, 1)), (1, 0));
        peers.disconnect(1);
        let mut heard = [body(&mut first), body(&mut first)];
        heard.sort_by_key(|body| format!("{body:?}"));
        let unlink = |link| Some(to_worker::Body::Unlink(Unlink { link }));
        assert_eq!(heard, [unlink(1), unlink(2)]);
        assert_eq!(peers.link(1, 0), 0);
    }

    #[test]
    fn there_are_none_where_that_cannot_be_or_is_not_wanted() {
        let peers = links(1 << 20);
        let (mut first, mut second) = (connect(&peers, 0, "H100"), connect(&peers, 1, "A100"));
        assert_eq!((body(&mut first), body(&mut second)), (None, None), "nobody moves between them");
        let off = links(0);
        let (mut first, mut second) = (connect(&off, 0, "H100"), connect(&off, 1, "H100"));
        assert_eq!((body(&mut first), body(&mut second)), (None, None));
        let peers = links(1 << 20);
        let (_first, mut second) = (connect(&peers, 0, "H100"), connect(&peers, 1, "H100"));
        body(&mut second).unwrap();
        peers.hear_lent(1, Lent { link: 1, failure: "no peer access".to_owned() }, Vec::new());
        assert_eq!(body(&mut second), Some(to_worker::Body::Unlink(Unlink { link: 1 })));
        assert_eq!(peers.link(1, 0), 0);
    }

    #[test]
    fn links_of_another_server_have_other_numbers() {
        let (keeper, socket) = Keeper::pair();
        let peers = Peers::new(1 << 20, &keeper, &mut Heritage::default());
        let (_first, _second) = (connect(&peers, 0, "H100"), connect(&peers, 1, "H100"));
        let kept = std::iter::from_fn(|| Keeper::look(&socket));
        assert_eq!(kept.map(|(name, _)| name).collect::<Vec<_>>(), [COUNTER; 2]);
        let mut heritage = Heritage::of(COUNTER, &Counter { last: 2 });
        let peers = Peers::new(1 << 20, &keeper, &mut heritage);
        assert_eq!(peers.inherited(), 2);
        let (_first, mut second) = (connect(&peers, 0, "H100"), connect(&peers, 1, "H100"));
        let lend = Lend { link: 3, reader: 10, bytes: 1 << 20 };
        assert_eq!(body(&mut second), Some(to_worker::Body::Lend(lend)));
        peers.hear_borrowed(0, Borrowed { link: 1, ..Borrowed::default() });
        assert!(peers.open().is_empty(), "that was another server's");
    }
}
