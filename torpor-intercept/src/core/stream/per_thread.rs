//! Each thread's default stream, one for each device: an ordinary one that synchronises with the legacy stream. Green contexts have none
//! (cuda.h, cuStreamGetCtx_v2).
//!
//! A thread that ends leaves its stream behind, and the next one that needs a stream destroys what was left. Nothing of CUDA is
//! done while a thread ends: the process may be exiting, and the GPU be full of work.

use super::Stream;
use crate::core::{CudaResult, client, devices, fork};
use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use torpor_proto::command::is_green;
use torpor_proto::error::CudaError;

/// The calling thread's, by device, left behind on drop.
struct Own([Cell<Option<&'static Stream>>; devices::MOST]);

thread_local! {
    static OWN: Own = const { Own([const { Cell::new(None) }; devices::MOST]) };
}

/// Those of threads that have ended.
static LEFT: Mutex<Vec<&'static Stream>> = Mutex::new(Vec::new());

impl Drop for Own {
    fn drop(&mut self) {
        // In a child, the lock may be held by a thread that is not there.
        if !fork::is_forked_child() {
            left().extend(self.0.iter().filter_map(Cell::take));
        }
    }
}

fn left() -> MutexGuard<'static, Vec<&'static Stream>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The calling thread's default stream of its current device.
pub(super) fn stream() -> CudaResult<&'static Stream> {
    let place = devices::current_place();
    if is_green(place) {
        return Err(CudaError::INVALID_HANDLE);
    }
    let device = place as usize % devices::MOST;
    match OWN.try_with(|own| own.0[device].get()) {
        Ok(Some(own)) => Ok(own),
        Ok(None) => {
            client()?;
            destroy_left();
            let new = Stream::create(0, 0)?;
            let _ = OWN.try_with(|own| own.0[device].set(Some(new)));
            Ok(new)
        }
        Err(_) => of_ending_threads(device),
    }
}

/// One for all threads whose variables are gone: their destructors may still call CUDA.
fn of_ending_threads(device: usize) -> CudaResult<&'static Stream> {
    static SHARED: [OnceLock<&'static Stream>; devices::MOST] = [const { OnceLock::new() }; devices::MOST];
    let shared = &SHARED[device];
    if let Some(shared) = shared.get() {
        return Ok(shared);
    }
    let made = Stream::create(0, 0)?;
    // Of two that are made at once one is not used.
    Ok(shared.get_or_init(|| made))
}

/// Whether a stream is the calling thread's default stream of its device.
pub(super) fn is_own(stream: &Stream) -> bool {
    let own = OWN.try_with(|own| own.0[stream.device() as usize % devices::MOST].get()).ok().flatten();
    own.is_some_and(|own| own.number == stream.number)
}

/// Destroys the streams of threads that have ended, but for those whose host functions have not been called.
pub(super) fn destroy_left() {
    let taken = std::mem::take(&mut *left());
    for stream in taken {
        if stream.query_functions().is_err() {
            left().push(stream);
        } else {
            // What went wrong in it is told by other calls.
            let _ = stream.destroy();
        }
    }
}
