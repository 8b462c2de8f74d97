//! A parked command: one that needs what is not there says so before it has done anything, and is executed again once the loop of
//! the session (`machine.rs`) has got that, or knows that it cannot be had.

use crate::worker::gpu::quiet::Silence;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::hush::Hushing;

/// What a command needs beside the client's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: its turn, with all memory that the client has.
    Turn,
    /// Memory for something new, reserved.
    Room(u64),
    /// The shared segment that is at home there.
    Segment(u64),
    /// What this client has exported, which may be served elsewhere; that needs no turn.
    Export(u64),
    /// Another session to be done with a segment that the client has together with others; that needs no turn either.
    Others,
    /// That nobody's kernels run; that needs no turn either.
    Quiet,
}

/// What became of a need, for the command that is executed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// So much is reserved for it.
    Room(u64),
    /// All has been done to find it.
    Export,
    /// It cannot be had.
    Refused(Halt),
}

/// The command that is being executed, as far as it waits or has waited.
#[derive(Debug, Default)]
pub(crate) struct Parking {
    need: Option<Need>,
    met: Option<Met>,
    hushing: Option<Hushing>,
    silence: Option<Silence>,
}

impl Parking {
    /// The command does nothing more now. Returns what it ends with: the reason, if it has waited in vain.
    #[cold]
    pub(crate) fn park(&mut self, need: Need) -> Halt {
        match self.hear() {
            Err(halt) => halt,
            Ok(()) => {
                self.need = Some(need);
                Halt::Parked
            }
        }
    }

    /// Whether the command has waited in vain, once.
    ///
    /// # Errors
    /// Why.
    pub(crate) fn hear(&mut self) -> Result<(), Halt> {
        match self.met {
            Some(Met::Refused(halt)) => {
                self.met = None;
                Err(halt)
            }
            _ => Ok(()),
        }
    }

    /// What the command that was just executed needs, if it has done nothing.
    #[inline]
    pub(crate) fn take_need(&mut self) -> Option<Need> {
        self.need.take()
    }

    /// What became of the need, before the command is executed again.
    pub(crate) fn meet(&mut self, met: Met) {
        self.met = Some(met);
    }

    /// Whether so much is reserved for the command, which has it from now on.
    pub(crate) fn take_room(&mut self, bytes: u64) -> bool {
        self.met.take_if(|met| *met == Met::Room(bytes)).is_some()
    }

    /// As [`Self::park`], until it is quiet, for which the command has waited like this so far.
    pub(crate) fn park_until_quiet(&mut self, hushing: Hushing) -> Halt {
        let halt = self.park(Need::Quiet);
        if halt == Halt::Parked {
            self.hushing = Some(hushing);
        }
        halt
    }

    /// How the command that is parked has waited for quiet so far.
    pub(crate) fn take_hushing(&mut self) -> Hushing {
        self.hushing.take().unwrap_or_else(Hushing::new)
    }

    /// It is quiet, before the command is executed again.
    pub(crate) fn keep_silence(&mut self, silence: Silence) {
        self.silence = Some(silence);
    }

    /// The quiet that the command has waited for.
    pub(crate) fn take_silence(&mut self) -> Option<Silence> {
        self.silence.take()
    }

    /// Whether the command has sought what it needs.
    pub(crate) fn has_sought(&self) -> bool {
        self.met == Some(Met::Export)
    }
}

impl Session {
    /// The command has been executed again: what it did not want after all is given back.
    pub(crate) fn leave_parking(&mut self) {
        drop(self.parking.take_silence());
        if let Some(Met::Room(bytes)) = self.parking.met.take() {
            self.shared.memory.unreserve(self.link.client, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use torpor_proto::error::CudaError;

    #[test]
    fn a_command_parks_until_its_need_is_met() {
        let mut parking = Parking::default();
        assert!(!parking.take_room(7));
        assert_eq!(parking.park(Need::Room(7)), Halt::Parked);
        assert_eq!((parking.take_need(), parking.take_need()), (Some(Need::Room(7)), None));
        parking.meet(Met::Room(7));
        assert!(!parking.take_room(8), "it is of another size");
        assert!(parking.take_room(7));
        assert!(!parking.take_room(7), "it is the command's once");
    }

    #[test]
    fn a_command_that_waited_in_vain_hears_why_and_may_need_something_else() {
        let mut parking = Parking::default();
        let reason = Halt::Refused(CudaError::OUT_OF_MEMORY);
        parking.meet(Met::Refused(reason));
        assert_eq!(parking.park(Need::Turn), reason);
        assert_eq!(parking.take_need(), None);
        assert_eq!(parking.park(Need::Turn), Halt::Parked);
    }
}
