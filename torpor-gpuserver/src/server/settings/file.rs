//! The settings file, as it is written.

use crate::server::admin::suggestions::nearest;
use crate::server::settings::function_section::FunctionSection;
use crate::server::settings::read::{in_time, read_text};
use crate::server::settings::sections::{MemorySection, SchedulerSection};
use crate::server::settings::server_section::ServerSection;
use crate::server::settings::text::FunctionName;
use crate::server::settings::watch::Stamp;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a file system may take to answer.
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// Everything that a settings file may say. Each key is described in `docs/configuration.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SettingsFile {
    /// Of the router. Read at its start alone.
    pub server: ServerSection,
    /// Of the node's memory. Read at the server's start alone.
    pub memory: MemorySection,
    /// Of the workers. Read at the server's start, but for what the router follows.
    pub scheduler: SchedulerSection,
    /// What holds for functions that do not say otherwise.
    pub defaults: FunctionSection,
    /// What functions say.
    pub functions: BTreeMap<FunctionName, FunctionSection>,
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
    /// It limits what is not there.
    #[error(
        "{path}: functions.{function}.{key} is of containers, and the function has no image: give it one, or take the key away"
    )]
    NoContainer {
        /// The file.
        path: PathBuf,
        /// Whose key.
        function: String,
        /// Which key.
        key: &'static str,
    },
}

