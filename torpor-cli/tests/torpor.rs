//! The command line, with workers that have no GPU.

#[path = "../../torpor-gpuserver/tests/server_support/mod.rs"]
mod server_support;

use rustix::process::{Pid, Signal, kill_process};
use server_support::client::connect;
use server_support::fake_worker;
use server_support::server::{self, Server, eventually, fake_server_program};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use torpor_proto::directory::ServerDirectory;

const PROGRAM: &str = env!("CARGO_BIN_EXE_torpor");

/// The worker process of every other test here.
#[test]
fn fake_worker() {
    fake_worker::serve_if_asked();
}

/// `torpor` with fake workers, a library to preload that does nothing, and no server but one in `directory`.
fn torpor(directory: &Path) -> Command {
    let mut command = Command::new("env");
    // Ignored signals stay ignored, and SIGINT is if these tests run in the background of a shell.
    command.arg("--default-signal").arg(PROGRAM);
    command.env("TORPOR_GPUSERVER", fake_server_program());
    command.env("TORPOR_FAKE_PROGRAM", std::env::current_exe().unwrap());
    command.env("TORPOR_INTERCEPT", harmless_library());
    command.env("TORPOR_SERVER", directory).env("XDG_RUNTIME_DIR", directory);
    command.env_remove("LD_PRELOAD").env_remove("TORPOR_FUNCTION").env_remove("TORPOR_CONFIG");
    command
}

/// The C library: every process has it already.
fn harmless_library() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .find_map(|line| line.split_whitespace().last().filter(|path| path.contains("/libc.so")))
        .unwrap()
        .into()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn private_run(home: &Path, command: &str) -> Command {
    let mut run = torpor(home);
    run.args(["run", "--driver", "/fake/driver.so", "--function", "f", "--", "sh", "-c", command]);
    run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    run
}

fn ended_with(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_command_without_a_server_gets_one_of_its_own_for_as_long_as_it_runs() {
    let home = tempfile::tempdir().unwrap();
    let shown = r#"echo "$TORPOR_SERVER"; echo "$LD_PRELOAD"; ls "$TORPOR_SERVER"; exit 7"#;
    let output = private_run(home.path(), shown).env("LD_PRELOAD", "libm.so.6").output().unwrap();
    let said = ended_with(&output, 7);
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines[0].starts_with(home.path().to_str().unwrap()) && lines[0].ends_with("/functions/f"),
        "{said}"
    );
    let way = format!("/..{}:libm.so.6", harmless_library().display());
    assert!(lines[1].starts_with("$ORIGIN/../") && lines[1].ends_with(&way), "{said}");
    assert_eq!(lines[2..], ["control.sock", "lifeline.sock"]);
    let told = format!("torpor: no server listens in {}: starting a private one\n", home.path().display());
    assert_eq!(text(&output.stderr), told);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "the private server cleaned up");
}

#[test]
fn a_command_runs_on_the_server_that_listens() {
    let server = Server::start(PROGRAM, &[]);
    let mut run = torpor(server.directory.path());
    let output = run.args(["run", "--function", "mine", "printenv", "TORPOR_SERVER"]).output().unwrap();
    let expected = server.directory.function("mine").path().display().to_string();
    assert_eq!(ended_with(&output, 0).trim(), expected);
}

#[test]
fn a_server_that_is_starting_is_waited_for() {
    let home = tempfile::tempdir().unwrap();
    let directory = ServerDirectory::new(home.path().join("torpor"));
    let mut serve = server::command(PROGRAM, &directory, &[]);
    let mut serve = serve.env("TORPOR_FAKE_PROBE_SECONDS", "1.5").stderr(Stdio::null()).spawn().unwrap();
    eventually("it has the directory", || directory.lock_file().exists());
    let output = torpor(directory.path()).args(["run", "printenv", "TORPOR_SERVER"]).output().unwrap();
    let expected = directory.function("default").path().display().to_string();
    assert_eq!(ended_with(&output, 0).trim(), expected);
    assert!(!text(&output.stderr).contains("private"), "{}", text(&output.stderr));
    assert_eq!(ended_with(&torpor(directory.path()).arg("wait").output().unwrap(), 0), "");
    ended_with(&torpor(directory.path()).arg("stop").output().unwrap(), 0);
    // It has ended: nobody need wait.
    assert!(serve.try_wait().unwrap().is_some());
    ended_with(&torpor(directory.path()).args(["wait", "--timeout", "50ms"]).output().unwrap(), 3);
}

#[test]
fn a_server_that_is_stopped_is_named_with_its_process() {
    let server = Server::start(PROGRAM, &[]);
    let process = Pid::from_raw(server.pid().cast_signed()).unwrap();
    kill_process(process, Signal::STOP).unwrap();
    let output = torpor(server.directory.path()).arg("gpus").output().unwrap();
    kill_process(process, Signal::CONT).unwrap();
    ended_with(&output, 1);
    let complaint = text(&output.stderr);
    let pid = server.pid();
    let words =
        format!("(process {pid}, which is stopped: `kill -CONT {pid}` lets it go on) has not answered");
    assert!(complaint.contains(&words), "{complaint}");
}

