//! Seeking: a client wants what another one has exported, which another GPU's worker serves. The server brings them together; until
//! then the client waits as one that waits for its turn, and if it is moved, its command goes along and is executed there.

use crate::worker::gpu::ipc::{Exports, Secret};
use crate::worker::mailbox::Wish;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use std::sync::Arc;
use std::time::Duration;
use torpor_proto::control::worker::{Phase, Seek, from_worker};
use torpor_proto::error::CudaError;

/// Between two looks at what others want meanwhile; whoever wants something wakes the session.
const NAP: Duration = Duration::from_millis(5);

impl Session {
    /// What a client of the function has exported with this secret.
    ///
    /// # Errors
    /// [`Halt::Refused`] with `CUDA_ERROR_INVALID_VALUE` if there is none that this client could have; [`Halt::Interrupted`] also if
    /// it is elsewhere, and this client goes there; [`Halt::Lost`].
    pub(crate) fn find_export<T>(
        &mut self,
        exports: impl Fn(&Self) -> &Exports<T>,
        secret: Secret,
        exporter: u64,
    ) -> Result<Arc<T>, Halt> {
        let find = |session: &Self| exports(session).find(secret, &session.link.function);
        if let Some(found) = find(self) {
            return Ok(found);
        }
        if self.residency.may_seek && self.shared.link(exporter).is_none() {
            self.seek(exporter)?;
        }
        find(self).ok_or(Halt::Refused(CudaError::INVALID_VALUE))
    }

    fn seek(&mut self, exporter: u64) -> Result<(), Halt> {
        let link = self.link.clone();
        if self.is_active() {
            self.step_back()?;
        }
        link.take_sought();
        self.residency.waiting = true;
        self.tell_phase(Phase::Waiting);
        self.shared.tell(from_worker::Body::Seek(Seek { client: link.client, exporter }));
        let sought = loop {
            if link.take_sought() {
                break Ok(());
            }
            if let Err(halt) = self.attend() {
                break Err(halt);
            }
            std::thread::park_timeout(NAP);
        };
        self.residency.waiting = false;
        self.tell_phase(Phase::Idle);
        if link.take(Wish::ReleaseWaiting) {
            self.refuse_release("it waits no longer");
        }
        sought
    }
}
