//! A session: the thread that reads one client's ring, and everything the client has on the GPU. How it begins and ends
//! stands in `session_life.rs`.

use crate::worker::address_space::AddressSpace;
use crate::worker::arrivals::Arrivals;
use crate::worker::event::{ClientEvent, Epoch};
use crate::worker::fence::Fence;
use crate::worker::graph::Graphs;
use crate::worker::identify::Identified;
use crate::worker::image::Images;
use crate::worker::kernel::Kernels;
use crate::worker::pending::PendingWork;
use crate::worker::residency::Residency;
use crate::worker::shared::{Link, Shared};
use crate::worker::streams::Streams;
use crate::worker::table::Table;
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
pub(super) const WATCH_NAP: Duration = Duration::from_micros(50);
/// Between two looks at a GPU for which nobody waits.
pub(super) const BUSY_NAP: Duration = Duration::from_millis(1);
/// Between two looks at everything when there is nothing to do; whoever wants the session wakes it.
pub(super) const IDLE_NAP: Duration = Duration::from_millis(100);

/// Failed commands that are logged, per client.
const LOGGED_FAILURES: u32 = 16;

/// Why a session stops reading its ring.
#[derive(Debug)]
pub(super) enum Stop {
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
pub(super) struct Session {
    pub(super) pending: PendingWork,
    pub(super) graphs: Graphs,
    pub(super) events: Table<Rc<ClientEvent>>,
    pub(super) epoch: Option<Epoch>,
    pub(super) streams: Streams,
    pub(super) kernels: Kernels,
    pub(super) images: Images,
    pub(super) residency: Residency,
    pub(super) arrivals: Arrivals,
    pub(super) hashed: Identified,
    pub(super) space: AddressSpace,
    pub(super) shared: Arc<Shared>,
    pub(super) link: Arc<Link>,
    /// The client's state, once it is to go to another worker.
    pub(super) released: Option<ClientState>,
    pub(super) failures: u32,
}

impl Session {
    /// Executes a command that was taken from the ring before, if there is one, then reads the ring until something ends
    /// that.
    pub(super) fn serve(&mut self, first: Option<Record>) -> Stop {
        let link = self.link.clone();
        let channel: &Channel = link.channel.get().expect("set when the session was opened");
        let mut consumer = Consumer::resume(channel.ring());
        let mut record = Record::default();
        let mut idle_since = Some(Instant::now());
        let mut commands = link.usage.commands.load(Ordering::Relaxed);
        if let Some(first) = first {
            link.usage.busy.store(true, Ordering::Relaxed);
            if let Err(stop) = self.execute(&first, channel) {
                return stop;
            }
        }
        loop {
            if let Some(stop) = self.interrupted() {
                return stop;
            }
            match self.share_the_gpu() {
                Ok(()) | Err(CudaError::DEINITIALIZED) => {}
                // The next round tries again.
                Err(error) if self.is_refusal(error) => {}
                Err(error) => return self.lose(error, "waiting for its work to end"),
            }
            match self.keep_bringing() {
                Ok(()) | Err(CudaError::DEINITIALIZED) => {}
                // What could not be brought is missed, and reported, by the command that needs it.
                Err(error) if self.is_refusal(error) => {}
                Err(error) => return self.lose(error, "bringing its memory"),
            }
            let taken = match consumer.pop(channel.ring(), &channel.words, &mut record) {
                Ok(taken) => taken,
                Err(malformed) => return Stop::Fault(malformed.to_string()),
            };
            if taken {
                commands += 1;
                link.usage.commands.store(commands, Ordering::Relaxed);
                if idle_since.take().is_some() {
                    link.usage.busy.store(true, Ordering::Relaxed);
                }
                if let Err(stop) = self.execute(&record, channel) {
                    return stop;
                }
            }
            if let Err(error) = self.poll() {
                return self.lose(error, "waiting for the GPU");
            }
            if taken {
                match self.catch_up() {
                    // Interrupted, in the second case: the loop begins with that.
                    Ok(()) | Err(CudaError::DEINITIALIZED) => continue,
                    // The GPU may be further behind until the next checkpoint.
                    Err(error) if self.is_refusal(error) => continue,
                    Err(error) => return self.lose(error, "waiting for the GPU to catch up"),
                }
            }
            let idle = idle_since.get_or_insert_with(Instant::now).elapsed();
            let waiting = self.is_waiting();
            let rests = match if waiting { Ok(false) } else { self.rest(idle) } {
                Ok(rests) => rests,
                Err(CudaError::DEINITIALIZED) => continue,
                Err(error) => return self.lose(error, "leaving the GPU"),
            };
            if idle < self.shared.spin {
                std::hint::spin_loop();
            } else if waiting && idle < WATCH {
                std::thread::yield_now();
            } else if waiting {
                consumer.wait(channel.ring(), WATCH_NAP);
            } else if rests {
                link.usage.busy.store(false, Ordering::Relaxed);
                match self.identify(idle) {
                    Ok(true) | Err(CudaError::DEINITIALIZED) => {}
                    // What cannot be identified is kept all the same.
                    Ok(false) | Err(_) => consumer.wait(channel.ring(), IDLE_NAP),
                }
            } else {
                match self.streams.check() {
                    Ok(busy) => {
                        link.usage.busy.store(busy, Ordering::Relaxed);
                        let nap = if busy { BUSY_NAP } else { self.nap(idle) };
                        consumer.wait(channel.ring(), nap);
                    }
                    Err(error) => return self.lose(error, "running posted work"),
                }
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
            Err(error) if error.is_sticky() => Err(self.lose(error, name)),
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

    fn lose(&self, error: CudaError, what: &str) -> Stop {
        self.shared.lose(error, format!("client {}, {what}", self.link.client));
        Stop::Lost(self.shared.lost().unwrap_or(error))
    }

    /// Whether the session is to end, for whatever reason.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted().is_some()
    }

    /// Whether anything waits for the GPU.
    fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
            || self.streams.has_retiring()
            || !self.arrivals.is_empty()
            || self.is_swapping_in()
    }

    /// Does what is due. An error is the context's.
    #[inline]
    pub(super) fn poll(&mut self) -> Result<(), CudaError> {
        if !self.is_waiting() {
            return Ok(());
        }
        let channel = self.link.channel.get().expect("set when the session was opened");
        if self.pending.poll(&self.streams.fences, channel) {
            self.streams.check()?;
        }
        if self.streams.has_retiring() {
            self.streams.bury();
        }
        self.arrivals.poll()
    }

    /// Waits if the GPU is too far behind what was posted. Errors as [`Self::drain`].
    #[inline]
    fn catch_up(&mut self) -> Result<(), CudaError> {
        match self.streams.congestion()? {
            None => Ok(()),
            Some(fence) => self.wait_for(vec![fence]),
        }
    }

    /// Waits until all work of the client is done, while answers keep going out.
    ///
    /// # Errors
    /// The context's, or `CUDA_ERROR_DEINITIALIZED` if the session is to end.
    pub(super) fn drain(&mut self) -> Result<(), CudaError> {
        let fences = self.streams.fence_all()?;
        self.wait_for(fences)
    }

    /// Waits for fences, while answers keep going out. Errors as [`Self::drain`].
    pub(super) fn wait_for(&mut self, mut fences: Vec<Fence>) -> Result<(), CudaError> {
        let since = Instant::now();
        while !self.streams.fences.all_reached(&mut fences) {
            if self.interrupted().is_some() {
                return Err(CudaError::DEINITIALIZED);
            }
            self.poll()?;
            if since.elapsed() < self.shared.spin {
                std::hint::spin_loop();
            } else {
                // Nobody but this loop notices a context that is lost meanwhile.
                self.streams.check()?;
                std::thread::sleep(WATCH_NAP);
            }
        }
        Ok(())
    }
}
