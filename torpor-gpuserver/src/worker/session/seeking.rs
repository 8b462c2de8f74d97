//! Seeking: a client wants what another one has exported, which another GPU's worker serves. The server brings them together; until
//! then its command is parked as one that waits for its turn, and if the client is moved, it goes along and is executed there.

use crate::worker::gpu::ipc::{Exports, Secret};
use crate::worker::mailbox::{Standing, Wish};
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::parking::Need;
use std::sync::Arc;
use torpor_proto::control::worker::{Phase, Seek, from_worker};
use torpor_proto::error::CudaError;

impl Session {
    /// What a client of the function has exported with this secret.
    ///
    /// # Errors
    /// [`Halt::Refused`] with `CUDA_ERROR_INVALID_VALUE` if there is none that this client could have; [`Halt::Parked`] if it may be
    /// elsewhere.
    pub(crate) fn find_export<T>(
        &mut self,
        exports: impl Fn(&Self) -> &Exports<T>,
        secret: Secret,
        exporter: u64,
    ) -> Result<Arc<T>, Halt> {
        if let Some(found) = exports(self).find(secret, &self.link.function) {
            return Ok(found);
        }
        // Also one whose exporter is here: that one may be on its way to here, and not have it yet.
        if self.residency.may_seek && !self.parking.has_sought() {
            return Err(self.parking.park(Need::Export(exporter)));
        }
        Err(Halt::Refused(CudaError::INVALID_VALUE))
    }

    /// Asks the server to bring the two together.
    ///
    /// # Errors
    /// [`Halt::Lost`], or [`Halt::Interrupted`].
    pub(crate) fn seek(&mut self, exporter: u64) -> Result<(), Halt> {
        if self.is_active() {
            self.step_back()?;
        }
        self.link.take_sought();
        self.tell_phase(Phase::Waiting);
        self.shared.tell(from_worker::Body::Seek(Seek { client: self.link.client, exporter }));
        Ok(())
    }

    /// Whether the server has done so, or knows that it cannot.
    ///
    /// # Errors
    /// [`Halt::Lost`]; [`Halt::Interrupted`] also if this client goes to the other one.
    pub(crate) fn has_sought(&mut self) -> Result<bool, Halt> {
        let is_sought = self.link.take_sought();
        let attended = if is_sought { Ok(()) } else { self.attend(Standing::Waiting) };
        if is_sought || attended.is_err() {
            self.tell_phase(Phase::Idle);
            self.deny(Wish::ReleaseWaiting, Standing::Idle);
        }
        attended.map(|()| is_sought)
    }
}
