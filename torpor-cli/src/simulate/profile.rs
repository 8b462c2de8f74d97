//! Profiles: what a node is and what its models take, read from TOML. Each model says where its numbers come from.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use torpor_gpuserver::policy::topology::{Peer, Topology};
use torpor_gpuserver::server::size::ByteSize;

/// Those that come along.
const BUILT_IN: [(&str, &str); 2] =
    [("v100", include_str!("profiles/v100.toml")), ("h200", include_str!("profiles/h200.toml"))];

/// What a node is and what its models take.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Device memory that functions may use on each GPU.
    #[serde(serialize_with = "in_bytes")]
    pub gpu_limit: ByteSize,
    /// Device memory that there is, for native processes.
    #[serde(serialize_with = "in_bytes")]
    pub gpu_memory: ByteSize,
    /// Host memory for what functions have, of each GPU's part of the node; absent if it is no limit. Counts with several nodes alone.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "some_in_bytes")]
    pub host_memory: Option<ByteSize>,
    /// Device memory that a native process has beside its weights: context, code, the framework's reserve.
    #[serde(serialize_with = "in_bytes")]
    pub native_overhead: ByteSize,
    /// From the start of a native process until it can answer, in milliseconds.
    pub native_start_ms: f64,
    /// What of a request's latency nobody waits for who comes behind it, in milliseconds: the way from whoever asks to the process, and back.
    #[serde(default)]
    pub beside_ms: f64,
    /// For how long a client that moves is at no GPU, in milliseconds; absent: for as long as the server expects ([`Topology::moving`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves_ms: Option<f64>,
    /// Over which paths memory comes, and what the server expects of a move.
    pub topology: Topology,
    /// 10⁹ bytes a second from each GPU to each other one, where all pairs are joined alike; otherwise the topology has the pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_gbps: Option<f64>,
    /// By name.
    pub models: BTreeMap<String, Model>,
    /// Where the numbers of the node come from.
    pub source: String,
}

/// What a model takes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Device memory that is brought.
    pub bytes: u64,
    /// An inference whose model is on the GPU, in milliseconds.
    pub warm_ms: f64,
    /// The same on a GPU that does nothing else but such inferences; absent: it takes as long there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_ms: Option<f64>,
    /// The first one after an eviction, over a link that nobody else uses; absent if nobody has measured it.
    pub swapped_ms: Option<f64>,
    /// What single inferences take, as parts of their median, each equally likely; empty: all take the same.
    #[serde(default)]
    pub spread: Vec<f64>,
    /// Where these numbers come from.
    pub source: String,
}

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// It is no built-in one, and no file.
    #[error("the profile {path} cannot be read: {error}; name a file, or one of {}", BUILT_IN.map(|(name, _)| name).join(", "))]
    Unreadable {
        /// What was asked for.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It says something that it cannot say.
    #[error("the profile {path}: {error}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What and where.
        error: Box<toml::de::Error>,
    },
    /// There is nothing to run.
    #[error(
        "the profile {0} must have at least one GPU in [topology] and one model in [models], with positive numbers and no peers that are \
         none of its GPUs"
    )]
    Empty(PathBuf),
    /// It has no such model.
    #[error("the profile has no model {name}; it has {known}")]
    NoModel {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
}

