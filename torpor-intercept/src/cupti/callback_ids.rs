//! The numbers that CUPTI has for functions (`CUpti_CallbackId`).
//!
//! `cupti-callbacks.tsv` has them for every function that this library exports: from cupti_driver_cbid.h and
//! cupti_runtime_cbid.h of CUDA 13.0, where a runtime function that is there in several versions is the newest one. Of what nvcc's
//! code calls by itself only the launch is there, under the number of `cudaLaunchKernel`, which it is: profilers
//! that are older than CUDA 13 (Kineto in PyTorch 2.11) have no name for the others' numbers. The headers promise that numbers never
//! change.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// One of the two APIs. The values are those of `CUpti_ActivityKind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Api {
    Driver = 4,
    Runtime = 5,
}

/// A function as CUPTI knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallbackId {
    pub(super) api: Api,
    pub(super) number: u32,
}

/// Numbers are below this: the headers of CUDA 13.0 end at 805.
const NUMBERS: usize = 1024;

/// Which functions of an API the program wants records of.
pub(super) struct Wanted([AtomicU64; NUMBERS / 64]);

static DRIVER: Wanted = Wanted([const { AtomicU64::new(0) }; NUMBERS / 64]);
static RUNTIME: Wanted = Wanted([const { AtomicU64::new(0) }; NUMBERS / 64]);

impl Api {
    pub(super) fn wanted(self) -> &'static Wanted {
        match self {
            Self::Driver => &DRIVER,
            Self::Runtime => &RUNTIME,
        }
    }
}

impl Wanted {
    /// All, or none.
    pub(super) fn set_all(&self, is_wanted: bool) {
        self.0.iter().for_each(|word| word.store(if is_wanted { u64::MAX } else { 0 }, Ordering::Relaxed));
    }

    /// One; false if there is no such number.
    pub(super) fn set(&self, number: u32, is_wanted: bool) -> bool {
        let Some(word) = self.0.get(number as usize / 64) else { return false };
        let bit = 1 << (number % 64);
        if is_wanted {
            word.fetch_or(bit, Ordering::Relaxed);
        } else {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
        true
    }

    pub(super) fn has(&self, number: u32) -> bool {
        let word = self.0.get(number as usize / 64).map_or(0, |word| word.load(Ordering::Relaxed));
        word & (1 << (number % 64)) != 0
    }

    pub(super) fn has_any(&self) -> bool {
        self.0.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }
}

/// CUPTI's number for a function; `None` for what profilers do not see.
pub(super) fn find(function: &str) -> Option<CallbackId> {
    static TABLE: OnceLock<HashMap<&str, CallbackId>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        include_str!("../../cupti-callbacks.tsv").lines().skip(1).filter_map(parse).collect()
    });
    table.get(function).copied()
}

fn parse(line: &'static str) -> Option<(&'static str, CallbackId)> {
    let mut fields = line.split('\t');
    let (name, api, number) = (fields.next()?, fields.next()?, fields.next()?);
    let api = match api {
        "driver" => Api::Driver,
        "runtime" => Api::Runtime,
        _ => return None,
    };
    Some((name, CallbackId { api, number: number.parse().ok()? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_line_names_a_function_once() {
        let lines: Vec<_> = include_str!("../../cupti-callbacks.tsv").lines().skip(1).collect();
        let names: HashSet<_> = lines.iter().filter_map(|line| parse(line)).map(|(name, _)| name).collect();
        assert_eq!(names.len(), lines.len());
        assert!(lines.iter().filter_map(|line| parse(line)).all(|(_, id)| (id.number as usize) < NUMBERS));
    }

    #[test]
    fn launches_have_the_numbers_that_kineto_knows() {
        let numbers = [
            ("cudaLaunchKernel", Api::Runtime, 211),
            ("__cudaLaunchKernel", Api::Runtime, 211),
            ("cudaLaunchKernelExC", Api::Runtime, 430),
            ("cudaMemcpyAsync", Api::Runtime, 41),
            ("cuLaunchKernel", Api::Driver, 307),
            ("cuLaunchKernelEx", Api::Driver, 652),
        ];
        for (name, api, number) in numbers {
            assert_eq!(find(name), Some(CallbackId { api, number }), "{name}");
        }
        assert_eq!([find("__cudaPushCallConfiguration"), find("cudaNoSuchFunction")], [None; 2]);
    }

    #[test]
    fn functions_are_wanted_all_or_one_by_one() {
        let wanted = Wanted([const { AtomicU64::new(0) }; NUMBERS / 64]);
        wanted.set_all(true);
        assert!(wanted.set(211, false) && !wanted.has(211) && wanted.has(212));
        wanted.set_all(false);
        assert!(!wanted.has_any() && wanted.set(805, true) && wanted.has_any());
        assert!(!wanted.set(NUMBERS as u32, true) && !wanted.has(u32::MAX));
    }
}
