//! Edges of registered memory, which lie in pages with other objects of the program's and stay there: kernels use copies of them
//! in the host range, their *shadows*.
//!
//! Whatever is posted comes behind what the program has changed since, which is copied to the shadows; whoever is answered finds what
//! the GPU has changed by then, which is copied back. What both had last tells who has changed a byte, and that of the program
//! holds if both have: it comes later, or races. No byte is written on either side but those that the other one has changed, as
//! both may be writing others at that moment.
//!
//! Only edges whose device address the program was told have shadows that are kept: nobody else can use them. Without any, all
//! this costs a post one load.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use torpor_proto::layout::{AddressRange, PAGE_BYTES};

/// The edges of this process that have shadows.
#[derive(Default)]
pub(in crate::core) struct Edges {
    are_any: AtomicBool,
    /// Nothing else is locked by who has locked it.
    shown: Mutex<Vec<Edge>>,
}

/// One, as far as it lies in one page.
struct Edge {
    range: AddressRange,
    /// Where its shadow begins.
    shadow: u64,
    /// What both had last.
    snapshot: Box<[u8]>,
}

/// So much of an edge is looked at in one piece.
type Page = [u8; PAGE_BYTES as usize];

impl Edges {
    /// The program is told of a shadow, which begins at an address.
    pub(super) fn show(&self, edge: AddressRange, shadow: u64) {
        let mut shown = self.lock();
        let mut address = edge.address;
        while address < edge.end() {
            let end = edge.end().min((address / PAGE_BYTES + 1) * PAGE_BYTES);
            let range = AddressRange { address, bytes: end - address };
            shown.push(Edge::new(range, shadow + (address - edge.address)));
            address = end;
        }
        self.are_any.store(!shown.is_empty(), Ordering::Relaxed);
    }

    /// Those in a range have no shadows any more. The GPU has done with them.
    pub(super) fn hide(&self, registered: AddressRange) {
        let mut shown = self.lock();
        shown.retain_mut(|edge| {
            let is_hidden = registered.contains(edge.range.address, edge.range.bytes);
            if is_hidden {
                edge.take();
            }
            !is_hidden
        });
        self.are_any.store(!shown.is_empty(), Ordering::Relaxed);
    }

    /// Before something is posted: the GPU gets what the program has changed.
    #[inline]
    pub(in crate::core) fn give(&self) {
        if self.are_any.load(Ordering::Relaxed) {
            self.give_all();
        }
    }

    /// When something is known to be done, before anybody is told: the program gets what the GPU has changed.
    #[inline]
    pub(in crate::core) fn take(&self) {
        if self.are_any.load(Ordering::Relaxed) {
            self.take_all();
        }
    }

    #[cold]
    fn give_all(&self) {
        self.lock().iter_mut().for_each(Edge::give);
    }