#[test]
fn doctor_finds_a_worker_that_is_stopped() {
    let server = Server::start(PROGRAM, &[]);
    let worker = Pid::from_raw(server.gpus()[0].worker_pid.cast_signed()).unwrap();
    kill_process(worker, Signal::STOP).unwrap();
    eventually("it is seen", || server.gpus()[0].state == "unresponsive");
    let doctor = torpor(server.directory.path()).arg("doctor").output().unwrap();
    let gpus = torpor(server.directory.path()).arg("gpus").output().unwrap();
    kill_process(worker, Signal::CONT).unwrap();
    let said = ended_with(&doctor, 1);
    assert!(said.contains("is unresponsive: the worker has not answered for"), "{said}");
    assert!(ended_with(&gpus, 0).contains("unresponsive"));
    assert!(text(&gpus.stderr).contains("GPU 0: the worker has not answered for"), "{}", text(&gpus.stderr));
}

#[test]
fn how_a_command_ends_is_how_run_ends() {
    let home = tempfile::tempdir().unwrap();
    ended_with(&private_run(home.path(), "kill -KILL $$").output().unwrap(), 128 + 9);
    let server = Server::start(PROGRAM, &[]);
    let run = |program: &str| torpor(server.directory.path()).args(["run", "--", program]).output().unwrap();
    ended_with(&run("/nonexistent/program"), 127);
    ended_with(&run("/etc"), 126);
}

#[test]
fn signals_reach_the_command() {
    let home = tempfile::tempdir().unwrap();
    let ready = home.path().join("ready");
    for (signal, name) in [(Signal::INT, "INT"), (Signal::TERM, "TERM")] {
        let script = format!("trap 'exit 5' {name}; touch {}; while :; do sleep 0.02; done", ready.display());
        let run = private_run(home.path(), &script).process_group(0).spawn().unwrap();
        eventually("the command runs", || ready.exists());
        kill_process(Pid::from_child(&run), signal).unwrap();
        ended_with(&run.wait_with_output().unwrap(), 5);
        fs::remove_file(&ready).unwrap();
    }
}

#[test]
fn a_private_server_ends_though_run_is_killed() {
    let home = tempfile::tempdir().unwrap();
    let mut run = private_run(home.path(), "exec sleep 2").stdout(Stdio::null()).spawn().unwrap();
    let private = || fs::read_dir(home.path()).unwrap().find_map(|entry| Some(entry.ok()?.path()));
    eventually("the function is there", || {
        private().is_some_and(|private| private.join("s/functions/f/control.sock").exists())
    });
    run.kill().unwrap();
    run.wait().unwrap();
    eventually("the server is gone", || private().is_none());
}

#[test]
fn a_private_server_that_cannot_start_says_why() {
    let home = tempfile::tempdir().unwrap();
    let output =
        private_run(home.path(), "true").env("TORPOR_GPUSERVER", "/nonexistent/program").output().unwrap();
    ended_with(&output, 1);
    let complaint = text(&output.stderr);
    assert!(complaint.contains("/nonexistent/program") && complaint.contains("server.log"), "{complaint}");
}

#[test]
fn ps_and_gpus_list_for_people_and_for_programs() {
    let server = Server::start(PROGRAM, &[]);
    let directory = server.directory.path();
    let empty = torpor(directory).arg("ps").output().unwrap();
    assert_eq!(ended_with(&empty, 0), "");
    assert!(text(&empty.stderr).contains("torpor run"));

    let _client = connect(&server.function("resnet"));
    let table = ended_with(&torpor(directory).arg("ps").output().unwrap(), 0);
    let words: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect())
        .collect();
    assert_eq!(words[0], ["NAME", "PID", "PROGRAM", "GPU", "MEMORY", "RESIDENT", "PINNED", "STATE", "AGE"]);
    let pid = std::process::id().to_string();
    assert_eq!(words[1][..8], ["resnet", &pid, "test program", "0", "3 MiB", "3 MiB", "4 KiB", "idle"]);

    let json = ended_with(&torpor(directory).args(["ps", "--json"]).output().unwrap(), 0);
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (rows[0]["function"].as_str(), rows[0]["resident_bytes"].as_u64()),
        (Some("resnet"), Some(3 << 20))
    );

    let gpus = ended_with(&torpor(directory).arg("gpus").output().unwrap(), 0);
    assert!(gpus.contains("Fake GPU  8 GiB   5 GiB  1        ready"), "{gpus}");
    let json = ended_with(&torpor(directory).args(["gpus", "--json"]).output().unwrap(), 0);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap().as_array().unwrap().len(), 2);
}

