//! A model of the index: whatever clients and files do, content is kept and slots are nobody else's.

use super::tests::{content, ids, index};
use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

#[derive(Clone, Debug)]
enum Step {
    Grow,
    Shrink,
    Admit(u64),
    Forget(u64),
    Reserve(u64, usize),
    Identify(u64, Vec<(usize, u8)>),
    Release(u64, Vec<usize>),
    ReleaseNamed(u64, usize),
    ForgetNames(u64),
    Share(u64, u64, usize),
    Touch(u64),
    Revoke,
    Suspend(u64),
    Revoked(u64),
    Want(u64),
    Grant(u64),
    BeginSpills(usize),
    EndSpill(usize, u8),
    BeginRestore(u64, usize),
    EndRestore(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let client = 1..4_u64;
    let at = 0..6_usize;
    prop_oneof![
        1 => Just(Step::Grow),
        1 => Just(Step::Shrink),
        2 => client.clone().prop_map(Step::Admit),
        1 => client.clone().prop_map(Step::Forget),
        6 => (client.clone(), 0..4_usize).prop_map(|(client, count)| Step::Reserve(client, count)),
        8 => (client.clone(), prop::collection::vec((at.clone(), 0..3_u8), 0..4))
            .prop_map(|(client, contents)| Step::Identify(client, contents)),
        3 => (client.clone(), prop::collection::vec(at.clone(), 0..3))
            .prop_map(|(client, chunks)| Step::Release(client, chunks)),
        2 => (client.clone(), at.clone()).prop_map(|(client, at)| Step::ReleaseNamed(client, at)),
        1 => client.clone().prop_map(Step::ForgetNames),
        3 => (client.clone(), client.clone(), at.clone())
            .prop_map(|(client, other, chunk)| Step::Share(client, other, chunk)),
        1 => client.clone().prop_map(Step::Touch),
        2 => Just(Step::Revoke),
        2 => client.clone().prop_map(Step::Suspend),
        4 => client.clone().prop_map(Step::Revoked),
        2 => client.clone().prop_map(Step::Want),
        6 => client.clone().prop_map(Step::Grant),
        6 => (0..4_usize).prop_map(Step::BeginSpills),
        6 => (at.clone(), 0..8_u8).prop_map(|(ticket, fate)| Step::EndSpill(ticket, fate)),
        6 => (client, at.clone()).prop_map(|(client, chunk)| Step::BeginRestore(client, chunk)),
        6 => (at, any::<bool>()).prop_map(|(ticket, done)| Step::EndRestore(ticket, done)),
    ]
}

/// An index, what a correct one would hold, and the bytes (one per chunk) of slots and files.
#[derive(Default)]
struct Model {
    /// What each client's references are worth: count and content, by chunk.
    clients: BTreeMap<u64, BTreeMap<ChunkId, u32>>,
    /// What each client's state may call its chunks, with the content.
    names: BTreeMap<u64, BTreeMap<ChunkId, (ChunkId, u8)>>,
    contents: HashMap<ChunkId, u8>,
    slots: HashMap<u32, u8>,
    files: HashMap<ChunkId, u8>,
    spilling: Vec<SpillTicket>,
    restoring: Vec<RestoreTicket>,
    next_content: u8,
}

impl Model {
    fn pick(&self, client: u64, at: usize) -> Option<ChunkId> {
        self.clients.get(&client)?.keys().nth(at).copied()
    }

    fn delete(&mut self, files: Vec<ChunkId>) {
        for file in files {
            assert!(self.files.remove(&file).is_some(), "the file of chunk {file} is not there");
        }
    }

