//! Runs the blocks of a grid on host threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::address::WindowCache;
use super::block::Block;
use super::error::KernelFault;
use super::module::Kernel;
use super::program::Program;
use super::space::DeviceMemory;
use super::system::System;

/// A kernel launch: what `cuLaunchKernel` passes, and the world that the kernel sees.
pub struct Launch<'a> {
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z; at most 1024 in all.
    pub block: [u32; 3],
    /// The numbers of the multiprocessors that it runs on.
    pub multiprocessors: &'a [u32],
    /// How many the device has.
    pub all_multiprocessors: u32,
    /// Bytes of dynamic shared memory, beyond what the kernel declares.
    pub dynamic_shared_bytes: usize,
    /// The parameter block, laid out as [`Kernel::parameters`] says.
    pub parameters: &'a [u8],
    /// Device address of a module global by name; asked once per global and launch.
    pub globals: &'a dyn Fn(&str) -> Option<u64>,
    /// Device memory.
    pub memory: &'a dyn DeviceMemory,
    /// What is behind the driver's functions that kernels call.
    pub system: &'a dyn System,
    /// Host threads to spread the blocks over; 0 counts as 1. With 1, blocks run in order on the calling thread.
    pub threads: usize,
    /// All blocks run at once, each on a host thread of its own, so that any may wait for any other.
    pub is_cooperative: bool,
    /// Set from another thread, it stops the kernel soon, with [`KernelFault::Cancelled`].
    pub cancel: &'a AtomicBool,
}

/// What a launch did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// PTX instructions executed, each thread counted by itself; instructions whose guard is false not counted.
    pub instructions: u64,
}

/// The part of a launch that host threads share.
pub(super) struct Shared<'a> {
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) multiprocessors: &'a [u32],
    pub(super) all_multiprocessors: u32,
    pub(super) dynamic_shared_bytes: usize,
    pub(super) parameters: &'a [u8],
    pub(super) memory: &'a dyn DeviceMemory,
    pub(super) system: &'a dyn System,
    pub(super) cancel: &'a AtomicBool,
}

impl Shared<'_> {
    /// The multiprocessor that a block runs on: they take turns.
    pub(super) fn multiprocessor_of(&self, [x, y, z]: [u32; 3]) -> u32 {
        let [across, down, _] = self.grid.map(u64::from);
        let index = (u64::from(z) * down + u64::from(y)) * across + u64::from(x);
        let count = self.multiprocessors.len().max(1) as u64;
        self.multiprocessors.get((index % count) as usize).copied().unwrap_or(0)
    }
}

/// What a host thread needs to run blocks of one launch.
pub(super) struct Context<'a> {
    pub(super) program: &'a Program,
    pub(super) launch: &'a Shared<'a>,
    /// Device addresses of the program's globals.
    pub(super) globals: &'a [u64],
    /// The block's shared memory, static part first.
    pub(super) shared: Vec<u8>,
    pub(super) windows: WindowCache,
    pub(super) instructions: u64,
    started: Instant,
}

impl Context<'_> {
    /// A cycle counter: one cycle a nanosecond.
    pub(super) fn clock(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Nanoseconds since 1970.
    pub(super) fn nanoseconds(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Most threads of a block.
const MAX_THREADS_PER_BLOCK: u64 = 1024;
/// Most bytes of shared memory of a block: what the largest GPU offers.
const MAX_SHARED_BYTES: usize = 228 * 1024;

/// When the blocks that are left would take one thread longer than this, other threads help: about what it costs to
/// start them.
const WORTH_HELP: Duration = Duration::from_micros(100);

/// A grid under execution.
struct Grid<'a> {
    kernel: &'a str,
    program: &'a Program,
    launch: Shared<'a>,
    globals: Vec<u64>,
    blocks: u64,
    /// The block to start next. Blocks start in order, so that one may wait for another with a lower index, and for every other one
    /// if the launch is cooperative.
    next: AtomicU64,
    /// Set when a block has failed.
    stop: AtomicBool,
    outcome: Mutex<Result<Statistics, KernelFault>>,
    started: Instant,
}

impl Grid<'_> {
    /// Runs blocks until none is left; calls `after_first` after the first, with the time that it took.
    fn work(&self, after_first: &dyn Fn(Duration)) {
        let mut context = Context {
            program: self.program,
            launch: &self.launch,
            globals: &self.globals,
            shared: vec![0; self.program.static_shared_bytes + self.launch.dynamic_shared_bytes],
            windows: WindowCache::default(),
            instructions: 0,
            started: self.started,
        };
        let mut block = Block::new(&context);
        let mut fault = None;
        let mut first = true;
        while !self.stop.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.blocks {
                break;
            }
            let begun = Instant::now();
            if let Err(failed) = block.run(&mut context, self.kernel, index, &self.stop) {
                self.stop.store(true, Ordering::Relaxed);
                fault = Some(failed);
            } else if std::mem::take(&mut first) {
                after_first(begun.elapsed());
            }
        }
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *outcome, fault) {
            (Ok(statistics), None) => statistics.instructions += context.instructions,
            // The first fault stands, but a thread that was stopped because of it reports a mere cancellation.
            (Ok(_) | Err(KernelFault::Cancelled { .. }), Some(fault)) => *outcome = Err(fault),
            _ => {}
        }
    }
}

