//! The texts of an image's assertions, by which a message of the driver is known to be of the image.

use super::cubin;
use memchr::memmem;

/// Sections with the strings that kernels name.
const SECTIONS: [&str; 2] = [".nv.global.init", ".nv.constant3"];

/// The texts of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssertionTexts(Vec<u8>);

impl AssertionTexts {
    /// Of a cubin; none of what is no whole one.
    #[must_use]
    pub fn of_cubin(cubin: &[u8]) -> Self {
        let contents = SECTIONS.map(|name| cubin::section(cubin, name).ok().flatten().unwrap_or_default());
        // The last string of a section need not have a NUL of its own behind it.
        Self(contents.join(&[0][..]))
    }

    /// Whether file and expression of a message are among them. CUDA writes messages as
    /// ``file:line: function: block: [0,0,0], thread: [0,0,0] Assertion `expression` failed.``
    #[must_use]
    pub fn has(&self, message: &[u8]) -> bool {
        let file = memmem::find(message, b": ").and_then(|end| {
            let place = &message[..end];
            place.iter().rposition(|&byte| byte == b':').map(|colon| &place[..colon])
        });
        let expression = memmem::find(message, b"] Assertion `").map(|start| &message[start + 13..]);
        let expression = expression.and_then(|rest| Some(&rest[..memmem::rfind(rest, b"` failed.")?]));
        let knows = |text: &[u8]| !text.is_empty() && memmem::find(&self.0, text).is_some();
        file.is_some_and(knows) && expression.is_some_and(knows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::synthetic::{self, CubinSource, VariableSource};

    fn of(strings: &[&str]) -> AssertionTexts {
        let variable = |(number, text): (usize, &&str)| VariableSource {
            contents: text.as_bytes().to_vec(),
            ..VariableSource::of(".nv.global.init", &format!("$str{number}"), text.len() as u64, 0)
        };
        let variables = strings.iter().enumerate().map(variable).collect();
        AssertionTexts::of_cubin(&synthetic::cubin(&CubinSource { variables, ..CubinSource::default() }))
    }

    #[test]
    fn a_message_is_of_the_image_that_has_its_file_and_its_expression() {
        let message = b"/a/b.cu:12: check: block: [0,0,0], thread: [3,0,0] Assertion `n < 3` failed.\n";
        assert!(of(&["n < 3", "/a/b.cu"]).has(message));
        assert!(!of(&["n < 4", "/a/b.cu"]).has(message));
        assert!(!of(&["n < 3", "/a/c.cu"]).has(message));
        assert!(!of(&[]).has(message));
        for nonsense in [&b""[..], b"] Assertion `", b": ", b"x: ] Assertion `` failed."] {
            assert!(!of(&["n < 3"]).has(nonsense));
        }
        assert_eq!(AssertionTexts::of_cubin(b"no cubin"), AssertionTexts(vec![0]));
    }
}
