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

use crate::worker::mailbox::Wish;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::tenure::GRACE;
use crate::worker::session::watchdog::Overstay;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use torpor_proto::control::worker::{Phase, Waiting, Writeback, from_worker, happened};

/// A client that has got an answer and then nothing to do for so long has had its first request.
const SETTLING: Duration = Duration::from_secs(1);

/// Between two looks around of a session that waits for its turn or for memory and has answers to give meanwhile; whoever
/// gives them up wakes it.
const WAITING_NAP: Duration = Duration::from_millis(5);

/// How long a client has waited for its turn when the server hears of it, which may move it to another GPU...
const FIRST_WORD: Duration = Duration::from_micros(200);
/// ...and how long until it hears of it again.
const NEXT_WORD: Duration = Duration::from_millis(50);

impl Session {
    /// Waits for a turn and brings the client's memory to the GPU, if it has none yet. Whatever needs the client's memory
    /// calls this first.
    ///
    /// # Errors
    /// [`Halt::Refused`] with `CUDA_ERROR_OUT_OF_MEMORY` if there is no room, [`Halt::Unwanted`] if it is only to be loaded and
    /// nobody wants that any more, [`Halt::Lost`], [`Halt::Interrupted`].
    #[inline]
    pub(crate) fn activate(&mut self) -> Result<(), Halt> {
        if self.residency.active { Ok(()) } else { self.take_turn(0) }
    }

