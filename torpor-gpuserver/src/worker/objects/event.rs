//! Events.
//!
//! What was recorded at another worker is past here: the GPU had done with everything when the client was moved, so there is
//! nothing to wait for. What is left of such a record is its time, on the clock that all processes of the node share; time
//! between a past record and one made here goes through a point in time that is known on both clocks. It is as exact as that, and as
//! single precision allows over the time since then: 2⁻²⁴ of it, a quarter of a millisecond in an hour.

use crate::driver::{DISABLE_TIMING, Device, Event};
use crate::worker::gpu::ipc::Secret;
use crate::worker::gpu::ipc::event::{Membership, SharedEvent};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use torpor_proto::control::migration;
use torpor_proto::error::CudaError;

/// `CU_EVENT_INTERPROCESS`: it is shared here, and need not be where the driver is concerned.
pub(crate) const INTERPROCESS: u32 = 4;

/// An event of the client.
#[derive(Debug)]
pub(crate) struct ClientEvent {
    /// Not recorded yet if the last record was made at another worker.
    real: RefCell<Real>,
    /// A graph names the driver's event, so it stays the same one.
    is_in_graph: Cell<bool>,
    flags: u32,
    record: Cell<LastRecord>,
}

/// The driver's event.
#[derive(Debug)]
enum Real {
    Own(Arc<Event>),
    /// Other clients may have it, too.
    Shared(Membership),
}

/// The last record of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastRecord {
    /// There is none, or one whose time nobody can ask for.
    None,
    /// Made by this session.
    Here,
    /// Reached at another worker, at this time in nanoseconds of CLOCK_MONOTONIC.
    Past(i64),
}

impl ClientEvent {
    pub(crate) fn new(device: &Arc<Device>, flags: u32) -> Result<Self, CudaError> {
        Ok(Self::of(Real::Own(Arc::new(Event::new(device, flags & !INTERPROCESS)?)), flags))
    }

    /// One that another client exported.
    pub(crate) fn imported(event: Membership) -> Self {
        Self::of(Real::Shared(event), INTERPROCESS | DISABLE_TIMING)
    }

    fn of(real: Real, flags: u32) -> Self {
        Self {
            real: RefCell::new(real),
            is_in_graph: Cell::new(false),
            flags,
            record: Cell::new(LastRecord::None),
        }
    }

    /// Makes it one that other clients may have, too, unless it is. `None` if it was not made for that, or a graph has it.
    pub(crate) fn share(&self, secret: Secret, client: u64) -> Option<Arc<SharedEvent>> {
        let mut real = self.real.borrow_mut();
        match &*real {
            Real::Shared(membership) => Some(membership.event.clone()),
            Real::Own(_) if self.flags & INTERPROCESS == 0 || self.is_in_graph.get() => None,
            Real::Own(event) => {
                let shared = SharedEvent::new(secret, event.clone());
                *real = Real::Shared(Membership::new(shared.clone(), client));
                Some(shared)
            }
        }
    }

    /// It is this one from now on, which others have, too.
    pub(crate) fn join(&self, event: Membership) {
        *self.real.borrow_mut() = Real::Shared(event);
    }

    /// What others may have of it.
    pub(crate) fn shared(&self) -> Option<Arc<SharedEvent>> {
        match &*self.real.borrow() {
            Real::Own(_) => None,
            Real::Shared(membership) => Some(membership.event.clone()),
        }
    }

    /// The driver's event, to ask or to wait for its last record.
    pub(crate) fn real(&self) -> Arc<Event> {
        match &*self.real.borrow() {
            Real::Own(event) => event.clone(),
            Real::Shared(membership) => membership.event.last(),
        }
    }

    /// The driver's event, to be recorded now: another one than answers wait for, which are due when the record is reached
    /// that was the last when they were asked for. With a graph in between, they wait for the new one, too.
    pub(crate) fn to_record(&self) -> Result<Arc<Event>, CudaError> {
        let mut real = self.real.borrow_mut();
        let recorded = match &mut *real {
            Real::Shared(membership) => {
                let device = membership.event.last().device().clone();
                membership.event.to_record(&device, self.flags & !INTERPROCESS)?
            }
            Real::Own(event) => {
                if Arc::strong_count(event) > 1 && !self.is_in_graph.get() {
                    let device = event.device().clone();
                    *event = Arc::new(Event::new(&device, self.flags & !INTERPROCESS)?);
                }
                event.clone()
            }
        };
        self.note_record();
        Ok(recorded)
    }

