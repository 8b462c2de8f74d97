//! Parts of the GPU, and the green contexts that have them, by the worker's commands.

mod worker_support;

use torpor_proto::command::{
    ContextSynchronize, Fill, LEGACY_STREAM, MOST_DEVICES, MOST_PART_GROUPS, MOST_PART_LEVELS, PART_REST,
    PartLevel, PartLook, PartShape, PartSplit, PartSplitReply, StreamCreate, StreamDestroy, StreamQuery,
    StreamSynchronize,
};
use torpor_proto::error::CudaError;
use worker_support::contents::fill;
use worker_support::kernels::launch;
use worker_support::{Client, Worker};

const MIB: u64 = 1 << 20;

/// The first device's first green context, its default stream, and another stream of it.
const GREEN: u32 = MOST_DEVICES;
const DEFAULT: u32 = 5;
const OTHER: u32 = 6;

/// Where each block runs.
const PTX: &[u8] = b"
.version 7.0
.target sm_70
.address_size 64
.visible .entry where(.param .u64 place)
{
    .reg .b32 %r<3>;
    .reg .b64 %d<4>;
    ld.param.u64 %d1, [place];
    mov.u32 %r1, %ctaid.x;
    mul.wide.u32 %d2, %r1, 4;
    add.s64 %d3, %d1, %d2;
    mov.u32 %r2, %smid;
    st.global.u32 [%d3], %r2;
    ret;
}
\0";

fn level(groups: u32, least: u32, taken: &[u32]) -> PartLevel {
    let mut level = PartLevel { groups, least, ..PartLevel::default() };
    taken.iter().for_each(|&group| level.take(group));
    level
}

fn look(client: &mut Client, levels: &[PartLevel]) -> Result<u32, CudaError> {
    let answer = client.ask_all(PartLook {}, bytemuck::cast_slice(levels));
    answer.map(|(shape, _)| shape.multiprocessors)
}

fn create(client: &mut Client, stream: u32, flags: u32, levels: &[PartLevel]) {
    let command = StreamCreate { stream, flags, priority: 0, context: GREEN };
    client.post(command, bytemuck::cast_slice(levels));
}

#[test]
fn a_part_is_split_as_the_driver_does() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    let (whole, _) = client.ask_all(PartLook {}, &[]).unwrap();
    assert_eq!(whole, PartShape { multiprocessors: 132, least: 8, alignment: 8, reserved: 0 });
    let split = |client: &mut Client, groups, least, levels: &[PartLevel]| {
        let command = PartSplit { least, flags: 0, groups, reserved: 0 };
        client.ask_all(command, bytemuck::cast_slice(levels)).map(|(reply, _)| reply)
    };
    let shape = |multiprocessors| PartShape { multiprocessors, ..whole };
    let expected = PartSplitReply { groups: 2, reserved: 0, each: shape(16), rest: shape(100) };
    assert_eq!(split(&mut client, 2, 9, &[]), Ok(expected));
    assert_eq!(split(&mut client, 0, 16, &[]).unwrap().groups, 8);
    let two = level(2, 16, &[0, 1]);
    assert_eq!(look(&mut client, &[two]), Ok(32));
    assert_eq!(look(&mut client, &[level(2, 16, &[PART_REST])]), Ok(100));
    let inner = split(&mut client, 9, 8, &[two]).unwrap();
    assert_eq!((inner.groups, inner.each.multiprocessors, inner.rest.multiprocessors), (4, 8, 0));
    assert_eq!(look(&mut client, &[two, level(4, 8, &[3])]), Ok(8));
    assert_eq!(split(&mut client, 1, 133, &[]), Err(CudaError::INVALID_RESOURCE_CONFIGURATION));
}

#[test]
fn kernels_run_in_the_part_of_their_stream() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    let place = client.allocate(0, 2 * MIB).unwrap();
    client.load_image(1, PTX).unwrap();
    client.resolve(1, 1, "where").unwrap();
    create(&mut client, DEFAULT, LEGACY_STREAM, &[level(2, 16, &[1])]);
    create(&mut client, OTHER, 1, &[level(2, 16, &[1]), level(1, 8, &[0])]);
    for (stream, expected) in [(DEFAULT, 16..32), (OTHER, 16..24), (0, 0..132)] {
        client.post(launch(1, stream, 132, 1, 8), &place.to_le_bytes());
        client.ask(StreamSynchronize { stream, reserved: 0 }).unwrap();
        let mut ran = client.words(place, 132);
        ran.sort_unstable();
        ran.dedup();
        assert_eq!(ran, Vec::from_iter(expected), "stream {stream}");
    }
}

