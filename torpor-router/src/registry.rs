//! The functions that are served, by name, and how they follow the settings file.

use crate::config::Deployment;
use crate::function::Function;
use crate::instance::Launcher;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::terms::Terms;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use torpor_gpuserver::server::settings::{Percentile, SettingsFile};

/// How often functions look after their processes.
const TEND_INTERVAL: Duration = Duration::from_millis(250);

/// The part of requests that should be answered in time where the file does not say: the paper's.
const DEFAULT_PERCENTILE: f64 = 0.98;

/// A function, and within what time its requests should be answered.
#[derive(Clone, Debug)]
pub struct Served {
    /// The function.
    pub function: Arc<Function>,
    /// Its objective (`slo_ms`).
    pub objective: Option<Duration>,
    /// The part of them that should be (`slo_percentile`).
    pub percentile: f64,
}

impl Served {
    /// When the answer to a request that came at `arrived` should be there.
    #[must_use]
    pub fn due(&self, terms: Terms, arrived: Instant) -> Instant {
        self.objective.map_or(terms.deadline, |within| terms.deadline.min(arrived + within))
    }
}

/// All functions.
#[derive(Debug)]
pub struct Registry {
    launcher: Launcher,
    node: Arc<Node>,
    /// What is counted.
    pub metrics: Metrics,
    functions: RwLock<BTreeMap<String, Served>>,
    leaving: RwLock<Vec<Arc<Function>>>,
}

impl Registry {
    /// No functions yet.
    #[must_use]
    pub fn new(launcher: Launcher, node: Arc<Node>) -> Self {
        Self {
            launcher,
            node,
            metrics: Metrics::default(),
            functions: RwLock::default(),
            leaving: RwLock::default(),
        }
    }

    /// Does what a settings file says. A function that it serves as before is not touched; one that is served otherwise answers
    /// what it has begun, while its successor takes what comes.
    pub fn apply(&self, file: &SettingsFile) {
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        let mut wanted = Deployment::all(file);
        let objective = |name: &str| {
            let section =
                file.functions.iter().find(|(function, _)| function.0 == name).map(|(_, section)| section);
            let slo_ms = section.and_then(|section| section.slo_ms).or(file.defaults.slo_ms);
            let percentile =
                section.and_then(|section| section.slo_percentile).or(file.defaults.slo_percentile);
            (
                slo_ms.map(|ms| Duration::from_millis(u64::from(ms.get()))),
                percentile.map_or(DEFAULT_PERCENTILE, Percentile::fraction),
            )
        };
        functions.retain(|name, served| {
            let same = wanted.get(name) == Some(&served.function.deployment);
            if same {
                wanted.remove(name);
                (served.objective, served.percentile) = objective(name);
            } else {
                self.retire(&served.function);
            }
            same
        });
        for (name, deployment) in wanted {
            let (launcher, metrics) = (self.launcher.clone(), self.metrics.of(&name));
            let function = Function::new(name.as_str().into(), deployment, launcher, metrics);
            self.tend_one(&function);
            let (objective, percentile) = objective(&name);
            functions.insert(name, Served { function, objective, percentile });
        }
    }

    fn tend_one(&self, function: &Arc<Function>) {
        if let Some(largest) = self.node.largest_gpu() {
            function.must_fit(largest);
        }
        function.tend();
    }

    fn retire(&self, function: &Arc<Function>) {
        function.remove();
        self.leaving.write().unwrap_or_else(PoisonError::into_inner).push(function.clone());
    }

    /// Takes a function away until the settings file changes. False if there is none.
    pub fn remove(&self, name: &str) -> bool {
        let served = self.functions.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        served.inspect(|served| self.retire(&served.function)).is_some()
    }

    /// A function by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Served> {
        self.functions.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All functions, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Served> {
        self.functions.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Looks after all functions, for ever.
    pub async fn tend(&self) {
        let mut ticks = tokio::time::interval(TEND_INTERVAL);
        loop {
            ticks.tick().await;
            for served in self.all() {
                self.tend_one(&served.function);
            }
            let mut leaving = self.leaving.write().unwrap_or_else(PoisonError::into_inner);
            leaving.retain(|function| !function.is_gone());
            leaving.iter().for_each(|function| function.tend());
        }
    }

    /// Ends all functions, and returns when none has a process or `within` is over.
    pub async fn drain(&self, within: Duration) {
        let names: Vec<_> = self.all().into_iter().map(|served| served.function.name.clone()).collect();
        names.iter().for_each(|name| _ = self.remove(name));
        let gone = async {
            while !self.leaving.read().unwrap_or_else(PoisonError::into_inner).iter().all(|one| one.is_gone())
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(within, gone).await.is_err() {
            tracing::warn!("requests were still under way after {within:?}; their processes are ended");
        }
    }
}
