//! Arrays, texture and surface objects: what a client may do with them, and what it may not.

mod worker_support;

use torpor_proto::command::{
    ArrayCopy, ArrayCreate, ArrayDestroy, ArrayReply, CopyEnd, END_IN_ARRAY, END_IN_MEMORY, MemoryFree,
    ResourceView, Sampler, SurfaceCreate, SurfaceDestroy, TextureCreate, TextureDestroy, TextureResource,
};
use torpor_proto::error::CudaError;
use worker_support::{Client, LIMIT_BYTES, Worker};

const MIB: u64 = 1 << 20;

/// `CU_AD_FORMAT_UNSIGNED_INT8`, `CU_AD_FORMAT_FLOAT`
const BYTE: u32 = 0x01;
const FLOAT: u32 = 0x20;

/// `CUDA_ARRAY3D_LAYERED`, `CUDA_ARRAY3D_SURFACE_LDST`
const LAYERED: u32 = 1;
const SURFACE: u32 = 2;

/// `CUresourcetype`
const OVER_ARRAY: u32 = 0;
const OVER_LEVELS: u32 = 1;
const OVER_ROW: u32 = 2;
const OVER_ROWS: u32 = 3;

fn bytes_of(array: u32, width: u64, height: u64, depth: u64) -> ArrayCreate {
    ArrayCreate { array, format: BYTE, channels: 1, width, height, depth, ..ArrayCreate::default() }
}

fn in_array(array: u32, x_bytes: u64, y: u64, z: u64) -> CopyEnd {
    CopyEnd { place: END_IN_ARRAY, array, x_bytes, y, z, ..CopyEnd::default() }
}

fn in_memory(address: u64, pitch: u64, height: u64) -> CopyEnd {
    CopyEnd { place: END_IN_MEMORY, address, pitch, height, ..CopyEnd::default() }
}

fn copy(destination: CopyEnd, source: CopyEnd, [width_bytes, height, depth]: [u64; 3]) -> ArrayCopy {
    ArrayCopy { destination, source, width_bytes, height, depth, ..ArrayCopy::default() }
}

/// What becomes of a posted command.
fn posted(client: &mut Client, command: ArrayCopy) -> Result<(), CudaError> {
    client.post(command, &[]);
    client.settle()
}

/// A box of an array, through the host range.
fn read(client: &mut Client, from: CopyEnd, lengths: [u64; 3]) -> Vec<u8> {
    let staged = client.host.address;
    posted(client, copy(in_memory(staged, lengths[0], lengths[1]), from, lengths)).unwrap();
    client.read_host(0, lengths.iter().product::<u64>() as usize)
}

fn texture(resource: TextureResource) -> TextureCreate {
    TextureCreate { resource, sampler: Sampler::default(), view: ResourceView::default() }
}

fn over_row(address: u64, bytes: u64) -> TextureCreate {
    let resource = TextureResource {
        kind: OVER_ROW,
        format: FLOAT,
        channels: 1,
        address,
        width: bytes,
        ..Default::default()
    };
    texture(resource)
}

fn count(worker: &mut Worker, client: &Client) -> (u32, u64, u64) {
    let usage = worker.usage();
    let usage = usage.clients.iter().find(|usage| usage.client == client.id).unwrap();
    (usage.arrays, usage.array_bytes, usage.memory_bytes)
}

