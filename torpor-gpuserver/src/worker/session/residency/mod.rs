//! Residency: when a client has the GPU, and how its memory comes and goes with that.
//!
//! ```text
//!            first GPU command            its turn; memory is brought in
//!     idle ───────────────────▶ waiting ───────────────────────────────▶ active
//!      ▲                                                                    │
//!      └──────────── drained, and somebody waits or the linger is over ─────┘
//! ```
//!
//! An idle client's memory stays on the GPU until somebody needs the room or the operator unloads it. A turn that lasts too
//! long while others wait is given up between two commands, so that endless work of one client does not keep the others
//! from theirs.

mod state;

pub(in crate::worker::session) use state::Origin;
pub(crate) use state::Residency;

use crate::worker::mailbox::{Standing, Wish};
use crate::worker::session::Session;
use crate::worker::session::coming::Errand;
use crate::worker::session::halt::Halt;
use crate::worker::session::lean::Why;
use crate::worker::session::parking::Need;
use crate::worker::session::shortage::Room;
use crate::worker::session::tenure::{GRACE, LINGER_IN_SHORTAGE, busy_turn, patience_among_rivals};
use crate::worker::session::watchdog::Overstay;
use std::sync::atomic::Ordering;
use std::time::Duration;
use torpor_proto::control::worker::{Phase, Writeback, happened};

/// A client that has got an answer and then nothing to do for so long has had its first request.
const SETTLING: Duration = Duration::from_secs(1);

/// Between two looks around of a session that waits for another one in the middle of something.
const AROUND_NAP: Duration = Duration::from_millis(5);

/// How a session rests that has nothing to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// With its turn.
    Holds,
    /// Without.
    Away,
    /// It does not: it sets out for the GPU.
    Sets(Errand),
}

impl Session {
    /// What needs the client's memory calls this before it does anything: unless the client is active, the command is
    /// [parked](crate::worker::session::parking) until it is.
    ///
    /// # Errors
    /// [`Halt::Parked`]; as [`Self::come`], if that was in vain.
    #[inline]
    pub(crate) fn activate(&mut self) -> Result<(), Halt> {
        if self.residency.active { Ok(()) } else { Err(self.parking.park(Need::Turn)) }
    }

    /// As [`Self::activate`], and reserves memory for something new beside all that the client has.
    ///
    /// # Errors
    /// As [`Self::activate`].
    pub(crate) fn activate_with(&mut self, new_bytes: u64) -> Result<(), Halt> {
        self.parking.hear()?;
        let reserved = match self.is_lean() {
            true => self.reserve_lean(new_bytes)?,
            false => {
                self.residency.active
                    && (self.parking.take_room(new_bytes) || self.try_reserve(new_bytes)? == Room::Granted)
            }
        };
        if reserved { Ok(()) } else { Err(self.parking.park(Need::Room(new_bytes))) }
    }

    /// As [`Self::activate`], and maps the shared segment that is at home there.
    ///
    /// # Errors
    /// As [`Self::activate`].
    pub(crate) fn activate_in(&mut self, home: u64) -> Result<(), Halt> {
        self.parking.hear()?;
        if self.is_lean() {
            self.leave_lean(Why::Everything)?;
        }
        let is_there = self.residency.active && self.enter_segment(home)? == Room::Granted;
        if is_there { Ok(()) } else { Err(self.parking.park(Need::Segment(home))) }
    }

    /// Gives the turn up though there is work: others begin at once, also if that work never ends, and this client goes on when
    /// its work is done and it is its turn again.
    ///
    /// # Errors
    /// [`Halt::Lost`], or [`Halt::Interrupted`].
    pub(crate) fn step_back(&mut self) -> Result<(), Halt> {
        self.shared.turns.give_up(self.link.client);
        let _overstay = Overstay::begin(&self.shared, &self.link);
        self.drain()?;
        self.note_done();
        self.give_up_turn();
        Ok(())
    }

    /// Waits a moment for another session in the middle of something: answers that are due go out, and what others want waits,
    /// but for what that session may need.
    pub(crate) fn wait_around(&mut self) -> Result<(), Halt> {
        self.attend(Standing::Active)?;
        self.lend_lease()?;
        std::thread::park_timeout(AROUND_NAP);
        Ok(())
    }

    /// What a session does between two looks at what it waits for.
    pub(crate) fn attend(&mut self, standing: Standing) -> Result<(), Halt> {
        if self.is_interrupted() {
            return Err(Halt::Interrupted);
        }
        self.poll()?;
        self.lend_pen()?;
        if standing != Standing::Active && self.link.has_wishes() {
            self.grant_wishes(standing)?;
        }
        Ok(())
    }

    /// Whether it has its turn.
    pub(crate) fn is_active(&self) -> bool {
        self.residency.active
    }

    /// Lets others have the GPU.
    pub(crate) fn give_up_turn(&mut self) {
        self.residency.origin = Origin::Inferred;
        if !std::mem::take(&mut self.residency.active) {
            return;
        }
        self.note_gpu_use();
        self.abandon_swap_in();
        self.end_lean();
        self.end_whole_turn();
        // Its error is the context's: the next look at that finds it.
        let _ = self.put_pen_down();
        self.link.may_assert.store(false, Ordering::Relaxed);
        if let Some(touched) = self.residency.touched.take() {
            self.residency.order = touched;
        }
        self.shared.memory.part(self.link.client);
        self.shared.turns.give_up(self.link.client);
        self.tell_phase(Phase::Idle);
    }

