//! Moving pages of the program into the shared host range and back, at unchanged addresses.

use rustix::mm::{MapFlags, MremapFlags, ProtFlags};
use std::ffi::c_void;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};
use torpor_proto::layout::{AddressRange, PAGE_BYTES};

/// The whole pages inside a range. Those at its ends have other objects of the program's, too.
pub(super) fn whole_pages(range: AddressRange) -> AddressRange {
    let start = range.address.next_multiple_of(PAGE_BYTES);
    let end = range.end() / PAGE_BYTES * PAGE_BYTES;
    AddressRange { address: start, bytes: end.saturating_sub(start) }
}

/// Puts the pages of `alias`, with the contents of `pages`, in place of `pages`, where both are seen from then on.
///
/// # Safety
/// `pages` are private, mapped and writable, and nobody writes them meanwhile; `alias` is as long, and in a shared mapping.
pub(super) unsafe fn share(pages: AddressRange, alias: u64) -> rustix::io::Result<()> {
    let bytes = pages.bytes as usize;
    SHARED.add(pages);
    // SAFETY: the caller's promise. An old length of 0 maps the pages of a shared mapping a second time (mremap(2)).
    let shared = unsafe {
        std::ptr::copy_nonoverlapping(pointer(pages.address), pointer(alias), bytes);
        rustix::mm::mremap(pointer(alias).cast(), 0, bytes, MremapFlags::MAYMOVE)
            .and_then(|second| put_over(second, pages))
    };
    if shared.is_err() {
        SHARED.remove(pages);
    }
    shared
}

/// Puts private pages with the same contents in place of shared ones.
///
/// # Safety
/// `pages` are what [`share`] shared, and nobody writes them meanwhile.
pub(super) unsafe fn unshare(pages: AddressRange) -> rustix::io::Result<()> {
    // SAFETY: the caller's promise.
    unsafe { make_private(pages)? };
    SHARED.remove(pages);
    Ok(())
}

/// In the child of a fork: what it writes must not be seen by its parent, whose objects they are.
pub(in crate::core) fn make_private_in_child() {
    // SAFETY: the list that was the parent's when it forked is whole and was not freed, and nothing changes it here.
    let pages = unsafe { SHARED.published.load(Ordering::Acquire).as_ref() };
    for &pages in pages.into_iter().flatten() {
        // SAFETY: the pages are mapped, and the child has no other thread. Makes system calls alone.
        let _ = unsafe { make_private(pages) };
    }
}

/// # Safety
/// `pages` are mapped, and nobody writes them meanwhile.
unsafe fn make_private(pages: AddressRange) -> rustix::io::Result<()> {
    let (bytes, place) = (pages.bytes as usize, pointer(pages.address));
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh private mapping takes the contents.
    unsafe {
        let fresh = rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, access, MapFlags::PRIVATE)?;
        std::ptr::copy_nonoverlapping(place, fresh.cast(), bytes);
        put_over(fresh, pages)
    }
}

/// Moves a mapping over pages, which stay mapped, readable and writable throughout.
///
/// # Safety
/// The mapping is as long as the pages, is of nobody else, and has the same bytes.
unsafe fn put_over(mapping: *mut c_void, pages: AddressRange) -> rustix::io::Result<()> {
    let (bytes, place) = (pages.bytes as usize, pointer(pages.address).cast());
    // SAFETY: the caller's promise.
    unsafe {
        let moved = rustix::mm::mremap_fixed(mapping, bytes, bytes, MremapFlags::MAYMOVE, place);
        if moved.is_err() {
            let _ = rustix::mm::munmap(mapping, bytes);
        }
        moved.map(drop)
    }
}

static SHARED: SharedPages =
    SharedPages { published: AtomicPtr::new(std::ptr::null_mut()), change: Mutex::new(()) };

/// What is shared, as the child of a fork can read it, for which a lock may be held for ever.
struct SharedPages {
    /// From a box, or null. Freed only when another one has been published.
    published: AtomicPtr<Vec<AddressRange>>,
    change: Mutex<()>,
}

impl SharedPages {
    /// Before they are shared: a child copies too much rather than too little.
    fn add(&self, pages: AddressRange) {
        self.publish(|all| all.push(pages));
    }

    /// After they were.
    fn remove(&self, pages: AddressRange) {
        self.publish(|all| all.retain(|other| *other != pages));
    }

    fn publish(&self, change: impl FnOnce(&mut Vec<AddressRange>)) {
        let _one_at_a_time = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.published.load(Ordering::Relaxed);
        // SAFETY: null, or from a box that only the holder of the lock frees.
        let mut all = unsafe { old.as_ref() }.cloned().unwrap_or_default();
        change(&mut all);
        self.published.store(Box::into_raw(Box::new(all)), Ordering::Release);
        if !old.is_null() {
            // SAFETY: from a box, and not published any more. A child of a fork sees a copy from before or after this.
            drop(unsafe { Box::from_raw(old) });
        }
    }
}

