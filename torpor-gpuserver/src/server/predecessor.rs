//! What the server before has left, as this one goes on with it: all of it, or nothing.

use crate::server::entrance::tree::ServerTree;
use crate::server::keeper::{Heritage, Keeper, numbered};
use crate::server::node::{CLIENT, COUNTER, Legacies, Legacy, LegacyMemory, MEMORY, PARTY};
use crate::server::options::ServerOptions;
use crate::server::probe::UsableDriver;
use crate::server::store::Store;
use crate::server::workers::inherited::{Inherited, InheritedClient};
use crate::server::workers::order::ClientMemory;
use crate::server::workers::process::{WORKER, WorkerProcess};
use crate::server::workers::served::STATE;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use torpor_proto::channel::MappedChannel;
use torpor_proto::control::{KEEPER_FORM, hash, keeper};

/// What form all that has which a server leaves, what workers say to compilers included: workers go on and ask the next server's.
const FORM: u64 = hash(KEEPER_FORM, include_bytes!("../compiler/wire.rs"));

/// Under what name the server itself is kept.
const NODE: &str = "node";

/// What the server before was, and this one is.
#[derive(Debug)]
pub(super) struct Predecessor {
    pub(super) tree: ServerTree,
    pub(super) driver: UsableDriver,
    pub(super) store: Arc<Store>,
    pub(super) clients: Legacies,
    /// By their places among those that serve.
    pub(super) gpus: Vec<Inherited>,
}

