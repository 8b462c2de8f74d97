//! Nodes that copy, fill, or record and await events.

use super::pageable::PageableCopy;
use super::work::Work;
use crate::core::copy::Direction;
use crate::core::event::EXTERNAL;
use crate::core::{Client, CudaResult, Event, Location, StridedCopy};
use torpor_proto::command::{Copy, CopyStrided, EventRecord, Fill, StreamWaitEvent};
use torpor_proto::error::CudaError;

/// A copy as a node does it.
#[derive(Clone, Copy, Debug)]
pub struct CopyNode {
    /// From where to where.
    pub copy: StridedCopy,
    /// What is written.
    pub to: Location,
    /// What is read.
    pub from: Location,
}

impl Work {
    /// A copy.
    ///
    /// # Errors
    /// `INVALID_VALUE` for an empty one, a row wider than its pitch, or a side that is to be the device's and is not.
    ///
    /// # Safety
    /// Pageable sides are valid at every launch of a graph that has it, as for the CUDA function this serves.
    pub unsafe fn copy(client: &Client, copy: &StridedCopy, direction: Direction) -> CudaResult<Self> {
        if copy.is_empty() {
            return Err(CudaError::INVALID_VALUE);
        }
        let (to, from) = (client.locate(copy.destination.0, 1), client.locate(copy.source.0, 1));
        direction.check(to, from)?;
        match Self::reachable_copy(client, copy)? {
            Some(work) => Ok(work),
            None => Ok(Self::Pageable(PageableCopy::new(client, copy)?)),
        }
    }

    /// A copy that a worker makes, of which a row is simpler; `None` if a side is pageable.
    pub(super) fn reachable_copy(client: &Client, copy: &StridedCopy) -> CudaResult<Option<Self>> {
        let Some(command) = client.strided_command(copy, 0)? else { return Ok(None) };
        if copy.height.saturating_mul(copy.depth) > 1 {
            return Ok(Some(Self::command(&command, &[])));
        }
        let CopyStrided { destination, source, width_bytes, .. } = command;
        let row = Copy { destination, source, bytes: width_bytes, stream: 0, reserved: 0 };
        Ok(Some(Self::command(&row, &[])))
    }

    /// A fill with elements of 1, 2 or 4 bytes.
    ///
    /// # Errors
    /// `INVALID_VALUE` for an empty one, other elements, pageable memory or a misaligned address.
    pub fn fill(
        client: &Client,
        address: u64,
        pitch: u64,
        (width, height): (u64, u64),
        value: (u32, u32),
    ) -> CudaResult<Self> {
        if width == 0 || height == 0 || ![1, 2, 4].contains(&value.1) {
            return Err(CudaError::INVALID_VALUE);
        }
        let command = client.fill_command(address, pitch, (width, height), value, (0, false))?;
        Ok(Self::command(&command, &[]))
    }

    /// The record of an event.
    #[must_use]
    pub fn record_event(event: &Event) -> Self {
        let command = EventRecord { event: event.number, stream: 0, flags: EXTERNAL, reserved: 0 };
        Self::command(&command, &[])
    }

    /// A wait for an event.
    #[must_use]
    pub fn await_event(event: &Event) -> Self {
        let command = StreamWaitEvent { stream: 0, event: event.number, flags: EXTERNAL, reserved: 0 };
        Self::command(&command, &[])
    }

    /// The copy that it is.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is none.
    pub fn as_copy(&self, client: &Client) -> CudaResult<CopyNode> {
        let copy = if let Self::Pageable(pageable) = self {
            pageable.copy
        } else if let Some((row, _)) = self.as_command::<Copy>() {
            StridedCopy::row(row.destination, row.source, row.bytes)
        } else {
            let (copy, _) = self.as_command::<CopyStrided>().ok_or(CudaError::INVALID_VALUE)?;
            StridedCopy {
                destination: (copy.destination, copy.destination_pitch, copy.destination_height),
                source: (copy.source, copy.source_pitch, copy.source_height),
                width_bytes: copy.width_bytes,
                height: copy.height,
                depth: copy.depth,
            }
        };
        let (to, from) = (client.locate(copy.destination.0, 1), client.locate(copy.source.0, 1));
        Ok(CopyNode { copy, to, from })
    }

    /// The fill that it is.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is none.
    pub fn as_fill(&self) -> CudaResult<Fill> {
        self.as_command().map(|(fill, _)| fill).ok_or(CudaError::INVALID_VALUE)
    }

    /// The event that it records or waits for.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is no such node, or the event is gone.
    pub fn as_event(&self) -> CudaResult<&'static Event> {
        let recorded = self.as_command::<EventRecord>().map(|(record, _)| record.event);
        let awaited = || self.as_command::<StreamWaitEvent>().map(|(wait, _)| wait.event);
        Event::numbered(recorded.or_else(awaited).ok_or(CudaError::INVALID_VALUE)?)
    }
}
