//! Arrays, texture and surface objects that leave their GPU: for another client, for another GPU, or with their worker.

mod migrating;
mod served;
mod server_support;
mod worker_support;

use migrating::{Program, start};
use served::program::{kill_worker, start as start_with_settings};
use server_support::server::{Server, eventually};
use torpor_proto::command::{
    ArrayCopy, ArrayCreate, ArrayDestroy, CopyEnd, END_IN_ARRAY, END_IN_MEMORY, Sampler, SurfaceCreate,
    SurfaceDestroy, TextureCreate, TextureDestroy, TextureResource,
};
use torpor_proto::error::CudaError;
use worker_support::Client;
use worker_support::kernels::launch;

const MIB: u64 = 1 << 20;

/// `CU_AD_FORMAT_UNSIGNED_INT8`, `_UNSIGNED_INT32`, `_HALF`, `_FLOAT`
const BYTE: u32 = 0x01;
const WORD: u32 = 0x03;
const HALF: u32 = 0x10;
const FLOAT: u32 = 0x20;

/// `CUDA_ARRAY3D_LAYERED`, `_SURFACE_LDST`, `_CUBEMAP`
const LAYERED: u32 = 1;
const SURFACE: u32 = 2;
const CUBEMAP: u32 = 4;

/// `fetch(u32 *out, texture, u32 width)`: the elements of a texture in two dimensions, one a thread; `write(surface, u32 row)`
/// writes the number of each thread into a row.
const PTX: &str = "
.version 8.0
.target sm_80
.address_size 64

.visible .entry fetch(.param .u64 out, .param .u64 texture, .param .u64 width)
{
    .reg .b32 %r<10>;
    .reg .f32 %f<8>;
    .reg .b64 %d<6>;
    ld.param.u64 %d1, [out];
    ld.param.u64 %d2, [texture];
    ld.param.u32 %r2, [width];
    mov.u32 %r1, %tid.x;
    rem.u32 %r3, %r1, %r2;
    div.u32 %r4, %r1, %r2;
    cvt.rn.f32.u32 %f1, %r3;
    cvt.rn.f32.u32 %f2, %r4;
    add.f32 %f1, %f1, 0f3F000000;
    add.f32 %f2, %f2, 0f3F000000;
    tex.2d.v4.u32.f32 {%r5, %r6, %r7, %r8}, [%d2, {%f1, %f2}];
    mul.wide.u32 %d3, %r1, 4;
    add.s64 %d4, %d1, %d3;
    st.global.u32 [%d4], %r5;
    ret;
}

.visible .entry write(.param .u64 surface, .param .u64 row)
{
    .reg .b32 %r<4>;
    .reg .b64 %d<3>;
    ld.param.u64 %d1, [surface];
    ld.param.u32 %r3, [row];
    mov.u32 %r1, %tid.x;
    shl.b32 %r2, %r1, 2;
    sust.b.2d.b32.trap [%d1, {%r2, %r3}], {%r1};
    ret;
}
";

const FETCH: u32 = 21;
const WRITE: u32 = 22;

fn made(array: u32, format: u32, channels: u32, [width, height, depth]: [u64; 3]) -> ArrayCreate {
    ArrayCreate { array, format, channels, width, height, depth, ..ArrayCreate::default() }
}

/// Arrays of every dimension, with the bytes of their elements.
fn every_shape() -> Vec<(ArrayCreate, u64)> {
    vec![
        (made(0, BYTE, 1, [1000, 0, 0]), 1),
        (made(1, FLOAT, 4, [33, 17, 0]), 16),
        (made(2, HALF, 2, [40, 9, 5]), 4),
        (ArrayCreate { flags: SURFACE, ..made(3, WORD, 1, [64, 64, 3]) }, 4),
        (ArrayCreate { flags: LAYERED, ..made(4, WORD, 1, [77, 0, 6]) }, 4),
        (ArrayCreate { flags: LAYERED, ..made(5, BYTE, 4, [31, 30, 7]) }, 4),
        (ArrayCreate { flags: CUBEMAP, ..made(6, BYTE, 2, [16, 16, 6]) }, 2),
        (ArrayCreate { flags: CUBEMAP | LAYERED, ..made(7, BYTE, 1, [16, 16, 12]) }, 1),
        (ArrayCreate { levels: 5, ..made(8, FLOAT, 1, [40, 24, 0]) }, 4),
        (ArrayCreate { levels: 3, ..made(9, BYTE, 1, [64, 64, 8]) }, 1),
        // More than a chunk of the host store.
        (made(10, FLOAT, 4, [512, 700, 0]), 16),
    ]
}