/// Runs a kernel to its end.
pub(super) fn run(kernel: &Kernel, launch: &Launch<'_>) -> Result<Statistics, KernelFault> {
    check(kernel, launch)?;
    let unknown =
        |symbol: &String| KernelFault::UnknownGlobal { kernel: kernel.name.clone(), symbol: symbol.clone() };
    let symbols = kernel.program.globals.iter();
    let globals = symbols
        .map(|symbol| (launch.globals)(symbol).ok_or_else(|| unknown(symbol)))
        .collect::<Result<Vec<u64>, KernelFault>>()?;
    let grid = Grid {
        kernel: &kernel.name,
        program: &kernel.program,
        launch: Shared {
            grid: launch.grid,
            block: launch.block,
            multiprocessors: launch.multiprocessors,
            all_multiprocessors: launch.all_multiprocessors,
            dynamic_shared_bytes: launch.dynamic_shared_bytes,
            parameters: launch.parameters,
            memory: launch.memory,
            system: launch.system,
            cancel: launch.cancel,
        },
        globals,
        blocks: launch.grid.iter().map(|&extent| u64::from(extent)).product(),
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        outcome: Mutex::new(Ok(Statistics::default())),
        started: Instant::now(),
    };
    std::thread::scope(|scope| {
        let left = grid.blocks - 1;
        let help = |helpers: u64| {
            for _ in 0..helpers {
                scope.spawn(|| grid.work(&|_| ()));
            }
        };
        if launch.is_cooperative {
            help(left);
        }
        grid.work(&|first| {
            let is_long = first.saturating_mul(u32::try_from(left).unwrap_or(u32::MAX)) > WORTH_HELP;
            if is_long && !launch.is_cooperative {
                help((launch.threads.max(1) as u64 - 1).min(left));
            }
        });
    });
    grid.outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn check(kernel: &Kernel, launch: &Launch<'_>) -> Result<(), KernelFault> {
    let invalid = |reason: String| Err(KernelFault::InvalidLaunch { kernel: kernel.name.clone(), reason });
    let threads =
        launch.block.iter().try_fold(1, |product: u64, &extent| product.checked_mul(u64::from(extent)));
    let limit = u64::from(kernel.max_threads_per_block).min(MAX_THREADS_PER_BLOCK);
    if !threads.is_some_and(|threads| (1..=limit).contains(&threads)) {
        return invalid(format!("a block of {:?} threads is not within 1 to {limit}", launch.block));
    }
    let blocks =
        launch.grid.iter().try_fold(1, |product: u64, &extent| product.checked_mul(u64::from(extent)));
    if !blocks.is_some_and(|blocks| (1..1 << 62).contains(&blocks)) {
        return invalid(format!("a grid of {:?} blocks", launch.grid));
    }
    let shared = kernel.static_shared_bytes.saturating_add(launch.dynamic_shared_bytes);
    if shared > MAX_SHARED_BYTES {
        return invalid(format!("{shared} bytes of shared memory; {MAX_SHARED_BYTES} exist"));
    }
    let needed =
        kernel.parameters.iter().map(|parameter| parameter.offset + parameter.bytes).max().unwrap_or(0);
    if launch.parameters.len() < needed {
        return invalid(format!("{} bytes of parameters; {needed} needed", launch.parameters.len()));
    }
    Ok(())
}
