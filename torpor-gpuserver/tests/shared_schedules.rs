//! Random schedules of processes that let each other have memory, against a reference that knows no processes: what one writes all see,
//! whoever is evicted, moved to another GPU, closes it, frees it or is killed in between.
//!
//! Three processes of a function, and one of another that needs their room. `PROPTEST_CASES` says how many schedules,
//! `PROPTEST_RNG_SEED` repeats them.

mod served;
mod server_support;
mod sharing;
mod worker_support;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use server_support::server::Server;
use sharing::Process;
use std::collections::BTreeMap;
use torpor_proto::command::Fill;
use torpor_proto::control::admin::{LoadFunctionRequest, UnloadFunctionRequest};

const MIB: u64 = 1 << 20;

const PROCESSES: usize = 3;
/// Pieces of memory that there are at once.
const PIECES: usize = 4;
const PIECE: u64 = 2 * MIB;
/// Schedules, unless `PROPTEST_CASES` says how many.
const SCHEDULES: u32 = 60;

#[derive(Clone, Debug)]
enum Step {
    /// Allocates a piece that nobody has.
    Allocate(usize),
    /// Imports a piece from whoever allocated it, if that one has it still.
    Open(usize),
    /// Frees or closes a piece.
    Close(usize),
    Upload(usize, u64, u8),
    Fill(usize, u64, u8),
    Look(usize, u64),
    /// The process is killed, and another takes its place.
    Kill,
    Unload,
    /// All go to the other GPU.
    Move,
    /// The other function takes the room.
    Press,
}

fn step() -> impl Strategy<Value = Step> {
    let piece = || 0..PIECES;
    let offset = || (0..PIECE / 4096).prop_map(|page| page * 4096);
    prop_oneof![
        4 => piece().prop_map(Step::Allocate),
        6 => piece().prop_map(Step::Open),
        2 => piece().prop_map(Step::Close),
        5 => (piece(), offset(), any::<u8>()).prop_map(|(piece, at, seed)| Step::Upload(piece, at, seed)),
        4 => (piece(), offset(), any::<u8>()).prop_map(|(piece, at, value)| Step::Fill(piece, at, value)),
        6 => (piece(), offset()).prop_map(|(piece, at)| Step::Look(piece, at)),
        1 => Just(Step::Kill),
        2 => Just(Step::Unload),
        2 => Just(Step::Move),
        3 => Just(Step::Press),
    ]
}

/// A piece of memory as it must be.
struct Piece {
    contents: Vec<u8>,
    /// Who allocated it, as long as that one has it, and what it is imported with.
    exporter: Option<(usize, [u64; 2])>,
    /// Where each of those that have it has it.
    places: BTreeMap<usize, u64>,
}

struct World<'a> {
    server: &'a Server,
    processes: Vec<Process>,
    pieces: BTreeMap<usize, Piece>,
    other: (Process, u64),
}

impl<'a> World<'a> {
    fn new(server: &'a Server) -> Self {
        let processes = (0..PROCESSES).map(|_| Process::start(server, "f")).collect();
        let mut other = Process::start(server, "g");
        let room = other.client.allocate(0, 6 * MIB).unwrap();
        Self { server, processes, pieces: BTreeMap::new(), other: (other, room) }
    }

    /// Where a process has a piece.
    fn place(&mut self, process: usize, piece: usize) -> Option<(&mut Process, u64, &mut Vec<u8>)> {
        let known = self.pieces.get_mut(&piece)?;
        let address = *known.places.get(&process)?;
        Some((&mut self.processes[process], address, &mut known.contents))
    }

