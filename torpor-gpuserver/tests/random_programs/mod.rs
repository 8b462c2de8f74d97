//! Programs that do anything with their memory, and what it must contain: the reference never evicts.
//!
//! Half of the segments are memory objects, mapped side by side, that are also unmapped for a while and mapped again; one more is
//! managed memory, which the program reads and writes itself, and to and from which pointers lead. Segments are copied into an array and
//! out of it. What memory must contain is compared wherever a program could look.

mod picture;
mod step;

pub use step::{Step, step};

use crate::served::{Attached, attach};
use crate::server_support::server::Server;
use crate::worker_support::Client;
use crate::worker_support::kernels::{STATE, add_step_parameters, launch, record};
use picture::Picture;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;
use torpor_proto::command::{
    Fill, GraphAppend, GraphDestroy, GraphInstantiate, GraphLaunch, HostLock, HostUnlock, MemoryFree,
    ObjectCreate, ObjectMap, ObjectRelease, ObjectUnmap, StreamCreate, WordWrite,
};
use torpor_proto::control::admin::{LoadFunctionRequest, UnloadFunctionRequest};

const MIB: u64 = 1 << 20;

/// GPUs of their node.
pub const GPUS: u32 = 2;
/// Segments of a client, at places 8 MiB apart in its arena; the last is in its host range.
const SEGMENTS: usize = 5;
/// The one that is managed memory.
const MANAGED: usize = SEGMENTS - 1;
/// Staging at the beginning of the host range.
const STAGING: u64 = 4 * MIB;
/// Elements that kernels work on.
const COUNT: u32 = 300;
/// Variables that a kernel counts in and multiplies by.
const VARIABLES: [&str; 2] = ["counter", "factor"];
/// What the kernels add.
const STEP: u32 = 3;

/// A client and what its memory must contain.
pub struct Program {
    pub client: Client,
    pub name: String,
    _lifeline: std::os::unix::net::UnixStream,
    memory: BTreeMap<usize, Vec<u8>>,
    /// The same of segments that are unmapped.
    hidden: BTreeMap<usize, Vec<u8>>,
    /// The segment that the graph is about; a graph may outlive it, and is not launched then.
    graph: Option<usize>,
    /// What [`VARIABLES`] must be, once they are used.
    variables: Option<[u32; 2]>,
    /// What the managed variable `ticks` must be, once they are used.
    ticks: u32,
    picture: Option<Picture>,
}

impl Program {
    pub fn start(server: &Server, number: usize) -> Self {
        let name = format!("f{number}");
        let Attached { mut client, lifeline } = attach(server, &name);
        client.load_kernels();
        client.post(StreamCreate { stream: 1, flags: 0, priority: 0, context: 0 }, &[]);
        Self {
            client,
            name,
            _lifeline: lifeline,
            memory: BTreeMap::new(),
            hidden: BTreeMap::new(),
            graph: None,
            variables: None,
            ticks: 100,
            picture: None,
        }
    }

    fn address(&self, segment: usize) -> u64 {
        address_of(&self.client, segment)
    }

    /// Bytes of device memory that it has.
    fn on_device(&self) -> usize {
        let segments = self.memory.iter().chain(&self.hidden).filter(|&(&segment, _)| segment != MANAGED);
        segments.map(|(_, memory)| memory.len()).sum()
    }

    /// The homes of the objects that a segment is made of, and where each is mapped.
    fn objects(&self, segment: usize, bytes: usize) -> Vec<(u64, u64)> {
        let address = self.address(segment);
        let offsets = (0..bytes as u64).step_by(2 * MIB as usize);
        offsets.map(|offset| (address + 64 * MIB + offset, address + offset)).collect()
    }

    /// Where the first object of a segment is mapped, too.
    fn alias(&self, segment: usize) -> u64 {
        self.address(segment) + 128 * MIB
    }

    fn hide(&mut self, segment: usize, bytes: usize) {
        let objects = self.objects(segment, bytes);
        // The first one keeps its other view until last.
        let views = objects.iter().map(|&(_, address)| address).chain([self.alias(segment)]);
        views.for_each(|address| self.client.post(ObjectUnmap { address }, &[]));
    }

