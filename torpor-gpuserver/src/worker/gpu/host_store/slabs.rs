//! Slabs of the host store, page-locked here. Slots are counted through all slabs, which are equally long; those of one slab lie
//! side by side.

use crate::chunk::{CHUNK_BYTES, Hash, hash_at};
use crate::driver::{Device, Place};
use crate::swap_mode::SwapMode;
use crate::worker::gpu::host_store::locking::Locked;
use crate::worker::gpu::{Shared, bandwidth};
use crate::worker::server_socket::ServerSocket;
use crate::worker::sync::lock;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use torpor_proto::control::worker::{self, SlabReady, SlabReturned, from_worker};
use torpor_proto::layout::{AddressRange, MAX_SLABS};
use torpor_proto::mapping::{Mapping, check_sealed};

/// What the way from the host is measured with, if a slab has as much.
const MEASURED_BYTES: u64 = 16 << 20;

/// A slab that is page-locked here. Fields are dropped in this order: what is locked in a mapping goes before it.
#[derive(Debug)]
struct Slab {
    locked: Option<Locked>,
    _mapping: Mapping,
}

/// All slabs that are here.
#[derive(Debug)]
pub(super) struct Slabs {
    /// Address of each slab; 0 for those that are not there.
    addresses: Box<[AtomicU64]>,
    /// Length of every slab; 0 until the first is there.
    slab_bytes: AtomicU64,
    kept: Mutex<BTreeMap<u32, Slab>>,
    /// Addresses at which a piece begins that was locked by itself: every slab's first one, and those inside.
    borders: RwLock<BTreeSet<u64>>,
}

impl Slabs {
    /// None yet.
    pub(super) fn new() -> Self {
        Self {
            addresses: (0..MAX_SLABS).map(|_| AtomicU64::new(0)).collect(),
            slab_bytes: AtomicU64::new(0),
            kept: Mutex::default(),
            borders: RwLock::default(),
        }
    }

    /// Where a slot is: page-locked host memory of 2 MiB, at the same address for the GPU. Consecutive slots of one slab
    /// lie side by side. `None` if there is no such slot.
    #[inline]
    pub(super) fn address(&self, slot: u32) -> Option<u64> {
        let slots = self.slab_bytes.load(Ordering::Relaxed) / CHUNK_BYTES;
        let slab = u64::from(slot).checked_div(slots)?;
        // Acquire: a slab that is seen has its length set. SYNC POINT slab.
        let address = self.addresses.get(usize::try_from(slab).ok()?)?.load(Ordering::Acquire);
        (address != 0).then(|| address + u64::from(slot) % slots * CHUNK_BYTES)
    }

    /// Whether the chunk at an address of the store can be copied in one go with the one at the other, which comes before it.
    pub(super) fn joins(&self, before: u64, this: u64) -> bool {
        before + CHUNK_BYTES == this
            && !self.borders.read().unwrap_or_else(PoisonError::into_inner).contains(&this)
    }

    /// The slabs that are here.
    pub(super) fn indices(&self) -> impl Iterator<Item = u32> {
        let here = |(_, address): &(u32, &AtomicU64)| address.load(Ordering::Acquire) != 0;
        (0..).zip(&self.addresses[..]).filter(here).map(|(index, _)| index)
    }

    /// The BLAKE3 of what lies in a slot. Nobody may write there meanwhile, or it is that of nothing.
    pub(super) fn hash(&self, slot: u32) -> Option<Hash> {
        let address = std::ptr::with_exposed_provenance(usize::try_from(self.address(slot)?).ok()?);
        // SAFETY: the slot is inside a slab, which stays mapped as long as a chunk lies there, as one of the caller's does.
        Some(unsafe { hash_at(address) })
    }

    /// The aligned words of a slot, under the same condition.
    pub(super) fn words(&self, slot: u32) -> Option<impl Iterator<Item = u64> + use<>> {
        let address = self.address(slot)?;
        Some((0..CHUNK_BYTES / 8).map(move |index| {
            let word = std::ptr::with_exposed_provenance::<u64>((address + index * 8) as usize);
            // SAFETY: the slot is inside a slab, which stays mapped as long as a chunk lies there, as one of the caller's does;
            // volatile, because the memory is shared.
            unsafe { word.read_volatile() }
        }))
    }

    /// From now on a slab is not here, in which no chunk lies.
    fn remove(&self, index: u32) -> Option<Slab> {
        let removed = lock(&self.kept).remove(&index)?;
        if let Some(locked) = &removed.locked {
            let mut borders = self.borders.write().unwrap_or_else(PoisonError::into_inner);
            locked.borders().for_each(|border| {
                borders.remove(&border);
            });
        }
        self.addresses.get(index as usize)?.store(0, Ordering::Release);
        Some(removed)
    }

    /// Bytes a second from the first slab to the device.
    fn measure(&self, device: &Arc<Device>) -> Option<u64> {
        let address = self.address(0)?;
        let borders = self.borders.read().unwrap_or_else(PoisonError::into_inner);
        let locked_bytes = borders.range(address + 1..).next().map_or(u64::MAX, |next| next - address);
        let bytes = self.slab_bytes.load(Ordering::Relaxed).min(MEASURED_BYTES).min(locked_bytes);
        // SAFETY: the first slab stays mapped and page-locked as long as the worker lives; whatever is in there goes nowhere.
        unsafe { bandwidth::measure(device, (Place::Host, address), bytes).ok() }
    }

