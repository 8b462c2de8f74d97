//! Launches: checking them when they are issued, running them when their stream gets there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::abi::{In, LaunchAttribute, LaunchConfig};
use crate::capture;
use crate::clock::{Resource, nanoseconds};
use crate::config::CubinKernels;
use crate::context::Context;
use crate::error::{CudaError, Result};
use crate::function::{self, Function};
use crate::green;
use crate::lock;
use crate::machine::Machine;
use crate::memory::{Accessor, KernelMemory, Mapping};
use crate::occupancy::max_blocks;
use crate::operation::{Place, Work, spend};
use crate::ptx::{self, KernelFault};
use crate::stream;

/// A launch: a function, its shape and its parameter block.
#[derive(Debug)]
pub struct Launch {
    function: Arc<Function>,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    cooperative: bool,
    parameters: Vec<u8>,
}

impl Launch {
    /// The kernel's name.
    pub fn name(&self) -> &str {
        self.function.info().name.to_str().unwrap_or("?")
    }

    /// Whether any aligned word of the parameters points into a mapping.
    fn points_into(&self, mapping: &Mapping) -> bool {
        let words = self.parameters.chunks_exact(8).filter_map(|word| word.first_chunk());
        words.map(|word| u64::from_le_bytes(*word)).any(|word| mapping.start <= word && word < mapping.end())
    }
}

/// The shape of a launch, as a caller gives it.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub stream: u64,
    pub cooperative: bool,
    pub cluster: Option<[u32; 3]>,
}

/// `CU_LAUNCH_PARAM_BUFFER_POINTER`.
const BUFFER_POINTER: u64 = 1;
/// `CU_LAUNCH_PARAM_BUFFER_SIZE`.
const BUFFER_SIZE: u64 = 2;
/// More words than any list of extra arguments has.
const MAX_EXTRA: usize = 16;

impl Request {
    /// The shape in a `CUlaunchConfig`.
    pub fn from_config(config: LaunchConfig) -> Result<Self> {
        let LaunchConfig { grid, block, shared_bytes, stream, attributes, attribute_count } = config;
        let mut request = Self { grid, block, shared_bytes, stream, cooperative: false, cluster: None };
        let list = In::<u8>::at(attributes).cast::<LaunchAttribute>().array(attribute_count as usize)?;
        for LaunchAttribute { id, value, .. } in list {
            let half = |index: usize| (value[index / 2] >> (32 * (index % 2))) as u32;
            match id {
                2 => request.cooperative = half(0) != 0,
                4 => request.cluster = Some([half(0), half(1), half(2)]),
                // The others say how fast or in which overlap, not what.
                _ => {}
            }
        }
        Ok(request)
    }
}

/// Checks and issues a launch.
pub fn issue(
    machine: &'static Machine,
    function: u64,
    request: Request,
    list: In<u64>,
    extra: In<u64>,
) -> Result {
    let (context, queue) = stream::find(machine, request.stream)?;
    let function = function::find(machine, function)?;
    if function.module.device != context.device {
        return Err(CudaError::INVALID_HANDLE);
    }
    let launch = check(machine, &context, function, request)?;
    if launch.cooperative && !extra.is_null() {
        capture::refuse_block(&queue)?;
    }
    if launch.function.module.code.ptx.is_none() {
        meet_cubin(machine, &launch)?;
    }
    let launch = Arc::new(Launch { parameters: parameters(&launch.function, list, extra)?, ..launch });
    machine.clock.host_works(machine.config.profile.launch_us);
    machine.printed.flush();
    if machine.config.checks.busy {
        machine.in_flight.add(&launch);
    }
    let issued = stream::enqueue(machine, &context, &queue, Work::Launch(launch.clone()), Vec::new());
    if !matches!(issued, Ok(Some(_))) {
        // It became part of a graph, or nothing.
        machine.in_flight.remove(&launch);
    }
    issued.map(drop)
}

