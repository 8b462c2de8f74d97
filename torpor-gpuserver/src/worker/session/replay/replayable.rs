//! What can be executed again of what a client posted since its state was written, and how: the rule, which is pure.
//!
//! A client's memory comes from its state, its commands from its ring, and what it uploaded from its staging area. What is left is
//! memory of the program, and what the program knows already:
//!
//! - A copy from or to page-locked memory is made again as long as the program has been told of nothing since. Once it has been, it
//!   may have changed what was read. What was written is the program's once the copy's own stream has been waited for, and is not
//!   written again.
//! - An answer that the program has is not given again. Where it waited for work, the work is waited for before anything is executed
//!   that the program may have posted since: it relied on that.
//! - A word that a stream writes there may be seen at once: it is not written again, and if its stream has not been waited for the client
//!   is told.
//! - Kernels that reach page-locked memory are not launched again: what they read there, and when, nobody knows. No pointer to
//!   it may be among a launch's words, in a graph, or in saved memory.
//! - What gives the program something that only one worker could give, or takes something from it, is not done again.
//!
//! So all is done again of what is a function of that: the same bits, if the program's kernels are deterministic.

use crate::state_file::Answers;
use std::collections::{HashMap, HashSet};
use torpor_proto::command::{
    ALL, ALL_DEVICES, Command as _, ContextSynchronize, Copy, CopyStrided, EventCreate, EventDestroy,
    EventElapsed, EventQuery, EventRecord, EventSynchronize, Fill, GraphAppend, GraphDestroy,
    GraphInstantiate, GraphLaunch, GraphUpdate, Home, HostLock, ImageErrors, ImageKernels, ImageLoad,
    ImageUnload, ImageUpload, KernelResolve, KernelSetAttribute, Launch, LimitRaise, MemoryAllocate,
    MemoryFree, MemoryInfo, ObjectCreate, ObjectMap, ObjectRelease, ObjectUnmap, OccupancyBlocks,
    OccupancyClusterSize, OccupancyClusters, OccupancyShared, PartLook, PartSplit, Ping, StagingMark,
    StreamCreate, StreamDestroy, StreamQuery, StreamSynchronize, StreamWaitEvent, TensorMapIm2col,
    TensorMapTiled, WordWrite, decode,
};
use torpor_proto::layout::AddressRange;
use torpor_proto::ring::{HistoryError, Malformed, NO_SLOT, Record, Taken};
use torpor_proto::staging::{download_area, upload_area};

/// How a command is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// As any command.
    Afresh,
    /// Without an answer, which the program has.
    Quietly,
    /// Not at all.
    Skip,
}

/// What is done with a command again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// All of the client's work before it is waited for.
    pub(crate) waits: bool,
    /// How it is executed then.
    pub(crate) how: How,
}

/// Why a client cannot be what it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unrepeatable {
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error("what it uploaded is overwritten")]
    Staged,
    #[error("it posted what is no command: {0}")]
    Malformed(#[from] Malformed),
    #[error("{0} is not done twice")]
    Command(&'static str),
    #[error("its kernels reach page-locked memory")]
    ReachesHost,
    #[error("it may have changed page-locked memory that was copied from")]
    Source,
    #[error("it may have seen a copy to page-locked memory that it did not wait for")]
    Destination,
    #[error("it may have seen a word in page-locked memory that it did not wait for")]
    Signal,
    #[error("its worker died over an answer")]
    Torn,
    /// Something went another way than the first time.
    #[error("{0} fails where it did not")]
    Differs(&'static str),
}

/// What is known of the client beside its ring.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    /// Its host range.
    pub(crate) host: AddressRange,
    /// What of it is for staging.
    pub(crate) staging: AddressRange,
    /// Up to where it was answered.
    pub(crate) answers: &'a Answers,
    /// Its graphs at the time of the state.
    pub(crate) graphs: HashMap<u32, Reach>,
}

/// Whether work may reach the client's host range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    Device,
    Host,
}

impl Client<'_> {
    /// What these words may lead to.
    pub(crate) fn reach(&self, words: &[u64]) -> Reach {
        match words.iter().any(|&word| self.host.contains(word, 1)) {
            true => Reach::Host,
            false => Reach::Device,
        }
    }
}

