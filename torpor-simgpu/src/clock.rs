//! Time: when an operation on a device starts and ends.
//!
//! All times are nanoseconds since the machine was made. An operation starts when its stream, what it waits for and the
//! resources that it needs (a link, a copy engine, the multiprocessors) are free, and ends after the duration that the
//! profile computes. In real time it completes no sooner than that; in virtual time it completes at once and only its
//! time stamps tell. The host has a time too: the clock on the wall, or in virtual time the sum of what its calls cost,
//! moved forward to whatever it waited for.
//!
//! Operations that share a resource take turns in the order in which they get to run; which copies do is up to the copy
//! engines ([`crate::engine`]).

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::TimeMode;
use crate::lock;
use crate::profile::Profile;

/// What an operation occupies while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// The link from the host to a device.
    HostToDevice(usize),
    /// The link from a device to the host.
    DeviceToHost(usize),
    /// The link from one device to another.
    Peer(usize, usize),
    /// A device's memory system, for copies and fills within it.
    Memory(usize),
    /// A device's multiprocessors.
    Compute(usize),
}

/// The time of the host and of all resources.
#[derive(Debug)]
pub struct Clock {
    mode: TimeMode,
    origin: Instant,
    host_ns: AtomicU64,
    busy_until: Mutex<Vec<(Resource, u64)>>,
}

impl Clock {
    /// A clock that starts at zero.
    pub fn new(mode: TimeMode) -> Self {
        Self { mode, origin: Instant::now(), host_ns: AtomicU64::new(0), busy_until: Mutex::default() }
    }

    /// The host's time.
    pub fn host_ns(&self) -> u64 {
        match self.mode {
            TimeMode::Virtual => self.host_ns.load(Ordering::Relaxed),
            TimeMode::Real => self.wall_ns(),
        }
    }

    fn wall_ns(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A call of the host that takes `microseconds` of its time.
    pub fn host_works(&self, microseconds: f64) {
        let duration = nanoseconds(microseconds);
        match self.mode {
            TimeMode::Virtual => {
                self.host_ns.fetch_add(duration, Ordering::Relaxed);
            }
            TimeMode::Real => sleep_until(self.origin, self.wall_ns().saturating_add(duration)),
        }
    }

    /// The host has waited for something that ended at `end_ns`.
    pub fn host_waited(&self, end_ns: u64) {
        self.host_ns.fetch_max(end_ns, Ordering::Relaxed);
    }

    /// Occupies `resources` for `duration_ns`, from `earliest_ns` or when they are free. Start and end.
    pub fn occupy(&self, resources: &[Resource], earliest_ns: u64, duration_ns: u64) -> (u64, u64) {
        let mut busy = lock(&self.busy_until);
        let until = |busy: &[(Resource, u64)], resource| {
            busy.iter().find(|entry| entry.0 == resource).map_or(0, |entry| entry.1)
        };
        let start = resources.iter().map(|&resource| until(&busy, resource)).fold(earliest_ns, u64::max);
        let end = start.saturating_add(duration_ns);
        for &resource in resources {
            match busy.iter_mut().find(|entry| entry.0 == resource) {
                Some(entry) => entry.1 = end,
                None => busy.push((resource, end)),
            }
        }
        (start, end)
    }

    /// Returns when an operation that ends at `end_ns` may be called complete.
    pub fn wait_for_end(&self, end_ns: u64) {
        if self.mode == TimeMode::Real {
            sleep_until(self.origin, end_ns);
        }
    }

    /// In real time, the later of `planned_ns` and now: work that took the CPU longer than planned ended only now.
    pub fn actual_end(&self, planned_ns: u64) -> u64 {
        match self.mode {
            TimeMode::Virtual => planned_ns,
            TimeMode::Real => planned_ns.max(self.wall_ns()),
        }
    }
}

fn sleep_until(origin: Instant, end_ns: u64) {
    let end = Duration::from_nanos(end_ns);
    loop {
        let left = end.saturating_sub(origin.elapsed());
        if left.is_zero() {
            return;
        }
        // The last stretch is yielded away, because a sleep lasts tens of microseconds longer than asked.
        match left.checked_sub(Duration::from_micros(100)) {
            Some(rest) if !rest.is_zero() => std::thread::sleep(rest),
            _ => std::thread::yield_now(),
        }
    }
}

/// Microseconds as nanoseconds.
pub fn nanoseconds(microseconds: f64) -> u64 {
    (microseconds * 1000.0) as u64
}

/// How long `bytes` take at a rate in GB/s, which is bytes a nanosecond.
fn transfer_ns(bytes: u64, gbps: f64) -> u64 {
    (bytes as f64 / gbps) as u64
}

/// Where a copy goes; see [`copy_cost`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// From host memory, page-locked or not, to a device.
    HostToDevice {
        /// The device.
        device: usize,
        /// Whether the host memory is page-locked.
        pinned: bool,
    },
    /// From a device to host memory.
    DeviceToHost {
        /// The device.
        device: usize,
        /// Whether the host memory is page-locked.
        pinned: bool,
    },
    /// Within a device.
    Device(usize),
    /// From one device to another.
    Peer(usize, usize),
    /// Within host memory.
    Host,
}

