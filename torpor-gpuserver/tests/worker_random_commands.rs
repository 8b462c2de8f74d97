//! Every command with any numbers, as often as there is time: another client never notices.

mod worker_support;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use torpor_proto::command::{
    ArrayCopy, ArrayCreate, ArrayDestroy, Command, ContextSynchronize, Copy, CopyStrided, EventCreate,
    EventDestroy, EventElapsed, EventExport, EventImport, EventQuery, EventRecord, EventSynchronize, Fill,
    GraphAppend, GraphBody, GraphBodyEnd, GraphCondition, GraphConditional, GraphDependencies, GraphDestroy,
    GraphEmpty, GraphInstantiate, GraphLaunch, GraphUpdate, Home, HostLock, HostUnlock, ImageErrors,
    ImageGlobal, ImageKernels, ImageLoad, ImageUnload, ImageUpload, KernelResolve, KernelSetAttribute, Kind,
    Launch, LimitRaise, MemoryAllocate, MemoryExport, MemoryFree, MemoryImport, MemoryInfo, ObjectCreate,
    ObjectMap, ObjectRelease, ObjectUnmap, OccupancyBlocks, OccupancyClusterSize, OccupancyClusters,
    OccupancyShared, PartLook, PartSplit, Ping, StagingMark, StreamCreate, StreamDestroy, StreamQuery,
    StreamSynchronize, StreamWaitEvent, SurfaceCreate, SurfaceDestroy, TensorMapIm2col, TensorMapTiled,
    TextTake, TextureCreate, TextureDestroy, WordWrite,
};
use torpor_proto::control::worker::from_worker::Body as From;
use torpor_proto::ring::NO_SLOT;
use worker_support::Worker;
use worker_support::contents::pattern;

const MIB: u64 = 1 << 20;

macro_rules! shapes {
    ($($Command:ident),* $(,)?) => {
        &[$(($Command::OPCODE, $Command::KIND, size_of::<$Command>() / 8)),*]
    };
}

/// Number, kind and words of every command.
const SHAPES: &[(u16, Kind, usize)] = shapes![
    Ping,
    MemoryInfo,
    StagingMark,
    TextTake,
    LimitRaise,
    Home,
    MemoryAllocate,
    MemoryFree,
    HostLock,
    HostUnlock,
    Copy,
    CopyStrided,
    Fill,
    WordWrite,
    ObjectCreate,
    ObjectRelease,
    ObjectMap,
    ObjectUnmap,
    StreamCreate,
    StreamDestroy,
    StreamSynchronize,
    StreamQuery,
    StreamWaitEvent,
    ContextSynchronize,
    PartLook,
    PartSplit,
    EventCreate,
    EventDestroy,
    EventRecord,
    EventQuery,
    EventSynchronize,
    EventElapsed,
    ImageLoad,
    ImageUpload,
    ImageUnload,
    ImageGlobal,
    ImageKernels,
    ImageErrors,
    KernelResolve,
    KernelSetAttribute,
    OccupancyBlocks,
    OccupancyShared,
    OccupancyClusters,
    OccupancyClusterSize,
    Launch,
    TensorMapTiled,
    TensorMapIm2col,
    GraphAppend,
    GraphInstantiate,
    GraphLaunch,
    GraphDestroy,
    GraphUpdate,
    GraphDependencies,
    GraphEmpty,
    GraphCondition,
    GraphConditional,
    GraphBody,
    GraphBodyEnd,
    MemoryExport,
    MemoryImport,
    EventExport,
    EventImport,
    ArrayCreate,
    ArrayDestroy,
    ArrayCopy,
    TextureCreate,
    TextureDestroy,
    SurfaceCreate,
    SurfaceDestroy,
];

#[test]
fn every_command_is_tried() {
    assert_eq!(SHAPES.len(), torpor_proto::command::ALL.len());
}

