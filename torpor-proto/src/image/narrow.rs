//! A container without the code of other GPUs.
//!
//! Libraries bring code for every GPU there is; PyTorch 2.11's containers have it for six. Leaving the rest out before anything
//! is hashed or sent saves that much, and pages of libraries that are never read are never faulted in.

use super::fatbin::{self, Entry, EntryKind, container_of};

/// The container at the start of `bytes` with those entries only that a GPU of compute capability `sm` (90 for 9.0) may use:
/// cubins of its major and at most its minor version, PTX for at most its version (CUDA C++ programming guide, *Binary
/// Compatibility* and *PTX Compatibility*), and kinds that this crate does not know.
///
/// None if that is all of them, if there is no code for this GPU, or if the container is damaged: then it is the driver that
/// should say so, of the whole.
#[must_use]
pub fn for_gpu(bytes: &[u8], sm: u32) -> Option<Vec<u8>> {
    let entries: Vec<_> = fatbin::entries(bytes).ok()?.collect::<Result<_, _>>().ok()?;
    let (kept, others): (Vec<&Entry<'_>>, Vec<_>) = entries.iter().partition(|entry| may_be_used(entry, sm));
    if others.is_empty() || !kept.iter().any(|entry| is_code(entry.kind)) {
        return None;
    }
    Some(container_of(kept.iter().flat_map(|entry| [entry.header, entry.stored])))
}

fn is_code(kind: EntryKind) -> bool {
    kind == EntryKind::PTX || kind == EntryKind::CUBIN
}

fn may_be_used(entry: &Entry<'_>, sm: u32) -> bool {
    match entry.kind {
        EntryKind::CUBIN => entry.sm / 10 == sm / 10 && entry.sm <= sm,
        EntryKind::PTX => entry.sm <= sm,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::{container, plain_entry};
    use super::*;

    const CUBIN: EntryKind = EntryKind::CUBIN;
    const PTX: EntryKind = EntryKind::PTX;
    const UNKNOWN: EntryKind = EntryKind(8);

    fn with(entries: &[(EntryKind, u32)]) -> Vec<u8> {
        let entry = |&(kind, sm): &(EntryKind, u32)| {
            plain_entry(kind, sm, if sm < 100 { 0x40 } else { 0x70 }, format!("{kind:?} {sm}").as_bytes())
        };
        container(&entries.iter().map(entry).collect::<Vec<_>>())
    }

    #[test]
    fn what_a_gpu_cannot_use_is_left_out_and_the_rest_is_as_it_was() {
        let all = with(&[
            (CUBIN, 75),
            (CUBIN, 80),
            (PTX, 80),
            (CUBIN, 86),
            (UNKNOWN, 100),
            (CUBIN, 90),
            (PTX, 100),
        ]);
        let narrowed = |sm| for_gpu(&all, sm).expect("something is left out");
        assert!(narrowed(90) == with(&[(PTX, 80), (UNKNOWN, 100), (CUBIN, 90)]));
        assert!(narrowed(86) == with(&[(CUBIN, 80), (PTX, 80), (CUBIN, 86), (UNKNOWN, 100)]));
        assert!(narrowed(80) == with(&[(CUBIN, 80), (PTX, 80), (UNKNOWN, 100)]));
        assert!(narrowed(120) == with(&[(PTX, 80), (UNKNOWN, 100), (PTX, 100)]));
    }

    #[test]
    fn a_container_stays_whole_if_nothing_or_all_could_be_left_out_or_it_is_damaged() {
        let own = with(&[(CUBIN, 90), (PTX, 90), (UNKNOWN, 100)]);
        assert_eq!(for_gpu(&own, 90), None);
        let foreign = with(&[(CUBIN, 80), (PTX, 100), (UNKNOWN, 100)]);
        assert_eq!(for_gpu(&foreign, 90), None);
        let mut damaged = with(&[(CUBIN, 80), (CUBIN, 90)]);
        // The second entry's header claims less than a header has.
        let second = damaged.len() / 2 + 8;
        damaged[second + 4] = 1;
        assert_eq!(for_gpu(&damaged, 90), None);
        assert_eq!(for_gpu(b"no container", 90), None);
    }
}