    /// Maps a slab and page-locks it, unless what that brings is being measured: beside the work of others, if there is any.
    fn add(
        &self,
        device: &Arc<Device>,
        index: u32,
        bytes: u64,
        descriptors: &[OwnedFd],
        is_locked: bool,
        is_busy: &dyn Fn() -> bool,
    ) -> Result<(), String> {
        let [file] = descriptors else {
            return Err(format!("{} descriptors came with it", descriptors.len()));
        };
        let known = self.slab_bytes.load(Ordering::Relaxed);
        if bytes == 0 || !bytes.is_multiple_of(CHUNK_BYTES) || (known != 0 && known != bytes) {
            return Err(format!("{bytes} bytes are no slab"));
        }
        let place = self.addresses.get(index as usize).ok_or("there are too many slabs")?;
        check_sealed(file, bytes).map_err(|error| error.to_string())?;
        let length = usize::try_from(bytes).map_err(|error| error.to_string())?;
        let mapping =
            Mapping::anywhere(file, length).map_err(|error| format!("it cannot be mapped: {error}"))?;
        let address = mapping.address().as_ptr().expose_provenance() as u64;
        device.make_current().map_err(|error| error.to_string())?;
        // SAFETY: the mapping is dropped after what is locked in it, here and in `Slab`.
        let locked =
            is_locked.then(|| unsafe { Locked::lock(device, AddressRange { address, bytes }, is_busy) });
        let locked = locked.transpose().map_err(|error| error.to_string())?;
        let slab = Slab { locked, _mapping: mapping };
        let mut slabs = lock(&self.kept);
        // A server that goes on where another one was killed may offer it again.
        if place.load(Ordering::Relaxed) != 0 {
            return Ok(());
        }
        if let Some(locked) = &slab.locked {
            self.borders.write().unwrap_or_else(PoisonError::into_inner).extend(locked.borders());
        }
        slabs.insert(index, slab);
        self.slab_bytes.store(bytes, Ordering::Relaxed);
        // Release: whoever sees the address sees the length. SYNC POINT slab.
        place.store(address, Ordering::Release);
        Ok(())
    }
}

/// Takes a slab into use with a thread of its own, since page-locking takes 36 ms per GiB, and tells the server.
pub(crate) fn take_slab(shared: &Arc<Shared>, slab: worker::Slab, descriptors: Vec<OwnedFd>) {
    let worker::Slab { index, bytes } = slab;
    let theirs = shared.clone();
    let take = move || {
        let locked = theirs.tuning.swap != SwapMode::Pageable;
        let is_busy = || theirs.working() > 0;
        let added = theirs.store.slabs.add(&theirs.device, index, bytes, &descriptors, locked, &is_busy);
        // Nobody depends on that.
        let is_measured = index == 0 && locked && added.is_ok();
        let measured = is_measured.then(|| theirs.store.slabs.measure(&theirs.device)).flatten();
        let (failure, bytes_per_second) = (added.err().unwrap_or_default(), measured.unwrap_or(0));
        theirs.tell(from_worker::Body::SlabReady(SlabReady { index, failure, bytes_per_second }));
    };
    if let Err(error) = std::thread::Builder::new().name(format!("slab-{index}")).spawn(take) {
        let failure = format!("no thread for it: {error}");
        shared.tell(from_worker::Body::SlabReady(SlabReady { index, failure, bytes_per_second: 0 }));
    }
}

/// A slab that is let go of: the server is told when it is neither page-locked nor mapped here any more.
struct Returned {
    slab: Option<Slab>,
    index: u32,
    server: Arc<ServerSocket>,
}

impl Drop for Returned {
    fn drop(&mut self) {
        drop(self.slab.take());
        self.server.tell(from_worker::Body::SlabReturned(SlabReturned { index: self.index }));
    }
}

/// Lets go of a slab, aside.
pub(crate) fn return_slab(shared: &Shared, index: u32) {
    let (slab, server) = (shared.store.slabs.remove(index), shared.server.clone());
    shared.aside.give_back(Returned { slab, index, server });
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use torpor_proto::mapping::create_sealed;

    /// A slab of four slots as number 1, which no device knows.
    pub(in crate::worker::gpu::host_store) fn slabs() -> (Slabs, Mapping) {
        let slabs = Slabs::new();
        let file = create_sealed("slab", 4 * CHUNK_BYTES).unwrap();
        let mapping = Mapping::anywhere(&file, 4 * CHUNK_BYTES as usize).unwrap();
        slabs.slab_bytes.store(4 * CHUNK_BYTES, Ordering::Relaxed);
        let address = mapping.address().as_ptr().expose_provenance() as u64;
        slabs.addresses[1].store(address, Ordering::Release);
        (slabs, mapping)
    }

    #[test]
    fn slots_have_addresses_and_hashes_where_their_slab_is() {
        let (slabs, mapping) = slabs();
        let base = mapping.address().as_ptr() as u64;
        let found = [3, 4, 7, 8, u32::MAX].map(|slot| slabs.address(slot));
        assert_eq!(found, [None, Some(base), Some(base + 3 * CHUNK_BYTES), None, None]);
        let zeros = blake3::hash(&vec![0; CHUNK_BYTES as usize]);
        assert_eq!((slabs.hash(3), slabs.hash(4)), (None, Some(*zeros.as_bytes())));
    }
}
