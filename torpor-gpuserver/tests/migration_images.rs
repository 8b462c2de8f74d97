//! What of code moves with a client: its variables, and what they hold.

mod migrating;
mod served;
mod server_support;
mod worker_support;

use migrating::{Program, start};
use served::program;
use torpor_proto::command::{
    Fill, GraphAppend, GraphInstantiate, GraphLaunch, ImageGlobal, ImageUnload, MemoryFree,
};
use torpor_proto::error::CudaError;
use torpor_proto::image::synthetic::{self, CubinSource, KernelSource, VariableSource};
use worker_support::Client;
use worker_support::kernels::{POINTING_PTX, STATE, launch, record};

const MIB: u64 = 1 << 20;

/// The number of the image with [`POINTING_PTX`], and that of its kernel.
const POINTING: u32 = 8;

#[test]
fn variables_move_with_the_client() {
    let server = start();
    let mut program = Program::start(&server, "f");
    let (here, elsewhere) = program.gpus(&server);
    let client = &mut program.client;
    client.load_state();
    let out = client.allocate(0, 2 * MIB).unwrap();
    let (factor, counter) =
        (client.variable(STATE, "factor").unwrap().0, client.variable(STATE, "counter").unwrap().0);
    // A graph that counts, and one that sets the factor.
    let mut records = Vec::new();
    record(&mut records, launch(STATE, 7, 1, 1, 8), &out.to_le_bytes());
    client.post(GraphAppend { graph: 1, reserved: 0 }, bytemuck::cast_slice(&records));
    client.ask(GraphInstantiate { graph: 1, reserved: 0, flags: 0 }).unwrap();
    let mut records = Vec::new();
    let fill = Fill {
        address: factor,
        width: 1,
        height: 1,
        element_bytes: 4,
        stream: 7,
        value: 11,
        ..Fill::default()
    };
    record(&mut records, fill, &[]);
    client.post(GraphAppend { graph: 2, reserved: 0 }, bytemuck::cast_slice(&records));
    client.ask(GraphInstantiate { graph: 2, reserved: 0, flags: 0 }).unwrap();
    // The image whose variable is only read is shared, until it is asked for.
    let data = client.allocate(8 * MIB, 2 * MIB).unwrap();
    client.add_step(data, 1, 0);
    let step = client.variable(1, "step").unwrap().0;
    client.upload(step, &100_u32.to_le_bytes());
    let (mut ticks, mut added) = (0, 3);
    for (gpu, scale) in [(elsewhere, 2), (here, 3), (elsewhere, 4)] {
        let client = &mut program.client;
        client.upload(factor, &u32::to_le_bytes(scale));
        client.tick(out, 0);
        ticks += 1;
        assert_eq!(client.words(out, 1), [ticks * scale]);
        program.move_to(&server, gpu).unwrap();
        assert_eq!(program.gpu(&server), gpu);
        let client = &mut program.client;
        client.tick(out, 0);
        ticks += 1;
        assert_eq!(client.words(out, 1), [ticks * scale], "counter and factor have come along");
        assert_eq!((client.words(factor, 1), client.words(counter, 1)), (vec![scale], vec![ticks]));
        assert_eq!(client.managed_variable("ticks"), (100 + ticks).to_le_bytes());
        assert_eq!(client.managed_variable("latest"), out.to_le_bytes());
        client.post(GraphLaunch { graph: 1, stream: 0 }, &[]);
        ticks += 1;
        assert_eq!(client.words(out, 1), [ticks * scale]);
        client.post(GraphLaunch { graph: 2, stream: 0 }, &[]);
        client.tick(out, 0);
        ticks += 1;
        assert_eq!(client.words(out, 1), [ticks * 11]);
        client.add_step(data, 1, 0);
        added += 100;
        assert_eq!(client.words(data, 1), [added]);
        assert_eq!(client.variable(STATE, "counter").unwrap().0, counter);
    }
}