    /// Lends the lease if it is wanted, and gives the turn up if it has lasted too long while others wait, or while the client
    /// is to go to another GPU.
    #[inline]
    pub(crate) fn share_the_gpu(&mut self) -> Result<(), Halt> {
        self.lend_pen()?;
        if self.residency.active
            && self.link.wishes(Wish::Lease)
            && (self.is_lean() || !self.is_swapping_in() && self.arrivals.is_empty())
        {
            self.lend_lease()?;
        }
        let is_to_leave = self.link.wishes(Wish::Release);
        let overdue = self.residency.active
            && (is_to_leave || self.shared.turns.is_contended() || !self.link.gate.is_open())
            && self.residency.tenure.is_overdue();
        if !overdue {
            return Ok(());
        }
        self.step_back()?;
        if is_to_leave { self.grant_wishes(Standing::Idle) } else { Ok(()) }
    }

    /// Looks at a session that has had nothing to do for a while.
    ///
    /// # Errors
    /// The context's; [`Halt::Interrupted`].
    pub(crate) fn rest(&mut self, idle: Duration) -> Result<Rest, Halt> {
        if self.residency.active {
            if self.link.has_wishes() {
                self.grant_wishes(Standing::Active)?;
            }
            let tenure = self.residency.tenure;
            let patience = match self.is_wanted() {
                false => self.linger(),
                true if self.bears_with_rivals(idle) => return Ok(Rest::Holds),
                // Between two pieces of a copy it only waits for a CPU, or for pages of its own.
                true if self.is_copying() && !tenure.is_overdue() => return Ok(Rest::Holds),
                // Else what was just brought for it would leave before it is used.
                true if tenure.awaits_first_command(idle) => return Ok(Rest::Holds),
                true => tenure.patience(self.residency.answered, || self.shared.cpus.delay()),
            };
            if idle < patience || self.check()? {
                return Ok(Rest::Holds);
            }
            self.note_done();
            self.give_up_turn();
        }
        if self.link.has_wishes() {
            self.grant_wishes(Standing::Idle)?;
            if let Some(errand) = self.errand() {
                return Ok(Rest::Sets(errand));
            }
        }
        let settles = self.residency.writeback == Writeback::Never && !self.residency.settled;
        if settles && self.residency.answered && idle >= SETTLING {
            // If the host store has no room, once a request is often enough to try, and to say so.
            self.residency.answered = false;
            self.settle()?;
        }
        Ok(Rest::Away)
    }

    /// Whether only those want its turn that wait for it, and its program may still be thinking.
    fn bears_with_rivals(&self, idle: Duration) -> bool {
        let (residency, is_asked) = (&self.residency, self.link.has_wishes() || !self.link.gate.is_open());
        let patience = patience_among_rivals(residency.thought, residency.way);
        let thinks = residency.waited_until.map_or(idle, |waited| waited.elapsed());
        !is_asked
            && patience.is_some_and(|patience| thinks < patience)
            && !residency.tenure.is_brief()
            && !self.shared.turns.is_pressed(busy_turn(self.shared.tuning.busy_turn, residency.way))
    }

    /// How long an idle client keeps its turn while nobody wants it: to the end of a request that was told of.
    fn linger(&self) -> Duration {
        match self.residency.origin {
            // Who has a part of its memory there is in nobody's way.
            Origin::Inferred if self.shared.memory.is_short() && !self.is_lean() => {
                self.linger_until_saved(self.shared.tuning.linger.min(LINGER_IN_SHORTAGE))
            }
            Origin::Inferred => self.linger_until_saved(self.shared.tuning.linger),
            Origin::Told if self.link.told.is_any() => Duration::MAX,
            Origin::Told => Duration::ZERO,
        }
    }

    /// Whether it comes for a request that was told of, whose first command may be far: nobody else goes on with that.
    pub(crate) fn is_coming(&self) -> bool {
        self.residency.origin == Origin::Told && self.is_swapping_in()
    }

    /// After how much time without a command a session that has its turn, and has had none for so long, looks whether that is to
    /// end.
    pub(crate) fn patience(&self, idle: Duration) -> Duration {
        match self.is_wanted() {
            false => self.linger(),
            true if self.is_copying() => idle + GRACE,
            true => GRACE,
        }
    }

    fn is_copying(&self) -> bool {
        self.link.channel.get().is_some_and(|channel| channel.staging().is_copying())
    }

    /// Whether somebody wants this client's turn or its room.
    pub(in crate::worker::session) fn is_wanted(&self) -> bool {
        self.shared.turns.is_contended() || self.link.has_wishes() || !self.link.gate.is_open()
    }

    /// There is work for the GPU.
    #[inline]
    pub(crate) fn begin_work(&mut self) {
        if self.link.work.begin() {
            self.note_gpu_use();
        }
    }

    /// There is none any more.
    pub(crate) fn end_work(&mut self) {
        self.link.work.end();
        self.note_gpu_use();
    }

    /// Whoever has its turn and work uses the GPU.
    pub(crate) fn note_gpu_use(&mut self) {
        let uses = self.residency.active && self.link.work.is_working();
        if std::mem::replace(&mut self.residency.uses_gpu, uses) == uses {
            return;
        }
        if uses {
            self.shared.gpu_time.begin(&self.link);
        } else {
            self.shared.gpu_time.end(self.link.client);
        }
    }

    pub(in crate::worker::session) fn tell_phase(&self, phase: Phase) {
        if phase == Phase::Active {
            self.link.turn.begin();
        } else {
            self.link.turn.end();
        }
        // SYNC POINT turn
        self.link.usage.phase.store(phase as i32, Ordering::SeqCst);
        // That it waits is told once it has waited for a while.
        if phase != Phase::Waiting {
            self.link.tell_turn(&self.shared.server);
        }
        self.shared.tell_followers(self.link.client, || happened::What::Turn(phase.into()));
    }
}
