//! The names of the driver surface: every symbol this library exports, what `cuGetProcAddress` calls it, and what becomes of it.
//!
//! Generated from `driver-names.tsv` by `build.rs`; the table comes from NVIDIA's public headers by
//! `scripts/generate-driver-names`. What becomes of calls is for tests and the page that these write: each pointer of a table costs every
//! program that starts with this library preloaded.

use std::sync::atomic::AtomicBool;

use super::refused::refuse;

/// Which default stream a variant uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// The legacy one, or none at all.
    Plain,
    /// The calling thread's (`_ptds` and `_ptsz` variants).
    PerThread,
}

/// What becomes of a call.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Answered in the process.
    Local,
    /// Becomes this posted command.
    Posted(&'static str),
    /// Becomes this awaited command.
    Awaited(&'static str),
    /// Answered with CUDA_ERROR_NOT_SUPPORTED.
    Refused,
}

/// One variant of one driver function.
#[derive(Debug)]
pub struct Entry {
    /// The name that `cuGetProcAddress` is asked for.
    pub name: &'static str,
    /// The CUDA version that introduced the variant: 1000 × major + 10 × minor.
    pub since: u32,
    /// Which default stream it uses.
    pub streams: Streams,
    /// The function. Its signature is not this one: callers cast it.
    pub address: unsafe extern "C" fn(),
    /// The exported symbol.
    #[cfg(test)]
    pub symbol: &'static str,
    /// What becomes of a call.
    #[cfg(test)]
    pub disposition: Disposition,
    /// A remark for the coverage page.
    #[cfg(test)]
    pub note: &'static str,
}

/// Why no variant was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// No function has this name.
    Name,
    /// The function is newer than the version asked for.
    Version,
}

/// The newest variant of `name` that `version` already had. With `per_thread`, a variant with the calling thread's default
/// stream is preferred to a plain one of the same ABI; without, such variants do not exist.
pub fn find(name: &str, version: u32, per_thread: bool) -> Result<&'static Entry, Missing> {
    let first = ENTRIES.partition_point(|entry| entry.name < name);
    let variants = &ENTRIES[first..];
    let variants = &variants[..variants.partition_point(|entry| entry.name == name)];
    if variants.is_empty() {
        return Err(Missing::Name);
    }
    let fits = |entry: &&Entry| entry.since <= version && (per_thread || entry.streams == Streams::Plain);
    // Sorted by version and per-thread variants last, so the last that fits is the one.
    variants.iter().rfind(fits).ok_or(Missing::Version)
}

include!(concat!(env!("OUT_DIR"), "/driver_surface.rs"));

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn symbol(name: &str, version: u32, per_thread: bool) -> Result<&'static str, Missing> {
        find(name, version, per_thread).map(|entry| entry.symbol)
    }

    #[test]
    fn the_table_is_sorted_and_complete() {
        assert!(ENTRIES.is_sorted_by(|a, b| {
            (a.name, a.since, a.streams == Streams::PerThread)
                < (b.name, b.since, b.streams == Streams::PerThread)
        }));
        let names: HashSet<_> = ENTRIES.iter().map(|entry| entry.name).collect();
        // 447 names and 634 variants from cudaTypedefs.h of CUDA 13.0; the rest are the interoperability headers'.
        assert_eq!((names.len(), ENTRIES.len()), (478, 672));
    }

    #[test]
    fn the_newest_abi_that_the_version_knows_is_found() {
        for (name, version, per_thread, expected) in [
            ("cuMemAlloc", 2000, false, "cuMemAlloc"),
            ("cuMemAlloc", 3019, false, "cuMemAlloc"),
            ("cuMemAlloc", 3020, false, "cuMemAlloc_v2"),
            ("cuMemAlloc", 13000, true, "cuMemAlloc_v2"),
            ("cuCtxGetDevice", 12080, false, "cuCtxGetDevice"),
            ("cuCtxGetDevice", 13000, false, "cuCtxGetDevice_v2"),
            ("cuCtxSynchronize", 13000, false, "cuCtxSynchronize_v2"),
            ("cuMemcpyBatchAsync", 12080, false, "cuMemcpyBatchAsync"),
            ("cuMemcpyBatchAsync", 13000, false, "cuMemcpyBatchAsync_v2"),
            ("cuCtxCreate", 12040, false, "cuCtxCreate_v3"),
            ("cuGetProcAddress", 11030, false, "cuGetProcAddress"),
            ("cuGetProcAddress", 12000, false, "cuGetProcAddress_v2"),
            ("cuTexRefSetAddress2D", 13000, false, "cuTexRefSetAddress2D_v3"),
        ] {
            assert_eq!(symbol(name, version, per_thread), Ok(expected), "{name} {version}");
        }
    }

    #[test]
    fn per_thread_streams_are_found_only_when_asked_for() {
        for (name, version, per_thread, expected) in [
            ("cuMemcpyHtoD", 13000, false, "cuMemcpyHtoD_v2"),
            ("cuMemcpyHtoD", 13000, true, "cuMemcpyHtoD_v2_ptds"),
            ("cuMemcpyHtoD", 6050, true, "cuMemcpyHtoD_v2"),
            ("cuLaunchKernel", 13000, true, "cuLaunchKernel_ptsz"),
            ("cuLaunchKernel", 4000, true, "cuLaunchKernel"),
            ("cuStreamGetCaptureInfo", 11030, true, "cuStreamGetCaptureInfo_v2_ptsz"),
            ("cuStreamGetCaptureInfo", 12030, false, "cuStreamGetCaptureInfo_v3"),
            ("cuDeviceGet", 13000, true, "cuDeviceGet"),
        ] {
            assert_eq!(symbol(name, version, per_thread), Ok(expected), "{name} {version}");
        }
    }

    #[test]
    fn what_is_missing_is_told_apart() {
        assert_eq!(symbol("cuNothing", 13000, false), Err(Missing::Name));
        assert_eq!(symbol("", 13000, false), Err(Missing::Name));
        assert_eq!(symbol("cuMemAlloc_v2", 13000, false), Err(Missing::Name));
        assert_eq!(symbol("cuMemA", 13000, false), Err(Missing::Name));
        assert_eq!(symbol("cuKernelGetFunction", 11080, false), Err(Missing::Version));
    }

    #[test]
    fn each_symbol_has_a_function_of_its_own() {
        let addresses: HashSet<usize> = ENTRIES.iter().map(|entry| entry.address as usize).collect();
        assert_eq!(addresses.len(), ENTRIES.len());
    }
}
