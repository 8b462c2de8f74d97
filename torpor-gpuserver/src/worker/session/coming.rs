//! How a client comes to the GPU: it stands in line for its turn, its memory waits for room, and what it needs beside that does.
//!
//! Each step is tried, and is over, or is to be tried again after a nap; the loop of the session (`machine.rs`) does both, and
//! grants what others want in between. Nothing here waits for others by itself.

use crate::policy::lean::Entry;
use crate::worker::mailbox::{Standing, Wish};
use crate::worker::memory::arrivals::EVERYTHING;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::hush::Hushing;
use crate::worker::session::missing::Missing;
use crate::worker::session::parking::{Met, Need};
use crate::worker::session::pause::WATCH_NAP;
use crate::worker::session::residency::Origin;
use crate::worker::session::shortage::Room;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use torpor_proto::control::worker::{Phase, Waiting, from_worker};

/// Between two looks around of a session that waits for its turn or for memory and has answers to give meanwhile; whoever
/// gives them up wakes it.
const WAITING_NAP: Duration = Duration::from_millis(5);

/// How long a client has waited for its turn when the server hears of it, which may move it to another GPU...
const FIRST_WORD: Duration = Duration::from_micros(200);
/// ...and how long until it hears of it again.
const NEXT_WORD: Duration = Duration::from_millis(50);

/// What a client comes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// The command that was taken last needs this, and is executed again then.
    Command(Need),
    /// The operator wants its memory on the GPU.
    Load,
    /// A request was told of, whose first command may be far.
    Request,
}

/// A client on its way, and how far it is.
#[derive(Debug)]
pub(crate) struct Coming {
    errand: Errand,
    stage: Stage,
    /// Since when others were to make room for it, while there is none.
    short: Option<Instant>,
}

#[derive(Debug)]
enum Stage {
    /// Nothing is done yet.
    Beginning,
    /// It is in line.
    InLine(Line),
    /// It has its turn, and its memory is to come.
    Arriving(Arriving),
    /// All that it has is there or under way, but not what it needs beside.
    Beside,
    /// The server looks for what another client has exported.
    Seeking,
    /// Others' kernels are to end.
    Hushing(Hushing),
    /// Others are given a moment.
    Aside {
        /// It is over with the next try.
        waited: bool,
    },
}

#[derive(Debug)]
struct Line {
    since: Instant,
    /// How often the server heard of it.
    told: u32,
    /// How often it heard so while the client's gate was not open.
    knocked: u32,
    /// Its program has just been given an answer.
    is_busy: bool,
    nap: Duration,
}

#[derive(Debug)]
struct Arriving {
    since: Instant,
    /// With all of its memory, or with a part.
    entry: Entry,
    /// A part of it was not there.
    missed: bool,
    missing: Option<Missing>,
}

/// What became of a step.
#[derive(Debug)]
enum Step {
    /// The next one can be tried.
    On(Stage),
    /// The same one, after a nap.
    Again(Duration),
    /// The last one is done.
    Done(Option<Met>),
}

/// How far a client has come.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Nobody need look before.
    After(Duration),
    /// It is there, and what it came for has this.
    Arrived(Option<Met>),
}

impl Line {
    fn new(is_busy: bool) -> Self {
        Self { since: Instant::now(), told: 0, knocked: 0, is_busy, nap: FIRST_WORD }
    }
}

impl Coming {
    /// Nothing is done yet.
    pub(crate) fn new(errand: Errand) -> Self {
        Self { errand, stage: Stage::Beginning, short: None }
    }

    /// What for.
    pub(crate) fn errand(&self) -> Errand {
        self.errand
    }

    /// What it needs beside its turn.
    fn need(&self) -> Need {
        match self.errand {
            Errand::Command(need) => need,
            Errand::Load | Errand::Request => Need::Turn,
        }
    }
}

