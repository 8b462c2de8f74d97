//! A client that waits for memory: what others can have of it meanwhile, and when it has waited long enough.

use crate::worker::mailbox::Standing;
use crate::worker::memory::arrivals::EVERYTHING;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use std::time::Instant;

/// What became of a try to get memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// It is there.
    Granted,
    /// Others make room, or are about to.
    Later,
    /// Others that are active wait for memory, too, and this client has to [step back](Session::step_back) for one of them to get
    /// some.
    StepBack,
}

impl Session {
    /// Does what follows from a try to get memory: looks around before the next one, or gives the turn up.
    pub(super) fn follow(
        &mut self,
        room: Result<Room, Halt>,
        short: &mut Option<Instant>,
    ) -> Result<Room, Halt> {
        if room == Ok(Room::Later) {
            short.get_or_insert_with(Instant::now);
            let Err(halt) = self.look_around() else { return room };
            self.shared.memory.wait_no_longer(self.link.client);
            self.end_shortage(short);
            self.give_up_turn();
            return Err(halt);
        }
        self.end_shortage(short);
        if room == Ok(Room::StepBack) {
            self.step_back()?;
        }
        room
    }

    /// What a client that waits for memory does meanwhile: it brings what has its memory already and may be left of a swap-in, and
    /// then lends its slots, which those that are to leave for it may need.
    fn look_around(&mut self) -> Result<(), Halt> {
        self.bring_up_to(EVERYTHING)?;
        self.lend_lease()?;
        self.attend(Standing::Active)
    }

    fn end_shortage(&self, short: &mut Option<Instant>) {
        if short.take().is_some() {
            self.shared.turns.want_no_memory(self.link.client);
        }
    }
}
