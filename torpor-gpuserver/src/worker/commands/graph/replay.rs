//! Building a graph of the driver's from records: each is executed while the driver records what it would do.

use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::streams::capture::{Built, Capture};
use torpor_proto::command::{
    Command, Copy, CopyStrided, Dispatched, EventRecord, Fill, GraphBody, GraphBodyEnd, GraphCondition,
    GraphConditional, GraphDependencies, GraphEmpty, Launch, StreamWaitEvent, WordWrite, dispatch,
};
use torpor_proto::error::CudaError;
use torpor_proto::ring::Record;

/// Records that are nodes.
const NODES: [u16; 9] = [
    Launch::OPCODE,
    Copy::OPCODE,
    CopyStrided::OPCODE,
    Fill::OPCODE,
    WordWrite::OPCODE,
    EventRecord::OPCODE,
    StreamWaitEvent::OPCODE,
    GraphEmpty::OPCODE,
    GraphConditional::OPCODE,
];

/// The others that a graph may consist of.
const OTHERS: [u16; 4] =
    [GraphDependencies::OPCODE, GraphCondition::OPCODE, GraphBody::OPCODE, GraphBodyEnd::OPCODE];

/// Builds a graph of records.
pub(crate) fn replay(session: &mut Session, words: &[u64]) -> Result<Built, Halt> {
    session.streams.capture = Some(Capture::begin(&session.shared.device)?);
    let replayed = replay_records(session, words);
    let capture = session.streams.capture.take().ok_or(CudaError::UNKNOWN)?;
    let built = capture.end();
    replayed?;
    Ok(built?)
}

fn replay_records(session: &mut Session, words: &[u64]) -> Result<(), Halt> {
    let mut rest = words;
    while let Some(&first) = rest.first() {
        if session.is_interrupted() {
            return Err(Halt::Interrupted);
        }
        // A record's first word has its length in the low half, see torpor_proto::ring.
        let length = (first & 0xffff_ffff) as usize;
        let (record, behind) = rest.split_at_checked(length).ok_or(CudaError::INVALID_VALUE)?;
        let record = Record::from_words(record).map_err(|_| CudaError::INVALID_VALUE)?;
        let opcode = record.header().opcode;
        if !NODES.contains(&opcode) && !OTHERS.contains(&opcode) {
            return Err(CudaError::INVALID_VALUE.into());
        }
        match dispatch(session, &record) {
            Ok(Dispatched::Posted(_, result)) => result?,
            Ok(Dispatched::Answer(..) | Dispatched::Pending(..)) | Err(_) => {
                return Err(CudaError::INVALID_VALUE.into());
            }
        }
        if NODES.contains(&opcode) {
            session.streams.capture.as_mut().ok_or(CudaError::UNKNOWN)?.note_node()?;
        }
        rest = behind;
    }
    Ok(())
}
