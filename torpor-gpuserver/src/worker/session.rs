//! A session: the thread that reads one client's ring, and everything the client has on the GPU.

use crate::worker::address_space::AddressSpace;
use crate::worker::arrivals::Arrivals;
use crate::worker::event::{ClientEvent, Epoch};
use crate::worker::fence::Fence;
use crate::worker::graph::Graphs;
use crate::worker::host_memory::HostMemory;
use crate::worker::identify::Identified;
use crate::worker::image::Images;
use crate::worker::kernel::Kernels;
use crate::worker::pending::PendingWork;
use crate::worker::residency::Residency;
use crate::worker::shared::{Link, Shared, lock};
use crate::worker::streams::Streams;
use crate::worker::table::Table;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use torpor_proto::channel::{Channel, MappedChannel};
use torpor_proto::command::{Dispatched, dispatch};
use torpor_proto::control::migration::ClientState;
use torpor_proto::control::worker::{Attach, Attached, ClientFault, Detached, from_worker};
use torpor_proto::error::CudaError;
use torpor_proto::layout::{self, AddressRange, PAGE_BYTES};
use torpor_proto::mapping::check_sealed;
use torpor_proto::ring::{Consumer, Malformed, Record};

/// Events of a client.
const EVENT_LIMIT: u32 = 1 << 20;

/// How long a session keeps its core while it waits for the GPU alone. Longer than most requests take.
const WATCH: Duration = Duration::from_millis(20);
/// Then, between two looks at the GPU.
pub(super) const WATCH_NAP: Duration = Duration::from_micros(50);
/// Between two looks at a GPU for which nobody waits.
const BUSY_NAP: Duration = Duration::from_millis(1);
/// Between two looks at everything when there is nothing to do; whoever wants the session wakes it.
const IDLE_NAP: Duration = Duration::from_millis(100);

/// Between two looks at a host range that a released session is still giving back.
const DEPARTURE_NAP: Duration = Duration::from_millis(1);

/// How long a client's work may go on after the client is gone, before the server is told that it is detached anyway.
const FAREWELL: Duration = Duration::from_millis(800);

/// Failed commands that are logged, per client.
const LOGGED_FAILURES: u32 = 16;

/// Why a session stops reading its ring.
#[derive(Debug)]
enum Stop {
    /// The server said so.
    Detached,
    /// The context is lost.
    Lost(CudaError),
    /// The client broke the protocol.
    Fault(String),
    /// Another worker is to serve it.
    Released,
}

