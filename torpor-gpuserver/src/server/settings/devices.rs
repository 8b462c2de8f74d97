//! How many devices the programs of a function see.

use serde::de::{Deserialize, Deserializer};
use std::fmt;
use std::str::FromStr;
use torpor_proto::command::MOST_DEVICES;

/// A number of devices, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceCount(u32);

/// No program can see so many devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a function's programs see 1 to {MOST_DEVICES} devices")]
pub struct InvalidDeviceCount;

impl DeviceCount {
    /// What a key of the settings file has to be.
    pub(super) const EXPECTED: &str = "a whole number of devices from 1 to 8";

    /// Checks a number.
    ///
    /// # Errors
    /// [`InvalidDeviceCount`].
    pub fn new(count: u32) -> Result<Self, InvalidDeviceCount> {
        const { assert!(MOST_DEVICES == 8, "the number in the text") };
        if (1..=MOST_DEVICES).contains(&count) { Ok(Self(count)) } else { Err(InvalidDeviceCount) }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// Whether programs see more than the one.
    #[must_use]
    pub fn is_several(self) -> bool {
        self.0 > 1
    }
}

impl Default for DeviceCount {
    fn default() -> Self {
        Self(1)
    }
}

impl fmt::Display for DeviceCount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for DeviceCount {
    type Err = InvalidDeviceCount;

    fn from_str(text: &str) -> Result<Self, InvalidDeviceCount> {
        text.parse().map_err(|_| InvalidDeviceCount).and_then(Self::new)
    }
}

impl<'de> Deserialize<'de> for DeviceCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let convert = |number| u32::try_from(number).ok().and_then(|count| Self::new(count).ok());
        deserializer.deserialize_i64(super::text::Whole { expecting: Self::EXPECTED, convert })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::settings::file::SettingsFile;
    use std::path::Path;

    #[test]
    fn a_program_sees_one_to_eight_devices() {
        let read = |text: &str| SettingsFile::parse(&format!("[functions.f]\ngpus = {text}"), Path::new("t"));
        for (text, count) in [("1", 1), ("2", 2), ("8", 8)] {
            assert_eq!(text.parse::<DeviceCount>().unwrap().get(), count);
            let file = read(text).unwrap();
            assert_eq!(file.functions.values().next().unwrap().gpus.unwrap().get(), count);
        }
        for text in ["0", "9", "-1", "4294967297"] {
            assert!(text.parse::<DeviceCount>().is_err(), "{text}");
            let said = read(text).unwrap_err().to_string();
            assert!(said.contains("from 1 to 8"), "{said}");
        }
        assert_eq!(DeviceCount::default().get(), 1);
    }
}
