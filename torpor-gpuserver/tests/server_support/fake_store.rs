//! What a fake worker keeps in the host store, for clients of functions whose names say so.
//!
//! It answers for its clients at once: it writes when it has room, gives leases back when asked, and takes them again
//! whenever it is asked for its usage, looking whether what comes back is what it wrote.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use torpor_proto::control::worker::{
    ClientFault, Identify, Lease, LeaseRevoked, Place, Reserve, Slab, SlabReady, SlabReturned, StoreAnswer,
    StoreRequest, from_worker::Body, store_answer, store_request,
};
use torpor_proto::layout::SEGMENT_GRANULE_BYTES as CHUNK_BYTES;
use torpor_proto::mapping::{Mapping, check_sealed};

/// `stores-N`: each client stores N chunks, equal to those of the function's other clients, and otherwise to none.
pub const STORES: &str = "stores-";
/// `stores-own-N`: each client stores N chunks that are equal to no others.
pub const STORES_OWN: &str = "stores-own-";

#[derive(Default)]
struct Stored {
    own: bool,
    count: usize,
    /// Content of what it refers to, by chunk; all bytes of a chunk are 8-byte words of this.
    contents: BTreeMap<u64, u64>,
    revoked: bool,
    /// Requests that are not answered.
    asking: usize,
    /// The store wants its lease back.
    wanted: bool,
}

/// The store's slabs, and who keeps what there.
#[derive(Default)]
pub struct FakeStore {
    slab_bytes: u64,
    slabs: BTreeMap<u32, Mapping>,
    clients: BTreeMap<u64, Stored>,
    /// Whose request it was, and what was asked.
    asked: Vec<(u64, store_request::Body)>,
}

impl FakeStore {
    pub fn attach(&mut self, client: u64, function: &str) -> Option<Body> {
        let own = function.strip_prefix(STORES_OWN);
        let count = own.or(function.strip_prefix(STORES))?.parse().unwrap();
        self.clients.insert(client, Stored { own: own.is_some(), count, ..Stored::default() });
        Some(self.ask(
            client,
            store_request::Body::Reserve(Reserve { count: u32::try_from(count).unwrap(), only_spare: false }),
        ))
    }

    pub fn detach(&mut self, client: u64) {
        self.clients.remove(&client);
    }

    pub fn slab(&mut self, slab: Slab, descriptors: &[OwnedFd]) -> Body {
        let [file] = descriptors else { panic!("{} descriptors", descriptors.len()) };
        check_sealed(file, slab.bytes).unwrap();
        let mapping = Mapping::anywhere(file, usize::try_from(slab.bytes).unwrap()).unwrap();
        self.slab_bytes = slab.bytes;
        // Another server tells of those that are here, too.
        self.slabs.insert(slab.index, mapping);
        Body::SlabReady(SlabReady { index: slab.index, failure: String::new(), bytes_per_second: 0 })
    }

    pub fn return_slab(&mut self, index: u32) -> Body {
        self.slabs.remove(&index).unwrap();
        Body::SlabReturned(SlabReturned { index })
    }

    pub fn revoke(&mut self, client: u64) -> Option<Body> {
        if let Some(stored) = self.clients.get_mut(&client) {
            stored.wanted = stored.asking > 0;
            if stored.wanted {
                return None;
            }
            stored.revoked = true;
        }
        Some(Body::LeaseRevoked(LeaseRevoked { client }))
    }

    /// Takes all leases again.
    pub fn use_again(&mut self) -> Vec<Body> {
        let mut clients = Vec::new();
        for (&client, stored) in &mut self.clients {
            if std::mem::take(&mut stored.revoked) {
                clients.push(client);
            }
        }
        clients.into_iter().map(|client| self.ask(client, store_request::Body::Lease(Lease {}))).collect()
    }

    pub fn answer(&mut self, answer: StoreAnswer) -> Vec<Body> {
        let (client, asked) = self.asked[usize::try_from(answer.request).unwrap()].clone();
        let Some(stored) = self.clients.get_mut(&client) else { return Vec::new() };
        stored.asking -= 1;
        let said = self.go_on(client, asked, answer);
        let wanted = self.clients.get(&client).is_some_and(|stored| stored.wanted);
        let given = if wanted { self.revoke(client) } else { None };
        said.into_iter().chain(given).collect()
    }

    fn go_on(&mut self, client: u64, asked: store_request::Body, answer: StoreAnswer) -> Option<Body> {
        let places = match answer.result.unwrap() {
            store_answer::Result::Places(places) => places.places,
            store_answer::Result::Refusal(reason) => {
                return Some(Body::ClientFault(ClientFault { client, reason }));
            }
        };
        let stored = self.clients.get(&client)?;
        match asked {
            store_request::Body::Reserve(_) => {
                assert_eq!(places.len(), stored.count);
                let of = |(at, place): (usize, &Place)| if stored.own { place.chunk } else { !(at as u64) };
                let contents: BTreeMap<u64, u64> =
                    places.iter().enumerate().map(|it| (it.1.chunk, of(it))).collect();
                places.iter().for_each(|place| self.words(place.slot).fill(contents[&place.chunk]));
                let hashes = places.iter().map(|place| {
                    blake3::hash(bytemuck::cast_slice(self.words(place.slot))).as_bytes().to_vec()
                });
                let chunks = places.iter().map(|place| place.chunk).collect();
                let identify = Identify { chunks, hashes: hashes.collect(), is_named: false };
                self.clients.get_mut(&client)?.contents = contents;
                Some(self.ask(client, store_request::Body::Identify(identify)))
            }
            store_request::Body::Identify(identify) => {
                let before = std::mem::take(&mut self.clients.get_mut(&client)?.contents);
                let after =
                    identify.chunks.iter().zip(&places).map(|(chunk, place)| (place.chunk, before[chunk]));
                self.clients.get_mut(&client)?.contents = after.collect();
                self.check(client, &places)
            }
            store_request::Body::Lease(_) => self.check(client, &places),
        }
    }

    fn check(&self, client: u64, places: &[Place]) -> Option<Body> {
        let stored = &self.clients[&client].contents;
        let as_written = |place: &Place| {
            let content = stored.get(&place.chunk);
            content.is_some_and(|content| self.words(place.slot).iter().all(|word| word == content))
        };
        let whole = places.len() >= stored.len() && places.iter().all(as_written);
        let reason = "what it stored is not what it finds".to_owned();
        (!whole).then_some(Body::ClientFault(ClientFault { client, reason }))
    }

    fn ask(&mut self, client: u64, body: store_request::Body) -> Body {
        let request = self.asked.len() as u64;
        self.asked.push((client, body.clone()));
        self.clients.get_mut(&client).unwrap().asking += 1;
        Body::StoreRequest(StoreRequest { request, client, body: Some(body) })
    }

    #[allow(clippy::mut_from_ref, reason = "the memory is the mapping's, not the store's")]
    fn words(&self, slot: u32) -> &mut [u64] {
        let slots = u32::try_from(self.slab_bytes / CHUNK_BYTES).unwrap();
        let address = self.slabs[&(slot / slots)].address().cast::<u64>();
        let words = CHUNK_BYTES as usize / size_of::<u64>();
        // SAFETY: the slot is inside the mapping, and its client, who uses no other slice of it at the same time, has it
        // to itself.
        unsafe {
            std::slice::from_raw_parts_mut(address.as_ptr().add((slot % slots) as usize * words), words)
        }
    }
}
