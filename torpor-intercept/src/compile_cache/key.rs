//! What a result of the compiler is known by: a BLAKE3 hash of all that the result depends on.

use super::identity::CallerIdentity;
use std::cell::Cell;
use std::ffi::CStr;
use std::fmt;

/// A step of the compiler whose results are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// From the front end's code to PTX; of nvJitLink on to machine code.
    Ptx,
    /// From the front end's code or from PTX to machine code.
    Cubin,
    /// From a source to all that NVRTC makes of it.
    Program,
}

impl fmt::Display for Stage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Ptx => "PTX",
            Self::Cubin => "cubin",
            Self::Program => "a program",
        })
    }
}

/// The name of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    stage: Stage,
    hash: blake3::Hash,
}

/// What the last PTX of this thread was made from, for the cubin that is made next.
#[derive(Clone, Copy)]
struct PtxInputs {
    code: blake3::Hash,
    all: blake3::Hash,
}

thread_local! {
    static LAST_PTX: Cell<Option<PtxInputs>> = const { Cell::new(None) };
}

impl Key {
    /// The key of what `caller` makes of `code` with these options, on a host of this kind.
    ///
    /// Beside the front end's code, a cubin's options do not say all: `-ftz=true`, for one, is told to the PTX stage alone, which
    /// NVRTC goes through just before in the same thread. So the cubin's key has what its PTX was made from, and there is
    /// none without. PTX itself, which nvJitLink gives, says all that it was told.
    pub(crate) fn new(
        stage: Stage,
        code: &[u8],
        options: &[u8],
        host: &[u8],
        caller: &CallerIdentity,
    ) -> Option<Self> {
        // As PTX is and the front end's bitcode is not.
        let is_text = code.is_ascii();
        let code = blake3::hash(code);
        let ptx = LAST_PTX.try_with(Cell::take).ok()?;
        let before = match stage {
            Stage::Ptx | Stage::Program => None,
            Stage::Cubin if is_text => None,
            Stage::Cubin => Some(ptx.filter(|ptx| ptx.code == code)?.all),
        };
        let mut hasher = blake3::Hasher::new_derive_key("torpor compile cache 1");
        hasher.update(&[stage as u8]);
        hasher.update(code.as_bytes());
        for text in [options, host, caller.bytes(), before.as_ref().map_or(&[][..], |hash| hash.as_bytes())] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        let hash = hasher.finalize();
        if stage == Stage::Ptx {
            let _ = LAST_PTX.try_with(|last| last.set(Some(PtxInputs { code, all: hash })));
        }
        Some(Self { stage, hash })
    }

    /// The key of what `compiler` makes of a source, known by its hash, with these options.
    pub(crate) fn of_program(source: &blake3::Hash, options: &[&CStr], compiler: &CallerIdentity) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("torpor compile cache 1");
        hasher.update(&[Stage::Program as u8]);
        hasher.update(source.as_bytes());
        for text in options.iter().map(|option| option.to_bytes()).chain([compiler.bytes()]) {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        Self { stage: Stage::Program, hash: hasher.finalize() }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// 32 bytes.
    pub(super) fn bytes(&self) -> &[u8; 32] {
        self.hash.as_bytes()
    }

    /// The same as 64 hexadecimal digits.
    pub(super) fn text(&self) -> String {
        self.hash.to_hex().to_string()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The key of something; another one for each number.
    pub(crate) fn key(number: u8) -> Key {
        Key::new(Stage::Ptx, &[number], b"", b"HOST64", &CallerIdentity::for_tests(b"a")).unwrap()
    }

    /// How the front end's code begins.
    const BITCODE: &[u8] = b"BC\xc0\xde";

    fn made(stage: Stage, code: &[u8], options: &str) -> Option<Key> {
        let caller = CallerIdentity::for_tests(b"a");
        Key::new(stage, code, options.as_bytes(), b"HOST64", &caller)
    }

    #[test]
    fn everything_that_a_result_depends_on_is_in_its_key() {
        let base = made(Stage::Ptx, b"code", " -ftz=0");
        assert_eq!(base, made(Stage::Ptx, b"code", " -ftz=0"));
        let other_caller =
            Key::new(Stage::Ptx, b"code", b" -ftz=0", b"HOST64", &CallerIdentity::for_tests(b"b"));
        let others =
            [made(Stage::Ptx, b"Code", " -ftz=0"), made(Stage::Ptx, b"code", " -ftz=1"), other_caller];
        assert!(others.iter().all(|other| other.is_some() && *other != base));
    }

    #[test]
    fn a_cubin_is_told_apart_by_what_its_ptx_was_told() {
        let cubin_after = |ptx_options| {
            made(Stage::Ptx, BITCODE, ptx_options);
            made(Stage::Cubin, BITCODE, " -arch=sm_90a")
        };
        assert_ne!(cubin_after(" -ftz=0"), cubin_after(" -ftz=1"));
        assert_eq!(cubin_after(" -ftz=0"), cubin_after(" -ftz=0"));
    }

    #[test]
    fn a_cubin_without_its_ptx_has_no_key() {
        LAST_PTX.set(None);
        assert_eq!(made(Stage::Cubin, BITCODE, ""), None);
        made(Stage::Ptx, BITCODE, "");
        assert_eq!(made(Stage::Cubin, b"BC\xc0\xdf", ""), None);
        made(Stage::Ptx, BITCODE, "");
        assert!(made(Stage::Cubin, BITCODE, "").is_some());
        assert_eq!(made(Stage::Cubin, BITCODE, ""), None, "each belongs to one PTX");
    }

    #[test]
    fn a_cubin_of_ptx_is_told_by_that_whatever_was_made_before() {
        LAST_PTX.set(None);
        let alone = made(Stage::Cubin, b".version 9.0", " -arch=sm_90");
        made(Stage::Ptx, BITCODE, " -ftz=1");
        assert_eq!(made(Stage::Cubin, b".version 9.0", " -arch=sm_90"), alone);
        let others = [
            made(Stage::Cubin, b".version 8.0", " -arch=sm_90"),
            made(Stage::Cubin, b".version 9.0", " -arch=sm_90 -O1"),
            made(Stage::Ptx, b".version 9.0", " -arch=sm_90"),
        ];
        assert!(alone.is_some() && others.iter().all(|other| other.is_some() && *other != alone));
    }
}
