//! Calls that only put work into a stream: launches, event records, fills.

use super::BenchError;
use super::summary::{Figure, Metric};
use super::workbench::{Cost, Workbench};
use crate::driver_api::DriverError;
use std::time::Duration;

/// Calls in a row. Enough for the clock; few enough that a ring of 256 Ki words (12 to a launch) never fills.
///
/// A GPU's own queue takes about a thousand launches, but a GPU is through with a small kernel sooner than a CPU with its
/// launch, so this queue does not fill either.
pub const BURST: usize = 2000;

/// How long nothing is done before a burst. Time of the process's other threads is accounted when they sleep, or at the
/// scheduler's next tick: of threads that helped with the copies of an earlier round, milliseconds came into this burst.
const SETTLE: Duration = Duration::from_millis(10);

const LAUNCH_CPU: Metric = Metric { name: "launch_cpu", unit: "ns", description: "cuLaunchKernel, CPU time" };
const LAUNCH_WALL: Metric = Metric { name: "launch", unit: "ns", description: "cuLaunchKernel" };
const LAUNCH_SLEEPS: Metric = Metric {
    name: "launch_sleeps",
    unit: "per 2000",
    description: "  times that the thread slept (voluntary context switches)",
};
const LAUNCH_PREEMPTIONS: Metric = Metric {
    name: "launch_preemptions",
    unit: "per 2000",
    description: "  times that its CPU was taken away (involuntary ones)",
};
const EVENT_RECORD: Metric = Metric { name: "event_record", unit: "ns", description: "cuEventRecord" };
const FILL: Metric = Metric { name: "fill", unit: "ns", description: "cuMemsetD8Async, 4 KiB" };

const _: () = assert!(BURST == 2000, "the units above say so");

/// One burst of each, beginning and ending with an idle device.
pub fn measure(bench: &mut Workbench) -> Result<Vec<Figure>, BenchError> {
    let launches = burst(bench, |bench| bench.launch())?;
    let records = burst(bench, |bench| bench.driver.record(bench.event, bench.stream))?;
    let fills =
        burst(bench, |bench| bench.driver.fill(bench.small, 0, Workbench::SMALL_BYTES, bench.stream))?;
    let each_ns = |total: Duration| total.as_secs_f64() * 1e9 / BURST as f64;
    Ok(vec![
        Figure { metric: &LAUNCH_CPU, value: each_ns(launches.cpu) },
        Figure { metric: &LAUNCH_WALL, value: each_ns(launches.wall) },
        Figure { metric: &LAUNCH_SLEEPS, value: launches.sleeps as f64 },
        Figure { metric: &LAUNCH_PREEMPTIONS, value: launches.preemptions as f64 },
        Figure { metric: &EVENT_RECORD, value: each_ns(records.wall) },
        Figure { metric: &FILL, value: each_ns(fills.wall) },
    ])
}

fn burst(
    bench: &mut Workbench,
    mut call: impl FnMut(&mut Workbench) -> Result<(), DriverError>,
) -> Result<Cost, BenchError> {
    std::thread::sleep(SETTLE);
    bench.synchronize()?;
    let cost = Cost::of(BURST, || call(bench))?;
    bench.synchronize()?;
    Ok(cost)
}
