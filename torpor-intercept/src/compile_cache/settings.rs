//! The environment variables that CUDA has for its compile cache ("CUDA environment variables" in the programming guide).

use std::ffi::OsString;
use std::path::PathBuf;

/// `CUDA_CACHE_MAXSIZE` where it is not set: 1 GiB.
const DEFAULT_MAX_BYTES: u64 = 1 << 30;

/// What `CUDA_CACHE_MAXSIZE` can be at most: 4 GiB.
const GREATEST_MAX_BYTES: u64 = 4 << 30;

/// Where the cache is and how large it may get.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// None if the environment names no place.
    pub(super) path: Option<PathBuf>,
    pub(super) max_bytes: u64,
}

impl Settings {
    pub(super) fn from_environment() -> Self {
        Self::new(|name| std::env::var_os(name))
    }

    /// No place, and the usual size.
    pub(super) fn nowhere() -> Self {
        Self::new(|_| None)
    }

    fn new(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let base = set("CUDA_CACHE_PATH")
            .map(PathBuf::from)
            .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".nv/ComputeCache")));
        let max_bytes = set("CUDA_CACHE_MAXSIZE").and_then(|text| text.to_str()?.trim().parse().ok());
        Self {
            // The driver's own files are not ours to understand, nor ours its.
            path: base.and_then(|base| std::path::absolute(base.join("torpor")).ok()),
            max_bytes: max_bytes.unwrap_or(DEFAULT_MAX_BYTES).min(GREATEST_MAX_BYTES),
        }
    }
}

/// Whether `CUDA_CACHE_DISABLE` switches the cache off.
pub(crate) fn is_disabled() -> bool {
    std::env::var("CUDA_CACHE_DISABLE")
        .is_ok_and(|value| value.trim().parse() != Ok(0) && !value.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> (Option<String>, u64) {
        let value =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
        let Settings { path, max_bytes } = Settings::new(value);
        (path.map(|path| path.to_str().unwrap().to_owned()), max_bytes)
    }

    #[test]
    fn the_place_is_that_of_cuda() {
        let home = ("HOME", "/home/me");
        assert_eq!(settings(&[home]).0.unwrap(), "/home/me/.nv/ComputeCache/torpor");
        assert_eq!(settings(&[home, ("CUDA_CACHE_PATH", "")]).0.unwrap(), "/home/me/.nv/ComputeCache/torpor");
        assert_eq!(settings(&[home, ("CUDA_CACHE_PATH", "/var/c")]).0.unwrap(), "/var/c/torpor");
        assert_eq!(settings(&[]).0, None);
        let relative = settings(&[("CUDA_CACHE_PATH", "c")]).0.unwrap();
        assert!(
            relative.starts_with('/') && relative.ends_with("/c/torpor"),
            "the program may change its directory"
        );
    }

    #[test]
    fn the_size_is_that_of_cuda() {
        let size = |text| settings(&[("CUDA_CACHE_MAXSIZE", text)]).1;
        assert_eq!([size("4096"), size("0"), size(""), size("many")], [4096, 0, 1 << 30, 1 << 30]);
        assert_eq!(size("99999999999"), 4 << 30);
    }
}