impl Session {
    /// Goes as far as that goes without waiting.
    ///
    /// # Errors
    /// [`Halt::Refused`] with `CUDA_ERROR_OUT_OF_MEMORY` if there is no room, [`Halt::Unwanted`] if it does not come for a command and
    /// is not wanted any more, [`Halt::Lost`], [`Halt::Interrupted`].
    pub(crate) fn come(&mut self, coming: &mut Coming) -> Result<Progress, Halt> {
        loop {
            let step = match &mut coming.stage {
                Stage::Beginning => {
                    // The command may have asked for memory already.
                    coming.short = self.is_active().then(Instant::now);
                    self.set_out(coming.errand)?
                }
                Stage::InLine(line) => self.stand_in_line(coming.errand, line)?,
                Stage::Arriving(arriving) => {
                    let room = self.arrive_whole(arriving, coming.short);
                    match self.follow(room, &mut coming.short)? {
                        Room::Granted => Step::On(Stage::Beside),
                        Room::Later => Step::Again(WAITING_NAP),
                        Room::StepBack => Step::On(self.line_up()),
                    }
                }
                Stage::Beside => {
                    let (need, short) = (coming.need(), coming.short);
                    let room = self.get_beside(need);
                    let room = self.unless_crowded(room, short);
                    match self.follow(room, &mut coming.short)? {
                        Room::Granted => {
                            if let Some(since) = short {
                                self.residency.tenure.begin(since.elapsed(), self.link.gate.is_brief());
                            }
                            Step::Done(if let Need::Room(bytes) = need {
                                Some(Met::Room(bytes))
                            } else {
                                None
                            })
                        }
                        Room::Later => Step::Again(WAITING_NAP),
                        Room::StepBack => Step::On(self.line_up()),
                    }
                }
                Stage::Seeking if self.has_sought()? => Step::Done(Some(Met::Export)),
                Stage::Seeking => Step::Again(WAITING_NAP),
                Stage::Hushing(hushing) => match self.come_to_quiet(hushing)? {
                    true => Step::Done(None),
                    false => {
                        self.stand_aside()?;
                        Step::Again(WATCH_NAP)
                    }
                },
                Stage::Aside { waited: true } => Step::Done(None),
                Stage::Aside { waited } => {
                    *waited = true;
                    self.stand_aside()?
                }
            };
            match step {
                Step::On(stage) => coming.stage = stage,
                Step::Again(nap) => return Ok(Progress::After(nap)),
                Step::Done(met) => return Ok(Progress::Arrived(met)),
            }
        }
    }

    fn set_out(&mut self, errand: Errand) -> Result<Step, Halt> {
        match errand {
            Errand::Command(Need::Export(exporter)) => {
                self.seek(exporter)?;
                Ok(Step::On(Stage::Seeking))
            }
            Errand::Command(Need::Quiet) => Ok(Step::On(Stage::Hushing(self.parking.take_hushing()))),
            Errand::Command(Need::Others) => Ok(Step::On(Stage::Aside { waited: false })),
            Errand::Command(_) if self.is_active() => Ok(Step::On(Stage::Beside)),
            errand => {
                self.residency.loading = errand == Errand::Load;
                if errand == Errand::Request {
                    self.residency.origin = Origin::Told;
                }
                Ok(Step::On(self.line_up()))
            }
        }
    }

    fn line_up(&self) -> Stage {
        self.tell_phase(Phase::Waiting);
        Stage::InLine(Line::new(self.residency.asks_again_soon()))
    }

