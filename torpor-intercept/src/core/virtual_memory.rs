//! Virtual memory management: addresses that the program reserves, memory objects, and which of these is mapped where.
//!
//! A reservation is known here alone and costs nothing. An object is named by its *home*, addresses of the arena that nothing
//! else uses as long as it is there: that number is the program's handle, too. The worker hears of an object's creation,
//! of each mapping, and of its end, which is when it has neither handles nor mappings. One that another process made
//! (`core/ipc`) is an object like any other.

use super::ipc::Secret;
use super::reservations::{Place, Reservations};
use super::{Client, CudaResult};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use torpor_proto::command::{MemoryImport, ObjectCreate, ObjectMap, ObjectRelease, ObjectUnmap};
use torpor_proto::error::CudaError;
use torpor_proto::layout::{AddressRange, DEVICE_WINDOW, SEGMENT_GRANULE_BYTES};

/// `CUmemAccess_flags`, as the program gave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(pub u64);

/// What the program wanted of an object, to be told again (`CUmemAllocationProp`).
pub type ObjectProperties = [u32; 8];

/// Where in them the number of the device is.
pub(super) const DEVICE: usize = 3;

/// Where an object of another process comes from.
#[derive(Clone, Copy)]
pub(super) struct Source {
    /// What it is imported with.
    pub(super) secret: Secret,
    /// Whose it is.
    pub(super) exporter: u64,
}

/// All that this process has of it.
#[derive(Default)]
pub(super) struct VirtualMemory {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    reservations: Reservations,
    /// By first address.
    views: BTreeMap<u64, View>,
    /// By home.
    objects: BTreeMap<u64, Object>,
}

#[derive(Clone, Copy)]
struct View {
    home: u64,
    bytes: u64,
    access: Access,
}

struct Object {
    bytes: u64,
    properties: ObjectProperties,
    /// What other processes import it with, or this one did.
    secret: Option<Secret>,
    handles: u32,
    views: u32,
}

impl VirtualMemory {
    /// The mapping that an address lies in.
    pub(super) fn view_of(&self, address: u64) -> Option<AddressRange> {
        self.lock().view_of(address).map(|(address, view)| AddressRange { address, bytes: view.bytes })
    }

    /// The ordinal of the device that has what is mapped there, as the program said; `None` if nothing is.
    pub(super) fn owner_of(&self, address: u64) -> Option<u32> {
        let inner = self.lock();
        let (_, view) = inner.view_of(address)?;
        Some(inner.objects.get(&view.home)?.properties[DEVICE])
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn view_of(&self, address: u64) -> Option<(u64, View)> {
        let (&start, view) = self.views.range(..=address).next_back()?;
        (address - start < view.bytes).then_some((start, *view))
    }

    /// The mappings that a range is made of, whole and without a gap.
    fn views_in(&self, range: AddressRange) -> CudaResult<Vec<u64>> {
        let (mut at, mut starts) = (range.address, Vec::new());
        while at < range.end() {
            at += self.views.get(&at).ok_or(CudaError::INVALID_VALUE)?.bytes;
            starts.push(at);
        }
        if at != range.end() || range.bytes == 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        starts.rotate_right(1);
        starts[0] = range.address;
        Ok(starts)
    }

    fn object(&mut self, handle: u64) -> CudaResult<&mut Object> {
        let object = self.objects.get_mut(&handle).filter(|object| object.handles > 0);
        object.ok_or(CudaError::INVALID_VALUE)
    }

    /// Whether nothing refers to an object any more; it is forgotten then.
    fn is_over(&mut self, home: u64) -> bool {
        let is_over = self.objects.get(&home).is_some_and(|object| object.handles == 0 && object.views == 0);
        if is_over {
            self.objects.remove(&home);
        }
        is_over
    }
}

impl Client {
    /// `cuMemAddressReserve`. An alignment of 0 is any; `wanted` is where, if that is free.
    ///
    /// # Errors
    /// `INVALID_VALUE` for lengths that are no multiple of the granularity; `OUT_OF_MEMORY` without such addresses.
    pub fn reserve_addresses(&'static self, bytes: u64, alignment: u64, wanted: u64) -> CudaResult<u64> {
        self.check_usable()?;
        let is_possible = alignment == 0 || alignment.is_power_of_two();
        if bytes == 0 || !bytes.is_multiple_of(SEGMENT_GRANULE_BYTES) || !is_possible {
            return Err(CudaError::INVALID_VALUE);
        }
        if bytes > DEVICE_WINDOW.bytes {
            return Err(CudaError::OUT_OF_MEMORY);
        }
        let wanted = if alignment > 0 && !wanted.is_multiple_of(alignment) { 0 } else { wanted };
        let found = self.memory.keep_addresses(bytes, alignment, wanted);
        let owned = match found {
            Some(owned) => owned,
            None => self.reserve_fewer_addresses(alignment).ok_or(CudaError::OUT_OF_MEMORY)?,
        };
        self.virtual_memory.lock().reservations.insert(owned, bytes);
        Ok(owned.address)
    }

