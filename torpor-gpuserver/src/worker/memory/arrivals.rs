//! Arrivals: the groups of copies that are bringing a client's memory to the GPU, and what has to wait for which.
//!
//! The copies run in one stream, in the order of the groups, and an event is recorded behind each group. Work of the client
//! waits, on the GPU, for the last group that it could reach something of.

use crate::driver::{Device, Event, Stream};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use torpor_proto::error::CudaError;

/// A group that comes after all others: to wait for everything.
pub(crate) const EVERYTHING: u64 = u64::MAX;

/// Between two looks at the events.
const LOOK_PERIOD: Duration = Duration::from_micros(20);

/// The groups under way. Groups are numbered from 1 for as long as the session lives.
#[derive(Debug)]
pub(crate) struct Arrivals {
    under_way: VecDeque<Event>,
    /// Reached events, to be recorded again.
    spare: Vec<Event>,
    /// The number of the newest group.
    last: u64,
    looked_at: Instant,
}

impl Arrivals {
    pub(crate) fn new() -> Self {
        Self { under_way: VecDeque::new(), spare: Vec::new(), last: 0, looked_at: Instant::now() }
    }

    /// Whether nothing is under way.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The number of the last group that was closed.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The number of the last group that has arrived, as far as is known.
    pub(crate) fn arrived(&self) -> u64 {
        self.last - self.under_way.len() as u64
    }

    /// Ends a group: everything posted to the stream so far belongs to it, or to an earlier one.
    pub(crate) fn close_group(&mut self, device: &Arc<Device>, stream: &Stream) -> Result<(), CudaError> {
        let event = match self.spare.pop() {
            Some(event) => event,
            None => Event::untimed(device)?,
        };
        event.record(stream, 0)?;
        self.under_way.push_back(event);
        self.last += 1;
        Ok(())
    }

    /// The group to wait for, with its event, so that a group and all before it have arrived; `None` if they have.
    #[inline]
    pub(crate) fn event(&self, group: u64) -> Option<(u64, &Event)> {
        let group = group.min(self.last);
        let index = group.checked_sub(self.arrived() + 1)?;
        self.under_way.get(index as usize).map(|event| (group, event))
    }

    /// Notices what has arrived, now and then.
    ///
    /// # Errors
    /// The context's.
    pub(crate) fn poll(&mut self) -> Result<(), CudaError> {
        if self.under_way.is_empty() || self.looked_at.elapsed() < LOOK_PERIOD {
            return Ok(());
        }
        self.look()
    }

    /// Notices what has arrived, at once.
    ///
    /// # Errors
    /// The context's.
    pub(crate) fn look(&mut self) -> Result<(), CudaError> {
        self.looked_at = Instant::now();
        while let Some(event) = self.under_way.front() {
            match event.query() {
                Ok(()) => self.spare.extend(self.under_way.pop_front()),
                Err(CudaError::NOT_READY) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// All groups have arrived: the stream of the copies is idle.
    pub(crate) fn complete(&mut self) {
        self.spare.extend(self.under_way.drain(..));
    }
}
