//! Giving a client up for another worker: its session becomes data.

use super::party::SHARES;
use crate::state_file;
use crate::worker::gpu::ipc::party::Fate;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::work_time::micros;
use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use torpor_proto::control::migration::Checkpoint;
use torpor_proto::control::worker::{NotReleased, Party, from_worker};
use torpor_proto::ring::Record;

/// Why a client stays whose memory is still on the GPU.
pub(super) const UNSAVED: &str = "its memory cannot be saved in the host store; the worker's log says why";

/// Why a client stays that is more than data.
const FIXED: &str = "it uses variables of an image that only this GPU's driver can place or fill; the worker's log says which and why";

/// Why a client stays whose kernels know handles of this GPU's driver.
const HANDLES: &str = "it has texture or surface objects, and this GPU's driver gives no handle again, as the worker's log says";

/// Between two looks at answers that are due.
const NAP: Duration = Duration::from_micros(10);

/// What comes of a client that is to go.
enum Departure {
    /// It is data.
    Goes(Box<Checkpoint>),
    /// It stays, and why.
    Stays(Cow<'static, str>),
}

impl Session {
    /// Gives the client up for another worker, or says why not. Nothing of it runs and it does not have its turn.
    ///
    /// # Errors
    /// [`Halt::Interrupted`] if it is given up, or if the session is to end anyway; [`Halt::Lost`].
    pub(crate) fn depart(&mut self) -> Result<(), Halt> {
        let party = self.party();
        let departure = self.become_data(&party);
        let departure = self.unless_refused(departure)?;
        match departure.unwrap_or_else(|| self.stays(&party, UNSAVED)) {
            Departure::Goes(state) => {
                self.released = Some(*state);
                Err(Halt::Interrupted)
            }
            Departure::Stays(reason) => {
                self.refuse_release(&reason);
                Ok(())
            }
        }
    }

    /// Tells the server that the client stays.
    pub(crate) fn refuse_release(&self, reason: &str) {
        let reason = reason.to_owned();
        self.shared.tell(from_worker::Body::NotReleased(NotReleased { client: self.link.client, reason }));
    }

    /// It stays, and so do those that were to go with it.
    fn stays(&self, party: &Party, reason: &'static str) -> Departure {
        self.call_off(party, reason);
        Departure::Stays(reason.into())
    }

    fn become_data(&mut self, party: &Party) -> Result<Departure, Halt> {
        if self.images.fixed() > 0 {
            return Ok(self.stays(party, FIXED));
        }
        if self.keeps_arrays() {
            return Ok(self.stays(party, HANDLES));
        }
        if self.lacks_company(party) {
            return Ok(self.stays(party, SHARES));
        }
        let began = Instant::now();
        self.drain()?;
        while !self.pending.is_empty() {
            if self.is_interrupted() {
                return Err(Halt::Interrupted);
            }
            self.poll()?;
            std::thread::sleep(NAP);
        }
        let drained = Instant::now();
        let is_saved = self.save_whole()?;
        let saved = Instant::now();
        if !is_saved {
            return Ok(self.stays(party, UNSAVED));
        }
        if let Fate::Stays(reason) = self.wait_for_company(party)? {
            return Ok(Departure::Stays(reason.into()));
        }
        self.take_shared();
        let checkpoint = self.take_checkpoint();
        if !matches!(checkpoint, Ok(Some(_))) {
            self.stay_shared();
        }
        tracing::debug!(
            client = self.link.client,
            drain_us = micros(drained - began),
            save_us = micros(saved - drained),
            checkpoint_us = micros(saved.elapsed()),
            "became data"
        );
        Ok(checkpoint?
            .map_or(Departure::Stays(FIXED.into()), |checkpoint| Departure::Goes(Box::new(checkpoint))))
    }

    /// The state as it is handed on. If that cannot be, the client stays, and the command is returned that was taken from
    /// the ring and not executed.
    pub(crate) fn write_state(&mut self) -> Result<OwnedFd, Option<Record>> {
        let mut state = self.released.take().unwrap_or_default();
        state.words_taken = self.words_taken();
        state_file::write(&state).map_err(|error| {
            tracing::error!(client = self.link.client, "the client's state cannot be written: {error}");
            self.stay_shared();
            self.refuse_release("its state cannot be written; the worker's log says why");
            Record::from_words(&state.waiting_command).ok()
        })
    }
}
