//! A session: the thread that reads one client's ring, and everything the client has on the GPU. How it begins and ends
//! stands in `life.rs`, how it spends its life in `machine.rs`.

mod allocation;
mod arrays;
pub(crate) mod checkpoint;
pub(crate) mod code;
mod coming;
mod contents;
mod copy_back;
mod crowd;
pub(crate) mod dedup;
mod eviction;
mod generations;
mod giving;
pub(crate) mod halt;
mod home;
mod hush;
pub(crate) mod lean;
mod lease;
pub(crate) mod leaving;
pub(crate) mod life;
mod machine;
mod managed;
mod missing;
mod pace;
mod parking;
mod pause;
pub(crate) mod printing;
pub(crate) mod pull;
pub(crate) mod reach;
pub(crate) mod replay;
pub(crate) mod residency;
mod save_ahead;
mod seeking;
mod shared_event;
pub(crate) mod shared_memory;
mod shortage;
pub(crate) mod sleep;
pub(crate) mod snapshot;
pub(crate) mod swap_in;
pub(crate) mod tenure;
mod vacating;
mod variables;
mod waiting;
pub(crate) mod watchdog;
mod wishes;

use crate::state_file::Void;
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
use crate::worker::session::hush::Hush;
use crate::worker::session::parking::{Need, Parking};
use crate::worker::session::printing::Printing;
use crate::worker::session::replay::Replay;
use crate::worker::session::replay::replayable::{How, Unrepeatable};
use crate::worker::session::residency::Residency;
use crate::worker::streams::Streams;
use std::rc::Rc;
use std::sync::Arc;
use torpor_proto::channel::Channel;
use torpor_proto::command::{Dispatched, dispatch};
use torpor_proto::control::migration::Checkpoint;
use torpor_proto::error::CudaError;
use torpor_proto::ring::{Malformed, Record};

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
    /// It cannot be what it was when its last worker died.
    Unrepeatable(Unrepeatable),
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
    pub(crate) parking: Parking,
    pub(crate) arrivals: Arrivals,
    pub(crate) hashed: Identified,
    pub(crate) hush: Hush,
    pub(crate) cover: Cover,
    /// What is to be done again before anything new.
    pub(crate) replay: Option<Replay>,
    pub(crate) space: AddressSpace,
    pub(crate) variables: VariableRoom,
    pub(crate) managed_variables: VariableRoom,
    pub(crate) shared: Arc<Shared>,
    pub(crate) link: Arc<Link>,
    /// The client's state, once it is to go to another worker.
    pub(crate) released: Option<Checkpoint>,
    pub(crate) failures: u32,
}

impl Session {
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

    /// Executes a record, which ends there in the ring. Returns what it needs first, if it has done nothing for lack of that.
    fn execute(
        &mut self,
        record: &Record,
        channel: &Channel,
        (end, how): (u64, How),
    ) -> Result<Option<Need>, Stop> {
        let slot = record.header().slot;
        if self.pending.is_due(slot) {
            return Err(Stop::Fault(format!("completion slot {slot} is used again before its answer")));
        }
        if how != How::Afresh {
            return self.do_again(record, how);
        }
        self.cover.note_slot(slot, end);
        let dispatched =
            dispatch(self, record).map_err(|malformed: Malformed| Stop::Fault(malformed.to_string()))?;
        if let Some(need) = self.parking.take_need() {
            return Ok(Some(need));
        }
        if let Dispatched::Posted(_, Err(error)) | Dispatched::Answer(_, _, Err(error)) = &dispatched
            && let Some(stop) = self.cut_short(*error)
        {
            return Err(stop);
        }
        let (name, result) = match dispatched {
            Dispatched::Posted(name, Err(error)) if self.must_succeed() => {
                return Err(self.differs(name, error));
            }
            Dispatched::Posted(name, result) => {
                if let Err(error) = result
                    && !error.is_sticky()
                {
                    // The client hears of it once.
                    self.uncover(Void::Error);
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
                        self.cover
                            .answer(&self.link, channel, ticket.0, || slot.publish(Ok(()), &words, &tail));
                        Ok(())
                    }
                    // Who does not survive this worker is answered when the session ends.
                    Err(error) if error.is_sticky() => Err(error),
                    Err(error) => {
                        if error != CudaError::NOT_READY {
                            self.uncover(Void::Error);
                        }
                        self.cover
                            .answer(&self.link, channel, ticket.0, || slot.publish(Err(error), &[], &[]));
                        Err(error)
                    }
                };
                (name, result)
            }
            Dispatched::Pending(..) => return Ok(None),
        };
        match result {
            Err(error) if error.is_sticky() => Err(self.lose(error.into(), name)),
            Err(error) if error != CudaError::NOT_READY => {
                self.log_failure(name, error);
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// The end of the session in the middle of a command, which is no error of the client's: where it goes on, the command is done again.
    fn cut_short(&self, error: CudaError) -> Option<Stop> {
        let is_interruption = error == CudaError::from(Halt::Interrupted);
        let stop = is_interruption.then(|| self.interrupted()).flatten();
        stop.filter(|stop| matches!(stop, Stop::Lost(_) | Stop::Detached))
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