/// What a command is, as far as that matters here.
#[derive(Clone, Copy, Debug)]
enum Role {
    /// It is executed again, and an answer checked.
    Again,
    /// It changes nothing.
    Question,
    /// Something is moved in this stream.
    Moves { stream: u32, reads_program: bool, lands: Lands },
    /// It waits for a stream's work, or for all.
    WaitsFor(Option<u32>),
    /// It tells of work somehow.
    Looks,
}

/// Where a copy ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lands {
    Device,
    /// In a piece of the staging area, whose bytes the program gets after the next wait for the stream.
    Piece,
    /// In page-locked memory of the program.
    Program,
    /// There, too, where the program looks without asking anybody.
    Signal,
}

/// What the program was told behind a point of the ring.
#[derive(Debug, Default)]
struct Told {
    something: bool,
    everything: bool,
    streams: HashSet<u32>,
    /// Whether the next wait was answered: that for all, or for a stream.
    next_of_all: bool,
    next: HashMap<u32, bool>,
}

/// How each of these commands is executed again.
///
/// # Errors
/// [`Unrepeatable`].
pub(crate) fn plan(log: &[Taken], client: &mut Client<'_>) -> Result<Vec<Step>, Unrepeatable> {
    let roles = log.iter().map(|taken| role(&taken.record, client)).collect::<Result<Vec<_>, _>>()?;
    let mut told = Told::default();
    let mut plan = vec![Step { waits: false, how: How::Afresh }; log.len()];
    for (at, (taken, role)) in log.iter().zip(roles).enumerate().rev() {
        let slot = taken.record.header().slot;
        let is_answered =
            slot != NO_SLOT && client.answers.given(slot, taken.end).ok_or(Unrepeatable::Torn)?;
        let tells = matches!(role, Role::WaitsFor(_) | Role::Looks);
        if tells && is_answered {
            // What was posted before the answer did not rely on it; work may even have waited for that.
            let relied = client.answers.taken(slot, taken.end).unwrap_or(taken.end);
            if let Some(step) = plan.get_mut(log.partition_point(|taken| taken.end <= relied)) {
                step.waits = true;
            }
        }
        plan[at].how = match (role, is_answered) {
            (Role::Moves { stream, reads_program, lands }, _) => told.judge(stream, reads_program, lands)?,
            (Role::WaitsFor(stream), _) => told.wait(stream, is_answered),
            (Role::Again | Role::Question | Role::Looks, false) => How::Afresh,
            (Role::Again, true) => How::Quietly,
            (Role::Question, true) => How::Skip,
            (Role::Looks, true) => {
                told.something = true;
                How::Skip
            }
        };
    }
    Ok(plan)
}

impl Told {
    /// How something is moved again behind which this was told.
    fn judge(&self, stream: u32, reads_program: bool, lands: Lands) -> Result<How, Unrepeatable> {
        if reads_program && self.something {
            return Err(Unrepeatable::Source);
        }
        let has_it = match lands {
            Lands::Device => false,
            Lands::Piece => self.next.get(&stream).copied().unwrap_or(self.next_of_all),
            Lands::Program | Lands::Signal if self.everything || self.streams.contains(&stream) => true,
            Lands::Program if self.something => return Err(Unrepeatable::Destination),
            Lands::Program => false,
            Lands::Signal => return Err(Unrepeatable::Signal),
        };
        Ok(if has_it { How::Skip } else { How::Afresh })
    }

    /// There is a wait before what is known so far.
    fn wait(&mut self, stream: Option<u32>, is_answered: bool) -> How {
        match stream {
            Some(stream) => {
                self.next.insert(stream, is_answered);
            }
            None => {
                self.next.clear();
                self.next_of_all = is_answered;
            }
        }
        if !is_answered {
            return How::Afresh;
        }
        self.something = true;
        match stream {
            Some(stream) => {
                self.streams.insert(stream);
            }
            None => self.everything = true,
        }
        How::Skip
    }
}

