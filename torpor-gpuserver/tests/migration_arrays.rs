//! Arrays, texture and surface objects that leave their GPU: for another client, for another GPU, or with their worker.

mod arrays;
mod migrating;
mod served;
mod server_support;
mod worker_support;

use arrays::{
    BYTE, FETCH, FLOAT, Picture, WORD, copy, every_shape, fill, in_array, in_memory, is_as_filled, load,
    made, over, run,
};
use migrating::{Program, start};
use served::program::{kill_worker, start as start_with_settings};
use server_support::server::{Server, eventually};
use torpor_proto::command::{
    ArrayCreate, ArrayDestroy, ObjectCreate, ObjectMap, ObjectUnmap, SurfaceDestroy, TextureCreate,
    TextureDestroy, TextureResource,
};
use torpor_proto::error::CudaError;

const MIB: u64 = 1 << 20;

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
fn a_client_whose_arrays_do_not_fit_there_stays_as_it_is() {
    let (server, _settings) = start_with_settings(2, "[memory]\ngpu_limit = [\"64MiB\", \"16MiB\"]");
    let mut program = Program::start(&server, "f");
    if program.gpu(&server) == 1 {
        program.move_to(&server, 0).unwrap();
    }
    let memory = program.client.allocate(0, 8 * MIB).unwrap();
    let large = (made(2, FLOAT, 4, [512, 700, 0]), 16);
    program.client.ask(large.0).unwrap();
    program.client.ask(ArrayCreate { array: 3, ..large.0 }).unwrap();
    fill(&mut program.client, memory, &large);
    let before = server.listed("f");
    let refused = program.move_to(&server, 1).unwrap_err();
    assert!(refused.message().contains("CUDA_ERROR_OUT_OF_MEMORY"), "{refused}");
    assert_eq!(program.gpu(&server), 0);
    assert!(is_as_filled(&mut program.client, memory, &large));
    let after = server.listed("f");
    assert_eq!((after.allocated_bytes, after.array_bytes), (before.allocated_bytes, before.array_bytes));
    program.client.post(ArrayDestroy { array: 3, reserved: 0 }, &[]);
    program.client.settle().unwrap();
    program.move_to(&server, 1).unwrap();
    assert!(is_as_filled(&mut program.client, memory, &large));
}

#[test]
fn a_client_whose_handle_another_one_has_there_stays_until_that_is_given_back() {
    let server = start();
    let mut programs = ["f", "g"].map(|name| Program::start(&server, name));
    for (program, gpu) in programs.iter().zip([0, 1]) {
        if program.gpu(&server) != gpu {
            program.move_to(&server, gpu).unwrap();
        }
    }
    // More than the handles of their own.
    let mut all = Vec::new();
    for program in &mut programs {
        program.client.ask(made(1, WORD, 1, [16, 2, 0])).unwrap();
        let handles: Vec<u64> = (0..300).map(|_| program.client.ask(over(0, 1)).unwrap().handle).collect();
        all.push(handles);
    }
    let [f, g] = &mut programs;
    let memory = f.client.allocate(0, 2 * MIB).unwrap();
    let picture = Picture::new(&mut f.client, memory);
    assert!(all[0].iter().any(|handle| all[1].contains(handle)), "some of them are the same");
    let refused = f.move_to(&server, 1).unwrap_err();
    assert!(refused.message().contains("arrays, texture and surface objects"), "{refused}");
    assert!(server.said("another one's texture or surface object has its handle here"));
    assert_eq!((f.gpu(&server), picture.words(&mut f.client, memory)), (0, Vec::from_iter(0..64)));
    for &handle in &all[1] {
        g.client.post(TextureDestroy { handle }, &[]);
    }
    g.client.settle().unwrap();
    f.move_to(&server, 1).unwrap();
    assert_eq!((f.gpu(&server), picture.words(&mut f.client, memory)), (1, Vec::from_iter(0..64)));
}

#[test]
fn a_texture_over_memory_that_is_not_there_keeps_nobody_from_the_gpu() {
    let server = start();
    let mut program = Program::start(&server, "f");
    let (_, elsewhere) = program.gpus(&server);
    let memory = program.client.allocate(0, 2 * MIB).unwrap();
    let home = program.client.arena.address + 64 * MIB;
    let place = home + 8 * MIB;
    program.client.ask(ObjectCreate { home, bytes: 2 * MIB }).unwrap();
    program.client.ask(ObjectMap { home, address: place }).unwrap();
    load(&mut program.client);
    let words: Vec<u32> = (0..64).collect();
    program.client.upload(place, bytemuck::cast_slice(&words));
    let rows = TextureResource {
        kind: 3,
        format: WORD,
        channels: 1,
        address: place,
        width: 32,
        height: 2,
        pitch: 128,
        ..TextureResource::default()
    };
    let texture = TextureCreate { resource: rows, ..TextureCreate::default() };
    let texture = program.client.ask(texture).unwrap().handle;
    program.client.post(ObjectUnmap { address: place }, &[]);
    program.client.settle().unwrap();
    program.move_to(&server, elsewhere).unwrap();
    program.client.add_step(memory, 10, 0);
    assert_eq!(program.client.words(memory, 10), [3; 10]);
    program.client.ask(ObjectMap { home, address: place }).unwrap();
    program.client.settle().unwrap();
    server.unload("f");
    run(&mut program.client, FETCH, 64, &[memory, texture, 32]);
    assert_eq!(program.client.words(memory, 64), words);
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
