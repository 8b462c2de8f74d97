//! The program's buffers: asked for when a record comes and there is room for none, given back full or when the program flushes.
//!
//! As with CUPTI, any thread that makes a CUDA call may be the one that asks and gives back. None of the locks that other
//! threads' records need is held meanwhile, and what the program's functions do is itself not recorded.

use super::record::bytes_of_kind;
use super::result::{CuptiError, CuptiResult};
use crate::driver::argument::Out;
use bytemuck::Pod;
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// `CUpti_BuffersCallbackRequestFunc`: places for address, bytes and the number of records that it is for (0: as many as fit).
type Request = unsafe extern "C" fn(*mut *mut u8, *mut usize, *mut usize);
/// `CUpti_BuffersCallbackCompleteFunc`: context, stream, buffer, its bytes, and those that are records.
type Complete = unsafe extern "C" fn(*mut c_void, u32, *mut u8, usize, usize);

#[derive(Clone, Copy)]
struct Callbacks {
    request: Request,
    complete: Complete,
}

/// A buffer that the program has lent.
struct Buffer {
    address: *mut u8,
    bytes: usize,
    used: usize,
    records_left: usize,
}

// SAFETY: the program lends the memory to whichever thread fills it, until it is given back.
unsafe impl Send for Buffer {}

static CALLBACKS: Mutex<Option<Callbacks>> = Mutex::new(None);
static CURRENT: Mutex<Option<Buffer>> = Mutex::new(None);
/// Held by who exchanges the current buffer, so that no two ask for one.
static EXCHANGE: Mutex<()> = Mutex::new(());
static DROPPED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether the thread is in one of the program's functions.
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one of the program's functions.
fn in_callback(call: impl FnOnce()) {
    IN_CALLBACK.set(true);
    call();
    IN_CALLBACK.set(false);
}

impl Callbacks {
    fn request(self) -> Option<Buffer> {
        let (mut address, mut bytes, mut records) = (ptr::null_mut(), 0, 0);
        // SAFETY: the program gave it for this, and there are places for its results.
        in_callback(|| unsafe { (self.request)(&raw mut address, &raw mut bytes, &raw mut records) });
        let records_left = if records == 0 { usize::MAX } else { records };
        (!address.is_null()).then_some(Buffer { address, bytes, used: 0, records_left })
    }

    fn complete(self, buffer: &Buffer) {
        let Buffer { address, bytes, used, .. } = *buffer;
        // SAFETY: the program gave it for this; the buffer is the one it lent, and nobody here writes to it any more.
        in_callback(|| unsafe { (self.complete)(ptr::null_mut(), 0, address, bytes, used) });
    }
}

impl Buffer {
    /// False without room. Nothing always fits.
    fn push(&mut self, record: &[u8]) -> bool {
        if record.is_empty() {
            return true;
        }
        if self.records_left == 0 || self.bytes - self.used < record.len() {
            return false;
        }
        // SAFETY: the program lent that many bytes, and those behind `used` are nobody else's.
        unsafe {
            ptr::copy_nonoverlapping(record.as_ptr(), self.address.add(self.used), record.len());
        }
        self.used += record.len();
        self.records_left -= 1;
        true
    }
}

/// Writes a record, or counts it as dropped.
pub(super) fn write(record: &impl Pod) {
    let record = bytemuck::bytes_of(record);
    if IN_CALLBACK.get() || !(push(record) || exchange_and_push(record)) {
        drop_records(1);
    }
}

fn push(record: &[u8]) -> bool {
    lock(&CURRENT).as_mut().is_some_and(|buffer| buffer.push(record))
}

#[cold]
fn exchange_and_push(record: &[u8]) -> bool {
    let _exchange = lock(&EXCHANGE);
    if push(record) {
        return true;
    }
    let Some(callbacks) = *lock(&CALLBACKS) else { return false };
    let full = lock(&CURRENT).take();
    if let Some(full) = full {
        callbacks.complete(&full);
    }
    let Some(mut buffer) = callbacks.request() else { return false };
    let is_written = buffer.push(record);
    *lock(&CURRENT) = Some(buffer);
    is_written
}

/// Makes sure that there is a buffer: Kineto flushes only if it has lent one.
pub(super) fn prepare() {
    if !IN_CALLBACK.get() && lock(&CURRENT).is_none() {
        exchange_and_push(&[]);
    }
}

/// Counts records that could not be.
pub(super) fn drop_records(count: u64) {
    DROPPED.fetch_add(count, Ordering::Relaxed);
}

/// Whether the thread is in one of the program's functions.
pub(super) fn is_in_callback() -> bool {
    IN_CALLBACK.get()
}

/// Gives the current buffer back.
pub(super) fn flush() {
    let _exchange = lock(&EXCHANGE);
    let callbacks = *lock(&CALLBACKS);
    let current = lock(&CURRENT).take();
    if let (Some(callbacks), Some(current)) = (callbacks, current) {
        callbacks.complete(&current);
    }
}

