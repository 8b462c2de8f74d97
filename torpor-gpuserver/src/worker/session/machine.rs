//! The session as a machine: what it is about at any moment, and what comes next. Here alone it waits for others, and what they
//! want is heard.
//!
//! ```text
//!             the ring is empty
//!   Serving ─────────────────────▶ Idle ──────────┐ the operator, or the word of a request
//!     │  ▲ ▲         a command      │             ▼
//!     │  │ └────────────────────────┘          Coming ──▶ Idle
//!     │  │                                        │
//!     │  └─────────── it is executed again ───────┤
//!     └──── a command needs what is not there ────┘
//! ```

use crate::worker::mailbox::Wish;
use crate::worker::session::coming::{Coming, Errand, Progress};
use crate::worker::session::halt::Halt;
use crate::worker::session::parking::Met;
use crate::worker::session::pause::{Pause, Quiet, WATCH_NAP, holding_nap, pause, resting_nap};
use crate::worker::session::replay::replayable::How;
use crate::worker::session::residency::{Origin, Rest};
use crate::worker::session::sleep::Sleep;
use crate::worker::session::{Session, Stop};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use torpor_proto::channel::Channel;
use torpor_proto::ring::{Bell, Consumer, Record};

/// What a session is about.
#[derive(Debug)]
enum State {
    /// It executes commands, one after the other.
    Serving,
    /// There has been none since then.
    Idle(Instant),
    /// It is on its way to the GPU, and takes no command. If it has been idle before, since when.
    Coming(Box<Coming>, Option<Instant>),
}

/// The client's commands: the last one taken, and where they come from.
struct Commands<'a> {
    channel: &'a Channel,
    consumer: Consumer,
    sleep: Sleep,
    /// What others in the worker ring.
    bell: &'a Bell,
    last: Record,
    /// Where it ends in the ring, and how it is executed.
    at: (u64, How),
    taken: u64,
    told: &'a AtomicU64,
}

impl Commands<'_> {
    /// Takes the next one, if there is one.
    #[inline]
    fn take(&mut self) -> Result<bool, Stop> {
        let popped = self.consumer.pop(self.channel.ring(), &self.channel.words, &mut self.last);
        let taken = popped.map_err(|malformed| Stop::Fault(malformed.to_string()))?;
        if taken {
            self.at = (self.consumer.words_taken(), How::Afresh);
            self.taken += 1;
            self.told.store(self.taken, Ordering::Relaxed);
        }
        Ok(taken)
    }

    fn sleep(&mut self, nap: Duration) {
        self.sleep.sleep(&self.consumer, self.channel.ring(), self.bell, nap);
    }
}

impl Session {
    /// Executes a command that was taken from the ring before, if there is one, then reads the ring until something ends
    /// that.
    pub(crate) fn serve(&mut self, first: Option<Record>) -> Stop {
        let link = self.link.clone();
        let channel = link.channel.get().expect("set when the session was opened");
        let told = &link.usage.commands;
        let mut commands = Commands {
            channel,
            consumer: Consumer::resume(channel.ring()),
            sleep: Sleep::new(Instant::now()),
            bell: &link.bell,
            last: Record::default(),
            // Of the first one.
            at: (Consumer::resume(channel.ring()).words_taken(), How::Afresh),
            taken: told.load(Ordering::Relaxed),
            told,
        };
        match self.run(&mut commands, first) {
            Err(stop) => stop,
        }
    }

    fn run(&mut self, commands: &mut Commands<'_>, first: Option<Record>) -> Result<Infallible, Stop> {
        let mut state = State::Idle(Instant::now());
        if let Some(first) = first {
            commands.last = first;
            state = self.wake_for(commands)?;
        }
        loop {
            state = match state {
                State::Serving => self.serve_on(commands)?,
                State::Idle(since) => self.idle(commands, since)?,
                State::Coming(coming, since) => self.come_on(commands, coming, since)?,
            };
        }
    }

