//! Settings of functions, and what is said to workers because of them, with workers that have no GPU.

mod server_support;

use rustix::process::{Pid, Signal, kill_process};
use server_support::client::connect;
use server_support::fake_worker::{self, BUSY, MEMORY_BYTES, STAYS};
use server_support::server::{self, Server, eventually};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tonic::{Code, Status};
use torpor_proto::control::admin::{LoadFunctionRequest, PinFunctionRequest, UnloadFunctionRequest};
use torpor_proto::directory::ServerDirectory;

const PROGRAM: &str = env!("CARGO_BIN_EXE_torpor-gpuserver");

/// What the fake GPU has for functions by default: 8 GiB less 5 %.
const GPU_LIMIT_BYTES: u64 = (8 << 30) - (8 << 30) / 20 - (8 << 30) / 40;

/// The worker process of every other test here.
#[test]
fn fake_worker() {
    fake_worker::serve_if_asked();
}

fn write(directory: &Path, text: &str) -> PathBuf {
    let file = directory.join("torpor.toml");
    // As editors and Kubernetes do: at once.
    fs::write(directory.join("new"), text).unwrap();
    fs::rename(directory.join("new"), &file).unwrap();
    file
}

fn hang_up(server: &Server) {
    kill_process(Pid::from_raw(server.pid().cast_signed()).unwrap(), Signal::HUP).unwrap();
}

fn load(server: &Server, name: &str, gpu: Option<u32>) -> Result<u64, Status> {
    let request = LoadFunctionRequest { name: name.to_owned(), gpu };
    server.admin(async |mut api| api.load_function(request).await).map(|loaded| loaded.resident_bytes)
}

fn unload(server: &Server, name: &str) -> Result<(), Status> {
    let request = UnloadFunctionRequest { name: name.to_owned() };
    server.admin(async |mut api| api.unload_function(request).await).map(drop)
}

fn pin(server: &Server, name: &str, pinned: bool, gpu: Option<u32>) -> Result<(), Status> {
    let request = PinFunctionRequest { name: name.to_owned(), pinned, gpu };
    server.admin(async |mut api| api.pin_function(request).await).map(drop)
}

