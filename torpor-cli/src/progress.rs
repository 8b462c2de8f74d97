//! How far something is: a bar on a terminal, lines elsewhere. On standard error: the results are what goes to
//! standard output.

use std::io::{self, IsTerminal, Write};

const WIDTH: usize = 30;

/// A bar that is drawn over itself. Cleared when dropped.
#[derive(Debug)]
pub struct Progress {
    label: &'static str,
    total: u64,
    unit: fn(u64) -> String,
    on_terminal: bool,
    drawn: String,
}

impl Progress {
    /// A bar of `total` units, shown as `unit` shows them.
    pub fn new(label: &'static str, total: u64, unit: fn(u64) -> String) -> Self {
        let on_terminal = io::stderr().is_terminal();
        Self { label, total, unit, on_terminal, drawn: String::new() }
    }

    /// Shows that `done` units are.
    pub fn show(&mut self, done: u64) {
        let text = bar(self.label, done, self.total, self.unit);
        if self.on_terminal && text != self.drawn {
            print(&format!("\r\x1b[K{text}"));
            self.drawn = text;
        }
    }

    /// Prints a line above the bar.
    pub fn line(&self, text: &str) {
        let clear = if self.drawn.is_empty() { "" } else { "\r\x1b[K" };
        print(&format!("{clear}{text}\n{}", self.drawn));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.drawn.is_empty() {
            print("\r\x1b[K");
        }
    }
}

/// A label, how much is filled, and the two numbers.
pub fn bar(label: &str, done: u64, total: u64, unit: fn(u64) -> String) -> String {
    let filled = u128::from(done.min(total)) * WIDTH as u128 / u128::from(total.max(1));
    let filled = usize::try_from(filled).unwrap_or(WIDTH);
    format!(
        "{label} [{}{}] {} of {}",
        "#".repeat(filled),
        ".".repeat(WIDTH - filled),
        unit(done),
        unit(total)
    )
}

fn print(text: &str) {
    // Progress that nobody can see is no error.
    let _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_and_does_not_overflow() {
        let count = |done| bar("loading", done, 200, |n| n.to_string());
        assert_eq!(count(0), format!("loading [{}] 0 of 200", ".".repeat(30)));
        assert_eq!(count(100), format!("loading [{}{}] 100 of 200", "#".repeat(15), ".".repeat(15)));
        assert_eq!(count(300), format!("loading [{}] 300 of 200", "#".repeat(30)));
        assert_eq!(bar("x", u64::MAX, u64::MAX, |_| "n".into()), format!("x [{}] n of n", "#".repeat(30)));
        assert_eq!(bar("x", 0, 0, |_| "n".into()), format!("x [{}] n of n", ".".repeat(30)));
    }
}
