//! Nodes that copy pageable memory.
//!
//! A worker does not reach such memory, and every launch finds other bytes in it. So a launchable graph has staging,
//! page-locked memory of its own, with a place for each of these nodes, and the node becomes two: the worker's copy between
//! the device and that place, and one between that place and the program's memory, which is made as a host function is
//! called.

use super::work::{Posted, Work};
use crate::core::stream::host_function;
use crate::core::{Client, CudaResult, Location, StridedCopy, client, copiers, helper_thread};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;

/// Places in the staging begin at a cache line.
const ALIGN_BYTES: u64 = 64;

/// A copy of which a side is pageable.
#[derive(Clone, Copy, Debug)]
pub struct PageableCopy {
    pub(super) copy: StridedCopy,
    way: Way,
    /// In all rows.
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    ToDevice,
    FromDevice,
    /// The processor reaches both sides.
    OnHost,
}

/// Page-locked memory of a launchable graph, and of its launches until they are done.
#[derive(Debug)]
struct Staging {
    range: AddressRange,
}

/// A launchable graph's part in its staging.
pub(super) struct OwnStaging(Arc<Staging>);

/// Gives the nodes of one graph their places, one after the other.
pub(super) struct Places<'a> {
    staging: Option<&'a Arc<Staging>>,
    used_bytes: u64,
}

/// What becomes of a node, in this order, each behind the one before.
pub(super) enum Half {
    /// For the worker.
    Device(Posted),
    /// For a thread of this process.
    Host(Arc<HostCopy>),
}

/// A copy that the processor makes.
#[derive(Debug)]
pub(in crate::core) struct HostCopy {
    copy: StridedCopy,
    /// What one side of it lies in, if not both are the program's.
    staging: Option<Arc<Staging>>,
}

impl PageableCopy {
    /// # Errors
    /// `INVALID_VALUE` for more bytes than there are addresses.
    pub(super) fn new(client: &Client, copy: &StridedCopy) -> CudaResult<Self> {
        let is_device =
            |(address, ..): (u64, u64, u64)| matches!(client.locate(address, 1), Location::Device(_));
        let way = match (is_device(copy.destination), is_device(copy.source)) {
            (true, _) => Way::ToDevice,
            (_, true) => Way::FromDevice,
            _ => Way::OnHost,
        };
        let rows = copy.height.checked_mul(copy.depth);
        let bytes = rows.and_then(|rows| rows.checked_mul(copy.width_bytes));
        let bytes = bytes.filter(|&bytes| bytes.checked_next_multiple_of(ALIGN_BYTES).is_some());
        Ok(Self { copy: *copy, way, bytes: bytes.ok_or(CudaError::INVALID_VALUE)? })
    }

    /// Bytes of staging that it needs.
    pub(super) fn staged_bytes(&self) -> u64 {
        match self.way {
            Way::ToDevice | Way::FromDevice => self.bytes.next_multiple_of(ALIGN_BYTES),
            Way::OnHost => 0,
        }
    }

    /// What becomes of it.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` where there is no staging, `INVALID_VALUE` if the other side is not the device's any more.
    pub(super) fn halves(&self, places: &mut Places<'_>) -> CudaResult<Vec<Half>> {
        let host = |copy, staging| Half::Host(Arc::new(HostCopy { copy, staging }));
        if let Way::OnHost = self.way {
            return Ok(vec![host(self.copy, None)]);
        }
        let staging = places.staging.ok_or(CudaError::NOT_SUPPORTED)?;
        let staged = (places.take(self.staged_bytes())?, self.copy.width_bytes, self.copy.height);
        let to_staging = StridedCopy { destination: staged, ..self.copy };
        let from_staging = StridedCopy { source: staged, ..self.copy };
        let on_device = |copy: &StridedCopy| match Work::reachable_copy(client()?, copy)? {
            Some(Work::Command(posted)) => Ok(Half::Device(posted)),
            _ => Err(CudaError::INVALID_VALUE),
        };
        let staging = Some(staging.clone());
        Ok(match self.way {
            Way::ToDevice => vec![host(to_staging, staging), on_device(&from_staging)?],
            _ => vec![on_device(&to_staging)?, host(from_staging, staging)],
        })
    }
}

/// Pieces of staging whose graphs are gone and which are not given back yet.
static LEFT: Mutex<usize> = Mutex::new(0);
static RETURNED: Condvar = Condvar::new();

/// How long who finds no room waits for one of these: what that waits for may wait for who waits.
const PATIENCE: Duration = Duration::from_secs(5);

fn left() -> MutexGuard<'static, usize> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OwnStaging {
    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub(super) fn new(bytes: u64) -> CudaResult<Self> {
        let client = client()?;
        loop {
            let before = *left();
            match client.lock_host(bytes) {
                Err(CudaError::OUT_OF_MEMORY) if before > 0 => {
                    let waited = RETURNED.wait_timeout_while(left(), PATIENCE, |left| *left >= before);
                    if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
                        return Err(CudaError::OUT_OF_MEMORY);
                    }
                }
                found => return Ok(Self(Arc::new(Staging { range: found? }))),
            }
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.range.bytes
    }
}