/// All levels of an array: bytes of a row, rows and slices.
fn levels(array: &ArrayCreate, element_bytes: u64) -> Vec<(u32, [u64; 3])> {
    let is_layered = array.flags & (LAYERED | CUBEMAP) != 0;
    let extent = |level: u32| {
        let shrunk = |count: u64| (count >> level).max(1);
        let slices = if is_layered { array.depth } else { shrunk(array.depth) };
        (level, [shrunk(array.width) * element_bytes, shrunk(array.height), slices])
    };
    (0..array.levels.max(1)).map(extent).collect()
}

fn in_array(array: u32, level: u32) -> CopyEnd {
    CopyEnd { place: END_IN_ARRAY, array, level, ..CopyEnd::default() }
}

fn in_memory(address: u64, [pitch, height, _]: [u64; 3]) -> CopyEnd {
    CopyEnd { place: END_IN_MEMORY, address, pitch, height, ..CopyEnd::default() }
}

fn copy(client: &mut Client, destination: CopyEnd, source: CopyEnd, [width_bytes, height, depth]: [u64; 3]) {
    let copy = ArrayCopy { destination, source, width_bytes, height, depth, ..ArrayCopy::default() };
    client.post(copy, &[]);
}

fn pattern(array: u32, level: u32, bytes: u64) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 / 7 + u64::from(array * 5 + level)) as u8).collect()
}

/// Fills what a box of device memory leads to: 8 MiB of it are the test's.
fn fill(client: &mut Client, memory: u64, (array, element_bytes): &(ArrayCreate, u64)) {
    for (level, extent) in levels(array, *element_bytes) {
        client.upload(memory, &pattern(array.array, level, extent.iter().product()));
        copy(client, in_array(array.array, level), in_memory(memory, extent), extent);
        client.settle().unwrap();
    }
}

fn is_as_filled(client: &mut Client, memory: u64, (array, element_bytes): &(ArrayCreate, u64)) -> bool {
    levels(array, *element_bytes).into_iter().all(|(level, extent)| {
        copy(client, in_memory(memory, extent), in_array(array.array, level), extent);
        client.settle().unwrap();
        let bytes: u64 = extent.iter().product();
        client.download(memory, bytes as usize) == pattern(array.array, level, bytes)
    })
}

fn over(kind: u32, array: u32) -> TextureCreate {
    let resource = TextureResource { kind, array, ..TextureResource::default() };
    TextureCreate { resource, sampler: Sampler::default(), ..TextureCreate::default() }
}

fn load(client: &mut Client) {
    client.load_image(9, &[PTX.as_bytes(), &[0]].concat()).unwrap();
    client.resolve(9, FETCH, "fetch").unwrap();
    client.resolve(9, WRITE, "write").unwrap();
}

fn run(client: &mut Client, kernel: u32, threads: u32, parameters: &[u64]) {
    let parameters: &[u8] = bytemuck::cast_slice(parameters);
    client.post(launch(kernel, 0, 1, threads, parameters.len()), parameters);
    client.settle().unwrap();
}

/// An array of 32 by 2 words whose elements are their numbers, a texture and a surface over it.
struct Picture {
    texture: u64,
    surface: u64,
}

impl Picture {
    const ARRAY: u32 = 40;
    const EXTENT: [u64; 3] = [128, 2, 1];

    fn new(client: &mut Client, memory: u64) -> Self {
        load(client);
        client.ask(ArrayCreate { flags: SURFACE, ..made(Self::ARRAY, WORD, 1, [32, 2, 0]) }).unwrap();
        let words: Vec<u32> = (0..64).collect();
        client.upload(memory, bytemuck::cast_slice(&words));
        copy(client, in_array(Self::ARRAY, 0), in_memory(memory, Self::EXTENT), Self::EXTENT);
        client.settle().unwrap();
        let texture = client.ask(over(0, Self::ARRAY)).unwrap().handle;
        let surface = client.ask(SurfaceCreate { array: Self::ARRAY, level: 0 }).unwrap().handle;
        Self { texture, surface }
    }

    /// What kernels see through the texture.
    fn words(&self, client: &mut Client, memory: u64) -> Vec<u32> {
        run(client, FETCH, 64, &[memory, self.texture, 32]);
        client.words(memory, 64)
    }

    fn write(&self, client: &mut Client, row: u64) {
        run(client, WRITE, 32, &[self.surface, row]);
    }
}