impl SettingsFile {
    /// Reads a file. On a disk that hangs, it may not return.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = read_text(path).map_err(|error| FileError::Unreadable { path: path.to_owned(), error })?;
        Self::parse(&text, path)
    }

    /// Reads a file, and says how it looked before. Waits only so long.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn read_in_time(path: &Path) -> Result<(Option<Stamp>, Self), FileError> {
        let theirs = path.to_owned();
        let read = in_time(READ_PATIENCE, move || (Stamp::of(&theirs), Self::read(&theirs)));
        let (stamp, file) = read.map_err(|error| FileError::Unreadable { path: path.to_owned(), error })?;
        Ok((stamp, file?))
    }

    /// Reads the text of a file; `path` is for the error alone.
    ///
    /// # Errors
    /// [`FileError::Wrong`], or [`FileError::NoContainer`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, FileError> {
        let wrong = |key: &str, error: &toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
            let line = before.matches('\n').count() + 1;
            let problem = explain(error.message());
            let problem = if key.is_empty() || key == "." { problem } else { format!("{key}: {problem}") };
            FileError::Wrong { path: path.to_owned(), line, problem }
        };
        let document = toml::Deserializer::parse(text).map_err(|error| wrong("", &error))?;
        let file: Self = serde_path_to_error::deserialize(document)
            .map_err(|error| wrong(&error.path().to_string(), error.inner()))?;
        for (name, function) in &file.functions {
            let image = function.image.as_ref().or(file.defaults.image.as_ref());
            if image.is_none_or(String::is_empty)
                && let Some(key) = function.container_key()
            {
                let (path, function) = (path.to_owned(), name.0.clone());
                return Err(FileError::NoContainer { path, function, key });
            }
        }
        Ok(file)
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
    use crate::policy::eviction::Eviction;
    use crate::policy::placement::Placement;
    use crate::policy::sharing::ActiveLimit;
    use crate::server::settings::choice::{Policy, Writeback};
    use crate::server::settings::text::Percentile;
    use crate::server::size::ByteSize;
    use crate::server::time::Time;
    use proptest::prelude::*;
    use std::num::{NonZeroU32, NonZeroUsize};

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
            spare_worker = false
            placement = "deadline"
            eviction = "heavy-last"
            policy = "slo-aware"
            max_running = 3
            [defaults]
            memory_limit = "2GiB"
            [functions.resnet-152]
            slo_ms = 200
            slo_percentile = 0.98
            writeback = "never"
            pinned = true
            kernel_timeout = "10s"
            "#,
        )
        .unwrap();
        assert_eq!(file.memory.gpu_limit, Some(vec![ByteSize(4 << 30), ByteSize(8 << 30)]));
        assert_eq!(file.memory.host_pool, Some(ByteSize(200 << 30)));
        assert_eq!(file.memory.spill_dir, Some("/var/spill".into()));
        assert_eq!(file.memory.spill_limit, Some(ByteSize(1 << 40)));
        assert_eq!(file.scheduler.active_per_gpu, "2".parse().ok());
        let auto = parse("[scheduler]\nactive_per_gpu = 'auto'").unwrap();
        assert_eq!(auto.scheduler.active_per_gpu, Some(ActiveLimit::Auto));
        assert_eq!(file.scheduler.linger, Some(Time(Duration::from_millis(50))));
        let scheduler = &file.scheduler;
        assert_eq!((scheduler.cover, scheduler.spare_worker), (None, Some(false)));
        assert_eq!(
            (scheduler.placement, scheduler.eviction),
            (Some(Placement::Deadline), Some(Eviction::HeavyLast))
        );
        assert_eq!(
            (scheduler.policy, scheduler.max_running.map(NonZeroUsize::get)),
            (Some(Policy::SloAware), Some(3))
        );
        assert_eq!(file.defaults.memory_limit, Some(ByteSize(2 << 30)));
        let function = &file.functions[&"resnet-152".parse().unwrap()];
        assert_eq!(function.slo_ms.map(NonZeroU32::get), Some(200));
        assert_eq!(function.slo_percentile.map(Percentile::fraction), Some(0.98));
        assert_eq!((function.writeback, function.pinned), (Some(Writeback::Never), Some(true)));
        assert_eq!(function.memory_limit, None);
        assert_eq!(function.kernel_timeout, Some(Time(Duration::from_secs(10))));
        let all = parse("memory.gpu_limit = '1GiB'").unwrap().memory;
        assert_eq!(all.gpu_limit, Some(vec![ByteSize(1 << 30)]));
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
            ("[scheduler]\nlinger = '2min'", 2, &["scheduler.linger", "2min", "us, ms, s, m or h"]),
            ("[defaults]\nwriteback = 'nevr'", 2, &["defaults.writeback", "`nevr`", "did you mean `never`?"]),
            ("[scheduler]\npolicy = 'edf'", 2, &["scheduler.policy", "`edf`", "`slo-aware`"]),
            ("[scheduler]\nplacement = 'best'", 2, &["scheduler.placement", "`best`", "`most-free`"]),
            ("[scheduler]\neviction = 'lur'", 2, &["scheduler.eviction", "did you mean `lru`?"]),
            ("[defaults]\nslo_percentile = 98", 2, &["defaults.slo_percentile", "0.98"]),
            ("[defaults]\nslo_ms = 0", 2, &["defaults.slo_ms", "`0`", "milliseconds from 1"]),
            ("[defaults]\nslo_ms = -1", 2, &["defaults.slo_ms", "`-1`", "milliseconds from 1 to 4294967295"]),
            ("[scheduler]\nactive_per_gpu = 0", 2, &["active_per_gpu", "`0`", "a whole number from 1"]),
            ("[scheduler]\nactive_per_gpu = 'all'", 2, &["active_per_gpu", "all", "or \"auto\""]),
            ("[memory]\nhost_pool = '0B'", 2, &["memory.host_pool", "0 B", "2MiB or more"]),
            ("[memory]\nspill_limit = '99999999TiB'", 2, &["memory.spill_limit", "99999999TiB", "too large"]),
            ("[defaults]\nslo_ms = '200ms'", 2, &["defaults.slo_ms", "200ms"]),
            ("[memory]\ngpu_limit = ['1GiB', 5]", 2, &["memory.gpu_limit", "`5`", "a unit"]),
            ("[memory]\ngpu_limit = '1GB,2GB'", 2, &["memory.gpu_limit", "1GB,2GB", "unit"]),
            ("[functions.f]\nmemory_limit = '0B'", 2, &["functions.f.memory_limit", "0 B", "2MiB or more"]),
            ("[memory]\ngpu_limit = ['2MiB', '1MiB']", 2, &["memory.gpu_limit", "1 MiB", "2MiB or more"]),
            ("[memory]\ngpu_limit = []", 2, &["memory.gpu_limit", "empty"]),
            ("[functions.'a/b']\npinned = true", 1, &["a/b", "function name"]),
            ("[defaults]\nkernel_timeout = '0s'", 2, &["defaults.kernel_timeout", "0s", "100ms or more"]),
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
