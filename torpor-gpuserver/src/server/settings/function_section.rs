//! What a settings file may say of a function, as it is written.

use crate::server::settings::choice::{Isolation, Writeback};
use crate::server::settings::container::{Cpus, container_memory, port};
use crate::server::settings::devices::DeviceCount;
use crate::server::settings::text::{Percentile, device_memory_limit, kernel_timeout, milliseconds};
use crate::server::size::ByteSize;
use crate::server::time::Time;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};

/// `[defaults]` and `[functions.NAME]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FunctionSection {
    /// Device memory that each client may allocate.
    #[serde(deserialize_with = "device_memory_limit")]
    pub memory_limit: Option<ByteSize>,
    /// Processes of the function at a time.
    pub max_clients: Option<NonZeroU32>,
    /// Page-locked host memory that they may have on one GPU, staging included.
    pub pinned_limit: Option<ByteSize>,
    /// Code that they may use on one GPU, each image counted once.
    pub image_limit: Option<ByteSize>,
    /// The latency objective of a request.
    #[serde(deserialize_with = "milliseconds")]
    pub slo_ms: Option<NonZeroU32>,
    /// The part of the requests that should keep it.
    pub slo_percentile: Option<Percentile>,
    /// What becomes of writes when a client gives its GPU up.
    pub writeback: Option<Writeback>,
    /// Whether it is never evicted to make room.
    pub pinned: Option<bool>,
    /// What it is kept apart from others by.
    pub isolation: Option<Isolation>,
    /// Devices that its programs see.
    pub gpus: Option<DeviceCount>,
    /// The program that answers its requests over HTTP on the port of `$PORT`, and its arguments.
    pub command: Option<Vec<String>>,
    /// The image of its containers, in which the command runs, or the image's own.
    pub image: Option<String>,
    /// The port on which the program in the container listens.
    #[serde(deserialize_with = "port")]
    pub container_port: Option<NonZeroU16>,
    /// Host memory that each container may use.
    #[serde(deserialize_with = "container_memory")]
    pub container_memory: Option<ByteSize>,
    /// Processors that each container may use.
    pub cpus: Option<Cpus>,
    /// Processes and threads that each container may have.
    pub pids_limit: Option<NonZeroU32>,
    /// Who the program in the container is: `USER`, `UID` or `UID:GID`.
    pub user: Option<String>,
    /// Whether the container cannot write to its image's files.
    pub read_only: Option<bool>,
    /// Folders of the host and volumes that the container has, `SOURCE:TARGET` or `SOURCE:TARGET:ro` each.
    pub volumes: Option<Vec<String>>,
    /// Where processes that somebody else starts answer its requests, `HOST:PORT` each; instead of a command.
    pub endpoints: Option<Vec<String>>,
    /// Environment of the program, beside the router's.
    pub env: Option<BTreeMap<String, String>>,
    /// Processes that the router keeps running without a request.
    pub min_instances: Option<usize>,
    /// Processes that the router starts at most.
    pub max_instances: Option<NonZeroUsize>,
    /// Requests that one process answers at the same time.
    pub concurrency: Option<NonZeroUsize>,
    /// Requests that become one for its program, at most; none if its program does not take batches.
    pub batch_size: Option<NonZeroUsize>,
    /// How long the first of them waits for others.
    pub batch_window: Option<Time>,
    /// Requests that may wait for a process; more are refused.
    pub max_queue: Option<usize>,
    /// How long a request may take in all.
    pub timeout: Option<Time>,
    /// How long a process above `min_instances` goes on without a request.
    pub keep_alive: Option<Time>,
    /// How long a process may take until it is healthy.
    pub start_timeout: Option<Time>,
    /// Where a process says that it is healthy.
    pub health_path: Option<String>,
    /// How long a kernel may run.
    #[serde(deserialize_with = "kernel_timeout")]
    pub kernel_timeout: Option<Time>,
}
