//! Lists for people: aligned columns on standard output, or JSON for programs.

use serde::Serialize;
use std::io::{self, Write};
use std::time::Duration;

/// Prints a list, or whatever else there is to say, as JSON.
pub fn print_json(value: &impl Serialize) {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    print(&format!("{text}\n"));
}

/// Prints a list as a table.
pub fn print_table<const COLUMNS: usize>(headings: [&str; COLUMNS], rows: &[[String; COLUMNS]]) {
    print(&aligned(headings, rows));
}

/// An age or duration in its largest unit: `59s`, `3m`, `5h`, `2d`.
pub fn short_duration(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ ..60 => format!("{seconds}s"),
        seconds @ ..3_600 => format!("{}m", seconds / 60),
        seconds @ ..86_400 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

fn aligned<const COLUMNS: usize>(headings: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let width = |text: &str| text.chars().count();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
        rows.iter().map(|row| width(&row[column])).chain([width(headings[column])]).max().unwrap_or(0)
    });
    let mut out = String::new();
    for row in [&headings.map(str::to_owned)].into_iter().chain(rows) {
        let line: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Prints text.
pub fn print(text: &str) {
    // A reader that has seen enough (`torpor ps | head -1`) is no error.
    let _ = io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), "1".to_owned()], ["longer".to_owned(), "2".to_owned()]];
        assert_eq!(aligned(["NAME", "N"], &rows), "NAME    N\na       1\nlonger  2\n");
    }

    #[test]
    fn durations_have_one_unit() {
        let shown = [(0, "0s"), (59, "59s"), (60, "1m"), (7_199, "1h"), (200_000, "2d")];
        for (seconds, text) in shown {
            assert_eq!(short_duration(Duration::from_secs(seconds)), text);
        }
    }
}
