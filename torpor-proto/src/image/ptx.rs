//! PTX text.
//!
//! Torpor does not compile PTX; it only has to know where the text ends, and whether kernels may write into variables. The
//! driver takes NUL-terminated text.

use std::collections::HashSet;

/// Whether `byte` may occur in PTX: printable ASCII, white space, or part of a UTF-8 sequence in a comment.
pub(super) fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | 0x0b | 0x0c | b'\r' | b' '..=b'~' | 0x80..)
}

/// Whether a text is PTX: its first word, behind space and comments, is the directive that PTX has to begin with.
pub fn is_ptx(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        rest = rest.trim_ascii_start();
        let end = if rest.starts_with(b"//") {
            rest.iter().position(|&byte| byte == b'\n')
        } else if rest.starts_with(b"/*") {
            rest.windows(2).position(|end| end == b"*/").map(|at| at + 2)
        } else {
            return rest.starts_with(b".version");
        };
        let Some(end) = end else { return false };
        rest = &rest[end..];
    }
}

/// The text of a PTX image or payload: everything before the first NUL, if that is UTF-8.
pub fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).ok()
}

/// Whether kernels of a module may write into its `.global` variables: whether anything but a load names one. Where it is
/// hard to say, the answer is yes.
#[must_use]
pub fn has_state(text: &str) -> bool {
    let text = without_comments(text);
    let statements: Vec<Vec<&str>> = text.split([';', '{', '}']).map(words).collect();
    let is_declaration = |words: &[&str]| words.contains(&".global") && !words.contains(&".param");
    let is_name =
        |word: &&str| word.starts_with(|first: char| first.is_alphabetic() || "_$%".contains(first));
    let declared = statements.iter().filter(|words| is_declaration(words));
    // The program may write into those, whatever kernels do.
    if declared.clone().any(|words| words.contains(&".managed")) {
        return true;
    }
    let names: HashSet<&str> = declared
        .flat_map(|words| words.iter().copied().take_while(|&word| word != "=").filter(is_name))
        .collect();
    statements.iter().any(|words| {
        if is_declaration(words) {
            // The address of a variable in an initialiser.
            return words.iter().skip_while(|&&word| word != "=").any(|word| names.contains(word));
        }
        let instruction = words.iter().find(|word| !word.starts_with('@') && !word.ends_with(':'));
        let is_load = instruction.is_some_and(|word| word.starts_with("ld.") || word.starts_with("ldu."));
        !is_load && words.iter().any(|word| names.contains(word))
    })
}

/// What stands between white space and punctuation. Predicates keep their `@`, labels their `:`.
fn words(statement: &str) -> Vec<&str> {
    let spaced = statement.split(|one: char| one.is_whitespace() || "[](),+".contains(one));
    spaced.filter(|word| !word.is_empty()).collect()
}

fn without_comments(text: &str) -> String {
    let (mut kept, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find('/') {
        let (before, comment) = rest.split_at(at);
        kept.push_str(before);
        let end = match comment.as_bytes().get(1) {
            Some(b'/') => comment.find('\n'),
            Some(b'*') => comment.find("*/").map(|end| end + 2),
            _ => Some(1),
        };
        kept.push(' ');
        rest = &comment[end.unwrap_or(comment.len())..];
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_only_loaded_is_no_state() {
        let with = |body: &str| {
            format!(
                ".version 8.0\n// .global .u32 remark; st.global.u32 [step], %r1;\n.visible .global .align 4 .u32 step = 3;\n\
                 .global .u64 table[2] = {{1, 2}};\n.const .u32 three = 3;\n\
                 .entry k(.param .u64 .ptr .global .align 4 p)\n{{\n.reg .u32 %r<2>;\n{body}\nret;\n}}\n"
            )
        };
        for body in [
            "",
            "ld.global.u32 %r1, [step];",
            "@%p ld.global.u32 %r1, [table+8]; st.global.u32 [%d1], %r1;",
            "L: ld.global.u32 %r1, [step]; ld.const.u32 %r1, [three];",
            "/* st.global.u32 [step], %r1; */ ld.param.u64 %d1, [p]; st.global.u32 [%d1], %r1;",
        ] {
            assert!(!has_state(&with(body)), "{body}");
        }
        for body in [
            "st.global.u32 [step], %r1;",
            "@%p st.global.u32 [table+8], %r1;",
            "mov.u64 %d1, step;",
            "cvta.global.u64 %d1, step;",
            "atom.global.add.u32 %r1, [step], 1;",
            "red.global.add.u32 [step], 1;",
            ".global .u32 inner; st.global.u32 [inner], %r1;",
            "call (%r1), f, (step);",
        ] {
            assert!(has_state(&with(body)), "{body}");
        }
        assert!(has_state(".global .u32 a; .global .u64 b = {generic(a)};"));
        assert!(has_state(".global .u32 a; .global .u64 b = a+4;"));
        assert!(has_state(".visible .global .attribute(.managed) .align 4 .u32 a;"));
        assert!(!has_state("/"));
    }

    #[test]
    fn ptx_begins_with_its_version() {
        for ptx in [".version 8.0", "\n/* a\n * b */ // c\n//\n\t.version 8.0\n"] {
            assert!(is_ptx(ptx.as_bytes()), "{ptx}");
        }
        for other in
            ["", "hello world, not ptx\n", "/* .version", "// .version 8.0", "/", "/* a */ .target sm_90"]
        {
            assert!(!is_ptx(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn text_ends_at_the_first_nul() {
        assert_eq!(text(b".version 8.0\n\0\0junk"), Some(".version 8.0\n"));
        assert_eq!(text(b".version 8.0"), Some(".version 8.0"));
        assert_eq!(text(b"\xff\0"), None);
    }
}
