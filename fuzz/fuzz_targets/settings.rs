//! Settings files as an operator may write them: a setting, or an error that names the line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use torpor_gpuserver::server::settings::{FileError, Settings, SettingsFile};

fuzz_target!(|text: &str| {
    let path = Path::new("torpor.toml");
    match SettingsFile::parse(text, path) {
        Ok(file) => {
            let settings = Settings::new(&file, None);
            for function in settings.named() {
                let _ = settings.of(function);
            }
        }
        Err(error) => {
            if let FileError::Wrong { line, .. } = &error {
                assert!((1..=text.matches('\n').count() + 1).contains(line), "line {line} of {text:?}");
            }
            assert!(error.to_string().starts_with("torpor.toml"), "{error}");
        }
    }
});
