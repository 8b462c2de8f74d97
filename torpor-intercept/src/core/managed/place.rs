//! Places that a program can name for managed memory.

use crate::core::{CudaResult, devices};
use std::path::PathBuf;
use torpor_proto::error::CudaError;

/// Where memory should be, or was asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A device, by its ordinal.
    Device(i32),
    /// The host.
    Host,
    /// A NUMA node of the host.
    HostNode(i32),
}

/// `CU_DEVICE_CPU`
const CPU: i32 = -1;

/// `CU_DEVICE_INVALID`
pub const NO_DEVICE: i32 = -2;

// CUmemLocationType (cuda.h).
const INVALID: i32 = 0;
const DEVICE: i32 = 1;
const HOST: i32 = 2;
const HOST_NODE: i32 = 3;
const HOST_NODE_OF_CALLER: i32 = 4;

impl Place {
    /// As functions before CUDA 12.2 name it: a device, or -1 for the host.
    ///
    /// # Errors
    /// `INVALID_DEVICE`.
    pub fn of_number(number: i32) -> CudaResult<Self> {
        match number {
            CPU => Ok(Self::Host),
            ordinal if is_device(ordinal) => Ok(Self::Device(ordinal)),
            _ => Err(CudaError::INVALID_DEVICE),
        }
    }

    /// As a `CUmemLocation` names it.
    ///
    /// # Errors
    /// `INVALID_DEVICE` for a device that the program does not see, `INVALID_VALUE` for what is no place.
    pub fn of_location(kind: i32, id: i32) -> CudaResult<Self> {
        match kind {
            DEVICE if is_device(id) => Ok(Self::Device(id)),
            DEVICE => Err(CudaError::INVALID_DEVICE),
            HOST => Ok(Self::Host),
            HOST_NODE if is_node(id) => Ok(Self::HostNode(id)),
            // Its thread may be on another node by the time that the memory is used.
            HOST_NODE_OF_CALLER => Ok(Self::Host),
            _ => Err(CudaError::INVALID_VALUE),
        }
    }

    /// The number of a device, or what stands for the host; `CU_DEVICE_INVALID` for a node and for no place.
    #[must_use]
    pub fn number(place: Option<Self>) -> i32 {
        match place {
            Some(Self::Device(ordinal)) => ordinal,
            Some(Self::Host) => CPU,
            Some(Self::HostNode(_)) | None => NO_DEVICE,
        }
    }

    /// Type and number of a `CUmemLocation`.
    #[must_use]
    pub fn location(place: Option<Self>) -> (i32, i32) {
        match place {
            Some(Self::Device(ordinal)) => (DEVICE, ordinal),
            Some(Self::Host) => (HOST, 0),
            Some(Self::HostNode(node)) => (HOST_NODE, node),
            None => (INVALID, 0),
        }
    }

    /// Whether it may be said to access memory: nodes may not.
    #[must_use]
    pub fn is_processor(self) -> bool {
        !matches!(self, Self::HostNode(_))
    }
}

fn is_device(ordinal: i32) -> bool {
    u32::try_from(ordinal).is_ok_and(|ordinal| ordinal < devices::count())
}

fn is_node(id: i32) -> bool {
    id == 0 || (id > 0 && PathBuf::from(format!("/sys/devices/system/node/node{id}")).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_as_it_was_named() {
        for (kind, id, place, number) in
            [(1, 0, Place::Device(0), 0), (2, 7, Place::Host, -1), (3, 0, Place::HostNode(0), NO_DEVICE)]
        {
            assert_eq!(Place::of_location(kind, id), Ok(place));
            assert_eq!(Place::number(Some(place)), number);
            assert_eq!(Place::location(Some(place)).0, kind);
        }
        assert_eq!(Place::location(None), (0, 0));
        assert_eq!(Place::of_number(-1), Ok(Place::Host));
    }

    #[test]
    fn what_is_no_place_has_the_error_of_cuda() {
        for number in [-2, 1, i32::MAX] {
            assert_eq!(Place::of_number(number), Err(CudaError::INVALID_DEVICE));
            assert_eq!(Place::of_location(1, number), Err(CudaError::INVALID_DEVICE));
        }
        for (kind, id) in [(0, 0), (3, -1), (3, i32::MAX), (5, 0), (i32::MAX, 0)] {
            assert_eq!(Place::of_location(kind, id), Err(CudaError::INVALID_VALUE));
        }
    }
}
