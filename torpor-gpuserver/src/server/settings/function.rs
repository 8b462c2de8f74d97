//! What holds for each function, when file and flags have been heard.

use crate::server::settings::choice::{Isolation, Writeback};
use crate::server::settings::devices::DeviceCount;
use crate::server::settings::file::SettingsFile;
use crate::server::settings::function_section::FunctionSection;
use crate::server::settings::terms::Terms;
use crate::server::size::ByteSize;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

/// What holds for one function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FunctionSettings {
    /// Device memory that each of its clients may allocate, if less than its GPU's limit.
    pub memory_limit_bytes: Option<u64>,
    /// Processes of it at a time; any number if absent.
    pub max_clients: Option<NonZeroU32>,
    /// Page-locked host memory that all of them together may have on one GPU.
    pub pinned_limit_bytes: Option<u64>,
    /// Images that all of them together may use on one GPU, if not as many as any function may.
    pub image_limit_bytes: Option<u64>,
    /// The latency objective of a request.
    pub slo_ms: Option<NonZeroU32>,
    /// What becomes of writes when a client gives its GPU up.
    pub writeback: Writeback,
    /// Whether it is never evicted to make room.
    pub pinned: bool,
    /// What it is kept apart from others by.
    pub isolation: Isolation,
    /// How long a kernel may run, if not for ever.
    pub kernel_timeout: Option<Duration>,
    /// Devices that its programs see.
    pub gpus: DeviceCount,
}

impl FunctionSettings {
    /// These settings with what a section says in their place.
    fn with(self, section: &FunctionSection) -> Self {
        Self {
            memory_limit_bytes: section.memory_limit.map(|limit| limit.0).or(self.memory_limit_bytes),
            max_clients: section.max_clients.or(self.max_clients),
            pinned_limit_bytes: section.pinned_limit.map(|limit| limit.0).or(self.pinned_limit_bytes),
            image_limit_bytes: section.image_limit.map(|limit| limit.0).or(self.image_limit_bytes),
            slo_ms: section.slo_ms.or(self.slo_ms),
            writeback: section.writeback.unwrap_or(self.writeback),
            pinned: section.pinned.unwrap_or(self.pinned),
            isolation: section.isolation.unwrap_or(self.isolation),
            kernel_timeout: section.kernel_timeout.map(|time| time.0).or(self.kernel_timeout),
            gpus: section.gpus.unwrap_or(self.gpus),
        }
    }
}

/// A function that fits on no GPU of the node.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "function {function}: its memory_limit of {} ({limit} bytes) is more than the {} ({gpu_limit} bytes) that functions \
     may use on the largest GPU here; lower it in [functions.{function}], or raise gpu_limit in [memory]",
    ByteSize(*limit),
    ByteSize(*gpu_limit)
)]
pub struct LimitAboveGpu {
    /// Which.
    pub function: String,
    /// What it is to have, in bytes.
    pub limit: u64,
    /// What there is, in bytes.
    pub gpu_limit: u64,
}

/// What holds for every function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    defaults: FunctionSettings,
    functions: BTreeMap<String, FunctionSettings>,
    /// The memory limits that functions ask for by name.
    own_limits: BTreeMap<String, u64>,
    /// What was said of functions when they were made.
    terms: BTreeMap<String, Terms>,
}

impl Settings {
    /// What a file says, with the memory limit of the command line in place of that in `[defaults]`.
    #[must_use]
    pub fn new(file: &SettingsFile, default_memory_limit: Option<ByteSize>) -> Self {
        let mut defaults = FunctionSettings::default().with(&file.defaults);
        defaults.memory_limit_bytes =
            default_memory_limit.map(|limit| limit.0).or(defaults.memory_limit_bytes);
        let own_limit = |section: &FunctionSection| section.memory_limit.map(|limit| limit.0);
        let functions = file.functions.iter();
        Self {
            defaults,
            own_limits: functions
                .clone()
                .filter_map(|(name, section)| Some((name.0.clone(), own_limit(section)?)))
                .collect(),
            functions: functions.map(|(name, section)| (name.0.clone(), defaults.with(section))).collect(),
            terms: BTreeMap::new(),
        }
    }

