//! Realms: what functions' memory and code are kept in while no worker has them. Functions that share GPUs have one together. A
//! strict function has its own: slabs that its own workers alone map, an index in which equal contents are looked for among its own
//! alone, and a directory of images. It ends with its last enclosure.

use crate::server::store::verify::Report;
use crate::server::store::{Store, Usage};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A strict function's.
#[derive(Debug)]
pub(crate) struct Realm {
    pub(crate) store: Arc<Store>,
    pub(crate) images: PathBuf,
}

/// All of a node.
#[derive(Debug)]
pub(crate) struct Realms {
    common: Arc<Store>,
    /// Where images of strict functions are, a directory for each life of a realm.
    directory: PathBuf,
    own: Mutex<Own>,
}

#[derive(Debug, Default)]
struct Own {
    realms: BTreeMap<String, Weak<Realm>>,
    made: u64,
}

impl Realms {
    /// None but the common one yet.
    pub(crate) fn new(common: Arc<Store>, directory: &Path) -> Arc<Self> {
        Arc::new(Self { common, directory: directory.to_owned(), own: Mutex::default() })
    }

    /// That of all that share GPUs.
    pub(crate) fn common(&self) -> &Arc<Store> {
        &self.common
    }

    /// A strict function's. Call it in the runtime that the store is to live in.
    pub(crate) fn of(&self, function: &str) -> Arc<Realm> {
        let mut own = self.own();
        if let Some(realm) = own.realms.get(function).and_then(Weak::upgrade) {
            return realm;
        }
        own.realms.retain(|_, realm| realm.strong_count() > 0);
        own.made += 1;
        let images = self.directory.join(format!("{function}.{}", own.made));
        let realm = Arc::new(Realm { store: self.common.apart(), images });
        realm.store.start();
        own.realms.insert(function.to_owned(), Arc::downgrade(&realm));
        realm
    }

    /// Figures of all together.
    pub(crate) fn usage(&self) -> Usage {
        self.stores().map(|store| store.usage()).reduce(Usage::with).unwrap_or_else(|| self.common.usage())
    }

    /// Checks all of them.
    pub(crate) async fn verify(&self) -> Report {
        let mut all = Report::default();
        for store in self.stores().collect::<Vec<_>>() {
            all = all.with(store.verify().await);
        }
        all
    }

    fn stores(&self) -> impl Iterator<Item = Arc<Store>> {
        let own: Vec<_> = self.own().realms.values().filter_map(Weak::upgrade).collect();
        std::iter::once(self.common.clone()).chain(own.into_iter().map(|realm| realm.store.clone()))
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Realm {
    fn drop(&mut self) {
        self.store.end();
        // A realm whose worker never began has none.
        let _ = std::fs::remove_dir_all(&self.images);
    }
}
