//! The compiler's process and its jobs, as the kernel sees them, and what a worker does without one.

mod served;
mod server_support;
mod worker_support;

use rustix::process::Signal;
use server_support::process::{children, children_that_are, is_alive, signal};
use server_support::server::{Server, eventually};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use torpor_proto::error::CudaError;
use torpor_proto::image::fatbin::EntryKind;
use torpor_proto::image::synthetic::{container, zstd_entry};
use worker_support::kernels::{PTX, image};
use worker_support::{Compiler, Worker};

/// What a question begins with: its job, the compute capability, and how many bytes follow (`compiler::wire`).
fn question(job: u32, bytes: u64) -> Vec<u8> {
    [&job.to_le_bytes()[..], &90_u32.to_le_bytes(), &bytes.to_le_bytes()].concat()
}

/// The server's compiler.
fn of_server(server: &Server) -> Option<u32> {
    children_that_are(server.pid(), "compiler").pop()
}

/// The process of which each job of a compiler is a copy.
fn original(compiler: &Compiler) -> u32 {
    let mut connection = UnixStream::connect(compiler.socket()).unwrap();
    connection.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(answer(&mut connection), b"");
    eventually("the one that had the driver is gone", || children(compiler.child.id()).len() == 1);
    let original = children(compiler.child.id())[0];
    eventually("that job is over", || children(original).is_empty());
    original
}

/// What is answered, if anything is, behind whose job it is.
fn answer(connection: &mut UnixStream) -> Vec<u8> {
    let (mut life, mut answer) = ([0; 4], Vec::new());
    // One whose job has ended is at its end, or is reset, before that too.
    let _ = connection.read_exact(&mut life);
    let _ = connection.read_to_end(&mut answer);
    answer
}

/// What a process's descriptors are.
fn files(process: u32) -> Vec<PathBuf> {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    descriptors.map(|entry| fs::read_link(entry.unwrap().path()).unwrap()).collect()
}

/// A line of what the kernel says of a process.
fn status(process: u32, name: &str) -> String {
    let said = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

#[test]
fn a_job_has_its_connection_alone_and_may_do_next_to_nothing() {
    let compiler = Compiler::start();
    let original = original(&compiler);
    assert_eq!(status(original, "Threads"), "1");
    let mut connection = UnixStream::connect(compiler.socket()).unwrap();
    eventually("a job is begun", || !children(original).is_empty());
    let job = children(original)[0];
    eventually("it is behind the filter", || status(job, "Seccomp") == "2");
    assert_eq!(status(job, "NoNewPrivs"), "1");
    assert_eq!(status(job, "Threads"), "1");
    let leads_somewhere = |file: &PathBuf| file.to_str() != Some("/dev/null");
    let its: Vec<_> = files(job).into_iter().filter(leads_somewhere).collect();
    assert_eq!(its.len(), 1, "{its:?}");
    assert!(its[0].to_string_lossy().starts_with("socket:"), "{its:?}");
    let of_all = files(original).into_iter().filter(leads_somewhere).count();
    assert!(of_all <= 2, "the socket and standard error: {:?}", files(original));
    let text = b".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry a() { ret; }\n\0";
    connection.write_all(&[&question(2, text.len() as u64), &text[..]].concat()).unwrap();
    let compiled = answer(&mut connection);
    assert_eq!(compiled[..4], 1_u32.to_le_bytes(), "a cubin");
    assert_eq!(compiled[16..20], *b"\x7fELF");
    eventually("the job is over", || children(original).is_empty());
}

#[test]
fn a_job_that_is_lied_to_or_killed_harms_no_other() {
    let compiler = Compiler::start();
    let original = original(&compiler);
    let text = image();
    let ask = |question: &[u8], bytes: &[u8]| {
        let mut connection = UnixStream::connect(compiler.socket()).unwrap();
        // It may have ended before all has been sent.
        let _ = connection.write_all(&[question, bytes].concat());
        let _ = connection.shutdown(std::net::Shutdown::Write);
        answer(&mut connection)
    };
    for (first, bytes) in [
        (question(9, 4), &b"code"[..]),
        (question(2, u64::MAX), b"code"),
        (question(2, 100), b"code"),
        (vec![1, 2, 3], b""),
    ] {
        assert_eq!(ask(&first, bytes), b"", "{first:?}");
    }
    assert_eq!(ask(&question(2, 4), b"code")[..4], 5_u32.to_le_bytes(), "no text");
    assert_eq!(ask(&question(1, 4), b"code")[..4], 5_u32.to_le_bytes(), "no container");
    assert_eq!(ask(&question(3, 4), b"code")[..4], 5_u32.to_le_bytes(), "no bundle");
    eventually("all jobs are over", || children(original).is_empty());
    let waiting = UnixStream::connect(compiler.socket()).unwrap();
    eventually("a job is begun", || children(original).len() == 1);
    let job = children(original)[0];
    eventually("it is behind the filter", || status(job, "Seccomp") == "2");
    // As a fault of the driver's would end it.
    let job = rustix::process::Pid::from_raw(job as i32).unwrap();
    rustix::process::kill_process(job, rustix::process::Signal::SEGV).unwrap();
    assert_eq!(answer(&mut { waiting }), b"");
    assert_eq!(ask(&question(2, text.len() as u64), &text)[..4], 1_u32.to_le_bytes());
}

#[test]
fn what_is_compressed_reaches_the_driver_plain_and_what_is_compiled_is_kept() {
    let mut worker = Worker::start();
    let mut text = image();
    text.pop();
    let compressed = container(&[zstd_entry(EntryKind::PTX, 70, 0x40, &text)]);
    let mut client = worker.attach(0);
    client.load_image(1, &compressed).unwrap();
    client.resolve(1, 1, "add_step").unwrap();
    let address = client.allocate(0, 2 << 20).unwrap();
    client.add_step(address, 1, 0);
    assert_eq!(client.words(address, 1), [3]);
    let kept = || {
        let files = fs::read_dir(worker.images()).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|file| file.extension().is_some_and(|extension| extension == "cubin")).count()
    };
    assert_eq!(kept(), 1);
    // The same text in another image.
    client.load_image(2, &image()).unwrap();
    client.resolve(2, 2, "add_step").unwrap();
    assert_eq!(kept(), 1);
    let damaged = container(&[zstd_entry(EntryKind::PTX, 70, 0x40, b"no text at all")]);
    client.load_image(3, &damaged).unwrap();
    assert_eq!(client.resolve(3, 3, "add_step"), Err(CudaError::INVALID_PTX));
    let for_others = container(&[zstd_entry(EntryKind::CUBIN, 50, 0x40, b"\x7fELF")]);
    client.load_image(4, &for_others).unwrap();
    assert_eq!(client.resolve(4, 4, "add_step"), Err(CudaError::NO_BINARY_FOR_GPU));
}

