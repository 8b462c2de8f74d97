//! A program: what each of its threads does, chosen by a seed alone.

use super::random::Random;
use super::writer::Writer;

/// Kernels and uploads of a program at most: the bits of a word.
pub const MOST_OPERATIONS: usize = 64;

/// What a thread may have of its own, of each kind.
pub const SLOTS: usize = 2;

/// A stream as a thread names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamName {
    /// The legacy default stream.
    Legacy,
    /// The thread's default stream.
    PerThread,
    /// One that lives as long as the program, for all threads.
    Shared(usize),
    /// One that the thread makes and destroys.
    Own(usize),
}

/// An event as a thread names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventName {
    /// One that lives as long as the program, for all threads.
    Shared(usize),
    /// One that the thread makes and destroys.
    Own(usize),
}

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    CreateStream {
        slot: usize,
        is_blocking: bool,
    },
    DestroyStream {
        slot: usize,
    },
    CreateEvent {
        slot: usize,
    },
    DestroyEvent {
        slot: usize,
    },
    /// A kernel that takes its time.
    Launch {
        stream: StreamName,
        operation: usize,
        turns: u64,
    },
    /// Of pageable memory.
    Upload {
        stream: StreamName,
        operation: usize,
    },
    /// Into pageable memory: the call returns when it is there.
    CopyBack {
        stream: StreamName,
    },
    Record {
        event: EventName,
        stream: StreamName,
    },
    Wait {
        stream: StreamName,
        event: EventName,
    },
    SynchronizeStream {
        stream: StreamName,
    },
    QueryStream {
        stream: StreamName,
    },
    SynchronizeEvent {
        event: EventName,
    },
    QueryEvent {
        event: EventName,
    },
    SynchronizeAll,
    /// Lets other threads come first.
    Pause {
        microseconds: u64,
    },
    /// A block for this stream, from the pool in its order or from `cuMemAlloc`.
    Allocate {
        slot: usize,
        stream: StreamName,
        in_order: bool,
    },
    /// A kernel that writes the block first, and looks in the end whether another one has.
    Use {
        slot: usize,
        stream: StreamName,
        operation: usize,
        turns: u64,
    },
    /// As it was allocated.
    Free {
        slot: usize,
        stream: StreamName,
        in_order: bool,
    },
}

impl Step {
    /// The number of the kernel or upload that it starts.
    pub fn operation(&self) -> Option<usize> {
        match *self {
            Self::Launch { operation, .. } | Self::Upload { operation, .. } | Self::Use { operation, .. } => {
                Some(operation)
            }
            _ => None,
        }
    }

    /// The stream that it names, which is there.
    pub fn stream(&self) -> Option<StreamName> {
        match *self {
            Self::Launch { stream, .. }
            | Self::Upload { stream, .. }
            | Self::CopyBack { stream }
            | Self::Record { stream, .. }
            | Self::Wait { stream, .. }
            | Self::SynchronizeStream { stream }
            | Self::QueryStream { stream }
            | Self::Allocate { stream, .. }
            | Self::Use { stream, .. }
            | Self::Free { stream, .. } => Some(stream),
            _ => None,
        }
    }

    /// The event that it names, which is there.
    pub fn event(&self) -> Option<EventName> {
        match *self {
            Self::Record { event, .. }
            | Self::Wait { event, .. }
            | Self::SynchronizeEvent { event }
            | Self::QueryEvent { event } => Some(event),
            _ => None,
        }
    }

    /// Whether it launches a kernel.
    pub fn is_kernel(&self) -> bool {
        matches!(self, Self::Launch { .. } | Self::Use { .. })
    }

    /// Whether it is work that streams wait for.
    pub fn is_work(&self) -> bool {
        self.operation().is_some() || matches!(self, Self::CopyBack { .. })
    }

    /// Whether it puts something into a stream's order.
    pub fn is_in_stream(&self) -> bool {
        self.is_work() || matches!(self, Self::Record { .. } | Self::Wait { .. })
    }
}

/// What the threads do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// For each stream of all threads, whether it is blocking.
    pub shared_streams: Vec<bool>,
    /// Events of all threads.
    pub shared_events: usize,
    /// The steps of each.
    pub threads: Vec<Vec<Step>>,
    /// Kernels and uploads.
    pub operations: usize,
}

impl Program {
    /// The program of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let shared_streams: Vec<bool> = (0..=random.below(2)).map(|_| random.one_in(2)).collect();
        let shared_events = 1 + random.below(2);
        let mut program = Self { shared_streams, shared_events, threads: Vec::new(), operations: 0 };
        for _ in 0..2 + random.below(3) {
            let steps = Writer::new(&mut random, &mut program).write();
            program.threads.push(steps);
        }
        program
    }
}