    fn stand_in_line(&mut self, errand: Errand, line: &mut Line) -> Result<Step, Halt> {
        let (link, shared) = (self.link.clone(), self.shared.clone());
        let new_bytes = if let Errand::Command(Need::Room(bytes)) = errand { bytes } else { 0 };
        // Whoever comes after a while is brought whole, as nobody knows when it comes again.
        let may_be_lean = matches!(errand, Errand::Command(Need::Turn) | Errand::Request) && line.is_busy;
        let mut entry = None;
        let joins = |limit, active| {
            let fit = || may_be_lean.then(|| self.fit()).flatten();
            entry = shared.memory.join(link.client, (new_bytes, fit), limit, active);
            entry.is_some()
        };
        let missed = !self.space.is_whole() || self.away_bytes() > 0;
        link.is_away.store(missed, Ordering::Relaxed);
        if shared.turns.take(&link, line.is_busy, joins)
            && let Some(entry) = entry
        {
            self.begin_turn(line.since);
            if entry == Entry::Whole {
                self.residency.unfit.note_turn();
                self.residency.is_surveyed = false;
                self.begin_whole_turn();
            }
            return Ok(Step::On(Stage::Arriving(Arriving {
                since: Instant::now(),
                entry,
                missed,
                missing: None,
            })));
        }
        if line.since.elapsed() >= FIRST_WORD + NEXT_WORD * line.told && shared.waiting_words.pass() {
            shared.tell(from_worker::Body::Waiting(Waiting { client: link.client }));
            line.told += 1;
        }
        // Not at once: the work of siblings may be about to end, and with it the gang's turn.
        if !link.gate.is_open() && line.since.elapsed() >= FIRST_WORD + NEXT_WORD * line.knocked {
            link.tell_turn(&shared.server);
            line.knocked += 1;
        }
        let attended = self.attend(Standing::Waiting);
        let attended = attended.and_then(|()| self.look_beside_siblings(line.since.elapsed(), new_bytes));
        // A load that a later unload cancelled must not run after it.
        let is_moot = match errand {
            Errand::Command(_) => false,
            Errand::Load => !link.wishes(Wish::Load),
            Errand::Request => !link.told.is_any(),
        };
        if let Err(halt) = attended.and(if is_moot { Err(Halt::Unwanted) } else { Ok(()) }) {
            shared.turns.give_up(link.client);
            self.tell_phase(Phase::Idle);
            return Err(halt);
        }
        let nap = line.nap;
        // Whose turn it is is woken; this is for answers that are due, and for a neighbour that fell asleep just before
        // it was told that a client waits.
        line.nap = (2 * nap).min(if self.is_waiting() { WAITING_NAP } else { NEXT_WORD });
        Ok(Step::Again(nap))
    }

    /// It is the client's turn, which it has waited for.
    fn begin_turn(&mut self, since: Instant) {
        let link = self.link.clone();
        let waited_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        link.usage.waited_us.fetch_add(waited_us, Ordering::Relaxed);
        self.residency.active = true;
        self.residency.has_changed |= !self.residency.loading;
        self.residency.answered = false;
        link.usage.requests.fetch_add(1, Ordering::Relaxed);
        self.tell_phase(Phase::Active);
        // SYNC POINT turn
        self.deny(Wish::ReleaseWaiting, Standing::Active);
    }

    /// Begins to bring all that is missing, once there is room for it. The turn is measured from then on: waiting for others to
    /// leave is no part of it.
    fn arrive_whole(&mut self, arriving: &mut Arriving, short: Option<Instant>) -> Result<Room, Halt> {
        let came = match arriving.entry {
            Entry::Whole => self.swap_in(&mut arriving.missing, short),
            Entry::Lean(bytes) => self.come_lean(bytes),
        };
        let came = self.unless_crowded(came, short);
        let came =
            if came == Ok(Room::Granted) { self.renew_variables().map(|()| Room::Granted) } else { came };
        if came == Ok(Room::Granted) && !self.residency.loading {
            self.arrays.have_changed |= self.arrays.here_bytes.get() > 0;
        }
        if came != Ok(Room::Later) {
            let cost = if arriving.missed { arriving.since.elapsed() } else { Duration::ZERO };
            if arriving.missed {
                self.residency.way = cost;
            }
            self.residency.tenure.begin(cost, self.link.gate.is_brief());
            self.note_gpu_use();
        }
        if came.is_err() {
            self.give_up_turn();
        } else if came == Ok(Room::Granted) && !self.is_swapping_in() {
            self.shared.turns.has_come(self.link.client);
        }
        came
    }

    fn get_beside(&mut self, need: Need) -> Result<Room, Halt> {
        match need {
            Need::Turn | Need::Export(_) | Need::Others | Need::Quiet => Ok(Room::Granted),
            Need::Room(bytes) => self.try_reserve(bytes),
            Need::Segment(home) => self.enter_segment(home),
        }
    }

    /// Gives others what they may need to be done: slots, and of a client without a turn all that they want.
    fn stand_aside(&mut self) -> Result<Step, Halt> {
        self.lend_lease()?;
        self.attend(if self.is_active() { Standing::Active } else { Standing::Waiting })?;
        Ok(Step::Again(WAITING_NAP))
    }

    /// The operator wants all of its memory here, whose turn it is, and nothing else.
    pub(crate) fn load_whole(&mut self) -> Result<(), Halt> {
        self.bring_up_to(EVERYTHING)?;
        self.give_up_turn();
        Ok(())
    }
}
