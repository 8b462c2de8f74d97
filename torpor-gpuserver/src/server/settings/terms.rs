//! What somebody who makes a function says of it, whatever the settings file says: until the function is removed.
//!
//! It is kept in a file for each function, written as a settings file is, so that a server that is started again lets nobody have
//! more than was agreed.

use crate::server::node::Node;
use crate::server::settings::choice::Isolation;
use crate::server::settings::clients::tell_workers;
use crate::server::settings::devices::{DeviceCount, InvalidDeviceCount};
use crate::server::settings::file::{FileError, SettingsFile};
use crate::server::settings::function::{FunctionSettings, LimitAboveGpu};
use crate::server::settings::function_section::FunctionSection;
use crate::server::settings::lowered::{TooLow, too_low};
use crate::server::settings::text::{FunctionName, enough};
use crate::server::size::ByteSize;
use std::fmt::Write;
use std::fs;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use torpor_proto::control::admin;

/// What was agreed on for a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    memory_limit: Option<ByteSize>,
    slo_ms: Option<NonZeroU32>,
    isolation: Option<Isolation>,
    gpus: Option<DeviceCount>,
}

/// Why nothing was agreed on.
#[derive(Debug, thiserror::Error)]
pub enum TermsError {
    /// A limit that nothing fits.
    #[error("the memory limit is none: {0}")]
    MemoryLimit(String),
    /// None that this release knows.
    #[error("isolation {0} is not known: is whoever asks of a newer release?")]
    Isolation(i32),
    /// No time at all.
    #[error("slo_ms is a whole number of milliseconds from 1")]
    Slo,
    /// None, or more than a program can see.
    #[error(transparent)]
    Gpus(#[from] InvalidDeviceCount),
    /// It fits on no GPU.
    #[error(transparent)]
    AboveGpu(#[from] LimitAboveGpu),
    /// Its processes have more.
    #[error("{0}; end its processes first")]
    InUse(TooLow),
    /// They cannot be kept.
    #[error("{path} cannot be written: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

impl Terms {
    /// Checks what is asked for.
    ///
    /// # Errors
    /// [`TermsError::MemoryLimit`], [`TermsError::Slo`], [`TermsError::Isolation`], [`TermsError::Gpus`].
    pub fn new(asked: admin::Terms) -> Result<Self, TermsError> {
        let limit = asked.memory_limit_bytes.map(|bytes| enough(ByteSize(bytes)));
        let isolation = asked.isolation.map(|asked| match admin::Isolation::try_from(asked) {
            Ok(isolation) => Ok(Isolation::from(isolation)),
            Err(_) => Err(TermsError::Isolation(asked)),
        });
        let slo = asked.slo_ms.map(|ms| NonZeroU32::new(ms).ok_or(TermsError::Slo));
        Ok(Self {
            memory_limit: limit.transpose().map_err(TermsError::MemoryLimit)?,
            slo_ms: slo.transpose()?,
            isolation: isolation.transpose()?,
            gpus: asked.gpus.map(DeviceCount::new).transpose()?,
        })
    }

    /// These settings with the terms in their place.
    #[must_use]
    pub fn over(self, settings: FunctionSettings) -> FunctionSettings {
        FunctionSettings {
            memory_limit_bytes: self.memory_limit.map(|limit| limit.0).or(settings.memory_limit_bytes),
            slo_ms: self.slo_ms.or(settings.slo_ms),
            isolation: self.isolation.unwrap_or(settings.isolation),
            gpus: self.gpus.unwrap_or(settings.gpus),
            ..settings
        }
    }

    fn text(self, function: &str) -> String {
        let mut text = format!("[functions.\"{function}\"]\n");
        // A string takes whatever is written to it.
        let _ = self.memory_limit.map(|limit| writeln!(text, "memory_limit = \"{}B\"", limit.0));
        let _ = self.slo_ms.map(|ms| writeln!(text, "slo_ms = {ms}"));
        let _ = self.isolation.map(|isolation| writeln!(text, "isolation = \"{isolation}\""));
        let _ = self.gpus.map(|gpus| writeln!(text, "gpus = {gpus}"));
        text
    }

    fn keep(self, file: &Path, function: &str) -> io::Result<()> {
        // No function has such a name.
        let fresh = file.with_file_name(format!(".{function}"));
        fs::write(&fresh, self.text(function))?;
        fs::rename(fresh, file)
    }

    fn read(file: &Path, function: &str) -> Result<Self, FileError> {
        let mut settings = SettingsFile::read(file)?;
        let section = settings.functions.remove(&FunctionName(function.to_owned())).unwrap_or_default();
        let FunctionSection { memory_limit, slo_ms, isolation, gpus, .. } = section;
        Ok(Self { memory_limit, slo_ms, isolation, gpus })
    }
}

/// These terms hold for a function from now on, also for processes that it has.
///
/// # Errors
/// [`TermsError`]; what held before goes on.
pub async fn agree(node: &Node, function: &str, terms: Terms) -> Result<(), TermsError> {
    let (limit, gpu_limit) = (terms.memory_limit, node.largest_gpu_limit_bytes());
    if let Some(ByteSize(limit)) = limit.filter(|limit| limit.0 > gpu_limit) {
        return Err(LimitAboveGpu { function: function.to_owned(), limit, gpu_limit }.into());
    }
    let mut settings = node.settings().settings().clone();
    settings.agree(function, Some(terms));
    if let Some(low) = too_low(node, &settings).await.into_iter().find(|low| low.function == function) {
        return Err(TermsError::InUse(low));
    }
    let path = node.tree().terms(function);
    terms.keep(&path, function).map_err(|error| TermsError::Io { path, error })?;
    node.settings().agree(function, Some(terms));
    tell_workers(node);
    Ok(())
}

/// What was agreed on with the server that was here before holds again.
pub fn recall(node: &Node) {
    for function in node.tree().functions() {
        let file = node.tree().terms(&function);
        if !file.exists() {
            continue;
        }
        match Terms::read(&file, &function) {
            Ok(terms) => node.settings().agree(&function, Some(terms)),
            Err(error) => {
                tracing::error!(function, "{error}; what was agreed on for the function holds no more");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_read_as_they_were_kept() {
        let home = tempfile::tempdir().unwrap();
        let asks = [(None, None), (Some(3 << 30), None), (None, Some(1)), (Some((2 << 20) + 1), Some(200))];
        let others = [(None, None), (Some(0), Some(2)), (Some(1), None), (None, Some(8))];
        for ((memory_limit_bytes, slo_ms), (isolation, gpus)) in asks.into_iter().zip(others) {
            let terms = Terms::new(admin::Terms { memory_limit_bytes, slo_ms, isolation, gpus }).unwrap();
            let file = home.path().join("7.b-c");
            terms.keep(&file, "7.b-c").unwrap();
            assert_eq!(Terms::read(&file, "7.b-c").unwrap(), terms);
            assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn terms_under_which_nothing_could_run_are_refused() {
        let refused = |memory_limit_bytes, slo_ms| {
            let asked = admin::Terms { memory_limit_bytes, slo_ms, ..admin::Terms::default() };
            Terms::new(asked).unwrap_err().to_string()
        };
        assert!(refused(Some(1), None).contains("use 2MiB or more"));
        assert!(refused(None, Some(0)).contains("from 1"));
        let several = |gpus| Terms::new(admin::Terms { gpus: Some(gpus), ..admin::Terms::default() });
        assert!(several(9).unwrap_err().to_string().contains("1 to 8"));
    }
}
