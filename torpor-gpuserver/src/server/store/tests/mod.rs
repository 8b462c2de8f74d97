//! The store with real memory and files, and workers that are the other end of a channel.

mod growth;
mod leases;
mod pool;
mod sharing;
mod spilling;
mod worker;

use super::index::Place;
use super::*;
use crate::chunk::Hash;
use std::time::{Duration, Instant};

const SLAB_SLOTS: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(20);

fn open(slabs: u64, spill: Option<(&std::path::Path, u64)>) -> Arc<Store> {
    let spill = spill.map(|(directory, chunks)| SpillOptions {
        directory: directory.to_owned(),
        limit_bytes: chunks * CHUNK_BYTES,
    });
    let slab_bytes = SLAB_SLOTS * CHUNK_BYTES;
    let options = StoreOptions { slab_bytes, pool_bytes: slabs * slab_bytes, spill };
    let store = Store::open(&options, &Keeper::default()).unwrap();
    for (client, function) in ["nobody", "ada", "bob", "cleo"].into_iter().enumerate().skip(1) {
        store.admit(ClientId(client as u64), function);
    }
    store.start();
    store
}

fn bytes(content: u8) -> Vec<u8> {
    vec![content; CHUNK_BYTES as usize]
}

fn hash(content: u8) -> Hash {
    *blake3::hash(&bytes(content)).as_bytes()
}

fn memory(store: &Store, slot: u32) -> SlotMemory {
    store.state().memory(store.slab_slots, slot)
}

fn contents(store: &Store, places: &[Place]) -> Vec<u8> {
    let first = |place: &Place| {
        let bytes = memory(store, place.slot).copy_out();
        assert_eq!(bytes, self::bytes(bytes[0]));
        bytes[0]
    };
    places.iter().map(first).collect()
}

async fn assert_sound(store: &Arc<Store>) {
    let report = store.verify().await;
    assert_eq!((report.damaged, report.contradictions), (vec![], vec![]));
}

/// Waits until the files have been deleted.
async fn files_left(directory: &std::path::Path, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    let files = || {
        let entries = std::fs::read_dir(directory).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|it| it == "torpor-chunk"))
            .count()
    };
    while files() != count {
        assert!(Instant::now() < deadline, "{} files", files());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
