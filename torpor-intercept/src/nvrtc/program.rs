//! NVRTC's programs that may be known already.

use crate::compile_cache::{CallerIdentity, CompileCache, Key};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// What a program is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source(blake3::Hash);

impl Source {
    /// An encoded source and the program's name. How it is encoded is told beside it: `parts` is a number of it.
    pub(super) fn encoded(text: &CStr, name: Option<&CStr>, parts: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        let name = name.unwrap_or(c"").to_bytes();
        for part in [text.to_bytes(), name, &parts.to_le_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize())
    }

    /// By what a result of this source is known.
    pub(super) fn key(&self, options: &[&CStr], compiler: &CallerIdentity) -> Key {
        Key::of_program(&self.0, options, compiler)
    }
}

/// What was made of a program. What is empty there was not made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) cubin: Vec<u8>,
    /// With its end, a NUL.
    pub(super) ptx: Vec<u8>,
}

impl Code {
    /// The length of the cubin (8 bytes, little endian), the cubin, the PTX.
    fn encode(&self) -> Vec<u8> {
        [&(self.cubin.len() as u64).to_le_bytes(), &self.cubin[..], &self.ptx[..]].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (cubin, ptx) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        Some(Self { cubin: cubin.to_vec(), ptx: ptx.to_vec() })
    }

    /// What was kept under a key.
    pub(super) fn find(key: &Key) -> Option<Self> {
        CompileCache::of_process().find(key).and_then(|bytes| Self::decode(&bytes))
    }

    /// Keeps it, if there is anything.
    pub(super) fn put(&self, key: &Key) {
        if *self != Self::default() {
            CompileCache::of_process().put(key, &self.encode());
        }
    }
}

/// How far a program is.
#[derive(Debug)]
pub(super) enum State {
    /// NVRTC has it, compiled or not.
    Real(Source),
    /// Its code was found, and NVRTC has not compiled it with these options.
    Found(Code, Vec<CString>),
}

/// By its handle. Those that cannot be known are not in it.
static PROGRAMS: LazyLock<Mutex<HashMap<usize, State>>> = LazyLock::new(Mutex::default);

/// All programs.
pub(super) fn programs() -> MutexGuard<'static, HashMap<usize, State>> {
    PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_all_of_its_parts() {
        let source = |text, name, parts| Source::encoded(text, name, parts);
        let base = source(c"text", Some(c"name"), 2);
        assert_eq!(base, source(c"text", Some(c"name"), 2));
        for other in
            [source(c"textn", Some(c"ame"), 2), source(c"text", None, 2), source(c"text", Some(c"name"), 3)]
        {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_result_is_known_by_source_options_and_compiler() {
        let source = Source::encoded(c"text", None, 2);
        let [one, other] = [b"one", b"two"].map(|bytes| CallerIdentity::for_tests(bytes));
        let base = source.key(&[c"-a", c"-b"], &one);
        assert_eq!(base, source.key(&[c"-a", c"-b"], &one));
        assert_ne!(base, source.key(&[c"-a-b"], &one));
        assert_ne!(base, source.key(&[c"-a", c"-b"], &other));
        assert_ne!(base, Source::encoded(c"text", None, 3).key(&[c"-a", c"-b"], &one));
    }

    #[test]
    fn code_comes_out_as_it_was_put_in() {
        for code in [
            Code { cubin: vec![1, 2, 3], ptx: b"ptx\0".to_vec() },
            Code { cubin: Vec::new(), ptx: b"ptx\0".to_vec() },
            Code { cubin: vec![1], ptx: Vec::new() },
        ] {
            assert_eq!(Code::decode(&code.encode()), Some(code));
        }
        assert_eq!(Code::decode(&[255; 8]), None);
        assert_eq!(Code::decode(&[0; 7]), None);
    }
}
