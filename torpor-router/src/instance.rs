//! One process of a function, from its start to its end: started through `torpor run`, probed, stopped; or started by
//! somebody else, and probed.

use crate::function::Function;
use crate::port;
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// From one look at a process's health to the next.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// How long a process may take to say that it is healthy.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How much of what it says beside that is taken, and for how long that is waited for.
const PROBE_BYTES: u64 = 64 << 10;
const PROBE_PATIENCE: Duration = Duration::from_millis(100);
/// From one look to the next at an endpoint that was healthy.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Looks in a row that an endpoint may fail.
const WATCH_FAILURES: u32 = 3;
/// How long a process may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(10);

/// How processes are started.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// The `torpor` program.
    pub torpor: PathBuf,
    /// The node server's directory.
    pub directory: PathBuf,
}

impl Launcher {
    fn command(&self, function: &Function, program: &[String], port: u16) -> Command {
        let mut command = Command::new(&self.torpor);
        let flags: [OsString; 6] = [
            "run".into(),
            "--directory".into(),
            self.directory.clone().into(),
            "--function".into(),
            (*function.name).into(),
            "--".into(),
        ];
        command.args(flags).args(program).envs(&function.deployment.env);
        command.env("PORT", port.to_string()).env("TORPOR_FUNCTION", &*function.name);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        command
    }
}

/// Runs a process to its end.
pub(crate) async fn run(
    function: Arc<Function>,
    command: Vec<String>,
    launcher: Launcher,
    id: u64,
    mut stop: watch::Receiver<bool>,
) {
    let reason = match start(&function, &command, &launcher, id) {
        Err(error) => format!("cannot be started: {error}"),
        Ok((mut child, address)) => tokio::select! {
            reason = live(&function, &mut child, id, address) => {
                end(&mut child).await;
                reason
            }
            () = async { drop(stop.wait_for(|stop| *stop).await) } => {
                end(&mut child).await;
                "stopped".to_owned()
            }
        },
    };
    function.instance_ended(id, &reason);
}

/// Watches an endpoint that somebody else keeps, until it is no more healthy.
pub(crate) async fn watch(
    function: Arc<Function>,
    address: Arc<str>,
    id: u64,
    mut stop: watch::Receiver<bool>,
) {
    let path = &function.deployment.health_path;
    let healthy = async {
        while !is_healthy(&address, path).await {
            sleep(WATCH_INTERVAL).await;
        }
        function.instance_ready(id, address.clone(), 0);
        let mut failures = 0;
        while failures < WATCH_FAILURES {
            sleep(WATCH_INTERVAL).await;
            failures = if is_healthy(&address, path).await { 0 } else { failures + 1 };
        }
    };
    let reason = tokio::select! {
        () = healthy => format!("{address} is not healthy any more: GET {path} gives no 2xx"),
        () = async { drop(stop.wait_for(|stop| *stop).await) } => "no longer an endpoint".to_owned(),
    };
    function.instance_ended(id, &reason);
}

fn start(
    function: &Arc<Function>,
    command: &[String],
    launcher: &Launcher,
    id: u64,
) -> io::Result<(Child, Arc<str>)> {
    let address = port::free()?;
    let mut child = launcher.command(function, command, address.port()).spawn()?;
    function.logs.push(format!("[{id}] torpor: started on {address}"));
    if let Some(stdout) = child.stdout.take() {
        let function = function.clone();
        tokio::spawn(async move { function.logs.take_from(id, stdout).await });
    }
    if let Some(stderr) = child.stderr.take() {
        let function = function.clone();
        tokio::spawn(async move { function.logs.take_from(id, stderr).await });
    }
    Ok((child, address.to_string().into()))
}

/// Says that the process is healthy once it is, and why it is no more.
async fn live(function: &Arc<Function>, child: &mut Child, id: u64, address: Arc<str>) -> String {
    let started = Instant::now();
    let healthy = async {
        while !is_healthy(&address, &function.deployment.health_path).await {
            sleep(PROBE_INTERVAL).await;
        }
    };
    tokio::select! {
        () = healthy => {}
        status = child.wait() => return ended(status) + " before it was healthy",
        () = sleep(function.deployment.start_timeout) => {
            let path = &function.deployment.health_path;
            return format!("not healthy within {:?}: GET {path} on {address} gives no 2xx", function.deployment.start_timeout);
        }
    }
    tracing::info!(function = &*function.name, id, %address, "ready after {:?}", started.elapsed());
    // It was started as the first of its group.
    function.instance_ready(id, address, child.id().unwrap_or(0));
    ended(child.wait().await)
}

fn ended(status: io::Result<std::process::ExitStatus>) -> String {
    status.map_or_else(|error| format!("lost: {error}"), |status| format!("ended ({status})"))
}

/// Ends a process and all that it started.
async fn end(child: &mut Child) {
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    for signal in [Signal::TERM, Signal::KILL] {
        // A group that has ended already needs no signal.
        let _ = group.map(|group| kill_process_group(group, signal));
        if timeout(GRACE, child.wait()).await.is_ok() {
            return;
        }
    }
}

/// Whether a GET is answered with 2xx.
async fn is_healthy(address: &str, path: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        // A program that is hung up on while it answers may say so in its log.
        let rest = async { tokio::io::copy(&mut stream.take(PROBE_BYTES), &mut tokio::io::sink()).await };
        let _ = timeout(PROBE_PATIENCE, rest).await;
        io::Result::Ok(status)
    };
    matches!(timeout(PROBE_TIMEOUT, ask).await, Ok(Ok(status)) if status.starts_with(b"HTTP/1.") && status[9] == b'2')
}
