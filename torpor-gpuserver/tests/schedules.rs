//! Random schedules of allocations, copies, launches, evictions and moves, against a reference that never evicts.
//!
//! A few clients share two GPUs, each of which has room for about one of them, so that nearly every command brings memory in
//! or drives somebody else's out. The reference is what memory must contain, computed here; it is compared wherever a program could
//! look. The simulated GPU's checks must stay silent.
//!
//! `PROPTEST_CASES` says how many schedules, `PROPTEST_RNG_SEED` repeats them.

mod served;
mod server_support;
mod worker_support;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use server_support::server::Server;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;
use torpor_proto::command::{
    Fill, GraphAppend, GraphDestroy, GraphInstantiate, GraphLaunch, MemoryFree, StreamCreate,
};
use torpor_proto::control::admin::{LoadFunctionRequest, UnloadFunctionRequest};
use torpor_proto::layout::AddressRange;
use worker_support::Client;
use worker_support::kernels::{add_step_parameters, launch, record};

const MIB: u64 = 1 << 20;

const GPUS: u32 = 2;
/// What all functions together may use of a GPU: less than two of them can have.
const GPU_LIMIT: &str = "10MiB";
const CLIENTS: usize = 3;
/// Nodes side by side: they mostly wait.
const NODES: u32 = 8;
/// Schedules of each node, unless `PROPTEST_CASES` says how many.
const SCHEDULES: u32 = 125;
/// Segments of a client, at places 8 MiB apart in its arena.
const SEGMENTS: usize = 4;
/// Elements that kernels work on.
const COUNT: u32 = 300;
/// What the kernels add.
const STEP: u32 = 3;

/// A step of a schedule; segments that are not there make it nothing.
#[derive(Clone, Debug)]
enum Step {
    Allocate {
        segment: usize,
        chunks: u64,
    },
    Free {
        segment: usize,
    },
    Upload {
        segment: usize,
        offset: u64,
        bytes: u64,
        seed: u8,
    },
    Fill {
        segment: usize,
        offset: u64,
        bytes: u64,
        value: u8,
    },
    Copy {
        from: usize,
        to: usize,
        offset: u64,
        bytes: u64,
    },
    Add {
        segment: usize,
        offset: u64,
    },
    /// Stores a pointer to another segment at the beginning of one.
    Point {
        from: usize,
        to: usize,
    },
    /// Adds through the pointer at the beginning of a segment, if there is one.
    AddThrough {
        segment: usize,
    },
    /// Makes a graph of two additions.
    Capture {
        segment: usize,
    },
    /// Launches the graph.
    Replay,
    Look {
        segment: usize,
        offset: u64,
        bytes: u64,
    },
    Unload,
    Load,
    /// To one of the GPUs, whether it is there or not.
    Move {
        gpu: u32,
    },
    /// Nothing for a while, in which chunks are identified.
    Rest,
}

fn step() -> impl Strategy<Value = Step> {
    let segment = || 0..SEGMENTS;
    let offset = || prop_oneof![Just(0), (0..1600_u64).prop_map(|kib| kib << 10)];
    let bytes = || prop_oneof![3 => 1..2000_u64, 1 => (1..400_u64).prop_map(|kib| kib << 10)];
    prop_oneof![
        8 => (segment(), 1..3_u64).prop_map(|(segment, chunks)| Step::Allocate { segment, chunks }),
        1 => segment().prop_map(|segment| Step::Free { segment }),
        4 => (segment(), offset(), bytes(), any::<u8>())
            .prop_map(|(segment, offset, bytes, seed)| Step::Upload { segment, offset, bytes, seed }),
        2 => (segment(), offset(), bytes(), any::<u8>())
            .prop_map(|(segment, offset, bytes, value)| Step::Fill { segment, offset, bytes, value }),
        2 => (segment(), segment(), offset(), bytes())
            .prop_map(|(from, to, offset, bytes)| Step::Copy { from, to, offset, bytes }),
        5 => (segment(), offset()).prop_map(|(segment, offset)| Step::Add { segment, offset }),
        2 => (segment(), segment()).prop_map(|(from, to)| Step::Point { from, to }),
        3 => segment().prop_map(|segment| Step::AddThrough { segment }),
        1 => segment().prop_map(|segment| Step::Capture { segment }),
        2 => Just(Step::Replay),
        4 => (segment(), offset(), bytes())
            .prop_map(|(segment, offset, bytes)| Step::Look { segment, offset, bytes }),
        2 => Just(Step::Unload),
        1 => Just(Step::Load),
        2 => (0..GPUS).prop_map(|gpu| Step::Move { gpu }),
        1 => Just(Step::Rest),
    ]
}

