//! How a session is reached from outside its thread: what others want of it, and what it tells of itself.

mod company;
mod gate;
mod link_usage;
mod presence;
mod trial;
mod watched;
mod wish;

pub(crate) use company::Company;
pub(crate) use gate::Gate;
pub(crate) use link_usage::LinkUsage;
pub(crate) use presence::Presence;
use trial::Trial;
pub(crate) use watched::{Overdue, Watched};
pub(crate) use wish::{Answer, Standing, Wish};

use crate::policy::due::due;
use crate::worker::cost::{Counts, ToldRequests};
use crate::worker::sync::lock;
use crate::worker::work_time::WorkTime;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};
use torpor_proto::channel::MappedChannel;
use torpor_proto::control::worker::{ClientUsage, Cost, Phase, Release, Settings};
use torpor_proto::image::AssertionTexts;
use torpor_proto::layout::AddressRange;
use torpor_proto::ring::Bell;

/// A session as the rest of the worker sees it.
#[derive(Debug)]
pub(crate) struct Link {
    /// The client's number.
    pub(crate) client: u64,
    /// Its function's name.
    pub(crate) function: String,
    /// Its device addresses, taken as long as the session lives.
    pub(crate) arena: AddressRange,
    /// Its channel, once that is open.
    pub(crate) channel: OnceLock<MappedChannel>,
    /// Its thread, once that runs.
    pub(crate) thread: OnceLock<Thread>,
    /// Page-locked host memory that its function may have on this GPU.
    pub(crate) pinned_limit_bytes: AtomicU64,
    /// Images that its function may use on this GPU.
    pub(crate) image_limit_bytes: AtomicU64,
    /// Within what time its requests should be answered, in milliseconds; 0 if nobody has said.
    pub(crate) slo_ms: AtomicU32,
    /// For [`ClientUsage`].
    pub(crate) usage: LinkUsage,
    /// The server has what leads to all that the client is: it survives this worker.
    pub(crate) survives: AtomicBool,
    /// Held while the client is answered and its state says so.
    answering: Mutex<()>,
    /// The swap-in during which a kernel was launched that waited for a part of the memory alone, while that kernel may not
    /// have ended; 0 for none.
    pub(crate) ran_ahead: AtomicU64,
    /// It launched kernels that can fail an assertion since it was given the GPU.
    pub(crate) may_assert: AtomicBool,
    /// Of the images that it has kernels of.
    assertions: Mutex<Vec<Arc<AssertionTexts>>>,
    /// Which of all overstays its work's is, while that goes on without a turn; 0 while not.
    pub(crate) overstays: AtomicU64,
    /// Over which link its memory may be read when it has left for another worker; 0 for none.
    pub(crate) leaves_over: AtomicU64,
    /// With whom it leaves, and has come.
    pub(crate) company: Company,
    /// Whether it may take a turn now.
    pub(crate) gate: Gate,
    /// What the server was told of its beginning.
    pub(crate) presence: Presence,
    /// Whether it may have ended its last worker, and has this one to itself.
    pub(crate) trial: Trial,
    /// In which [window](crate::worker::gpu::quiet) it has said last that no kernel of it runs.
    pub(crate) hushed: AtomicU64,
    /// Its kernels that have to end in time.
    pub(crate) watched: Mutex<Watched>,
    /// Requests under way that somebody has told of.
    pub(crate) told: ToldRequests,
    /// What it has sought may be here by now.
    sought: AtomicBool,
    /// How long it has had work.
    pub(crate) work: WorkTime,
    /// How long it has had turns.
    pub(crate) turn: WorkTime,
    /// When the last of them ended, in nanoseconds since the [turns](crate::worker::gpu::run_queue) began; 0 before that.
    pub(crate) turn_ended_ns: AtomicU64,
    /// While it waits for its turn: some of its memory is to be brought with it.
    pub(crate) is_away: AtomicBool,
    /// What others want of the session.
    wishes: AtomicU32,
    /// The settings of its function, if they have changed.
    settings: Mutex<Option<Settings>>,
    stop: AtomicBool,
    /// What it hears in its sleep.
    pub(crate) bell: Bell,
}