/// Says in the log that a kernel cannot be executed, and refuses it unless such kernels are to be skipped.
fn meet_cubin(machine: &Machine, launch: &Launch) -> Result {
    let (what_now, result) = match machine.config.cubins {
        CubinKernels::Refused => ("build its module with PTX", Err(CudaError::NOT_SUPPORTED)),
        CubinKernels::Skipped => ("it is skipped, and what it should compute is missing", Ok(())),
    };
    let name = launch.name();
    machine.log.once(&format!("kernel {name} exists only as a cubin, which cannot be executed: {what_now}"));
    result
}

fn check(machine: &Machine, context: &Context, function: Arc<Function>, request: Request) -> Result<Launch> {
    let architecture = &machine.config.profile.architecture;
    let Request { grid, block, shared_bytes, cooperative, cluster, .. } = request;
    let cluster = cluster.unwrap_or_else(|| function.required_cluster());
    let threads = block.iter().try_fold(1_u32, |product, &extent| product.checked_mul(extent));
    let threads =
        threads.filter(|&threads| threads > 0 && threads <= 1024).ok_or(CudaError::INVALID_VALUE)?;
    if block[2] > 64 || grid.contains(&0) || grid[0] > i32::MAX as u32 || grid[1] > 65535 || grid[2] > 65535 {
        return Err(CudaError::INVALID_VALUE);
    }
    if shared_bytes > function.max_dynamic_shared() {
        return Err(CudaError::INVALID_VALUE);
    }
    if threads > function.info().max_threads_per_block {
        return Err(CudaError::LAUNCH_OUT_OF_RESOURCES);
    }
    let divides =
        grid.iter().zip(cluster).all(|(&grid, cluster)| cluster > 0 && grid.is_multiple_of(cluster));
    let blocks_of_cluster = cluster.iter().try_fold(1_u32, |product, &extent| product.checked_mul(extent));
    if !divides
        || blocks_of_cluster.is_none_or(|blocks| blocks > 16 || (blocks > 1 && !architecture.has_clusters()))
    {
        return Err(CudaError::INVALID_CLUSTER_SIZE);
    }
    if cooperative {
        let blocks = grid.iter().map(|&extent| u64::from(extent)).product::<u64>();
        let resident = u64::from(max_blocks(architecture, function.info(), threads, shared_bytes));
        let multiprocessors = green::part_of_context(machine, context).numbers().len();
        if blocks > resident * multiprocessors as u64 {
            return Err(CudaError::COOPERATIVE_LAUNCH_TOO_LARGE);
        }
    }
    Ok(Launch { function, grid, block, shared_bytes, cooperative, parameters: Vec::new() })
}

/// The parameter block, from an array of pointers or from one buffer.
fn parameters(function: &Function, list: In<u64>, extra: In<u64>) -> Result<Vec<u8>> {
    let layout = &function.info().parameters;
    let needed = layout.iter().map(|&(offset, bytes)| offset.saturating_add(bytes)).max().unwrap_or(0);
    if !extra.is_null() {
        let (mut buffer, mut bytes) = (0, None);
        for index in (0..MAX_EXTRA).step_by(2) {
            match extra.element(index)? {
                0 => break,
                BUFFER_POINTER => buffer = extra.element(index + 1)?,
                BUFFER_SIZE => bytes = Some(In::<u8>::at(extra.element(index + 1)?).cast::<usize>().get()?),
                _ => return Err(CudaError::INVALID_VALUE),
            }
        }
        let bytes = bytes.filter(|&bytes| bytes >= needed).ok_or(CudaError::INVALID_VALUE)?;
        return In::<u8>::at(buffer).array(bytes.min(needed));
    }
    let mut block = vec![0; needed];
    for (index, &(offset, bytes)) in layout.iter().enumerate() {
        let value = In::<u8>::at(list.element(index)?).array(bytes)?;
        block[offset..offset + bytes].copy_from_slice(&value);
    }
    Ok(block)
}

