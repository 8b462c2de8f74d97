//! The settings file, as it is written.

use crate::server::nearest::nearest;
use crate::server::settings::text::{FunctionName, PerGpu, device_memory_limit};
use crate::server::size::ByteSize;
use crate::server::time::Time;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use torpor_proto::control::worker;

/// Everything that a settings file may say. Each key is described in `docs/configuration.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SettingsFile {
    /// Of the node's memory. Read at the server's start alone.
    pub memory: MemorySection,
    /// Of the workers. Read at the server's start alone.
    pub scheduler: SchedulerSection,
    /// What holds for functions that do not say otherwise.
    pub defaults: FunctionSection,
    /// What functions say.
    pub functions: BTreeMap<FunctionName, FunctionSection>,
}

/// `[memory]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemorySection {
    /// Device memory that all functions together may use on one GPU.
    pub gpu_limit: Option<PerGpu>,
    /// Host memory for the functions' device memory.
    pub host_pool: Option<ByteSize>,
    /// Where device memory goes that the host pool has no room for.
    pub spill_dir: Option<PathBuf>,
    /// How much may go there.
    pub spill_limit: Option<ByteSize>,
}

/// `[scheduler]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulerSection {
    /// Clients that may use one GPU at the same time.
    pub active_per_gpu: Option<NonZeroUsize>,
    /// How long a client keeps its GPU after its last command.
    pub linger: Option<Time>,
}

/// `[defaults]` and `[functions.NAME]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FunctionSection {
    /// Device memory that each client may allocate.
    #[serde(deserialize_with = "device_memory_limit")]
    pub memory_limit: Option<ByteSize>,
    /// The latency objective of a request.
    pub slo_ms: Option<NonZeroU32>,
    /// What becomes of writes when a client gives its GPU up.
    pub writeback: Option<Writeback>,
    /// Whether it is never evicted to make room.
    pub pinned: Option<bool>,
}

/// What becomes of writes when a client gives its GPU up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Writeback {
    /// Everything is kept.
    #[default]
    Changed,
    /// What kernels write after the first request is scratch.
    Never,
}

impl fmt::Display for Writeback {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Changed => "changed",
            Self::Never => "never",
        })
    }
}

impl From<Writeback> for worker::Writeback {
    fn from(writeback: Writeback) -> Self {
        match writeback {
            Writeback::Changed => Self::Changed,
            Writeback::Never => Self::Never,
        }
    }
}

/// Why a settings file is none.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there, or not for us.
    #[error("the settings file {path} cannot be read: {error}")]
    Unreadable {
        /// Where it was looked for.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It says something that it cannot say.
    #[error("{path}:{line}: {problem}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Which line of it, from 1.
        line: usize,
        /// The key and what is wrong with it.
        problem: String,
    },
}

impl SettingsFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = fs::read_to_string(path)
            .map_err(|error| FileError::Unreadable { path: path.to_owned(), error })?;
        Self::parse(&text, path)
    }

    /// Reads the text of a file; `path` is for the error alone.
    ///
    /// # Errors
    /// [`FileError::Wrong`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, FileError> {
        let wrong = |key: &str, error: &toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
            let line = before.matches('\n').count() + 1;
            let problem = explain(error.message());
            let problem = if key.is_empty() || key == "." { problem } else { format!("{key}: {problem}") };
            FileError::Wrong { path: path.to_owned(), line, problem }
        };
        let document = toml::Deserializer::parse(text).map_err(|error| wrong("", &error))?;
        serde_path_to_error::deserialize(document)
            .map_err(|error| wrong(&error.path().to_string(), error.inner()))
    }
}

