//! Whether a client's staging area is page-locked: that takes milliseconds, in which its session does something else.

use crate::driver::{Device, HostRegistration};
use crate::worker::mailbox::Link;
use crate::worker::memory::host_range::lock_pages;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;

#[derive(Debug)]
pub(super) enum Staging {
    Starting(Option<JoinHandle<Result<HostRegistration, CudaError>>>),
    Locked(#[expect(dead_code, reason = "kept for its drop alone")] HostRegistration),
    Failed(CudaError),
    /// Nobody has used it for long: it has no pages.
    Vacant,
}

impl Staging {
    /// Begins to page-lock the area, in the background.
    pub(super) fn start(device: &Arc<Device>, range: AddressRange, link: &Arc<Link>) -> io::Result<Self> {
        let (device, link) = (device.clone(), link.clone());
        let lock = move || {
            device.make_current()?;
            lock_pages(&device, range, &link)
        };
        Ok(Self::Starting(Some(std::thread::Builder::new().name("staging".to_owned()).spawn(lock)?)))
    }

    /// Waits until it is page-locked.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn wait(&mut self) -> Result<(), CudaError> {
        if let Self::Starting(thread) = self {
            let locked = thread.take().map(JoinHandle::join);
            *self = match locked {
                Some(Ok(Ok(registration))) => Self::Locked(registration),
                Some(Ok(Err(error))) => Self::Failed(error),
                Some(Err(_)) | None => Self::Failed(CudaError::UNKNOWN),
            };
            if let Self::Failed(error) = self {
                tracing::error!(
                    "the staging area cannot be page-locked: {error}; is RLIMIT_MEMLOCK too low?"
                );
            }
        }
        match self {
            Self::Failed(error) => Err(*error),
            _ => Ok(()),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Self::Starting(thread) = self {
            // What it locked is unlocked here, before the range is unmapped.
            drop(thread.take().map(JoinHandle::join));
        }
    }
}
