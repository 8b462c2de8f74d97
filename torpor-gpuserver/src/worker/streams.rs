//! A client's streams: real ones are made on first use, and the legacy stream's rules are kept with events.
//!
//! Every stream of a client, its legacy stream 0 included, is a real non-blocking stream. What CUDA promises between
//! the legacy stream and blocking streams is kept here: work on either waits for all earlier work on the other. An event
//! is recorded and waited for only when there was work since the last time.
//!
//! During the replay of a graph, numbers stand for private streams that are being captured ([`Capture`]).

use crate::driver::{Device, Event, Stream};
use crate::worker::fence::{Counter, Fence, Fences};
use crate::worker::graph::Capture;
use crate::worker::shared::Shared;
use crate::worker::table::Table;
use std::collections::VecDeque;
use std::sync::Arc;
use torpor_proto::control::migration;
use torpor_proto::error::CudaError;

/// The number of the legacy default stream.
pub(super) const LEGACY: u32 = 0;

/// Streams of a client.
const LIMIT: u32 = 4096;

/// After so many commands to a stream, it is looked at how far the GPU has come.
const CHECKPOINT: u32 = 256;

/// Checkpoints of a stream that the GPU may be behind. A driver whose queue is full (about 1024 launches) blocks its
/// caller until the GPU has come on, so a session stops posting before.
const CHECKPOINTS: usize = 3;

/// A real stream and what was posted to it.
#[derive(Debug)]
struct Live {
    stream: Stream,
    counter: Counter,
    /// Something was posted since the last fence.
    unfenced: bool,
    /// How much was posted since the last checkpoint.
    posted: u32,
    /// Fences every [`CHECKPOINT`] commands, the oldest first.
    checkpoints: VecDeque<Fence>,
    /// It copies to or from the staging area since the last staging mark.
    touches_staging: bool,
    /// Blocking streams: the legacy stream does not wait for all of its work yet.
    unjoined: bool,
    /// Blocking streams: how much of the legacy stream's work it waits for. The legacy stream: how much `join` stands for.
    joined: u64,
    /// Recorded where another stream has to wait for this one.
    join: Option<Event>,
    /// The group of arriving memory that it waits for, or has waited for.
    awaited_group: u64,
    /// What is left of its work only waits for the setup stream.
    follows_setup: bool,
}

impl Live {
    fn new(device: &Arc<Device>, fences: &mut Fences, priority: i32) -> Result<Box<Self>, CudaError> {
        Ok(Box::new(Self {
            stream: Stream::new(device, priority)?,
            counter: fences.counter()?,
            unfenced: false,
            posted: 0,
            checkpoints: VecDeque::new(),
            touches_staging: false,
            unjoined: false,
            joined: 0,
            join: None,
            awaited_group: 0,
            follows_setup: false,
        }))
    }

    /// Records the event that others wait for.
    fn record_join(&mut self) -> Result<&Event, CudaError> {
        if self.join.is_none() {
            self.join = Some(Event::untimed(self.stream.device())?);
        }
        let join = self.join.as_ref().ok_or(CudaError::UNKNOWN)?;
        join.record(&self.stream, 0)?;
        self.unfenced = true;
        Ok(join)
    }

    /// Puts a fence behind its work, if there is any since the last one. `None` if all is done.
    fn fence(&mut self, fences: &Fences) -> Result<Option<Fence>, CudaError> {
        if self.unfenced {
            fences.post(&self.stream, &mut self.counter)?;
            self.unfenced = false;
        }
        let last = self.counter.last();
        Ok((!fences.is_reached(last)).then_some(last))
    }

    fn is_idle(&self, fences: &Fences) -> bool {
        !self.unfenced && fences.is_reached(self.counter.last())
    }
}

#[derive(Debug)]
struct Entry {
    blocking: bool,
    priority: i32,
    live: Option<Box<Live>>,
}

/// The streams of one client.
#[derive(Debug)]
pub(super) struct Streams {
    device: Arc<Device>,
    table: Table<Entry>,
    /// The worker's own work for this client: clearing memory.
    setup: Box<Live>,
    /// Destroyed by the client, not idle yet.
    retiring: Vec<Live>,
    /// Blocking streams whose work the legacy stream does not wait for yet.
    unjoined: Vec<u32>,
    /// How often the legacy stream was used.
    legacy_work: u64,
    /// The stream that has had [`CHECKPOINT`] commands since its last checkpoint.
    crowded: Option<u32>,
    /// A graph is being replayed.
    pub(super) capture: Option<Capture>,
    /// After the streams: their words may be used again only when the streams are gone.
    pub(super) fences: Fences,
}

impl Streams {
    /// The legacy stream alone.
    pub(super) fn new(shared: &Arc<Shared>) -> Result<Self, CudaError> {
        let mut table = Table::new(LIMIT);
        table.insert(LEGACY, Entry { blocking: false, priority: 0, live: None })?;
        let mut fences = Fences::new(shared)?;
        let setup = Live::new(&shared.device, &mut fences, 0)?;
        Ok(Self {
            device: shared.device.clone(),
            table,
            setup,
            retiring: Vec::new(),
            unjoined: Vec::new(),
            legacy_work: 0,
            crowded: None,
            capture: None,
            fences,
        })
    }