    fn show(&mut self, segment: usize, bytes: usize) {
        let objects = self.objects(segment, bytes);
        let alias = (objects[0].0, self.alias(segment));
        for (home, address) in objects.into_iter().rev().chain([alias]) {
            self.client.ask(ObjectMap { home, address }).unwrap();
        }
    }

    /// Where bytes of a segment are, if they are inside it.
    fn place(&self, segment: usize, offset: u64, bytes: u64) -> Option<(u64, std::ops::Range<usize>)> {
        let length = self.memory.get(&segment)?.len() as u64;
        (offset + bytes <= length)
            .then(|| (self.address(segment) + offset, offset as usize..(offset + bytes) as usize))
    }

    pub fn take(&mut self, server: &Server, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Allocate { segment, chunks } => {
                let total = self.on_device() as u64;
                let is_new = !self.memory.contains_key(&segment) && !self.hidden.contains_key(&segment);
                if is_new && (segment == MANAGED || total + chunks * 2 * MIB <= 6 * MIB) {
                    let bytes = (chunks * 2 * MIB) as usize;
                    if segment == MANAGED {
                        let lock = HostLock { address: self.address(segment), bytes: bytes as u64 };
                        self.client.ask(lock).unwrap();
                    } else if is_made_of_objects(segment) {
                        for (home, _) in self.objects(segment, bytes) {
                            self.client.ask(ObjectCreate { home, bytes: 2 * MIB }).unwrap();
                        }
                        self.show(segment, bytes);
                    } else {
                        self.client.allocate(segment as u64 * 8 * MIB, chunks * 2 * MIB).unwrap();
                    }
                    self.memory.insert(segment, vec![0; bytes]);
                }
            }
            Step::Free { segment } => {
                if let Some(memory) = self.memory.remove(&segment) {
                    if segment == MANAGED {
                        self.client.ask(HostUnlock { address: self.address(segment) }).unwrap();
                    } else if is_made_of_objects(segment) {
                        self.hide(segment, memory.len());
                        for (home, _) in self.objects(segment, memory.len()) {
                            self.client.post(ObjectRelease { home }, &[]);
                        }
                    } else {
                        self.client.post(MemoryFree { address: self.address(segment) }, &[]);
                    }
                    if self.graph == Some(segment) {
                        self.graph = None;
                        self.client.post(GraphDestroy { graph: 1, reserved: 0 }, &[]);
                    }
                }
            }
            Step::Hide { segment } => {
                if is_made_of_objects(segment)
                    && let Some(memory) = self.memory.remove(&segment)
                {
                    self.hide(segment, memory.len());
                    self.hidden.insert(segment, memory);
                }
            }
            Step::Show { segment } => {
                if let Some(memory) = self.hidden.remove(&segment) {
                    self.show(segment, memory.len());
                    self.memory.insert(segment, memory);
                }
            }
            Step::Upload { segment, offset, bytes, seed } => {
                let Some((address, range)) = self.place(segment, offset, bytes) else { return Ok(()) };
                let data: Vec<u8> = (0..bytes).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect();
                if segment == MANAGED && seed.is_multiple_of(2) {
                    // The program writes it itself, when no kernel can.
                    self.client.settle().unwrap();
                    self.client.write_host(address - self.client.host.address, &data);
                } else {
                    self.client.upload(address, &data);
                }
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
            Step::Point { from, to, by_word } => {
                if let (Some((address, range)), true) =
                    (self.place(from, 0, 8), self.memory.contains_key(&to))
                {
                    let value = self.address(to) + 64;
                    let pointer = value.to_le_bytes();
                    match by_word {
                        true => self.client.post(WordWrite { address, value, stream: 1, bytes: 8 }, &[]),
                        false => self.client.upload(address, &pointer),
                    }
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
                    self.client.ask(GraphInstantiate { graph: 1, reserved: 0, flags: 0 }).unwrap();
                    self.graph = Some(segment);
                }
            }
            Step::Replay => {
                if let Some(segment) = self.graph.filter(|segment| self.memory.contains_key(segment)) {
                    self.client.post(GraphLaunch { graph: 1, stream: 0 }, &[]);
                    let memory = &mut self.memory.get_mut(&segment).unwrap()[..COUNT as usize * 4];
                    add(memory);
                    add(memory);
                }
            }
            Step::Tick { segment, offset } => {
                let Some((address, range)) = self.place(segment, offset, 4) else { return Ok(()) };
                let [counter, factor] = self.use_variables();
                *counter = counter.wrapping_add(1);
                let product = counter.wrapping_mul(*factor).to_le_bytes();
                self.client.tick(address, 1);
                self.memory.get_mut(&segment).unwrap()[range].copy_from_slice(&product);
                self.ticks = self.ticks.wrapping_add(1);
            }
            Step::Set { variable, value } => {
                self.use_variables()[variable] = value;
                let (address, _) = self.client.variable(STATE, VARIABLES[variable]).unwrap();
                self.client.upload(address, &value.to_le_bytes());
            }
            Step::Paint { segment, offset } => {
                let Some((address, range)) = self.place(segment, offset, picture::BYTES) else {
                    return Ok(());
                };
                let picture = self.picture.get_or_insert_with(|| Picture::new(&mut self.client));
                Picture::copy(&mut self.client, address, false);
                picture.contents.copy_from_slice(&self.memory[&segment][range]);
            }
            Step::Develop { segment, offset } => {
                let Some((address, range)) = self.place(segment, offset, picture::BYTES) else {
                    return Ok(());
                };
                if let Some(picture) = &self.picture {
                    Picture::copy(&mut self.client, address, true);
                    self.memory.get_mut(&segment).unwrap()[range].copy_from_slice(&picture.contents);
                }
            }
            Step::Tear => self.picture.take().into_iter().for_each(|picture| picture.end(&mut self.client)),
            Step::Look { segment, offset, bytes } => {
                let Some((address, range)) = self.place(segment, offset, bytes) else { return Ok(()) };
                let is_in_first = is_made_of_objects(segment) && offset + bytes <= 2 * MIB;
                let address =
                    if is_in_first && bytes % 2 == 1 { self.alias(segment) + offset } else { address };
                let seen = if segment == MANAGED && bytes.is_multiple_of(2) {
                    self.client.settle().unwrap();
                    self.client.read_host(address - self.client.host.address, bytes as usize)
                } else {
                    self.client.download(address, bytes as usize)
                };
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

    fn use_variables(&mut self) -> &mut [u32; 2] {
        if self.variables.is_none() {
            self.client.load_state();
        }
        self.variables.get_or_insert([0, 5])
    }

    fn load(&self, server: &Server, gpu: Option<u32>) {
        let request = LoadFunctionRequest { name: self.name.clone(), gpu };
        server.admin(async |mut api| api.load_function(request).await).unwrap();
    }

    /// All of its memory is as it must be.
    pub fn check(&mut self) -> Result<(), TestCaseError> {
        if let Some(wanted) = self.variables {
            for (name, wanted) in VARIABLES.into_iter().zip(wanted) {
                let (address, _) = self.client.variable(STATE, name).unwrap();
                prop_assert_eq!(self.client.words(address, 1), [wanted], "{}", name);
            }
            prop_assert_eq!(self.client.managed_variable("ticks"), self.ticks.to_le_bytes());
        }
        if let Some(picture) = &self.picture {
            prop_assert!(picture.is_whole(&mut self.client), "its array");
        }
        for (segment, memory) in std::mem::take(&mut self.hidden) {
            self.show(segment, memory.len());
            self.memory.insert(segment, memory);
        }
        for (&segment, memory) in &self.memory {
            let address = address_of(&self.client, segment);
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

fn address_of(client: &Client, segment: usize) -> u64 {
    match segment {
        MANAGED => client.host.address + STAGING,
        _ => client.arena.address + segment as u64 * 8 * MIB,
    }
}

fn is_made_of_objects(segment: usize) -> bool {
    segment % 2 == 1 && segment != MANAGED
}

fn add(memory: &mut [u8]) {
    for element in memory.as_chunks_mut().0 {
        *element = u32::from_le_bytes(*element).wrapping_add(STEP).to_le_bytes();
    }
}
