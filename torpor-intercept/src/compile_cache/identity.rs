//! Which compiler calls: two of different releases may be told the same and make different code of it.

use std::ffi::{CStr, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// `NT_GNU_BUILD_ID` (elf.h)
const BUILD_ID: u32 = 3;

/// What is told of the library or program that an address is in: its build ID, else file, size and time of change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallerIdentity(Vec<u8>);

impl CallerIdentity {
    /// Of whoever has code at `address`. None if nobody who could be told apart does.
    pub(crate) fn at(address: usize) -> Option<Self> {
        let mut search = Search { address, found: None };
        // SAFETY: `visit` is called before this returns, with the pointer given here.
        unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
        search.found
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn for_tests(bytes: &[u8]) -> Self {
        Self(bytes.to_owned())
    }
}

struct Search {
    address: usize,
    found: Option<CallerIdentity>,
}

/// Looks at one loaded object. 0 goes on, 1 ends the search.
unsafe extern "C" fn visit(object: *mut libc::dl_phdr_info, _bytes: usize, search: *mut c_void) -> c_int {
    // SAFETY: dl_iterate_phdr(3) gives a loaded object and what it was called with.
    let (object, search) = unsafe { (&*object, &mut *search.cast::<Search>()) };
    // SAFETY: the object has so many headers.
    let headers = unsafe { std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    let start = |header: &libc::Elf64_Phdr| object.dlpi_addr.wrapping_add(header.p_vaddr) as usize;
    let holds_it = |header: &libc::Elf64_Phdr| {
        header.p_type == libc::PT_LOAD && search.address.wrapping_sub(start(header)) < header.p_memsz as usize
    };
    if !headers.iter().any(holds_it) {
        return 0;
    }
    let notes = headers.iter().filter(|header| header.p_type == libc::PT_NOTE).map(|header| {
        // SAFETY: the notes of a loaded object are mapped, with this length, while it is iterated over.
        unsafe { std::slice::from_raw_parts(start(header) as *const u8, header.p_memsz as usize) }
    });
    search.found = notes.into_iter().find_map(build_id).map(CallerIdentity).or_else(|| {
        // SAFETY: the name is null or a C string, valid during the iteration.
        let name = unsafe { (!object.dlpi_name.is_null()).then(|| CStr::from_ptr(object.dlpi_name)) };
        of_file(name.map_or(&[], CStr::to_bytes))
    });
    1
}

/// The build ID among notes: each a header of three words (length of the name, of the contents, kind), name and contents,
/// both filled up to words. Source: elf(5).
fn build_id(mut notes: &[u8]) -> Option<Vec<u8>> {
    while let Some((header, rest)) = notes.split_at_checked(12) {
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (name_bytes, bytes, kind) = (word(0) as usize, word(4) as usize, word(8));
        let (name, rest) = rest.split_at_checked(name_bytes.checked_next_multiple_of(4)?)?;
        let (contents, rest) = rest.split_at_checked(bytes.checked_next_multiple_of(4)?)?;
        if kind == BUILD_ID && name.starts_with(b"GNU\0") {
            return contents.get(..bytes).map(<[u8]>::to_owned).filter(|id| !id.is_empty());
        }
        notes = rest;
    }
    None
}

/// The main program has no name.
fn of_file(name: &[u8]) -> Option<CallerIdentity> {
    let name = if name.is_empty() { b"/proc/self/exe" } else { name };
    let file = std::fs::metadata(Path::new(std::ffi::OsStr::from_bytes(name))).ok()?;
    let text = format!("{} {}.{}", file.len(), file.mtime(), file.mtime_nsec());
    Some(CallerIdentity([name, b" ", text.as_bytes()].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_program_are_told_apart() {
        let own = CallerIdentity::at(of_file as *const () as usize).unwrap();
        let libc = CallerIdentity::at(libc::getpid as *const () as usize);
        assert_eq!(CallerIdentity::at(build_id as *const () as usize).as_ref(), Some(&own));
        assert!(libc.is_some() && libc.as_ref() != Some(&own));
        assert_eq!(CallerIdentity::at(8), None);
        assert!(of_file(b"").is_some() && of_file(b"/not/there").is_none());
    }

    #[test]
    fn notes_that_are_cut_off_have_no_build_id() {
        let note = [&[4, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0][..], b"GNU\0", &[7, 8, 0, 0]].concat();
        assert_eq!(build_id(&note), Some(vec![7, 8]));
        for cut in 0..note.len() {
            assert_eq!(build_id(&note[..cut]), None, "{cut}");
        }
        let huge = [&[255; 8][..], &[3, 0, 0, 0], &[0; 64]].concat();
        assert_eq!(build_id(&huge), None);
    }
}
