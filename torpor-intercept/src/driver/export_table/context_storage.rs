//! c693336e: what libraries attach to a context, by a key of their own.
//!
//! cudart keeps its per-context state here and asks for it more than a thousand times in one ResNet inference, so a get is a
//! shared lock and one look-up. Values are opaque. A value's destructor runs when its context is reset, outside
//! all locks, because it may come back for other values. Unlike other tables this one has no size word.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::{LazyLock, PoisonError, RwLock};

use super::{INVALID_CONTEXT, SUCCESS, give, host};
use crate::driver::guard;

pub(super) const ID: [u8; 16] = super::uuid("c693336e-1121-df11-a8c3-68f355d89593");

const INVALID_HANDLE: c_int = 400;

/// (context, key, value).
type Destructor = unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_void);

#[repr(C)]
pub(super) struct Table {
    put: unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_void, Option<Destructor>) -> c_int,
    delete: unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int,
    get: unsafe extern "C" fn(*mut *mut c_void, *mut c_void, *mut c_void) -> c_int,
    /// Null.
    end: usize,
}

const _: () = assert!(size_of::<Table>() == 32);

pub(super) static TABLE: Table = Table { put, delete, get, end: 0 };

/// What one library has put. Addresses, not pointers: nothing here follows them.
#[derive(Clone, Copy)]
struct Value {
    address: usize,
    destructor: Option<Destructor>,
    /// Grows with each put: destructors run in the order in which values came.
    sequence: u64,
}

#[derive(Default)]
struct Storage {
    /// By context and key.
    values: HashMap<(usize, usize), Value>,
    next_sequence: u64,
}

static STORAGE: LazyLock<RwLock<Storage>> = LazyLock::new(RwLock::default);

/// The context that is meant: null and -1 stand for the current one. None if there is none.
fn resolve(context: *mut c_void) -> Option<usize> {
    let context = match context as usize {
        0 | usize::MAX => host::current_context() as usize,
        given => given,
    };
    (context != 0).then_some(context)
}

unsafe extern "C" fn put(
    context: *mut c_void,
    key: *mut c_void,
    value: *mut c_void,
    destructor: Option<Destructor>,
) -> c_int {
    guard(|| {
        let Some(context) = resolve(context) else { return INVALID_CONTEXT };
        let mut storage = STORAGE.write().unwrap_or_else(PoisonError::into_inner);
        let sequence = storage.next_sequence;
        storage.next_sequence += 1;
        storage
            .values
            .insert((context, key as usize), Value { address: value as usize, destructor, sequence });
        SUCCESS
    })
}

unsafe extern "C" fn delete(context: *mut c_void, key: *mut c_void) -> c_int {
    guard(|| {
        let Some(context) = resolve(context) else { return INVALID_CONTEXT };
        let mut storage = STORAGE.write().unwrap_or_else(PoisonError::into_inner);
        storage.values.remove(&(context, key as usize)).map_or(INVALID_HANDLE, |_| SUCCESS)
    })
}

unsafe extern "C" fn get(value: *mut *mut c_void, context: *mut c_void, key: *mut c_void) -> c_int {
    guard(|| {
        let Some(context) = resolve(context) else { return INVALID_CONTEXT };
        let found = {
            let storage = STORAGE.read().unwrap_or_else(PoisonError::into_inner);
            storage.values.get(&(context, key as usize)).map(|value| value.address)
        };
        // SAFETY: the calling library promises a writable place.
        match unsafe { give(value, found.unwrap_or(0) as *mut c_void) } {
            SUCCESS if found.is_none() => INVALID_HANDLE,
            result => result,
        }
    })
}

