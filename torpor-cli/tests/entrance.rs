//! How programs become clients of a node that is busy, stopped, restarted or not there, over the preloaded library, the
//! server, a worker and the simulated GPU.

#[allow(dead_code, unused_imports, reason = "the clients here use a part of it")]
#[path = "../src/driver_api/mod.rs"]
mod driver_api;
#[path = "../../torpor-gpuserver/tests/server_support/mod.rs"]
mod server_support;
mod support;

use driver_api::Driver;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use server_support::server::{Server, eventually};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{part, torpor};

/// Set in the process of a client.
const IS_CLIENT: &str = "TORPOR_TEST_ENTRANCE_CLIENT";

/// Set in the process of a client that is to stay after its answer until its standard input ends.
const STAYS: &str = "TORPOR_TEST_ENTRANCE_STAYS";

/// Set in the process of a client that first copies much more to the GPU than there is staging for, when it is told to.
const UPLOADS: &str = "TORPOR_TEST_ENTRANCE_UPLOADS";

/// The code of `cuInit` if no server takes the process.
const SYSTEM_NOT_READY: &str = "(802)";

/// A server with a simulated GPU.
fn serve(flags: &[&str]) -> Server {
    let home = tempfile::tempdir().unwrap();
    Server::start_by(|directory| {
        let mut command = torpor(home.path());
        command.arg("serve").arg("--directory").arg(directory.path());
        command.args(["--driver", "simulated", "--staging", "4MiB"]).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    })
}

/// A program that becomes a client where TORPOR_SERVER says, and asks the GPU one thing.
fn client(server: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "client_program", "--nocapture"]);
    command.env(IS_CLIENT, "1").env("LD_PRELOAD", part("libtorpor_intercept.so"));
    command.env("TORPOR_SERVER", server).env_remove("TORPOR_FUNCTION");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The program of the clients of every other test here.
#[test]
fn client_program() {
    if std::env::var_os(IS_CLIENT).is_none() {
        return;
    }
    println!("\nasks");
    let answer = || -> Result<Vec<f32>, driver_api::DriverError> {
        let driver = Driver::open("libcuda.so.1".as_ref())?;
        driver.use_first_device()?;
        if std::env::var_os(UPLOADS).is_some() {
            upload_when_told(&driver)?;
        }
        let memory = driver.allocate(4096)?;
        let numbers = vec![7.0; 64];
        // SAFETY: the numbers stay until the stream is done.
        unsafe { driver.copy_in(memory, &numbers, 0) }?;
        let mut answer = vec![0.0; 64];
        // SAFETY: as above, and nobody touches them meanwhile.
        unsafe { driver.copy_out(&mut answer, memory, 0) }?;
        driver.synchronize(0)?;
        Ok(answer)
    };
    match answer() {
        Ok(answer) => {
            assert_eq!(answer, vec![7.0; 64]);
            println!("\nanswered");
        }
        Err(error) => println!("\nfailed: {error}"),
    }
    if std::env::var_os(STAYS).is_some() {
        let _ = std::io::stdin().read_line(&mut String::new());
    }
}

fn upload_when_told(driver: &Driver) -> Result<(), driver_api::DriverError> {
    let numbers = vec![7.0; 16 << 20];
    let memory = driver.allocate(size_of_val(numbers.as_slice()))?;
    println!("\nready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    // SAFETY: the numbers stay until the stream is done.
    unsafe { driver.copy_in(memory, &numbers, 0) }?;
    driver.synchronize(0)
}

/// Waits until a client's program says something. Nothing that it says later is lost but this line.
fn await_line(child: &mut Child, line: &str) {
    let mut said = Vec::new();
    let output = child.stdout.as_mut().unwrap();
    while !said.ends_with(format!("\n{line}\n").as_bytes()) {
        let mut byte = [0];
        output.read_exact(&mut byte).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&said)));
        said.extend(byte);
    }
}

/// How often the threads of a process have left their CPUs, or been taken off.
fn switches(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status =
        threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap());
    let count = |line: &str| line.split_once("ctxt_switches:")?.1.trim().parse::<u64>().ok();
    status.map(|status| status.lines().filter_map(count).sum::<u64>()).sum()
}