fn role(record: &Record, client: &mut Client<'_>) -> Result<Role, Unrepeatable> {
    let opcode = record.header().opcode;
    Ok(match opcode {
        MemoryAllocate::OPCODE
        | MemoryFree::OPCODE
        | HostLock::OPCODE
        | ObjectCreate::OPCODE
        | ObjectRelease::OPCODE
        | ObjectMap::OPCODE
        | ObjectUnmap::OPCODE
        | StagingMark::OPCODE
        | LimitRaise::OPCODE
        | Home::OPCODE
        | StreamCreate::OPCODE
        | StreamDestroy::OPCODE
        | StreamWaitEvent::OPCODE
        | EventCreate::OPCODE
        | EventDestroy::OPCODE
        | EventRecord::OPCODE
        | ImageLoad::OPCODE
        | ImageUnload::OPCODE
        | KernelResolve::OPCODE
        | KernelSetAttribute::OPCODE
        | TensorMapTiled::OPCODE
        | TensorMapIm2col::OPCODE
        | GraphInstantiate::OPCODE
        | GraphDestroy::OPCODE
        | GraphUpdate::OPCODE => Role::Again,
        Ping::OPCODE
        | MemoryInfo::OPCODE
        | EventElapsed::OPCODE
        | ImageKernels::OPCODE
        | ImageErrors::OPCODE
        | OccupancyBlocks::OPCODE
        | OccupancyShared::OPCODE
        | OccupancyClusters::OPCODE
        | OccupancyClusterSize::OPCODE
        | PartLook::OPCODE
        | PartSplit::OPCODE => Role::Question,
        StreamSynchronize::OPCODE => Role::WaitsFor(Some(decode::<StreamSynchronize>(record)?.0.stream)),
        ContextSynchronize::OPCODE => match decode::<ContextSynchronize>(record)?.0.context {
            ALL_DEVICES => Role::WaitsFor(None),
            _ => Role::Looks,
        },
        StreamQuery::OPCODE | EventQuery::OPCODE | EventSynchronize::OPCODE => Role::Looks,
        // Else it may have been changed meanwhile.
        ImageUpload::OPCODE
            if decode::<ImageUpload>(record)
                .is_ok_and(|(it, _)| upload_area(client.staging).contains(it.source, it.bytes)) =>
        {
            Role::Again
        }
        Copy::OPCODE => {
            let (Copy { destination, source, bytes, stream, .. }, _) = decode(record)?;
            let is_staged = upload_area(client.staging).contains(source, bytes);
            let reads_program = client.host.contains(source, 1) && !is_staged;
            Role::Moves { stream, reads_program, lands: lands(client, destination, bytes) }
        }
        CopyStrided::OPCODE => {
            let (CopyStrided { destination, source, stream, .. }, _) = decode(record)?;
            let reads_program = client.host.contains(source, 1);
            Role::Moves { stream, reads_program, lands: lands(client, destination, u64::MAX) }
        }
        Fill::OPCODE => {
            let (Fill { address, stream, .. }, _) = decode(record)?;
            Role::Moves { stream, reads_program: false, lands: lands(client, address, u64::MAX) }
        }
        WordWrite::OPCODE => {
            let (WordWrite { address, value, stream, bytes }, _) = decode(record)?;
            if client.reach(&[value]) == Reach::Host {
                return Err(Unrepeatable::ReachesHost);
            }
            let lands = match lands(client, address, bytes.into()) {
                Lands::Program => Lands::Signal,
                lands => lands,
            };
            Role::Moves { stream, reads_program: false, lands }
        }
        Launch::OPCODE => match client.reach(record.words()) {
            Reach::Device => Role::Again,
            Reach::Host => return Err(Unrepeatable::ReachesHost),
        },
        GraphAppend::OPCODE => {
            let (GraphAppend { graph, .. }, _) = decode(record)?;
            if client.reach(record.words()) == Reach::Host {
                client.graphs.insert(graph, Reach::Host);
            }
            Role::Again
        }
        GraphLaunch::OPCODE => {
            let (GraphLaunch { graph, .. }, _) = decode(record)?;
            match client.graphs.get(&graph) {
                Some(Reach::Host) => return Err(Unrepeatable::ReachesHost),
                Some(Reach::Device) | None => Role::Again,
            }
        }
        other => {
            let known = ALL.iter().find(|(known, ..)| *known == other);
            return Err(
                known.map_or(Malformed::Opcode(other).into(), |(_, name, _)| Unrepeatable::Command(name))
            );
        }
    })
}

fn lands(client: &Client<'_>, destination: u64, bytes: u64) -> Lands {
    if !client.host.contains(destination, 1) {
        Lands::Device
    } else if download_area(client.staging).contains(destination, bytes) {
        Lands::Piece
    } else {
        Lands::Program
    }
}

#[cfg(test)]
mod tests;
