//! What a program has said of managed memory, page by page, to be read back.

use super::place::Place;
use std::collections::BTreeMap;
use torpor_proto::error::CudaError;
use torpor_proto::layout::{AddressRange, PAGE_BYTES};

/// A `CUmem_advise`, with the place that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Mostly read, or not any more.
    ReadMostly(bool),
    /// The best place, or none.
    Preferred(Option<Place>),
    /// A processor that reads or writes it, or does not any more.
    AccessedBy(Place, bool),
}

impl Advice {
    /// By its number in `cuda.h`. `place` is asked for where the advice is about one.
    ///
    /// # Errors
    /// `INVALID_VALUE` for what is no advice, or not for this place; those of `place`.
    pub fn of(code: u32, place: impl FnOnce() -> Result<Place, CudaError>) -> Result<Self, CudaError> {
        match code {
            1 | 2 => Ok(Self::ReadMostly(code == 1)),
            3 => Ok(Self::Preferred(Some(place()?))),
            4 => Ok(Self::Preferred(None)),
            5 | 6 => match place()? {
                place if place.is_processor() => Ok(Self::AccessedBy(place, code == 5)),
                _ => Err(CudaError::INVALID_VALUE),
            },
            _ => Err(CudaError::INVALID_VALUE),
        }
    }
}

/// What was said of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    is_read_mostly: bool,
    preferred: Option<Place>,
    accessed_by: Vec<Place>,
    prefetched_to: Option<Place>,
}

/// What was said of all pages: that of an address is what stands at the last key that is not above it, or nothing.
#[derive(Debug, Default)]
pub(super) struct AdvisedPages(BTreeMap<u64, Said>);

impl AdvisedPages {
    pub(super) fn advise(&mut self, range: AddressRange, advice: Advice) {
        self.change(range, |said| match advice {
            Advice::ReadMostly(is) => said.is_read_mostly = is,
            Advice::Preferred(place) => said.preferred = place,
            Advice::AccessedBy(place, is) => {
                said.accessed_by.retain(|&known| known != place);
                said.accessed_by.extend(is.then_some(place));
                said.accessed_by.sort_unstable();
            }
        });
    }

    pub(super) fn prefetch(&mut self, range: AddressRange, place: Place) {
        self.change(range, |said| said.prefetched_to = Some(place));
    }

    /// Nothing was said of memory that was just allocated.
    pub(super) fn forget(&mut self, range: AddressRange) {
        self.change(range, |said| *said = Said::default());
    }

    pub(super) fn is_read_mostly(&self, range: AddressRange) -> bool {
        self.within(range).all(|said| said.is_read_mostly)
    }

    /// The preferred place of all pages, if they have the same.
    pub(super) fn preferred(&self, range: AddressRange) -> Option<Place> {
        self.common(range, |said| said.preferred)
    }

    /// Where all pages were prefetched to, if it was the same place.
    pub(super) fn prefetched_to(&self, range: AddressRange) -> Option<Place> {
        self.common(range, |said| said.prefetched_to)
    }

    /// The processors that access all pages.
    pub(super) fn accessed_by(&self, range: AddressRange) -> Vec<Place> {
        let mut all = self.within(range);
        let first = all.next().map(|said| said.accessed_by.clone()).unwrap_or_default();
        all.fold(first, |mut common, said| {
            common.retain(|place| said.accessed_by.contains(place));
            common
        })
    }

    fn common(&self, range: AddressRange, of: impl Fn(&Said) -> Option<Place>) -> Option<Place> {
        let mut all = self.within(range).map(of);
        let first = all.next()?;
        all.all(|other| other == first).then_some(first)?
    }

    /// What was said of the pages of a range that has one, in their order; the same may come several times.
    fn within(&self, range: AddressRange) -> impl Iterator<Item = &Said> {
        static NOTHING: Said =
            Said { is_read_mostly: false, preferred: None, accessed_by: Vec::new(), prefetched_to: None };
        let pages = pages(range);
        let first = self.0.range(..=pages.address).next_back().map_or(&NOTHING, |(_, said)| said);
        let inside = self.0.range(pages.address + 1..pages.end().max(pages.address + 1));
        std::iter::once(first).chain(inside.map(|(_, said)| said))
    }

