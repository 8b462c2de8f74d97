//! Graphs: commands that the client recorded, replayed under a real capture and then launched as one.
//!
//! The records' streams stand for private streams of the replay: the origin is capturing from the start, another one
//! once it waits for an event of the capture, as CUDA has it. Events recorded there are private too. The records stay
//! with the graph, so that another worker can rebuild it.

use crate::driver::{Device, Event, ExecutableGraph, Stream};
use crate::worker::arrivals::EVERYTHING;
use crate::worker::event::ClientEvent;
use crate::worker::pending::{Kept, Pending};
use crate::worker::reach::enter;
use crate::worker::session::Session;
use crate::worker::table::Table;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;
use std::sync::Arc;
use torpor_proto::command::{
    Command, Copy, CopyStrided, Dispatched, EventRecord, Fill, GraphAppend, GraphCommands, GraphDestroy,
    GraphInstantiate, GraphLaunch, Launch, Outcome, StreamWaitEvent, Ticket, dispatch,
};
use torpor_proto::control::migration;
use torpor_proto::error::CudaError;
use torpor_proto::ring::Record;

/// Graphs of a client.
const LIMIT: u32 = 4096;

/// Words of one graph's records.
const GRAPH_WORDS: usize = (64 << 20) / 8;

/// Words of all graphs' records of a client.
const CLIENT_WORDS: usize = (512 << 20) / 8;

/// `CU_EVENT_RECORD_EXTERNAL` and `CU_EVENT_WAIT_EXTERNAL`: the event itself, at every launch of the graph.
const EXTERNAL: u32 = 1;

/// What a graph may consist of.
const ALLOWED: [u16; 6] = [
    Launch::OPCODE,
    Copy::OPCODE,
    CopyStrided::OPCODE,
    Fill::OPCODE,
    EventRecord::OPCODE,
    StreamWaitEvent::OPCODE,
];

#[derive(Debug, Default)]
struct ClientGraph {
    words: Vec<u64>,
    /// Origin and flags, once it is whole.
    instantiation: Option<(u32, u64)>,
    /// There is none before the first launch after a move from another worker.
    executable: Option<ExecutableGraph>,
    /// Events that the graph records or waits for at every launch.
    external: Vec<External>,
}

/// An event that a graph names and did not make.
#[derive(Debug)]
struct External {
    event: Rc<ClientEvent>,
    recorded: bool,
}

/// The graphs of a client.
#[derive(Debug)]
pub(super) struct Graphs {
    table: Table<Box<ClientGraph>>,
    words: usize,
}

impl Graphs {
    pub(super) fn new() -> Self {
        Self { table: Table::new(LIMIT), words: 0 }
    }

    /// What the client has, for another worker.
    pub(super) fn save(&self) -> Vec<migration::Graph> {
        let instantiation = |&(origin, flags): &(u32, u64)| migration::Instantiation { origin, flags };
        let graphs = self.table.iter().map(|(id, graph)| migration::Graph {
            id,
            words: graph.words.clone(),
            instantiation: graph.instantiation.as_ref().map(instantiation),
        });
        graphs.collect()
    }

    /// What the client had at another worker. Each is made launchable when it is first launched here: the driver looks at
    /// addresses, and the client's memory is not on this GPU yet.
    pub(super) fn restore(graphs: Vec<migration::Graph>) -> Result<Self, CudaError> {
        let mut restored = Self::new();
        for migration::Graph { id, words, instantiation } in graphs {
            restored.words += words.len();
            let instantiation = instantiation.map(|made| (made.origin, made.flags));
            let graph = ClientGraph { words, instantiation, ..ClientGraph::default() };
            restored.table.insert(id, Box::new(graph))?;
        }
        Ok(restored)
    }
}

/// A replay.
#[derive(Debug)]
pub(super) struct Capture {
    streams: HashMap<u32, Stream>,
    events: HashMap<u32, Event>,
    external: Vec<External>,
}

impl Capture {
    /// Begins a capture on a private stream that stands for `origin`.
    fn begin(device: &Arc<Device>, origin: u32) -> Result<Self, CudaError> {
        let stream = Stream::new(device, 0)?;
        stream.begin_capture()?;
        Ok(Self { streams: HashMap::from([(origin, stream)]), events: HashMap::new(), external: Vec::new() })
    }

    /// The private stream for a number; there is none before it belongs to the capture.
    pub(super) fn stream(&self, id: u32) -> Result<&Stream, CudaError> {
        self.streams.get(&id).ok_or(CudaError::STREAM_CAPTURE_ISOLATION)
    }

    /// The private event for a number, to be recorded.
    pub(super) fn record(&mut self, id: u32, device: &Arc<Device>) -> Result<&Event, CudaError> {
        Ok(match self.events.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Event::untimed(device)?),
        })
    }

    /// A stream waits for an event of the capture, and so belongs to it.
    fn wait(&mut self, stream: u32, event: u32, device: &Arc<Device>) -> Result<(), CudaError> {
        let event = self.events.get(&event).ok_or(CudaError::STREAM_CAPTURE_ISOLATION)?;
        let stream = match self.streams.entry(stream) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Stream::new(device, 0)?),
        };
        stream.wait(event, 0)
    }
}