impl Link {
    /// Of a session that is about to begin.
    pub(crate) fn new(client: u64, function: &str, arena: AddressRange) -> Self {
        Self {
            client,
            function: function.to_owned(),
            arena,
            channel: OnceLock::new(),
            thread: OnceLock::new(),
            pinned_limit_bytes: AtomicU64::new(u64::MAX),
            image_limit_bytes: AtomicU64::new(u64::MAX),
            slo_ms: AtomicU32::new(0),
            usage: LinkUsage::default(),
            survives: AtomicBool::new(false),
            answering: Mutex::default(),
            ran_ahead: AtomicU64::new(0),
            may_assert: AtomicBool::new(false),
            assertions: Mutex::default(),
            overstays: AtomicU64::new(0),
            leaves_over: AtomicU64::new(0),
            company: Company::default(),
            gate: Gate::default(),
            presence: Presence::default(),
            trial: Trial::default(),
            hushed: AtomicU64::new(0),
            watched: Mutex::new(Watched::new(Instant::now())),
            told: ToldRequests::default(),
            sought: AtomicBool::new(false),
            work: WorkTime::new(),
            turn: WorkTime::new(),
            turn_ended_ns: AtomicU64::new(0),
            is_away: AtomicBool::new(false),
            wishes: AtomicU32::new(0),
            settings: Mutex::default(),
            stop: AtomicBool::new(false),
            bell: Bell::default(),
        }
    }

    /// It has kernels of an image with assertions.
    pub(crate) fn note_assertions(&self, texts: &Arc<AssertionTexts>) {
        let mut assertions = lock(&self.assertions);
        if assertions.iter().all(|known| !Arc::ptr_eq(known, texts)) {
            assertions.push(texts.clone());
        }
    }

    /// Whether a message of the driver may be of its kernels.
    pub(crate) fn may_have_said(&self, message: &[u8]) -> bool {
        self.may_assert.load(Ordering::Relaxed)
            && lock(&self.assertions).iter().any(|texts| texts.has(message))
    }

    /// Wants something of the session. Of coming and leaving, what was wanted last counts.
    pub(crate) fn ask(&self, wish: Wish) {
        match wish {
            Wish::Unload => self.fulfil(Wish::Load),
            Wish::Load => self.fulfil(Wish::Unload),
            _ => {}
        }
        // SYNC POINT turn
        self.wishes.fetch_or(wish as u32, Ordering::SeqCst);
        self.wake();
    }

    /// Whether anything is wanted.
    #[inline]
    pub(crate) fn has_wishes(&self) -> bool {
        self.wishes.load(Ordering::Relaxed) != 0
    }

    /// Whether this is wanted.
    pub(crate) fn wishes(&self, wish: Wish) -> bool {
        self.wishes.load(Ordering::Relaxed) & wish as u32 != 0
    }

    /// It is done, or moot.
    pub(crate) fn fulfil(&self, wish: Wish) {
        self.wishes.fetch_and(!(wish as u32), Ordering::Relaxed);
    }

    /// As [`Self::fulfil`]. True if it was wanted; of several that ask at once, one alone hears so.
    pub(crate) fn take(&self, wish: Wish) -> bool {
        // SYNC POINT turn
        self.wishes.fetch_and(!(wish as u32), Ordering::SeqCst) & wish as u32 != 0
    }

