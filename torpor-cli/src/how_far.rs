//! How far something long is, on standard error: on a terminal one line that is drawn over itself, elsewhere lines if they are asked
//! for.

use crate::progress::bar;
use std::io::{self, IsTerminal, Write};
use torpor_gpuserver::server::size::ByteSize;

/// Who is told.
#[derive(Debug)]
pub struct HowFar {
    on_terminal: bool,
    wanted: bool,
    drawn: String,
}

impl HowFar {
    /// Whoever looks at a terminal; with `asked`, everybody.
    pub fn new(asked: bool) -> Self {
        let on_terminal = io::stderr().is_terminal();
        Self { on_terminal, wanted: asked || on_terminal, drawn: String::new() }
    }

    /// Whether anybody is told.
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Shows bytes of as many as there will be, if that is known.
    pub fn show(&mut self, what: &str, bytes: u64, of_bytes: Option<u64>) {
        let text = match of_bytes {
            Some(whole) => bar(what, bytes, whole, |bytes| ByteSize(bytes).to_string()),
            None => format!("{what} {}", ByteSize(bytes)),
        };
        if !self.wanted || text == self.drawn {
            return;
        }
        print(&if self.on_terminal { format!("\r\x1b[K{text}") } else { format!("torpor: {text}\n") });
        self.drawn = text;
    }

    /// Gives the line back to others.
    pub fn clear(&mut self) {
        if self.on_terminal && !std::mem::take(&mut self.drawn).is_empty() {
            print("\r\x1b[K");
        }
    }
}

impl Drop for HowFar {
    fn drop(&mut self) {
        self.clear();
    }
}

fn print(text: &str) {
    // Progress that nobody can see is no error.
    let _ = io::stderr().write_all(text.as_bytes());
}