    /// The driver's event, to be part of a graph.
    ///
    /// # Errors
    /// `CUDA_ERROR_NOT_SUPPORTED` if other clients have it, who would wait for launches of the graph that they cannot know of.
    pub(crate) fn for_graph(&self) -> Result<Arc<Event>, CudaError> {
        if self.shared().is_some() {
            return Err(CudaError::NOT_SUPPORTED);
        }
        self.is_in_graph.set(true);
        Ok(self.real())
    }

    /// It was recorded here.
    pub(crate) fn note_record(&self) {
        self.record.set(LastRecord::Here);
    }

    /// Whether its last record was made here, and has a time.
    pub(crate) fn has_time(&self) -> bool {
        self.is_timed() && self.record.get() == LastRecord::Here
    }

    /// What another worker must know. `epoch` is later than all records; only events with a [time](Self::has_time) need it.
    pub(crate) fn save(&self, id: u32, epoch: Option<&Epoch>) -> migration::Event {
        let reached_ns = match (self.record.get(), epoch) {
            (LastRecord::Past(reached_ns), _) => Some(reached_ns),
            // An event that only a graph recorded may have no time.
            (LastRecord::Here, Some(epoch)) if self.is_timed() => epoch.when_before(self).ok(),
            _ => None,
        };
        let secret = self.shared().map_or_else(Vec::new, |event| event.secret().0.to_vec());
        migration::Event { id, flags: self.flags, reached_ns, secret }
    }

    /// An event of another worker.
    pub(crate) fn restore(device: &Arc<Device>, saved: &migration::Event) -> Result<Self, CudaError> {
        let event = Self::new(device, saved.flags)?;
        event.record.set(saved.reached_ns.map_or(LastRecord::None, LastRecord::Past));
        Ok(event)
    }

    fn is_timed(&self) -> bool {
        self.flags & DISABLE_TIMING == 0
    }
}

/// Now, in nanoseconds of CLOCK_MONOTONIC.
pub(crate) fn clock() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

/// A point in time as the GPU and the node know it.
#[derive(Debug)]
pub(crate) struct Epoch {
    event: Event,
    /// Of CLOCK_MONOTONIC.
    nanoseconds: i64,
    /// By how much that may be wrong.
    doubt_ns: i64,
}

impl Epoch {
    /// An event that was recorded and reached between two times of [`clock`].
    pub(crate) fn between(event: Event, before: i64, behind: i64) -> Self {
        let doubt_ns = behind.saturating_sub(before) / 2;
        Self { event, nanoseconds: before.saturating_add(doubt_ns), doubt_ns }
    }

    /// By how many nanoseconds the node's time of it may be wrong.
    pub(crate) fn doubt_ns(&self) -> i64 {
        self.doubt_ns
    }

    /// When an event was reached that was recorded before, in nanoseconds of CLOCK_MONOTONIC.
    fn when_before(&self, event: &ClientEvent) -> Result<i64, CudaError> {
        let ago = event.real().milliseconds_to(&self.event)?;
        Ok(self.nanoseconds.saturating_sub(nanoseconds(ago)))
    }

    /// The same, of an event that was recorded behind.
    fn when_behind(&self, event: &ClientEvent) -> Result<i64, CudaError> {
        let real = event.real();
        real.query()?;
        Ok(self.nanoseconds.saturating_add(nanoseconds(self.event.milliseconds_to(&real)?)))
    }
}

/// The time between two events. There is an epoch as soon as there are past events.
///
/// # Errors
/// As the driver has it: `CUDA_ERROR_NOT_READY` if one is not reached, `CUDA_ERROR_INVALID_HANDLE` if one was not recorded or has
/// no time.
pub(crate) fn milliseconds(
    start: &ClientEvent,
    end: &ClientEvent,
    epoch: Option<&Epoch>,
) -> Result<f32, CudaError> {
    let time_of = |event| epoch.ok_or(CudaError::INVALID_HANDLE)?.when_behind(event);
    let (first, last) = match (start.record.get(), end.record.get()) {
        (LastRecord::Past(first), LastRecord::Past(last)) => (first, last),
        (LastRecord::Past(first), LastRecord::Here) => (first, time_of(end)?),
        (LastRecord::Here, LastRecord::Past(last)) => (time_of(start)?, last),
        _ => return start.real().milliseconds_to(&end.real()),
    };
    Ok((last.saturating_sub(first) as f64 / 1e6) as f32)
}

fn nanoseconds(milliseconds: f32) -> i64 {
    (f64::from(milliseconds) * 1e6) as i64
}