/// Drops everything that is attached to `context` and runs the destructors, in the order in which the values were put. To be
/// called when the context is reset or destroyed, without holding any lock.
pub(crate) fn reset_context_storage(context: *mut c_void) {
    let mut dropped: Vec<(usize, Value)> = {
        let mut storage = STORAGE.write().unwrap_or_else(PoisonError::into_inner);
        let of_context = storage.values.extract_if(|(owner, _), _| *owner == context as usize);
        of_context.map(|((_, key), value)| (key, value)).collect()
    };
    dropped.sort_by_key(|(_, value)| value.sequence);
    for (key, Value { address, destructor, .. }) in dropped {
        if let Some(destructor) = destructor {
            // SAFETY: whoever put the value promised a function that takes these, until the context is gone.
            unsafe { destructor(context, key as *mut c_void, address as *mut c_void) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn pointer(address: usize) -> *mut c_void {
        address as *mut c_void
    }

    fn put_value(context: usize, key: usize, value: usize, destructor: Option<Destructor>) -> c_int {
        // SAFETY: values are opaque; the destructors of these tests take any arguments.
        unsafe { (TABLE.put)(pointer(context), pointer(key), pointer(value), destructor) }
    }

    fn get_value(context: usize, key: usize) -> (c_int, usize) {
        let mut value = pointer(0x77);
        // SAFETY: a writable place.
        let result = unsafe { (TABLE.get)(&mut value, pointer(context), pointer(key)) };
        (result, value as usize)
    }

    #[test]
    fn values_belong_to_a_context_and_a_key() {
        assert_eq!(get_value(0x1000, 1), (INVALID_HANDLE, 0));
        assert_eq!(put_value(0x1000, 1, 10, None), SUCCESS);
        assert_eq!(put_value(0x1000, 2, 20, None), SUCCESS);
        assert_eq!(put_value(0x1008, 1, 30, None), SUCCESS);
        assert_eq!((get_value(0x1000, 1), get_value(0x1000, 2)), ((SUCCESS, 10), (SUCCESS, 20)));
        assert_eq!(put_value(0x1000, 1, 11, None), SUCCESS);
        assert_eq!((get_value(0x1000, 1), get_value(0x1008, 1)), ((SUCCESS, 11), (SUCCESS, 30)));
        // SAFETY: values are opaque.
        let delete = || unsafe { (TABLE.delete)(pointer(0x1000), pointer(1)) };
        assert_eq!((delete(), delete()), (SUCCESS, INVALID_HANDLE));
        assert_eq!(get_value(0x1000, 1), (INVALID_HANDLE, 0));
    }

    #[test]
    fn null_and_minus_one_mean_the_current_context() {
        let current = host::current_context() as usize;
        for context in [0, usize::MAX] {
            let expected = if current == 0 { INVALID_CONTEXT } else { SUCCESS };
            assert_eq!(put_value(context, 0x9999, 5, None), expected);
        }
    }

    static DESTROYED: Mutex<Vec<(usize, usize, usize)>> = Mutex::new(Vec::new());

    /// Comes back into the table, as destructors do: a lock held here would never return.
    unsafe extern "C" fn destroy(context: *mut c_void, key: *mut c_void, value: *mut c_void) {
        assert_eq!(get_value(context as usize, key as usize).0, INVALID_HANDLE);
        put_value(0x2008, key as usize, value as usize, None);
        DESTROYED.lock().expect("no test panics holding it").push((
            context as usize,
            key as usize,
            value as usize,
        ));
    }

    #[test]
    fn a_reset_runs_the_destructors_of_that_context_in_order() {
        for (context, key, value) in [(0x2000, 3, 33), (0x2000, 1, 11), (0x2010, 1, 99), (0x2000, 2, 22)] {
            assert_eq!(put_value(context, key, value, Some(destroy)), SUCCESS);
        }
        assert_eq!(put_value(0x2000, 4, 44, None), SUCCESS);
        reset_context_storage(pointer(0x2000));
        let destroyed = DESTROYED.lock().expect("no test panics holding it").clone();
        assert_eq!(destroyed, [(0x2000, 3, 33), (0x2000, 1, 11), (0x2000, 2, 22)]);
        assert_eq!(get_value(0x2000, 4), (INVALID_HANDLE, 0));
        assert_eq!(get_value(0x2010, 1), (SUCCESS, 99));
        assert_eq!(get_value(0x2008, 1), (SUCCESS, 11));
    }
}
