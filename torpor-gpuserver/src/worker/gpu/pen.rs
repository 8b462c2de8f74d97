//! The pen: what kernels print does not say whose they are, so one client at a time has kernels on the GPU that may print.
//!
//! A client takes the pen with the first launch of such a kernel and gives it up when these kernels have ended and their text is
//! read. Whoever waits for it too long runs its kernels without: then nobody is given any text until the GPU has done with
//! both, since it could be either's.

use crate::worker::mailbox::Link;
use crate::worker::sync::lock;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The pen of one GPU.
#[derive(Debug, Default)]
pub(crate) struct Pen {
    /// Whether somebody waits for it.
    wanted: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    holder: Option<Arc<Link>>,
    waiting: VecDeque<Arc<Link>>,
    /// Clients whose kernels may print although they do not have it.
    without: Vec<u64>,
    /// Text may be anybody's.
    is_muddled: bool,
}

impl Pen {
    /// Takes it if it is the client's turn; else the client waits in line, and asks again.
    pub(crate) fn take(&self, link: &Arc<Link>) -> bool {
        let mut state = lock(&self.state);
        if state.holder.as_ref().is_some_and(|holder| holder.client == link.client) {
            return true;
        }
        if state.waiting.iter().all(|other| other.client != link.client) {
            state.waiting.push_back(link.clone());
        }
        let is_next = state.waiting.front().is_some_and(|next| next.client == link.client);
        let taken = is_next && state.holder.is_none();
        if taken {
            state.waiting.pop_front();
            state.holder = Some(link.clone());
        } else if let Some(holder) = &state.holder {
            // One that has nothing to do sleeps until somebody wants something of it.
            holder.wake();
        }
        self.wanted.store(!state.waiting.is_empty(), Ordering::Relaxed);
        taken
    }

    /// Goes on without.
    pub(crate) fn do_without(&self, link: &Link) {
        let mut state = lock(&self.state);
        state.waiting.retain(|other| other.client != link.client);
        if !state.without.contains(&link.client) {
            state.without.push(link.client);
        }
        state.is_muddled = true;
        self.wanted.store(!state.waiting.is_empty(), Ordering::Relaxed);
    }

    /// Gives it up, or a place in the line: no kernel of the client prints any more, and what was printed is read.
    pub(crate) fn give_up(&self, client: u64) {
        let mut state = lock(&self.state);
        if state.holder.as_ref().is_some_and(|holder| holder.client == client) {
            state.holder = None;
        }
        state.waiting.retain(|other| other.client != client);
        state.without.retain(|&other| other != client);
        state.is_muddled &= state.holder.is_some() || !state.without.is_empty();
        self.wanted.store(!state.waiting.is_empty(), Ordering::Relaxed);
        if let Some(next) = state.waiting.front() {
            next.wake();
        }
    }

    /// Whether somebody waits for it.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Whether text that is read now is this client's alone.
    pub(crate) fn is_sole_writer(&self, client: u64) -> bool {
        let state = lock(&self.state);
        !state.is_muddled && state.holder.as_ref().is_some_and(|holder| holder.client == client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use torpor_proto::layout::AddressRange;

    fn link(client: u64) -> Arc<Link> {
        Arc::new(Link::new(client, "f", AddressRange { address: client << 32, bytes: 1 << 32 }))
    }

    #[test]
    fn one_has_it_and_the_next_in_line_follows() {
        let pen = Pen::default();
        let [first, second, third] = [1, 2, 3].map(link);
        assert!(pen.take(&first) && pen.take(&first) && !pen.is_wanted());
        assert!(!pen.take(&second) && !pen.take(&third) && pen.is_wanted());
        assert!(pen.is_sole_writer(1) && !pen.is_sole_writer(2));
        pen.give_up(1);
        assert!(!pen.take(&third) && pen.take(&second));
        pen.give_up(3);
        assert!(!pen.is_wanted());
    }

    #[test]
    fn text_is_nobody_s_from_when_one_goes_without_until_both_are_done() {
        let pen = Pen::default();
        let [first, second] = [1, 2].map(link);
        assert!(pen.take(&first) && !pen.take(&second));
        pen.do_without(&second);
        assert!(!pen.is_sole_writer(1) && !pen.is_wanted());
        pen.give_up(1);
        assert!(pen.take(&first) && !pen.is_sole_writer(1), "the other may still print");
        pen.give_up(2);
        assert!(!pen.is_sole_writer(1), "its text may be in between");
        pen.give_up(1);
        assert!(pen.take(&second) && pen.is_sole_writer(2));
    }
}