    fn run(&mut self, index: &mut Index, step: Step) {
        match step {
            Step::Grow if index.total_slots() < 16 => index.add_slab(),
            Step::Grow => {}
            Step::Shrink => {
                let total = index.total_slots() as u32;
                if index.take_slab() {
                    let gone = index.total_slots() as u32..total;
                    let lies_there =
                        |chunk: &ChunkId| index.slot_of(*chunk).is_some_and(|slot| gone.contains(&slot));
                    assert!(!index.chunks.keys().any(lies_there));
                    assert!(!index.held.values().any(|slot| gone.contains(slot)));
                }
            }
            Step::Admit(client) => {
                index.admit(ClientId(client));
                self.clients.entry(client).or_default();
            }
            Step::Forget(client) => {
                self.clients.remove(&client);
                self.names.remove(&client);
                let files = index.forget(ClientId(client));
                self.delete(files);
            }
            Step::Reserve(client, count) => {
                let free = index.free_slots();
                let Ok(reserved) = index.reserve(ClientId(client), count) else { return };
                assert_eq!(reserved.is_some(), count <= free);
                for place in reserved.into_iter().flatten() {
                    // What is written there is the client's own.
                    self.next_content = self.next_content.wrapping_add(1) | 0x80;
                    self.slots.insert(place.slot, self.next_content);
                    self.contents.insert(place.chunk, self.next_content);
                    self.clients.get_mut(&client).unwrap().insert(place.chunk, 1);
                }
            }
            Step::Identify(client, contents) => self.identify(index, client, &contents),
            Step::Release(client, at) => {
                let chunks: Vec<_> = at.into_iter().filter_map(|at| self.pick(client, at)).collect();
                self.release(index, client, &chunks, &chunks);
            }
            Step::ReleaseNamed(client, at) => {
                let named = self.names.get(&client).and_then(|its| its.iter().nth(at));
                let Some((&name, &(chunk, _))) = named else { return };
                self.release(index, client, &[name], &[chunk]);
            }
            Step::ForgetNames(client) => {
                self.names.remove(&client);
                index.forget_names(ClientId(client));
            }
            Step::Share(client, other, at) => {
                let Some(chunk) = self.pick(client, at) else { return };
                if index.share(ClientId(client), &[ClientId(other)], &[chunk]).is_ok()
                    && let Some(their) = self.clients.get_mut(&other)
                {
                    *their.entry(chunk).or_default() += 1;
                }
            }
            Step::Touch(client) => index.touch(ClientId(client)),
            Step::Revoke => drop(index.revoke_next(|_| true)),
            Step::Suspend(client) => drop(index.suspend_next(|other| other.0 == client)),
            Step::Revoked(client) => index.revoked(ClientId(client)),
            Step::Want(client) => drop(index.want_lease(ClientId(client))),
            Step::Grant(client) => {
                let Ok(Some(places)) = index.grant(ClientId(client)) else { return };
                assert_eq!(ids(&places), self.clients[&client].keys().copied().collect::<Vec<_>>());
                for place in places {
                    assert_eq!(self.slots[&place.slot], self.contents[&place.chunk]);
                }
                for (name, place) in index.named(ClientId(client)) {
                    let (chunk, of) = self.names[&client][&name];
                    assert_eq!(
                        (place.chunk, self.slots[&place.slot]),
                        (chunk, of),
                        "the content under that name"
                    );
                }
            }
            Step::BeginSpills(most) => self.spilling.extend(index.begin_spills(most)),
            Step::EndSpill(at, fate) => {
                if at >= self.spilling.len() {
                    return;
                }
                let ticket = self.spilling.swap_remove(at);
                let (chunk, byte) = (ticket.chunk, self.slots[&ticket.slot]);
                let fate = match fate {
                    0 => Spilled::Failed,
                    1 => Spilled::Damaged,
                    _ => Spilled::Written(content(byte)),
                };
                if index.end_spill(ticket, fate) {
                    assert!(self.files.insert(chunk, byte).is_none());
                }
            }
            Step::BeginRestore(client, at) => {
                if let Some(chunk) = self.pick(client, at) {
                    self.restoring.extend(index.begin_restore(chunk));
                }
            }
            Step::EndRestore(at, done) => {
                if at >= self.restoring.len() {
                    return;
                }
                let ticket = self.restoring.swap_remove(at);
                let (chunk, slot, hash) = (ticket.chunk, ticket.slot, ticket.hash);
                let read = self.files.get(&chunk).copied();
                if let Some(byte) = read.filter(|_| done) {
                    assert_eq!(hash, content(byte));
                    self.slots.insert(slot, byte);
                }
                if index.end_restore(ticket, done && read.is_some()) {
                    self.delete(vec![chunk]);
                }
            }
        }
    }