    /// Executes commands until there is none, or one needs something first.
    fn serve_on(&mut self, commands: &mut Commands<'_>) -> Result<State, Stop> {
        while self.take_next(commands, true)? {
            let next = self.execute_last(commands)?;
            if !matches!(next, State::Serving) {
                return Ok(next);
            }
        }
        self.poll().map_err(|halt| self.lose(halt, "waiting for the GPU"))?;
        Ok(State::Idle(Instant::now()))
    }

    /// Does what is due between two commands, and takes the next one. False if there is none. `commands_follow`: the program posts
    /// one after the other.
    #[inline]
    fn take_next(&mut self, commands: &mut Commands<'_>, commands_follow: bool) -> Result<bool, Stop> {
        loop {
            if let Some(stop) = self.interrupted() {
                return Err(stop);
            }
            match self.share_the_gpu() {
                // It may have become data: nothing more is taken from the ring.
                Err(Halt::Interrupted) => continue,
                shared => self.go_on(shared, "waiting for its work to end")?,
            }
            let brought = self.keep_bringing(commands_follow);
            self.go_on(brought, "bringing its memory")?;
            match self.is_hushed() {
                Ok(false) => break,
                Ok(true) => {
                    if !commands.channel.ring().is_drained() {
                        self.shared.quiet.note_disturbed();
                    }
                    std::thread::sleep(WATCH_NAP);
                }
                Err(halt) => return Err(self.lose(halt, "waiting for quiet")),
            }
        }
        if self.replay.is_some()
            && let Some((taken, how)) = self.next_again()?
        {
            (commands.last, commands.at) = (taken.record, (taken.end, how));
            return Ok(true);
        }
        commands.take()
    }

    /// The client has something to do again.
    fn wake_for(&mut self, commands: &mut Commands<'_>) -> Result<State, Stop> {
        self.begin_work();
        // Before anything of it is executed.
        self.outgrow_cover();
        self.return_staging();
        self.execute_last(commands)
    }

    /// Executes the command that was taken last, and does what is due behind it.
    #[inline]
    fn execute_last(&mut self, commands: &Commands<'_>) -> Result<State, Stop> {
        if let Some(need) = self.execute(&commands.last, commands.channel, commands.at)? {
            return Ok(State::Coming(Box::new(Coming::new(Errand::Command(need))), None));
        }
        self.poll().map_err(|halt| self.lose(halt, "waiting for the GPU"))?;
        // A refusal leaves the GPU further behind until the next checkpoint.
        let caught_up = self.catch_up();
        self.go_on(caught_up, "waiting for the GPU to catch up")?;
        Ok(State::Serving)
    }

    /// Looks at a ring that has been empty, and for what can be done meanwhile.
    fn idle(&mut self, commands: &mut Commands<'_>, since: Instant) -> Result<State, Stop> {
        if self.take_next(commands, false)? {
            self.residency.note_thought(since);
            return self.wake_for(commands);
        }
        self.poll().map_err(|halt| self.lose(halt, "waiting for the GPU"))?;
        self.residency.looked = Instant::now();
        let idle = since.elapsed();
        let quiet = if self.is_coming() {
            Quiet::Coming
        } else if self.is_waiting() {
            self.residency.waited_until = Some(Instant::now());
            Quiet::Watching
        } else {
            match self.rest(idle) {
                Ok(Rest::Holds) => Quiet::Holding,
                Ok(Rest::Away) => Quiet::Resting,
                Ok(Rest::Sets(errand)) => {
                    return Ok(State::Coming(Box::new(Coming::new(errand)), Some(since)));
                }
                Err(Halt::Interrupted) => return Ok(State::Idle(since)),
                Err(halt) => return Err(self.lose(halt, "leaving the GPU")),
            }
        };
        match pause(quiet, idle, self.shared.tuning.spin) {
            Pause::Spin => std::hint::spin_loop(),
            Pause::Yield => std::thread::yield_now(),
            Pause::Sleep(nap) => self.doze(commands, nap),
            Pause::Hold => {
                let is_busy = self.check().map_err(|halt| self.lose(halt, "running posted work"))?;
                if !is_busy {
                    self.end_work();
                }
                self.doze(commands, holding_nap(is_busy, idle, self.patience(idle)));
            }
            Pause::Rest => {
                self.end_work();
                let covered = self.cover(idle);
                self.go_on(covered, "saving its state")?;
                match self.identify(idle) {
                    Ok(true) | Err(Halt::Interrupted) => {}
                    // What cannot be identified is kept all the same.
                    Ok(false) | Err(_) => {
                        self.tell_cover();
                        self.vacate_staging(idle);
                        let nap = resting_nap(self.is_settled(), idle);
                        self.doze(commands, self.nap_until_covered(idle, nap));
                    }
                }
            }
        }
        Ok(State::Idle(since))
    }

