//! The beginning and the end of a session: its thread, what it is made of, and how everything is given back.

mod brought;
mod held;

use crate::worker::gpu::Shared;
use crate::worker::mailbox::Link;
use crate::worker::memory::address_space::AddressSpace;
use crate::worker::memory::arrivals::Arrivals;
use crate::worker::memory::variable_room::VariableRoom;
use crate::worker::objects::array::Arrays;
use crate::worker::objects::graph::Graphs;
use crate::worker::objects::image::Images;
use crate::worker::objects::kernel::Kernels;
use crate::worker::objects::pending::PendingWork;
use crate::worker::objects::table::Table;
use crate::worker::session::checkpoint::Cover;
use crate::worker::session::dedup::Identified;
use crate::worker::session::halt::Halt;
use crate::worker::session::hush::Hush;
use crate::worker::session::leaving::host_memory;
use crate::worker::session::parking::Parking;
use crate::worker::session::pause::{BUSY_NAP, IDLE_NAP, WATCH_NAP};
use crate::worker::session::printing::Printing;
use crate::worker::session::residency::Residency;
use crate::worker::session::watchdog::Overstay;
use crate::worker::session::{Session, Stop};
use crate::worker::streams::Streams;
use crate::worker::work_time::micros;
use brought::{Brought, check};
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use torpor_proto::channel::{Channel, MappedChannel};
use torpor_proto::control::worker::Attach;
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;
use torpor_proto::mapping::check_sealed;
use torpor_proto::ring::Record;

/// Events of a client; the client's library counts to the same.
const EVENT_LIMIT: u32 = 1 << 16;

/// Between two looks at what a released session is still giving back.
const DEPARTURE_NAP: Duration = Duration::from_millis(1);

/// How long a client's work may go on after the client is gone, before the server is told that it is detached anyway. Not so the
/// worker's own copies between the client's memory and the host store, whose slots are the next client's then.
const FAREWELL: Duration = Duration::from_millis(800);

/// Why a client is served no longer whose session has panicked.
const PANICKED: &str = "the worker made a mistake with it; its log has a panic";

/// What became of a session.
enum End {
    /// It is over, as the server hears.
    Over,
    /// It ends with the worker, and the server hears of that.
    Lost,
    /// It goes on elsewhere, from this state. What it had here is given back afterwards, as nobody need wait for that.
    Released(OwnedFd, Box<Session>),
}

