//! A client's streams: real ones are made on first use, and the legacy stream's rules are kept with events.
//!
//! Every stream of a client, its legacy stream 0 included, is a real non-blocking stream. What CUDA promises between
//! the legacy stream and blocking streams is kept with events (`legacy_order`), for each of the program's devices,
//! and for each of their green contexts, apart. A stream of a green context is a real one of a real green context (`parts`).
//!
//! While a graph is built, every number stands for the private stream that is being recorded ([`Capture`]).

pub(crate) mod capture;
mod congestion;
pub(crate) mod legacy_order;
mod live;
mod own;
pub(crate) mod parts;
pub(crate) mod watched;

use crate::driver::{Device, Event, Stream};
use crate::worker::gpu::Shared;
use crate::worker::gpu::fence::{Fence, Fences};
use crate::worker::mailbox::Link;
use crate::worker::objects::table::Table;
use crate::worker::streams::capture::Capture;
use crate::worker::streams::congestion::CHECKPOINT;
use crate::worker::streams::legacy_order::{Legacy, Role};
use crate::worker::streams::live::Live;
use crate::worker::streams::own::Own;
use crate::worker::streams::parts::{Levels, Parts};
use crate::worker::streams::watched::Watching;
use std::sync::Arc;
use torpor_proto::command::{ALL_DEVICES, MOST_CONTEXTS, MOST_DEVICES, includes, is_green};
use torpor_proto::error::CudaError;

/// The number of the first device's legacy default stream.
pub(crate) const LEGACY: u32 = 0;

/// Streams of a client.
const LIMIT: u32 = 4096;

#[derive(Debug)]
struct Entry {
    role: Role,
    /// Of which of the program's contexts it is.
    context: u32,
    priority: i32,
    /// The part of the GPU that its context has.
    part: Levels,
    live: Option<Box<Live>>,
}

impl Entry {
    fn new(role: Role, context: u32) -> Self {
        Self { role, context, priority: 0, part: Levels::default(), live: None }
    }

    fn make_live(&mut self, parts: &mut Parts, fences: &mut Fences) -> Result<(), CudaError> {
        self.live = Some(parts.live(fences, &self.part, (self.priority, self.context))?);
        Ok(())
    }
}

/// What a client says of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) role: Role,
    /// Of which of the program's contexts it is.
    pub(crate) context: u32,
    pub(crate) priority: i32,
    /// The part of the GPU that its context has.
    pub(crate) part: Levels,
}

/// The streams of one client.
#[derive(Debug)]
pub(crate) struct Streams {
    device: Arc<Device>,
    table: Table<Entry>,
    own: Own,
    /// Destroyed by the client, not idle yet.
    retiring: Vec<Live>,
    /// By context: as many as streams were declared of.
    legacies: Vec<Legacy>,
    pub(crate) parts: Parts,
    /// The stream that has had [`CHECKPOINT`] commands since its last checkpoint.
    crowded: Option<u32>,
    /// A graph is being built.
    pub(crate) capture: Option<Capture>,
    /// Kernels that have to end in time. Before the words that they are seen by.
    pub(crate) watched: Watching,
    /// After the streams: their words may be used again only when the streams are gone.
    pub(crate) fences: Fences,
}

impl Streams {
    /// The legacy stream alone.
    pub(crate) fn new(shared: &Arc<Shared>, link: &Arc<Link>) -> Result<Self, CudaError> {
        let mut table = Table::new(LIMIT);
        table.insert(LEGACY, Entry::new(Role::Legacy, 0))?;
        let legacies = vec![Legacy { number: Some(LEGACY), ..Legacy::default() }];
        let mut fences = Fences::new(shared)?;
        let own = Own::new(&shared.device, &mut fences)?;
        Ok(Self {
            device: shared.device.clone(),
            table,
            own,
            retiring: Vec::new(),
            legacies,
            parts: Parts::new(shared, link.client),
            crowded: None,
            capture: None,
            watched: Watching::new(shared, link, fences.words()),
            fences,
        })
    }