    fn take(&mut self, process: usize, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Allocate(piece) => {
                if self.pieces.contains_key(&piece) {
                    return Ok(());
                }
                let owner = &mut self.processes[process];
                let address = owner.client.allocate(piece as u64 * 8 * MIB, PIECE).unwrap();
                let secret = owner.export(address).unwrap();
                let places = BTreeMap::from([(process, address)]);
                let exporter = Some((process, secret));
                self.pieces.insert(piece, Piece { contents: vec![0; PIECE as usize], exporter, places });
            }
            Step::Open(piece) => {
                let Some(known) = self.pieces.get_mut(&piece) else { return Ok(()) };
                let Some((exporter, secret)) =
                    known.exporter.filter(|_| !known.places.contains_key(&process))
                else {
                    return Ok(());
                };
                // One that came after a kill may be on the other GPU.
                let exporter = self.processes[exporter].client.id;
                let its = &mut self.processes[process];
                let home = its.import(piece as u64, PIECE, secret, exporter).unwrap();
                let address = its.map(home).unwrap();
                known.places.insert(process, address);
            }
            Step::Close(piece) => {
                let Some((its, address, _)) = self.place(process, piece) else { return Ok(()) };
                if address - its.client.arena.address < sharing::HOMES {
                    its.free(address);
                } else {
                    its.close(piece as u64);
                }
                self.forget(process, Some(piece));
            }
            Step::Upload(piece, at, seed) => {
                let Some((its, address, contents)) = self.place(process, piece) else { return Ok(()) };
                let data: Vec<u8> = (0..4096_u32).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect();
                its.client.upload(address + at, &data);
                contents[at as usize..][..4096].copy_from_slice(&data);
            }
            Step::Fill(piece, at, value) => {
                let Some((its, address, contents)) = self.place(process, piece) else { return Ok(()) };
                let (address, width) = (address + at, PIECE - at);
                let value = u32::from(value);
                its.client.post(
                    Fill { address, width, height: 1, value, element_bytes: 1, ..Fill::default() },
                    &[],
                );
                its.client.settle().unwrap();
                contents[at as usize..].fill(value as u8);
            }
            Step::Look(piece, at) => {
                let Some((its, address, contents)) = self.place(process, piece) else { return Ok(()) };
                let seen = its.client.download(address + at, 4096);
                prop_assert!(seen == contents[at as usize..][..4096], "piece {piece} at {at}");
            }
            Step::Kill => {
                let next = Process::start(self.server, "f");
                std::mem::replace(&mut self.processes[process], next).kill(self.server);
                self.forget(process, None);
            }
            Step::Unload => {
                let request = UnloadFunctionRequest { name: "f".to_owned() };
                self.server.admin(async |mut api| api.unload_function(request).await).unwrap();
            }
            Step::Move => {
                let gpu = Some(1 - self.processes[0].gpu(self.server));
                let request = LoadFunctionRequest { name: "f".to_owned(), gpu };
                self.server.admin(async |mut api| api.load_function(request).await).unwrap();
            }
            Step::Press => {
                let (other, room) = &mut self.other;
                let room = *room;
                other.client.add_step(room, 16, 0);
                other.client.settle().unwrap();
            }
        }
        Ok(())
    }

    /// A process has this piece no more, or none.
    fn forget(&mut self, process: usize, piece: Option<usize>) {
        for (number, known) in &mut self.pieces {
            if piece.is_none_or(|piece| piece == *number) && known.places.remove(&process).is_some() {
                known.exporter = known.exporter.filter(|&(exporter, _)| exporter != process);
            }
        }
        self.pieces.retain(|_, known| !known.places.is_empty());
    }

    /// Everybody sees all that it has.
    fn check(mut self) -> Result<(), TestCaseError> {
        for (number, piece) in &self.pieces {
            for (&process, &address) in &piece.places {
                for (part, wanted) in
                    (address..).step_by(MIB as usize).zip(piece.contents.chunks(MIB as usize))
                {
                    let seen = self.processes[process].client.download(part, wanted.len());
                    prop_assert!(seen == wanted, "piece {number} in process {process}");
                }
            }
        }
        self.processes.drain(..).chain([self.other.0]).for_each(|process| process.kill(self.server));
        Ok(())
    }
}

#[test]
fn what_one_process_writes_all_that_share_it_see_whatever_happens_to_them() {
    let findings = tempfile::NamedTempFile::new().unwrap();
    let server = served::serve_by(
        "--gpus 0,1 --pinned-limit 24MiB --staging 4MiB --gpu-limit 12MiB --host-pool 32MiB --host-slab 8MiB",
        |command| {
            command.env("TORPOR_SIMGPU_DEVICES", "2");
            command.env("TORPOR_SIMGPU_CHECKS", "unordered,busy,streams");
            command.env("TORPOR_SIMGPU_LOG", findings.path());
        },
    );
    let schedule = prop::collection::vec((0..PROCESSES, step()), 10..60);
    let cases =
        if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { SCHEDULES };
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&schedule, |schedule| {
        let mut world = World::new(&server);
        for (process, step) in &schedule {
            world.take(*process, step)?;
        }
        world.check()
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let findings = std::fs::read_to_string(findings.path()).unwrap();
    let found: Vec<_> = findings.lines().filter(|line| line.contains(": check ")).collect();
    assert!(found.is_empty(), "the simulated GPU found something: {found:#?}");
    assert!(!server.said("mistake of its worker"));
    assert!(!server.said("refers to"), "{}", server.log());
}
