//! What a program must have in its environment to reach the GPU, and environments that have it.

use libc::c_char;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

/// Entries of an environment that is completed in little room; beyond the second number it is left alone.
const USUAL: usize = 256;
const MOST: usize = 8192;

/// Bytes of an `LD_PRELOAD` that is put together; a longer one is left alone.
const PRELOAD_BYTES: usize = 4096;

const PRELOAD: &[u8] = b"LD_PRELOAD=";

/// What this process was started with.
struct Inheritance {
    /// `LD_PRELOAD=` with this library alone, called as it was for this process.
    preload: CString,
    /// Other entries that a program must have, unless it has its own.
    others: Vec<CString>,
}

static INHERITANCE: OnceLock<Inheritance> = OnceLock::new();

/// Notes what this process was started with. False if there is nothing to pass on: it was not preloaded, or is not to be.
pub(super) fn remember() -> bool {
    let Some(found) = Inheritance::of_process() else { return false };
    INHERITANCE.set(found).is_ok()
}

impl Inheritance {
    fn of_process() -> Option<Self> {
        Self::new(own_file()?, |name| std::env::var_os(name), |path| path.exists())
    }

    fn new(
        own: &CStr,
        variable: impl Fn(&str) -> Option<std::ffi::OsString>,
        exists: impl Fn(&Path) -> bool,
    ) -> Option<Self> {
        if variable("TORPOR_CHILDREN").is_some_and(|value| value == "off") {
            return None;
        }
        let preload = variable("LD_PRELOAD")?;
        let own = libraries(preload.as_bytes()).find(|one| is(one, own.to_bytes()))?;
        let entry =
            |name: &str, value: &OsStr| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok();
        // The folder in which other names lead to this library.
        let folder = variable("LD_LIBRARY_PATH").and_then(|folders| {
            std::env::split_paths(&folders).find(|folder| exists(&folder.join("libcuda.so.1")))
        });
        let folder = folder.and_then(|folder| entry("LD_LIBRARY_PATH", folder.as_os_str()));
        let server = variable("TORPOR_SERVER").and_then(|server| entry("TORPOR_SERVER", &server));
        let preload = CString::new([PRELOAD, own].concat()).ok()?;
        Some(Self { preload, others: folder.into_iter().chain(server).collect() })
    }

    fn own(&self) -> &[u8] {
        &self.preload.to_bytes()[PRELOAD.len()..]
    }
}

/// This library's file, as the loader was told it.
fn own_file() -> Option<&'static CStr> {
    // SAFETY: all zeros are null pointers.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: the address is one of this library's, the place has room for the answer.
    let status = unsafe { libc::dladdr((&raw const super::PREPARE).cast(), &mut found) };
    // SAFETY: the name is the loader's, for as long as the library is loaded, which is as long as the process lives.
    (status != 0 && !found.dli_fname.is_null()).then(|| unsafe { CStr::from_ptr(found.dli_fname) })
}

/// The libraries of a value of `LD_PRELOAD`. Source: ld.so(8).
fn libraries(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| b": ".contains(byte))
}

/// Whether a value of `LD_PRELOAD` has a library in it, called so.
fn lists(value: &[u8], library: &[u8]) -> bool {
    libraries(value).any(|one| one == library)
}

/// Whether a library that is called so has this file: its loader puts a folder in the place of `$ORIGIN`. Source: ld.so(8).
fn is(called: &[u8], file: &[u8]) -> bool {
    match called.strip_prefix(b"$ORIGIN") {
        Some(below) => below.starts_with(b"/") && file.ends_with(below),
        None => called == file,
    }
}

/// Calls with an environment that has what it must; with the given one if it does, or has too many entries.
///
/// # Safety
/// The list ends with a null, or is null itself; its strings end with a NUL.
pub(super) unsafe fn with_ours<R>(environment: super::List, call: impl Fn(super::List) -> R) -> R {
    let Some(ours) = INHERITANCE.get() else { return call(environment) };
    // SAFETY: the caller's promise.
    let given = unsafe { entries(environment) };
    match given.len() + 1 + ours.others.len() {
        0..USUAL => complete::<USUAL, R>(ours, given, environment, call),
        USUAL..MOST => complete::<MOST, R>(ours, given, environment, call),
        _ => call(environment),
    }
}

/// The entries of an environment.
///
/// # Safety
/// As [`with_ours`].
unsafe fn entries<'a>(environment: super::List) -> &'a [*const c_char] {
    if environment.is_null() {
        return &[];
    }
    let mut length = 0;
    // SAFETY: every entry before the null is there, and the null itself.
    while !unsafe { *environment.add(length) }.is_null() {
        length += 1;
    }
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts(environment, length) }
}

