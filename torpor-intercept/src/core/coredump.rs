//! What a program says of core dumps of the GPU: remembered and told again. Nothing is ever dumped, for what a kernel of this
//! program has done to a GPU that others use is theirs, too.

use super::CudaResult;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};
use torpor_proto::error::CudaError;

/// A `CUcoredumpSettings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CoredumpSetting(u32);

/// `CU_COREDUMP_TRIGGER_HOST`, `…_ENABLE_USER_TRIGGER`, `…_FILE`, `…_PIPE`, `…_GENERATION_FLAGS`, the last.
const TRIGGER_HOST: u32 = 2;
const USER_TRIGGER: u32 = 4;
const FILE: u32 = 5;
const PIPE: u32 = 6;
const FLAGS: u32 = 7;

/// Characters of a name, and its NUL.
const TEXT_BYTES: usize = 1024;

/// What was set: for all contexts (0), or for one by its handle's address.
type Values = HashMap<(usize, CoredumpSetting), Vec<u8>>;

static SET: Mutex<Option<Values>> = Mutex::new(None);

fn set() -> MutexGuard<'static, Option<Values>> {
    SET.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CoredumpSetting {
    /// # Errors
    /// `INVALID_VALUE` for one that is not known.
    pub fn of(number: u32) -> CudaResult<Self> {
        if (1..=FLAGS).contains(&number) { Ok(Self(number)) } else { Err(CudaError::INVALID_VALUE) }
    }

    fn is_text(self) -> bool {
        matches!(self.0, FILE | PIPE)
    }

    /// How long a value is, at most: a `bool`, a name, or flags.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self.0 {
            FILE | PIPE => TEXT_BYTES,
            FLAGS => size_of::<u32>(),
            _ => size_of::<bool>(),
        }
    }

    fn default(self) -> Vec<u8> {
        let name = |kind| format!("{kind}.cuda.{}.{}\0", host_name(), std::process::id()).into_bytes();
        match self.0 {
            FILE => name("core"),
            PIPE => name("corepipe"),
            number => {
                let mut value = vec![0; self.bytes()];
                value[0] = u8::from(number == TRIGGER_HOST);
                value
            }
        }
    }

    /// What holds for a context, or for all; a name with its NUL.
    #[must_use]
    pub fn value(self, context: *mut c_void) -> Vec<u8> {
        let set = set();
        let of = |context: usize| set.as_ref()?.get(&(context, self)).cloned();
        of(context.addr()).or_else(|| of(0)).unwrap_or_else(|| self.default())
    }

    /// Remembers it for a context, or for all.
    ///
    /// # Errors
    /// `INVALID_VALUE` for a value of another length, or a name that is too long; `NOT_PERMITTED` for what no context has of its own.
    pub fn set(self, context: *mut c_void, mut value: Vec<u8>) -> CudaResult<()> {
        if !context.is_null() && matches!(self.0, USER_TRIGGER | PIPE) {
            return Err(CudaError::NOT_PERMITTED);
        }
        if self.is_text() {
            let length = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
            value.truncate(length);
            value.push(0);
            if value.len() > TEXT_BYTES {
                return Err(CudaError::INVALID_VALUE);
            }
        } else if value.len() != self.bytes() {
            return Err(CudaError::INVALID_VALUE);
        }
        set().get_or_insert_default().insert((context.addr(), self), value);
        Ok(())
    }
}

fn host_name() -> String {
    let mut name = [0_u8; 256];
    // SAFETY: a place of that many bytes, of which the last stays a NUL.
    unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
    String::from_utf8_lossy(name.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_for_all_holds_for_each_that_has_nothing_of_its_own() {
        let setting = CoredumpSetting::of(FLAGS).unwrap();
        let (one, two): (*mut c_void, _) =
            (std::ptr::without_provenance_mut(64), std::ptr::without_provenance_mut(128));
        assert_eq!(setting.value(one), [0; 4]);
        setting.set(one, vec![1, 0, 0, 0]).unwrap();
        setting.set(std::ptr::null_mut(), vec![2, 0, 0, 0]).unwrap();
        assert_eq!((setting.value(one)[0], setting.value(two)[0]), (1, 2));
        assert_eq!(setting.set(one, vec![1]), Err(CudaError::INVALID_VALUE));
    }

    #[test]
    fn a_name_ends_where_it_ends() {
        let (file, all) = (CoredumpSetting::of(FILE).unwrap(), std::ptr::null_mut());
        assert!(file.default().starts_with(b"core.cuda.") && file.default().ends_with(b"\0"));
        for given in [b"here".to_vec(), b"here\0rubbish".to_vec()] {
            file.set(all, given).unwrap();
            assert_eq!(file.value(all), b"here\0");
        }
        assert_eq!(file.set(all, vec![b'a'; TEXT_BYTES]), Err(CudaError::INVALID_VALUE));
        assert_eq!(CoredumpSetting::of(8), Err(CudaError::INVALID_VALUE));
    }
}
