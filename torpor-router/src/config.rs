//! What the router takes from the settings file: how each function is served.

use crate::batch::Batching;
use std::collections::BTreeMap;
use std::time::Duration;
use torpor_gpuserver::server::settings::{Cpus, FunctionSection, SettingsFile};
use torpor_gpuserver::server::size::ByteSize;
use torpor_gpuserver::server::time::Time;

/// Who starts a function's processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Processes {
    /// The router, by this program and its arguments.
    Command(Vec<String>),
    /// The router, as containers.
    Container(Container),
    /// Somebody else (an orchestrator, say): they answer at these `HOST:PORT`s.
    Endpoints(Vec<String>),
}

/// The port on which programs in containers listen that do not say otherwise.
const CONTAINER_PORT: u16 = 8000;

/// What a function's containers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Of which image.
    pub image: String,
    /// What runs in them; if empty, what the image says.
    pub command: Vec<String>,
    /// Where that listens.
    pub port: u16,
    /// Host memory that each may use.
    pub memory: Option<ByteSize>,
    /// Processors that each may use.
    pub cpus: Option<Cpus>,
    /// Processes and threads that each may have.
    pub pids_limit: Option<u32>,
    /// Who its program is, if not who the image says.
    pub user: Option<String>,
    /// Whether the image's files cannot be written to.
    pub read_only: bool,
    /// What else of the host it has, as the engine reads it.
    pub volumes: Vec<String>,
}

impl Container {
    fn of(
        image: String,
        command: Vec<String>,
        function: &FunctionSection,
        defaults: &FunctionSection,
    ) -> Self {
        let volumes = function.volumes.as_ref().or(defaults.volumes.as_ref());
        Self {
            image,
            command,
            port: function.container_port.or(defaults.container_port).map_or(CONTAINER_PORT, u16::from),
            memory: function.container_memory.or(defaults.container_memory),
            cpus: function.cpus.or(defaults.cpus),
            pids_limit: function.pids_limit.or(defaults.pids_limit).map(u32::from),
            user: function.user.clone().or_else(|| defaults.user.clone()).filter(|user| !user.is_empty()),
            read_only: function.read_only.or(defaults.read_only).unwrap_or(true),
            volumes: volumes.cloned().unwrap_or_default(),
        }
    }
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
    /// How a function is served, `None` if it has no command, image or endpoints: then it is not reached through the router.
    #[must_use]
    pub fn of(function: &FunctionSection, defaults: &FunctionSection) -> Option<Self> {
        let endpoints = function.endpoints.clone().filter(|endpoints| !endpoints.is_empty());
        let command = function.command.as_ref().or(defaults.command.as_ref()).cloned().unwrap_or_default();
        let image = function.image.as_ref().or(defaults.image.as_ref()).filter(|image| !image.is_empty());
        let processes = match (endpoints, image) {
            (Some(endpoints), _) => Processes::Endpoints(endpoints),
            (None, Some(image)) => {
                Processes::Container(Container::of(image.clone(), command, function, defaults))
            }
            (None, None) if command.is_empty() => return None,
            (None, None) => Processes::Command(command),
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

    /// All functions of a settings file that are served.
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

    #[test]
    fn a_function_with_an_image_is_served_by_containers() {
        let text = r#"
            [defaults]
            command = ["python", "app.py"]
            image = "ours/python"
            container_memory = "8GiB"
            [functions.all]
            [functions.own]
            image = "ours/own:2"
            command = []
            container_port = 80
            read_only = false
            [functions.process]
            image = ""
            [functions.elsewhere]
            endpoints = ["box:80"]
        "#;
        let all = Deployment::all(&SettingsFile::parse(text, Path::new("torpor.toml")).unwrap());
        let container = |name: &str| match &all[name].processes {
            Processes::Container(container) => container.clone(),
            other => panic!("{other:?}"),
        };
        let shared = container("all");
        assert_eq!((shared.image.as_str(), shared.port, shared.read_only), ("ours/python", 8000, true));
        assert_eq!((shared.command.len(), shared.memory), (2, Some(ByteSize(8 << 30))));
        let own = container("own");
        assert_eq!((own.image.as_str(), own.port, own.read_only), ("ours/own:2", 80, false));
        assert!(own.command.is_empty(), "what the image says");
        assert!(matches!(all["process"].processes, Processes::Command(_)));
        assert!(matches!(all["elsewhere"].processes, Processes::Endpoints(_)));
    }
}
