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

use crate::chunk::CHUNK_BYTES;
use crate::worker::arrivals::EVERYTHING;
use crate::worker::seldom::Seldom;
use crate::worker::session::Session;
use crate::worker::shared::Wish;
use crate::worker::snapshot::Snapshot;
use crate::worker::swap_in::SwapIn;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use torpor_proto::control::migration;
use torpor_proto::control::worker::{Phase, Settings, Waiting, Writeback, from_worker};
use torpor_proto::error::CudaError;

/// How long a drained client may think about its next command while others wait, if it has just been given an answer...
const GRACE_AFTER_ANSWER: Duration = Duration::from_micros(200);
/// ...and if it has not.
const GRACE: Duration = Duration::from_millis(1);

/// After a turn of this length, while others wait, any pause ends it: a client that asks for the next inference as soon as it
/// has the last would else keep the GPU for [`LONGEST_TURN`].
const FULL_TURN: Duration = Duration::from_millis(100);

/// A pause: longer than a program needs between two launches.
const PAUSE: Duration = Duration::from_micros(20);

/// The longest turn while others wait.
const LONGEST_TURN: Duration = Duration::from_secs(1);

/// A client that has got an answer and then nothing to do for so long has had its first request.
const SETTLING: Duration = Duration::from_secs(1);

/// Between two looks around of a session that waits for its turn or for memory; whoever gives them up wakes it.
const WAITING_NAP: Duration = Duration::from_millis(5);

/// How long a client has waited for its turn when the server hears of it, which may move it to another GPU...
const FIRST_WORD: Duration = Duration::from_micros(200);
/// ...and how long until it hears of it again.
const NEXT_WORD: Duration = Duration::from_millis(50);

/// What a session knows of its client's residency.
#[derive(Debug)]
pub(super) struct Residency {
    active: bool,
    /// It waits for its turn.
    waiting: bool,
    /// It comes because the operator wants it, not for a command.
    loading: bool,
    since: Instant,
    writeback: Writeback,
    /// What the client had before its first request was over is in the host store: see [`Writeback::Never`].
    settled: bool,
    /// Something was copied back to the host during this request.
    pub(super) answered: bool,
    /// Segments in the order in which the last request that began with a swap-in touched them first.
    pub(super) order: Vec<u64>,
    /// The order of this request, if it began with a swap-in.
    pub(super) touched: Option<Vec<u64>>,
    /// The client has made tensor maps, whose addresses cannot be seen in parameters.
    pub(super) makes_tensor_maps: bool,
    /// The swap-in that this request began with, while there is something left to bring.
    pub(super) swap_in: Option<SwapIn>,
    /// The store's slots must be asked for again.
    pub(super) lease_lost: bool,
    /// Chunks that may have equals in the host store, see `identify.rs`.
    pub(super) unidentified: bool,
    /// Allocations beyond the client's limit.
    pub(super) refusals: Seldom,
}

impl Residency {
    pub(super) fn new(writeback: Writeback) -> Self {
        Self {
            active: false,
            waiting: false,
            loading: false,
            since: Instant::now(),
            writeback,
            settled: false,
            answered: false,
            order: Vec::new(),
            touched: None,
            makes_tensor_maps: false,
            swap_in: None,
            lease_lost: false,
            unidentified: false,
            refusals: Seldom::default(),
        }
    }

    /// What is to be known at another worker.
    pub(super) fn save(&self) -> migration::Residency {
        migration::Residency {
            settled: self.settled,
            answered: self.answered,
            makes_tensor_maps: self.makes_tensor_maps,
            order: self.order.clone(),
        }
    }

    /// What was known at another worker. The lease was given back there.
    pub(super) fn restore(&mut self, saved: migration::Residency) {
        let migration::Residency { settled, answered, makes_tensor_maps, order } = saved;
        *self = Self {
            settled,
            answered,
            makes_tensor_maps,
            order,
            lease_lost: true,
            unidentified: true,
            ..Self::new(self.writeback)
        };
    }

    /// Whether what kernels write is dropped when the client leaves the GPU.
    pub(super) fn drops_writes(&self) -> bool {
        self.settled && self.writeback == Writeback::Never
    }

    /// A kernel, copy or fill names this segment.
    pub(super) fn touch(&mut self, segment: u64) {
        if let Some(touched) = &mut self.touched
            && !touched.contains(&segment)
        {
            touched.push(segment);
        }
    }
}

impl Session {
    /// Waits for a turn and brings the client's memory to the GPU, if it has none yet. Whatever needs the client's memory
    /// calls this first.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` if there is no room, the context's, `CUDA_ERROR_NOT_READY` if nobody wants it to be loaded any
    /// more, or `CUDA_ERROR_DEINITIALIZED` if the session is to end.
    #[inline]
    pub(super) fn activate(&mut self) -> Result<(), CudaError> {
        if self.residency.active { Ok(()) } else { self.take_turn() }
    }