/// What a server that does not start says.
fn refused(flags: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let directory = ServerDirectory::new(home.path().join("torpor"));
    let output = server::command(PROGRAM, &directory, flags).stderr(Stdio::piped()).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_function_has_the_limit_and_the_rest_that_its_settings_say() {
    let home = tempfile::tempdir().unwrap();
    let config = write(
        home.path(),
        "[defaults]\nmemory_limit = '20GiB'\n[functions.mine]\nmemory_limit = '1GiB'\nwriteback = 'never'\npinned = true\nslo_ms = 200",
    );
    let server = Server::start(PROGRAM, &["--config", config.to_str().unwrap()]);
    // The file makes the function; nobody else need.
    let mine = connect(&server.directory.function("mine"));
    assert_eq!(mine.welcome.memory_limit_bytes, 1 << 30);
    assert!(server.said("mine: limit 1073741824 writeback 1 pinned true."));
    let other = connect(&server.directory.function("default"));
    assert_eq!(other.welcome.memory_limit_bytes, GPU_LIMIT_BYTES, "the default is clamped");
    let listed = server.listed("mine");
    assert_eq!((listed.clients, listed.gpus, &*listed.state), (1, vec![0], "idle"));
    assert_eq!((listed.resident_bytes, listed.allocated_bytes), (MEMORY_BYTES, MEMORY_BYTES));
    assert_eq!((listed.host_bytes, listed.requests, listed.hits, listed.swaps), (1 << 20, 5, 3, 2));
    assert_eq!((listed.memory_limit_bytes, listed.slo_ms, &*listed.writeback), (1 << 30, Some(200), "never"));
    assert!(listed.pinned && listed.directory.ends_with("/functions/mine"));
}

#[test]
fn flags_win_over_the_file_and_functions_over_both() {
    let home = tempfile::tempdir().unwrap();
    let text = "[memory]\ngpu_limit = '2GiB'\n[functions.small]\nmemory_limit = '512MiB'";
    let config = write(home.path(), text);
    let config = config.to_str().unwrap();
    let limits = |flags: &[&str]| {
        let server = Server::start(PROGRAM, flags);
        ["default", "small"].map(|name| connect(&server.directory.function(name)).welcome.memory_limit_bytes)
    };
    assert_eq!(limits(&["--config", config]), [2 << 30, 512 << 20]);
    assert_eq!(limits(&["--config", config, "--gpu-limit", "4GiB"]), [4 << 30, 512 << 20]);
    assert_eq!(limits(&["--config", config, "--memory-limit", "1GiB"]), [1 << 30, 512 << 20]);
}

#[test]
fn a_function_goes_where_its_limit_fits() {
    let home = tempfile::tempdir().unwrap();
    let text = "[memory]\ngpu_limit = ['1GiB', '4GiB']\n[functions.large]\nmemory_limit = '3GiB'";
    let server = Server::start(PROGRAM, &["--config", write(home.path(), text).to_str().unwrap()]);
    let function = server.directory.function("large");
    for client in [connect(&function), connect(&function), connect(&function)] {
        assert_eq!(client.welcome.memory_limit_bytes, 3 << 30);
    }
    assert_eq!(connect(&server.directory.function("default")).welcome.memory_limit_bytes, 1 << 30);
}

#[test]
fn what_cannot_be_is_refused_at_the_start_with_names_and_numbers() {
    let home = tempfile::tempdir().unwrap();
    let config = |text| write(home.path(), text).display().to_string();
    let said = refused(&["--config", &config("[functions.big]\nmemory_limit = '9GiB'")]);
    assert!(said.contains("function big") && said.contains("9 GiB") && said.contains("7.4 GiB"), "{said}");
    let said = refused(&["--config", &config("\n[functions.f]\nmemory_limt = '1GiB'")]);
    assert!(said.contains("torpor.toml:3: ") && said.contains("did you mean `memory_limit`?"), "{said}");
    let said = refused(&["--gpu-limit", "9GiB"]);
    assert!(said.contains("GPU 0") && said.contains("9 GiB") && said.contains("8 GiB"), "{said}");
    let said = refused(&["--gpu-limit", "1GiB,1GiB,1GiB"]);
    assert!(said.contains("3 sizes for 2 GPUs"), "{said}");
    let said = refused(&["--config", "/nonexistent/torpor.toml"]);
    assert!(said.contains("/nonexistent/torpor.toml"), "{said}");
}

#[test]
fn a_changed_file_reaches_the_functions_that_changed_and_nobody_else() {
    let home = tempfile::tempdir().unwrap();
    let config =
        write(home.path(), "[functions.a]\nmemory_limit = '1GiB'\n[functions.b]\nmemory_limit = '1GiB'");
    let server = Server::start(PROGRAM, &["--config", config.to_str().unwrap()]);
    let _clients = ["a", "b", "default"].map(|name| connect(&server.directory.function(name)));
    for name in ["a", "b", "default"] {
        assert_eq!(server.times_said(&format!("{name}: limit")), 1);
    }

    // Seen without a signal.
    write(
        home.path(),
        "[memory]\nhost_pool = '1GiB'\n[functions.a]\nmemory_limit = '2GiB'\n[functions.b]\nmemory_limit = '1024MiB'\n[functions.new]",
    );
    eventually("the worker of a is told", || server.said("a: limit 2147483648 writeback 0 pinned false."));
    eventually("it is said to be read", || server.times_said("has been read again") == 1);
    assert_eq!(server.times_said("b: limit"), 1);
    assert_eq!(server.times_said("default: limit"), 1);
    assert!(server.said("[memory] host_pool is another"));
    connect(&server.directory.function("new"));

    // A broken file keeps everything.
    let broken = "[functions.a]\nmemory_limit = '3'\n[functions.b]\nmemory_limit = '5GiB'";
    let config = write(home.path(), broken);
    eventually("the error is told", || server.said("the settings stay as they are"));
    assert!(server.said("torpor.toml:2: functions.a.memory_limit:"));
    assert_eq!(
        (server.listed("a").memory_limit_bytes, server.listed("b").memory_limit_bytes),
        (2 << 30, 1 << 30)
    );
    fs::remove_file(config).unwrap();
    eventually("that is told too", || server.times_said("the settings stay as they are") == 2);

    // Limits below use and above the GPU leave their functions alone, and hold up nobody.
    write(
        home.path(),
        "[functions.a]\nmemory_limit = '2MiB'\npinned = true\n[functions.b]\nmemory_limit = '9GiB'\n[functions.default]\nmemory_limit = '4MiB'",
    );
    eventually("default is told", || server.said("default: limit 4194304 writeback 0 pinned false."));
    assert!(server.said(
        "function a: the new memory_limit of 2 MiB (2097152 bytes) is below the 3 MiB (3145728 bytes)"
    ));
    assert!(server.said("function b: its memory_limit of 9 GiB"));
    assert!(server.said("a: limit 2147483648 writeback 0 pinned true."));
    assert_eq!(server.times_said("b: limit"), 1);
}

#[test]
fn a_fifo_in_the_place_of_the_file_stops_nothing() {
    let home = tempfile::tempdir().unwrap();
    let config = write(home.path(), "[functions.a]");
    let mut server = Server::start(PROGRAM, &["--config", config.to_str().unwrap()]);
    let make_fifo = || {
        fs::remove_file(&config).unwrap();
        assert!(Command::new("mkfifo").arg(&config).status().unwrap().success());
    };
    make_fifo();
    eventually("it is told", || {
        server.said("it is a FIFO, not a regular file; the settings stay as they are")
    });
    fs::remove_file(&config).unwrap();
    write(home.path(), "[functions.b]");
    eventually("the next file is read", || server.said("has been read again"));
    connect(&server.directory.function("b"));
    make_fifo();
    eventually("it is told again", || server.times_said("it is a FIFO") == 2);
    server.shut_down();
    assert!(server.wait().success());
    let said = refused(&["--config", config.to_str().unwrap()]);
    assert!(said.contains("it is a FIFO, not a regular file"), "{said}");
}

#[test]
fn sighup_reads_the_file_again_and_ends_nobody() {
    let home = tempfile::tempdir().unwrap();
    let config = write(home.path(), "[functions.a]\nmemory_limit = '1GiB'");
    let server = Server::start(PROGRAM, &["--config", config.to_str().unwrap()]);
    hang_up(&server);
    eventually("it is read", || server.times_said("has been read again") == 1);
    connect(&server.directory.function("a"));
}

#[test]
fn where_clients_go_that_wait_is_followed_unless_a_flag_says_it() {
    let said = "clients that wait go where fifo says from now on";
    for (flags, is_followed) in [(&[][..], true), (&["--placement", "lru"], false)] {
        let home = tempfile::tempdir().unwrap();
        let config = write(home.path(), "[scheduler]\nplacement = 'random'");
        let server = Server::start(PROGRAM, &[&["--config", config.to_str().unwrap()], flags].concat());
        write(home.path(), "[scheduler]\nplacement = 'fifo'");
        eventually("it is read", || server.said("has been read again"));
        assert_eq!(server.said(said), is_followed);
        assert!(!server.said("takes effect when the server is restarted"));
        hang_up(&server);
        eventually("it is read once more", || server.times_said("has been read again") > 1);
        assert_eq!(server.times_said(said), usize::from(is_followed), "nothing is new");
    }
}

#[test]
fn load_and_unload_answer_when_it_is_so() {
    let server = Server::start(PROGRAM, &[]);
    let function = server.function("resnet");
    let nobody = load(&server, "resnet", None).unwrap_err();
    assert_eq!(nobody.code(), Code::FailedPrecondition);
    assert!(nobody.message().contains("no process of function resnet"));
    unload(&server, "resnet").unwrap();

    let _clients = [connect(&function), connect(&function)];
    assert_eq!(server.listed("resnet").gpus, [0, 1]);
    unload(&server, "resnet").unwrap();
    let gone = server.listed("resnet");
    assert_eq!((gone.resident_bytes, gone.allocated_bytes), (0, 2 * MEMORY_BYTES));
    assert_eq!(load(&server, "resnet", None).unwrap(), 2 * MEMORY_BYTES);
    assert_eq!(server.listed("resnet").resident_bytes, 2 * MEMORY_BYTES);

    assert_eq!(load(&server, "resnet", Some(0)).unwrap(), 2 * MEMORY_BYTES);
    assert_eq!(server.listed("resnet").gpus, [0]);
    let missing = load(&server, "resnet", Some(7)).unwrap_err();
    assert!(missing.message().contains("GPU 7 is not served; those that are: 0, 1"));
    let unknown = unload(&server, "resnt").unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains("no function resnt; did you mean resnet?"));
}