impl Drop for OwnStaging {
    fn drop(&mut self) {
        *left() += 1;
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let address = self.range.address;
        // What was launched may still use it, and who drops it may be in the middle of a host function.
        let thread = thread::Builder::new().name("torpor-staging".to_owned());
        let give_back = move || {
            // The process may be ending and the server gone: there is nobody to give it back to.
            let _ = host_function::wait_for_all().and_then(|()| client()?.unlock_host(address));
            *left() -= 1;
            RETURNED.notify_all();
        };
        if !helper_thread::start(thread, give_back) {
            // The process keeps it.
            *left() -= 1;
        }
    }
}

impl<'a> Places<'a> {
    pub(super) fn of(staging: Option<&'a OwnStaging>) -> Self {
        Self { staging: staging.map(|own| &own.0), used_bytes: 0 }
    }

    fn take(&mut self, bytes: u64) -> CudaResult<u64> {
        let AddressRange { address, bytes: most_bytes } = self.staging.ok_or(CudaError::NOT_SUPPORTED)?.range;
        let begins = self.used_bytes;
        let ends = begins.checked_add(bytes).filter(|&ends| ends <= most_bytes);
        self.used_bytes = ends.ok_or(CudaError::OUT_OF_MEMORY)?;
        Ok(address + begins)
    }
}

impl HostCopy {
    /// Copies.
    pub(in crate::core) fn make(&self) {
        let StridedCopy { destination, source, width_bytes, height, depth } = joined(self.copy);
        for (slice, row) in (0..depth).flat_map(|slice| (0..height).map(move |row| (slice, row))) {
            let at = |(address, pitch, rows): (u64, u64, u64)| {
                let row = address.wrapping_add((slice * rows + row) * pitch);
                std::ptr::with_exposed_provenance_mut::<u8>(row as usize)
            };
            let (to, from, bytes) = (at(destination), at(source).cast_const(), width_bytes as usize);
            // SAFETY: the program gave its sides to be copied at every launch of the graph, see `Work::copy`. A side in the
            // staging is mapped in this process as long as that is, and no other memory is.
            unsafe {
                match self.staging {
                    Some(_) => copiers::copy(from, to, bytes),
                    None => std::ptr::copy(from, to, bytes),
                }
            }
        }
    }
}

/// The same bytes in as few rows as it goes.
fn joined(copy: StridedCopy) -> StridedCopy {
    let StridedCopy { destination, source, mut width_bytes, mut height, mut depth } = copy;
    if destination.2 == height && source.2 == height {
        (height, depth) = (height * depth, 1);
    }
    if destination.1 == width_bytes && source.1 == width_bytes {
        (width_bytes, height) = (width_bytes * height, 1);
    }
    StridedCopy { destination, source, width_bytes, height, depth }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Copies between two arrays; each side its pitch and rows from slice to slice.
    fn copied(to: (u64, u64), from: (u64, u64), (width_bytes, height, depth): (u64, u64, u64)) -> Vec<u8> {
        let source: Vec<u8> = (0..100).collect();
        let mut destination = vec![0xff; 100];
        let side = |place: *const u8, (pitch, rows)| (place.expose_provenance() as u64, pitch, rows);
        let copy = StridedCopy {
            destination: side(destination.as_mut_ptr(), to),
            source: side(source.as_ptr(), from),
            width_bytes,
            height,
            depth,
        };
        HostCopy { copy, staging: None }.make();
        destination
    }

    #[test]
    fn every_row_of_every_slice_is_copied_and_nothing_else() {
        let packed = copied((3, 2), (10, 4), (3, 2, 2));
        assert_eq!(packed[..12], [0, 1, 2, 10, 11, 12, 40, 41, 42, 50, 51, 52]);
        assert!(packed[12..].iter().all(|&byte| byte == 0xff));
        let spread = copied((10, 4), (3, 2), (3, 2, 2));
        assert_eq!((&spread[..4], &spread[10..14]), (&[0, 1, 2, 0xff][..], &[3, 4, 5, 0xff][..]));
        assert_eq!((&spread[40..43], &spread[50..54]), (&[6, 7, 8][..], &[9, 10, 11, 0xff][..]));
        assert_eq!(copied((5, 2), (5, 2), (5, 2, 3))[..31], *(0..30).chain([0xff]).collect::<Vec<u8>>());
    }

    #[test]
    fn what_lies_in_one_piece_is_one_row() {
        let copy = |pitch, rows| {
            let side = (4096, pitch, rows);
            let StridedCopy { width_bytes, height, depth, .. } =
                joined(StridedCopy { destination: side, source: side, width_bytes: 4, height: 3, depth: 2 });
            (width_bytes, height, depth)
        };
        assert_eq!(copy(4, 3), (24, 1, 1));
        assert_eq!(copy(8, 3), (4, 6, 1));
        assert_eq!(copy(4, 5), (12, 1, 2));
        assert_eq!(copy(8, 5), (4, 3, 2));
    }
}
