//! Single cases; `model.rs` has all of them.

use super::*;

const A: ClientId = ClientId(1);
const B: ClientId = ClientId(2);

pub(super) fn content(of: u8) -> Hash {
    [of; 32]
}

pub(super) fn index(slabs: usize, clients: &[ClientId]) -> Index {
    let mut index = Index::new(4);
    (0..slabs).for_each(|_| index.add_slab());
    clients.iter().for_each(|&client| index.admit(client));
    index
}

pub(super) fn ids(places: &[Place]) -> Vec<ChunkId> {
    places.iter().map(|place| place.chunk).collect()
}

/// Reserves a chunk and says what it contains.
fn make(index: &mut Index, client: ClientId, of: u8) -> Place {
    let place = index.reserve(client, 1).unwrap().unwrap()[0];
    index.identify(client, &[(place.chunk, content(of))]).unwrap().0[0]
}

fn spill_all(index: &mut Index) -> usize {
    let tickets = index.begin_spills(usize::MAX);
    let count = tickets.len();
    for ticket in tickets {
        let hash = ticket.hash.unwrap_or(content(0));
        assert!(index.end_spill(ticket, Spilled::Written(hash)));
    }
    count
}

#[test]
fn equal_contents_are_one_chunk_until_nobody_refers_to_it() {
    let mut index = index(1, &[A, B]);
    let first = make(&mut index, A, 7);
    let (second, third) = (make(&mut index, B, 7), make(&mut index, B, 7));
    assert_eq!((first, first), (second, third));
    assert_eq!(index.free_slots(), 3);
    let usage = index.usage();
    assert_eq!((usage.shared, usage.saved_bytes), (1, 2 * crate::chunk::CHUNK_BYTES));
    assert_eq!(index.release(A, &[first.chunk]), (vec![], Ok(())));
    assert_eq!(index.release(B, &[first.chunk]), (vec![], Ok(())));
    assert_eq!(index.free_slots(), 3, "B refers to it once more");
    assert!(index.forget(B).is_empty());
    assert_eq!(index.free_slots(), 4);
    assert_eq!(index.release(A, &[first.chunk]).1, Err(Misuse::NotReferred(first.chunk)));
    assert_eq!(index.contradictions(), Vec::<String>::new());
}

#[test]
fn a_client_may_call_a_chunk_by_the_number_that_it_had_before_it_became_an_equal_one() {
    let mut index = index(1, &[A, B]);
    let equal = make(&mut index, A, 7);
    let own = index.reserve(B, 1).unwrap().unwrap()[0];
    assert_eq!(index.identify(B, &[(own.chunk, content(7))]).unwrap().0, [equal]);
    index.rename(B, [(own.chunk, equal.chunk)]);
    assert_eq!(index.named(B), [(own.chunk, equal)]);
    assert_eq!(index.share(B, &[ClientId(9), A], &[own.chunk]), Ok(()));
    assert_eq!((index.references(A, equal.chunk), index.named(A)), (2, index.named(B)));
    assert_eq!(index.release(B, &[own.chunk]), (vec![], Ok(())));
    assert_eq!(index.references(B, equal.chunk), 0);
    assert!(index.named(B).is_empty(), "it refers to nothing of that name");
    assert_eq!(index.release(A, &[own.chunk, equal.chunk]), (vec![], Ok(())));
    assert_eq!(index.free_slots(), 4);
    index.rename(A, [(1, 2), (2, 2)]);
    assert!(index.has_names(A));
    index.forget_names(A);
    assert!(!index.has_names(A));
    assert_eq!(index.contradictions(), Vec::<String>::new());
}

