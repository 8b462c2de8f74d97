//! An instance that is a process of this machine, started through `torpor run`.

use crate::function::Function;
use crate::instance::health::live;
use crate::instance::{GRACE, Launcher, Stop};
use crate::port;
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Runs a process to its end.
pub(super) async fn run(
    function: &Arc<Function>,
    command: &[String],
    launcher: &Launcher,
    id: u64,
    stop: &mut Stop,
) -> String {
    let (mut child, address) = match start(function, command, launcher, id) {
        Ok(started) => started,
        Err(error) => return format!("cannot be started: {error}"),
    };
    // It was started as the first of its group.
    let group = child.id().unwrap_or(0);
    let ended = async { ended(child.wait().await) };
    let reason = tokio::select! {
        reason = live(function, id, address, || group, ended) => reason,
        () = stop.wanted() => "stopped".to_owned(),
    };
    end(&mut child).await;
    reason
}

fn command(launcher: &Launcher, function: &Function, program: &[String], port: u16) -> Command {
    let mut command = Command::new(&launcher.torpor);
    let flags: [OsString; 6] = [
        "run".into(),
        "--directory".into(),
        launcher.directory.clone().into(),
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

fn start(
    function: &Arc<Function>,
    program: &[String],
    launcher: &Launcher,
    id: u64,
) -> io::Result<(Child, Arc<str>)> {
    let address = port::free()?;
    let mut child = command(launcher, function, program, address.port()).spawn()?;
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