/// Starts the thread of a new client.
///
/// # Errors
/// Why the client cannot be served, for people.
pub(crate) fn start(shared: &Arc<Shared>, attach: Attach, descriptors: Vec<OwnedFd>) -> Result<(), String> {
    let brought = Brought::with(&attach, descriptors)?;
    let arena = AddressRange { address: attach.arena_address, bytes: attach.arena_bytes };
    check(&attach, arena)?;
    let client = attach.client;
    let link = shared.enlist(client, &attach.function, arena)?;
    if attach.is_tried {
        link.trial.begin();
    }
    if attach.held {
        link.company.hold();
    }
    attach.home.into_iter().for_each(|home| link.gate.begin_shut(home));
    let (theirs, shared_there) = (link.clone(), shared.clone());
    let run = move || {
        let (link, shared) = (theirs, shared_there);
        let body = AssertUnwindSafe(|| live(&shared, &link, &attach, brought, Session::serve));
        let end = catch_unwind(body).unwrap_or_else(|_| {
            fault(&shared, &link, PANICKED.to_owned());
            wait_for_stop(&shared, &link);
            End::Over
        });
        match end {
            End::Released(state, session) => session.leave(&state),
            end => shared.delist(client, matches!(end, End::Over)),
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

/// A session's whole life; `serve` is how it spends it.
fn live(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    attach: &Attach,
    brought: Brought,
    serve: impl Fn(&mut Session, Option<Record>) -> Stop,
) -> End {
    let began = Instant::now();
    let mut session = match Session::open(shared, link, attach, brought.channel, brought.host) {
        Ok(session) => session,
        Err(reason) => {
            let is_lost = refuse(shared, link, reason);
            wait_for_stop(shared, link);
            return if is_lost { End::Lost } else { End::Over };
        }
    };
    let resume =
        |session: &mut Session| brought.state.map_or(Ok(None), |state| session.resume(state, attach));
    let resumed = unless_panicking(&mut session, resume).unwrap_or_else(|| Err(PANICKED.to_owned()));
    let stop = match resumed {
        Ok(mut command) => {
            tracing::debug!(client = link.client, took_us = micros(began.elapsed()), "is served");
            match session.replay {
                None => {
                    session.tell_attached();
                    held::wait_for_company(shared, link);
                }
                Some(_) => session.let_others_be_made(),
            }
            if !attach.resumed {
                // A context that is lost is found at the next look.
                let _ = session.cover_newcomer();
            }
            loop {
                let served = unless_panicking(&mut session, |session| serve(session, command.take()));
                match served.unwrap_or_else(|| Stop::Fault(PANICKED.to_owned())) {
                    Stop::Released => match session.write_state() {
                        // Its work is done, so nothing of it is in use.
                        Ok(state) => return End::Released(state, Box::new(session)),
                        Err(unreleased) => command = unreleased,
                    },
                    stop => break stop,
                }
            }
        }
        Err(reason) => {
            let is_lost = refuse(shared, link, reason);
            session.close();
            wait_for_stop(shared, link);
            return if is_lost { End::Lost } else { End::Over };
        }
    };
    let (detached, lost) = (matches!(stop, Stop::Detached), matches!(stop, Stop::Lost(_)));
    match stop {
        Stop::Detached | Stop::Released => {}
        Stop::Lost(_) if session.survives() => {}
        Stop::Lost(error) => {
            session.pending.clear();
            let channel = session.link.channel.get();
            channel.into_iter().for_each(|channel| {
                // It was covered, perhaps, when all the others were told.
                channel.fail(error);
                answer_everything(channel, channel.sticky_error().unwrap_or(error));
            });
        }
        Stop::Fault(reason) => fault(shared, link, reason),
        Stop::Unrepeatable(why) => session.tell_unrepeatable(&why),
    }
    session.close();
    if !detached {
        wait_for_stop(shared, link);
    }
    // With this worker all its sessions end, which is not the end of those clients that are covered.
    if lost { End::Lost } else { End::Over }
}

/// A client cannot be served here. True if that is because the context is lost, which is no fault of the client's: the server asks the
/// next worker when it hears of it.
fn refuse(shared: &Shared, link: &Link, reason: String) -> bool {
    let is_lost = |error: &CudaError| matches!(Halt::from(*error), Halt::Lost(_));
    let lost = shared.lost().or_else(|| shared.device.memory_info().err().filter(is_lost));
    match lost {
        Some(error) => shared.lose(error, format!("client {} comes: {reason}", link.client)),
        None => link.presence.tell_fault(&shared.server, link.client, reason),
    }
    lost.is_some()
}

/// Does something with a session, which outlives a panic: its work on the GPU goes on, in its memory. `None` if it panicked.
fn unless_panicking<T>(session: &mut Session, body: impl FnOnce(&mut Session) -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(|| body(session))).ok()
}

/// The client broke the protocol: it is served no longer.
fn fault(shared: &Shared, link: &Link, reason: String) {
    // The server tells it, no more often than people want to read.
    tracing::debug!(client = link.client, "the client broke the protocol: {reason}");
    if let Some(channel) = link.channel.get() {
        channel.fail(CudaError::ILLEGAL_STATE);
        answer_everything(channel, CudaError::ILLEGAL_STATE);
    }
    link.presence.tell_fault(&shared.server, link.client, reason);
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
        shared.peers.vacate(link.arena);
        shared.anteroom.make_way(link.client, range);
        while shared.anteroom.is_departing([range, link.arena])
            && !link.is_stopping()
            && shared.lost().is_none()
        {
            std::thread::park_timeout(DEPARTURE_NAP);
        }
        link.pinned_limit_bytes.store(attach.pinned_limit_bytes, Ordering::Relaxed);
        link.slo_ms.store(attach.slo_ms, Ordering::Relaxed);
        link.image_limit_bytes.store(attach.image_limit_bytes, Ordering::Relaxed);
        let host = host_memory(shared, link, attach, host)?;
        link.usage.pinned_bytes.store(host.locked_bytes(), Ordering::Relaxed);
        // What it came as the server has until it is served here: a context that is lost before is no end of it.
        link.survives.store(attach.resumed, Ordering::Relaxed);
        channel.staging().occupy();
        let _ = link.channel.set(channel);
        let limit_bytes = attach.memory_limit_bytes.min(shared.memory.limit_bytes());
        shared.memory.enter(link, attach.pinned);
        let mut streams = Streams::new(shared, link).map_err(cuda)?;
        streams.watched.limit(attach.kernel_timeout_ms);
        let mut residency = Residency::new(attach.writeback());
        residency.whole = attach.whole;
        residency.may_seek = attach.has_neighbours;
        Ok(Self {
            pending: PendingWork::new(),
            graphs: Graphs::new(),
            events: Table::new(EVENT_LIMIT),
            epoch: None,
            printing: Printing::default(),
            streams,
            kernels: Kernels::new(),
            images: Images::new(),
            arrays: Arrays::new(),
            residency,
            parking: Parking::default(),
            arrivals: Arrivals::new(),
            hashed: Identified::new(),
            hush: Hush::default(),
            cover: Cover::default(),
            replay: None,
            variables: VariableRoom::new(link.arena.for_variables()),
            managed_variables: VariableRoom::new(range.for_managed_variables()),
            space: AddressSpace::new(link.arena, limit_bytes, host),
            shared: shared.clone(),
            link: link.clone(),
            released: None,
            failures: 0,
        })
    }

    /// Gives everything back, once the client's work has ended.
    fn close(self) {
        // Nothing is given back that may be in use: neither after a panic here nor when the context is lost, whose end the
        // process's is.
        let mut session = ManuallyDrop::new(self);
        let (link, shared) = (session.link.clone(), session.shared.clone());
        let client = link.client;
        // The others need not wait until this client's work has ended.
        shared.turns.give_up(client);
        let _overstay = Overstay::begin(&shared, &link);
        let began = Instant::now();
        let mut overstays = false;
        while session.check() == Ok(true) {
            if !session.streams.is_setting_up() {
                if shared.lost().is_some() {
                    break;
                }
                // Each server that waits hears so, whichever is there.
                if began.elapsed() >= FAREWELL && shared.detach_early(&link) && !overstays {
                    overstays = true;
                    tracing::warn!(
                        client,
                        "the client is gone, its work on the GPU goes on: memory and addresses stay taken until that ends"
                    );
                }
            }
            std::thread::sleep(if overstays { BUSY_NAP } else { WATCH_NAP });
        }
        if shared.lost().is_none() {
            // Else the next one who prints would be given it.
            let _ = session.read_text();
            ManuallyDrop::into_inner(session).give_back();
        }
    }
}

#[cfg(test)]
mod tests;