/// A client and what its memory must contain.
struct Program {
    client: Client,
    name: String,
    _lifeline: std::os::unix::net::UnixStream,
    memory: BTreeMap<usize, Vec<u8>>,
    /// The segment that the graph is about; a graph may outlive it, and is not launched then.
    graph: Option<usize>,
}

impl Program {
    fn start(server: &Server, number: usize) -> Self {
        let name = format!("f{number}");
        let served::Attached { mut client, lifeline } = served::attach(server, &name);
        client.load_kernels();
        client.post(StreamCreate { stream: 1, flags: 0, priority: 0, reserved: 0 }, &[]);
        Self { client, name, _lifeline: lifeline, memory: BTreeMap::new(), graph: None }
    }

    fn address(&self, segment: usize) -> u64 {
        let AddressRange { address, .. } = self.client.arena;
        address + segment as u64 * 8 * MIB
    }

    /// Where bytes of a segment are, if they are inside it.
    fn place(&self, segment: usize, offset: u64, bytes: u64) -> Option<(u64, std::ops::Range<usize>)> {
        let length = self.memory.get(&segment)?.len() as u64;
        (offset + bytes <= length)
            .then(|| (self.address(segment) + offset, offset as usize..(offset + bytes) as usize))
    }

    fn take(&mut self, server: &Server, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Allocate { segment, chunks } => {
                let total: usize = self.memory.values().map(Vec::len).sum();
                if !self.memory.contains_key(&segment) && total as u64 + chunks * 2 * MIB <= 8 * MIB {
                    self.client.allocate(segment as u64 * 8 * MIB, chunks * 2 * MIB).unwrap();
                    self.memory.insert(segment, vec![0; (chunks * 2 * MIB) as usize]);
                }
            }
            Step::Free { segment } => {
                if self.memory.remove(&segment).is_some() {
                    self.client.post(MemoryFree { address: self.address(segment) }, &[]);
                    if self.graph == Some(segment) {
                        self.graph = None;
                        self.client.post(GraphDestroy { graph: 1, reserved: 0 }, &[]);
                    }
                }
            }
            Step::Upload { segment, offset, bytes, seed } => {
                let Some((address, range)) = self.place(segment, offset, bytes) else { return Ok(()) };
                let data: Vec<u8> = (0..bytes).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect();
                self.client.upload(address, &data);
                self.memory.get_mut(&segment).unwrap()[range].copy_from_slice(&data);
            }
            Step::Fill { segment, offset, bytes, value } => {
                let Some((address, range)) = self.place(segment, offset, bytes) else { return Ok(()) };
                let fill = Fill {
                    address,
                    width: bytes,
                    height: 1,
                    value: value.into(),
                    element_bytes: 1,
                    stream: 1,
                    ..Fill::default()
                };
                self.client.post(fill, &[]);
                self.memory.get_mut(&segment).unwrap()[range].fill(value);
            }
            Step::Copy { from, to, offset, bytes } => {
                let (Some((source, range)), Some((target, _))) =
                    (self.place(from, offset, bytes), self.place(to, offset, bytes))
                else {
                    return Ok(());
                };
                if from != to {
                    self.client.copy(target, source, bytes, 1);
                    let data = self.memory[&from][range.clone()].to_vec();
                    self.memory.get_mut(&to).unwrap()[range].copy_from_slice(&data);
                }
            }
            Step::Add { segment, offset } => {
                let Some((address, range)) = self.place(segment, offset, u64::from(COUNT) * 4) else {
                    return Ok(());
                };
                self.client.add_step(address, COUNT, 1);
                add(&mut self.memory.get_mut(&segment).unwrap()[range]);
            }
            Step::Point { from, to } => {
                if let (Some((address, range)), true) =
                    (self.place(from, 0, 8), self.memory.contains_key(&to))
                {
                    let pointer = (self.address(to) + 64).to_le_bytes();
                    self.client.upload(address, &pointer);
                    self.memory.get_mut(&from).unwrap()[range].copy_from_slice(&pointer);
                }
            }
            Step::AddThrough { segment } => {
                let Some(memory) = self.memory.get(&segment) else { return Ok(()) };
                let pointer = u64::from_le_bytes(memory[..8].try_into().unwrap());
                let target = (0..SEGMENTS).find(|&target| self.address(target) + 64 == pointer);
                if let Some(target) = target.filter(|target| self.memory.contains_key(target)) {
                    self.client.add_through(self.address(segment), COUNT, 0);
                    add(&mut self.memory.get_mut(&target).unwrap()[64..64 + COUNT as usize * 4]);
                }
            }
            Step::Capture { segment } => {
                if self.graph.is_none() && self.memory.contains_key(&segment) {
                    let parameters = add_step_parameters(self.address(segment), COUNT);
                    let mut records = Vec::new();
                    for _ in 0..2 {
                        record(
                            &mut records,
                            launch(1, 7, COUNT.div_ceil(64), 64, parameters.len()),
                            &parameters,
                        );
                    }
                    self.client.post(GraphAppend { graph: 1, reserved: 0 }, bytemuck::cast_slice(&records));
                    self.client.ask(GraphInstantiate { graph: 1, origin: 7, flags: 0 }).unwrap();
                    self.graph = Some(segment);
                }
            }
            Step::Replay => {
                if let Some(segment) = self.graph {
                    self.client.post(GraphLaunch { graph: 1, stream: 0 }, &[]);
                    let memory = &mut self.memory.get_mut(&segment).unwrap()[..COUNT as usize * 4];
                    add(memory);
                    add(memory);
                }
            }
            Step::Look { segment, offset, bytes } => {
                let Some((address, range)) = self.place(segment, offset, bytes) else { return Ok(()) };
                let seen = self.client.download(address, bytes as usize);
                prop_assert!(seen == self.memory[&segment][range], "segment {segment} at {offset}");
            }
            Step::Unload => {
                self.client.settle().unwrap();
                let request = UnloadFunctionRequest { name: self.name.clone() };
                server.admin(async |mut api| api.unload_function(request).await).unwrap();
            }
            Step::Rest => std::thread::sleep(Duration::from_millis(30)),
            Step::Load => {
                self.client.settle().unwrap();
                self.load(server, None);
            }
            Step::Move { gpu } => {
                self.client.settle().unwrap();
                self.load(server, Some(gpu));
            }
        }
        Ok(())
    }

    fn load(&self, server: &Server, gpu: Option<u32>) {
        let request = LoadFunctionRequest { name: self.name.clone(), gpu };
        server.admin(async |mut api| api.load_function(request).await).unwrap();
    }

    /// All of its memory is as it must be.
    fn check(&mut self) -> Result<(), TestCaseError> {
        for (&segment, memory) in &self.memory {
            let address = self.client.arena.address + segment as u64 * 8 * MIB;
            for (part, wanted) in (address..).step_by(MIB as usize).zip(memory.chunks(MIB as usize)) {
                prop_assert!(
                    self.client.download(part, wanted.len()) == wanted,
                    "segment {segment} at {part:#x}"
                );
            }
        }
        Ok(())
    }
}