#[test]
fn an_array_is_empty_at_first_and_holds_what_is_copied_into_it() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    client.ask(bytes_of(1, 64, 8, 4)).unwrap();
    assert!(read(&mut client, in_array(1, 0, 0, 0), [64, 8, 4]).iter().all(|&byte| byte == 0), "cleared");
    // A box from the host, with pitches, into the middle.
    let pattern: Vec<u8> = (0..32 * 4 * 2).map(|index| index as u8 | 1).collect();
    let staged = client.write_host(MIB, &pattern);
    let into_middle = copy(in_array(1, 8, 2, 1), in_memory(staged, 32, 4), [16, 3, 2]);
    posted(&mut client, into_middle).unwrap();
    let whole = read(&mut client, in_array(1, 0, 0, 0), [64, 8, 4]);
    for (at, byte) in whole.iter().enumerate() {
        let (x, y, z) = (at % 64, at / 64 % 8, at / 512);
        let is_inside = (8..24).contains(&x) && (2..5).contains(&y) && (1..3).contains(&z);
        let expected = if is_inside { pattern[((z - 1) * 4 + (y - 2)) * 32 + x - 8] } else { 0 };
        assert_eq!(*byte, expected, "at {x} {y} {z}");
    }
    // To device memory and another array, and back.
    let device = client.allocate(0, 2 * MIB).unwrap();
    client.ask(bytes_of(2, 16, 3, 0)).unwrap();
    posted(&mut client, copy(in_memory(device, 16, 3), in_array(1, 8, 2, 1), [16, 3, 1])).unwrap();
    posted(&mut client, copy(in_array(2, 0, 0, 0), in_memory(device, 16, 3), [16, 3, 1])).unwrap();
    posted(&mut client, copy(in_array(1, 0, 5, 3), in_array(2, 0, 0, 0), [16, 3, 1])).unwrap();
    let rows: Vec<u8> = (0..3).flat_map(|row| pattern[row * 32..row * 32 + 16].to_vec()).collect();
    assert_eq!(client.download(device, 48), rows);
    assert_eq!(read(&mut client, in_array(1, 0, 5, 3), [16, 3, 1]), rows);
}

#[test]
fn memory_that_was_somebody_else_s_array_is_cleared_whatever_its_shape() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    let shapes = [
        bytes_of(0, 100_000, 0, 0),
        bytes_of(0, 4096, 2000, 0),
        bytes_of(0, 128, 128, 64),
        ArrayCreate { flags: LAYERED, ..bytes_of(0, 512, 0, 300) },
        ArrayCreate { format: FLOAT, channels: 4, levels: 5, ..bytes_of(0, 64, 64, 0) },
    ];
    for shape in shapes {
        client.ask(shape).unwrap();
        let row = shape.width * if shape.format == FLOAT { 16 } else { 1 };
        let (rows, slices) = (shape.height.max(1), shape.depth.max(1));
        let last = in_array(0, row - 16, rows - 1, slices - 1);
        assert_eq!(read(&mut client, last, [16, 1, 1]), [0; 16], "{shape:?}");
        if shape.levels > 0 {
            let last = CopyEnd { level: 4, ..in_array(0, 48, 3, 0) };
            assert_eq!(read(&mut client, last, [16, 1, 1]), [0; 16], "{shape:?}");
        }
        client.post(ArrayDestroy { array: 0, reserved: 0 }, &[]);
    }
    client.settle().unwrap();
}

#[test]
fn copies_beyond_an_array_or_the_client_s_memory_are_refused() {
    let mut worker = Worker::start();
    let mut victim = worker.attach(1);
    let theirs = victim.allocate(0, 2 * MIB).unwrap();
    victim.ask(bytes_of(7, 64, 64, 0)).unwrap();
    let mut client = worker.attach(0);
    client.ask(ArrayCreate { format: FLOAT, ..bytes_of(1, 16, 8, 0) }).unwrap();
    let device = client.allocate(0, 2 * MIB).unwrap();
    let (all, memory) = ([64, 8, 1], in_memory(device, 64, 8));
    let array = in_array(1, 0, 0, 0);
    assert_eq!(posted(&mut client, copy(array, memory, all)), Ok(()));
    let invalid = Err(CudaError::INVALID_VALUE);
    for (array, lengths) in [
        (in_array(1, 4, 0, 0), all),
        (in_array(1, 0, 1, 0), all),
        (in_array(1, 0, 0, 1), all),
        (in_array(1, u64::MAX, 0, 0), [4, 1, 1]),
        (in_array(1, 0, u64::MAX, 0), [4, 1, 1]),
        (in_array(1, 2, 0, 0), [4, 1, 1]),
        (in_array(1, 0, 0, 0), [2, 1, 1]),
        (in_array(1, 0, 0, 0), [u64::MAX, u64::MAX, u64::MAX]),
        (CopyEnd { level: 1, ..in_array(1, 0, 0, 0) }, [4, 1, 1]),
        (CopyEnd { place: 2, ..in_array(1, 0, 0, 0) }, [4, 1, 1]),
    ] {
        assert_eq!(posted(&mut client, copy(array, memory, lengths)), invalid, "{array:?} {lengths:?}");
        assert_eq!(posted(&mut client, copy(memory, array, lengths)), invalid, "{array:?} {lengths:?}");
    }
    for memory in [
        in_memory(theirs, 64, 8),
        in_memory(device + 2 * MIB - 64, 64, 8),
        in_memory(device, 60, 8),
        in_memory(device, u64::MAX, 8),
        in_memory(u64::MAX, 64, 8),
        in_memory(0, 64, 8),
    ] {
        assert_eq!(posted(&mut client, copy(array, memory, all)), invalid, "{memory:?}");
        assert_eq!(posted(&mut client, copy(memory, array, all)), invalid, "{memory:?}");
    }
    assert_eq!(posted(&mut client, copy(memory, memory, all)), invalid, "no array");
    let unknown = posted(&mut client, copy(in_array(7, 0, 0, 0), memory, [4, 1, 1]));
    assert_eq!(unknown, Err(CudaError::INVALID_HANDLE), "the victim's number means nothing here");
    client.post(ArrayDestroy { array: 7, reserved: 0 }, &[]);
    assert_eq!(client.settle(), Err(CudaError::INVALID_HANDLE));
}

