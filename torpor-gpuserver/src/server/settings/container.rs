//! Values that say what a container may use.

use crate::server::settings::FunctionSection;
use crate::server::size::ByteSize;
use serde::de::{Deserialize, Deserializer, Error};
use std::num::NonZeroU16;

/// Engines refuse less.
const LEAST_MEMORY: ByteSize = ByteSize(6 << 20);

/// More than any machine has.
const MOST_CPUS: f64 = 65_536.0;

/// Processor time, as a number of processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus(i64);

impl Cpus {
    /// In billionths of a processor, as engines count.
    #[must_use]
    pub fn nano(self) -> i64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Cpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let cpus = f64::deserialize(deserializer)?;
        if (0.01..=MOST_CPUS).contains(&cpus) {
            return Ok(Self((cpus * 1e9).round() as i64));
        }
        Err(D::Error::custom(format_args!(
            "{cpus} is no number of processors: give 0.01 or more, such as 1.5"
        )))
    }
}

impl FunctionSection {
    /// A key of it that only containers have, if there is one.
    #[must_use]
    pub fn container_key(&self) -> Option<&'static str> {
        let keys = [
            ("container_port", self.container_port.is_some()),
            ("container_memory", self.container_memory.is_some()),
            ("cpus", self.cpus.is_some()),
            ("pids_limit", self.pids_limit.is_some()),
            ("user", self.user.is_some()),
            ("read_only", self.read_only.is_some()),
            ("volumes", self.volumes.is_some()),
        ];
        keys.into_iter().find_map(|(key, is_there)| is_there.then_some(key))
    }
}

/// Reads a key that limits a container's memory.
///
/// # Errors
/// What is wrong with it, or that no engine takes so little.
pub fn container_memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ByteSize>, D::Error> {
    let size = ByteSize::deserialize(deserializer)?;
    if size >= LEAST_MEMORY && i64::try_from(size.0).is_ok() {
        return Ok(Some(size));
    }
    Err(D::Error::custom(format_args!("{size} is no memory for a container: use 6MiB or more")))
}

/// Reads a key that is a port.
///
/// # Errors
/// What is wrong with it.
pub fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU16>, D::Error> {
    let number = i64::deserialize(deserializer)?;
    let port = u16::try_from(number).ok().and_then(NonZeroU16::new);
    port.map(Some).ok_or_else(|| D::Error::custom(format_args!("{number} is no port: give 1 to 65535")))
}

#[cfg(test)]
mod tests {
    use crate::server::settings::SettingsFile;
    use std::path::Path;

    #[test]
    fn limits_of_containers_are_checked_where_they_are_read() {
        let read = |text: &str| {
            let text = format!("[functions.f]\n{text}");
            SettingsFile::parse(&text, Path::new("torpor.toml")).map_err(|error| error.to_string())
        };
        let file = read("image = 'any'\ncpus = 1.5\ncontainer_memory = '1GiB'\ncontainer_port = 80").unwrap();
        let section = file.functions.values().next().unwrap();
        assert_eq!(section.cpus.unwrap().nano(), 1_500_000_000);
        assert_eq!(section.container_port.unwrap().get(), 80);
        assert_eq!(
            read("image = 'any'\ncpus = 2").unwrap().functions.values().next().unwrap().cpus.unwrap().nano(),
            2_000_000_000
        );
        for (text, words) in [
            ("cpus = 0", "functions.f.cpus: 0 is no number of processors"),
            ("cpus = nan", "no number of processors"),
            ("container_memory = '1MiB'", "use 6MiB or more"),
            ("container_port = 70000", "1 to 65535"),
            ("pids_limit = 0", "functions.f.pids_limit"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn what_limits_containers_needs_an_image() {
        let parse = |text: &str| SettingsFile::parse(text, Path::new("torpor.toml"));
        let refused = parse("[functions.f]\ncommand = ['a']\ncpus = 2").unwrap_err().to_string();
        assert!(refused.starts_with("torpor.toml: functions.f.cpus is of containers"), "{refused}");
        parse("[defaults]\nimage = 'i'\n[functions.f]\nimage = ''\ncpus = 2").unwrap_err();
        parse("[functions.f]\nimage = 'i'\ncpus = 2").unwrap();
        parse("[defaults]\nimage = 'i'\n[functions.f]\ncpus = 2").unwrap();
        parse("[defaults]\ncpus = 2\n[functions.f]\ncommand = ['a']").unwrap();
    }
}