    #[cold]
    fn take_all(&self) {
        self.lock().iter_mut().for_each(Edge::take);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Edge>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Edge {
    fn new(range: AddressRange, shadow: u64) -> Self {
        let mut snapshot = vec![0; range.bytes as usize].into_boxed_slice();
        // Memory that is gone has no shadow to be kept.
        read_program(range.address, &mut snapshot);
        // SAFETY: the shadow is as long as the range, in this process's host range, and nobody has been told of it.
        unsafe { std::ptr::copy_nonoverlapping(snapshot.as_ptr(), pointer(shadow), snapshot.len()) };
        Self { range, shadow, snapshot }
    }

    fn give(&mut self) {
        let mut page: Page = [0; _];
        let own = &mut page[..self.snapshot.len()];
        if !read_program(self.range.address, own) || *own == *self.snapshot {
            return;
        }
        for (index, (had, &own)) in self.snapshot.iter_mut().zip(&*own).enumerate() {
            if own != *had {
                *had = own;
                // SAFETY: the shadow lies in this process's host range as long as it is shown.
                unsafe { pointer(self.shadow).add(index).write_volatile(own) };
            }
        }
    }

    fn take(&mut self) {
        let (mut page, mut other_page): (Page, Page) = ([0; _], [0; _]);
        let (theirs, own) = (&mut page[..self.snapshot.len()], &mut other_page[..self.snapshot.len()]);
        // SAFETY: the shadow lies in this process's host range as long as it is shown. What the GPU is writing now is taken
        // again when that is done.
        unsafe { std::ptr::copy_nonoverlapping(pointer(self.shadow), theirs.as_mut_ptr(), theirs.len()) };
        if *theirs == *self.snapshot || !read_program(self.range.address, own) {
            return;
        }
        for (index, had) in self.snapshot.iter_mut().enumerate() {
            if theirs[index] != *had && own[index] == *had {
                *had = theirs[index];
                // SAFETY: registered memory is there and writable (cuMemHostRegister); that it is there the system has just said.
                unsafe { pointer(self.range.address).add(index).write_volatile(theirs[index]) };
            }
        }
    }
}

/// Reads memory of the program's, unless it is there no more: a program that frees what it has registered goes on with CUDA, and
/// so it does here.
fn read_program(address: u64, into: &mut [u8]) -> bool {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec { iov_base: pointer(address).cast(), iov_len: into.len() };
    // SAFETY: the local side is this slice. The system checks the other one.
    let read =
        unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
    if read >= 0 {
        return read.cast_unsigned() == into.len();
    }
    let error = std::io::Error::last_os_error().raw_os_error();
    let may_not_ask = matches!(error, Some(libc::ENOSYS | libc::EPERM));
    if may_not_ask {
        // SAFETY: registered memory is there as long as it is registered (cuMemHostRegister).
        unsafe { std::ptr::copy_nonoverlapping(pointer(address), into.as_mut_ptr(), into.len()) };
    }
    may_not_ask
}

fn pointer(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the program has and what the GPU sees of it, of which a part is an edge.
    struct Sides {
        own: Vec<u8>,
        shadow: Vec<u8>,
        edges: Edges,
        edge: AddressRange,
    }

    impl Sides {
        fn of(bytes: usize, part: std::ops::Range<usize>) -> Self {
            let own: Vec<u8> = (0..bytes).map(|index| index as u8).collect();
            let mut shadow = vec![0xee; bytes];
            let edges = Edges::default();
            let address = own.as_ptr().expose_provenance() + part.start;
            let edge = AddressRange { address: address as u64, bytes: part.len() as u64 };
            edges.show(edge, (shadow.as_mut_ptr().expose_provenance() + part.start) as u64);
            Self { own, shadow, edges, edge }
        }
    }

    /// A store that no compiler takes for impossible, since others look at the vector by its address.
    fn write(side: &mut [u8], index: usize, value: u8) {
        // SAFETY: a reference to the byte.
        unsafe { std::ptr::from_mut(&mut side[index]).write_volatile(value) };
    }

    fn read(side: &[u8], index: usize) -> u8 {
        // SAFETY: a reference to the byte.
        unsafe { std::ptr::from_ref(&side[index]).read_volatile() }
    }

    #[test]
    fn each_side_gets_what_the_other_has_changed() {
        let mut sides = Sides::of(64, 10..50);
        assert_eq!((read(&sides.shadow, 10), read(&sides.shadow, 49)), (10, 49));
        write(&mut sides.own, 12, 100);
        sides.edges.give();
        assert_eq!(read(&sides.shadow, 12), 100);
        write(&mut sides.shadow, 12, 12);
        write(&mut sides.shadow, 49, 101);
        sides.edges.take();
        assert_eq!(
            (read(&sides.own, 12), read(&sides.own, 49)),
            (12, 101),
            "what was there before is a change, too"
        );
        let around = |side: &[u8]| [read(side, 9), read(side, 50)];
        assert_eq!((around(&sides.own), around(&sides.shadow)), ([9, 50], [0xee, 0xee]));
    }

    #[test]
    fn what_the_program_has_written_since_is_not_taken_back() {
        let mut sides = Sides::of(16, 0..16);
        write(&mut sides.shadow, 3, 50);
        write(&mut sides.own, 3, 60);
        sides.edges.take();
        assert_eq!(read(&sides.own, 3), 60);
        sides.edges.give();
        assert_eq!(read(&sides.shadow, 3), 60);
    }

    #[test]
    fn nothing_is_given_or_taken_of_what_is_hidden_but_the_last_of_the_gpu() {
        let mut sides = Sides::of(3 * PAGE_BYTES as usize, 100..9000);
        assert_eq!(
            sides.edges.lock().len() as u64,
            (sides.edge.end() - 1) / PAGE_BYTES - sides.edge.address / PAGE_BYTES + 1
        );
        write(&mut sides.shadow, 8999, 77);
        sides.edges.hide(AddressRange { bytes: 50, ..sides.edge });
        assert_ne!(read(&sides.own, 8999), 77, "it is another one's");
        sides.edges.hide(sides.edge);
        assert_eq!(read(&sides.own, 8999), 77);
        assert!(sides.edges.lock().is_empty() && !sides.edges.are_any.load(Ordering::Relaxed));
        write(&mut sides.shadow, 200, 78);
        sides.edges.take();
        assert_eq!(read(&sides.own, 200), 200);
    }

    #[test]
    fn memory_that_is_gone_is_let_be() {
        use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
        let (bytes, access) = (PAGE_BYTES as usize, ProtFlags::READ | ProtFlags::WRITE);
        let mut shadow = vec![0; bytes];
        // SAFETY: a fresh mapping, which this test alone uses.
        let own = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, access, MapFlags::PRIVATE) }.unwrap();
        let edges = Edges::default();
        let edge = AddressRange { address: own.expose_provenance() as u64, bytes: PAGE_BYTES };
        edges.show(edge, shadow.as_mut_ptr().expose_provenance() as u64);
        // To the system it is as good as unmapped, and no other test gets the addresses.
        // SAFETY: nobody but the edges has the mapping.
        unsafe { mprotect(own, bytes, MprotectFlags::empty()) }.unwrap();
        write(&mut shadow, 5, 5);
        edges.take();
        edges.give();
        assert_eq!(read(&shadow, 5), 5);
        edges.hide(edge);
        // SAFETY: nobody has the mapping any more.
        unsafe { munmap(own, bytes) }.unwrap();
    }

    proptest! {
        /// Even bytes are the program's to write, odd ones the GPU's.
        #[test]
        fn neither_side_loses_what_it_writes_beside_the_other(
            steps in prop::collection::vec((0..4u8, 0..16usize, any::<u8>()), 1..80)
        ) {
            let mut sides = Sides::of(16, 0..16);
            let mut model = sides.own.clone();
            for (step, index, value) in steps {
                match step {
                    0 => sides.edges.give(),
                    1 => sides.edges.take(),
                    _ => {
                        let side = if index % 2 == 0 { &mut sides.own } else { &mut sides.shadow };
                        write(side, index, value);
                        model[index] = value;
                    }
                }
                for (index, &value) in model.iter().enumerate() {
                    if index % 2 == 0 || step == 1 {
                        prop_assert_eq!(read(&sides.own, index), value);
                    }
                    if index % 2 == 1 || step == 0 {
                        prop_assert_eq!(read(&sides.shadow, index), value);
                    }
                }
            }
        }
    }
}