    /// Addresses for a reservation that has no room, which will use a part of it: what is free, or what others have and do not use.
    fn reserve_fewer_addresses(&self, alignment: u64) -> Option<AddressRange> {
        self.give_up_reserved(SEGMENT_GRANULE_BYTES);
        self.memory.keep_fewer_addresses(alignment)
    }

    /// What `take` finds, and if that is nothing, what it finds after reservations have given up `bytes` that nothing is mapped at.
    pub(super) fn or_from_reservations<T>(&self, bytes: u64, take: impl Fn() -> Option<T>) -> Option<T> {
        take().or_else(|| self.give_up_reserved(bytes).then(take).flatten())
    }

    /// Frees `bytes` in a row that a reservation has and does not use, or half of what it does not use. False if none has as many.
    fn give_up_reserved(&self, bytes: u64) -> bool {
        let mut inner = self.virtual_memory.lock();
        let Inner { reservations, views, .. } = &mut *inner;
        let used_until = |owned: AddressRange| {
            let last = views.range(owned.address..owned.end()).next_back();
            last.map_or(owned.address, |(&start, view)| start + view.bytes)
        };
        let Some(left) = reservations.give_up(bytes, used_until) else { return false };
        self.memory.keep_less(left);
        true
    }

    /// `cuMemAddressFree`.
    ///
    /// # Errors
    /// `INVALID_VALUE` if that is no whole reservation, or something is mapped there.
    pub fn free_addresses(&self, address: u64, bytes: u64) -> CudaResult<()> {
        let mut inner = self.virtual_memory.lock();
        let owned = inner.reservations.owned(address, bytes).ok_or(CudaError::INVALID_VALUE)?;
        if inner.views.range(owned.address..owned.end()).next().is_some() {
            return Err(CudaError::INVALID_VALUE);
        }
        inner.reservations.remove(address);
        drop(inner);
        self.memory.return_addresses(address);
        Ok(())
    }

    /// `cuMemCreate`: the handle of a new object.
    ///
    /// # Errors
    /// `INVALID_VALUE` for lengths that are no multiple of the granularity; `OUT_OF_MEMORY`.
    pub fn create_object(&'static self, bytes: u64, properties: ObjectProperties) -> CudaResult<u64> {
        self.settle()?;
        let make = |home| self.call(&ObjectCreate { home, bytes }, &[]).map(drop);
        self.add_object(bytes, properties, None, make)
    }

    /// The handle of an object of another process, which this one does not have yet.
    ///
    /// # Errors
    /// `INVALID_VALUE` if there is none (any more), it has another length, or it is another function's.
    pub(super) fn import_new_object(
        &'static self,
        source: Source,
        bytes: u64,
        properties: ObjectProperties,
    ) -> CudaResult<u64> {
        let Source { secret, exporter } = source;
        let import = |home| self.call(&MemoryImport { home, bytes, secret, exporter }, &[]).map(drop);
        self.add_object(bytes, properties, Some(secret), import)
    }