    #[cold]
    fn take_turn(&mut self) -> Result<(), CudaError> {
        let (link, shared) = (self.link.clone(), self.shared.clone());
        self.tell_phase(Phase::Waiting);
        let (since, mut told) = (Instant::now(), 0);
        while !shared.turns.take(&link) {
            if since.elapsed() >= FIRST_WORD + NEXT_WORD * told {
                shared.tell(from_worker::Body::Waiting(Waiting { client: link.client }));
                told += 1;
            }
            self.residency.waiting = true;
            let attended = self.attend();
            self.residency.waiting = false;
            // Else what was wanted first would be done last: the memory would come after it was to leave.
            let moot = self.residency.loading && !link.wishes(Wish::Load);
            if let Err(error) = attended.and(if moot { Err(CudaError::NOT_READY) } else { Ok(()) }) {
                shared.turns.give_up(link.client);
                self.tell_phase(Phase::Idle);
                return Err(error);
            }
            std::thread::park_timeout(if told == 0 { FIRST_WORD } else { WAITING_NAP });
        }
        shared.memory.set_active(link.client, true);
        self.residency.active = true;
        self.residency.answered = false;
        link.usage.requests.fetch_add(1, Ordering::Relaxed);
        self.tell_phase(Phase::Active);
        // SYNC POINT turn
        if link.take(Wish::ReleaseWaiting) {
            self.refuse_release("it has its turn");
        }
        let came = self.swap_in();
        // Not earlier: waiting for others to leave is no part of the turn.
        self.residency.since = Instant::now();
        if came.is_err() {
            self.give_up_turn();
        }
        came
    }

    /// What a session does while it waits for others: what they want of it, and answers that are due.
    pub(super) fn wait_around(&mut self) -> Result<(), CudaError> {
        self.attend()?;
        std::thread::park_timeout(WAITING_NAP);
        Ok(())
    }

    fn attend(&mut self) -> Result<(), CudaError> {
        if self.is_interrupted() {
            return Err(CudaError::DEINITIALIZED);
        }
        self.poll()?;
        if !self.residency.active && self.link.has_wishes() {
            self.grant_wishes()?;
        }
        Ok(())
    }

    /// Lets others have the GPU.
    pub(super) fn give_up_turn(&mut self) {
        if !std::mem::take(&mut self.residency.active) {
            return;
        }
        self.abandon_swap_in();
        if let Some(touched) = self.residency.touched.take() {
            self.residency.order = touched;
        }
        self.shared.memory.set_active(self.link.client, false);
        self.shared.turns.give_up(self.link.client);
        self.tell_phase(Phase::Idle);
    }

    /// Lends the lease if it is wanted, and gives the turn up if it has lasted too long while others wait: they begin at once,
    /// also if work of this client never ends, and this one goes on when its work is done and it is its turn again.
    #[inline]
    pub(super) fn share_the_gpu(&mut self) -> Result<(), CudaError> {
        if self.residency.active && self.link.wishes(Wish::Lease) && self.arrivals.is_empty() {
            self.lend_lease()?;
        }
        let overdue = self.residency.active
            && self.shared.turns.is_contended()
            && self.residency.since.elapsed() > LONGEST_TURN;
        if !overdue {
            return Ok(());
        }
        self.shared.turns.give_up(self.link.client);
        self.drain()?;
        self.give_up_turn();
        Ok(())
    }

