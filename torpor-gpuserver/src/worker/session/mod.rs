//! A session: the thread that reads one client's ring, and everything the client has on the GPU. How it begins and ends
//! stands in `life.rs`.

mod allocation;
mod arrays;
pub(crate) mod checkpoint;
pub(crate) mod code;
pub(crate) mod dedup;
mod eviction;
pub(crate) mod halt;
mod lease;
pub(crate) mod life;
mod managed;
mod pace;
pub(crate) mod printing;
pub(crate) mod reach;
pub(crate) mod residency;
mod save_ahead;
mod seeking;
mod shared_event;
pub(crate) mod shared_memory;
pub(crate) mod sleep;
pub(crate) mod snapshot;
pub(crate) mod swap_in;
pub(crate) mod tenure;
pub(crate) mod variables;
mod waiting;
pub(crate) mod watchdog;
mod wishes;

use crate::worker::gpu::Shared;
use crate::worker::mailbox::Link;
use crate::worker::memory::address_space::AddressSpace;
use crate::worker::memory::arrivals::Arrivals;
use crate::worker::memory::variable_room::VariableRoom;
use crate::worker::objects::array::Arrays;
use crate::worker::objects::event::{ClientEvent, Epoch};
use crate::worker::objects::graph::Graphs;
use crate::worker::objects::image::Images;
use crate::worker::objects::kernel::Kernels;
use crate::worker::objects::pending::PendingWork;
use crate::worker::objects::table::Table;
use crate::worker::session::checkpoint::Cover;
use crate::worker::session::dedup::Identified;
use crate::worker::session::halt::Halt;
use crate::worker::session::printing::Printing;
use crate::worker::session::residency::Residency;
use crate::worker::session::sleep::Sleep;
use crate::worker::streams::Streams;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use torpor_proto::channel::Channel;
use torpor_proto::command::{Dispatched, dispatch};
use torpor_proto::control::migration::ClientState;
use torpor_proto::error::CudaError;
use torpor_proto::ring::{Consumer, Malformed, Record};

/// How long a session keeps its core while it waits for the GPU alone. Longer than most requests take.
const WATCH: Duration = Duration::from_millis(20);
/// Then, between two looks at the GPU.
pub(crate) const WATCH_NAP: Duration = Duration::from_micros(50);
/// Between two looks at a GPU for which nobody waits.
pub(crate) const BUSY_NAP: Duration = Duration::from_millis(1);
/// Between two looks at everything when there is nothing to do; whoever wants the session wakes it.
pub(crate) const IDLE_NAP: Duration = Duration::from_millis(100);

/// Failed commands that are logged, per client.
const LOGGED_FAILURES: u32 = 16;

/// Why a session stops reading its ring.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The server said so.
    Detached,
    /// The context is lost.
    Lost(CudaError),
    /// The client broke the protocol.
    Fault(String),
    /// Another worker is to serve it.
    Released,
}

/// A client's session. Fields are dropped in this order: users of things before the things.
pub(crate) struct Session {
    pub(crate) pending: PendingWork,
    pub(crate) graphs: Graphs,
    pub(crate) events: Table<Rc<ClientEvent>>,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) printing: Printing,
    pub(crate) streams: Streams,
    pub(crate) kernels: Kernels,
    pub(crate) images: Images,
    pub(crate) arrays: Arrays,
    pub(crate) residency: Residency,
    pub(crate) arrivals: Arrivals,
    pub(crate) hashed: Identified,
    pub(crate) cover: Cover,
    pub(crate) space: AddressSpace,
    pub(crate) variables: VariableRoom,
    pub(crate) managed_variables: VariableRoom,
    pub(crate) shared: Arc<Shared>,
    pub(crate) link: Arc<Link>,
    /// The client's state, once it is to go to another worker.
    pub(crate) released: Option<ClientState>,
    pub(crate) failures: u32,
}

impl Session {
    /// Executes a command that was taken from the ring before, if there is one, then reads the ring until something ends
    /// that.
    pub(crate) fn serve(&mut self, first: Option<Record>) -> Stop {
        match self.read_ring(first) {
            Err(stop) => stop,
        }
    }