    fn change(&mut self, range: AddressRange, change: impl Fn(&mut Said)) {
        let pages = pages(range);
        for end in [pages.address, pages.end()] {
            let before = self.0.range(..=end).next_back().map(|(_, said)| said.clone()).unwrap_or_default();
            self.0.insert(end, before);
        }
        self.0.range_mut(pages.address..pages.end()).for_each(|(_, said)| change(said));
        self.merge(pages);
    }

    /// Keys that say what the one before them says are not needed.
    fn merge(&mut self, changed: AddressRange) {
        let mut before =
            self.0.range(..changed.address).next_back().map(|(_, said)| said.clone()).unwrap_or_default();
        let keys: Vec<u64> = self.0.range(changed.address..=changed.end()).map(|(&key, _)| key).collect();
        for key in keys {
            match self.0.get(&key) {
                Some(said) if *said == before => drop(self.0.remove(&key)),
                Some(said) => before.clone_from(said),
                None => {}
            }
        }
    }
}

/// The whole pages that a range touches.
fn pages(range: AddressRange) -> AddressRange {
    let address = range.address / PAGE_BYTES * PAGE_BYTES;
    let end = range.end().checked_next_multiple_of(PAGE_BYTES).unwrap_or(u64::MAX);
    AddressRange { address, bytes: end - address }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: u64 = 1 << 30;

    fn range(first: u64, count: u64) -> AddressRange {
        AddressRange { address: BASE + first * PAGE_BYTES, bytes: count * PAGE_BYTES }
    }

    #[test]
    fn what_was_said_of_all_pages_alone_is_told() {
        let mut pages = AdvisedPages::default();
        assert!(!pages.is_read_mostly(range(0, 1)) && pages.preferred(range(0, 1)).is_none());
        pages.advise(range(2, 4), Advice::ReadMostly(true));
        assert!(pages.is_read_mostly(range(2, 4)) && pages.is_read_mostly(range(3, 1)));
        assert!(!pages.is_read_mostly(range(1, 2)) && !pages.is_read_mostly(range(5, 2)));
        pages.advise(range(3, 1), Advice::ReadMostly(false));
        assert!(!pages.is_read_mostly(range(2, 4)) && pages.is_read_mostly(range(4, 2)));
        pages.advise(range(0, 4), Advice::AccessedBy(Place::Device(0), true));
        pages.advise(range(2, 4), Advice::AccessedBy(Place::Host, true));
        assert_eq!(pages.accessed_by(range(2, 2)), [Place::Device(0), Place::Host]);
        assert_eq!(pages.accessed_by(range(0, 4)), [Place::Device(0)]);
        assert_eq!(pages.accessed_by(range(0, 6)), []);
    }

    #[test]
    fn a_part_of_a_page_is_that_page() {
        let mut pages = AdvisedPages::default();
        let inside = AddressRange { address: BASE + PAGE_BYTES + 17, bytes: PAGE_BYTES };
        pages.prefetch(inside, Place::Device(0));
        assert_eq!(pages.prefetched_to(range(1, 2)), Some(Place::Device(0)));
        assert_eq!(pages.prefetched_to(range(0, 2)), None);
        assert_eq!(
            pages.prefetched_to(AddressRange { address: BASE + PAGE_BYTES, bytes: 1 }),
            Some(Place::Device(0))
        );
    }

    #[test]
    fn memory_that_was_freed_leaves_nothing() {
        let mut pages = AdvisedPages::default();
        pages.advise(range(0, 9), Advice::Preferred(Some(Place::Host)));
        pages.prefetch(range(3, 2), Place::Device(0));
        pages.forget(range(0, 9));
        assert!(pages.0.is_empty());
    }

    proptest! {
        #[test]
        fn each_page_has_what_was_last_said_of_it(
            steps in prop::collection::vec((0..20u64, 1..8u64, prop::option::of(-1..1i32)), 1..60)
        ) {
            let (mut pages, mut model) = (AdvisedPages::default(), vec![None; 32]);
            for (first, count, place) in steps {
                let place = place.and_then(|number| Place::of_number(number).ok());
                pages.advise(range(first, count), Advice::Preferred(place));
                model[first as usize..(first + count) as usize].fill(place);
                for (page, &said) in model.iter().enumerate() {
                    prop_assert_eq!(pages.preferred(range(page as u64, 1)), said);
                }
                prop_assert_eq!(pages.preferred(range(first, count)), place);
                let changes = model.windows(2).filter(|two| two[0] != two[1]).count() + 1;
                prop_assert!(pages.0.len() <= changes, "{:?}", pages);
            }
        }
    }
}