fn add(memory: &mut [u8]) {
    for element in memory.as_chunks_mut().0 {
        *element = u32::from_le_bytes(*element).wrapping_add(STEP).to_le_bytes();
    }
}

#[test]
fn whatever_is_evicted_and_when_programs_see_the_memory_they_wrote() {
    std::thread::scope(|scope| {
        for _ in 0..NODES {
            scope.spawn(run_schedules);
        }
    });
}

fn run_schedules() {
    let (findings, spill) = (tempfile::NamedTempFile::new().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start_by(|directory| {
        let mut command = Command::new(served::PROGRAM);
        command.arg("serve").arg("--directory").arg(directory.path()).arg("--driver").arg(served::driver());
        command.args([
            "--gpus",
            "0,1",
            "--pinned-limit",
            "8MiB",
            "--staging",
            "4MiB",
            "--gpu-limit",
            GPU_LIMIT,
        ]);
        command.arg("--spill-dir").arg(spill.path());
        // The pool has room for one of them: the least with which every eviction must succeed.
        command.args(["--memory-limit", "8MiB", "--host-pool", "8MiB", "--host-slab", "4MiB"]);
        command
            .env("TORPOR_SIMGPU_DEVICES", GPUS.to_string())
            .env("TORPOR_SIMGPU_CHECKS", "unordered,busy,streams")
            .env("TORPOR_SIMGPU_LOG", findings.path());
        command.env("TORPOR_GPUSERVER", served::PROGRAM).stdin(Stdio::null()).stdout(Stdio::null());
        command
    });
    let schedule = prop::collection::vec((0..CLIENTS, step()), 10..80);
    let cases =
        if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { SCHEDULES };
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 300,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let swaps = Cell::new(0);
    let outcome = TestRunner::new(config).run(&schedule, |schedule| {
        let mut programs: Vec<_> = (0..CLIENTS).map(|number| Program::start(&server, number)).collect();
        for (program, step) in &schedule {
            programs[*program].take(&server, step)?;
        }
        programs.iter_mut().try_for_each(Program::check)?;
        swaps.set(swaps.get() + server.functions().iter().map(|function| function.swaps).sum::<u64>());
        Ok(())
    });
    let findings = std::fs::read_to_string(findings.path()).unwrap();
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let found: Vec<_> = findings.lines().filter(|line| line.contains(": check ")).collect();
    assert!(found.is_empty(), "the simulated GPU found something: {found:#?}");
    assert!(!server.said("mistake of its worker"));
    assert!(swaps.get() > u64::from(cases), "only {} swaps in {cases} schedules", swaps.get());
}
