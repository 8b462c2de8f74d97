//! What a function's processes print: the last lines, and those to come for whoever follows.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::broadcast;

/// Lines kept.
const LINES: usize = 1000;
/// Bytes of a line; the rest of a longer one is its next line.
const LINE_BYTES: u64 = 4096;

/// The log of a function.
#[derive(Debug)]
pub struct Logs {
    last: Mutex<VecDeque<String>>,
    following: broadcast::Sender<String>,
}

impl Default for Logs {
    fn default() -> Self {
        Self { last: Mutex::default(), following: broadcast::channel(256).0 }
    }
}

impl Logs {
    /// Adds a line.
    pub fn push(&self, line: String) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == LINES {
            last.pop_front();
        }
        last.push_back(line.clone());
        // Without followers there is no one to send to.
        let _ = self.following.send(line);
    }

    /// The lines that are kept, and those to come.
    #[must_use]
    pub fn follow(&self) -> (Vec<String>, broadcast::Receiver<String>) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        (last.iter().cloned().collect(), self.following.subscribe())
    }

    /// Takes what a process prints until it closes the stream.
    pub async fn take_from(&self, instance: u64, stream: impl AsyncRead + Unpin) {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!((&mut stream).take(LINE_BYTES).read_until(b'\n', &mut line).await, Ok(1..)) {
            let text = String::from_utf8_lossy(&line);
            self.push(format!("[{instance}] {}", text.trim_end_matches(['\r', '\n'])));
            line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_endless_line_is_cut_and_old_lines_leave() {
        let logs = Logs::default();
        let printed = "x".repeat(10_000) + "\n" + &"line\n".repeat(LINES);
        logs.take_from(7, printed.as_bytes()).await;
        let (last, _) = logs.follow();
        assert_eq!(last.len(), LINES);
        assert!(last.iter().all(|line| line == "[7] line"));
        let logs = Logs::default();
        logs.take_from(7, "x".repeat(10_000).as_bytes()).await;
        assert_eq!(logs.follow().0.len(), 3);
    }
}
