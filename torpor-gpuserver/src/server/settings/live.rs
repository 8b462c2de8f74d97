//! The settings as they are now: what the file says, and what was said through the admin API since.

use crate::server::settings::function::{FunctionSettings, Settings};
use crate::server::settings::terms::Terms;
use std::collections::HashMap;

/// What somebody said of a function by `torpor pin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Whether it is never evicted to make room.
    pub pinned: bool,
    /// Index into the server's GPUs: where its next clients go.
    pub gpu: Option<usize>,
}

/// The settings as they are now.
#[derive(Debug, Default)]
pub struct Live {
    settings: Settings,
    pins: HashMap<String, Pin>,
}

impl Live {
    /// What the file said at the start.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, pins: HashMap::new() }
    }

    /// What holds for a function.
    #[must_use]
    pub fn of(&self, function: &str) -> FunctionSettings {
        let settings = self.settings.of(function);
        let pinned = self.pins.get(function).map_or(settings.pinned, |pin| pin.pinned);
        FunctionSettings { pinned, ..settings }
    }

    /// The GPU that a function was pinned to.
    #[must_use]
    pub fn gpu_of(&self, function: &str) -> Option<usize> {
        self.pins.get(function).and_then(|pin| pin.gpu)
    }

    /// What the file says, pins left aside.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The file says something else now.
    pub fn replace(&mut self, settings: Settings) {
        self.settings = settings.with_terms_of(&self.settings);
    }

    /// Whoever made a function says something else of it now; with `None`, nothing any more.
    pub fn agree(&mut self, function: &str, terms: Option<Terms>) {
        self.settings.agree(function, terms);
    }

    /// A function is no more.
    pub fn forget(&mut self, function: &str) {
        self.settings.agree(function, None);
        self.pins.remove(function);
    }

    /// From now on, whatever the file says.
    pub fn pin(&mut self, function: &str, pin: Pin) {
        self.pins.insert(function.to_owned(), pin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::settings::SettingsFile;
    use std::path::Path;
    use torpor_proto::control::admin;

    #[test]
    fn a_pin_outlives_the_file() {
        let read = |text| Settings::new(&SettingsFile::parse(text, Path::new("t")).unwrap(), None);
        let mut live = Live::new(read("[functions.f]\npinned = true\nslo_ms = 5"));
        assert!(live.of("f").pinned);
        live.pin("f", Pin { pinned: false, gpu: Some(1) });
        assert!(!live.of("f").pinned && live.gpu_of("f") == Some(1));
        live.replace(read("[defaults]\npinned = true"));
        assert!(!live.of("f").pinned && live.of("g").pinned);
        assert_eq!(live.of("f").slo_ms, None);
    }

    #[test]
    fn terms_outlive_the_file_and_end_with_the_function() {
        let read = |text| Settings::new(&SettingsFile::parse(text, Path::new("t")).unwrap(), None);
        let mut live = Live::new(read("[defaults]\nmemory_limit = '4GiB'\nslo_ms = 9"));
        let asked = admin::Terms { memory_limit_bytes: Some(1 << 30), ..admin::Terms::default() };
        live.agree("f", Some(Terms::new(asked).unwrap()));
        live.replace(read("[defaults]\nmemory_limit = '2GiB'\nslo_ms = 5"));
        let limits = |live: &Live| [live.of("f"), live.of("g")].map(|settings| settings.memory_limit_bytes);
        assert_eq!(limits(&live), [Some(1 << 30), Some(2 << 30)]);
        assert_eq!(live.of("f").slo_ms.map(u32::from), Some(5), "what they do not say is as the file says");
        live.forget("f");
        assert_eq!(limits(&live), [Some(2 << 30); 2]);
    }
}