/// Runs the kernel.
pub fn execute(machine: &Machine, launch: &Arc<Launch>, place: &Place) -> Result<u64> {
    let result = run(machine, launch, place);
    if machine.config.checks.busy {
        machine.in_flight.remove(launch);
    }
    result
}

fn run(machine: &Machine, launch: &Launch, place: &Place) -> Result<u64> {
    let module = &launch.function.module;
    let profile = &machine.config.profile;
    let take_us = |duration_us: f64| {
        spend(machine, &[Resource::Compute(place.device)], place, nanoseconds(duration_us))
    };
    let Some(code) = &module.code.ptx else {
        return Ok(take_us(profile.kernel_us));
    };
    let kernel = code.kernel(launch.name()).ok_or(CudaError::NOT_FOUND)?;
    let all_multiprocessors = profile.architecture.multiprocessors.unsigned_abs();
    let who = format!("kernel {}", launch.name());
    let memory = KernelMemory(Accessor::for_kernel(machine, &who, place.stamp.as_ref(), place.device));
    let of_green = machine.contexts.find(place.green).ok().and_then(|context| context.part);
    let multiprocessors = match &of_green {
        Some(part) => part.numbers(),
        None => (0..all_multiprocessors).collect(),
    };
    let statistics = code.run(
        kernel,
        &ptx::Launch {
            grid: launch.grid,
            block: launch.block,
            multiprocessors: &multiprocessors,
            all_multiprocessors,
            dynamic_shared_bytes: launch.shared_bytes as usize,
            parameters: &launch.parameters,
            globals: &|name| module.address_of(name),
            memory: &memory,
            system: machine,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            is_cooperative: launch.cooperative,
            cancel: &machine.cancel,
        },
    );
    drop(memory);
    let statistics = statistics.map_err(|fault| {
        machine.log.line(&format!("{fault}"));
        if let KernelFault::Assertion { text, .. } = &fault {
            // What the driver says goes where the process says such things.
            eprintln!("{text}");
        }
        error_of(&fault)
    })?;
    Ok(take_us((statistics.instructions as f64 / profile.instructions_per_us).max(profile.kernel_us)))
}

fn error_of(fault: &KernelFault) -> CudaError {
    match fault {
        KernelFault::Memory { .. } => CudaError::ILLEGAL_ADDRESS,
        KernelFault::Misaligned { .. } => CudaError::MISALIGNED_ADDRESS,
        KernelFault::Assertion { .. } => CudaError::ASSERT,
        KernelFault::Trap { .. } => CudaError::ILLEGAL_INSTRUCTION,
        KernelFault::Deadlock { .. }
        | KernelFault::Cancelled { .. }
        | KernelFault::InvalidLaunch { .. }
        | KernelFault::UnknownGlobal { .. } => CudaError::LAUNCH_FAILED,
    }
}

/// The launches that were issued and are not complete, for the check `busy`.
#[derive(Debug, Default)]
pub struct InFlight {
    launches: Mutex<HashMap<usize, Arc<Launch>>>,
}

impl InFlight {
    fn key(launch: &Arc<Launch>) -> usize {
        Arc::as_ptr(launch).addr()
    }

    fn add(&self, launch: &Arc<Launch>) {
        lock(&self.launches).insert(Self::key(launch), Arc::clone(launch));
    }

    fn remove(&self, launch: &Arc<Launch>) {
        lock(&self.launches).remove(&Self::key(launch));
    }

    /// Reports the launches that were given a pointer into memory that is going away.
    pub fn report_uses(&self, machine: &Machine, mapping: &Mapping, how: &str) {
        for launch in lock(&self.launches).values().filter(|launch| launch.points_into(mapping)) {
            machine.log.line(&format!(
                "check busy: {} bytes at {:#x} are {how} while kernel {} that has a pointer into them is not complete",
                mapping.asked_bytes,
                mapping.start,
                launch.name()
            ));
        }
    }
}