/// What a client's program said, and what its library said if it was asked to.
fn outcome(child: Child) -> (String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

#[test]
fn a_server_that_is_busy_is_waited_for() {
    let server = serve(&[]);
    let function = server.function("f");
    signal(server.pid(), Signal::STOP);
    let mut child = client(function.path()).spawn().unwrap();
    await_line(&mut child, "asks");
    // Longer than any answer takes, and than a token is good for.
    std::thread::sleep(Duration::from_secs(3));
    signal(server.pid(), Signal::CONT);
    let (said, _) = outcome(child);
    assert!(said.contains("answered"), "{said}");
}

#[test]
fn who_waits_for_staging_or_an_answer_sleeps() {
    let server = serve(&[]);
    let function = server.function("f");
    let mut child = client(function.path()).env(UPLOADS, "1").spawn().unwrap();
    await_line(&mut child, "ready");
    let worker = server.gpus()[0].worker_pid;
    signal(worker, Signal::STOP);
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    // The first of it is copied until the staging is full.
    std::thread::sleep(Duration::from_secs(1));
    let before = switches(child.id());
    std::thread::sleep(Duration::from_secs(1));
    let during = switches(child.id()) - before;
    signal(worker, Signal::CONT);
    let (said, _) = outcome(child);
    assert!(said.contains("answered"), "{said}");
    assert!(during < 500, "{during} switches in a second of waiting");
}

#[test]
fn where_no_server_is_a_program_learns_so_at_once_and_where_it_was_looked_for() {
    let home = tempfile::tempdir().unwrap();
    let asked = |server: &Path| {
        let child = client(server).env("TORPOR_SHIM_LOG", "stderr").spawn().unwrap();
        let (said, log) = outcome(child);
        assert!(said.contains(SYSTEM_NOT_READY), "{said}");
        assert!(!log.contains("trying again"), "{log}");
        log
    };
    let log = asked(home.path());
    let [itself, default] = ["control.sock", "functions/default/control.sock"]
        .map(|path| format!("{}: No such file or directory", home.path().join(path).display()));
    assert!(log.contains(&itself) && log.contains(&default), "{log}");

    // One that has ended.
    let mut server = serve(&[]);
    let function = server.function("f");
    signal(server.pid(), Signal::KILL);
    server.wait();
    let log = asked(function.path());
    assert!(log.contains("no server listens") && log.contains("Connection refused"), "{log}");
}

/// How many: all of a node's slots by hand, `TORPOR_TEST_CROWD=1000 cargo test -p torpor-cli --test entrance a_crowd`.
const CROWD: usize = 100;

#[test]
fn a_crowd_that_comes_at_once_is_attached_at_once() {
    let count = std::env::var("TORPOR_TEST_CROWD").map_or(CROWD, |count| count.parse().unwrap());
    // Three pipes each.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    // Addresses for all: a client has several times its limit.
    let limits = ["--pinned-limit", "64MiB", "--host-pool", "16MiB", "--memory-limit", "1GiB"];
    let server = serve(&limits);
    let function = server.function("f");
    let began = Instant::now();
    let start = |_| client(function.path()).env(STAYS, "1").env("TORPOR_SHIM_LOG", "stderr").spawn().unwrap();
    let mut children: Vec<Child> = (0..count).map(start).collect();
    for child in &mut children {
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let is_verdict = |line: &String| line.starts_with("answered") || line.starts_with('f');
        assert_eq!(lines.map(Result::unwrap).find(is_verdict).as_deref(), Some("answered"));
    }
    println!("{count} clients were answered after {:.1} s", began.elapsed().as_secs_f32());
    assert_eq!(server.clients().len(), count);
    drop(children.iter_mut().map(|child| child.stdin.take()).collect::<Vec<_>>());
    for child in &mut children {
        child.wait().unwrap();
    }
    eventually("all are gone", || server.clients().is_empty());
}

#[test]
fn a_program_without_cuda_loads_the_library_and_nothing_more() {
    let loaded = |preload: &Path| {
        let mut command = Command::new("true");
        command.env("LD_TRACE_LOADED_OBJECTS", "1").env("LD_PRELOAD", preload);
        String::from_utf8(command.output().unwrap().stdout).unwrap().lines().count()
    };
    assert_eq!(loaded(&part("libtorpor_intercept.so")), loaded(Path::new("")) + 1);
}

#[test]
fn a_program_with_few_descriptors_is_told_so_and_nothing_panics() {
    let server = serve(&[]);
    let function = server.function("f");
    for limit in 3..16 {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut limited = Command::new("sh");
        limited.arg("-c").arg(format!("ulimit -n {limit}; exec \"$0\" \"$@\""));
        let inner = client(function.path());
        limited.arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            value.map(|value| limited.env(name, value));
        }
        limited.env("TORPOR_SHIM_LOG", log.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let (said, _) = outcome(limited.stderr(File::create("/dev/null").unwrap()).spawn().unwrap());
        let log = std::fs::read_to_string(log.path()).unwrap();
        assert!(!log.contains("bug"), "{limit}: {log}");
        assert!(
            said.contains("answered") || log.is_empty() || log.contains("RLIMIT_NOFILE"),
            "{limit}: {log}"
        );
    }
}

#[test]
fn a_program_with_few_addresses_is_told_which_limit_it_is() {
    let server = serve(&[]);
    let function = server.function("f");
    let inner = client(function.path());
    let mut limited = Command::new("sh");
    limited.arg("-c").arg("ulimit -v 8000000; exec \"$0\" \"$@\"");
    limited.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        value.map(|value| limited.env(name, value));
    }
    limited
        .env("TORPOR_SHIM_LOG", "stderr")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (said, log) = outcome(limited.spawn().unwrap());
    assert!(said.contains(SYSTEM_NOT_READY), "{said}");
    assert!(log.contains("RLIMIT_AS (`ulimit -v`) is 8192000000 bytes"), "{log}");
    eventually("it is gone", || server.clients().is_empty());
}