/// Loads [`POINTING_PTX`]. Returns room for what it says.
fn load_pointing(client: &mut Client) -> u64 {
    client.load_image(POINTING, &[POINTING_PTX.as_bytes(), b"\0"].concat()).unwrap();
    client.resolve(POINTING, POINTING, "point").unwrap();
    client.allocate(0, 2 * MIB).unwrap()
}

/// What the table of [`POINTING_PTX`] points to, which is what its code has for the addresses of its functions, and how often
/// that was asked.
fn pointed_to(client: &mut Client, out: u64) -> ([u64; 2], u64) {
    client.launch_at(POINTING, out, 0);
    let bytes = client.download(out, 7 * 8);
    let words: Vec<_> = bytes.as_chunks().0.iter().map(|&word| u64::from_le_bytes(word)).collect();
    let &[first, second, helper, kernel, seed, asked, chosen] = &words[..] else { unreachable!() };
    let (pointers, ours) = ([first, second, chosen], [helper, kernel, helper]);
    assert_eq!(pointers, ours, "these are not the addresses of this code: {words:x?}");
    assert_eq!(seed, 41);
    ([first, second], asked)
}

#[test]
fn pointers_to_code_are_those_of_the_code_where_the_client_is() {
    let server = start();
    let mut program = Program::start(&server, "f");
    let (here, elsewhere) = program.gpus(&server);
    let client = &mut program.client;
    let out = load_pointing(client);
    let (mut before, mut asked) = pointed_to(client, out);
    assert_eq!(asked, 1);
    for gpu in [elsewhere, here, elsewhere] {
        program.move_to(&server, gpu).unwrap();
        assert_eq!((program.gpu(&server), server.listed("f").fixed_images), (gpu, 0));
        let client = &mut program.client;
        let (after, now) = pointed_to(client, out);
        assert!(after.iter().all(|pointer| !before.contains(pointer)), "{before:x?} {after:x?}");
        asked += 1;
        assert_eq!(now, asked, "a variable beside the table has come along");
        // The host store has what the GPU has, and no older pointer.
        server.unload("f");
        let (again, now) = pointed_to(client, out);
        asked += 1;
        assert_eq!((again, now), (after, asked));
        before = after;
    }
    // Whose program has copies of them stays with them.
    let asked_at = program.client.variable(POINTING, "asked").unwrap().0;
    let table = program.client.variable(POINTING, "table").unwrap().0;
    program.client.download(asked_at, 8);
    program.move_to(&server, here).unwrap();
    let (pointers, _) = pointed_to(&mut program.client, out);
    assert_eq!(program.client.download(table, 8), pointers[0].to_le_bytes());
    let stays = program.move_to(&server, elsewhere).unwrap_err();
    assert!(stays.message().contains("variables of an image"), "{stays}");
    assert_eq!((program.gpu(&server), server.listed("f").fixed_images), (here, 1));
    assert!(server.said("points to code"));
}

#[test]
fn pointers_to_code_are_those_of_the_next_worker_where_one_died() {
    let (server, _settings) = program::start(1, "");
    let mut program = Program::start(&server, "f");
    let out = load_pointing(&mut program.client);
    let (mut before, _) = pointed_to(&mut program.client, out);
    for asked in 2..4 {
        program.unload_and_cover(&server);
        program::kill_worker(&server, 0);
        let (after, now) = pointed_to(&mut program.client, out);
        assert!(after.iter().all(|pointer| !before.contains(pointer)), "{before:x?} {after:x?}");
        assert_eq!((now, program.error()), (asked, None));
        before = after;
    }
}

#[test]
fn pointers_to_code_stay_where_the_writes_of_kernels_are_dropped() {
    let (server, _settings) = program::start(2, "[functions.f]\nwriteback = 'never'");
    let mut program = Program::start(&server, "f");
    let out = load_pointing(&mut program.client);
    pointed_to(&mut program.client, out);
    let (here, elsewhere) = program.gpus(&server);
    for gpu in [elsewhere, here] {
        server.unload("f");
        program.move_to(&server, gpu).unwrap();
        let (after, _) = pointed_to(&mut program.client, out);
        server.unload("f");
        assert_eq!(pointed_to(&mut program.client, out).0, after);
        assert_eq!(program.gpu(&server), gpu);
    }
}

