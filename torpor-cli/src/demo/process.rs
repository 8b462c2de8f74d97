//! The functions as the demo sees them: processes that are asked by line and answer by line.

use super::protocol::{Garbled, Message};
use rustix::process::Signal;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// How long a function may take to end once its input has ended.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Something that the demo waits for.
#[derive(Debug)]
pub enum Event {
    /// A function said something.
    Said { function: usize, message: Message, at: Instant },
    /// A function said something that it should not.
    Garbled { function: usize, garbled: Garbled },
    /// A function says nothing more: it has ended, or will at once.
    Ended { function: usize },
    /// A function's answers have been checked.
    Checked { function: usize, wrong: Vec<super::verdict::Wrong> },
    /// The demo is to end.
    Interrupted(Signal),
}

/// A running function. Killed when dropped.
#[derive(Debug)]
pub struct FunctionProcess {
    child: Child,
    requests: Option<ChildStdin>,
    started: Instant,
}

impl FunctionProcess {
    /// Starts a function. What it says becomes events with its number.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn start(mut command: Command, function: usize, events: Sender<Event>) -> io::Result<Self> {
        // In a process group of its own: Ctrl-C is the demo's to handle.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let started = Instant::now();
        let mut child = command.spawn()?;
        let (requests, output) = (child.stdin.take(), child.stdout.take());
        spawn(move || {
            for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()) {
                let Ok(line) = line else { break };
                let event = match line.parse() {
                    Ok(message) => Event::Said { function, message, at: Instant::now() },
                    Err(garbled) => Event::Garbled { function, garbled },
                };
                if events.send(event).is_err() {
                    return;
                }
            }
            // The demo is over if nobody listens.
            let _ = events.send(Event::Ended { function });
        });
        Ok(Self { child, requests, started })
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Sends a request.
    ///
    /// # Errors
    /// If the function is gone.
    pub fn request(&mut self, seed: u64) -> io::Result<()> {
        self.requests.as_mut().map_or(Ok(()), |pipe| writeln!(pipe, "{seed}"))
    }

    /// Sends no more requests, upon which it ends.
    pub fn end_requests(&mut self) {
        drop(self.requests.take());
    }

    /// Waits for its end; none if that does not come in time.
    pub fn wait(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + END_TIMEOUT;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for FunctionProcess {
    fn drop(&mut self) {
        // It has usually ended, and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