#[test]
fn arrays_of_every_shape_move_with_what_is_in_them() {
    let server = start();
    let mut program = Program::start(&server, "f");
    let memory = program.client.allocate(0, 8 * MIB).unwrap();
    let shapes = every_shape();
    for shape in &shapes {
        program.client.ask(shape.0).unwrap();
        fill(&mut program.client, memory, shape);
    }
    let before = server.listed("f");
    let (first, second) = program.gpus(&server);
    for gpu in [second, first] {
        program.move_to(&server, gpu).unwrap();
        assert_eq!(program.gpu(&server), gpu);
        for shape in &shapes {
            assert!(is_as_filled(&mut program.client, memory, shape), "{shape:?}");
        }
        let after = server.listed("f");
        assert_eq!((after.arrays, after.array_bytes), (before.arrays, before.array_bytes));
        assert_eq!(after.allocated_bytes, before.allocated_bytes);
        assert_eq!(after.resident_bytes, after.allocated_bytes, "all of it is here again");
    }
    // What is new there moves, too, and what is gone is not made again.
    program.client.post(ArrayDestroy { array: 3, reserved: 0 }, &[]);
    program.client.ask(shapes[3].0).unwrap();
    program.move_to(&server, second).unwrap();
    let cleared = [256, 64, 3];
    copy(&mut program.client, in_memory(memory, cleared), in_array(3, 0), cleared);
    program.client.settle().unwrap();
    assert!(program.client.download(memory, 256 * 64 * 3).iter().all(|&byte| byte == 0));
    for shape in &shapes {
        program.client.post(ArrayDestroy { array: shape.0.array, reserved: 0 }, &[]);
    }
    program.client.settle().unwrap();
    assert_eq!((server.listed("f").arrays, server.listed("f").array_bytes), (0, 0));
    program.move_to(&server, first).unwrap();
    eventually("nothing is left", || server.listed("f").resident_bytes <= 8 * MIB);
}

#[test]
fn kernels_find_textures_and_surfaces_by_the_same_handles_on_every_gpu() {
    let server = start();
    let mut programs = ["f", "g", "h"].map(|name| Program::start(&server, name));
    let pictures: Vec<_> = programs
        .iter_mut()
        .map(|program| {
            let memory = program.client.allocate(0, 2 * MIB).unwrap();
            (memory, Picture::new(&mut program.client, memory))
        })
        .collect();
    for gpu in [1, 0, 1] {
        for (program, (memory, picture)) in programs.iter_mut().zip(&pictures) {
            if program.gpu(&server) != gpu {
                program.move_to(&server, gpu).unwrap();
            }
            let client = &mut program.client;
            picture.write(client, 1);
            assert_eq!(picture.words(client, *memory), Vec::from_iter((0..32).chain(0..32)));
        }
    }
    // Over memory, and over an array that has no number any more.
    let (program, (memory, picture)) = (&mut programs[0], &pictures[0]);
    let client = &mut program.client;
    let rows = TextureResource {
        kind: 3,
        format: WORD,
        channels: 1,
        address: memory + MIB,
        width: 16,
        height: 4,
        pitch: 128,
        ..TextureResource::default()
    };
    let rows = client.ask(TextureCreate { resource: rows, ..TextureCreate::default() }).unwrap().handle;
    let words: Vec<u32> = (0..128).collect();
    client.upload(memory + MIB, bytemuck::cast_slice(&words));
    client.post(ArrayDestroy { array: Picture::ARRAY, reserved: 0 }, &[]);
    client.settle().unwrap();
    program.move_to(&server, 0).unwrap();
    let client = &mut program.client;
    assert_eq!(picture.words(client, *memory), Vec::from_iter((0..32).chain(0..32)));
    run(client, FETCH, 64, &[*memory, rows, 16]);
    let expected: Vec<u32> = (0..4).flat_map(|row| row * 32..row * 32 + 16).collect();
    assert_eq!(client.words(*memory, 64), expected);
    for handle in [picture.texture, rows] {
        client.post(TextureDestroy { handle }, &[]);
    }
    client.post(SurfaceDestroy { handle: picture.surface }, &[]);
    client.settle().unwrap();
    assert_eq!((server.listed("f").arrays, server.listed("f").array_bytes), (0, 0));
}

#[test]
fn arrays_leave_for_others_that_need_the_memory() {
    let (server, _settings) = start_with_settings(1, "[memory]\ngpu_limit = \"64MiB\"");
    let mut programs = ["f", "g"].map(|name| Program::start(&server, name));
    let small = (made(2, BYTE, 4, [100, 10, 0]), 4);
    let mut all = Vec::new();
    for program in &mut programs {
        let memory = program.client.allocate(0, 40 * MIB).unwrap();
        let picture = Picture::new(&mut program.client, memory);
        program.client.ask(small.0).unwrap();
        fill(&mut program.client, memory, &small);
        all.push((memory, picture));
    }
    for round in 0..3 {
        for (program, (memory, picture)) in programs.iter_mut().zip(&all) {
            let client = &mut program.client;
            assert!(is_as_filled(client, *memory, &small), "round {round}");
            picture.write(client, 1);
            assert_eq!(picture.words(client, *memory), Vec::from_iter((0..32).chain(0..32)));
            let used: u64 = server.functions().iter().map(|function| function.resident_bytes).sum();
            assert!(used <= 64 * MIB, "{used}");
        }
    }
    assert!(["f", "g"].iter().all(|name| server.listed(name).swaps > 1), "they came and went");
    server.unload("f");
    let unloaded = server.listed("f");
    assert_eq!(unloaded.resident_bytes, 0, "arrays leave, too");
    assert!(unloaded.array_bytes > 0 && unloaded.host_bytes > 0);
}