    /// Wants the session to be given up.
    ///
    /// # Errors
    /// Why it is not, for people.
    pub(crate) fn ask_release(&self, release: Release) -> Result<(), &'static str> {
        self.leaves_over.store(release.link, Ordering::Relaxed);
        self.company.set(release.party);
        if !release.while_waiting {
            self.ask(Wish::Release);
        } else if !self.ask_release_waiting() {
            return Err("it does not wait for its turn");
        }
        Ok(())
    }

    /// Wants the session to be given up if it waits for its turn. False if it does not, and need not answer.
    ///
    /// SYNC POINT turn: a session whose turn comes says that it is active and then looks at what is wanted; here the wish is
    /// noted first and the phase read then. One of the two sees the other, and whoever takes the wish answers it.
    fn ask_release_waiting(&self) -> bool {
        self.ask(Wish::ReleaseWaiting);
        self.usage.phase.load(Ordering::SeqCst) == Phase::Waiting as i32 || !self.take(Wish::ReleaseWaiting)
    }

    /// Hears that what it has sought may be here by now, or cannot be had.
    pub(crate) fn tell_sought(&self) {
        self.sought.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Whether it has heard so since the last time.
    pub(crate) fn take_sought(&self) -> bool {
        self.sought.swap(false, Ordering::Relaxed)
    }

    /// Hears that a request begins.
    pub(crate) fn begin_request(&self, request: u64) {
        self.told.begin(request, self.usage.counts());
        self.ask(Wish::Request);
    }

    /// What a request has cost by now.
    pub(crate) fn cost(&self, request: u64) -> Cost {
        let Counts { turns, swaps, waited_us, swapping_us, gpu_us } =
            self.told.cost(request, self.usage.counts());
        // It may have the turn that another request was given: that is its own, too.
        let turns = turns.max(self.turn.is_working().into());
        Cost { client: self.client, request, turns, swaps, waited_us, swapping_us, gpu_us }
    }

    /// Hears that all have ended.
    pub(crate) fn end_requests(&self) {
        self.told.end_all();
        self.wake();
    }

    /// Hears that one has ended.
    pub(crate) fn end_request(&self, request: u64) {
        self.told.end(request);
        self.wake();
    }

    /// Gives the session new settings.
    pub(crate) fn set_settings(&self, settings: Settings) {
        *lock(&self.settings) = Some(settings);
        self.ask(Wish::Settings);
    }

    /// The new settings, once.
    pub(crate) fn take_settings(&self) -> Option<Settings> {
        lock(&self.settings).take()
    }

    /// By when the client must begin if it comes to the line at `now`: see [`due`].
    pub(crate) fn due(&self, now: Duration) -> Duration {
        let slo_ms = self.slo_ms.load(Ordering::Relaxed);
        let slo = (slo_ms > 0).then(|| Duration::from_millis(slo_ms.into()));
        due(now, slo, self.turn_takes())
    }

    /// How long its turns last on average; nothing before it had one.
    pub(crate) fn turn_takes(&self) -> Duration {
        let turns = u32::try_from(self.usage.requests.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        self.work.total().checked_div(turns).unwrap_or_default()
    }

    /// What is held while the client is answered and the state that the server has says so: to another process both are, or neither.
    pub(crate) fn answering(&self) -> MutexGuard<'_, ()> {
        lock(&self.answering)
    }

    /// Has the client not answered any more. One that is just being answered has its answer, and its state says so, when this returns.
    pub(crate) fn stop_answering(&self) {
        std::mem::forget(self.answering());
    }

    /// Whether kernels of it may run: it has work, and its turn, or goes on without one. Who waits for its turn or for memory has none.
    pub(crate) fn may_run(&self) -> bool {
        let has_turn = self.turn.is_working() || self.overstays.load(Ordering::Relaxed) != 0;
        has_turn && self.work.is_working()
    }

    /// Whether the session is to end.
    #[inline]
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Ends the session.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// What the client uses, and its function of images.
    pub(crate) fn report(&self, function_image_bytes: u64) -> ClientUsage {
        let usage = &self.usage;
        ClientUsage {
            client: self.client,
            memory_bytes: usage.memory_bytes.load(Ordering::Relaxed),
            pinned_bytes: usage.pinned_bytes.load(Ordering::Relaxed),
            commands: usage.commands.load(Ordering::Relaxed),
            busy: self.work.is_working()
                || self.channel.get().is_some_and(|channel| !channel.ring().is_drained()),
            allocated_bytes: usage.allocated_bytes.load(Ordering::Relaxed),
            host_bytes: usage.host_bytes.load(Ordering::Relaxed),
            requests: usage.requests.load(Ordering::Relaxed),
            hits: usage.hits.load(Ordering::Relaxed),
            swaps: usage.swaps.load(Ordering::Relaxed),
            fixed_images: usage.fixed_images.load(Ordering::Relaxed),
            arrays: usage.arrays.load(Ordering::Relaxed),
            array_bytes: usage.array_bytes.load(Ordering::Relaxed),
            fixed_objects: usage.fixed_objects.load(Ordering::Relaxed),
            // As whoever knows what clients share says.
            shares: false,
            phase: usage.phase.load(Ordering::Relaxed),
            function_image_bytes,
            covered: usage.covered.load(Ordering::Relaxed),
            worked_us: u64::try_from(self.work.total().as_micros()).unwrap_or(u64::MAX),
            turn_us: u64::try_from(self.turn.lasts().as_micros()).unwrap_or(u64::MAX),
        }
    }

    /// Wakes the session's thread, whatever it sleeps for.
    pub(crate) fn wake(&self) {
        if let Some(channel) = self.channel.get() {
            self.bell.ring(channel.ring());
        }
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}