    /// As [`Self::activate`], and reserves memory for something new beside all that the client has.
    ///
    /// # Errors
    /// As [`Self::activate`].
    pub(crate) fn activate_with(&mut self, new_bytes: u64) -> Result<(), Halt> {
        loop {
            if !self.residency.active {
                self.take_turn(new_bytes)?;
            }
            if self.reserve_memory(new_bytes)? {
                return Ok(());
            }
            self.step_back()?;
        }
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

    #[cold]
    fn take_turn(&mut self, new_bytes: u64) -> Result<(), Halt> {
        while !self.begin_turn(new_bytes)? {
            self.step_back()?;
        }
        Ok(())
    }

    /// False if the client's memory has no room after all.
    fn begin_turn(&mut self, new_bytes: u64) -> Result<bool, Halt> {
        let (link, shared) = (self.link.clone(), self.shared.clone());
        self.tell_phase(Phase::Waiting);
        let (since, mut told, mut nap) = (Instant::now(), 0, FIRST_WORD);
        let joins = |limit, active| shared.memory.join(link.client, new_bytes, limit, active);
        while !shared.turns.take(&link, joins) {
            if since.elapsed() >= FIRST_WORD + NEXT_WORD * told && shared.waiting_words.pass() {
                shared.tell(from_worker::Body::Waiting(Waiting { client: link.client }));
                told += 1;
            }
            self.residency.waiting = true;
            let attended = self.attend();
            self.residency.waiting = false;
            // Else what was wanted first would be done last: the memory would come after it was to leave.
            let moot = (self.residency.loading && !link.wishes(Wish::Load))
                || (self.residency.origin == Origin::Told && !link.told.is_any());
            if let Err(error) = attended.and(if moot { Err(Halt::Unwanted) } else { Ok(()) }) {
                shared.turns.give_up(link.client);
                self.tell_phase(Phase::Idle);
                return Err(error);
            }
            std::thread::park_timeout(nap);
            // Whose turn it is is woken; this is for answers that are due, and for a neighbour that fell asleep just before
            // it was told that somebody waits.
            nap = (2 * nap).min(if self.is_waiting() { WAITING_NAP } else { NEXT_WORD });
        }
        let waited_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        link.usage.waited_us.fetch_add(waited_us, Ordering::Relaxed);
        self.residency.active = true;
        self.residency.has_changed |= !self.residency.loading;
        self.residency.answered = false;
        link.usage.requests.fetch_add(1, Ordering::Relaxed);
        self.tell_phase(Phase::Active);
        // SYNC POINT turn
        if link.take(Wish::ReleaseWaiting) {
            self.refuse_release("it has its turn");
        }
        let began = Instant::now();
        let missed = !self.space.is_whole();
        let came = self.swap_in();
        let came = if came == Ok(true) { self.renew_banks().map(|()| true) } else { came };
        // Not earlier: waiting for others to leave is no part of the turn.
        self.residency.tenure.begin(if missed { began.elapsed() } else { Duration::ZERO });
        if came.is_err() {
            self.give_up_turn();
        }
        self.note_gpu_use();
        came
    }

    /// What a session does while it waits for others: what they want of it, and answers that are due.
    pub(crate) fn wait_around(&mut self) -> Result<(), Halt> {
        self.attend()?;
        self.lend_lease()?;
        std::thread::park_timeout(WAITING_NAP);
        Ok(())
    }

    pub(in crate::worker::session) fn attend(&mut self) -> Result<(), Halt> {
        if self.is_interrupted() {
            return Err(Halt::Interrupted);
        }
        self.poll()?;
        self.lend_pen()?;
        if !self.residency.active && self.link.has_wishes() {
            self.grant_wishes()?;
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
            && !self.is_swapping_in()
            && self.arrivals.is_empty()
        {
            self.lend_lease()?;
        }
        let is_to_leave = self.link.wishes(Wish::Release);
        let overdue = self.residency.active
            && (is_to_leave || self.shared.turns.is_contended())
            && self.residency.tenure.is_overdue();
        if !overdue {
            return Ok(());
        }
        self.step_back()?;
        if is_to_leave { self.grant_wishes() } else { Ok(()) }
    }

    /// Looks at a session that has had nothing to do for a while. True if it has the GPU no more.
    ///
    /// # Errors
    /// The context's.
    pub(crate) fn rest(&mut self, idle: Duration) -> Result<bool, Halt> {
        if self.residency.active {
            if self.link.take(Wish::Request) {
                self.residency.origin = Origin::Told;
            }
            let tenure = self.residency.tenure;
            let patience = match self.is_wanted() {
                false => self.linger(),
                // Between two pieces of a copy it only waits for a CPU, or for pages of its own.
                true if self.is_copying() && !tenure.is_overdue() => return Ok(false),
                // Else what was just brought for it would leave before it is used.
                true if tenure.awaits_first_command(idle) => return Ok(false),
                true => tenure.patience(self.residency.answered, || self.shared.cpus.delay()),
            };
            if idle < patience || self.check()? {
                return Ok(false);
            }
            self.note_done();
            self.give_up_turn();
        }
        if self.link.has_wishes() {
            self.grant_wishes()?;
        }
        let settles = self.residency.writeback == Writeback::Never && !self.residency.settled;
        if settles && self.residency.answered && idle >= SETTLING {
            // If the host store has no room, once a request is often enough to try, and to say so.
            self.residency.answered = false;
            self.settle()?;
        }
        // It may have come for a request that somebody told of.
        Ok(!self.residency.active)
    }

    /// How long an idle client keeps its turn while nobody wants it: to the end of a request that was told of.
    fn linger(&self) -> Duration {
        match self.residency.origin {
            Origin::Inferred => self.shared.tuning.linger,
            Origin::Told if self.link.told.is_any() => Duration::MAX,
            Origin::Told => Duration::ZERO,
        }
    }

    /// Whether it comes for a request that was told of, whose first command may be far: nobody else goes on with that.
    pub(crate) fn is_coming(&self) -> bool {
        self.residency.origin == Origin::Told && self.is_swapping_in()
    }

    /// How long a session that has its turn and nothing to do may sleep.
    pub(crate) fn nap(&self, idle: Duration) -> Duration {
        let patience = match self.is_wanted() {
            false => self.linger(),
            true if self.is_copying() => return GRACE,
            true => GRACE,
        };
        patience.saturating_sub(idle).clamp(Duration::from_micros(100), Duration::from_millis(100))
    }

    fn is_copying(&self) -> bool {
        self.link.channel.get().is_some_and(|channel| channel.staging().is_copying())
    }

    /// Whether somebody wants this client's turn or its room.
    fn is_wanted(&self) -> bool {
        self.shared.turns.is_contended() || self.link.has_wishes()
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
    fn note_gpu_use(&mut self) {
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
        self.shared.tell_followers(self.link.client, || happened::What::Turn(phase.into()));
    }
}