fn pointer(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

/// Whose memory it is that a program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mapped {
    /// This process's alone: moving its pages leaves nobody behind.
    Private,
    /// In part of a file, or of memory that other processes may have, too.
    Shared,
}

/// What the system says of a range; `None` if a part of it is not there, or not writable.
pub(super) fn mapped(range: AddressRange) -> Option<Mapped> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let (mut covered, mut mapped) = (range.address, Mapped::Private);
    for line in maps.lines() {
        let Some((start, end, permissions)) = parse_map(line) else { continue };
        if end <= covered || start >= range.end() {
            continue;
        }
        if start > covered || !permissions.starts_with("rw") {
            return None;
        }
        if !permissions.ends_with('p') {
            mapped = Mapped::Shared;
        }
        covered = end;
    }
    (covered >= range.end()).then_some(mapped)
}

/// A line of `/proc/self/maps`. Source: proc_pid_maps(5).
fn parse_map(line: &str) -> Option<(u64, u64, &str)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?, fields.next()?))
}

/// Whether a range is in the calling thread's stack, whose pages go their own ways.
pub(super) fn is_on_stack(range: AddressRange) -> bool {
    // SAFETY: the attributes are filled in before they are read, and freed once; the pointers are to live variables.
    let stack = unsafe {
        let mut attributes = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) != 0 {
            return false;
        }
        let (mut lowest, mut bytes) = (std::ptr::null_mut(), 0);
        libc::pthread_attr_getstack(&raw const attributes, &raw mut lowest, &raw mut bytes);
        libc::pthread_attr_destroy(&raw mut attributes);
        AddressRange { address: lowest.addr() as u64, bytes: bytes as u64 }
    };
    stack.address < range.end() && range.address < stack.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_memory_of_this_process_alone_may_move() {
        let private = vec![0u8; 3 * 4096];
        let start = (private.as_ptr().addr() as u64).next_multiple_of(4096);
        assert_eq!(mapped(AddressRange { address: start, bytes: 4096 }), Some(Mapped::Private));
        let code = (mapped as *const () as u64) / 4096 * 4096;
        assert_eq!(mapped(AddressRange { address: code, bytes: 4096 }), None, "nobody may write it");
        assert_eq!(mapped(AddressRange { address: 4096, bytes: 4096 }), None, "nothing is mapped there");
    }

    #[test]
    fn no_page_moves_that_has_something_else_in_it() {
        let pages = |address, bytes| {
            let found = whole_pages(AddressRange { address, bytes });
            (found.address, found.bytes)
        };
        assert_eq!(pages(0x2000, 0x3000), (0x2000, 0x3000));
        assert_eq!(pages(0x2001, 0x3000), (0x3000, 0x2000));
        assert_eq!(pages(0x2000, 0x2fff), (0x2000, 0x2000));
        assert_eq!(pages(0x2010, 0x20).1, 0);
        assert_eq!(pages(0x2ff0, 0x20).1, 0);
    }

    #[test]
    fn shared_pages_are_seen_at_both_places_and_private_ones_again_at_one() {
        use torpor_proto::mapping::{Mapping, create_sealed};
        let bytes = 2 * PAGE_BYTES as usize;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let file = create_sealed("torpor-test", bytes as u64).unwrap();
        let alias = Mapping::anywhere(&file, bytes).unwrap();
        // SAFETY: a fresh mapping, which this test alone uses.
        let own =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, access, MapFlags::PRIVATE) };
        let own = own.unwrap().cast::<u8>();
        let pages = AddressRange { address: own.expose_provenance() as u64, bytes: bytes as u64 };
        let other = alias.address().as_ptr().cast::<u8>();
        // SAFETY: both mappings are this test's, and as long as the pages.
        unsafe {
            own.add(5000).write_volatile(7);
            share(pages, other.expose_provenance() as u64).unwrap();
            assert_eq!(mapped(pages), Some(Mapped::Shared));
            assert_eq!((own.add(5000).read_volatile(), other.add(5000).read_volatile()), (7, 7));
            other.add(1).write_volatile(8);
            assert_eq!(own.add(1).read_volatile(), 8);
            unshare(pages).unwrap();
            assert_eq!(mapped(pages), Some(Mapped::Private));
            other.add(1).write_volatile(9);
            assert_eq!((own.add(1).read_volatile(), own.add(5000).read_volatile()), (8, 7));
        }
    }

    #[test]
    fn a_thread_knows_its_own_stack() {
        let on_stack = [0u8; 64];
        let on_heap = vec![0u8; 64];
        let range = |bytes: &[u8]| AddressRange { address: bytes.as_ptr().addr() as u64, bytes: 64 };
        assert!(is_on_stack(range(&on_stack)) && !is_on_stack(range(&on_heap)));
    }
}
