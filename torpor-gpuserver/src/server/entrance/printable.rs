//! What a process says of itself ends up in terminals.

/// Characters that change how others are shown, such as those that write from right to left: the general category Cf.
/// Source: UnicodeData.txt of Unicode 16.0, and U+2028 and U+2029, which end a line.
const FORMAT: [(char, char); 21] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{2064}'),
    ('\u{2066}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0001}', '\u{e0001}'),
    ('\u{e0020}', '\u{e007f}'),
];

/// A text without characters that steer a terminal, of so many characters at most.
#[must_use]
pub fn printable(text: &str, most: usize) -> String {
    text.chars().filter(|&character| !steers(character)).take(most).collect()
}

fn steers(character: char) -> bool {
    character.is_control() || FORMAT.iter().any(|&(first, last)| (first..=last).contains(&character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_cannot_steer_a_terminal() {
        assert_eq!(printable("py\x1b[2Jthon\n", 64), "py[2Jthon");
        assert_eq!(printable("a\u{202e}b\u{200d}c\u{2028}d\u{feff}", 64), "abcd");
        assert_eq!(printable("größe 模型", 64), "größe 模型");
        assert_eq!(printable(&"x".repeat(1000), 64).len(), 64);
    }
}
