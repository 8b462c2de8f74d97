//! What a client gets done while its memory is still on its way to the GPU.
//!
//! The simulated GPU takes its time here: its copy engine serves one stream as long as that has work, as on hardware.

mod served;
mod server_support;
mod worker_support;

use served::{Attached, attach};
use server_support::server::{Server, eventually};
use torpor_proto::command::{
    EventCreate, EventElapsed, EventRecord, Fill, HostLock, StreamCreate, TensorMapReply, TensorMapTiled,
    TextureCreate, TextureResource,
};
use torpor_proto::error::CudaError;
use worker_support::Client;
use worker_support::kernels::launch;

const MIB: u64 = 1 << 20;
/// Segments of 2 MiB, each of which takes 20 ms to come back.
const SEGMENTS: u64 = 16;

fn start() -> Server {
    start_with(&["--host-pool", "64MiB", "--host-slab", "32MiB"])
}

fn start_with(settings: &[&str]) -> Server {
    served::serve_by("--gpus 0 --pinned-limit 8MiB --staging 4MiB --log debug", |command| {
        command.args(settings);
        command.env("TORPOR_SIMGPU_TIME", "real");
        command.env("TORPOR_SIMGPU_PROFILE", "h200:host_gbps=0.1");
    })
}

fn record(client: &mut Client, event: u32, stream: u32) {
    client.post(EventRecord { event, stream, ..EventRecord::default() }, &[]);
}

/// Segments that are all ones.
fn allocate_ones(client: &mut Client, count: u64) -> Vec<u64> {
    allocate_filled(client, count, |_| 1)
}

fn allocate_filled(client: &mut Client, count: u64, value: impl Fn(u32) -> u32) -> Vec<u64> {
    let segments: Vec<u64> =
        (0..count).map(|segment| client.allocate(segment * 2 * MIB, 2 * MIB).unwrap()).collect();
    for (&address, value) in segments.iter().zip((0..).map(value)) {
        fill(client, address, value);
    }
    client.settle().unwrap();
    segments
}

fn fill(client: &mut Client, address: u64, value: u32) {
    let fill = Fill { address, width: 2 * MIB, height: 1, value, element_bytes: 1, ..Fill::default() };
    client.post(fill, &[]);
}

#[test]
fn a_kernel_whose_pointers_are_in_page_locked_memory_finds_what_they_point_to() {
    let server = start();
    let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
    client.load_kernels();
    let segments = allocate_ones(&mut client, SEGMENTS);
    let last = segments[segments.len() - 1];
    let table = client.host.address + 4 * MIB;
    client.ask(HostLock { address: table, bytes: 4096 }).unwrap();
    client.write_host(4 * MIB, &last.to_le_bytes());
    server.unload("f");
    client.add_through(table, 10, 0);
    client.settle().unwrap();
    assert_eq!(client.words(last, 11), [vec![0x0101_0104; 10], vec![0x0101_0101]].concat());
}

#[test]
fn a_kernel_that_comes_to_page_locked_memory_through_its_own_finds_what_that_points_to() {
    for table_is_copied_late in [false, true] {
        let server = start();
        let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
        client.load_kernels();
        let segments = allocate_ones(&mut client, SEGMENTS);
        let (first, last) = (segments[0], segments[segments.len() - 1]);
        let table = client.host.address + 4 * MIB;
        client.ask(HostLock { address: table, bytes: 4096 }).unwrap();
        client.write_host(4 * MIB, &last.to_le_bytes());
        let staged = client.write_host(0, &table.to_le_bytes());
        if table_is_copied_late {
            server.unload("f");
        }
        client.copy(first, staged, 8, 0);
        if !table_is_copied_late {
            client.settle().unwrap();
            server.unload("f");
        }
        client.add_through_tables(first, 10, 0);
        client.settle().unwrap();
        assert_eq!(client.words(last, 11), [vec![0x0101_0104; 10], vec![0x0101_0101]].concat());
    }
}

/// Writes the first element of a texture over memory.
const FETCH: &str = "
.version 8.0
.target sm_80
.address_size 64

.visible .entry fetch(.param .u64 out, .param .u64 texture)
{
    .reg .b32 %r<6>;
    .reg .b64 %d<4>;
    ld.param.u64 %d1, [out];
    cvta.to.global.u64 %d1, %d1;
    ld.param.u64 %d2, [texture];
    mov.u32 %r5, 0;
    tex.1d.v4.u32.s32 {%r1, %r2, %r3, %r4}, [%d2, {%r5}];
    st.global.u32 [%d1], %r1;
    ret;
}
\0";

#[test]
fn a_kernel_that_is_given_a_texture_finds_the_memory_that_it_is_over() {
    let server = start();
    let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
    client.load_image(9, FETCH.as_bytes()).unwrap();
    client.resolve(9, 9, "fetch").unwrap();
    let segments = allocate_ones(&mut client, SEGMENTS);
    let (first, last) = (segments[0], segments[segments.len() - 1]);
    // CU_RESOURCE_TYPE_LINEAR, CU_AD_FORMAT_UNSIGNED_INT32
    let resource =
        TextureResource { kind: 2, format: 3, channels: 1, address: last, width: 4096, ..Default::default() };
    let texture = client.ask(TextureCreate { resource, ..TextureCreate::default() }).unwrap().handle;
    server.unload("f");
    let parameters = [first.to_le_bytes(), texture.to_le_bytes()].concat();
    client.post(launch(9, 0, 1, 1, parameters.len()), &parameters);
    client.settle().unwrap();
    assert_eq!(client.words(first, 2), [0x0101_0101; 2]);
    client.post(
        Fill { address: last, width: 1, height: 1, value: 7, element_bytes: 4, ..Fill::default() },
        &[],
    );
    server.unload("f");
    client.post(launch(9, 0, 1, 1, parameters.len()), &parameters);
    client.settle().unwrap();
    assert_eq!(client.words(first, 2), [7, 0x0101_0101], "the object is over the address, whatever is there");
}