/// The record behind this one, or the first one.
///
/// # Safety
/// `buffer` has `valid` bytes of records; the place has null or one of them.
unsafe fn next_record(buffer: *mut u8, valid: usize, place: Out<*mut u8>) -> CuptiResult {
    let current = place.get().map_err(|_| CuptiError::InvalidParameter)?;
    if buffer.is_null() {
        return Err(CuptiError::InvalidParameter);
    }
    let kind_at = |offset: usize| {
        let is_whole = valid.checked_sub(offset).is_some_and(|rest| rest >= size_of::<u32>());
        // SAFETY: four bytes from there are valid (the caller's promise).
        is_whole.then(|| unsafe { buffer.add(offset).cast::<u32>().read_unaligned() })
    };
    let offset = if current.is_null() {
        0
    } else {
        let offset = current.addr().checked_sub(buffer.addr()).ok_or(CuptiError::InvalidParameter)?;
        let kind = kind_at(offset).ok_or(CuptiError::InvalidParameter)?;
        offset + bytes_of_kind(kind).ok_or(CuptiError::InvalidKind)?
    };
    let kind = kind_at(offset).ok_or(CuptiError::MaxLimitReached)?;
    let bytes = bytes_of_kind(kind).ok_or(CuptiError::InvalidKind)?;
    if valid - offset < bytes {
        return Err(CuptiError::InvalidKind);
    }
    // SAFETY: the offset is within the valid bytes.
    place.put(unsafe { buffer.add(offset) }).map_err(|_| CuptiError::InvalidParameter)
}

super::cupti_functions! {
    /// Where buffers come from and go to.
    fn cuptiActivityRegisterCallbacks(request: Option<Request>, complete: Option<Complete>) {
        let (request, complete) = request.zip(complete).ok_or(CuptiError::InvalidParameter)?;
        *lock(&CALLBACKS) = Some(Callbacks { request, complete });
        Ok(())
    }

    /// Steps through the records of a buffer.
    fn cuptiActivityGetNextRecord(buffer: *mut u8, valid_bytes: usize, record: Out<*mut u8>) {
        // SAFETY: the program promises a buffer that it got back, and a record of it.
        unsafe { next_record(buffer, valid_bytes, record) }
    }

    /// How many records could not be written since the last time.
    fn cuptiActivityGetNumDroppedRecords(_context: *mut c_void, _stream: u32, dropped: Out<usize>) {
        dropped.put(DROPPED.swap(0, Ordering::Relaxed) as usize).map_err(|_| CuptiError::InvalidParameter)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{ApiRecord, ExternalCorrelationRecord, kind};
    use super::*;
    use bytemuck::Zeroable;

    /// A place for a result, as a C function gets it.
    fn out<T>(place: &mut T) -> Out<T> {
        // SAFETY: `Out` is a pointer, and this one points to a place for its result.
        unsafe { std::mem::transmute::<*mut T, Out<T>>(place) }
    }

    #[test]
    fn a_program_steps_through_what_was_written() {
        let mut memory = [0u8; 100];
        let (address, bytes) = (memory.as_mut_ptr(), memory.len());
        let mut buffer = Buffer { address, bytes, used: 0, records_left: usize::MAX };
        let api = ApiRecord { kind: kind::RUNTIME, ..ApiRecord::zeroed() };
        let external = ExternalCorrelationRecord { kind: kind::EXTERNAL_CORRELATION, ..Zeroable::zeroed() };
        assert!(buffer.push(bytemuck::bytes_of(&external)) && buffer.push(bytemuck::bytes_of(&api)));
        assert!(!buffer.push(bytemuck::bytes_of(&api)), "36 bytes are left");
        let mut record = ptr::null_mut();
        let mut offsets = Vec::new();
        let end = loop {
            // SAFETY: the buffer has that many bytes of records.
            match unsafe { next_record(address, buffer.used, out(&mut record)) } {
                Ok(()) => offsets.push(record.addr() - address.addr()),
                Err(end) => break end,
            }
        };
        assert_eq!((offsets, end), (vec![0, 24], CuptiError::MaxLimitReached));
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        let mut memory = [0xEE_u8; 64];
        let mut record = ptr::null_mut();
        // SAFETY: the buffer has that many bytes.
        let mut next = |record: &mut *mut u8| unsafe { next_record(memory.as_mut_ptr(), 64, out(record)) };
        assert_eq!(next(&mut record), Err(CuptiError::InvalidKind));
        record = ptr::without_provenance_mut(8);
        assert_eq!(next(&mut record), Err(CuptiError::InvalidParameter));
    }

    #[test]
    fn a_buffer_for_one_record_has_one() {
        let mut memory = [0u8; 100];
        let mut buffer = Buffer { address: memory.as_mut_ptr(), bytes: 100, used: 0, records_left: 1 };
        assert!(buffer.push(&[1; 24]) && !buffer.push(&[1; 24]));
    }
}
