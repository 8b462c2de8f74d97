//! Calls that wait for an answer: from whoever owns the GPU, or from the GPU itself.

use super::BenchError;
use super::summary::{Figure, Metric};
use super::workbench::{Cost, Workbench};
use std::thread;
use std::time::{Duration, Instant};

const MEMORY_INFO: Metric =
    Metric { name: "memory_info", unit: "µs", description: "cuMemGetInfo (no work for the GPU)" };
const MEMORY_INFO_IDLE: Metric =
    Metric { name: "memory_info_idle", unit: "µs", description: "cuMemGetInfo after 5 ms of idleness" };
const LAUNCH_SYNCHRONIZE: Metric =
    Metric { name: "launch_synchronize", unit: "µs", description: "cuLaunchKernel and cuStreamSynchronize" };
const SYNCHRONIZE: Metric =
    Metric { name: "synchronize", unit: "µs", description: "  of that, cuStreamSynchronize" };
const ALLOCATE_FREE: Metric =
    Metric { name: "allocate_free", unit: "µs", description: "cuMemAlloc and cuMemFree of 20 MiB" };

/// Calls in a row, one after the other's answer.
const CALLS: usize = 200;

/// As [`CALLS`], of those that take longer.
const SLOW_CALLS: usize = 20;

/// Longer than anybody spins before going to sleep.
const IDLENESS: Duration = Duration::from_millis(5);

const ALLOCATION_BYTES: usize = 20 << 20;

/// Some of each, in a row.
pub fn measure(bench: &mut Workbench) -> Result<Vec<Figure>, BenchError> {
    let driver = bench.driver;
    bench.synchronize()?;
    let hot = Cost::of(CALLS, || driver.memory_info().map(drop))?.wall;
    let mut idle = Duration::ZERO;
    for _ in 0..SLOW_CALLS {
        thread::sleep(IDLENESS);
        idle += Cost::of(1, || driver.memory_info().map(drop))?.wall;
    }
    let mut waited = Duration::ZERO;
    let both = Cost::of(CALLS, || {
        bench.launch()?;
        let launched = Instant::now();
        bench.synchronize()?;
        waited += launched.elapsed();
        Ok(())
    })?;
    let allocated = Cost::of(SLOW_CALLS, || driver.free(driver.allocate(ALLOCATION_BYTES)?))?.wall;
    bench.synchronize()?;
    let each_us = |total: Duration, count: usize| total.as_secs_f64() * 1e6 / count as f64;
    Ok(vec![
        Figure { metric: &MEMORY_INFO, value: each_us(hot, CALLS) },
        Figure { metric: &MEMORY_INFO_IDLE, value: each_us(idle, SLOW_CALLS) },
        Figure { metric: &LAUNCH_SYNCHRONIZE, value: each_us(both.wall, CALLS) },
        Figure { metric: &SYNCHRONIZE, value: each_us(waited, CALLS) },
        Figure { metric: &ALLOCATE_FREE, value: each_us(allocated, SLOW_CALLS) },
    ])
}