#[test]
fn a_kernel_whose_tensor_map_is_in_device_memory_finds_the_tensor() {
    let server = start();
    let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
    client.load_kernels();
    let segments = allocate_ones(&mut client, SEGMENTS);
    let (first, last) = (segments[0], segments[segments.len() - 1]);
    let tensor = TensorMapTiled {
        address: last,
        dimensions: [64, 64, 0, 0, 0],
        strides: [256, 0, 0, 0, 0],
        box_dimensions: [8, 8, 0, 0, 0],
        element_strides: [1; 5],
        rank: 2,
        ..TensorMapTiled::default()
    };
    let TensorMapReply { words } = client.ask(tensor).unwrap();
    client.upload(first, bytemuck::cast_slice(&words));
    server.unload("f");
    client.add_through_map(first, 10, 0);
    client.settle().unwrap();
    assert_eq!(client.words(last, 11), [vec![0x0101_0104; 10], vec![0x0101_0101]].concat());
}

#[test]
fn a_function_that_ran_ahead_of_a_pointer_that_nobody_saw_is_brought_whole_from_then_on() {
    let server = start();
    for (round, expected) in [(1, Err(CudaError::ILLEGAL_ADDRESS)), (2, Ok(())), (3, Ok(()))] {
        let mut attached = attach(&server, "f");
        let client = &mut attached.client;
        client.load_kernels();
        // More than may be under way at once, so the last one is not mapped for long.
        let segments = allocate_ones(client, SEGMENTS + 8);
        let last = segments[segments.len() - 1];
        // In memory that no program has a pointer to.
        let hidden = client.write_host(0, &(!last).to_le_bytes());
        client.copy(hidden + 64, hidden, 8, 0);
        client.settle().unwrap();
        server.unload("f");
        client.add_through_map(hidden, 10, 0);
        assert_eq!(client.settle(), expected, "round {round}");
        if expected.is_ok() {
            assert_eq!(client.words(last, 1), [0x0101_0104]);
        } else {
            eventually("another worker is there", || server.gpus()[0].worker_restarts == 1);
        }
        drop(attached);
        eventually("it is gone", || server.functions().iter().all(|function| function.clients == 0));
    }
    assert_eq!(server.log().matches("may have used memory that had not been brought back").count(), 1);
}

#[test]
fn an_upload_and_what_depends_on_it_is_done_while_other_memory_is_still_on_its_way() {
    let server = start();
    let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
    client.load_kernels();
    for (stream, event) in [(1, 1), (2, 2)] {
        client.post(StreamCreate { stream, flags: 1, priority: 0, context: 0 }, &[]);
        client.post(EventCreate { event, flags: 0 }, &[]);
    }
    let segments = allocate_ones(&mut client, SEGMENTS);
    let (first, last) = (segments[0], segments[segments.len() - 1]);
    server.unload("f");

    let input = client.write_host(0, &[2; MIB as usize]);
    client.copy(first, input, MIB, 1);
    client.add_step(first, 10, 1);
    record(&mut client, 1, 1);
    client.add_step(last, 10, 2);
    record(&mut client, 2, 2);
    client.settle().unwrap();
    let elapsed = client.ask(EventElapsed { start: 1, end: 2 }).unwrap();
    let milliseconds = f32::from_bits(elapsed.milliseconds_bits);
    assert!(milliseconds > 0.0, "the input's kernel came {} ms after everything else", -milliseconds);
    assert_eq!(client.words(first, 11), [vec![0x0202_0205; 10], vec![0x0202_0202]].concat());
    assert_eq!(client.words(last, 11), [vec![0x0101_0104; 10], vec![0x0101_0101]].concat());
    assert_eq!(client.words(first + MIB, 1), [0x0101_0101]);
}

#[test]
fn a_client_that_allocates_while_its_memory_is_still_on_its_way_lends_its_slots_to_who_leaves_for_it() {
    let spill = tempfile::tempdir().unwrap();
    let spill = spill.path().to_str().unwrap();
    // The pool has room for the first alone, and the GPU for both.
    let pool = ["--host-pool", "48MiB", "--host-slab", "16MiB", "--gpu-limit", "52MiB", "--cover", "false"];
    let server = start_with(&[&pool[..], &["--spill-dir", spill]].concat());
    let Attached { mut client, lifeline: _lifeline } = attach(&server, "f");
    let Attached { client: mut other, lifeline: _other } = attach(&server, "other");
    // More than may be under way at once, and no two equal.
    let segments = allocate_filled(&mut client, SEGMENTS + 8, |segment| segment + 1);
    server.unload("f");
    allocate_filled(&mut other, 2, |segment| segment + 100);
    fill(&mut client, segments[0], 50);
    client.allocate((SEGMENTS + 8) * 2 * MIB, 2 * MIB).expect("the other one leaves");
    assert_eq!(client.words(segments[0], 1), [0x3232_3232]);
    assert_eq!(client.words(segments[SEGMENTS as usize + 7], 1), [0x1818_1818]);
    assert!(!server.said("functions that are not idle"), "{}", server.log());
}
