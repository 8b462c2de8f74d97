//! What a client that moves leaves at its old GPU's worker: page-locked, until it comes back, ends, or the room is needed.

mod migrating;
mod served;
mod server_support;
mod worker_support;

use migrating::{Program, STAY, start_with, worker_pid};
use server_support::server::{Server, eventually};
use std::io::Write;
use torpor_proto::command::{HostLock, HostUnlock};
use torpor_proto::error::CudaError;

const MIB: u64 = 1 << 20;
const STAGING_BYTES: u64 = 4 * MIB;

/// Whether the worker of a GPU has a client's host range mapped.
fn is_mapped(server: &Server, gpu: u32, program: &Program) -> bool {
    let pid = worker_pid(server, gpu).as_raw_nonzero();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.lines().any(|line| line.starts_with(&format!("{:x}-", program.client.host.address)))
}

#[test]
fn what_a_client_leaves_stays_until_it_ends() {
    let server = start_with(&["--pinned-limit", "128MiB"]);
    let mut program = Program::start(&server, "f");
    let data = program.client.allocate(0, 2 * MIB).unwrap();
    let (here, elsewhere) = program.gpus(&server);
    for gpu in [elsewhere, here, elsewhere] {
        program.client.add_step(data, 10, 0);
        program.client.settle().unwrap();
        program.move_to(&server, gpu).unwrap();
    }
    program.client.upload(data, &9_u64.to_le_bytes());
    assert_eq!(program.client.download(data, 8), 9_u64.to_le_bytes());
    assert!([here, elsewhere].iter().all(|&gpu| is_mapped(&server, gpu, &program)), "it may come back");
    let host = program.client.host.address;
    drop(program);
    eventually("it is gone", || server.clients().is_empty());
    let is_unmapped = |gpu: u32| {
        let pid = worker_pid(&server, gpu).as_raw_nonzero();
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        !maps.contains(&format!("{host:x}-"))
    };
    eventually("nothing of it is left", || [here, elsewhere].into_iter().all(is_unmapped));
}

#[test]
fn what_a_client_has_unlocked_elsewhere_is_not_locked_where_it_was() {
    let server = start_with(&["--pinned-limit", "128MiB"]);
    let mut program = Program::start(&server, "f");
    let (here, elsewhere) = program.gpus(&server);
    let data = program.client.allocate(0, 2 * MIB).unwrap();
    let part = |number: u64| program_part(program.client.host.address, number);
    let [unlocked, relocked, kept] = [0, 1, 2].map(part);
    for part in [unlocked, relocked, kept] {
        program.client.ask(HostLock { address: part, bytes: MIB }).unwrap();
    }
    program.client.write_host(kept - program.client.host.address, &3_u64.to_le_bytes());
    program.move_to(&server, elsewhere).unwrap();
    for part in [unlocked, relocked] {
        program.client.ask(HostUnlock { address: part }).unwrap();
    }
    program.client.ask(HostLock { address: relocked, bytes: MIB }).unwrap();
    program.client.write_host(relocked - program.client.host.address, &2_u64.to_le_bytes());
    program.move_to(&server, here).unwrap();
    for (part, content) in [(relocked, 2_u64), (kept, 3)] {
        program.client.copy(data, part, 8, 0);
        assert_eq!(program.client.download(data, 8), content.to_le_bytes());
        let again = program.client.ask(HostLock { address: part, bytes: MIB });
        assert_eq!(again, Err(CudaError::HOST_MEMORY_ALREADY_REGISTERED));
    }
    program.client.ask(HostLock { address: unlocked, bytes: MIB }).expect("it is free");
}

fn program_part(host: u64, number: u64) -> u64 {
    host + STAGING_BYTES + number * MIB
}

#[test]
fn what_is_left_gives_way_to_who_is_there() {
    let mut settings = tempfile::NamedTempFile::new().unwrap();
    settings.write_all(b"[memory]\npinned_limit = \"64MiB\"\n").unwrap();
    let server = start_with(&["--pinned-limit", "128MiB", "--config", settings.path().to_str().unwrap()]);
    let away = Program::start(&server, "away");
    let (here, elsewhere) = away.gpus(&server);
    away.move_to(&server, elsewhere).unwrap();
    eventually("it is kept", || is_mapped(&server, here, &away));
    let mut program = Program::start(&server, "f");
    if program.gpu(&server) != here {
        program.move_to(&server, here).unwrap();
    }
    // With its staging area that is all there is.
    let address = program.client.host.address + STAGING_BYTES;
    program.client.ask(HostLock { address, bytes: 60 * MIB }).unwrap();
    assert!(!is_mapped(&server, here, &away), "it has given way");
}

#[test]
fn who_comes_back_while_what_it_left_is_given_back_waits_for_that() {
    let mut settings = tempfile::NamedTempFile::new().unwrap();
    settings.write_all(b"[memory]\npinned_limit = \"64MiB\"\n").unwrap();
    let server = start_with(&["--pinned-limit", "128MiB", "--config", settings.path().to_str().unwrap()]);
    let mut programs = ["away", "next", "stays"].map(|name| Program::start(&server, name));
    let here = programs[0].gpu(&server);
    for program in &programs {
        if program.gpu(&server) != here {
            program.move_to(&server, here).unwrap();
        }
    }
    let [away, next, stays] = &mut programs;
    let data = away.client.allocate(0, 2 * MIB).unwrap();
    away.client.upload(data, &7_u64.to_le_bytes());
    away.client.ask(HostLock { address: away.client.host.address + STAGING_BYTES, bytes: 2 * MIB }).unwrap();
    away.client.settle().unwrap();
    // Nothing that is page-locked is given back while a kernel runs.
    stays.spin();
    away.move_to(&server, 1 - here).unwrap();
    next.move_to(&server, 1 - here).unwrap();
    std::thread::scope(|scope| {
        let moved = scope.spawn(|| away.move_to(&server, here));
        std::thread::sleep(STAY);
        stays.client.stop_spinning();
        moved.join().unwrap().unwrap();
    });
    assert_eq!(away.gpu(&server), here);
    assert_eq!(away.client.download(data, 8), 7_u64.to_le_bytes());
}
