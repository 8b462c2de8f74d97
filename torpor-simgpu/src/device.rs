//! Devices: their names, sizes and attributes, and which of them reach each other.

use std::sync::{Arc, Mutex};

use crate::abi::{Out, Uuid};
use crate::attributes::pci_bus;
use crate::context::Context;
use crate::error::{CudaError, Result};
use crate::machine::Machine;
use crate::memory::Budget;

/// A device.
#[derive(Debug)]
pub struct Device {
    /// Its number, from 0.
    pub ordinal: usize,
    /// Its memory.
    pub budget: Arc<Budget>,
    /// Its one context.
    pub primary: Mutex<Primary>,
}

/// The primary context of a device.
#[derive(Debug, Default)]
pub struct Primary {
    /// Its handle and itself, while it is retained.
    pub context: Option<(u64, Arc<Context>)>,
    /// How often it was retained.
    pub retained: u64,
    /// Flags set for it.
    pub flags: u32,
}

impl Device {
    /// A device with this much memory.
    pub fn new(ordinal: usize, memory_bytes: u64) -> Self {
        Self { ordinal, budget: Budget::new(memory_bytes), primary: Mutex::default() }
    }

    fn uuid(&self) -> Uuid {
        uuid_of(self.ordinal)
    }
}

/// The UUID of a device.
pub fn uuid_of(ordinal: usize) -> Uuid {
    let mut uuid = *b"torpor simgpu 00";
    uuid[14] = (ordinal >> 8) as u8;
    uuid[15] = (ordinal & 0xff) as u8;
    uuid
}

/// The number of a device as C sees it.
pub fn ordinal_of(device: usize) -> i32 {
    i32::try_from(device).unwrap_or(i32::MAX)
}

pub fn count(machine: &Machine, count: Out<i32>) -> Result {
    count.set(ordinal_of(machine.devices.len()))
}

pub fn get(machine: &Machine, device: Out<i32>, ordinal: i32) -> Result {
    machine.device(ordinal)?;
    device.set(ordinal)
}

pub fn name(machine: &Machine, name: Out<u8>, room: i32, device: i32) -> Result {
    machine.device(device)?;
    name.set_text(room, machine.config.profile.name)
}

pub fn uuid(machine: &Machine, uuid: Out<Uuid>, device: i32) -> Result {
    uuid.set(machine.device(device)?.uuid())
}

pub fn total_memory(machine: &Machine, bytes: Out<usize>, device: i32) -> Result {
    bytes.set(machine.device(device)?.budget.total() as usize)
}

pub fn attribute(machine: &Machine, value: Out<i32>, attribute: i32, device: i32) -> Result {
    let ordinal = machine.device(device)?.ordinal;
    value.set(
        machine.config.profile.architecture.attribute(attribute, ordinal).ok_or(CudaError::INVALID_VALUE)?,
    )
}

pub fn pci_bus_id(machine: &Machine, text: Out<u8>, room: i32, device: i32) -> Result {
    let ordinal = machine.device(device)?.ordinal;
    text.set_text(room, &format!("0000:{:02X}:00.0", pci_bus(ordinal)))
}

/// Whether two different devices reach each other.
pub fn are_peers(machine: &Machine, a: usize, b: usize) -> bool {
    machine.config.profile.peer_gbps(a, b).is_some()
}

pub fn can_access_peer(machine: &Machine, answer: Out<i32>, device: i32, peer: i32) -> Result {
    let (device, peer) = (machine.device(device)?.ordinal, machine.device(peer)?.ordinal);
    answer.set(i32::from(are_peers(machine, device, peer)))
}

pub fn peer_attribute(
    machine: &Machine,
    value: Out<i32>,
    attribute: u32,
    source: i32,
    target: i32,
) -> Result {
    let (a, b) = (machine.device(source)?.ordinal, machine.device(target)?.ordinal);
    if a == b {
        return Err(CudaError::INVALID_DEVICE);
    }
    let profile = &machine.config.profile;
    let rate = profile.peer_gbps(a, b);
    value.set(match attribute {
        // Performance rank: how many pairs of the machine are faster than this one.
        1 => {
            let peers = |a| (0..machine.devices.len()).filter_map(move |b| profile.peer_gbps(a, b));
            ordinal_of(
                (0..machine.devices.len())
                    .flat_map(peers)
                    .filter(|&other| rate.is_some_and(|rate| other > rate))
                    .count()
                    / 2,
            )
        }
        // Access, native atomics.
        2 | 3 => i32::from(rate.is_some()),
        // Arrays, partial atomics.
        4 | 5 => 0,
        _ => return Err(CudaError::INVALID_VALUE),
    })
}