/// What a copy of `bytes` occupies and for how long, in nanoseconds.
pub fn copy_cost(profile: &Profile, route: Route, bytes: u64) -> (Vec<Resource>, u64) {
    let link = |device: usize| if profile.paired_host_links { device / 2 } else { device };
    let host_rate = |pinned| if pinned { profile.host_gbps } else { profile.pageable_gbps };
    let (resources, rate) = match route {
        Route::HostToDevice { device, pinned } => {
            (vec![Resource::HostToDevice(link(device))], host_rate(pinned))
        }
        Route::DeviceToHost { device, pinned } => {
            (vec![Resource::DeviceToHost(link(device))], host_rate(pinned))
        }
        Route::Device(device) => (vec![Resource::Memory(device)], profile.memory_gbps / 2.0),
        Route::Peer(from, to) => match profile.peer_gbps(from, to) {
            Some(rate) => (vec![Resource::Peer(from, to)], rate),
            // Without a link between them the data goes through the host.
            None => {
                let through = vec![Resource::DeviceToHost(link(from)), Resource::HostToDevice(link(to))];
                (through, profile.host_gbps)
            }
        },
        Route::Host => (Vec::new(), profile.host_gbps),
    };
    (resources, nanoseconds(profile.copy_us).saturating_add(transfer_ns(bytes, rate)))
}

/// How long writing `bytes` within a device takes, in nanoseconds.
pub fn fill_ns(profile: &Profile, bytes: u64) -> u64 {
    nanoseconds(profile.copy_us).saturating_add(transfer_ns(bytes, profile.memory_gbps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_resource_is_used_in_turns() {
        let clock = Clock::new(TimeMode::Virtual);
        assert_eq!(clock.occupy(&[Resource::Compute(0)], 100, 50), (100, 150));
        assert_eq!(clock.occupy(&[Resource::Compute(0)], 0, 10), (150, 160));
        assert_eq!(clock.occupy(&[Resource::Compute(1)], 0, 10), (0, 10));
        assert_eq!(clock.occupy(&[Resource::Compute(0), Resource::Compute(1)], 0, 1), (160, 161));
    }

    #[test]
    fn copies_cost_what_was_measured() {
        let profile = Profile::h200();
        let pinned = Route::HostToDevice { device: 0, pinned: true };
        let gbps = |bytes: u64| bytes as f64 / copy_cost(&profile, pinned, bytes).1 as f64;
        // The table of facts: 64 KiB 17.8, 2 MiB 51.8, 1 GiB 55.2 GB/s.
        for (bytes, measured) in [(64 << 10, 17.8), (2 << 20, 51.8), (1 << 30, 55.2)] {
            assert!((gbps(bytes) / measured - 1.0).abs() < 0.03, "{bytes}: {}", gbps(bytes));
        }
    }

    #[test]
    fn paired_devices_share_a_link() {
        let profile = Profile::v100_pcie3();
        let resources = |device| copy_cost(&profile, Route::HostToDevice { device, pinned: true }, 1).0;
        assert_eq!(resources(0), resources(1));
        assert_ne!(resources(1), resources(2));
        assert_eq!(copy_cost(&profile, Route::Peer(0, 0), 1).0.len(), 2);
    }

    #[test]
    fn real_time_lasts() {
        let clock = Clock::new(TimeMode::Real);
        let (_, end) = clock.occupy(&[], clock.host_ns(), 3_000_000);
        clock.wait_for_end(end);
        assert!(clock.host_ns() >= end);
    }
}
