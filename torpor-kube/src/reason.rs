//! Why something failed, where the libraries' errors say "transport error" and keep the reason inside.

use std::error::Error;

/// What the innermost error says.
#[must_use]
pub fn reason(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string()
}