    /// Gives a number to a stream that is made when it is first used.
    pub(super) fn declare(&mut self, id: u32, blocking: bool, priority: i32) -> Result<(), CudaError> {
        self.table.insert(id, Entry { blocking, priority, live: None })
    }

    /// What the client declared, for another worker.
    pub(super) fn save(&self) -> Vec<migration::Stream> {
        let declared = self.table.iter().filter(|&(id, _)| id != LEGACY);
        let stream = |(id, entry): (u32, &Entry)| migration::Stream {
            id,
            blocking: entry.blocking,
            priority: entry.priority,
        };
        declared.map(stream).collect()
    }

    /// The stream to post something to, once it waits for what it must.
    #[inline]
    pub(super) fn enter(&mut self, id: u32) -> Result<&Stream, CudaError> {
        if self.capture.is_some() {
            return self.captured(id);
        }
        let entry = self.table.get_mut(id)?;
        if entry.live.is_none() {
            entry.live = Some(Live::new(&self.device, &mut self.fences, entry.priority)?);
        }
        let blocking = entry.blocking;
        if id == LEGACY {
            self.legacy_work += 1;
            if !self.unjoined.is_empty() {
                self.join_into_legacy()?;
            }
        } else if blocking {
            self.join_legacy_into(id)?;
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
    pub(super) fn enter_behind(&mut self, id: u32, group: u64, event: &Event) -> Result<&Stream, CudaError> {
        self.enter(id)?;
        let live = self.live(id)?;
        if live.awaited_group < group {
            live.stream.wait(event, 0)?;
            live.awaited_group = group;
        }
        Ok(&live.stream)
    }

    /// The setup stream, if work posted there now is in order for every stream of the client: none has work of its own.
    pub(super) fn enter_setup_for_all(&mut self) -> Option<&Stream> {
        let Self { table, retiring, fences, .. } = &*self;
        let is_free = |live: &Live| live.follows_setup || live.is_idle(fences);
        let named = table.iter().filter_map(|(_, entry)| entry.live.as_deref());
        if self.capture.is_some() || !named.chain(retiring).all(is_free) {
            return None;
        }
        Some(self.enter_setup())
    }

    /// What is posted to a stream from now on waits for what [`Self::enter_setup_for_all`] was used for.
    pub(super) fn follow_setup(&mut self, id: u32) -> Result<(), CudaError> {
        self.enter(id)?;
        let Self { table, setup, .. } = self;
        let live = table.get_mut(id)?.live.as_deref_mut().ok_or(CudaError::INVALID_HANDLE)?;
        live.stream.wait(setup.record_join()?, 0)?;
        live.follows_setup = true;
        Ok(())
    }

    /// A fence to wait for before anything else is posted, because the GPU is too far behind.
    #[inline]
    pub(super) fn congestion(&mut self) -> Result<Option<Fence>, CudaError> {
        match self.crowded.take() {
            None => Ok(None),
            Some(id) => self.checkpoint(id),
        }
    }

    fn checkpoint(&mut self, id: u32) -> Result<Option<Fence>, CudaError> {
        // The client may have destroyed the stream meanwhile.
        let Some(live) = self.table.get_mut(id).ok().and_then(|entry| entry.live.as_mut()) else {
            return Ok(None);
        };
        live.posted = 0;
        live.fence(&self.fences)?;
        live.checkpoints.push_back(live.counter.last());
        if live.checkpoints.len() < CHECKPOINTS {
            return Ok(None);
        }
        Ok(live.checkpoints.pop_front().filter(|&fence| !self.fences.is_reached(fence)))
    }

    /// The stream whether or not it is ready to take work: `None` if it was never used.
    pub(super) fn peek(&mut self, id: u32) -> Result<Option<&Stream>, CudaError> {
        if self.capture.is_some() {
            return self.captured(id).map(Some);
        }
        if id == LEGACY && !self.unjoined.is_empty() {
            self.enter(id)?;
        }
        Ok(self.table.get(id)?.live.as_ref().map(|live| &live.stream))
    }

    /// A stream that no command belongs to, for questions that name one.
    pub(super) fn neutral(&self) -> &Stream {
        &self.setup.stream
    }

    /// The worker's own stream for this client.
    pub(super) fn enter_setup(&mut self) -> &Stream {
        self.setup.unfenced = true;
        &self.setup.stream
    }

    /// A fence behind all work of the setup stream.
    pub(super) fn fence_setup(&mut self) -> Result<Option<Fence>, CudaError> {
        self.setup.fence(&self.fences)
    }

    /// A fence behind all work of a stream; `None` if there is none left.
    pub(super) fn fence(&mut self, id: u32) -> Result<Option<Fence>, CudaError> {
        if id == LEGACY && !self.unjoined.is_empty() {
            self.enter(id)?;
        }
        match &mut self.table.get_mut(id)?.live {
            Some(live) => live.fence(&self.fences),
            None => Ok(None),
        }
    }

    /// Fences behind all work of the client.
    pub(super) fn fence_all(&mut self) -> Result<Vec<Fence>, CudaError> {
        let mut fences = Vec::new();
        for live in all(&mut self.table, &mut self.setup, &mut self.retiring) {
            fences.extend(live.fence(&self.fences)?);
        }
        Ok(fences)
    }

    /// A stream copies to or from the staging area.
    pub(super) fn touch_staging(&mut self, id: u32) {
        if self.capture.is_none()
            && let Ok(live) = self.live(id)
        {
            live.touches_staging = true;
        }
    }

    /// Fences behind all copies to or from the staging area since the last call.
    pub(super) fn fence_staging(&mut self) -> Result<Vec<Fence>, CudaError> {
        let mut fences = Vec::new();
        for live in all(&mut self.table, &mut self.setup, &mut self.retiring) {
            if std::mem::take(&mut live.touches_staging) {
                fences.extend(live.fence(&self.fences)?);
            }
        }
        Ok(fences)
    }

    /// Takes a stream's number back. Its work goes on.
    pub(super) fn destroy(&mut self, id: u32) -> Result<(), CudaError> {
        if id == LEGACY {
            return Err(CudaError::INVALID_HANDLE);
        }
        self.table.get(id)?;
        if self.unjoined.contains(&id) {
            self.enter(LEGACY)?;
        }
        if let Some(mut live) = self.table.remove(id)?.live {
            live.fence(&self.fences)?;
            self.retiring.push(*live);
            self.bury();
        }
        Ok(())
    }

    /// Destroys what the client destroyed and is idle by now.
    pub(super) fn bury(&mut self) {
        let Self { retiring, fences, .. } = self;
        let idle: Vec<_> = retiring.extract_if(.., |live| live.is_idle(fences)).collect();
        idle.into_iter().for_each(|live| fences.give_back(live.counter));
    }

    /// Whether destroyed streams are left.
    pub(super) fn has_retiring(&self) -> bool {
        !self.retiring.is_empty()
    }

    /// Asks the driver about every stream with work: whether any is left. An error other than "not ready" is the
    /// context's.
    pub(super) fn check(&mut self) -> Result<bool, CudaError> {
        let mut busy = false;
        for live in all(&mut self.table, &mut self.setup, &mut self.retiring) {
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

    /// Work on the legacy stream waits for all earlier work on blocking streams.
    fn join_into_legacy(&mut self) -> Result<(), CudaError> {
        if self.table.get(LEGACY)?.live.is_none() {
            let live = Live::new(&self.device, &mut self.fences, 0)?;
            self.table.get_mut(LEGACY)?.live = Some(live);
        }
        while let Some(&id) = self.unjoined.last() {
            let mut entry = self.table.remove(id)?;
            let joined = match &mut entry.live {
                Some(live) => {
                    live.unjoined = false;
                    let legacy = &self.live(LEGACY)?.stream;
                    live.record_join().and_then(|event| legacy.wait(event, 0))
                }
                None => Ok(()),
            };
            self.table.insert(id, entry)?;
            self.unjoined.pop();
            joined?;
        }
        Ok(())
    }

    /// Work on a blocking stream waits for all earlier work on the legacy stream.
    fn join_legacy_into(&mut self, id: u32) -> Result<(), CudaError> {
        let legacy_work = self.legacy_work;
        let live = self.live(id)?;
        let first = !std::mem::replace(&mut live.unjoined, true);
        let behind = live.joined < legacy_work;
        live.joined = legacy_work;
        if first {
            self.unjoined.push(id);
        }
        if behind {
            let mut entry = self.table.remove(LEGACY)?;
            let joined = match &mut entry.live {
                Some(legacy) => self.live(id).and_then(|live| {
                    if legacy.joined < legacy_work {
                        legacy.record_join()?;
                        legacy.joined = legacy_work;
                    }
                    legacy.join.as_ref().map_or(Ok(()), |event| live.stream.wait(event, 0))
                }),
                None => Ok(()),
            };
            self.table.insert(LEGACY, entry)?;
            joined?;
        }
        Ok(())
    }

    fn captured(&self, id: u32) -> Result<&Stream, CudaError> {
        self.capture.as_ref().map_or(Err(CudaError::UNKNOWN), |capture| capture.stream(id))
    }

    #[inline]
    fn live(&mut self, id: u32) -> Result<&mut Live, CudaError> {
        self.table.get_mut(id)?.live.as_deref_mut().ok_or(CudaError::INVALID_HANDLE)
    }
}

/// Every real stream of a client.
fn all<'a>(
    table: &'a mut Table<Entry>,
    setup: &'a mut Live,
    retiring: &'a mut [Live],
) -> impl Iterator<Item = &'a mut Live> {
    let named = table.values_mut().filter_map(|entry| entry.live.as_deref_mut());
    named.chain(std::iter::once(setup)).chain(retiring.iter_mut())
}
