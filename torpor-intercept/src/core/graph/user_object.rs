//! User objects: something of the program's that lives as long as graphs refer to it.

use crate::core::handle::Table;
use crate::core::stream::Stream;
use crate::core::{CudaResult, LaunchedFunction, helper_thread};
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};
use std::thread;
use torpor_proto::error::CudaError;

/// `CU_USER_OBJECT_NO_DESTRUCTOR_SYNC`, which must be given.
const NO_DESTRUCTOR_SYNC: u32 = 1;
/// `CU_GRAPH_USER_OBJECT_MOVE`: the program's references become the graph's.
const MOVE: u32 = 1;

/// A user object. Serves as `CUuserObject` and `cudaUserObject_t`.
pub struct UserObject {
    number: u32,
    state: Mutex<State>,
}

struct State {
    destructor: Destructor,
    references: u64,
}

#[derive(Clone, Copy)]
struct Destructor {
    function: LaunchedFunction,
    data: *mut c_void,
}

// SAFETY: the pointer is the program's, which gives it to be passed to its function in another thread.
unsafe impl Send for Destructor {}

static OBJECTS: Table<UserObject> = Table::new(1 << 16);

impl UserObject {
    /// `cuUserObjectCreate`.
    ///
    /// # Errors
    /// `INVALID_VALUE` without references or for other flags than there are, `OUT_OF_MEMORY`.
    pub fn create(
        data: *mut c_void,
        function: LaunchedFunction,
        references: u32,
        flags: u32,
    ) -> CudaResult<&'static Self> {
        if references == 0 || references > i32::MAX as u32 || flags != NO_DESTRUCTOR_SYNC {
            return Err(CudaError::INVALID_VALUE);
        }
        let state = || State { destructor: Destructor { function, data }, references: references.into() };
        let make = |number| Self { number, state: Mutex::new(state()) };
        OBJECTS.insert(make, |object| *object.lock() = state()).ok_or(CudaError::OUT_OF_MEMORY)
    }

    /// The object behind a handle.
    ///
    /// # Errors
    /// `INVALID_VALUE`.
    pub fn find(handle: *mut c_void) -> CudaResult<&'static Self> {
        OBJECTS.get(handle).ok_or(CudaError::INVALID_VALUE)
    }

    /// What the program is given for it.
    #[must_use]
    pub fn handle(&'static self) -> *mut c_void {
        Table::handle(self)
    }

    /// `cuUserObjectRetain`.
    ///
    /// # Errors
    /// `INVALID_VALUE` for no references.
    pub fn retain(&'static self, count: u32) -> CudaResult<()> {
        if count == 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        self.lock().references += u64::from(count);
        Ok(())
    }

    /// `cuUserObjectRelease`. With the last reference the destructor is called, by a thread of this library, once the
    /// device has done what was posted.
    ///
    /// # Errors
    /// `INVALID_VALUE` for no references, or more than there are.
    pub fn release(&'static self, count: u32) -> CudaResult<()> {
        let destructor = {
            let mut state = self.lock();
            if count == 0 || u64::from(count) > state.references {
                return Err(CudaError::INVALID_VALUE);
            }
            state.references -= u64::from(count);
            (state.references == 0).then_some(state.destructor)
        };
        if let Some(destructor) = destructor {
            OBJECTS.retire(self.number);
            let thread = thread::Builder::new().name("torpor-function".to_owned());
            if !helper_thread::start(thread, move || destructor.call()) {
                destructor.call();
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Destructor {
    fn call(self) {
        // A graph that refers to it may still run. If the device is lost, nothing runs any more.
        let _ = Stream::synchronize_all_posted();
        // SAFETY: the program gave it to be called with this, by any thread, once the last reference is gone.
        unsafe { (self.function)(self.data) };
    }
}

/// References that graphs have, and give back when they are gone.
#[derive(Default)]
pub(super) struct References(Vec<(&'static UserObject, u32)>);

impl References {
    /// `cuGraphRetainUserObject`.
    pub(super) fn retain(&mut self, object: &'static UserObject, count: u32, flags: u32) -> CudaResult<()> {
        if count == 0 || flags & !MOVE != 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        if flags & MOVE == 0 {
            object.retain(count)?;
        }
        self.0.push((object, count));
        Ok(())
    }

    /// `cuGraphReleaseUserObject`.
    pub(super) fn release(&mut self, object: &'static UserObject, count: u32) -> CudaResult<()> {
        let at = self.0.iter().position(|(other, had)| std::ptr::eq(*other, object) && *had >= count);
        let at = at.filter(|_| count > 0).ok_or(CudaError::INVALID_VALUE)?;
        self.0[at].1 -= count;
        if self.0[at].1 == 0 {
            self.0.remove(at);
        }
        object.release(count)
    }
}

impl Clone for References {
    fn clone(&self) -> Self {
        let retained = self.0.iter().filter(|(object, count)| object.retain(*count).is_ok());
        Self(retained.copied().collect())
    }
}

impl Drop for References {
    fn drop(&mut self) {
        for (object, count) in self.0.drain(..) {
            // There are at least as many.
            let _ = object.release(count);
        }
    }
}