/// What became of a session.
#[derive(Debug)]
enum End {
    /// The server does not know yet that it is over.
    Untold,
    /// It does.
    Told,
    /// It goes on elsewhere, from this state. What is page-locked here is given back afterwards: that waits for the whole GPU.
    Released(OwnedFd, Box<HostMemory>),
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

/// Starts the thread of a new client.
///
/// # Errors
/// Why the client cannot be served, for people.
pub(super) fn start(shared: &Arc<Shared>, attach: Attach, descriptors: Vec<OwnedFd>) -> Result<(), String> {
    let mut descriptors = descriptors.into_iter();
    let (Some(channel), Some(host), state, None) =
        (descriptors.next(), descriptors.next(), descriptors.next(), descriptors.next())
    else {
        return Err("two descriptors must come with a client: its channel and its host range".to_owned());
    };
    if state.is_some() != attach.resumed {
        return Err("a third descriptor, its state, must come with a client that is resumed alone".to_owned());
    }
    let brought = Brought { channel, host, state };
    let arena = AddressRange { address: attach.arena_address, bytes: attach.arena_bytes };
    check(&attach, arena)?;
    let client = attach.client;
    let link = shared.enlist(client, &attach.function, arena)?;
    let (theirs, shared_there) = (link.clone(), shared.clone());
    let run = move || {
        let (link, shared) = (theirs, shared_there);
        let body = AssertUnwindSafe(|| live(&shared, &link, &attach, brought));
        let end = catch_unwind(body).unwrap_or_else(|_| {
            fault(&shared, &link, "the worker made a mistake with it; its log has a panic".to_owned());
            wait_for_stop(&shared, &link);
            End::Untold
        });
        match end {
            End::Released(state, host) => {
                let address = host.address();
                lock(&shared.departing).insert(address);
                shared.delist(client, false);
                shared.tell_released(client, &state);
                drop(host);
                lock(&shared.departing).remove(&address);
            }
            end => shared.delist(client, matches!(end, End::Untold)),
        }
    };
    match std::thread::Builder::new().name(format!("client-{client}")).spawn(run) {
        Ok(handle) => {
            let _ = link.thread.set(handle.thread().clone());
            Ok(())
        }
        Err(error) => {
            shared.delist(client, false);
            Err(format!("no thread for it: {error}"))
        }
    }
}

fn check(attach: &Attach, arena: AddressRange) -> Result<(), String> {
    let device_window = AddressRange {
        address: layout::DEVICE_WINDOW_ADDRESS,
        bytes: u64::from(layout::SLOTS) * layout::ARENA_BYTES,
    };
    let host_window = AddressRange {
        address: layout::HOST_WINDOW_ADDRESS,
        bytes: u64::from(layout::SLOTS) * layout::HOST_RANGE_BYTES,
    };
    let pages = [attach.host_address, attach.host_bytes, attach.staging_bytes];
    if !device_window.contains(arena.address, arena.bytes) {
        return Err(format!(
            "an arena of {:#x} bytes at {:#x} is not in the device window",
            arena.bytes, arena.address
        ));
    }
    if !host_window.contains(attach.host_address, attach.host_bytes)
        || attach.staging_bytes > attach.host_bytes
        || attach.host_bytes == 0
        || pages.iter().any(|number| !number.is_multiple_of(PAGE_BYTES))
    {
        return Err("its host range is not made of pages of the host window".to_owned());
    }
    Ok(())
}

/// The descriptors that come with a client.
struct Brought {
    channel: OwnedFd,
    host: OwnedFd,
    /// What it was at another worker.
    state: Option<OwnedFd>,
}

/// A session's whole life.
fn live(shared: &Arc<Shared>, link: &Arc<Link>, attach: &Attach, brought: Brought) -> End {
    let opened = Session::open(shared, link, attach, brought.channel, brought.host);
    let resumed = opened.and_then(|mut session| {
        let command = brought.state.map_or(Ok(None), |state| session.resume(state, attach))?;
        Ok((session, command))
    });
    let (mut session, mut command) = match resumed {
        Ok(resumed) => resumed,
        Err(reason) => {
            shared.tell(from_worker::Body::ClientFault(ClientFault { client: link.client, reason }));
            wait_for_stop(shared, link);
            return End::Untold;
        }
    };
    shared.tell(from_worker::Body::Attached(Attached { client: link.client }));
    let stop = loop {
        match session.serve(command.take()) {
            Stop::Released => match session.write_state() {
                // Its work is done, so nothing of it is in use.
                Ok(state) => return End::Released(state, Box::new(session.space.into_host())),
                Err(unreleased) => command = unreleased,
            },
            stop => break stop,
        }
    };
    let detached = matches!(stop, Stop::Detached);
    match stop {
        Stop::Detached | Stop::Released => {}
        Stop::Lost(error) => {
            session.pending.clear();
            session.link.channel.get().into_iter().for_each(|channel| answer_everything(channel, error));
        }
        Stop::Fault(reason) => fault(shared, link, reason),
    }
    let told = session.close();
    if !detached {
        wait_for_stop(shared, link);
    }
    if told { End::Told } else { End::Untold }
}

/// The client broke the protocol: it is served no longer.
fn fault(shared: &Shared, link: &Link, reason: String) {
    tracing::warn!(client = link.client, "the client broke the protocol: {reason}");
    if let Some(channel) = link.channel.get() {
        channel.fail(CudaError::ILLEGAL_STATE);
        answer_everything(channel, CudaError::ILLEGAL_STATE);
    }
    shared.tell(from_worker::Body::ClientFault(ClientFault { client: link.client, reason }));
}

/// Wakes whoever waits for an answer. Slots for which nobody waits are made ready again before their next use.
fn answer_everything(channel: &Channel, error: CudaError) {
    channel.slots.iter().for_each(|slot| slot.complete(Err(error), &[], &[]));
}

fn wait_for_stop(shared: &Shared, link: &Link) {
    while !link.is_stopping() && shared.lost().is_none() {
        std::thread::park_timeout(IDLE_NAP);
    }
}

impl Session {
    fn open(
        shared: &Arc<Shared>,
        link: &Arc<Link>,
        attach: &Attach,
        channel: OwnedFd,
        host: OwnedFd,
    ) -> Result<Self, String> {
        let cuda = |error: CudaError| format!("the GPU refuses it: {error}");
        shared.device.make_current().map_err(cuda)?;
        let channel = MappedChannel::open(channel).map_err(|error| error.to_string())?;
        let range = AddressRange { address: attach.host_address, bytes: attach.host_bytes };
        check_sealed(&host, range.bytes)
            .map_err(|error| format!("its host range cannot be used: {error}"))?;
        while lock(&shared.departing).contains(&range.address)
            && !link.is_stopping()
            && shared.lost().is_none()
        {
            std::thread::park_timeout(DEPARTURE_NAP);
        }
        let host = HostMemory::new(shared, link, host, range, attach.staging_bytes)
            .map_err(|error| format!("its host range cannot be mapped at {:#x}: {error}", range.address))?;
        link.usage.pinned_bytes.store(host.locked_bytes(), Ordering::Relaxed);
        let _ = link.channel.set(channel);
        let limit_bytes = attach.memory_limit_bytes.min(shared.memory.limit_bytes());
        shared.memory.enter(link, attach.pinned);
        Ok(Self {
            pending: PendingWork::new(),
            graphs: Graphs::new(),
            events: Table::new(EVENT_LIMIT),
            epoch: None,
            streams: Streams::new(shared).map_err(cuda)?,
            kernels: Kernels::new(),
            images: Images::new(),
            residency: Residency::new(attach.writeback()),
            arrivals: Arrivals::new(),
            hashed: Identified::new(),
            space: AddressSpace::new(link.arena, limit_bytes, host),
            shared: shared.clone(),
            link: link.clone(),
            released: None,
            failures: 0,
        })
    }

    /// Executes a command that was taken from the ring before, if there is one, then reads the ring until something ends
    /// that.
    fn serve(&mut self, first: Option<Record>) -> Stop {
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

    /// Gives everything back. True if the server was told before, because the client's work does not end.
    fn close(mut self) -> bool {
        let client = self.link.client;
        // The others need not wait until this client's work has ended.
        self.shared.turns.give_up(client);
        let began = Instant::now();
        let mut told = false;
        while self.shared.lost().is_none() && self.streams.check() == Ok(true) {
            if began.elapsed() >= FAREWELL && self.link.is_stopping() && !told {
                told = true;
                tracing::warn!(
                    client,
                    "the client is gone, its work on the GPU goes on: memory and addresses stay taken until that ends"
                );
                self.shared.tell(from_worker::Body::Detached(Detached { client }));
            }
            std::thread::sleep(if told { BUSY_NAP } else { WATCH_NAP });
        }
        drop(self);
        told
    }
}
