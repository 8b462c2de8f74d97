//! Who follows every CUDA call: nobody, unless the log, a way of measuring (`TORPOR_REMOTING`) or a profiler in the program
//! ([`crate::cupti`]) does.

use crate::core::{CudaResult, Remoting, ask_anyway};
use crate::cupti::TracedCall;
use crate::log::LoggedCalls;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// The first call finds out who of those follows that the environment names.
const UNDECIDED: u8 = 1;
/// The log, or a way of measuring.
const ENVIRONMENT: u8 = 2;
/// A profiler.
const PROFILER: u8 = 4;

static FOLLOWERS: AtomicU8 = AtomicU8::new(UNDECIDED);

/// What the environment says.
struct Environment {
    log: LoggedCalls,
    asks: bool,
}

/// A call that somebody follows.
pub(crate) struct FollowedCall {
    function: &'static str,
    environment: Option<&'static Environment>,
    traced: Option<TracedCall>,
}

/// From now on a profiler follows, or none does any more.
pub(crate) fn let_profiler_follow(follows: bool) {
    if follows {
        FOLLOWERS.fetch_or(PROFILER, Ordering::Relaxed);
    } else {
        FOLLOWERS.fetch_and(!PROFILER, Ordering::Relaxed);
    }
}

/// To be called at the beginning of a CUDA call.
#[inline]
pub(crate) fn before(function: &'static str) -> Option<FollowedCall> {
    let followers = FOLLOWERS.load(Ordering::Relaxed);
    if followers == 0 { None } else { begin(followers, function) }
}

/// To be called at its end.
#[inline]
pub(crate) fn after(call: Option<FollowedCall>, outcome: CudaResult<()>) {
    if let Some(call) = call {
        end(call, outcome);
    }
}

#[cold]
fn begin(followers: u8, function: &'static str) -> Option<FollowedCall> {
    let environment = if followers & (UNDECIDED | ENVIRONMENT) == 0 { None } else { environment() };
    let traced = if followers & PROFILER == 0 { None } else { TracedCall::begin(function) };
    (environment.is_some() || traced.is_some()).then_some(FollowedCall { function, environment, traced })
}

fn environment() -> Option<&'static Environment> {
    static ENVIRONMENTS: OnceLock<Option<Environment>> = OnceLock::new();
    let found = ENVIRONMENTS.get_or_init(|| {
        let (log, asks) = (LoggedCalls::wanted(), Remoting::of_process() != Remoting::Full);
        let follows = log != LoggedCalls::None || asks;
        FOLLOWERS.fetch_or(if follows { ENVIRONMENT } else { 0 }, Ordering::Relaxed);
        FOLLOWERS.fetch_and(!UNDECIDED, Ordering::Relaxed);
        follows.then_some(Environment { log, asks })
    });
    found.as_ref()
}

#[cold]
fn end(call: FollowedCall, outcome: CudaResult<()>) {
    if let Some(traced) = call.traced {
        traced.end(outcome);
    }
    if let Some(environment) = call.environment {
        if environment.asks {
            ask_anyway(call.function);
        }
        crate::log::write_call(environment.log, call.function, outcome);
    }
}