#[test]
fn a_client_whose_variables_only_the_driver_can_place_stays_and_the_log_says_which() {
    let server = start();
    let mut program = Program::start(&server, "f");
    let (here, elsewhere) = program.gpus(&server);
    let mut wide = VariableSource::of(".nv.global", "wide", 4096, 0);
    wide.align = 4096;
    let kernel = KernelSource {
        name: "kernel".to_owned(),
        parameters: Vec::new(),
        block_bytes: 0,
        shared_bytes: 0,
        registers: 8,
    };
    let source = CubinSource { kernels: vec![kernel], variables: vec![wide], ..CubinSource::default() };
    program.client.load_image(2, &synthetic::cubin(&source)).unwrap();
    program.client.variable(2, "wide").unwrap();
    let stays = program.move_to(&server, elsewhere).unwrap_err();
    assert!(stays.message().contains("variables of an image"), "{stays}");
    assert_eq!((program.gpu(&server), server.listed("f").fixed_images), (here, 1));
    assert!(server.said("wide") && server.said("aligned to 4096 bytes"));
    program.client.post(ImageUnload { image: 2, reserved: 0 }, &[]);
    program.client.settle().unwrap();
    program.move_to(&server, elsewhere).unwrap();
    assert_eq!((program.gpu(&server), server.listed("f").fixed_images), (elsewhere, 0));
}

#[test]
fn variables_of_an_image_without_kernels_are_the_client_s_memory() {
    let server = start();
    let mut program = Program::start(&server, "f");
    let (first, second) = program.gpus(&server);
    let client = &mut program.client;
    let variables = vec![
        VariableSource::of(".nv.global.init", "constants", 112, 7),
        VariableSource::of(".nv.global", "buffer", 3 * MIB, 0),
    ];
    let image = synthetic::cubin(&CubinSource { variables, ..CubinSource::default() });
    client.load_image(2, &image).unwrap();
    let address_of = |client: &mut Client, name: &str| {
        let answer = client.ask_all(ImageGlobal { image: 2, reserved: 0 }, name.as_bytes());
        answer.map(|(reply, _)| (reply.address, reply.bytes))
    };
    assert_eq!(address_of(client, "nothing"), Err(CudaError::NOT_FOUND));
    let (constants, bytes) = address_of(client, "constants").unwrap();
    assert_eq!((bytes, client.download(constants, 112)), (112, vec![7; 112]));
    let (buffer, bytes) = address_of(client, "buffer").unwrap();
    assert_eq!(bytes, 3 * MIB);
    assert!(client.download(buffer, bytes as usize).iter().all(|&byte| byte == 0));
    assert!(client.arena.contains(constants, 112) && client.arena.contains(buffer, bytes));
    client.post(MemoryFree { address: constants / (2 * MIB) * (2 * MIB) }, &[]);
    assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE), "it is no allocation");
    for (gpu, byte) in [(second, 1), (first, 2), (second, 3)] {
        program.client.upload(buffer + 2 * MIB, &[byte; 100]);
        program.move_to(&server, gpu).unwrap();
        assert_eq!(program.gpu(&server), gpu);
        let client = &mut program.client;
        assert_eq!(client.download(constants, 112), [7; 112]);
        assert_eq!(client.download(buffer + 2 * MIB, 101), [vec![byte; 100], vec![0]].concat());
        assert_eq!(address_of(client, "buffer"), Ok((buffer, 3 * MIB)));
    }
    let client = &mut program.client;
    client.post(ImageUnload { image: 2, reserved: 0 }, &[]);
    client.copy(client.host.address, constants, 4, 0);
    assert_eq!(client.settle(), Err(CudaError::INVALID_VALUE), "gone with its image");
    assert_eq!(server.listed("f").allocated_bytes, 0);
    client.load_image(2, &image).unwrap();
    assert_eq!(address_of(client, "constants").unwrap().0, constants);
    assert_eq!(client.download(buffer + 2 * MIB, 100), [0; 100]);
}