/// What serde says, with the name that was meant if it was unknown. Serde puts names in backquotes, the unknown one first.
fn explain(message: &str) -> String {
    let message = message.replace("unknown field", "unknown key");
    if !message.starts_with("unknown ") {
        return message;
    }
    let mut names = message.split('`').skip(1).step_by(2);
    let written = names.next().unwrap_or_default();
    match nearest(written, names).first() {
        Some(meant) => format!("{message}; did you mean `{meant}`?"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn parse(text: &str) -> Result<SettingsFile, String> {
        SettingsFile::parse(text, Path::new("torpor.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_is_read() {
        let file = parse(
            r#"
            [memory]
            gpu_limit = ["4GiB", "8GiB"]
            host_pool = "200GiB"
            spill_dir = "/var/spill"
            spill_limit = "1TiB"
            [scheduler]
            active_per_gpu = 2
            linger = "50ms"
            [defaults]
            memory_limit = "2GiB"
            [functions.resnet-152]
            slo_ms = 200
            writeback = "never"
            pinned = true
            "#,
        )
        .unwrap();
        let gpu_limit = file.memory.gpu_limit.unwrap();
        assert_eq!(gpu_limit.of(1), Some(ByteSize(8 << 30)));
        assert_eq!(gpu_limit.of(2), None);
        assert_eq!(file.memory.host_pool, Some(ByteSize(200 << 30)));
        assert_eq!(file.memory.spill_dir, Some("/var/spill".into()));
        assert_eq!(file.memory.spill_limit, Some(ByteSize(1 << 40)));
        assert_eq!(file.scheduler.active_per_gpu.map(NonZeroUsize::get), Some(2));
        assert_eq!(file.scheduler.linger, Some(Time(Duration::from_millis(50))));
        assert_eq!(file.defaults.memory_limit, Some(ByteSize(2 << 30)));
        let function = &file.functions[&"resnet-152".parse().unwrap()];
        assert_eq!(function.slo_ms.map(NonZeroU32::get), Some(200));
        assert_eq!((function.writeback, function.pinned), (Some(Writeback::Never), Some(true)));
        assert_eq!(function.memory_limit, None);
        let all = parse("memory.gpu_limit = '1GiB'").unwrap().memory.gpu_limit.unwrap();
        assert_eq!(all.of(7), Some(ByteSize(1 << 30)));
        assert_eq!(parse("").unwrap(), SettingsFile::default());
    }

    #[test]
    fn an_error_names_line_key_and_what_would_be_right() {
        for (text, line, words) in [
            (
                "[functions.f]\nmemory_limt = '1GiB'",
                2,
                &["functions.f", "`memory_limt`", "did you mean `memory_limit`?"][..],
            ),
            ("\n[scheduler]\nactive = 1", 3, &["scheduler", "unknown key `active`", "`active_per_gpu`"]),
            ("[memroy]", 1, &["unknown key `memroy`", "did you mean `memory`?"]),
            ("[functions.f]\n\nmemory_limit = '2 gigs'", 3, &["functions.f.memory_limit", "2 gigs", "GiB"]),
            ("[functions.f]\nmemory_limit = 2048", 2, &["functions.f.memory_limit", "2048", "a unit"]),
            ("[scheduler]\nlinger = '2min'", 2, &["scheduler.linger", "2min", "us, ms or s"]),
            ("[defaults]\nwriteback = 'nevr'", 2, &["defaults.writeback", "`nevr`", "did you mean `never`?"]),
            ("[defaults]\nslo_ms = 0", 2, &["defaults.slo_ms", "`0`", "nonzero"]),
            ("[defaults]\nslo_ms = '200ms'", 2, &["defaults.slo_ms", "200ms"]),
            ("[memory]\ngpu_limit = ['1GiB', 5]", 2, &["memory.gpu_limit", "`5`", "a unit"]),
            ("[memory]\ngpu_limit = '1GB,2GB'", 2, &["memory.gpu_limit", "1GB,2GB", "unit"]),
            ("[functions.f]\nmemory_limit = '0B'", 2, &["functions.f.memory_limit", "0 B", "2MiB or more"]),
            ("[memory]\ngpu_limit = ['2MiB', '1MiB']", 2, &["memory.gpu_limit", "1 MiB", "2MiB or more"]),
            ("[memory]\ngpu_limit = []", 2, &["memory.gpu_limit", "empty"]),
            ("[functions.'a/b']\npinned = true", 1, &["a/b", "function name"]),
            ("[defaults]\npinned = 'yes'", 2, &["defaults.pinned", "yes", "boolean"]),
            ("[defaults]\npinned = true\n[defaults", 3, &["]"]),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(&format!("torpor.toml:{line}: ")), "{text}: {error}");
            for word in words {
                assert!(error.contains(word), "{text}: {word} is missing in: {error}");
            }
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = SettingsFile::read(Path::new("/nonexistent/torpor.toml")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/torpor.toml"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(?s).*") {
            let _ = parse(&text);
        }

        #[test]
        fn no_key_panics(key in ".*", value in ".*") {
            let _ = parse(&format!("[defaults]\n{key} = '{value}'"));
        }
    }
}
