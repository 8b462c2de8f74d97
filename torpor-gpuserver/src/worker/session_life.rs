//! The beginning and the end of a session: its thread, what it is made of, and how everything is given back.

use crate::worker::address_space::AddressSpace;
use crate::worker::arrivals::Arrivals;
use crate::worker::graph::Graphs;
use crate::worker::host_memory::HostMemory;
use crate::worker::identify::Identified;
use crate::worker::image::Images;
use crate::worker::kernel::Kernels;
use crate::worker::pending::PendingWork;
use crate::worker::residency::Residency;
use crate::worker::session::{BUSY_NAP, IDLE_NAP, Session, Stop, WATCH_NAP};
use crate::worker::shared::{Link, Shared, lock};
use crate::worker::streams::Streams;
use crate::worker::table::Table;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use torpor_proto::channel::{Channel, MappedChannel};
use torpor_proto::control::worker::{Attach, Attached, ClientFault, Detached, from_worker};
use torpor_proto::error::CudaError;
use torpor_proto::layout::{self, AddressRange, PAGE_BYTES};
use torpor_proto::mapping::check_sealed;

/// Events of a client.
const EVENT_LIMIT: u32 = 1 << 20;

/// Between two looks at a host range that a released session is still giving back.
const DEPARTURE_NAP: Duration = Duration::from_millis(1);

/// How long a client's work may go on after the client is gone, before the server is told that it is detached anyway.
const FAREWELL: Duration = Duration::from_millis(800);

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
