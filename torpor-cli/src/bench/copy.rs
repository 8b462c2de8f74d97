//! Copies between host and device, asynchronous and then waited for, as PyTorch makes them.

use super::BenchError;
use super::summary::{Figure, Metric};
use super::workbench::{Cost, Workbench};
use crate::driver_api::{Driver, DriverError};

const PINNED_IN: Metric = Metric {
    name: "pinned_to_device",
    unit: "GB/s",
    description: "copy from cuMemHostAlloc memory to the device",
};
const PINNED_OUT: Metric =
    Metric { name: "device_to_pinned", unit: "GB/s", description: "  from the device to it" };
const PAGEABLE_IN: Metric = Metric {
    name: "pageable_to_device",
    unit: "GB/s",
    description: "copy from pageable memory to the device",
};
const PAGEABLE_OUT: Metric =
    Metric { name: "device_to_pageable", unit: "GB/s", description: "  from the device to it" };

/// The ends of the copies.
pub struct HostMemory {
    device: u64,
    pinned: &'static mut [f32],
    pageable: Vec<f32>,
}

impl HostMemory {
    /// Of each kind as much, and every page there already.
    ///
    /// # Errors
    /// What the driver says.
    pub fn new(driver: &Driver, elements: usize) -> Result<Self, DriverError> {
        let bytes = elements.saturating_mul(size_of::<f32>());
        let device = driver.allocate(bytes)?;
        let pinned = driver.allocate_pinned(bytes)?.cast::<f32>();
        // Zeroes first, for a slice may only be of what has been written.
        // SAFETY: the memory is that long, page-aligned, nobody else's, and never freed.
        let pinned = unsafe {
            pinned.write_bytes(0, elements);
            std::slice::from_raw_parts_mut(pinned, elements)
        };
        Ok(Self { device, pinned, pageable: pattern(elements, 1.0).collect() })
    }

    /// Bytes of each.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.pageable[..])
    }
}

/// Numbers that are not the same in any two places nearby.
fn pattern(elements: usize, first: f32) -> impl Iterator<Item = f32> {
    (0..elements).map(move |index| first + (index % (1 << 20)) as f32)
}

/// Copies in both directions and looks whether everything arrives.
///
/// # Errors
/// [`BenchError::Corrupted`], and what the driver says.
pub fn check(bench: &Workbench, host: &mut HostMemory) -> Result<(), BenchError> {
    let same = |numbers: &[f32], first| numbers.iter().copied().eq(pattern(numbers.len(), first));
    copy_in(bench, &host.pageable, host.device)?;
    copy_out(bench, host.pinned, host.device)?;
    let pageable_arrived = same(host.pinned, 1.0);
    host.pinned.iter_mut().zip(pattern(host.pageable.len(), 2.0)).for_each(|(place, number)| *place = number);
    copy_in(bench, host.pinned, host.device)?;
    copy_out(bench, &mut host.pageable, host.device)?;
    if pageable_arrived && same(&host.pageable, 2.0) { Ok(()) } else { Err(BenchError::Corrupted) }
}

/// One copy of each kind.
pub fn measure(bench: &Workbench, host: &mut HostMemory) -> Result<Vec<Figure>, BenchError> {
    let gigabytes = host.bytes() as f64 / 1e9;
    let rate = |metric, copy: &mut dyn FnMut() -> Result<(), DriverError>| {
        let cost = Cost::of(1, copy)?;
        Ok::<_, BenchError>(Figure { metric, value: gigabytes / cost.wall.as_secs_f64() })
    };
    Ok(vec![
        rate(&PINNED_IN, &mut || copy_in(bench, host.pinned, host.device))?,
        rate(&PINNED_OUT, &mut || copy_out(bench, host.pinned, host.device))?,
        rate(&PAGEABLE_IN, &mut || copy_in(bench, &host.pageable, host.device))?,
        rate(&PAGEABLE_OUT, &mut || copy_out(bench, &mut host.pageable, host.device))?,
    ])
}

fn copy_in(bench: &Workbench, from: &[f32], to: u64) -> Result<(), DriverError> {
    // SAFETY: the stream is waited for before `from` can go; if that fails, the driver does nothing more.
    unsafe { bench.driver.copy_in(to, from, bench.stream) }?;
    bench.synchronize()
}

fn copy_out(bench: &Workbench, to: &mut [f32], from: u64) -> Result<(), DriverError> {
    // SAFETY: as above.
    unsafe { bench.driver.copy_out(to, from, bench.stream) }?;
    bench.synchronize()
}
