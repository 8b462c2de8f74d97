//! What follows every CUDA call: nothing, unless the log or a way of measuring (`TORPOR_REMOTING`) wants it.

use crate::core::{CudaResult, Remoting, ask_anyway};
use crate::log::LoggedCalls;
use std::sync::OnceLock;

/// Who wants to know of a call.
struct Followers {
    is_nobody: bool,
    log: LoggedCalls,
    asks: bool,
}

/// To be called at the end of a CUDA call.
#[inline]
pub(crate) fn after(function: &str, outcome: CudaResult<()>) {
    static FOLLOWERS: OnceLock<Followers> = OnceLock::new();
    let followers = FOLLOWERS.get_or_init(|| {
        let (log, asks) = (LoggedCalls::wanted(), Remoting::of_process() != Remoting::Full);
        Followers { is_nobody: log == LoggedCalls::None && !asks, log, asks }
    });
    if !followers.is_nobody {
        follow(followers, function, outcome);
    }
}

#[cold]
fn follow(followers: &Followers, function: &str, outcome: CudaResult<()>) {
    if followers.asks {
        ask_anyway(function);
    }
    crate::log::write_call(followers.log, function, outcome);
}