#[test]
fn only_what_no_leaseholder_refers_to_is_spilled_and_the_longest_unused_first() {
    let mut index = index(2, &[A, B, ClientId(3)]);
    let shared = make(&mut index, A, 1);
    let own = make(&mut index, A, 2);
    assert_eq!(make(&mut index, B, 1), shared);
    make(&mut index, ClientId(3), 3);
    index.touch(B);
    index.touch(ClientId(3));
    index.touch(A);
    assert!(index.begin_spills(9).is_empty());
    assert_eq!(index.revoke_next(|client| client != B), Some(ClientId(3)));
    assert_eq!(index.revoke_next(|client| client != B), Some(A));
    assert_eq!(index.revoke_next(|client| client != B), None);
    assert!(index.awaits_revocation(|client| client == A));
    assert!(index.begin_spills(9).is_empty(), "a lease that is asked back is still held");
    index.revoked(A);
    index.revoked(ClientId(3));
    let tickets = index.begin_spills(9);
    assert_eq!(
        tickets.iter().map(|ticket| ticket.hash).collect::<Vec<_>>(),
        [Some(content(3)), Some(content(2))]
    );
    for ticket in tickets {
        let hash = ticket.hash.unwrap();
        assert!(index.end_spill(ticket, Spilled::Written(hash)));
    }
    assert_eq!(index.grant(A), Ok(None));
    assert_eq!(index.missing(A), [own.chunk]);
    let ticket = index.begin_restore(own.chunk).unwrap();
    assert_eq!(index.begin_restore(own.chunk), None);
    let slot = ticket.slot;
    assert!(index.end_restore(ticket, true));
    let places = index.grant(A).unwrap().unwrap();
    assert_eq!(places, [shared, Place { chunk: own.chunk, slot }]);
    assert_eq!(index.contradictions(), Vec::<String>::new());
}

#[test]
fn a_spill_that_a_new_lease_overtakes_is_void_even_if_the_lease_is_gone_again() {
    let mut index = index(1, &[A]);
    let place = index.reserve(A, 1).unwrap().unwrap()[0];
    index.revoked(A);
    let ticket = index.begin_spills(1).pop().unwrap();
    index.grant(A).unwrap().unwrap();
    index.revoked(A);
    assert!(!index.end_spill(ticket, Spilled::Written(content(1))));
    assert_eq!(index.grant(A).unwrap().unwrap(), [place]);
}

#[test]
fn a_spilled_chunk_comes_back_with_whoever_brings_its_content() {
    let mut index = index(1, &[A, B]);
    let old = make(&mut index, A, 5);
    index.revoked(A);
    assert_eq!(spill_all(&mut index), 1);
    let reading = index.begin_restore(old.chunk).unwrap();
    let new = index.reserve(B, 1).unwrap().unwrap()[0];
    let (places, files) = index.identify(B, &[(new.chunk, content(5))]).unwrap();
    assert_eq!((places, files), (vec![Place { chunk: old.chunk, slot: new.slot }], vec![old.chunk]));
    assert!(!index.end_restore(reading, true), "its file went already");
    assert_eq!((index.free_slots(), index.spilled()), (3, 0));
    assert_eq!(index.grant(A).unwrap().unwrap(), [Place { chunk: old.chunk, slot: new.slot }]);
    assert_eq!(index.contradictions(), Vec::<String>::new());
}

#[test]
fn a_slot_is_not_free_while_it_is_written_or_read_even_if_its_chunk_is_gone() {
    let mut index = index(1, &[A]);
    make(&mut index, A, 5);
    index.revoked(A);
    let writing = index.begin_spills(1).pop().unwrap();
    assert!(index.forget(A).is_empty());
    assert_eq!((index.free_slots(), index.contradictions()), (3, vec![]));
    assert!(!index.end_spill(writing, Spilled::Written(content(5))));
    assert_eq!(index.free_slots(), 4);
    index.admit(B);
    let chunk = make(&mut index, B, 5).chunk;
    index.revoked(B);
    spill_all(&mut index);
    let reading = index.begin_restore(chunk).unwrap();
    assert_eq!(index.forget(B), [chunk]);
    assert_eq!((index.free_slots(), index.contradictions()), (3, vec![]));
    assert!(!index.end_restore(reading, true));
    assert_eq!((index.free_slots(), index.spilled()), (4, 0));
}

#[test]
fn misuse_changes_nothing() {
    let mut index = index(1, &[A, B]);
    let places = index.reserve(A, 2).unwrap().unwrap();
    let chunk = places[0].chunk;
    let theirs = make(&mut index, B, 9).chunk;
    let refused = |index: &mut Index, contents: &[(ChunkId, Hash)]| index.identify(A, contents).unwrap_err();
    assert_eq!(
        refused(&mut index, &[(chunk, content(1)), (theirs, content(9))]),
        Misuse::NotReferred(theirs)
    );
    assert_eq!(refused(&mut index, &[(chunk, content(1)), (chunk, content(1))]), Misuse::Twice(chunk));
    assert_eq!(index.known().len(), 1);
    index.identify(A, &[(chunk, content(1))]).unwrap();
    assert_eq!(refused(&mut index, &[(chunk, content(2))]), Misuse::Changed(chunk));
    assert_eq!(index.reserve(A, 2), Ok(None));
    assert_eq!(index.reserve(ClientId(9), 1), Err(Misuse::UnknownClient));
    index.revoked(A);
    assert_eq!(refused(&mut index, &[(chunk, content(1))]), Misuse::NoLease);
    assert_eq!(index.grant(A).unwrap().unwrap(), places);
}