    /// Looks at a session that has had nothing to do for a while. True if it has the GPU no more.
    ///
    /// # Errors
    /// The context's.
    pub(super) fn rest(&mut self, idle: Duration) -> Result<bool, CudaError> {
        if self.residency.active {
            let patience = match self.residency.answered {
                _ if !self.is_wanted() => self.shared.linger,
                _ if self.residency.since.elapsed() >= FULL_TURN => PAUSE,
                true => GRACE_AFTER_ANSWER,
                false => GRACE,
            };
            if idle < patience || self.streams.check()? {
                return Ok(false);
            }
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
        Ok(true)
    }

    /// How long a session that has its turn and nothing to do may sleep.
    pub(super) fn nap(&self, idle: Duration) -> Duration {
        let patience = if self.is_wanted() { GRACE } else { self.shared.linger };
        patience.saturating_sub(idle).clamp(Duration::from_micros(100), Duration::from_millis(100))
    }

    /// Whether somebody wants this client's turn or its room.
    fn is_wanted(&self) -> bool {
        self.shared.turns.is_contended() || self.link.has_wishes()
    }

    /// Does what others want of an idle session.
    fn grant_wishes(&mut self) -> Result<(), CudaError> {
        let link = self.link.clone();
        self.renew_settings();
        if link.wishes(Wish::Unload) {
            link.fulfil(Wish::Unload);
            self.settle()?;
            self.evict()?;
            self.shared.memory.trim();
        }
        if link.wishes(Wish::Evict) {
            link.fulfil(Wish::Evict);
            self.evict()?;
        }
        if link.wishes(Wish::Lease) {
            self.lend_lease()?;
        }
        let (wanted, wanted_waiting) = (link.take(Wish::Release), link.take(Wish::ReleaseWaiting));
        if wanted || (wanted_waiting && self.residency.waiting) {
            self.depart()?;
        } else if wanted_waiting {
            self.refuse_release("it waits no longer");
        }
        // Whoever waits for its turn comes anyway.
        if link.wishes(Wish::Load) && !self.residency.waiting {
            self.residency.loading = true;
            let loaded = self.activate().and_then(|()| self.bring_up_to(EVERYTHING));
            self.residency.loading = false;
            match loaded {
                Ok(()) => self.give_up_turn(),
                // The memory stays where it is; who asked for it sees that.
                Err(error) if self.is_refusal(error) => {}
                // It may be released: then it is loaded where it goes.
                Err(error) => return Err(error),
            }
            link.fulfil(Wish::Load);
        }
        Ok(())
    }

    /// Gives the store's slots back, if they are wanted and this client's memory has all been brought. While it waits for
    /// memory of the GPU, those that are to leave for it may need the slots; while it works, anybody may.
    pub(super) fn lend_lease(&mut self) -> Result<(), CudaError> {
        if self.link.wishes(Wish::Lease) && self.residency.swap_in.is_none() {
            // Behind all copies from and to the slots.
            let fence = self.streams.fence_setup();
            match fence.and_then(|fence| self.wait_for(Vec::from_iter(fence))) {
                Ok(()) => self.give_lease_back(),
                // It stays wanted, and the next time may be luckier.
                Err(error) if self.is_refusal(error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn give_lease_back(&mut self) {
        self.link.fulfil(Wish::Lease);
        self.residency.lease_lost = true;
        self.shared.store.lease_revoked(self.link.client);
    }

    /// Takes over what is new in the settings.
    pub(super) fn renew_settings(&mut self) {
        if self.link.wishes(Wish::Settings) {
            self.link.fulfil(Wish::Settings);
            if let Some(settings) = self.link.take_settings() {
                self.set_settings(&settings);
            }
        }
    }

    fn set_settings(&mut self, settings: &Settings) {
        let limit_bytes = settings.memory_limit_bytes.min(self.shared.memory.limit_bytes());
        self.space.set_limit_bytes(limit_bytes.max(self.space.allocated_bytes()));
        self.residency.writeback = settings.writeback();
        self.shared.memory.set_pinned(self.link.client, settings.pinned);
    }

    /// The first request is over: what the client has now is what every later request begins with, if its writes are
    /// dropped.
    fn settle(&mut self) -> Result<(), CudaError> {
        if self.residency.writeback == Writeback::Never && !self.residency.settled {
            self.residency.settled = self.snapshot()?.is_some();
        }
        Ok(())
    }

    /// Takes the client's memory off the GPU, unless it cannot be saved now.
    pub(super) fn evict(&mut self) -> Result<(), CudaError> {
        if self.space.resident_bytes() == 0 {
            return Ok(());
        }
        let bytes = self.space.resident_bytes();
        let Some(snapshot) = self.snapshot()? else {
            self.shared.memory.set_stuck(self.link.client);
            // Who asked again meanwhile has its answer, too.
            self.link.fulfil(Wish::Evict);
            return Ok(());
        };
        let began = Instant::now();
        // Physical memory goes back as the backings are dropped.
        self.space.segments_mut().for_each(|(_, segment)| segment.backing = None);
        let unmap_us = began.elapsed().as_micros();
        let Snapshot { digested_bytes, digest_us, copied_back_bytes, copy_us } = snapshot;
        tracing::debug!(
            client = self.link.client,
            function = %self.link.function,
            bytes,
            digested_bytes,
            digest_us,
            copied_back_bytes,
            copy_us,
            unmap_us,
            "evicted"
        );
        self.tell_memory();
        Ok(())
    }

    fn tell_phase(&self, phase: Phase) {
        // SYNC POINT turn
        self.link.usage.phase.store(phase as i32, Ordering::SeqCst);
    }

    /// Notes how much memory the client has, and where.
    pub(super) fn tell_memory(&self) {
        let usage = &self.link.usage;
        usage.memory_bytes.store(self.space.resident_bytes(), Ordering::Relaxed);
        usage.allocated_bytes.store(self.space.allocated_bytes(), Ordering::Relaxed);
        let stored = self.space.segments().flat_map(|(_, segment)| segment.stored()).count();
        usage.host_bytes.store(stored as u64 * CHUNK_BYTES, Ordering::Relaxed);
    }
}