/// A word of a hostile command: what makes sense somewhere, what is close to it, and anything.
fn word() -> impl Strategy<Value = u64> {
    let arena = Worker::attach_message(1).arena_address;
    let host = Worker::attach_message(1).host_address;
    let victim = Worker::attach_message(0).arena_address;
    prop_oneof![
        4 => 0..4_u64,
        2 => (0..4_u64, 0..4_u64).prop_map(|(low, high)| low | high << 32),
        3 => prop::sample::select(vec![8, 64, 4096, MIB, 2 * MIB, 4 * MIB]),
        4 => (0..8_u64).prop_map(move |granule| arena + granule * 2 * MIB),
        2 => (0..8 * MIB).prop_map(move |offset| arena + offset),
        2 => (0..16_u64).prop_map(move |piece| host + piece * MIB),
        2 => (0..2 * MIB).prop_map(move |offset| victim + offset),
        1 => prop::sample::select(vec![u64::MAX, 1 << 63, u64::from(u32::MAX), 1 << 40, u64::MAX - 4095]),
        1 => any::<u64>(),
    ]
}

#[derive(Clone, Debug)]
struct Hostile {
    shape: (u16, Kind, usize),
    words: Vec<u64>,
    tail: Vec<u8>,
    /// Which word to spoil instead of keeping a valid shape, if any.
    spoil: Option<u16>,
}

fn hostile() -> impl Strategy<Value = Hostile> {
    prop::sample::select(SHAPES).prop_flat_map(|shape| {
        let tail = prop_oneof![
            6 => Just(Vec::new()),
            2 => prop::collection::vec(any::<u8>(), 0..200),
            1 => Just(b"add_step".to_vec()),
        ];
        let spoil = prop_oneof![60 => Just(None), 1 => any::<u16>().prop_map(Some)];
        (prop::collection::vec(word(), shape.2), tail, spoil).prop_map(move |(words, tail, spoil)| Hostile {
            shape,
            words,
            tail,
            spoil,
        })
    })
}

#[test]
fn hostile_commands_never_disturb_another_client() {
    let mut worker = Worker::start();
    let mut victim = worker.attach(0);
    let theirs = victim.allocate(0, 2 * MIB).unwrap();
    let secret = pattern(MIB as usize, 4);
    victim.upload(theirs, &secret);
    let cases = if worker_support::on_a_gpu() { 50 } else { 150 };
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let worker = std::cell::RefCell::new(worker);
    let victim = std::cell::RefCell::new(victim);
    let strategy = prop::collection::vec(hostile(), 1..80);
    runner
        .run(&strategy, |commands| {
            let (mut worker, mut victim) = (worker.borrow_mut(), victim.borrow_mut());
            let mut client = worker.attach(1);
            client.allocate(0, 4 * MIB).unwrap();
            let mut slot = 0;
            for Hostile { shape: (opcode, kind, _), words, tail, spoil } in &commands {
                let opcode = spoil.map_or(*opcode, |spoil| opcode ^ (spoil & 0x7f));
                let to = match kind {
                    Kind::Posted => NO_SLOT,
                    Kind::Awaited => {
                        slot = (slot + 1) % 64;
                        slot
                    }
                };
                if client.channel.sticky_error().is_some() || !client.push(opcode, to, words, tail) {
                    break;
                }
            }
            let address = victim.arena.address;
            let data = pattern(4096, commands.len());
            victim.upload(address + MIB, &data);
            prop_assert_eq!(victim.download(address + MIB, 4096), data);
            worker.tell(
                torpor_proto::control::worker::to_worker::Body::Detach(
                    torpor_proto::control::worker::Detach { client: client.id },
                ),
                &[],
            );
            loop {
                match worker.hear() {
                    From::Detached(detached) => break prop_assert_eq!(detached.client, client.id),
                    From::ClientFault(fault) => prop_assert_eq!(fault.client, client.id),
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            prop_assert_eq!(victim.channel.sticky_error(), None);
            Ok(())
        })
        .unwrap();
    assert_eq!(victim.borrow_mut().download(theirs, secret.len()), secret);
}
