//! Doing again what a client posted since its state was written: it was in a request when its worker died, and goes on here as if
//! nothing had happened. Its records are still in its ring, and the rule ([`replayable`]) says which of them are executed and how.
//!
//! They are commands as all others are; only where they come from, and what becomes of their answers, differs.

pub(crate) mod replayable;

use crate::state_file::Answers;
use crate::worker::objects::pending::Pending;
use crate::worker::session::halt::Halt;
use crate::worker::session::parking::Need;
use crate::worker::session::{Session, Stop};
use replayable::{Client, How, Reach, Step, Unrepeatable, plan};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};
use torpor_proto::command::{Command as _, Copy, CopyStrided, Dispatched, decode, dispatch};
use torpor_proto::control::migration::{Checkpoint, Chunk, Graph};
use torpor_proto::error::CudaError;
use torpor_proto::ring::{Record, Taken, taken_since};
use torpor_proto::staging::upload_area;

/// What a session is about, for people.
const AGAIN: &str = "doing again what it did";

/// How long others that are being made are waited for before anything is done again.
const PATIENCE: Duration = Duration::from_secs(1);

/// For so long nobody must have been: those of one worker come one after the other.
const LULL: Duration = Duration::from_millis(10);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);

/// What is left to be done again.
#[derive(Debug)]
pub(crate) struct Replay(VecDeque<(Taken, Step)>);

impl Replay {
    /// Whether the last of it has been begun, which the dead worker may not have executed.
    fn is_at_its_end(&self) -> bool {
        self.0.is_empty()
    }
}

impl Session {
    /// What was done since a state was written, if that was anything. `waiting`: what was to be done first.
    ///
    /// # Errors
    /// [`Unrepeatable`].
    pub(super) fn plan_replay(
        &self,
        state: &Checkpoint,
        waiting: Option<Record>,
        answers: &Answers,
    ) -> Result<Replay, Unrepeatable> {
        let channel = self.link.channel.get().expect("set when the session was opened");
        let mut log = taken_since(channel.ring(), &channel.words, state.words_taken)?;
        if let Some(record) = waiting {
            log.insert(0, Taken { record, end: state.words_taken });
        }
        let (host, staging) = (self.space.host.range(), self.space.host.staging());
        if !channel.staging().take_back(state.staged, upload_area(staging).bytes) {
            return Err(Unrepeatable::Staged);
        }
        let mut client = Client { host, staging, answers, graphs: HashMap::new() };
        let leads_to_host = |chunk: &Chunk| {
            chunk.stored.as_ref().is_some_and(|stored| client.reach(&stored.pointers) == Reach::Host)
        };
        // By an object a kernel may be led to it as well.
        let has_objects = state.arrays.as_ref().is_some_and(|arrays| !arrays.objects.is_empty());
        if has_objects
            || state.images.iter().any(|image| image.managed_variables.is_some())
            || state.segments.iter().flat_map(|segment| &segment.chunks).any(leads_to_host)
            || log.iter().any(|taken| self.copies_what_leads_to_host(&taken.record))
        {
            return Err(Unrepeatable::ReachesHost);
        }
        let reaches = |graph: &Graph| (graph.id, client.reach(&graph.words).max(client.reach(&graph.next)));
        client.graphs = state.graphs.iter().map(reaches).collect();
        let plan = plan(&log, &mut client)?;
        tracing::debug!(
            client = self.link.client,
            commands = log.len(),
            "what it posted since its state is done again"
        );
        Ok(Replay(log.into_iter().zip(plan).collect()))
    }

    /// Waits until nobody is being made here, with bounded patience: the driver finds nobody a kernel for the first time while another one
    /// runs, and one that is done again may be long. Who does something again is made, so no two of them wait for each other.
    pub(super) fn let_others_be_made(&self) {
        self.link.presence.begin_again();
        let began = Instant::now();
        let mut lull = began;
        while lull.elapsed() < LULL && began.elapsed() < PATIENCE && !self.is_interrupted() {
            std::thread::park_timeout(LOOK);
            if self.shared.is_making() {
                lull = Instant::now();
            }
        }
    }

