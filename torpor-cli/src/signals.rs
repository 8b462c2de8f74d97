//! Signals that a command is to get though they were sent to us.

use rustix::process::{Signal, getpgrp};
use rustix::termios::tcgetpgrp;
use std::fs::{self, File};
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use tokio::signal::unix::{self, SignalKind, signal};

const PASSED_ON: [(Signal, bool); 4] =
    [(Signal::INT, true), (Signal::QUIT, true), (Signal::TERM, false), (Signal::HUP, false)];

/// The signals that are passed on, caught.
#[derive(Debug)]
pub struct Signals(Vec<Caught>);

#[derive(Debug)]
struct Caught {
    signal: Signal,
    from_keys: bool,
    receiver: unix::Signal,
}

impl Signals {
    /// Catches them, but leaves those ignored that are (as `nohup` and shells that start jobs in the background do):
    /// the command inherits that.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn catch() -> io::Result<Self> {
        let ignored = ignored_mask(&fs::read_to_string("/proc/self/status")?);
        let heeded = PASSED_ON.into_iter().filter(|(signal, _)| ignored & 1 << (signal.as_raw() - 1) == 0);
        let caught = heeded.map(|(caught, from_keys)| {
            let receiver = signal(SignalKind::from_raw(caught.as_raw()))?;
            Ok(Caught { signal: caught, from_keys, receiver })
        });
        caught.collect::<io::Result<_>>().map(Self)
    }

    /// The next signal that the command does not get without our help.
    pub async fn next(&mut self) -> Signal {
        loop {
            let (signal, from_keys) = poll_fn(|context| {
                for caught in &mut self.0 {
                    if caught.receiver.poll_recv(context).is_ready() {
                        return Poll::Ready((caught.signal, caught.from_keys));
                    }
                }
                Poll::Pending
            })
            .await;
            if !(from_keys && terminal_tells_everybody()) {
                return signal;
            }
        }
    }
}

/// Whether keys such as Ctrl-C reach the command too: the terminal signals the whole foreground group, and passing the
/// signal on would make it two. A `kill -INT` from elsewhere while in the foreground is taken for a key.
fn terminal_tells_everybody() -> bool {
    let foreground = File::open("/dev/tty").ok().and_then(|terminal| tcgetpgrp(terminal).ok());
    foreground == Some(getpgrp())
}

/// The ignored signals, bit 0 for signal 1. Source: proc_pid_status(5), SigIgn.
fn ignored_mask(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_is_read_from_the_right_line() {
        assert_eq!(ignored_mask("SigBlk:\t00ff\nSigIgn:\t0000000000001003\nSigCgt:\t0f"), 0x1003);
        assert_eq!(ignored_mask(""), 0);
    }
}
