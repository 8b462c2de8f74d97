//! Splits PTX text into tokens.
//!
//! A word keeps its dots (`ld.global.f32`, `.reg`, `%tid.x`) and double colons (`.shared::cta`), because PTX has no
//! blanks inside an opcode; the parser splits where it needs to.

use super::error::PtxError;

/// One token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'a> {
    /// Opcode, directive, register or symbol.
    Word(&'a str),
    /// Integer literal.
    Integer(u64),
    /// Bits of a single-precision literal (`0f3F800000`).
    Single(u32),
    /// Bits of a double-precision literal (`0d...` or a decimal with a point).
    Double(u64),
    /// Text between double quotes.
    Text(&'a str),
    /// Any other character.
    Mark(char),
}

/// A token and the line that it starts on, from 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Located<'a> {
    pub(super) token: Token<'a>,
    pub(super) line: u32,
}

/// The tokens of `text`; a NUL ends it, as in images handed over by pointer.
pub(super) fn tokens(text: &str) -> Result<Vec<Located<'_>>, PtxError> {
    let text = text.split('\0').next().unwrap_or_default();
    let bytes = text.as_bytes();
    let mut tokens = Vec::with_capacity(text.len() / 4);
    let (mut at, mut line) = (0, 1);
    while let Some(&byte) = bytes.get(at) {
        let next = bytes.get(at + 1).copied().unwrap_or(0);
        let start = at;
        match byte {
            b'\n' => {
                line += 1;
                at += 1;
                continue;
            }
            _ if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'/' if next == b'/' => {
                at += count(&bytes[at..], |byte| byte != b'\n');
                continue;
            }
            b'/' if next == b'*' => {
                let end = text[at + 2..].find("*/").ok_or_else(|| syntax(line, "comment without end"))?;
                line += lines(&bytes[at..at + 2 + end]);
                at += end + 4;
                continue;
            }
            b'"' => {
                let end = text[at + 1..].find('"').ok_or_else(|| syntax(line, "string without end"))?;
                tokens.push(Located { token: Token::Text(&text[at + 1..at + 1 + end]), line });
                line += lines(&bytes[at..at + 1 + end]);
                at += end + 2;
                continue;
            }
            _ if is_word_start(byte) || (byte == b'.' && is_word_start(next)) => {
                at += 1;
                // Directives may follow each other without a blank: `.reg.b32`.
                let marks: &[u8] = if byte == b'.' { b"_$" } else { b"_$." };
                loop {
                    at += count(&bytes[at..], |byte| byte.is_ascii_alphanumeric() || marks.contains(&byte));
                    if bytes[at..].starts_with(b"::") {
                        at += 2;
                    } else {
                        break;
                    }
                }
                tokens.push(Located { token: Token::Word(&text[start..at]), line });
            }
            _ if byte.is_ascii_digit() => {
                at += number_length(&bytes[at..]);
                let literal = &text[start..at];
                let token =
                    number(literal).ok_or_else(|| syntax(line, &format!("bad number `{literal}`")))?;
                tokens.push(Located { token, line });
            }
            _ => {
                let mark = text[at..].chars().next().unwrap_or('\u{fffd}');
                at += mark.len_utf8();
                tokens.push(Located { token: Token::Mark(mark), line });
            }
        }
    }
    Ok(tokens)
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || b"_$%".contains(&byte)
}

fn count(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|&&byte| wanted(byte)).count()
}

fn lines(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.iter().filter(|&&byte| byte == b'\n').count()).unwrap_or(u32::MAX)
}

fn syntax(line: u32, message: &str) -> PtxError {
    PtxError::Syntax { line, message: message.to_owned() }
}

/// Length of a number: digits and letters, and the sign of a decimal exponent.
fn number_length(bytes: &[u8]) -> usize {
    let prefixed = bytes[0] == b'0' && bytes.get(1).is_some_and(|byte| byte.is_ascii_alphabetic());
    let mut length = 0;
    while let Some(&byte) = bytes.get(length) {
        let signed_exponent = !prefixed && b"+-".contains(&byte) && b"eE".contains(&bytes[length.max(1) - 1]);
        if byte.is_ascii_alphanumeric() || byte == b'.' || signed_exponent {
            length += 1;
        } else {
            break;
        }
    }
    length
}

fn number(literal: &str) -> Option<Token<'_>> {
    let (prefix, rest) = (literal.get(..2).unwrap_or(""), literal.get(2..).unwrap_or(""));
    if prefix.eq_ignore_ascii_case("0f") {
        return (rest.len() == 8).then(|| u32::from_str_radix(rest, 16).ok().map(Token::Single))?;
    }
    if prefix.eq_ignore_ascii_case("0d") {
        return (rest.len() == 16).then(|| u64::from_str_radix(rest, 16).ok().map(Token::Double))?;
    }
    let integer = literal.strip_suffix('U').unwrap_or(literal);
    let rest = integer.get(2..).unwrap_or("");
    if prefix.eq_ignore_ascii_case("0x") {
        return u64::from_str_radix(rest, 16).ok().map(Token::Integer);
    }
    if prefix.eq_ignore_ascii_case("0b") {
        return u64::from_str_radix(rest, 2).ok().map(Token::Integer);
    }
    if integer.bytes().all(|byte| byte.is_ascii_digit()) {
        let radix = if integer.len() > 1 && integer.starts_with('0') { 8 } else { 10 };
        return u64::from_str_radix(integer, radix).ok().map(Token::Integer);
    }
    literal.parse::<f64>().ok().map(|value| Token::Double(value.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Vec<Token<'_>> {
        tokens(text).expect("tokens").into_iter().map(|located| located.token).collect()
    }

    #[test]
    fn words_keep_dots_and_double_colons_but_not_label_colons() {
        assert_eq!(
            plain(".reg.b32 $L__1: ld.shared::cta.u32 %r1,"),
            [
                Token::Word(".reg"),
                Token::Word(".b32"),
                Token::Word("$L__1"),
                Token::Mark(':'),
                Token::Word("ld.shared::cta.u32"),
                Token::Word("%r1"),
                Token::Mark(',')
            ]
        );
    }

    #[test]
    fn numbers_of_every_form() {
        assert_eq!(
            plain("12 0x1F 0b101 017 7U 0f3F800000 0d3FF0000000000000 1.5e+3"),
            [
                Token::Integer(12),
                Token::Integer(31),
                Token::Integer(5),
                Token::Integer(15),
                Token::Integer(7),
                Token::Single(0x3f80_0000),
                Token::Double(1f64.to_bits()),
                Token::Double(1500f64.to_bits())
            ]
        );
        assert!(tokens("0f12").is_err());
        assert!(tokens("9z").is_err());
    }

    #[test]
    fn lines_count_through_comments_and_strings() {
        let tokens = tokens("// one\n/* two\n three */ \"four\n\" five").expect("tokens");
        assert_eq!(tokens[0], Located { token: Token::Text("four\n"), line: 3 });
        assert_eq!(tokens[1], Located { token: Token::Word("five"), line: 4 });
    }
}
