//! Copy engines: which stream's copies are next.
//!
//! A device has one engine for each direction between it and the host. An engine goes on with the stream that it serves
//! while that stream has a further copy for it that could start at once; then it turns to the stream that has waited for it
//! longest. So hardware does (H200: 600 KiB in a second stream were there after 2451 of the 2453 µs that 128 MiB took in a
//! first one, whatever the streams' priorities).
//!
//! Who is served occupies the link as before ([`Resource`](crate::clock::Resource)), which devices may share.
//!
//! Limits: copies within a device and between devices need no engine here. Each copy of a graph waits for its own turn.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::clock::Route;
use crate::error::Result;
use crate::lock;
use crate::machine::Machine;
use crate::operation::Place;
use crate::stream::HEALTH_INTERVAL;

/// One engine of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Copies from the host to this device.
    HostToDevice(usize),
    /// Copies from this device to the host.
    DeviceToHost(usize),
}

impl Engine {
    /// The engine that a copy needs.
    pub fn of(route: Route) -> Option<Self> {
        match route {
            Route::HostToDevice { device, .. } => Some(Self::HostToDevice(device)),
            Route::DeviceToHost { device, .. } => Some(Self::DeviceToHost(device)),
            Route::Device(_) | Route::Peer(..) | Route::Host => None,
        }
    }
}

/// The streams in front of each engine. A stream is in one line at most.
#[derive(Debug, Default)]
pub struct Engines {
    /// Streams by number; the first of a line is served.
    lines: Mutex<Vec<(Engine, VecDeque<u64>)>>,
    moved: Condvar,
}

impl Engines {
    /// Waits until an engine serves the stream, which it then does until the stream leaves.
    pub fn enter(&self, machine: &Machine, engine: Engine, place: &Place) -> Result {
        let mut lines = lock(&self.lines);
        let index = lines.iter().position(|line| line.0 == engine).unwrap_or_else(|| {
            lines.push((engine, VecDeque::new()));
            lines.len() - 1
        });
        if !lines[index].1.contains(&place.stream) {
            lines[index].1.push_back(place.stream);
        }
        while lines[index].1.front() != Some(&place.stream) {
            machine.health(Some(place.device))?;
            lines = self.moved.wait_timeout(lines, HEALTH_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// The engine that the stream is at, if any.
    pub fn at(&self, stream: u64) -> Option<Engine> {
        lock(&self.lines).iter().find(|line| line.1.contains(&stream)).map(|line| line.0)
    }

    /// The stream needs no engine now.
    pub fn leave(&self, stream: u64) {
        lock(&self.lines).iter_mut().for_each(|line| line.1.retain(|&other| other != stream));
        self.moved.notify_all();
    }
}
