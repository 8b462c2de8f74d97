//! The slots of a node and their names, which come back from the kubelet.

use crate::protocol::device_plugin::{ContainerAllocateRequest, Device};

/// Before a slot's number, in its name: that of its device and of its function.
const PREFIX: &str = "slot-";

/// The slots of a node.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    count: u32,
}

/// Devices that no container can be given.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotsError {
    /// It asks for too many, or none.
    #[error("a container asks for {0} of torpor.dev/gpu, but its programs have one GPU each: ask for 1")]
    Count(usize),
    /// There is none of that name.
    #[error("this node has no device {0:?}")]
    Unknown(String),
}

impl Slots {
    /// So many.
    #[must_use]
    pub fn new(count: u32) -> Self {
        Self { count }
    }

    /// The function of a container that was given these devices.
    ///
    /// # Errors
    /// [`SlotsError`].
    pub fn function(self, request: &ContainerAllocateRequest) -> Result<String, SlotsError> {
        let [device] = &request.devices_ids[..] else {
            return Err(SlotsError::Count(request.devices_ids.len()));
        };
        let number = device.strip_prefix(PREFIX).and_then(|number| number.parse::<u32>().ok());
        let slot = number.filter(|&number| number < self.count).map(name);
        // As it was given out: a number can be written in several ways.
        slot.filter(|slot| slot == device).ok_or_else(|| SlotsError::Unknown(device.clone()))
    }

    /// As the kubelet is told of them.
    #[must_use]
    pub fn devices(self, healthy: bool) -> Vec<Device> {
        let health = if healthy { "Healthy" } else { "Unhealthy" };
        let device = |number| Device { id: name(number), health: health.to_owned(), topology: None };
        (0..self.count).map(device).collect()
    }
}

fn name(number: u32) -> String {
    format!("{PREFIX}{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(devices: &[&str]) -> Result<String, SlotsError> {
        let devices_ids = devices.iter().map(|&device| device.to_owned()).collect();
        Slots::new(3).function(&ContainerAllocateRequest { devices_ids })
    }

    #[test]
    fn a_container_has_one_slot_of_those_there_are() {
        assert_eq!(function(&["slot-2"]).unwrap(), "slot-2");
        assert_eq!(function(&["slot-0", "slot-1"]), Err(SlotsError::Count(2)));
        assert_eq!(function(&[]), Err(SlotsError::Count(0)));
        for name in ["slot-3", "slot-02", "slot-+2", "slot-", "slot-../2", "default", "slot-4294967296"] {
            assert_eq!(function(&[name]), Err(SlotsError::Unknown(name.to_owned())));
        }
    }

    #[test]
    fn every_slot_that_the_kubelet_is_told_of_can_be_allocated() {
        for device in Slots::new(3).devices(true) {
            assert_eq!(function(&[&device.id]).unwrap(), device.id);
        }
    }
}