impl Profile {
    /// A built-in one by its name, or a file. `v100x4` has four GPUs like those of `v100`, paired as those are.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn find(name: &str) -> Result<Self, ProfileError> {
        let (base, count) = match name.rsplit_once('x').map(|(base, count)| (base, count.parse::<usize>())) {
            Some((base, Ok(count))) if count > 0 => (base, Some(count)),
            _ => (name, None),
        };
        match (BUILT_IN.iter().find(|(known, _)| *known == base), count) {
            (Some((_, text)), count) => {
                let mut profile = Self::parse(text, Path::new(name))?;
                profile.resize(count.unwrap_or(profile.topology.gpus.len()));
                Ok(profile)
            }
            (None, _) => {
                let path = PathBuf::from(name);
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| ProfileError::Unreadable { path: path.clone(), error })?;
                Self::parse(&text, &path)
            }
        }
    }

    /// As a file that [`Self::find`] reads.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a profile has texts, numbers, lists and tables alone")
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ProfileError> {
        let wrong = |error| ProfileError::Wrong { path: path.to_owned(), error: Box::new(error) };
        let mut profile: Self = toml::from_str(text).map_err(wrong)?;
        profile.join_all();
        let numbers = |model: &Model| {
            [model.bytes as f64, model.warm_ms].into_iter().chain(model.busy_ms).chain(model.spread.clone())
        };
        let mut numbers = profile.models.values().flat_map(numbers);
        let is_path = |peer: &Peer| {
            peer.from.max(peer.to) < profile.topology.gpus.len() && peer.gbps.is_none_or(|gbps| gbps > 0.0)
        };
        let is_right = !profile.topology.gpus.is_empty()
            && profile.topology.peers.iter().all(is_path)
            && !profile.models.is_empty()
            && (0.0..1e15).contains(&profile.beside_ms)
            && profile.moves_ms.is_none_or(|ms| (0.0..1e15).contains(&ms))
            && numbers.all(|number| number > 0.0 && number < 1e15);
        if is_right { Ok(profile) } else { Err(ProfileError::Empty(path.to_owned())) }
    }

    /// As many GPUs of the same kind. Links are numbered on; pairs are joined as they are among those that are given.
    fn resize(&mut self, count: usize) {
        let Topology { gpus: given, peers, .. } = self.topology.clone();
        let links = given.iter().filter_map(|path| path.switch).max().map_or(0, |most| most + 1);
        self.topology.gpus = (0..count)
            .map(|gpu| {
                let mut path = given[gpu % given.len()].clone();
                let round = u32::try_from(gpu / given.len()).unwrap_or(0);
                path.switch = path.switch.map(|switch| switch + round * links);
                path
            })
            .collect();
        let of_round = |first: usize| {
            let of_round = move |peer: &Peer| Peer { from: first + peer.from, to: first + peer.to, ..*peer };
            peers.iter().map(of_round).filter(|peer| peer.from.max(peer.to) < count)
        };
        self.topology.peers = (0..count).step_by(given.len()).flat_map(of_round).collect();
        self.join_all();
    }

    /// Each GPU with each other one, if they are joined alike.
    fn join_all(&mut self) {
        let Some(gbps) = self.peer_gbps else { return };
        let gpus = 0..self.topology.gpus.len();
        let pairs = gpus.clone().flat_map(|from| gpus.clone().map(move |to| (from, to)));
        let pairs = pairs.filter(|(from, to)| from != to);
        self.topology.peers = pairs.map(|(from, to)| Peer { from, to, gbps: Some(gbps) }).collect();
    }

    /// For how long a client that moves is at no GPU.
    pub fn moves(&self) -> Duration {
        self.moves_ms.map_or(self.topology.moving(), |ms| Duration::from_secs_f64(ms / 1e3))
    }

    /// A model by its name.
    ///
    /// # Errors
    /// [`ProfileError::NoModel`].
    pub fn model(&self, name: &str) -> Result<&Model, ProfileError> {
        let known = || self.models.keys().cloned().collect::<Vec<_>>().join(", ");
        self.models.get(name).ok_or_else(|| ProfileError::NoModel { name: name.to_owned(), known: known() })
    }
}

fn some_in_bytes<S: serde::Serializer>(size: &Option<ByteSize>, serializer: S) -> Result<S::Ok, S::Error> {
    match size {
        Some(size) => in_bytes(size, serializer),
        None => serializer.serialize_none(),
    }
}

fn in_bytes<S: serde::Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}B", size.0))
}

impl Model {
    /// How much longer than usual one inference takes, by a number that was drawn.
    pub fn factor(&self, drawn: u64) -> f64 {
        let place = drawn.checked_rem(self.spread.len() as u64).unwrap_or(0);
        self.spread.get(place as usize).copied().unwrap_or(1.0)
    }

    /// An inference whose model is on the GPU.
    pub fn warm(&self) -> Duration {
        Duration::from_secs_f64(self.warm_ms / 1e3)
    }

    /// The same on a GPU that has been at work for a part of the time: clocks and caches are warm, so it takes less.
    pub fn works(&self, part: f64) -> Duration {
        let busy_ms = self.busy_ms.unwrap_or(self.warm_ms);
        Duration::from_secs_f64((self.warm_ms + part * (busy_ms - self.warm_ms)).max(0.0) / 1e3)
    }