#[test]
fn a_client_whose_objects_cannot_be_made_there_stays_as_it_is() {
    // Each worker's first array: that of the client, which tries again, and where it goes that of handles that are nobody's.
    let server = with_environment(&[("TORPOR_SIMGPU_FAULTS", "call:cuArray3DCreate_v2@1:fail=1")]);
    let mut program = Program::start(&server, "f");
    let (here, elsewhere) = program.gpus(&server);
    let refused = program.client.ask(made(30, BYTE, 1, [16, 0, 0])).map(drop);
    assert_eq!(refused, Err(CudaError::INVALID_VALUE));
    let memory = program.client.allocate(0, 2 * MIB).unwrap();
    let picture = Picture::new(&mut program.client, memory);
    let before = server.listed("f");
    let refused = program.move_to(&server, elsewhere).unwrap_err();
    assert!(refused.message().contains("arrays, texture and surface objects"), "{refused}");
    assert_eq!(program.gpu(&server), here);
    for row in [0, 1] {
        picture.write(&mut program.client, row);
    }
    assert_eq!(picture.words(&mut program.client, memory), Vec::from_iter((0..32).chain(0..32)));
    let after = server.listed("f");
    assert_eq!((after.arrays, after.array_bytes), (before.arrays, before.array_bytes));
    program.move_to(&server, elsewhere).unwrap();
    assert_eq!(program.gpu(&server), elsewhere);
    assert_eq!(picture.words(&mut program.client, memory), Vec::from_iter((0..32).chain(0..32)));
}

#[test]
fn where_the_driver_gives_no_handle_again_arrays_move_and_who_has_objects_stays() {
    let server = with_environment(&[("TORPOR_SIMGPU_HANDLES", "new")]);
    let mut program = Program::start(&server, "f");
    let (here, elsewhere) = program.gpus(&server);
    let memory = program.client.allocate(0, 2 * MIB).unwrap();
    let small = (made(2, BYTE, 4, [100, 10, 0]), 4);
    program.client.ask(small.0).unwrap();
    fill(&mut program.client, memory, &small);
    for gpu in [elsewhere, here] {
        program.move_to(&server, gpu).unwrap();
        assert!(is_as_filled(&mut program.client, memory, &small));
    }
    let picture = Picture::new(&mut program.client, memory);
    let stays = program.move_to(&server, elsewhere).unwrap_err();
    assert!(stays.message().contains("gives no handle again"), "{stays}");
    assert!(server.said("this driver gives no handle of a texture or surface object again"));
    server.unload("f");
    let listed = server.listed("f");
    assert_eq!((listed.resident_bytes, program.gpu(&server)), (listed.array_bytes, here), "arrays stay");
    assert_eq!(picture.words(&mut program.client, memory), Vec::from_iter(0..64));
    program.client.post(TextureDestroy { handle: picture.texture }, &[]);
    program.client.post(SurfaceDestroy { handle: picture.surface }, &[]);
    program.client.settle().unwrap();
    program.move_to(&server, elsewhere).unwrap();
    assert!(is_as_filled(&mut program.client, memory, &small));
}

#[test]
fn an_idle_client_with_arrays_and_objects_goes_on_at_the_next_worker() {
    let (server, _settings) = start_with_settings(1, "");
    let mut program = Program::start(&server, "f");
    let memory = program.client.allocate(0, 8 * MIB).unwrap();
    let shapes = every_shape();
    for shape in &shapes {
        program.client.ask(shape.0).unwrap();
        fill(&mut program.client, memory, shape);
    }
    let picture = Picture::new(&mut program.client, memory);
    for round in 0..3 {
        if round == 1 {
            server.unload("f");
        }
        program.wait_until_covered(&server);
        kill_worker(&server, 0);
        let client = &mut program.client;
        picture.write(client, round % 2);
        let second = if round == 0 { 32..64 } else { 0..32 };
        assert_eq!(picture.words(client, memory), Vec::from_iter((0..32).chain(second)));
        for shape in &shapes {
            assert!(is_as_filled(client, memory, shape), "{shape:?}");
        }
        assert_eq!(program.error(), None);
    }
}

/// A node with two GPUs whose workers have this in their environment.
fn with_environment(variables: &[(&'static str, &'static str)]) -> Server {
    migrating::start_by(|command| {
        command.envs(variables.iter().copied());
    })
}
