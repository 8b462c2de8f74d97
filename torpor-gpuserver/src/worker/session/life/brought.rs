//! What comes with a client, as the server says.

use std::os::fd::OwnedFd;
use torpor_proto::control::worker::Attach;
use torpor_proto::layout::{AddressRange, DEVICE_WINDOW, HOST_WINDOW, PAGE_BYTES, SEGMENT_GRANULE_BYTES};

/// The descriptors that come with a client.
pub(super) struct Brought {
    pub(super) channel: OwnedFd,
    pub(super) host: OwnedFd,
    /// What it was at another worker.
    pub(super) state: Option<OwnedFd>,
}

impl Brought {
    /// These, in the order of the fields.
    ///
    /// # Errors
    /// Why they cannot be it, for people.
    pub(super) fn with(attach: &Attach, descriptors: Vec<OwnedFd>) -> Result<Self, String> {
        let mut descriptors = descriptors.into_iter();
        let (Some(channel), Some(host), state, None) =
            (descriptors.next(), descriptors.next(), descriptors.next(), descriptors.next())
        else {
            return Err("two descriptors must come with a client: its channel and its host range".to_owned());
        };
        if state.is_some() != attach.resumed {
            return Err(
                "a third descriptor, its state, must come with a client that is resumed alone".to_owned()
            );
        }
        Ok(Self { channel, host, state })
    }
}

/// Whether its ranges are made of what ranges are made of.
///
/// # Errors
/// Why not, for people.
pub(super) fn check(attach: &Attach, arena: AddressRange) -> Result<(), String> {
    let granules = [arena.address, arena.bytes];
    let pages = [attach.host_address, attach.host_bytes, attach.staging_bytes];
    if !DEVICE_WINDOW.contains(arena.address, arena.bytes)
        || granules.iter().any(|number| !number.is_multiple_of(SEGMENT_GRANULE_BYTES))
    {
        return Err(format!(
            "an arena of {:#x} bytes at {:#x} is not made of granules of the device window",
            arena.bytes, arena.address
        ));
    }
    if !HOST_WINDOW.contains(attach.host_address, attach.host_bytes)
        || attach.staging_bytes > attach.host_bytes
        || attach.host_bytes == 0
        || pages.iter().any(|number| !number.is_multiple_of(PAGE_BYTES))
    {
        return Err("its host range is not made of pages of the host window".to_owned());
    }
    Ok(())
}