    /// What holds for a function.
    #[must_use]
    pub fn of(&self, function: &str) -> FunctionSettings {
        let settings = self.functions.get(function).copied().unwrap_or(self.defaults);
        self.terms.get(function).map_or(settings, |terms| terms.over(settings))
    }

    /// From now on, whatever the file says; `None` as the file says.
    pub fn agree(&mut self, function: &str, terms: Option<Terms>) {
        match terms {
            Some(terms) => self.terms.insert(function.to_owned(), terms),
            None => self.terms.remove(function),
        };
    }

    /// The terms that hold already hold here, too.
    #[must_use]
    pub fn with_terms_of(self, now: &Self) -> Self {
        Self { terms: now.terms.clone(), ..self }
    }

    /// The functions that the file names.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(String::as_str)
    }

    /// The functions that ask for more memory than the largest GPU has for functions.
    pub fn above(&self, gpu_limit: u64) -> impl Iterator<Item = LimitAboveGpu> {
        let above = self.own_limits.iter().filter(move |&(_, &limit)| limit > gpu_limit);
        above.map(move |(function, &limit)| LimitAboveGpu { function: function.clone(), limit, gpu_limit })
    }

    /// One function keeps the memory limit it had.
    pub fn keep_limit(&mut self, function: &str, memory_limit_bytes: Option<u64>) {
        let settings = FunctionSettings { memory_limit_bytes, ..self.of(function) };
        self.functions.insert(function.to_owned(), settings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn settings(text: &str, flag: Option<u64>) -> Settings {
        Settings::new(&SettingsFile::parse(text, Path::new("t")).unwrap(), flag.map(ByteSize))
    }

    const FILE: &str = "
        [defaults]
        memory_limit = '2GiB'
        pinned = true
        [functions.big]
        memory_limit = '6GiB'
        pinned = false
        [functions.plain]
        writeback = 'never'
    ";

    #[test]
    fn a_function_has_what_it_says_then_the_flag_then_the_defaults() {
        for (flag, default) in [(None, 2 << 30), (Some(5), 5)] {
            let settings = settings(FILE, flag);
            let (big, plain, other) = (settings.of("big"), settings.of("plain"), settings.of("other"));
            assert_eq!((big.memory_limit_bytes, big.pinned), (Some(6 << 30), false));
            assert_eq!((plain.memory_limit_bytes, plain.pinned), (Some(default), true));
            assert_eq!(plain.writeback, Writeback::Never);
            assert_eq!(other, FunctionSettings { writeback: Writeback::Changed, ..plain });
        }
        assert_eq!(settings("", None).of("any"), FunctionSettings::default());
    }

    #[test]
    fn a_limit_above_the_gpu_is_told_with_function_and_numbers_but_a_default_is_not() {
        let settings = settings(FILE, None);
        assert_eq!(settings.above(6 << 30).count(), 0);
        let errors: Vec<String> = settings.above(1 << 30).map(|error| error.to_string()).collect();
        assert_eq!(errors.len(), 1);
        assert!(errors[0].contains("function big") && errors[0].contains("6 GiB"), "{errors:?}");
        assert!(errors[0].contains("1 GiB (1073741824 bytes)"), "{errors:?}");
    }

    #[test]
    fn a_kept_limit_leaves_the_rest() {
        let mut settings = settings(FILE, None);
        settings.keep_limit("other", Some(7));
        settings.keep_limit("plain", None);
        assert_eq!((settings.of("other").memory_limit_bytes, settings.of("other").pinned), (Some(7), true));
        assert_eq!(settings.of("plain").memory_limit_bytes, None);
        assert_eq!(settings.of("plain").writeback, Writeback::Never);
        assert_eq!(settings.of("another").memory_limit_bytes, Some(2 << 30));
    }
}
