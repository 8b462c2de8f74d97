//! What outlives a server that is killed, and how the next one goes on with it.
//!
//! A server with a *keeper* is a child of it. It leaves with the keeper all that the next server needs: descriptors (the workers' sockets,
//! clients' lifelines and memory, their states, listening sockets, locks, slabs, the file of what was done to the host store's index)
//! and a few words about each, under names. What is to be kept is sent *before* anybody is told of what it is about, in one message, so
//! whatever instruction the server is killed at, the keeper has it whole or not at all. Nobody sees the end of a socket meanwhile, as
//! the keeper holds the same end; what is said to the server waits in its sockets.
//!
//! ```text
//!  torpor serve (the keeper) ──starts──▶ server ──leaves──▶ keeper: name ▸ words, descriptors
//!          └─ the server is killed ──▶ the next one ◀──is given all of it──┘
//! ```
//!
//! [`process`] is the keeper itself.

pub mod process;

use rustix::process::Signal;
use std::collections::BTreeMap;
use std::env;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use torpor_proto::control::Message;
use torpor_proto::control::keeper::Kept;
use torpor_proto::handover;

/// Set for a server whose standard input is the socket to its keeper.
const IS_KEPT: &str = "TORPOR_IS_KEPT";

/// How long the last answer may take.
const LAST_ANSWER: Duration = Duration::from_millis(50);

/// Where a server leaves what the next one needs. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Keeper(Option<Arc<OwnedFd>>);

/// What the server before has left, by name.
#[derive(Debug, Default)]
pub struct Heritage(BTreeMap<String, Legacy>);

/// What was left under one name.
#[derive(Debug)]
struct Legacy {
    words: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// Whether this process was started by a keeper.
#[must_use]
pub fn is_kept() -> bool {
    env::var_os(IS_KEPT).is_some()
}

/// Takes what the server before has left, if this process was started by a keeper. Call it once, on the main thread.
///
/// # Errors
/// The kernel's, or `UnexpectedEof` if the keeper is gone.
pub fn inherit() -> io::Result<(Keeper, Heritage)> {
    if !is_kept() {
        return Ok((Keeper::default(), Heritage::default()));
    }
    // Without its keeper the server would leave nothing, and nobody would start another.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let socket = crate::standard_input::take()?;
    let mut heritage = Heritage::default();
    loop {
        let (message, descriptors) = handover::receive(&socket)?;
        if message.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Kept { name, value: words, all, .. } = Kept::decode(message.as_slice())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if all {
            return Ok((Keeper(Some(Arc::new(socket))), heritage));
        }
        heritage.0.insert(name, Legacy { words, descriptors });
    }
}

/// Ends this server as whoever kills it would, once the answer to whoever wants that has been sent. All that the next one needs is kept
/// at any moment, so there is nothing to be done first.
pub async fn end_for_the_next() {
    tokio::time::sleep(LAST_ANSWER).await;
    // It cannot fail: the process may signal itself.
    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
}

impl Keeper {
    /// Whether there is one.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Leaves this under a name, in the place of what was there. It is kept when this returns.
    pub fn keep(&self, name: &str, words: &impl Message, descriptors: &[BorrowedFd<'_>]) {
        if self.0.is_some() {
            self.say(
                Kept { name: name.to_owned(), value: words.encode_to_vec(), ..Kept::default() },
                descriptors,
            );
        }
    }

    /// Nothing need be kept under a name any more.
    pub fn forget(&self, name: &str) {
        self.say(Kept { name: name.to_owned(), gone: true, ..Kept::default() }, &[]);
    }

    /// Nothing need be kept any more.
    pub fn forget_all(&self) {
        self.forget("");
    }

    /// This server serves: it has taken all that there was.
    pub fn note_service(&self) {
        self.say(Kept { all: true, ..Kept::default() }, &[]);
    }

    /// One, and the end that it is told at.
    #[cfg(test)]
    pub fn pair() -> (Self, OwnedFd) {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.unwrap();
        (Self(Some(Arc::new(ours))), theirs)
    }

    /// What was told next at the other end, if anything was.
    #[cfg(test)]
    pub fn look(socket: &OwnedFd) -> Option<(String, Vec<OwnedFd>)> {
        rustix::io::ioctl_fionbio(socket, true).unwrap();
        let (message, descriptors) = handover::receive(socket).ok()?;
        Some((Kept::decode(message.as_slice()).unwrap().name, descriptors))
    }

    fn say(&self, kept: Kept, descriptors: &[BorrowedFd<'_>]) {
        let Some(socket) = &self.0 else { return };
        let name = kept.name.as_str();
        if let Err(error) = handover::send(socket, &kept.encode_to_vec(), descriptors) {
            tracing::error!(
                "the keeper cannot be told of {name}: {error}; a server after this one will not go on with it"
            );
        }
    }
}

impl Heritage {
    /// These words, under this name.
    #[cfg(test)]
    pub fn of(name: &str, words: &impl Message) -> Self {
        let legacy = Legacy { words: words.encode_to_vec(), descriptors: Vec::new() };
        Self(BTreeMap::from([(name.to_owned(), legacy)]))
    }

    /// Whether anything was left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was left under a name, if it can be read.
    pub fn take<M: Message + Default>(&mut self, name: &str) -> Option<(M, Vec<OwnedFd>)> {
        let Legacy { words, descriptors } = self.0.remove(name)?;
        Some((M::decode(words.as_slice()).ok()?, descriptors))
    }

    /// What was left under all names that begin so.
    pub fn take_all<M: Message + Default>(&mut self, prefix: &str) -> Vec<(M, Vec<OwnedFd>)> {
        let names: Vec<String> = self.0.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        names.iter().filter_map(|name| self.take(name)).collect()
    }
}

/// A name that has a number.
#[must_use]
pub fn numbered(kind: &str, number: u64) -> String {
    format!("{kind}/{number}")
}
