//! The end of a worker whose context is lost: its sessions end, and then it waits until the server ends it.

use crate::worker::gpu::Shared;
use crate::worker::relinquish::relinquish;
use std::time::{Duration, Instant};
use torpor_proto::control::worker::{Quiet, from_worker};

/// How long sessions may take to tell their clients that the context is lost. The server tells those that they did not, and those that
/// are covered wait for this worker's end.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(30);

/// How long one that is quiet waits for its end. The server chooses the moment: while the driver takes back what a process had, it serves
/// nobody else.
const LINGER: Duration = Duration::from_secs(2);

/// Until the process may end.
pub(super) fn end(shared: &Shared) {
    let has_left = leave(shared);
    // Before the last word: a session may hold the list of all while it tells the server something, as it does for ever from then on.
    let links = shared.all_links();
    // What sessions say later nobody hears: it may be of what has never happened outside of this process.
    let last_word = shared.server.last_word();
    if !has_left {
        tracing::debug!("sessions are in the driver still; the worker lets go of what it shares");
        links.iter().for_each(|link| link.stop_answering());
        if let Err(error) = relinquish() {
            tracing::warn!("the worker cannot let go of what it shares, and ends at once: {error}");
            return;
        }
    }
    last_word.say(from_worker::Body::Quiet(Quiet {}));
    std::thread::sleep(LINGER);
}

/// Gives the sessions a moment to end. Whether they have.
fn leave(shared: &Shared) -> bool {
    let deadline = Instant::now() + LEAVE_TIMEOUT;
    while shared.has_sessions() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    !shared.has_sessions()
}