    /// Gives a number to a stream that is made when it is first used.
    pub(crate) fn declare(&mut self, id: u32, declared: Declared) -> Result<(), CudaError> {
        let Declared { role, context, priority, part } = declared;
        if context >= MOST_DEVICES * MOST_CONTEXTS || !(part.is_whole() || is_green(context)) {
            return Err(CudaError::INVALID_VALUE);
        }
        let at = context as usize;
        if self.legacies.len() <= at {
            self.legacies.resize_with(at + 1, Legacy::default);
        }
        let legacy = &mut self.legacies[at];
        if role == Role::Legacy && legacy.number.is_some() {
            return Err(CudaError::INVALID_VALUE);
        }
        self.table.insert(id, Entry { role, context, priority, part, live: None })?;
        if role == Role::Legacy {
            legacy.number = Some(id);
        }
        Ok(())
    }

    /// What the client has declared.
    pub(crate) fn declared(&self) -> impl Iterator<Item = (u32, Declared)> {
        let declared = self.table.iter().filter(|&(id, _)| id != LEGACY);
        declared.map(|(id, &Entry { role, context, priority, ref part, .. })| {
            (id, Declared { role, context, priority, part: part.clone() })
        })
    }

    /// The stream to post something to, once it waits for what it must.
    #[inline]
    pub(crate) fn enter(&mut self, id: u32) -> Result<&Stream, CudaError> {
        if self.capture.is_some() {
            return self.captured();
        }
        let entry = self.table.get_mut(id)?;
        if entry.live.is_none() {
            entry.make_live(&mut self.parts, &mut self.fences)?;
        }
        let context = entry.context as usize;
        match entry.role {
            Role::Legacy => {
                self.legacies[context].work += 1;
                if !self.legacies[context].unjoined.is_empty() {
                    self.join_into_legacy(context)?;
                }
            }
            Role::Blocking => self.join_legacy_into(context, id)?,
            Role::NonBlocking => {}
        }
        let live = self.table.get_mut(id)?.live.as_deref_mut().ok_or(CudaError::INVALID_HANDLE)?;
        live.unfenced = true;
        live.follows_setup = false;
        live.posted += 1;
        if live.posted == CHECKPOINT {
            self.crowded = Some(id);
        }
        Ok(&live.stream)
    }

    /// As [`Self::enter`], behind the event of a group of arriving memory.
    pub(crate) fn enter_behind(&mut self, id: u32, group: u64, event: &Event) -> Result<&Stream, CudaError> {
        self.enter(id)?;
        let live = self.live(id)?;
        if live.awaited_group < group {
            live.stream.wait(event, 0)?;
            live.awaited_group = group;
        }
        Ok(&live.stream)
    }

    /// The stream whether or not it is ready to take work: `None` if it was never used.
    pub(crate) fn peek(&mut self, id: u32) -> Result<Option<&Stream>, CudaError> {
        if self.capture.is_some() {
            return self.captured().map(Some);
        }
        if self.is_behind_others(id)? {
            self.enter(id)?;
        }
        Ok(self.table.get(id)?.live.as_ref().map(|live| &live.stream))
    }

    /// A fence behind all work of a stream; `None` if there is none left.
    pub(crate) fn fence(&mut self, id: u32) -> Result<Option<Fence>, CudaError> {
        if self.is_behind_others(id)? {
            self.enter(id)?;
        }
        match &mut self.table.get_mut(id)?.live {
            Some(live) => live.fence(&self.fences),
            None => Ok(None),
        }
    }

    /// Fences behind all work of the client.
    pub(crate) fn fence_all(&mut self) -> Result<Vec<Fence>, CudaError> {
        self.fence_those(|_| true)
    }

    /// Fences behind all work of the client, but not the worker's own.
    pub(crate) fn fence_clients(&mut self) -> Result<Vec<Fence>, CudaError> {
        self.fence_those(|live| live.context != ALL_DEVICES)
    }