/// Why a server does not go on where the one before was.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSuccession {
    #[error("it was another release")]
    Release,
    #[error("it served other GPUs, {0:?}")]
    Gpus(Vec<u32>),
    #[error("what it left of {0} is not whole")]
    Torn(&'static str),
    #[error("its directory cannot be taken over: {0}")]
    Directory(#[from] crate::server::entrance::tree::TreeError),
    #[error("what it left cannot be used: {0}")]
    Io(#[from] io::Error),
}

impl Predecessor {
    /// Takes what is left, if there is anything. Call it in the runtime that the server lives in.
    ///
    /// # Errors
    /// [`NoSuccession`].
    pub(super) fn recall(
        options: &ServerOptions,
        keeper: &Keeper,
        heritage: &mut Heritage,
    ) -> Result<Option<Self>, NoSuccession> {
        if heritage.is_empty() {
            return Ok(None);
        }
        let (node, locks) = heritage.take::<keeper::Node>(NODE).ok_or(NoSuccession::Torn("itself"))?;
        if node.form != FORM {
            return Err(NoSuccession::Release);
        }
        let gpus = options.flags.gpus.clone().unwrap_or_else(|| (0..node.devices).collect());
        if gpus != node.gpus {
            return Err(NoSuccession::Gpus(node.gpus));
        }
        let mut locks = locks.into_iter();
        let tree =
            ServerTree::inherit(&options.directory, locks.next().ok_or(NoSuccession::Torn("its lock"))?)?;
        let spill = options.store.spill.as_ref();
        if node.spill_directory != spill.map_or(&[][..], |spill| spill.directory.as_os_str().as_bytes()) {
            return Err(NoSuccession::Torn("the directory for spilling"));
        }
        let store = Store::inherit(&options.store, keeper, heritage, locks.next())?;
        let library = OsString::from_vec(node.driver).into();
        let driver = UsableDriver { library, devices: node.devices, simulated: node.simulated };
        let last_id = heritage.take::<keeper::Counter>(COUNTER).map_or(0, |(counter, _)| counter.last);
        let mut inherited: Vec<Inherited> = gpus.iter().map(|_| Inherited::default()).collect();
        for (words, descriptors) in heritage.take_all::<keeper::Worker>(WORKER) {
            let (gpu, (is_spare, is_enclosed)) = (words.gpu as usize, (words.is_spare, words.is_enclosed));
            let [socket, process]: [OwnedFd; 2] =
                descriptors.try_into().map_err(|_| NoSuccession::Torn("a worker"))?;
            let its = inherited.get_mut(gpu).ok_or(NoSuccession::Torn("a worker"))?;
            let worker = WorkerProcess::inherit(keeper, words, socket, process)?;
            if is_enclosed {
                // It dies with its server, and what it has of the GPU's memory is others' afterwards.
                its.leaving.push(worker);
                continue;
            }
            // They come in the order in which they were started.
            let place = if is_spare { &mut its.spare } else { &mut its.first };
            its.leaving.extend(place.replace(worker));
        }
        let parties: Vec<keeper::Party> =
            heritage.take_all(PARTY).into_iter().map(|(party, _)| party).collect();
        let mut clients = Vec::new();
        for (mut words, _) in heritage.take_all::<keeper::Client>(CLIENT) {
            words.gpu = belongs(&words, &parties);
            let its = inherited.get_mut(words.gpu as usize).ok_or(NoSuccession::Torn("a client"))?;
            let legacy = client(words, heritage)?;
            let (_, state) = heritage.take::<()>(&numbered(STATE, legacy.words.client)).unwrap_or_default();
            its.clients.push(InheritedClient {
                client: legacy.words.client,
                channel: legacy.memory.as_ref().map(|its| its.memory.channel.clone()),
                state: state.into_iter().next().map(Arc::new),
            });
            clients.push(legacy);
        }
        tracing::info!(clients = clients.len(), "going on where the server before ended");
        let clients = Legacies { clients, parties, last_id };
        Ok(Some(Self { tree, driver, store, clients, gpus: inherited }))
    }
}

/// The GPU of a client: that of those that it goes with, if it does; the latest of several.
fn belongs(client: &keeper::Client, parties: &[keeper::Party]) -> u32 {
    let its = parties.iter().filter(|party| party.clients.contains(&client.client));
    its.max_by_key(|party| party.number).map_or(client.gpu, |party| party.gpu)
}

/// A client with its memory, if the server before had that handed to it or was about to.
fn client(words: keeper::Client, heritage: &mut Heritage) -> Result<Legacy, NoSuccession> {
    let its = heritage.take::<()>(&numbered(MEMORY, words.client));
    let Some((_, descriptors)) = its.filter(|_| words.is_serving) else {
        return Ok(Legacy { words, memory: None });
    };
    let mut descriptors = descriptors.into_iter();
    let (Some(channel_file), Some(host_file), Some(lifeline), process) =
        (descriptors.next(), descriptors.next(), descriptors.next(), descriptors.next())
    else {
        return Err(NoSuccession::Torn("a client's memory"));
    };
    let channel = MappedChannel::open(channel_file.try_clone()?).map_err(io::Error::other)?;
    let memory = Arc::new(ClientMemory { channel: Arc::new(channel), channel_file, host_file });
    Ok(Legacy { words, memory: Some(LegacyMemory { memory, lifeline, process }) })
}

/// The next server is to know of this one.
pub(super) fn keep(
    keeper: &Keeper,
    options: &ServerOptions,
    tree: &ServerTree,
    driver: &UsableDriver,
    store: &Store,
    gpus: Vec<u32>,
) {
    let spill = options.store.spill.as_ref();
    let words = keeper::Node {
        form: FORM,
        driver: driver.library.as_os_str().as_bytes().to_vec(),
        devices: driver.devices,
        simulated: driver.simulated,
        gpus,
        spill_directory: spill.map_or_else(Vec::new, |spill| spill.directory.as_os_str().as_bytes().to_vec()),
    };
    let locks: Vec<_> = [tree.lock()].into_iter().chain(store.spill_lock()).collect();
    keeper.keep(NODE, &words, &locks);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_go_together_belong_together_whatever_is_kept_of_each() {
        let client = |client, gpu| keeper::Client { client, gpu, ..keeper::Client::default() };
        let party = |number, clients: &[u64], gpu| keeper::Party { number, clients: clients.to_vec(), gpu };
        // The server was killed between what it kept of the one and of the other.
        let [gone, staying, other] = [client(1, 1), client(2, 0), client(3, 0)];
        let there = [party(7, &[1, 2], 1)];
        assert_eq!([&gone, &staying, &other].map(|one| belongs(one, &there)), [1, 1, 0]);
        // They were on their way back.
        let back = [party(7, &[1, 2], 0)];
        assert_eq!([&gone, &staying].map(|one| belongs(one, &back)), [0, 0]);
        let again = [party(8, &[2], 1), party(7, &[1, 2], 0)];
        assert_eq!([&gone, &staying].map(|one| belongs(one, &again)), [0, 1]);
        assert_eq!([&gone, &staying].map(|one| belongs(one, &[])), [1, 0]);
    }
}