/// As [`with_ours`], in a frame of its own with room for so many entries and the null behind them.
#[inline(never)]
fn complete<const ROOM: usize, R>(
    ours: &Inheritance,
    given: &[*const c_char],
    environment: super::List,
    call: impl Fn(super::List) -> R,
) -> R {
    let mut list = [std::ptr::null::<c_char>(); ROOM];
    let mut put_together = [0_u8; PRELOAD_BYTES];
    let mut length = 0;
    let mut add = |entry: *const c_char| {
        if let Some(place) = list.get_mut(length) {
            *place = entry;
            length += 1;
        }
    };
    let (mut is_complete, mut has_preload) = (true, false);
    for &entry in given {
        // SAFETY: `with_ours` was promised strings.
        let text = unsafe { CStr::from_ptr(entry) }.to_bytes();
        let Some(value) = text.strip_prefix(PRELOAD) else {
            add(entry);
            continue;
        };
        has_preload = true;
        let parts = [ours.preload.to_bytes(), b":", value];
        if lists(value, ours.own()) || parts.iter().map(|part| part.len()).sum::<usize>() >= PRELOAD_BYTES {
            add(entry);
            continue;
        }
        is_complete = false;
        let bytes = parts.iter().flat_map(|part| part.iter());
        put_together.iter_mut().zip(bytes).for_each(|(place, &byte)| *place = byte);
        add(put_together.as_ptr().cast());
    }
    let missing = ours.others.iter().filter(|other| !has_name_of(given, other));
    for entry in missing.chain((!has_preload).then_some(&ours.preload)) {
        is_complete = false;
        add(entry.as_ptr());
    }
    // The last place stays null, since there is one more than entries.
    if is_complete { call(environment) } else { call(list.as_ptr()) }
}

/// Whether an environment has a variable of the same name.
fn has_name_of(given: &[*const c_char], entry: &CStr) -> bool {
    let name = entry.to_bytes().split_inclusive(|&byte| byte == b'=').next().unwrap_or_default();
    // SAFETY: `with_ours` was promised strings.
    given.iter().any(|&other| unsafe { CStr::from_ptr(other) }.to_bytes().starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &CStr = c"/opt/libtorpor_intercept.so";

    fn inheritance(variables: &[(&str, &str)]) -> Option<Inheritance> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        Inheritance::new(OWN, variable, |path| path == Path::new("/run/torpor/lib/libcuda.so.1"))
    }

    fn usual() -> Inheritance {
        let variables = [
            ("LD_PRELOAD", "/opt/libtorpor_intercept.so:a.so"),
            ("LD_LIBRARY_PATH", "/home/lib:/run/torpor/lib"),
            ("TORPOR_SERVER", "/run/torpor/functions/f"),
        ];
        inheritance(&variables).unwrap()
    }

    fn completed(given: &[&CStr]) -> Vec<String> {
        let mut list: Vec<_> = given.iter().map(|entry| entry.as_ptr()).collect();
        list.push(std::ptr::null());
        let text = |entry: &*const c_char| {
            // SAFETY: the entries are C strings, of the test or put together.
            unsafe { CStr::from_ptr(*entry) }.to_str().unwrap().to_owned()
        };
        complete::<USUAL, _>(&usual(), &list[..given.len()], list.as_ptr(), |list| {
            // SAFETY: the list ends with a null.
            unsafe { entries(list) }.iter().map(text).collect()
        })
    }

    #[test]
    fn who_was_called_by_the_way_from_its_program_is_passed_on_so() {
        let called = "$ORIGIN/../../opt/libtorpor_intercept.so";
        let variable = |name: &str| (name == "LD_PRELOAD").then(|| format!("a.so:{called}").into());
        let found =
            Inheritance::new(c"/usr/bin/../../opt/libtorpor_intercept.so", variable, |_| false).unwrap();
        assert_eq!(found.own(), called.as_bytes());
        assert!(Inheritance::new(c"/opt/libtorpor_intercept.so", variable, |_| false).is_none());
    }

    #[test]
    fn an_empty_environment_is_given_what_leads_to_the_gpu_and_nothing_else() {
        let ours = [
            "LD_LIBRARY_PATH=/run/torpor/lib",
            "TORPOR_SERVER=/run/torpor/functions/f",
            "LD_PRELOAD=/opt/libtorpor_intercept.so",
        ];
        assert_eq!(completed(&[]), ours);
    }

    #[test]
    fn what_the_program_chose_stays() {
        let given = [c"LD_PRELOAD=b.so", c"TORPOR_SERVER=/g", c"LD_LIBRARY_PATH=/x", c"A=1"];
        let completed = completed(&given);
        assert_eq!(completed[0], "LD_PRELOAD=/opt/libtorpor_intercept.so:b.so");
        assert_eq!(completed[1..], ["TORPOR_SERVER=/g", "LD_LIBRARY_PATH=/x", "A=1"]);
    }

    #[test]
    fn a_complete_environment_is_passed_on_as_it_is() {
        let given = [
            c"LD_PRELOAD=a.so /opt/libtorpor_intercept.so".as_ptr(),
            c"TORPOR_SERVER=".as_ptr(),
            c"LD_LIBRARY_PATH=".as_ptr(),
            std::ptr::null(),
        ];
        let passed_on = complete::<USUAL, _>(&usual(), &given[..3], given.as_ptr(), |list| list);
        assert_eq!(passed_on, given.as_ptr());
    }

    #[test]
    fn who_was_not_preloaded_or_does_not_want_it_passes_nothing_on() {
        assert!(inheritance(&[("LD_PRELOAD", "a.so")]).is_none());
        assert!(inheritance(&[]).is_none());
        let own = ("LD_PRELOAD", "/opt/libtorpor_intercept.so");
        assert!(inheritance(&[own, ("TORPOR_CHILDREN", "off")]).is_none());
        assert_eq!(inheritance(&[own]).unwrap().others.len(), 0);
    }
}