#[test]
fn textures_reach_the_client_s_own_arrays_and_memory_alone() {
    let mut worker = Worker::start();
    let mut victim = worker.attach(1);
    let theirs = victim.allocate(0, 2 * MIB).unwrap();
    victim.ask(bytes_of(7, 64, 64, 0)).unwrap();
    let over_array = |array| texture(TextureResource { kind: OVER_ARRAY, array, ..Default::default() });
    let theirs_handle = victim.ask(over_array(7)).unwrap().handle;
    let mut client = worker.attach(0);
    let device = client.allocate(0, 2 * MIB).unwrap();
    client.ask(ArrayCreate { flags: SURFACE, ..bytes_of(1, 64, 64, 0) }).unwrap();
    client.ask(bytes_of(2, 64, 64, 0)).unwrap();
    client.ask(ArrayCreate { levels: 3, ..bytes_of(3, 64, 64, 0) }).unwrap();
    let row = client.ask(over_row(device, 2 * MIB)).unwrap().handle;
    for (address, bytes) in [(device, 2 * MIB + 4), (device + 512, 2 * MIB), (device, 512 * MIB)] {
        client
            .ask(over_row(address, bytes))
            .expect("one that names more than there is ends where the memory does");
    }
    let rows = |address, width, height, pitch| {
        let resource = TextureResource {
            kind: OVER_ROWS,
            format: FLOAT,
            channels: 1,
            address,
            width,
            height,
            pitch,
            ..Default::default()
        };
        texture(resource)
    };
    client.ask(rows(device, 128, 4096, 512)).unwrap();
    let array = client.ask(over_array(1)).unwrap().handle;
    let levels = texture(TextureResource { kind: OVER_LEVELS, array: 3, ..Default::default() });
    client.ask(levels).unwrap();
    let surface = client.ask(SurfaceCreate { array: 1, level: 0 }).unwrap().handle;
    assert_ne!(row, array);
    let invalid = Err(CudaError::INVALID_VALUE);
    for (texture, why) in [
        (over_row(device, 0), "nothing"),
        (over_row(device, (1 << 30) + 4), "more elements than can be"),
        (over_row(device, u64::MAX), "far more"),
        (over_row(device + 2 * MIB, 64), "from the end"),
        (over_row(theirs, 64), "another client's memory"),
        (over_row(0, 64), "nobody's memory"),
        (rows(device, 129, 4096, 512), "rows wider than the pitch"),
        (rows(device, 128, 4097, 512), "one row too many"),
        (rows(device, 1 << 62, 1 << 62, u64::MAX), "what overflows"),
        (rows(device, 0, 1, 512), "rows of nothing"),
        (texture(TextureResource { kind: 4, ..Default::default() }), "no kind"),
        (texture(TextureResource { kind: OVER_ARRAY, array: 1, level: 1, ..Default::default() }), "no level"),
        (texture(TextureResource { kind: OVER_LEVELS, array: 1, ..Default::default() }), "without levels"),
    ] {
        assert_eq!(client.ask(texture).map(drop), invalid, "{why}");
    }
    assert_eq!(client.ask(over_array(7)).map(drop), Err(CudaError::INVALID_HANDLE));
    assert_eq!(client.ask(SurfaceCreate { array: 2, level: 0 }).map(drop), invalid, "not made for that");
    assert_eq!(client.ask(SurfaceCreate { array: 1, level: 9 }).map(drop), invalid);
    for handle in [theirs_handle, surface, 0, u64::MAX] {
        client.post(TextureDestroy { handle }, &[]);
        assert_eq!(client.settle(), invalid, "no texture of the client's: {handle:#x}");
    }
    client.post(SurfaceDestroy { handle: array }, &[]);
    assert_eq!(client.settle(), invalid);
    // An array outlives its number as long as an object is over it.
    client.post(ArrayDestroy { array: 1, reserved: 0 }, &[]);
    client.post(TextureDestroy { handle: array }, &[]);
    client.post(SurfaceDestroy { handle: surface }, &[]);
    client.post(TextureDestroy { handle: row }, &[]);
    client.settle().unwrap();
    assert_eq!(victim.channel.sticky_error(), None);
    victim.post(TextureDestroy { handle: theirs_handle }, &[]);
    victim.settle().unwrap();
}