    /// What the first request after an eviction takes beyond the longer of its work and the way of its memory, on a GPU of this
    /// profile.
    pub fn swap_overhead(&self, topology: &Topology) -> Duration {
        let way_ms = 1e3 * self.bytes as f64 / topology.bytes_per_second(0, 1);
        let overhead_ms = self.swapped_ms.map_or(0.0, |swapped| swapped - way_ms.max(self.warm_ms));
        Duration::from_secs_f64(overhead_ms.max(0.0) / 1e3)
    }

    /// By how much its way is longer than its work, which cannot hide that.
    pub fn shows(&self, topology: &Topology) -> Duration {
        let way = Duration::from_secs_f64(self.bytes as f64 / topology.bytes_per_second(0, 1));
        way.saturating_sub(self.warm())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_profiles_are_right_and_come_in_any_number() {
        for (name, _) in BUILT_IN {
            let profile = Profile::find(name).unwrap();
            assert!(profile.models.contains_key("resnet152") && !profile.source.is_empty(), "{name}");
            assert!(profile.models.values().all(|model| !model.source.is_empty()), "{name}");
        }
        let eight = Profile::find("v100x8").unwrap().topology;
        let links: Vec<_> = eight.gpus.iter().map(|path| path.switch).collect();
        assert_eq!(links, [0, 0, 1, 1, 2, 2, 3, 3].map(Some));
        let joined = |topology: &Topology, from, to| topology.peer_bytes_per_second(from, to);
        assert_eq!(joined(&eight, 0, 3), joined(&eight, 4, 7));
        assert_eq!((joined(&eight, 0, 1), joined(&eight, 3, 4)), (Some(24e9), None));
        assert_eq!(joined(&Profile::find("v100x2").unwrap().topology, 1, 2), None);
        let switched = Profile::find("h200x3").unwrap().topology;
        assert!(switched.peers.len() == 6 && joined(&switched, 2, 0).is_some());
        assert_eq!(Profile::find("h200x1").unwrap().topology.gpus.len(), 1);
    }

    #[test]
    fn the_paper_s_costs_of_resnet_152_are_those_of_its_v100s() {
        let profile = Profile::find("v100x4").unwrap();
        let (model, topology) = (profile.model("resnet152").unwrap(), &profile.topology);
        let swapped_ms = |loading| {
            let way_ms = 1e3 * model.bytes as f64 / topology.bytes_per_second(0, loading);
            (way_ms.max(model.warm_ms) + 1e3 * model.swap_overhead(topology).as_secs_f64()).round()
        };
        assert_eq!((model.warm_ms, swapped_ms(1), swapped_ms(2)), (19.0, 25.0, 41.0));
    }

    #[test]
    fn a_profile_is_read_as_it_was_written() {
        let mut profile = Profile::find("v100x4").unwrap();
        profile.models.get_mut("resnet152").unwrap().spread = vec![0.5, 1.0, 1.5];
        let read = Profile::parse(&profile.to_toml(), Path::new("written.toml")).unwrap();
        assert_eq!((read.gpu_limit, &read.topology), (profile.gpu_limit, &profile.topology));
        let model = &read.models["resnet152"];
        assert_eq!([0, 1, 2, 3].map(|drawn| model.factor(drawn)), [0.5, 1.0, 1.5, 0.5]);
        assert!((read.models["bert_large_qa"].factor(7) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn what_is_no_profile_is_refused_with_its_name() {
        assert!(matches!(Profile::find("/nonexistent.toml"), Err(ProfileError::Unreadable { .. })));
        let text = BUILT_IN[0].1.replace("warm_ms = 19", "warm_ms = -19");
        assert!(matches!(Profile::parse(&text, Path::new("p")), Err(ProfileError::Empty(_))));
        let text = BUILT_IN[0].1.replace("to = 3,", "to = 4,");
        assert!(matches!(Profile::parse(&text, Path::new("p")), Err(ProfileError::Empty(_))));
        let error = Profile::parse("gpus = 4", Path::new("p.toml")).unwrap_err();
        assert!(error.to_string().contains("p.toml"), "{error}");
        assert!(Profile::find("h200").unwrap().model("vgg").unwrap_err().to_string().contains("resnet152"));
    }
}