    /// The client gives up these chunks, which it calls by these names.
    fn release(&mut self, index: &mut Index, client: u64, names: &[ChunkId], chunks: &[ChunkId]) {
        let (files, result) = index.release(ClientId(client), names);
        let mut all_there = self.clients.contains_key(&client);
        for chunk in chunks {
            let its = self.clients.get_mut(&client).unwrap();
            match its.get_mut(chunk) {
                Some(1) => drop(its.remove(chunk)),
                Some(count) => *count -= 1,
                None => all_there = false,
            }
        }
        assert_eq!(result.is_ok(), all_there);
        self.delete(files);
    }

    /// The client writes what it says that it wrote, if it may write still.
    fn identify(&mut self, index: &mut Index, client: u64, contents: &[(usize, u8)]) {
        let mut named = BTreeMap::new();
        for &(at, of) in contents {
            if let Some(chunk) = self.pick(client, at) {
                let known =
                    index.known().into_iter().find(|known| known.chunk == chunk && known.slot.is_some());
                named.insert(chunk, known.map_or(of, |known| known.hash[0]));
            }
        }
        let before: Vec<_> = named.keys().map(|&chunk| (chunk, index.slot_of(chunk))).collect();
        let hashes: Vec<_> = named.iter().map(|(&chunk, &of)| (chunk, content(of))).collect();
        let Ok((places, files)) = index.identify(ClientId(client), &hashes) else { return };
        for ((chunk, slot), of) in before.into_iter().zip(named.values()) {
            // Written before it was identified, of course; the model cannot know earlier that it would be accepted.
            self.slots.insert(slot.unwrap(), *of);
            self.contents.insert(chunk, *of);
        }
        for ((chunk, of), place) in named.into_iter().zip(places) {
            let its = self.clients.get_mut(&client).unwrap();
            if place.chunk != chunk {
                let count = its.remove(&chunk).unwrap();
                *its.entry(place.chunk).or_insert(0) += count;
                index.rename(ClientId(client), [(chunk, place.chunk)]);
                self.names.entry(client).or_default().insert(chunk, (place.chunk, of));
            }
            assert_eq!((self.contents[&place.chunk], self.slots[&place.slot]), (of, of));
        }
        self.delete(files);
    }

    fn check(&self, index: &Index) {
        assert_eq!(index.contradictions(), Vec::<String>::new());
        let mut referred: HashMap<ChunkId, BTreeMap<ClientId, u32>> = HashMap::new();
        for (&client, chunks) in &self.clients {
            for (&chunk, &count) in chunks {
                referred.entry(chunk).or_default().insert(ClientId(client), count);
            }
        }
        assert_eq!(index.chunks.len(), referred.len(), "a chunk is kept for nobody, or was dropped");
        for (id, chunk) in &index.chunks {
            assert_eq!(chunk.referrers, referred[id]);
            let byte = match chunk.location {
                Location::Slot(slot) => self.slots[&slot],
                Location::File(hash) => {
                    assert_eq!(hash, content(self.files[id]));
                    self.files[id]
                }
            };
            assert_eq!(byte, self.contents[id], "chunk {id} has lost its content");
        }
        let hashes: Vec<_> = index.chunks.values().filter_map(|chunk| chunk.hash).collect();
        assert_eq!(
            hashes.len(),
            hashes.iter().collect::<HashSet<_>>().len(),
            "equal contents are kept twice"
        );
        assert_eq!(index.in_files, self.files.len());
        assert_eq!(index.spilling, self.spilling.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn nothing_is_lost_kept_twice_or_given_to_two(steps in prop::collection::vec(step(), 0..60)) {
        let (mut index, mut model) = (index(1, &[]), Model::default());
        for step in steps {
            model.run(&mut index, step);
            model.check(&index);
        }
    }
}