    /// The worker is told by `make`.
    fn add_object(
        &'static self,
        bytes: u64,
        properties: ObjectProperties,
        secret: Option<Secret>,
        make: impl FnOnce(u64) -> CudaResult<()>,
    ) -> CudaResult<u64> {
        self.check_usable()?;
        if bytes == 0 || !bytes.is_multiple_of(SEGMENT_GRANULE_BYTES) {
            return Err(CudaError::INVALID_VALUE);
        }
        let keep = || self.memory.keep_addresses(bytes, 0, 0);
        let home = self.or_from_reservations(bytes, keep).ok_or(CudaError::OUT_OF_MEMORY)?.address;
        if let Err(error) = make(home) {
            self.memory.return_addresses(home);
            return Err(error);
        }
        let object = Object { bytes, properties, secret, handles: 1, views: 0 };
        self.virtual_memory.lock().objects.insert(home, object);
        Ok(home)
    }

    /// Notes what others import an object with. Returns its length.
    ///
    /// # Errors
    /// `INVALID_VALUE` if there is no such handle.
    pub(super) fn note_object_secret(&self, handle: u64, secret: Secret) -> CudaResult<u64> {
        let mut inner = self.virtual_memory.lock();
        let object = inner.object(handle)?;
        object.secret = Some(secret);
        Ok(object.bytes)
    }

    /// The handle of the object that is imported with this, if this process has it.
    pub(super) fn object_of_secret(&self, secret: Secret) -> Option<u64> {
        let inner = self.virtual_memory.lock();
        let found = inner.objects.iter().find(|(_, object)| object.secret == Some(secret));
        found.map(|(&home, _)| home)
    }

    /// `cuMemRelease`: an object that is mapped stays until it is unmapped.
    ///
    /// # Errors
    /// `INVALID_VALUE` if there is no such handle.
    pub fn release_object(&'static self, handle: u64) -> CudaResult<()> {
        let mut inner = self.virtual_memory.lock();
        inner.object(handle)?.handles -= 1;
        let is_over = inner.is_over(handle);
        drop(inner);
        if is_over { self.end_object(handle) } else { Ok(()) }
    }

    /// `cuMemRetainAllocationHandle`: one more handle for what is mapped at an address.
    ///
    /// # Errors
    /// `INVALID_VALUE` if nothing is.
    pub fn retain_object(&self, address: u64) -> CudaResult<u64> {
        let mut inner = self.virtual_memory.lock();
        let (_, view) = inner.view_of(address).ok_or(CudaError::INVALID_VALUE)?;
        let object = inner.objects.get_mut(&view.home).ok_or(CudaError::INVALID_VALUE)?;
        object.handles = object.handles.checked_add(1).ok_or(CudaError::INVALID_VALUE)?;
        Ok(view.home)
    }

    /// One more handle for an object that has one, or is mapped.
    ///
    /// # Errors
    /// `INVALID_VALUE` if there is no such object.
    pub(super) fn share_object(&self, handle: u64) -> CudaResult<u64> {
        let mut inner = self.virtual_memory.lock();
        let object = inner.objects.get_mut(&handle).ok_or(CudaError::INVALID_VALUE)?;
        object.handles = object.handles.checked_add(1).ok_or(CudaError::INVALID_VALUE)?;
        Ok(handle)
    }

    /// `CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES` of what is mapped at an address; none of anything else.
    pub fn allowed_handle_types(&self, address: u64) -> u64 {
        let inner = self.virtual_memory.lock();
        let view = inner.view_of(address);
        let object = view.and_then(|(_, view)| inner.objects.get(&view.home));
        object.map_or(0, |object| object.properties[1].into())
    }

    /// `cuMemGetAllocationPropertiesFromHandle`.
    ///
    /// # Errors
    /// `INVALID_VALUE` if there is no such handle.
    pub fn object_properties(&self, handle: u64) -> CudaResult<ObjectProperties> {
        Ok(self.virtual_memory.lock().object(handle)?.properties)
    }

