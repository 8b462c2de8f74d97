//! What a node does.

use super::Graph;
use super::conditional::Conditional;
use super::memory::Held;
use super::pageable::PageableCopy;
use crate::core::{LaunchedFunction, WordOperation};
use std::ffi::c_void;
use std::sync::Arc;
use torpor_proto::command::{Command, Copy, CopyStrided, EventRecord, Fill, Launch, StreamWaitEvent};
use torpor_proto::ring::{HEADER_WORDS, NO_SLOT, Record, encode_record};

/// What a node does.
#[derive(Clone, Debug)]
pub enum Work {
    /// A command of a worker, as its record: one of [`Launch`], [`struct@Copy`], [`CopyStrided`], [`Fill`], or, about an event that
    /// exists outside of the graph, [`EventRecord`], [`StreamWaitEvent`].
    Command(Posted),
    /// A copy of memory that no worker reaches.
    Pageable(PageableCopy),
    /// Nothing.
    Empty,
    /// Calls a function of the program.
    Host(HostCall),
    /// Writes words and waits for words, one after the other.
    Words(Arc<[WordOperation]>),
    /// Everything in a graph that belongs to this node.
    Child(&'static Graph),
    /// What a value that kernels set decides.
    Conditional(Conditional),
    /// Memory is there from here on.
    Allocate(Arc<Held>),
    /// The memory at this address is used by nothing behind this.
    Free(u64),
}

/// A command's record.
#[derive(Clone, Debug)]
pub struct Posted {
    opcode: u16,
    pub(super) record: Arc<[u64]>,
}

/// `CUDA_HOST_NODE_PARAMS`
#[derive(Clone, Copy, Debug)]
pub struct HostCall {
    /// What is called.
    pub function: LaunchedFunction,
    /// With what.
    pub data: *mut c_void,
}

// SAFETY: the pointer is the program's, which gives it to be passed to its function in another thread.
unsafe impl Send for HostCall {}
// SAFETY: as above.
unsafe impl Sync for HostCall {}

/// `CUgraphNodeType`, `cudaGraphNodeType`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum NodeType {
    /// A kernel.
    Kernel = 0,
    /// A copy.
    Copy = 1,
    /// A fill.
    Fill = 2,
    /// A host function.
    Host = 3,
    /// A graph in the graph.
    Graph = 4,
    /// Nothing.
    Empty = 5,
    /// A wait for an event.
    WaitEvent = 6,
    /// An event's record.
    RecordEvent = 7,
    /// Memory comes.
    Allocate = 10,
    /// Memory goes.
    Free = 11,
    /// Words are written and waited for.
    Words = 12,
    /// A condition.
    Conditional = 13,
}

impl Work {
    /// A command.
    pub(in crate::core) fn command<C: Command>(command: &C, tail: &[u8]) -> Self {
        let mut record = Vec::with_capacity(HEADER_WORDS + command.words().len() + tail.len().div_ceil(8));
        encode_record(&mut record, C::OPCODE, NO_SLOT, command.words(), tail);
        Self::Command(Posted { opcode: C::OPCODE, record: record.into() })
    }

    /// Its kind.
    #[must_use]
    pub fn node_type(&self) -> NodeType {
        match self {
            Self::Command(posted) => match posted.opcode {
                Launch::OPCODE => NodeType::Kernel,
                Copy::OPCODE | CopyStrided::OPCODE => NodeType::Copy,
                Fill::OPCODE => NodeType::Fill,
                EventRecord::OPCODE => NodeType::RecordEvent,
                StreamWaitEvent::OPCODE => NodeType::WaitEvent,
                _ => NodeType::Empty,
            },
            Self::Pageable(_) => NodeType::Copy,
            Self::Empty => NodeType::Empty,
            Self::Host(_) => NodeType::Host,
            Self::Words(_) => NodeType::Words,
            Self::Child(_) => NodeType::Graph,
            Self::Conditional(_) => NodeType::Conditional,
            Self::Allocate(_) => NodeType::Allocate,
            Self::Free(_) => NodeType::Free,
        }
    }

    /// The command that it is, with its variable part, if it is one of this kind.
    pub(in crate::core) fn as_command<C: Command>(&self) -> Option<(C, Vec<u8>)> {
        let Self::Command(posted) = self else { return None };
        if posted.opcode != C::OPCODE {
            return None;
        }
        let record = Record::from_words(&posted.record).ok()?;
        let (body, tail) = record.parts(size_of::<C>() / 8).ok()?;
        Some((bytemuck::pod_read_unaligned(bytemuck::cast_slice(body)), tail.to_vec()))
    }
}