#[test]
fn functions_are_listed_loaded_unloaded_and_pinned_by_name() {
    let server = Server::start(PROGRAM, &[]);
    let directory = server.directory.path();
    let done = |arguments: &[&str]| {
        assert_eq!(ended_with(&torpor(directory).args(arguments).output().unwrap(), 0), "");
    };
    let _client = connect(&server.function("resnet"));
    let list = || ended_with(&torpor(directory).arg("functions").output().unwrap(), 0);
    let row = |list: &str| {
        let line = list.lines().find(|line| line.starts_with("resnet")).unwrap();
        line.split("  ")
            .filter(|cell| !cell.is_empty())
            .map(|cell| cell.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let listed = list();
    assert!(listed.starts_with("NAME     STATE  CLIENTS  GPU  MEMORY  RESIDENT  HOST"), "{listed}");
    assert_eq!(row(&listed)[..8], ["resnet", "idle", "1", "0", "3 MiB", "3 MiB", "1 MiB", "0 B"]);
    assert_eq!(
        row(&listed)[9..],
        ["4 KiB", "0 B/4 GiB", "5", "3", "2", "-", "no", "0", "0/0 B", "0", "shared", "0/1", "1"]
    );
    done(&["unload", "resnet"]);
    assert_eq!(row(&list())[4..6], ["3 MiB", "0 B"]);
    done(&["load", "resnet", "--gpu", "0"]);
    assert_eq!(row(&list())[4..6], ["3 MiB", "3 MiB"]);
    done(&["pin", "resnet"]);
    assert_eq!(row(&list())[15], "yes");
    done(&["pin", "resnet", "--off"]);
    assert_eq!(row(&list())[15], "no");
    for verb in ["load", "unload", "pin"] {
        let output = torpor(directory).args([verb, "resnt"]).output().unwrap();
        ended_with(&output, 1);
        let complaint = text(&output.stderr);
        assert!(complaint.contains("there is no function resnt; did you mean resnet?"), "{complaint}");
    }
    done(&["load", "resnet", "--gpu", "1"]);
    assert_eq!(row(&list())[3], "1");
}

#[test]
fn a_settings_file_is_checked_and_reaches_a_private_server() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("torpor.toml");
    let check = |text: &str| {
        fs::write(&file, text).unwrap();
        torpor(home.path()).args(["config", "check"]).arg(&file).output().unwrap()
    };
    let said = ended_with(&check("[functions.resnet]\nslo_ms = 200"), 0);
    assert!(said.ends_with("torpor.toml: no errors, 1 function\n"), "{said}");
    let fifo = home.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let hanging = torpor(home.path()).args(["config", "check"]).arg(&fifo).output().unwrap();
    ended_with(&hanging, 2);
    assert!(text(&hanging.stderr).contains("fifo cannot be read: it is a FIFO"), "{}", text(&hanging.stderr));
    let broken = check("[functions.resnet]\nslo = 200");
    ended_with(&broken, 2);
    let complaint = text(&broken.stderr);
    assert!(
        complaint.contains("torpor.toml:2: functions.resnet") && complaint.contains("`slo_ms`"),
        "{complaint}"
    );

    let private = |command: &str| {
        let mut run = torpor(home.path());
        run.args(["run", "--driver", "/fake/driver.so", "--", "sh", "-c", command]);
        run
    };
    let broken = private("true").env("TORPOR_CONFIG", &file).output().unwrap();
    ended_with(&broken, 1);
    assert!(text(&broken.stderr).contains("torpor.toml:2: functions.resnet"), "{}", text(&broken.stderr));
    fs::write(&file, "[functions.declared]").unwrap();
    let listed = private(r#"ls "$TORPOR_SERVER/..""#).env("TORPOR_CONFIG", &file).output().unwrap();
    assert_eq!(ended_with(&listed, 0), "declared\ndefault\n");
    let mut run = torpor(home.path());
    run.args(["run", "--driver", "/fake/driver.so", "--config"]).arg(&file);
    let listed = run.args(["--", "sh", "-c", r#"ls "$TORPOR_SERVER/..""#]).output().unwrap();
    assert_eq!(ended_with(&listed, 0), "declared\ndefault\n");
}

#[test]
fn stop_ends_the_server_and_then_there_is_none() {
    let mut server = Server::start(PROGRAM, &[]);
    let directory = server.directory.path().to_owned();
    ended_with(&torpor(&directory).arg("stop").output().unwrap(), 0);
    assert!(server.wait().success());
    for verb in ["ps", "gpus", "functions", "doctor", "stop"] {
        let output = torpor(&directory).arg(verb).output().unwrap();
        ended_with(&output, 3);
        assert!(text(&output.stderr).contains("start one with `torpor serve`"));
    }
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    let home = ServerDirectory::new("/tmp/torpor-unused");
    for arguments in
        [&["run"][..], &["run", "--function", "a/b", "true"], &["serve", "--staging", "5"], &["fly"]]
    {
        let output = torpor(home.path()).args(arguments).output().unwrap();
        ended_with(&output, 2);
    }
    let said = |verb: &str| text(&torpor(home.path()).arg(verb).output().unwrap().stderr);
    assert!(said("functons").contains("'functions'"), "{}", said("functons"));
    assert!(!said("top").contains("'stop'"), "{}", said("top"));
}
