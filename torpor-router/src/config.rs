//! What the router takes from the settings file: how each function is served.

use crate::batch::Batching;
use std::collections::BTreeMap;
use std::time::Duration;
use torpor_gpuserver::server::settings::{FunctionSection, SettingsFile};
use torpor_gpuserver::server::size::ByteSize;
use torpor_gpuserver::server::time::Time;

/// Who starts a function's processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Processes {
    /// The router, by this program and its arguments.
    Command(Vec<String>),
    /// Somebody else (a container engine, say): they answer at these `HOST:PORT`s.
    Endpoints(Vec<String>),
}

/// How a function is served. Keys and defaults are described in `docs/configuration.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// Where its requests are answered.
    pub processes: Processes,
    /// Environment beside the router's own.
    pub env: BTreeMap<String, String>,
    /// Processes kept without a request.
    pub min_instances: usize,
    /// Processes at most; at least one.
    pub max_instances: usize,
    /// Requests that one process answers at the same time; at least one.
    pub concurrency: usize,
    /// How requests become batches, if its program declares that it takes them.
    pub batching: Option<Batching>,
    /// Requests that may wait.
    pub max_queue: usize,
    /// How long a request may take in all.
    pub timeout: Duration,
    /// How long a process above the least goes on without a request.
    pub keep_alive: Duration,
    /// How long a process may take until it is healthy.
    pub start_timeout: Duration,
    /// Where it says that it is.
    pub health_path: String,
    /// Device memory that each process may allocate, if the function says so itself.
    pub memory_limit: Option<ByteSize>,
}

impl Deployment {
    /// How a function is served, `None` if it has neither command nor endpoints: then it is not reached through the router.
    #[must_use]
    pub fn of(function: &FunctionSection, defaults: &FunctionSection) -> Option<Self> {
        let endpoints = function.endpoints.clone().filter(|endpoints| !endpoints.is_empty());
        let command =
            function.command.as_ref().or(defaults.command.as_ref()).filter(|command| !command.is_empty());
        let processes = match endpoints {
            Some(endpoints) => Processes::Endpoints(endpoints),
            None => Processes::Command(command?.clone()),
        };
        macro_rules! setting {
            ($key:ident, $default:expr) => {
                function.$key.or(defaults.$key).unwrap_or($default)
            };
        }
        let mut env = defaults.env.clone().unwrap_or_default();
        env.extend(function.env.clone().unwrap_or_default());
        let min_instances = setting!(min_instances, 0);
        let max_instances = function.max_instances.or(defaults.max_instances).map_or(1, usize::from);
        let health_path = function.health_path.as_ref().or(defaults.health_path.as_ref());
        Some(Self {
            processes,
            env,
            min_instances,
            max_instances: max_instances.max(min_instances),
            concurrency: function.concurrency.or(defaults.concurrency).map_or(1, usize::from),
            batching: function.batch_size.or(defaults.batch_size).map(|size| Batching {
                size: size.get(),
                window: setting!(batch_window, Time(Duration::from_millis(5))).0,
            }),
            max_queue: setting!(max_queue, 10_000),
            timeout: setting!(timeout, Time(Duration::from_secs(300))).0,
            keep_alive: setting!(keep_alive, Time(Duration::from_secs(300))).0,
            start_timeout: setting!(start_timeout, Time(Duration::from_secs(600))).0,
            memory_limit: function.memory_limit,
            health_path: health_path.cloned().unwrap_or_else(|| "/health".to_owned()),
        })
    }

    /// All functions of a settings file that have a command.
    #[must_use]
    pub fn all(file: &SettingsFile) -> BTreeMap<String, Self> {
        let of = |section| Self::of(section, &file.defaults);
        file.functions.iter().filter_map(|(name, section)| Some((name.0.clone(), of(section)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_function_says_what_it_says_and_the_rest_is_the_defaults() {
        let text = r#"
            [defaults]
            concurrency = 4
            env = { A = "1", B = "1" }
            [functions.plain]
            memory_limit = "1GiB"
            [functions.elsewhere]
            endpoints = ["box:80"]
            [functions.served]
            command = ["python", "endpoint.py"]
            env = { B = "2" }
            min_instances = 3
            timeout = "30s"
        "#;
        let all = Deployment::all(&SettingsFile::parse(text, Path::new("torpor.toml")).unwrap());
        assert_eq!(
            all.keys().collect::<Vec<_>>(),
            ["elsewhere", "served"],
            "without either, nothing is served"
        );
        let served = &all["served"];
        assert_eq!(served.processes, Processes::Command(vec!["python".to_owned(), "endpoint.py".to_owned()]));
        assert_eq!(all["elsewhere"].processes, Processes::Endpoints(vec!["box:80".to_owned()]));
        assert_eq!(served.env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(), ["A=1", "B=2"]);
        assert_eq!((served.min_instances, served.max_instances, served.concurrency), (3, 3, 4));
        assert_eq!((served.timeout, served.health_path.as_str()), (Duration::from_secs(30), "/health"));
    }
}
