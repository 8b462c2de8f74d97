//! The host store of a running server, used by workers without a GPU, and page-locked by one with a simulated GPU.

mod server_support;

use server_support::client::connect;
use server_support::fake_worker::{self, DIES};
use server_support::server::{Server, command, eventually};
use std::process::Stdio;
use torpor_proto::control::admin::{
    ReportStoreRequest, ReportStoreResponse, VerifyStoreRequest, VerifyStoreResponse,
};
use torpor_proto::directory::ServerDirectory;
use torpor_proto::error::CudaError;

const PROGRAM: &str = env!("CARGO_BIN_EXE_torpor-gpuserver");
const CHUNK: u64 = 2 << 20;

/// The worker process of every other test here.
#[test]
fn fake_worker() {
    fake_worker::serve_if_asked();
}

fn report(server: &Server) -> ReportStoreResponse {
    server.admin(async |mut api| api.report_store(ReportStoreRequest {}).await).unwrap()
}

fn verify(server: &Server) -> VerifyStoreResponse {
    server.admin(async |mut api| api.verify_store(VerifyStoreRequest {}).await).unwrap()
}

#[test]
fn equal_contents_of_functions_on_different_gpus_are_kept_once() {
    let server = Server::start(PROGRAM, &["--host-pool", "32MiB", "--host-slab", "8MiB"]);
    let (function, other) = (server.function("stores-3"), server.function("stores-own-2"));
    let mut clients = vec![connect(&function), connect(&function), connect(&function), connect(&other)];
    eventually("all is stored once", || {
        let report = report(&server);
        (report.used_bytes, report.saved_bytes) == (5 * CHUNK, 6 * CHUNK)
    });
    let now = report(&server);
    assert_eq!((now.pool_bytes, now.spilled_bytes), (16 * CHUNK, 0));
    assert_eq!(now.clients.iter().map(|client| client.host_bytes / CHUNK).collect::<Vec<_>>(), [3, 3, 3, 2]);
    eventually("all is identified", || verify(&server).checked == 5);
    let verified = verify(&server);
    assert_eq!((verified.chunks, verified.shared), (5, 3));
    assert_eq!((verified.damaged, verified.contradictions), (vec![], vec![]));
    assert!(clients.iter().all(|client| client.channel.sticky_error().is_none()));
    clients.remove(0);
    eventually("one is gone", || report(&server).clients.len() == 3);
    assert_eq!(report(&server).used_bytes, 5 * CHUNK);
    clients.clear();
    eventually("nothing is left", || report(&server).used_bytes == 0);
}

#[test]
fn idle_functions_go_to_files_and_come_back_as_they_were() {
    let spill = tempfile::tempdir().unwrap();
    let files = || std::fs::read_dir(spill.path()).unwrap().count() - 1; // The lock is one.
    let flags =
        ["--host-pool", "16MiB", "--spill-limit", "10MiB", "--spill-dir", spill.path().to_str().unwrap()];
    let server = Server::start(PROGRAM, &flags);
    let function = server.function("stores-own-6");
    let first = connect(&function);
    eventually("the first is stored", || report(&server).used_bytes == 6 * CHUNK);
    let second = connect(&function);
    eventually("part of the first is spilled", || report(&server).spilled_bytes == 4 * CHUNK);
    eventually("the files are there, and all is identified", || {
        files() == 4 && verify(&server).checked == 12
    });
    let before = verify(&server);
    assert_eq!((before.chunks, before.spilled), (12, 4));
    assert_eq!((before.damaged, before.contradictions), (vec![], vec![]));
    for _ in 0..6 {
        // Each look at the clients makes the workers take back what they had to give back.
        server.clients();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    for client in [&first, &second] {
        assert_eq!(client.channel.sticky_error(), None);
    }
    let third = connect(&function);
    eventually("there is no room for a third", || third.channel.sticky_error().is_some());
    let refusal = "function stores-own-6 needs 12 MiB of host memory, but 16 MiB of the host pool of 16 MiB and 8 MiB of \
                   the spill limit of 10 MiB are in use";
    assert!(server.said(refusal));
    drop((first, second));
    eventually("nothing is left", || report(&server).used_bytes == 0 && files() == 0);
}

#[test]
fn what_clients_of_a_dead_worker_had_is_free_and_the_next_worker_stores_again() {
    let server = Server::start(PROGRAM, &["--gpus", "0", "--host-pool", "8MiB"]);
    let lost = connect(&server.function("stores-own-4"));
    eventually("it is stored", || report(&server).used_bytes == 4 * CHUNK);
    let _victim = connect(&server.function(DIES));
    eventually("the client fails", || lost.channel.sticky_error() == Some(CudaError::LAUNCH_FAILED));
    eventually("nothing is left", || report(&server).used_bytes == 0);
    eventually("another worker is ready", || server.gpus()[0].state == "ready");
    let next = connect(&server.function("stores-own-4"));
    eventually("the next one is stored", || report(&server).used_bytes == 4 * CHUNK);
    assert_eq!(next.channel.sticky_error(), None);
}

#[test]
fn what_the_disk_for_spilling_has_left_is_told_to_whoever_asks() {
    let spill = tempfile::tempdir().unwrap();
    let server = Server::start(PROGRAM, &["--spill-dir", spill.path().to_str().unwrap()]);
    let told = report(&server).spill_disk.unwrap();
    let disk = rustix::fs::statvfs(spill.path()).unwrap();
    assert_eq!(told.directory, spill.path().to_str().unwrap());
    // Others write to that disk meanwhile.
    assert!(
        told.free_bytes.abs_diff(disk.f_bavail * disk.f_frsize) < 1 << 30,
        "{} are told",
        told.free_bytes
    );
}

#[test]
fn a_spill_directory_that_cannot_be_written_is_found_at_start() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("file");
    std::fs::write(&file, "").unwrap();
    let directory = ServerDirectory::new(temporary.path().join("torpor"));
    let refused = command(PROGRAM, &directory, &["--spill-dir", file.to_str().unwrap()])
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(!refused.status.success());
    let complaint = String::from_utf8(refused.stderr).unwrap();
    assert!(complaint.contains("the spill directory") && complaint.contains("--spill-dir"), "{complaint}");
}
