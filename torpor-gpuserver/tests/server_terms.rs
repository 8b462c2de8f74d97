//! What is said of functions when they are made, until they are removed, with workers that have no GPU.

mod server_support;

use server_support::client::{connect, hello};
use server_support::fake_worker::{self, MEMORY_BYTES};
use server_support::server::{self, Server, eventually};
use tonic::{Code, Status};
use torpor_proto::PROTOCOL_VERSION;
use torpor_proto::control::admin::{EnsureFunctionRequest, RemoveFunctionRequest, Terms};

const PROGRAM: &str = env!("CARGO_BIN_EXE_torpor-gpuserver");
const GIB: u64 = 1 << 30;

/// The worker process of every other test here.
#[test]
fn fake_worker() {
    fake_worker::serve_if_asked();
}

fn agree(server: &Server, name: &str, memory_limit_bytes: u64, slo_ms: u32) -> Result<(), Status> {
    let terms =
        Terms { memory_limit_bytes: Some(memory_limit_bytes), slo_ms: Some(slo_ms), ..Terms::default() };
    let request = EnsureFunctionRequest { name: name.to_owned(), terms: Some(terms) };
    server.admin(async |mut api| api.ensure_function(request).await).map(drop)
}

fn remove(server: &Server, name: &str) -> Result<(), Status> {
    let request = RemoveFunctionRequest { name: name.to_owned() };
    server.admin(async |mut api| api.remove_function(request).await).map(drop)
}

#[test]
fn terms_hold_for_the_function_alone_and_are_told_to_the_clients_it_has() {
    let server = Server::start(PROGRAM, &["--memory-limit", "4GiB"]);
    agree(&server, "claim", GIB, 200).unwrap();
    let client = connect(&server.directory.function("claim"));
    assert_eq!(client.welcome.memory_limit_bytes, GIB);
    assert_eq!(connect(&server.directory.function("default")).welcome.memory_limit_bytes, 4 * GIB);
    assert_eq!((server.listed("claim").memory_limit_bytes, server.listed("claim").slo_ms), (GIB, Some(200)));
    agree(&server, "claim", 2 * GIB, 100).unwrap();
    eventually("its worker is told", || server.said("claim: limit 2147483648 "));
    server.function("claim");
    assert_eq!(server.listed("claim").slo_ms, Some(100), "who says nothing changes nothing");
}

#[test]
fn terms_that_cannot_be_are_refused_and_those_before_go_on() {
    let server = Server::start(PROGRAM, &[]);
    agree(&server, "claim", GIB, 200).unwrap();
    let _client = connect(&server.directory.function("claim"));
    let refused = |limit, slo| {
        let status = agree(&server, "claim", limit, slo).unwrap_err();
        (status.code(), status.message().to_owned())
    };
    assert_eq!(refused(5, 1).0, Code::InvalidArgument);
    assert_eq!(refused(GIB, 0).0, Code::InvalidArgument);
    assert!(refused(9 * GIB, 1).1.contains("9 GiB"));
    let (code, said) = refused(MEMORY_BYTES - 1, 1);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(said.contains("that a client has allocated; end its processes first"), "{said}");
    assert_eq!((server.listed("claim").memory_limit_bytes, server.listed("claim").slo_ms), (GIB, Some(200)));
    assert_eq!(agree(&server, "../claim", GIB, 1).unwrap_err().code(), Code::InvalidArgument);
    assert!(!server.directory.path().join("claim").exists());
}

#[test]
fn terms_outlive_the_server() {
    let mut server = Server::start(PROGRAM, &[]);
    agree(&server, "claim", GIB, 200).unwrap();
    server.shut_down();
    server.wait();
    server.start_again(|directory| server::command(PROGRAM, directory, &[]));
    assert_eq!(connect(&server.directory.function("claim")).welcome.memory_limit_bytes, GIB);
    assert_eq!(server.listed("claim").slo_ms, Some(200));
}

#[test]
fn a_removed_function_is_gone_with_its_terms_and_its_processes_go_on() {
    let server = Server::start(PROGRAM, &[]);
    agree(&server, "claim", GIB, 200).unwrap();
    let directory = server.directory.function("claim");
    let mut client = connect(&directory);
    remove(&server, "claim").unwrap();
    assert!(!directory.path().exists() && server.functions().iter().all(|function| function.name != "claim"));
    assert!(!client.is_dropped() && server.clients().len() == 1);
    remove(&server, "claim").unwrap();
    server.function("claim");
    hello(&directory, PROTOCOL_VERSION).unwrap();
    assert_ne!(server.listed("claim").memory_limit_bytes, GIB);
}

#[test]
fn a_function_that_others_count_on_stays() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("torpor.toml");
    std::fs::write(&config, "[functions.named]").unwrap();
    let server = Server::start(PROGRAM, &["--config", config.to_str().unwrap()]);
    for name in ["named", "default"] {
        assert_eq!(remove(&server, name).unwrap_err().code(), Code::FailedPrecondition);
        connect(&server.directory.function(name));
    }
    assert_eq!(remove(&server, "../named").unwrap_err().code(), Code::InvalidArgument);
}
