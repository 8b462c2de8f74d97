//! What every measurement needs: a context, a stream, a small kernel, and a clock around many calls.

use super::BenchError;
use crate::driver_api::{Argument, Arguments, Driver, DriverError, LaunchShape};
use std::io;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

/// Elements that a launch of the small kernel adds.
const ELEMENTS: u32 = 32;

/// A kernel that hardly does anything, ready to be launched.
pub struct Workbench<'a> {
    /// The driver that is measured.
    pub driver: &'a Driver,
    /// What it calls its first device.
    pub device_name: String,
    /// The stream of all work.
    pub stream: usize,
    /// An event.
    pub event: usize,
    /// Device memory of [`Self::SMALL_BYTES`].
    pub small: u64,
    kernel: usize,
    arguments: Arguments,
}

impl<'a> Workbench<'a> {
    /// Bytes of [`Self::small`].
    pub const SMALL_BYTES: usize = 4096;

    /// On the first device.
    ///
    /// # Errors
    /// What the driver says.
    pub fn new(driver: &'a Driver) -> Result<Self, DriverError> {
        let device = driver.use_first_device()?;
        let module = driver.load_module(include_str!("../../../evaluation/kernels/vector_add.ptx"))?;
        let small = driver.allocate(Self::SMALL_BYTES)?;
        let bench = Self {
            driver,
            device_name: driver.device_name(device)?,
            stream: driver.create_stream()?,
            event: driver.create_event()?,
            small,
            kernel: driver.function(module, "vector_add")?,
            arguments: Arguments::new(&[
                Argument::Address(small),
                Argument::Address(small),
                Argument::Address(small),
                Argument::Int(ELEMENTS.cast_signed()),
            ]),
        };
        driver.fill(small, 0, Self::SMALL_BYTES, bench.stream)?;
        bench.synchronize()?;
        Ok(bench)
    }

    /// Launches the small kernel.
    #[inline]
    pub fn launch(&mut self) -> Result<(), DriverError> {
        const { assert!(ELEMENTS as usize * size_of::<f32>() <= Self::SMALL_BYTES) };
        let shape = LaunchShape { grid: [1; 3], block: [ELEMENTS, 1, 1], shared_bytes: 0 };
        // SAFETY: vector_add takes three addresses and an int, and there is memory for that many elements.
        unsafe { self.driver.launch(self.kernel, shape, self.stream, &mut self.arguments) }
    }

    /// Waits until the device has done everything.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        self.driver.synchronize(self.stream)
    }
}

/// What something cost this process.
#[derive(Debug)]
pub struct Cost {
    /// On the wall.
    pub wall: Duration,
    /// Of the CPU, on all threads.
    pub cpu: Duration,
    /// How often the calling thread gave up its CPU, which it does to sleep.
    pub sleeps: u64,
    /// How often its CPU was taken away.
    pub preemptions: u64,
}

impl Cost {
    /// Of `count` calls in a row.
    ///
    /// # Errors
    /// Those of the calls; [`BenchError::Usage`].
    pub fn of(count: usize, mut call: impl FnMut() -> Result<(), DriverError>) -> Result<Self, BenchError> {
        let before = Usage::now()?;
        let began = Instant::now();
        for _ in 0..count {
            call()?;
        }
        let wall = began.elapsed();
        let after = Usage::now()?;
        Ok(Self {
            wall,
            cpu: after.cpu.saturating_sub(before.cpu),
            sleeps: after.sleeps.saturating_sub(before.sleeps),
            preemptions: after.preemptions.saturating_sub(before.preemptions),
        })
    }
}

struct Usage {
    cpu: Duration,
    sleeps: u64,
    preemptions: u64,
}

impl Usage {
    fn now() -> Result<Self, BenchError> {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: getrusage(2) fills in the structure that it is given.
        if unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) } != 0 {
            return Err(BenchError::Usage(io::Error::last_os_error()));
        }
        // SAFETY: it is filled in, and zeroes are valid in each of its fields anyway.
        let usage = unsafe { usage.assume_init() };
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Ok(Self {
            cpu: Duration::try_from(cpu).unwrap_or_default(),
            sleeps: usage.ru_nvcsw.cast_unsigned(),
            preemptions: usage.ru_nivcsw.cast_unsigned(),
        })
    }
}