    /// Fences behind all work of the client in a context of the program's, that of a device with its green ones, and the worker's own.
    pub(crate) fn fence_context(&mut self, context: u32) -> Result<Vec<Fence>, CudaError> {
        self.fence_those(|live| live.context == ALL_DEVICES || includes(context, live.context))
    }

    fn fence_those(&mut self, which: impl Fn(&Live) -> bool) -> Result<Vec<Fence>, CudaError> {
        let mut fences = Vec::new();
        for live in all(&mut self.table, &mut self.own, &mut self.retiring).filter(|live| which(live)) {
            fences.extend(live.fence(&self.fences)?);
        }
        Ok(fences)
    }

    /// A stream copies to or from the staging area.
    pub(crate) fn touch_staging(&mut self, id: u32) {
        if self.capture.is_none()
            && let Ok(live) = self.live(id)
        {
            live.touches_staging = true;
        }
    }

    /// Fences behind all copies to or from the staging area since the last call.
    pub(crate) fn fence_staging(&mut self) -> Result<Vec<Fence>, CudaError> {
        let mut fences = Vec::new();
        for live in all(&mut self.table, &mut self.own, &mut self.retiring) {
            if std::mem::take(&mut live.touches_staging) {
                fences.extend(live.fence(&self.fences)?);
            }
        }
        Ok(fences)
    }

    /// Takes a stream's number back. Its work goes on.
    pub(crate) fn destroy(&mut self, id: u32) -> Result<(), CudaError> {
        let &Entry { role, context, .. } = self.table.get(id)?;
        match role {
            Role::Legacy if is_green(context) => self.end_legacy(context as usize)?,
            Role::Legacy => return Err(CudaError::INVALID_HANDLE),
            Role::Blocking | Role::NonBlocking => self.let_go_of(context as usize, id)?,
        }
        if let Some(mut live) = self.table.remove(id)?.live {
            live.fence(&self.fences)?;
            self.retiring.push(*live);
            self.bury();
        }
        Ok(())
    }

    /// Destroys what the client destroyed and is idle by now.
    pub(crate) fn bury(&mut self) {
        let Self { retiring, fences, .. } = self;
        let idle: Vec<_> = retiring.extract_if(.., |live| live.is_idle(fences)).collect();
        idle.into_iter().for_each(|live| fences.give_back(live.counter));
    }

    /// Whether destroyed streams are left.
    pub(crate) fn has_retiring(&self) -> bool {
        !self.retiring.is_empty()
    }

    /// Asks the driver about every stream with work: whether any is left. An error other than "not ready" is the
    /// context's.
    pub(crate) fn check(&mut self) -> Result<bool, CudaError> {
        let mut busy = false;
        for live in all(&mut self.table, &mut self.own, &mut self.retiring) {
            if live.is_idle(&self.fences) {
                continue;
            }
            match live.stream.query() {
                Ok(()) => live.unfenced = false,
                Err(CudaError::NOT_READY) => busy = true,
                Err(error) => return Err(error),
            }
        }
        Ok(busy)
    }

    fn captured(&self) -> Result<&Stream, CudaError> {
        self.capture.as_ref().map(Capture::stream).ok_or(CudaError::UNKNOWN)
    }

    #[inline]
    fn live(&mut self, id: u32) -> Result<&mut Live, CudaError> {
        self.table.get_mut(id)?.live.as_deref_mut().ok_or(CudaError::INVALID_HANDLE)
    }
}

/// Every real stream of a client.
fn all<'a>(
    table: &'a mut Table<Entry>,
    own: &'a mut Own,
    retiring: &'a mut [Live],
) -> impl Iterator<Item = &'a mut Live> {
    let named = table.values_mut().filter_map(|entry| entry.live.as_deref_mut());
    named.chain(own.all()).chain(retiring.iter_mut())
}