#[test]
fn a_function_that_cannot_be_moved_stays_and_it_is_said_why() {
    let server = Server::start(PROGRAM, &[]);
    let _client = connect(&server.function(STAYS));
    let stays = load(&server, STAYS, Some(1)).unwrap_err();
    assert_eq!(stays.code(), Code::FailedPrecondition);
    let wanted = "a process of function stays cannot be moved from GPU 0 to GPU 1: it knows too much;";
    assert!(stays.message().contains(wanted), "{stays}");
    assert_eq!(server.listed(STAYS).gpus, [0]);
    assert_eq!(load(&server, STAYS, Some(0)).unwrap(), MEMORY_BYTES);
}

#[test]
fn a_busy_function_is_not_unloaded_and_said_to_be_busy() {
    let server = Server::start(PROGRAM, &[]);
    let _client = connect(&server.function(BUSY));
    let busy = unload(&server, BUSY).unwrap_err();
    assert!(busy.message().contains("function busy is busy: 3 MiB of it are still on the GPU"), "{busy}");
}

#[test]
fn a_pin_holds_whatever_the_file_says() {
    let home = tempfile::tempdir().unwrap();
    let config = write(home.path(), "[functions.f]\npinned = true");
    let server = Server::start(PROGRAM, &["--config", config.to_str().unwrap()]);
    let _client = connect(&server.directory.function("f"));
    assert!(server.said(" pinned true."));
    pin(&server, "f", false, None).unwrap();
    eventually("its worker is told", || server.said(" pinned false."));
    assert!(!server.listed("f").pinned);
    hang_up(&server);
    eventually("the file is read", || server.said("has been read again"));
    assert!(!server.listed("f").pinned);

    pin(&server, "f", true, Some(1)).unwrap();
    assert_eq!(server.listed("f").gpus, [1]);
    let next = server.function("next");
    pin(&server, "next", true, Some(1)).unwrap();
    let _clients = [connect(&next), connect(&next), connect(&next)];
    assert_eq!(server.listed("next").gpus, [1]);
}