    /// Sleeps until its program asks for something. What came while the session was at something else was asked for before.
    fn doze(&mut self, commands: &mut Commands<'_>, nap: Duration) {
        let is_asked = !commands.channel.ring().is_drained();
        commands.sleep(nap);
        if !is_asked {
            self.residency.looked = Instant::now();
        }
    }

    /// Goes on with what a command or others wait for, or waits for a moment.
    fn come_on(
        &mut self,
        commands: &mut Commands<'_>,
        mut coming: Box<Coming>,
        since: Option<Instant>,
    ) -> Result<State, Stop> {
        let errand = coming.errand();
        let came = match self.is_hushed().and_then(|_| self.come(&mut coming)) {
            Ok(Progress::After(nap)) => {
                // What it waits for wakes it; its client cannot.
                std::thread::park_timeout(nap);
                return Ok(State::Coming(coming, since));
            }
            // What it came for may launch something.
            Ok(Progress::Arrived(met)) => self.stay_hushed().map(|()| met),
            Err(halt) => Err(halt),
        };
        self.residency.loading = false;
        if let (Err(Halt::Interrupted), Some(stop)) = (&came, self.interrupted()) {
            if let (Errand::Command(_), Some(state)) = (errand, &mut self.released) {
                // It is executed where its turn comes.
                state.waiting_command = commands.last.words().to_vec();
            }
            return Err(stop);
        }
        match errand {
            Errand::Command(_) => self.execute_again(commands, came),
            Errand::Load | Errand::Request => {
                let ended = self.end_errand(errand, came.map(drop));
                match ended {
                    Ok(()) | Err(Halt::Interrupted) => Ok(State::Idle(since.unwrap_or_else(Instant::now))),
                    Err(halt) => Err(self.lose(halt, "coming to the GPU")),
                }
            }
        }
    }

    /// Executes the command that was taken last, which hears what became of its need.
    fn execute_again(
        &mut self,
        commands: &Commands<'_>,
        came: Result<Option<Met>, Halt>,
    ) -> Result<State, Stop> {
        match came {
            Ok(Some(met)) => self.parking.meet(met),
            Ok(None) => {}
            Err(halt) => self.parking.meet(Met::Refused(halt)),
        }
        let next = self.execute_last(commands);
        self.leave_parking();
        next
    }

    /// An idle client has come, or could not. A refusal leaves its memory where it is, which the operator sees, and the first command
    /// of a request tries again.
    fn end_errand(&mut self, errand: Errand, came: Result<(), Halt>) -> Result<(), Halt> {
        let came = came.and_then(|()| if errand == Errand::Load { self.load_whole() } else { Ok(()) });
        match came {
            Ok(()) => {}
            Err(halt) if self.is_refusal(halt) => self.residency.origin = Origin::Inferred,
            Err(halt) => return Err(halt),
        }
        if errand == Errand::Load {
            self.link.fulfil(Wish::Load);
        }
        Ok(())
    }
}