#[test]
fn a_compiler_that_is_killed_is_replaced_and_whoever_asks_waits_for_that() {
    let mut server =
        served::serve("--gpus 0 --pinned-limit 8MiB --staging 4MiB --host-pool 64MiB --host-slab 16MiB");
    let socket = server.directory.compiler_socket(0);
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    let served::Attached { mut client, lifeline: _alive } = served::attach(&server, "f");
    for round in 0..2 {
        let compiler = of_server(&server).expect("it is there");
        signal(compiler, Signal::KILL);
        eventually("it is gone", || !is_alive(compiler));
        let text = [format!("{PTX}// {round}").as_bytes(), b"\0"].concat();
        client.load_image(round, &text).unwrap();
        client.resolve(round, round, "add_step").unwrap();
        assert!(of_server(&server).is_some_and(|next| next != compiler));
    }
    server.shut_down();
    server.wait();
    assert!(!socket.exists());
}

/// What a compiler whose driver fails like this answers to text, and to a container of text: kind and number of the one, kind of the other.
fn answers(fault: &str) -> (Vec<u8>, Vec<u8>) {
    let compiler = Compiler::start_with(&[("TORPOR_SIMGPU_FAULTS", fault)]);
    let ask = |question: &[u8], bytes: &[u8]| {
        let mut connection = UnixStream::connect(compiler.socket()).unwrap();
        connection.write_all(&[question, bytes].concat()).unwrap();
        answer(&mut connection)
    };
    let text = image();
    let compressed = container(&[zstd_entry(EntryKind::PTX, 70, 0x40, &text)]);
    let compiled = ask(&question(2, text.len() as u64), &text);
    (compiled[..8].to_vec(), ask(&question(1, compressed.len() as u64), &compressed)[..4].to_vec())
}

#[test]
fn a_compiler_without_a_driver_unpacks_and_says_why_it_does_not_compile() {
    const TEXT: u32 = 2;
    const REFUSED: u32 = 6;
    const UNREADY: u32 = 7;
    for (fault, kind, code) in [
        ("call:cuDevicePrimaryCtxRetain:out-of-memory", UNREADY, 2),
        ("call:cuLinkCreate_v2:fail=999", UNREADY, 999),
        // There is no compiler, and there will be none.
        ("call:cuLinkCreate_v2:fail=221", REFUSED, 221_u32),
    ] {
        let expected = [kind, code].map(u32::to_le_bytes).concat();
        assert_eq!(answers(fault), (expected, TEXT.to_le_bytes().to_vec()), "{fault}");
    }
}