    /// `cuMemMap`: all of an object, at addresses of one reservation. Nobody may use it before [`Self::set_access`].
    ///
    /// # Errors
    /// `INVALID_VALUE` for anything else; `OUT_OF_MEMORY` if its contents find no room on the GPU, or something else is at these
    /// addresses, which are more than one reservation's.
    pub fn map_object(&'static self, address: u64, bytes: u64, handle: u64) -> CudaResult<()> {
        let mut inner = self.virtual_memory.lock();
        let is_whole = inner.object(handle)?.bytes == bytes;
        let range = AddressRange { address, bytes };
        let place = inner.reservations.place(range);
        if !is_whole || place == Place::Nowhere || !address.is_multiple_of(SEGMENT_GRANULE_BYTES) {
            return Err(CudaError::INVALID_VALUE);
        }
        let last = inner.views.range(..range.end()).next_back();
        let is_taken = last.is_some_and(|(&start, view)| start + view.bytes > address);
        if place == Place::Promised || is_taken && inner.reservations.is_disputed(range) {
            return Err(CudaError::OUT_OF_MEMORY);
        }
        if is_taken {
            return Err(CudaError::INVALID_VALUE);
        }
        // Noted before the worker is asked, so that no other thread takes the addresses or ends the object meanwhile.
        inner.object(handle)?.views += 1;
        inner.views.insert(address, View { home: handle, bytes, access: Access(0) });
        drop(inner);
        let mapped = self.call(&ObjectMap { home: handle, address }, &[]);
        if let Err(error) = mapped {
            if self.forget_view(address)? {
                self.end_object(handle)?;
            }
            return Err(error);
        }
        Ok(())
    }

    /// `cuMemUnmap`: takes away all mappings that the range is made of. The worker waits for work that uses them.
    ///
    /// # Errors
    /// `INVALID_VALUE` if it is not made of whole mappings.
    pub fn unmap_objects(&'static self, range: AddressRange) -> CudaResult<()> {
        let starts = self.virtual_memory.lock().views_in(range)?;
        for address in starts {
            let home = self.virtual_memory.lock().views.get(&address).map(|view| view.home);
            self.post(&ObjectUnmap { address }, &[])?;
            if self.forget_view(address)?
                && let Some(home) = home
            {
                self.end_object(home)?;
            }
        }
        Ok(())
    }

    /// `cuMemSetAccess` of the one device.
    ///
    /// # Errors
    /// `INVALID_VALUE` if the range is not made of whole mappings.
    pub fn set_access(&self, range: AddressRange, access: Access) -> CudaResult<()> {
        let mut inner = self.virtual_memory.lock();
        for address in inner.views_in(range)? {
            if let Some(view) = inner.views.get_mut(&address) {
                view.access = access;
            }
        }
        Ok(())
    }

    /// `cuMemGetAccess` of the one device.
    ///
    /// # Errors
    /// `INVALID_VALUE` if nothing is mapped there.
    pub fn access(&self, address: u64) -> CudaResult<Access> {
        let view = self.virtual_memory.lock().view_of(address);
        view.map(|(_, view)| view.access).ok_or(CudaError::INVALID_VALUE)
    }

    /// True if the object is over with it.
    fn forget_view(&self, address: u64) -> CudaResult<bool> {
        let mut inner = self.virtual_memory.lock();
        let view = inner.views.remove(&address).ok_or(CudaError::INVALID_VALUE)?;
        if let Some(object) = inner.objects.get_mut(&view.home) {
            object.views -= 1;
        }
        Ok(inner.is_over(view.home))
    }

    fn end_object(&self, home: u64) -> CudaResult<()> {
        // Posted before the addresses are free again, so that whoever gets them next comes later in the ring.
        let posted = self.post(&ObjectRelease { home }, &[]);
        self.memory.return_addresses(home);
        posted
    }
}
