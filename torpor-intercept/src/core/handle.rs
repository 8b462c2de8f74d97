//! Handles: what the program holds are addresses of this library's own objects, numbered as the worker knows them.
//!
//! Objects of a kind lie in one reserved region and are never unmapped, so any pointer can be checked before it is
//! followed: is it in the region, at the beginning of a slot, and is the slot live. A retired object keeps its memory
//! and may be given out again; that is why objects change through atomics and locks only.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, offset_of};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

const NEVER_USED: u32 = 0;
const LIVE: u32 = 1;
const RETIRED: u32 = 2;

#[repr(C, align(64))]
struct Slot<T> {
    state: AtomicU32,
    value: MaybeUninit<T>,
}

/// All objects of one kind.
pub(crate) struct Table<T: 'static> {
    capacity: u32,
    region: OnceLock<Option<usize>>,
    numbers: Mutex<Numbers>,
    objects: PhantomData<T>,
}

struct Numbers {
    next: u32,
    free: Vec<u32>,
}

impl<T: Send + Sync + 'static> Table<T> {
    /// Room for numbers 1 to `capacity - 1`. Number 0 is never given out.
    pub(crate) const fn new(capacity: u32) -> Self {
        Self {
            capacity,
            region: OnceLock::new(),
            numbers: Mutex::new(Numbers { next: 1, free: Vec::new() }),
            objects: PhantomData,
        }
    }

    /// A live object: one that was retired, made new by `renew`, or one that `make` makes. `None` if all are in use.
    pub(crate) fn insert(&self, make: impl FnOnce(u32) -> T, renew: impl FnOnce(&T)) -> Option<&'static T> {
        let region = self.region()?;
        let (number, is_reused) = {
            let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
            match numbers.free.pop() {
                Some(number) => (number, true),
                None if numbers.next < self.capacity => {
                    numbers.next += 1;
                    (numbers.next - 1, false)
                }
                None => return None,
            }
        };
        // SAFETY: the number is below the capacity, so the slot lies in the region, which is mapped for ever; the number
        // was given to this call alone, so nobody else writes the slot.
        let slot = unsafe { region.add(number as usize).as_mut() };
        if !is_reused {
            slot.value.write(make(number));
        }
        // SAFETY: the value was written above, or before the slot was retired, and never dropped.
        let value = unsafe { &*ptr::from_ref(&slot.value).cast::<T>() };
        if is_reused {
            renew(value);
        }
        slot.state.store(LIVE, Ordering::Release);
        Some(value)
    }

    /// The object behind a handle, if it is one of these and live.
    #[inline]
    pub(crate) fn get(&self, handle: *const c_void) -> Option<&'static T> {
        let base = (*self.region.get()?)?;
        let offset = handle.addr().checked_sub(base)?.checked_sub(offset_of!(Slot<T>, value))?;
        let size = size_of::<Slot<T>>();
        if offset % size != 0 || offset / size >= self.capacity as usize {
            return None;
        }
        // SAFETY: the address is that of a slot of the region, which is mapped for ever and zeroed at first; its state is
        // an atomic, for which every bit pattern is valid.
        let slot =
            unsafe { NonNull::new(ptr::with_exposed_provenance_mut::<Slot<T>>(base + offset))?.as_ref() };
        if slot.state.load(Ordering::Acquire) != LIVE {
            return None;
        }
        // SAFETY: a live slot's value was written before its state was (release above, acquire here).
        Some(unsafe { slot.value.assume_init_ref() })
    }

    /// The object with this number, if it is live.
    pub(crate) fn numbered(&self, number: u32) -> Option<&'static T> {
        if number >= self.capacity {
            return None;
        }
        // SAFETY: the number is below the capacity, so the slot lies in the region, which is mapped for ever.
        let slot = unsafe { self.region()?.add(number as usize).as_ref() };
        if slot.state.load(Ordering::Acquire) != LIVE {
            return None;
        }
        // SAFETY: a live slot's value was written before its state was (release in `insert`, acquire here).
        Some(unsafe { slot.value.assume_init_ref() })
    }

    /// All live objects.
    pub(crate) fn all(&'static self) -> impl Iterator<Item = &'static T> {
        let end = self.numbers.lock().unwrap_or_else(PoisonError::into_inner).next;
        (1..end).filter_map(|number| self.numbered(number))
    }

    /// Takes a handle out of use; a later [`Self::insert`] may give it out again. False if it was not live.
    pub(crate) fn retire(&self, number: u32) -> bool {
        let Some(region) = self.region() else { return false };
        // SAFETY: the number is kept below the capacity, so the slot lies in the region, which is mapped for ever.
        let slot = unsafe { region.add((number % self.capacity) as usize).as_ref() };
        let was_live =
            slot.state.compare_exchange(LIVE, RETIRED, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if was_live {
            self.numbers.lock().unwrap_or_else(PoisonError::into_inner).free.push(number);
        }
        was_live
    }

    /// Takes a handle out of use for good.
    pub(crate) fn retire_for_ever(&self, number: u32) {
        let Some(region) = self.region() else { return };
        // SAFETY: the number is kept below the capacity, so the slot lies in the region, which is mapped for ever.
        let slot = unsafe { region.add((number % self.capacity) as usize).as_ref() };
        let _ = slot.state.compare_exchange(LIVE, RETIRED, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// A number that was taken out of use for good may be given out again after all.
    pub(crate) fn give_back(&self, number: u32) {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).free.push(number);
    }

    /// What the program is given for an object.
    pub(crate) fn handle(object: &'static T) -> *mut c_void {
        ptr::from_ref(object).cast_mut().cast()
    }

    fn region(&self) -> Option<NonNull<Slot<T>>> {
        let base = *self.region.get_or_init(|| {
            use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
            let bytes = self.capacity as usize * size_of::<Slot<T>>();
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a fresh mapping where the kernel likes; it disturbs nothing.
            let region = unsafe {
                mmap_anonymous(ptr::null_mut(), bytes, access, MapFlags::PRIVATE | MapFlags::NORESERVE)
            };
            region.ok().map(|address| address.expose_provenance())
        });
        NonNull::new(ptr::with_exposed_provenance_mut(base?))
    }
}

const _: () = assert!(NEVER_USED == 0, "a fresh mapping is zeroes");

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing {
        number: u32,
        uses: AtomicU32,
    }

    static THINGS: Table<Thing> = Table::new(8);

    fn insert() -> Option<&'static Thing> {
        THINGS.insert(
            |number| Thing { number, uses: AtomicU32::new(1) },
            |thing| {
                thing.uses.fetch_add(1, Ordering::Relaxed);
            },
        )
    }

    #[test]
    fn handles_are_checked_before_they_are_followed() {
        let thing = insert().unwrap();
        let handle = Table::handle(thing);
        assert_eq!(THINGS.get(handle).unwrap().number, thing.number);
        assert!(THINGS.get(handle.wrapping_byte_add(1)).is_none());
        assert!(THINGS.get(handle.wrapping_byte_add(64)).is_none(), "never used");
        assert!(THINGS.get(handle.wrapping_byte_add(64 * 100)).is_none());
        assert!(THINGS.get(ptr::null()).is_none());
        assert!(THINGS.get(ptr::without_provenance(usize::MAX)).is_none());
        assert!(THINGS.retire(thing.number));
        assert!(THINGS.get(handle).is_none(), "retired");
        assert!(!THINGS.retire(thing.number));
        let again = insert().unwrap();
        assert_eq!((again.number, again.uses.load(Ordering::Relaxed)), (thing.number, 2));
        let rest: Vec<_> = std::iter::from_fn(insert).collect();
        assert_eq!(rest.len(), 6, "number 0 is never given out");
    }
}
