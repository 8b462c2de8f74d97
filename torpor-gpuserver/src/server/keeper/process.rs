//! The keeper's own process: it keeps what a server leaves, and starts the next server when one is killed.
//!
//! It is the process that was started (`torpor serve`), so it is what a supervisor supervises; it knows nothing of GPUs or clients, and
//! does nothing but keep, pass on signals, and wait. A server that ends by itself ends it too, with the same status.

use crate::server::keeper::IS_KEPT;
use crate::server::run::raise_descriptor_limit;
use crate::server::workers::socket::PacketSocket;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::env;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use torpor_proto::control::keeper::Kept;

/// Servers in a row that may end by themselves before they serve: it may be what they were left.
const MOST_IN_VAIN: u32 = 5;

/// Between two of these.
const PAUSE: Duration = Duration::from_millis(200);

/// What a program that panicked ends with.
const PANICKED: i32 = 101;

/// Runs this program's own command line as a server, again and again until it ends by itself. Call it before there is any thread.
///
/// # Errors
/// The kernel's: the program cannot be started.
pub fn run() -> io::Result<ExitCode> {
    raise_descriptor_limit();
    // Workers whose server was killed are this process's children then, which takes note of their ends.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(keep())?;
    // The status of whoever was ended by a signal, as shells say it.
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

async fn keep() -> io::Result<ExitStatus> {
    // Found out now: its name may be another program's later, which is started then.
    let program = env::current_exe()?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (mut reload, mut ended) = (signal(SignalKind::hangup())?, signal(SignalKind::child())?);
    let (mut shelf, mut in_vain, mut is_ending) = (Shelf::default(), 0, false);
    loop {
        let (socket, theirs) = PacketSocket::pair()?;
        let mut command = Command::new(&program);
        command.args(env::args_os().skip(1)).env(IS_KEPT, "1").stdin(Stdio::from(theirs));
        let mut server = command.spawn()?;
        // Holds the server's end.
        drop(command);
        {
            let mut serving = std::pin::pin!(shelf.serve(&socket));
            loop {
                tokio::select! {
                    () = &mut serving => break,
                    _ = interrupt.recv() => (is_ending, ()) = (true, pass_on(&server, Signal::INT)),
                    _ = terminate.recv() => (is_ending, ()) = (true, pass_on(&server, Signal::TERM)),
                    _ = reload.recv() => pass_on(&server, Signal::HUP),
                    _ = ended.recv() => bury_all_but(&server),
                }
            }
        }
        let status = server.wait()?;
        let was_killed = status.signal().is_some() || status.code() == Some(PANICKED);
        if !was_killed || is_ending {
            return Ok(status);
        }
        // Who is killed from outside has done nothing wrong.
        let is_killed = status.signal() == Some(libc::SIGKILL);
        if std::mem::take(&mut shelf.has_served) || is_killed {
            in_vain = 0;
            eprintln!("torpor: the server ended ({status}); another one goes on where it was");
            continue;
        }
        in_vain += 1;
        eprintln!("torpor: the server ended before it served ({status})");
        if in_vain == MOST_IN_VAIN {
            if shelf.kept.is_empty() {
                return Ok(status);
            }
            eprintln!("torpor: the next one begins anew: programs' CUDA calls fail from now on");
            (shelf, in_vain) = (Shelf::default(), 0);
        }
        sleep(PAUSE).await;
    }
}

fn pass_on(server: &Child, signal: Signal) {
    // As long as it was not waited for, the number is this child's.
    let pid = Pid::from_raw(server.id().cast_signed());
    // One that has ended needs none.
    let _ = pid.map(|pid| kill_process(pid, signal));
}

/// Takes note of the ends of workers that other servers started.
fn bury_all_but(server: &Child) {
    loop {
        let mut about = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: waitid writes into the record, which is whole as zeroes if there is nobody.
        let found = unsafe { libc::waitid(libc::P_ALL, 0, about.as_mut_ptr(), options) };
        // SAFETY: as above; waitid sets the process's number, or leaves 0.
        let pid = unsafe { about.assume_init().si_pid() };
        // The server's end is waited for by whoever started it.
        if found != 0 || pid == 0 || pid.cast_unsigned() == server.id() {
            return;
        }
        let mut status = 0;
        // SAFETY: it writes the status, nothing else.
        unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
    }
}

/// What is kept.
#[derive(Debug, Default)]
struct Shelf {
    kept: BTreeMap<String, (Vec<u8>, Vec<OwnedFd>)>,
    /// The server has said that it serves.
    has_served: bool,
}

impl Shelf {
    /// Gives a server all of it, and keeps what it leaves, until it is gone.
    async fn serve(&mut self, socket: &PacketSocket) {
        for (name, (value, descriptors)) in &self.kept {
            let kept = Kept { name: name.clone(), value: value.clone(), ..Kept::default() };
            let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            if socket.send(&kept, &descriptors).await.is_err() {
                return;
            }
        }
        if socket.send(&Kept { all: true, ..Kept::default() }, &[]).await.is_err() {
            return;
        }
        // An error is the server's end, too.
        while let Ok(Some((kept, descriptors))) = socket.receive_all::<Kept>().await {
            self.put(kept, descriptors);
        }
    }

    fn put(&mut self, kept: Kept, descriptors: Vec<OwnedFd>) {
        match kept {
            Kept { all: true, .. } => self.has_served = true,
            Kept { gone: true, name, .. } if name.is_empty() => self.kept.clear(),
            Kept { gone: true, name, .. } => drop(self.kept.remove(&name)),
            Kept { name, value, .. } => drop(self.kept.insert(name, (value, descriptors))),
        }
    }
}
