//! Home: which of its function's devices the client's program uses, which the server hears.

use crate::worker::session::Session;
use torpor_proto::control::worker::{Home, from_worker};

impl Session {
    /// Tells the server, of the first alone: a client may say one without end.
    pub(crate) fn tell_home(&self, device: u32) {
        if self.link.gate.note_home(device) {
            self.shared.tell(from_worker::Body::Home(Home { client: self.link.client, device }));
        }
    }
}
