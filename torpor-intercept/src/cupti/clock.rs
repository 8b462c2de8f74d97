//! The clock of the records: the program's own function (Kineto's reads the processor's counter), or the time of day in
//! nanoseconds.

use super::result::CuptiError;
use crate::core::profile::host_ns;
use crate::driver::argument::Out;
use std::sync::{Mutex, PoisonError};

/// `CUpti_TimestampCallbackFunc`
pub(super) type Timestamp = unsafe extern "C" fn() -> u64;

/// The same moment on both clocks.
#[derive(Clone, Copy)]
struct Moment {
    host_ns: u64,
    ticks: u64,
}

struct Clock {
    function: Option<Timestamp>,
    /// When it was chosen.
    first: Option<Moment>,
}

static CLOCK: Mutex<Clock> = Mutex::new(Clock { function: None, first: None });

fn read(function: Option<Timestamp>) -> u64 {
    match function {
        // SAFETY: the program gave it to be called by any thread (cuptiActivityRegisterTimestampCallback).
        Some(function) => unsafe { function() },
        None => {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
            now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
        }
    }
}

/// Of several readings the one during which least time passed: the thread may be interrupted in any of them.
fn moment(function: Option<Timestamp>) -> Moment {
    const READINGS: usize = 8;
    let reading = |_| {
        let (before, ticks, after) = (host_ns(), read(function), host_ns());
        let took = after - before;
        (took, Moment { host_ns: before + took / 2, ticks })
    };
    let best = (0..READINGS).map(reading).min_by_key(|&(took, _)| took);
    best.map_or(Moment { host_ns: 0, ticks: 0 }, |(_, moment)| moment)
}

/// From now on records have the times of this function.
pub(super) fn choose(function: Option<Timestamp>) {
    let first = moment(function);
    *CLOCK.lock().unwrap_or_else(PoisonError::into_inner) = Clock { function, first: Some(first) };
}

/// Compares it with the host's from here on, if nothing does yet.
pub(super) fn start() {
    let mut clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let function = clock.function;
    clock.first.get_or_insert_with(|| moment(function));
}

/// The time now.
pub(super) fn now() -> u64 {
    let function = CLOCK.lock().unwrap_or_else(PoisonError::into_inner).function;
    read(function)
}

/// Times of [`host_ns`] as times of this clock, which runs evenly between when it was chosen and now.
pub(super) struct Conversion {
    first: Moment,
    last: Moment,
}

impl Conversion {
    pub(super) fn now() -> Self {
        let (function, first) = {
            let mut clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
            let function = clock.function;
            (function, *clock.first.get_or_insert_with(|| moment(function)))
        };
        Self { first, last: moment(function) }
    }

    pub(super) fn ticks(&self, host_ns: u64) -> u64 {
        let Self { first, last } = self;
        let ticks = i128::from(last.ticks) - i128::from(first.ticks);
        let elapsed = i128::from(last.host_ns.saturating_sub(first.host_ns)).max(1);
        let since_last = i128::from(host_ns) - i128::from(last.host_ns);
        let result = i128::from(last.ticks) + since_last * ticks / elapsed;
        u64::try_from(result).unwrap_or(0)
    }
}

super::cupti_functions! {
    /// The time that records have.
    fn cuptiGetTimestamp(timestamp: Out<u64>) {
        timestamp.put(now()).map_err(|_| CuptiError::InvalidParameter)
    }

    /// The function that tells the time, instead of the time of day.
    fn cuptiActivityRegisterTimestampCallback(function: Option<Timestamp>) {
        let function = function.ok_or(CuptiError::InvalidParameter)?;
        choose(Some(function));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_another_clock_lie_on_the_line_through_two_moments() {
        let conversion = Conversion {
            first: Moment { host_ns: 1_000, ticks: 50_000 },
            last: Moment { host_ns: 2_000, ticks: 53_000 },
        };
        assert_eq!(conversion.ticks(2_000), 53_000);
        assert_eq!(conversion.ticks(1_500), 51_500);
        assert_eq!(conversion.ticks(900), 49_700);
    }
}