    /// Whether it copies something to the GPU by which kernels may be led to the client's host range, as by what is saved.
    fn copies_what_leads_to_host(&self, record: &Record) -> bool {
        let (source, to, bytes) = match record.header().opcode {
            Copy::OPCODE => {
                decode::<Copy>(record).map_or((0, 0, 0), |(it, _)| (it.source, it.destination, it.bytes))
            }
            CopyStrided::OPCODE => decode::<CopyStrided>(record).map_or((0, 0, 0), |(it, _)| {
                let rows = it.source_height.max(it.height).saturating_mul(it.depth);
                (it.source, it.destination, it.source_pitch.max(it.width_bytes).saturating_mul(rows))
            }),
            _ => return false,
        };
        let host = &self.space.host;
        let end = host.range().address + host.range().bytes;
        let bytes = bytes.min(end.saturating_sub(source));
        let mut words = host.words(source, bytes, to).into_iter().flatten();
        words.any(|word| host.range().contains(word, 1))
    }

    /// The next command that is done again. `None` if that was all: once its work is done, the client is what it was, and the server
    /// hears so.
    #[cold]
    pub(super) fn next_again(&mut self) -> Result<Option<(Taken, How)>, Stop> {
        if let Some((taken, Step { waits, how })) =
            self.replay.as_mut().and_then(|replay| replay.0.pop_front())
        {
            if waits {
                self.drain_again()?;
            }
            return Ok(Some((taken, how)));
        }
        self.replay = None;
        // A fault of it is still to come, perhaps.
        let fences = self.streams.fence_all().map_err(|error| self.lose(error.into(), AGAIN))?;
        self.pending.push(Pending::DoneAgain(fences));
        Ok(None)
    }

    /// The server hears that the client is served here.
    pub(super) fn tell_attached(&self) {
        self.link.trial.end();
        self.shared.turns.go_on();
        self.link.presence.tell_attached(&self.shared.server, self.link.client);
    }

    /// Does a command again whose answer the client has.
    #[cold]
    pub(super) fn do_again(&mut self, record: &Record, how: How) -> Result<Option<Need>, Stop> {
        match how {
            How::Skip => {}
            How::Afresh | How::Quietly => {
                let slot = record.header().slot;
                self.pending.hush(slot);
                let dispatched =
                    dispatch(self, record).map_err(|malformed| Stop::Fault(malformed.to_string()))?;
                if let Some(need) = self.parking.take_need() {
                    return Ok(Some(need));
                }
                match dispatched {
                    Dispatched::Pending(..) => {
                        while self.pending.is_due(slot) {
                            self.drain_again()?;
                        }
                    }
                    Dispatched::Posted(name, Err(error)) | Dispatched::Answer(name, _, Err(error)) => {
                        return Err(self.differs(name, error));
                    }
                    Dispatched::Posted(..) | Dispatched::Answer(..) => {}
                }
                self.pending.hush_nobody();
            }
        }
        Ok(None)
    }

    /// Whether a posted command must not fail: it did not the first time.
    pub(super) fn must_succeed(&self) -> bool {
        self.replay.as_ref().is_some_and(|replay| !replay.is_at_its_end())
    }

    /// A command fails that did not the first time.
    pub(super) fn differs(&self, name: &'static str, error: CudaError) -> Stop {
        match (self.cut_short(error), Halt::from(error)) {
            (Some(stop), _) => stop,
            (None, Halt::Lost(_)) => self.lose(error.into(), name),
            (None, _) => Stop::Unrepeatable(Unrepeatable::Differs(name)),
        }
    }

    /// The server tells the client, of the fault that ended its last worker.
    pub(super) fn tell_unrepeatable(&self, why: &Unrepeatable) {
        let (client, reason) = (self.link.client, format!("it was in a request: {why}"));
        self.link.presence.tell_fault(&self.shared.server, client, reason);
    }

    fn drain_again(&mut self) -> Result<(), Stop> {
        let drained = self.drain().and_then(|()| self.poll());
        match (drained, self.interrupted()) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(stop)) => Err(stop),
            (Err(halt), None) => Err(self.lose(halt, AGAIN)),
        }
    }
}