#[test]
fn arrays_count_as_the_client_s_memory_until_nothing_is_over_them() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    let ArrayReply { bytes } = client.ask(bytes_of(1, 1024, 1024, 0)).unwrap();
    assert_eq!(bytes, MIB);
    let over = texture(TextureResource { kind: OVER_ARRAY, array: 1, ..Default::default() });
    let handle = client.ask(over).unwrap().handle;
    assert_eq!(count(&mut worker, &client), (2, MIB, MIB));
    let too_large = bytes_of(2, 1024, 1024, LIMIT_BYTES / MIB);
    assert_eq!(client.ask(too_large).map(drop), Err(CudaError::OUT_OF_MEMORY));
    assert_eq!(
        client.allocate(0, LIMIT_BYTES),
        Err(CudaError::OUT_OF_MEMORY),
        "with the array it is too much"
    );
    let device = client.allocate(0, LIMIT_BYTES - 2 * MIB).unwrap();
    client.post(ArrayDestroy { array: 1, reserved: 0 }, &[]);
    client.settle().unwrap();
    assert_eq!(count(&mut worker, &client), (1, MIB, LIMIT_BYTES - MIB), "the texture keeps it");
    client.post(TextureDestroy { handle }, &[]);
    client.post(MemoryFree { address: device }, &[]);
    client.settle().unwrap();
    assert_eq!(count(&mut worker, &client), (0, 0, 0));
    client.allocate(0, LIMIT_BYTES).unwrap();
}

#[test]
fn a_client_has_so_many_arrays_and_objects_at_most() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut worker = Worker::start_with(&[("TORPOR_SIMGPU_LOG", log.path().to_str().unwrap())]);
    let mut attach = Worker::attach_message(0);
    attach.memory_limit_bytes = 1 << 30;
    let mut client = worker.attach_as(attach);
    for array in 0..4096 {
        client.ask(bytes_of(array, 16, 0, 0)).unwrap();
    }
    assert_eq!(client.ask(bytes_of(4096, 16, 0, 0)).map(drop), Err(CudaError::OUT_OF_MEMORY));
    assert_eq!(
        client.ask(bytes_of(5, 16, 0, 0)).map(drop),
        Err(CudaError::INVALID_VALUE),
        "the number is taken"
    );
    let over = texture(TextureResource { kind: OVER_ARRAY, array: 0, ..Default::default() });
    for _ in 0..16_384 {
        client.ask(over).unwrap();
    }
    assert_eq!(client.ask(over).map(drop), Err(CudaError::OUT_OF_MEMORY));
    assert_eq!(client.ask(SurfaceCreate { array: 0, level: 0 }).map(drop), Err(CudaError::OUT_OF_MEMORY));
    assert_eq!(count(&mut worker, &client).0, 4096 + 16_384);
    worker.detach(client.id);
    // Everything is given back with the client.
    let mut next = worker.attach(0);
    next.ask(bytes_of(0, 16, 0, 0)).unwrap();
    assert_eq!(count(&mut worker, &next).0, 1);
}