#[test]
fn a_green_context_s_default_stream_is_of_it_alone_and_goes_with_it() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    client.load_kernels();
    let (address, flag) = (client.allocate(0, 4 * MIB).unwrap(), client.allocate(8 * MIB, 2 * MIB).unwrap());
    let part = [level(1, 8, &[0])];
    create(&mut client, DEFAULT, LEGACY_STREAM, &part);
    create(&mut client, OTHER, 0, &part);
    create(&mut client, 7, LEGACY_STREAM, &part);
    assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE), "it has one already");
    client.post(fill(flag, 4, 0, 1), &[]);
    client.settle().unwrap();
    // The device's default stream is busy; the green context's is not, and comes behind its own blocking stream.
    client.launch_at(2, flag, 0);
    client.post(Fill { stream: OTHER, ..fill(address, 64, 3, 1) }, &[]);
    client.copy(client.host.address, address, 64, DEFAULT);
    client.ask(StreamSynchronize { stream: DEFAULT, reserved: 0 }).unwrap();
    assert_eq!(client.read_host(0, 64), [3; 64]);
    client.ask(ContextSynchronize { context: GREEN, reserved: 0 }).unwrap();
    let all = client.ask_later(ContextSynchronize { context: 0, reserved: 0 }, &[]);
    assert!(!client.is_answered(all));
    assert_eq!(client.ask(StreamQuery { stream: 0, reserved: 0 }), Err(CudaError::NOT_READY));
    client.post(Fill { stream: OTHER, ..fill(flag, 4, 1, 1) }, &[]);
    client.await_slot(all).unwrap();
    // The default stream goes first; what is left of the context goes on, and another one may have its number.
    client.post(Fill { stream: OTHER, ..fill(address, 64, 4, 1) }, &[]);
    client.post(StreamDestroy { stream: DEFAULT, reserved: 0 }, &[]);
    client.post(Fill { stream: OTHER, ..fill(address, 64, 5, 1) }, &[]);
    create(&mut client, 8, LEGACY_STREAM, &[level(1, 16, &[0])]);
    client.post(Fill { stream: 8, ..fill(address + 64, 64, 6, 1) }, &[]);
    client.post(StreamDestroy { stream: OTHER, reserved: 0 }, &[]);
    client.settle().unwrap();
    client.ask(ContextSynchronize { context: 0, reserved: 0 }).unwrap();
    assert_eq!(client.download(address, 65), [vec![5; 64], vec![6]].concat());
}

#[test]
fn what_names_no_part_is_refused() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    for levels in [
        &[level(0, 8, &[0])][..],
        &[level(MOST_PART_GROUPS + 1, 8, &[0])],
        &[level(1, 8, &[])],
        &[level(1, 8, &[0]); MOST_PART_LEVELS + 1],
    ] {
        assert_eq!(look(&mut client, levels), Err(CudaError::INVALID_VALUE), "{levels:?}");
        create(&mut client, 1, 1, levels);
        assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE), "{levels:?}");
    }
    assert_eq!(client.ask_all(PartLook {}, &[1; 8]).err(), Some(CudaError::INVALID_VALUE));
    let many = PartSplit { least: 8, flags: 0, groups: MOST_PART_GROUPS + 1, reserved: 0 };
    assert_eq!(client.ask(many).err(), Some(CudaError::INVALID_VALUE));
    // A group that this GPU does not have.
    let absent = [level(1, 8, &[3])];
    assert_eq!(look(&mut client, &absent), Err(CudaError::INVALID_RESOURCE_CONFIGURATION));
    // A stream of it is one of the whole GPU.
    create(&mut client, 1, 1, &absent);
    let address = client.allocate(0, 2 * MIB).unwrap();
    client.post(Fill { stream: 1, ..fill(address, 64, 9, 1) }, &[]);
    client.ask(StreamSynchronize { stream: 1, reserved: 0 }).unwrap();
    assert_eq!(client.download(address, 64), [9; 64]);
    // A part is of a green context alone.
    let of_device = StreamCreate { stream: 2, flags: 1, priority: 0, context: 0 };
    client.post(of_device, bytemuck::bytes_of(&level(1, 8, &[0])));
    assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE));
}

#[test]
fn a_client_has_no_more_parts_than_it_may() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    // Those that nothing runs in make room.
    for flags in 0..200 {
        let part = [PartLevel { flags: flags % 2, ..level(1 + flags / 2 % 5, 8 * (1 + flags / 10), &[0]) }];
        let found = look(&mut client, &part);
        assert!(
            found.is_ok() || found == Err(CudaError::INVALID_RESOURCE_CONFIGURATION),
            "{flags}: {found:?}"
        );
    }
    assert_eq!(look(&mut client, &[level(1, 8, &[0])]), Ok(8));
}
