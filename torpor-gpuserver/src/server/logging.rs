//! What the server and its workers tell on standard error.

use std::fs::File;
use std::io::IsTerminal;
use std::sync::Arc;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;

/// A text that says nothing about logging.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no log level: say error, warn, info, debug or trace ({error})")]
pub struct InvalidLevel {
    text: String,
    error: ParseError,
}

/// Begins to log: a level (for Torpor; other crates warn only), or directives as `tracing` writes them.
///
/// # Errors
/// [`InvalidLevel`].
pub fn begin(level: &str) -> Result<(), InvalidLevel> {
    begin_with(level, std::io::stderr().is_terminal(), std::io::stderr)
}

/// As [`begin`], but into a file, such as what standard error was.
///
/// # Errors
/// [`InvalidLevel`].
pub fn begin_in(level: &str, file: Arc<File>) -> Result<(), InvalidLevel> {
    begin_with(level, file.is_terminal(), file)
}

fn begin_with<W>(level: &str, colours: bool, writer: W) -> Result<(), InvalidLevel>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Logging that somebody else began, in the same process, stays as it is.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter(level)?)
        .with_writer(writer)
        .with_ansi(colours)
        .with_target(false)
        .try_init();
    Ok(())
}

/// Checks a level without using it.
///
/// # Errors
/// [`InvalidLevel`].
pub fn filter(level: &str) -> Result<EnvFilter, InvalidLevel> {
    let alone = !level.contains(['=', ',']);
    let directives =
        if alone { format!("warn,torpor_gpuserver={level},torpor={level}") } else { level.to_owned() };
    EnvFilter::try_new(directives).map_err(|error| InvalidLevel { text: level.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_checked() {
        for level in ["error", "debug", "info,h2=trace"] {
            filter(level).unwrap();
        }
        assert!(filter("shout louder").unwrap_err().to_string().contains("shout louder"));
    }
}