#[test]
fn what_is_reserved_without_a_lease_stays_until_it_is_written_and_the_rest_goes() {
    let mut index = index(1, &[A, B]);
    let old = make(&mut index, A, 5);
    index.revoked(A);
    let new = index.reserve(A, 2).unwrap().unwrap();
    assert!(!index.is_leased(A) && index.awaits_revocation(|client| client == A));
    assert_eq!(index.identify(A, &[(new[0].chunk, content(6))]), Err(Misuse::NoLease));
    assert_eq!((index.revoke_next(|_| true), index.suspend_next(|_| true)), (None, None));
    let tickets = index.begin_spills(9);
    assert_eq!(tickets.iter().map(|ticket| ticket.chunk).collect::<Vec<_>>(), [old.chunk]);
    for ticket in tickets {
        assert!(index.end_spill(ticket, Spilled::Written(content(5))));
    }
    assert_eq!(index.contradictions(), Vec::<String>::new());
    index.revoked(A);
    assert!(!index.awaits_revocation(|_| true));
    assert_eq!(spill_all(&mut index), 2);
    assert_eq!(index.missing(A), [old.chunk, new[0].chunk, new[1].chunk]);
}

#[test]
fn whoever_waits_loses_its_lease_and_nobody_else() {
    let mut index = index(1, &[A, B]);
    let (own, _) = (make(&mut index, A, 1), make(&mut index, B, 2));
    assert_eq!(index.suspend_next(|client| client == A), Some(A));
    assert_eq!(index.suspend_next(|client| client == A), None);
    let tickets = index.begin_spills(9);
    assert_eq!(tickets.iter().map(|ticket| ticket.chunk).collect::<Vec<_>>(), [own.chunk]);
    // It is given a lease before the file is written.
    assert_eq!(index.grant(A).unwrap().unwrap(), [own]);
    for ticket in tickets {
        assert!(!index.end_spill(ticket, Spilled::Written(content(1))));
    }
}

#[test]
fn a_damaged_chunk_is_never_written_to_a_file() {
    let mut index = index(1, &[A]);
    make(&mut index, A, 5);
    index.revoked(A);
    let ticket = index.begin_spills(1).pop().unwrap();
    assert!(!index.end_spill(ticket, Spilled::Damaged));
    assert!(index.begin_spills(1).is_empty());
}

#[test]
fn who_holds_a_lease_does_not_come_to_refer_to_a_chunk_in_a_file() {
    let mut index = index(1, &[A, B]);
    let chunk = make(&mut index, A, 5).chunk;
    let own = make(&mut index, B, 6).chunk;
    assert_eq!(index.share(A, &[B], &[chunk]), Ok(()), "it is in a slot");
    assert_eq!(index.release(B, &[chunk]), (vec![], Ok(())));
    index.revoked(A);
    spill_all(&mut index);
    assert_eq!(index.share(A, &[B], &[chunk]), Err(Misuse::Leased(chunk)));
    assert_eq!((index.contradictions(), index.chunks_of(B)), (vec![], 1));
    index.revoked(B);
    assert_eq!(index.share(A, &[B], &[chunk]), Ok(()));
    assert_eq!((index.missing(B), index.contradictions()), (vec![chunk], vec![]));
    assert_eq!(index.release(B, &[own]).1, Ok(()));
}

#[test]
fn a_chunk_of_several_clients_stays_where_it_is_when_another_has_its_content() {
    let mut index = index(1, &[A, B]);
    let first = make(&mut index, A, 5);
    let second = index.reserve(A, 1).unwrap().unwrap()[0];
    assert_eq!(index.share(A, &[B], &[second.chunk]), Ok(()));
    assert_eq!(index.identify(A, &[(second.chunk, content(5))]).unwrap().0, [second]);
    assert_eq!(index.contradictions(), Vec::<String>::new());
    assert_eq!(index.release(B, &[second.chunk]), (vec![], Ok(())));
    assert_eq!(index.identify(A, &[(second.chunk, content(5))]).unwrap().0, [first]);
}
