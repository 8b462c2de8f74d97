//! Graphs: nodes that the client described, recorded by the driver and then launched as one.

mod replay;

use crate::driver::ExecutableGraph;
use crate::worker::memory::arrivals::EVERYTHING;
use crate::worker::objects::pending::Kept;
use crate::worker::session::Session;
use crate::worker::session::reach::enter;
use crate::worker::streams::capture::{Built, Capture};
use replay::replay;
use torpor_proto::command::{
    GraphAppend, GraphBody, GraphBodyEnd, GraphCommands, GraphCondition, GraphConditional, GraphDependencies,
    GraphDestroy, GraphEmpty, GraphInstantiate, GraphLaunch, GraphUpdate, Outcome, Ticket,
};
use torpor_proto::error::CudaError;

/// Words of one graph's records.
const GRAPH_WORDS: usize = (64 << 20) / 8;

/// Words of all graphs' records of a client.
const CLIENT_WORDS: usize = (512 << 20) / 8;

/// `CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY`, the one flag that does not give anything of the driver's to kernels.
const KNOWN_FLAGS: u64 = 8;

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
        let place = if graph.flags.is_some() { &mut graph.next } else { &mut graph.words };
        if place.len() + words > GRAPH_WORDS || self.graphs.words + words > CLIENT_WORDS {
            return Err(CudaError::OUT_OF_MEMORY);
        }
        place.extend(tail.as_chunks().0.iter().map(|&bytes| u64::from_le_bytes(bytes)));
        self.graphs.words += words;
        Ok(())
    }

    fn graph_instantiate(
        &mut self,
        command: GraphInstantiate,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<()>, CudaError> {
        let GraphInstantiate { graph, flags, .. } = command;
        if flags & !KNOWN_FLAGS != 0 {
            return Err(CudaError::NOT_SUPPORTED);
        }
        if self.graphs.table.get(graph)?.flags.is_some() {
            return Err(CudaError::INVALID_VALUE);
        }
        build(self, graph, flags)?;
        self.graphs.table.get_mut(graph)?.flags = Some(flags);
        Ok(Outcome::done(()))
    }

    fn graph_launch(&mut self, command: GraphLaunch, _: &[u8]) -> Result<(), CudaError> {
        self.activate()?;
        self.bring_whole()?;
        let graph = self.graphs.table.get(command.graph)?;
        let flags = graph.flags.ok_or(CudaError::INVALID_HANDLE)?;
        if graph.executable.is_none() || graph.is_stale {
            build(self, command.graph, flags)?;
        }
        let calls = self.graphs.table.get(command.graph)?.calls;
        self.may_say(calls)?;
        let graph = self.graphs.table.get(command.graph)?;
        let executable = graph.executable.as_ref().ok_or(CudaError::INVALID_HANDLE)?;
        self.streams.launch(command.stream, &self.arrivals, |streams| {
            executable.launch(enter(streams, &self.arrivals, command.stream, EVERYTHING)?)
        })?;
        graph.external.iter().filter(|external| external.recorded).for_each(|external| {
            external.event.note_record();
        });
        self.has_said(calls, command.stream)
    }

    fn graph_update(&mut self, command: GraphUpdate, _: &[u8]) -> Result<(), CudaError> {
        let graph = self.graphs.table.get_mut(command.graph)?;
        if graph.flags.is_none() {
            return Err(CudaError::INVALID_VALUE);
        }
        let old = std::mem::replace(&mut graph.words, std::mem::take(&mut graph.next));
        graph.is_stale = true;
        self.graphs.words -= old.len();
        Ok(())
    }

    fn graph_destroy(&mut self, command: GraphDestroy, _: &[u8]) -> Result<(), CudaError> {
        let graph = self.graphs.table.remove(command.graph)?;
        self.graphs.words -= graph.words.len() + graph.next.len();
        keep_until_done(self, graph.executable)
    }

    fn graph_dependencies(&mut self, command: GraphDependencies, tail: &[u8]) -> Result<(), CudaError> {
        recorded(self)?.come_behind(command.adds != 0, tail)
    }

    fn graph_empty(&mut self, _: GraphEmpty, _: &[u8]) -> Result<(), CudaError> {
        recorded(self)?.add_empty()
    }

    fn graph_condition(&mut self, command: GraphCondition, _: &[u8]) -> Result<(), CudaError> {
        recorded(self)?.add_condition(command)
    }

    fn graph_conditional(&mut self, command: GraphConditional, _: &[u8]) -> Result<(), CudaError> {
        recorded(self)?.add_conditional(command)
    }

    fn graph_body(&mut self, command: GraphBody, _: &[u8]) -> Result<(), CudaError> {
        let device = self.shared.device.clone();
        recorded(self)?.begin_body(&device, command.index)
    }

    fn graph_body_end(&mut self, _: GraphBodyEnd, _: &[u8]) -> Result<(), CudaError> {
        recorded(self)?.end_body()
    }
}

/// Makes a graph launchable as its words say.
fn build(session: &mut Session, graph: u32, flags: u64) -> Result<(), CudaError> {
    // The driver looks at the addresses of copies.
    session.activate()?;
    session.bring_whole()?;
    let words = std::mem::take(&mut session.graphs.table.get_mut(graph)?.words);
    let replayed = replay(session, &words);
    let known = session.graphs.table.get_mut(graph)?;
    known.words = words;
    let Built { graph: real, external, has_conditions, calls } = replayed?;
    (known.external, known.calls) = (external, calls);
    // A condition of another recording is another one to the driver.
    let updated = match &known.executable {
        Some(executable) if !has_conditions => executable.update(&real),
        _ => Err(CudaError::NOT_SUPPORTED),
    };
    let replaced = match updated {
        Ok(()) => None,
        Err(error) if error.is_sticky() => return Err(error),
        Err(_) => known.executable.replace(real.instantiate(flags)?),
    };
    known.is_stale = false;
    keep_until_done(session, replaced)
}

/// A launchable graph is gone once the client's work is done.
fn keep_until_done(session: &mut Session, executable: Option<ExecutableGraph>) -> Result<(), CudaError> {
    if executable.is_some() { Ok(session.keep(Kept::Graph(executable))?) } else { Ok(()) }
}

/// The graph that is being built; commands for that alone mean nothing in the ring.
fn recorded(session: &mut Session) -> Result<&mut Capture, CudaError> {
    session.streams.capture.as_mut().ok_or(CudaError::INVALID_VALUE)
}