    fn read_ring(&mut self, first: Option<Record>) -> Result<Infallible, Stop> {
        let link = self.link.clone();
        let channel: &Channel = link.channel.get().expect("set when the session was opened");
        let (mut consumer, mut sleep) = (Consumer::resume(channel.ring()), Sleep::new(Instant::now()));
        let mut record = Record::default();
        let mut idle_since = Some(Instant::now());
        let mut commands = link.usage.commands.load(Ordering::Relaxed);
        if let Some(first) = first {
            self.begin_work();
            self.uncover();
            self.execute(&first, channel)?;
        }
        loop {
            if let Some(stop) = self.interrupted() {
                return Err(stop);
            }
            match self.share_the_gpu() {
                // It may have become data: nothing more is taken from the ring.
                Err(Halt::Interrupted) => continue,
                shared => self.go_on(shared, "waiting for its work to end")?,
            }
            let brought = self.keep_bringing(idle_since.is_none());
            self.go_on(brought, "bringing its memory")?;
            let taken = consumer
                .pop(channel.ring(), &channel.words, &mut record)
                .map_err(|malformed| Stop::Fault(malformed.to_string()))?;
            if taken {
                commands += 1;
                link.usage.commands.store(commands, Ordering::Relaxed);
                if idle_since.take().is_some() {
                    self.begin_work();
                    // Before anything of it is executed.
                    self.uncover();
                }
                self.execute(&record, channel)?;
            }
            self.poll().map_err(|halt| self.lose(halt, "waiting for the GPU"))?;
            if taken {
                // A refusal leaves the GPU further behind until the next checkpoint.
                let caught_up = self.catch_up();
                self.go_on(caught_up, "waiting for the GPU to catch up")?;
                continue;
            }
            let idle = idle_since.get_or_insert_with(Instant::now).elapsed();
            // Its memory comes piece by piece, each posted here: a nap between two would leave the bus without work.
            let coming = self.is_coming();
            let waiting = coming || self.is_waiting();
            let rests = match if waiting { Ok(false) } else { self.rest(idle) } {
                Ok(rests) => rests,
                Err(Halt::Interrupted) => continue,
                Err(halt) => return Err(self.lose(halt, "leaving the GPU")),
            };
            if idle < self.shared.tuning.spin {
                std::hint::spin_loop();
            } else if coming || (waiting && idle < WATCH) {
                std::thread::yield_now();
            } else if waiting {
                sleep.sleep(&consumer, channel.ring(), WATCH_NAP);
            } else if rests {
                self.end_work();
                let covered = self.cover(idle);
                self.go_on(covered, "saving its state")?;
                match self.identify(idle) {
                    Ok(true) | Err(Halt::Interrupted) => {}
                    // What cannot be identified is kept all the same.
                    Ok(false) | Err(_) => {
                        self.tell_cover();
                        let nap = self.nap_until_covered(idle, IDLE_NAP);
                        sleep.sleep(&consumer, channel.ring(), nap);
                    }
                }
            } else {
                let is_busy = self.check().map_err(|halt| self.lose(halt, "running posted work"))?;
                if !is_busy {
                    self.end_work();
                }
                let nap = if is_busy { BUSY_NAP } else { self.nap(idle) };
                sleep.sleep(&consumer, channel.ring(), nap);
            }
        }
    }

    #[inline]
    fn interrupted(&self) -> Option<Stop> {
        if self.link.is_stopping() {
            return Some(Stop::Detached);
        }
        match self.shared.lost() {
            Some(error) => Some(Stop::Lost(error)),
            None => self.released.is_some().then_some(Stop::Released),
        }
    }

    fn execute(&mut self, record: &Record, channel: &Channel) -> Result<(), Stop> {
        let slot = record.header().slot;
        if self.pending.is_due(slot) {
            return Err(Stop::Fault(format!("completion slot {slot} is used again before its answer")));
        }
        let dispatched =
            dispatch(self, record).map_err(|malformed: Malformed| Stop::Fault(malformed.to_string()))?;
        if let Some(state) = &mut self.released {
            // It waited for its turn, and is executed where that comes.
            state.waiting_command = record.words().to_vec();
            return Err(Stop::Released);
        }
        let (name, result) = match dispatched {
            Dispatched::Posted(name, result) => {
                if let Err(error) = result {
                    channel.defer(error);
                }
                (name, result)
            }
            Dispatched::Answer(name, ticket, answer) => {
                // Its error is the context's: the next look at that finds it.
                let _ = self.read_text_if_due();
                let slot = &channel.slots[usize::from(ticket.0)];
                let result = match answer {
                    Ok((words, tail)) => {
                        slot.complete(Ok(()), &words, &tail);
                        Ok(())
                    }
                    Err(error) => {
                        slot.complete(Err(error), &[], &[]);
                        Err(error)
                    }
                };
                (name, result)
            }
            Dispatched::Pending(..) => return Ok(()),
        };
        match result {
            Err(error) if error.is_sticky() => Err(self.lose(error.into(), name)),
            Err(error) if error != CudaError::NOT_READY => {
                self.log_failure(name, error);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn log_failure(&mut self, command: &str, error: CudaError) {
        let client = self.link.client;
        match self.failures {
            0..LOGGED_FAILURES => tracing::warn!(client, "{command} failed: {error}"),
            LOGGED_FAILURES => {
                tracing::warn!(client, "{command} failed: {error}; later failures are not logged")
            }
            _ => return,
        }
        self.failures += 1;
    }

    fn lose(&self, halt: Halt, what: &str) -> Stop {
        let error = halt.into();
        self.shared.lose(error, format!("client {}, {what}", self.link.client));
        Stop::Lost(self.shared.lost().unwrap_or(error))
    }

    /// Whether the session is to end, for whatever reason.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted().is_some()
    }
}