impl GraphCommands for Session {
    fn graph_append(&mut self, command: GraphAppend, tail: &[u8]) -> Result<(), CudaError> {
        if !tail.len().is_multiple_of(8) {
            return Err(CudaError::INVALID_VALUE);
        }
        let words = tail.len() / 8;
        if self.graphs.table.get(command.graph).is_err() {
            self.graphs.table.insert(command.graph, Box::default())?;
        }
        let graph = self.graphs.table.get_mut(command.graph)?;
        if graph.instantiation.is_some() {
            return Err(CudaError::INVALID_VALUE);
        }
        if graph.words.len() + words > GRAPH_WORDS || self.graphs.words + words > CLIENT_WORDS {
            return Err(CudaError::OUT_OF_MEMORY);
        }
        graph.words.extend(tail.as_chunks().0.iter().map(|&bytes| u64::from_le_bytes(bytes)));
        self.graphs.words += words;
        Ok(())
    }

    fn graph_instantiate(
        &mut self,
        command: GraphInstantiate,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<()>, CudaError> {
        let GraphInstantiate { graph, origin, flags } = command;
        if self.graphs.table.get(graph)?.instantiation.is_some() {
            return Err(CudaError::INVALID_VALUE);
        }
        self.instantiate(graph, origin, flags)?;
        Ok(Outcome::done(()))
    }

    fn graph_launch(&mut self, command: GraphLaunch, _: &[u8]) -> Result<(), CudaError> {
        self.activate()?;
        self.bring_up_to(EVERYTHING)?;
        let graph = self.graphs.table.get(command.graph)?;
        if let (None, Some((origin, flags))) = (&graph.executable, graph.instantiation) {
            self.instantiate(command.graph, origin, flags)?;
        }
        let graph = self.graphs.table.get(command.graph)?;
        let executable = graph.executable.as_ref().ok_or(CudaError::INVALID_HANDLE)?;
        executable.launch(enter(&mut self.streams, &self.arrivals, command.stream, EVERYTHING)?)?;
        graph.external.iter().filter(|external| external.recorded).for_each(|external| {
            external.event.note_record();
        });
        Ok(())
    }

    fn graph_destroy(&mut self, command: GraphDestroy, _: &[u8]) -> Result<(), CudaError> {
        let graph = self.graphs.table.remove(command.graph)?;
        self.graphs.words -= graph.words.len();
        let fences = self.streams.fence_all()?;
        self.pending.push(Pending::Keep(Kept::Graph(graph.executable), fences));
        Ok(())
    }
}

impl Session {
    /// Makes a graph launchable.
    fn instantiate(&mut self, graph: u32, origin: u32, flags: u64) -> Result<(), CudaError> {
        // The driver looks at the addresses of copies.
        self.activate()?;
        self.bring_up_to(EVERYTHING)?;
        let words = std::mem::take(&mut self.graphs.table.get_mut(graph)?.words);
        let replayed = self.replay(&words, origin, flags);
        let graph = self.graphs.table.get_mut(graph)?;
        graph.words = words;
        let (executable, external) = replayed?;
        graph.executable = Some(executable);
        graph.external = external;
        graph.instantiation = Some((origin, flags));
        Ok(())
    }

    /// Executes records under a capture and makes the result launchable.
    fn replay(
        &mut self,
        words: &[u64],
        origin: u32,
        flags: u64,
    ) -> Result<(ExecutableGraph, Vec<External>), CudaError> {
        self.streams.capture = Some(Capture::begin(&self.shared.device, origin)?);
        let replayed = self.replay_records(words);
        let capture = self.streams.capture.take().ok_or(CudaError::UNKNOWN)?;
        // The capture must be ended even if it failed.
        let graph = capture.stream(origin)?.end_capture();
        replayed?;
        Ok((graph?.instantiate(flags)?, capture.external))
    }

    fn replay_records(&mut self, words: &[u64]) -> Result<(), CudaError> {
        let mut rest = words;
        while let Some(&first) = rest.first() {
            if self.is_interrupted() {
                return Err(CudaError::DEINITIALIZED);
            }
            // A record's first word has its length in the low half, see torpor_proto::ring.
            let length = (first & 0xffff_ffff) as usize;
            let (record, behind) = rest.split_at_checked(length).ok_or(CudaError::INVALID_VALUE)?;
            let record = Record::from_words(record).map_err(|_| CudaError::INVALID_VALUE)?;
            if !ALLOWED.contains(&record.header().opcode) {
                return Err(CudaError::INVALID_VALUE);
            }
            match dispatch(self, &record) {
                Ok(Dispatched::Posted(_, result)) => result?,
                Ok(Dispatched::Answer(..) | Dispatched::Pending(..)) | Err(_) => {
                    return Err(CudaError::INVALID_VALUE);
                }
            }
            rest = behind;
        }
        Ok(())
    }

    /// [`EventRecord`] in a replay.
    pub(super) fn record_in_capture(&mut self, stream: u32, event: u32, flags: u32) -> Result<(), CudaError> {
        let capture = self.streams.capture.as_mut().ok_or(CudaError::UNKNOWN)?;
        if flags == EXTERNAL {
            let event = self.events.get(event)?;
            capture.external.push(External { event: event.clone(), recorded: true });
            return event.real.record(capture.stream(stream)?, flags);
        }
        capture.record(event, &self.shared.device)?;
        let event = capture.events.get(&event).ok_or(CudaError::UNKNOWN)?;
        event.record(capture.stream(stream)?, flags)
    }

    /// [`StreamWaitEvent`] in a replay.
    pub(super) fn wait_in_capture(&mut self, stream: u32, event: u32, flags: u32) -> Result<(), CudaError> {
        let capture = self.streams.capture.as_mut().ok_or(CudaError::UNKNOWN)?;
        if flags == EXTERNAL {
            let event = self.events.get(event)?;
            capture.external.push(External { event: event.clone(), recorded: false });
            return capture.stream(stream)?.wait(&event.real, flags);
        }
        capture.wait(stream, event, &self.shared.device)
    }
}
