//! A client that has come with others, with whom it has memory or events together: it is what it came as until all of these are here,
//! so that all of them can still go back.

use crate::worker::gpu::Shared;
use crate::worker::mailbox::Link;
use crate::worker::session::pause::IDLE_NAP;

/// Waits until all are here, or the client is to go.
pub(super) fn wait_for_company(shared: &Shared, link: &Link) {
    while link.company.is_held() && !link.is_stopping() && shared.lost().is_none() {
        std::thread::park_timeout(IDLE_NAP);
    }
}
