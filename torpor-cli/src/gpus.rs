//! `torpor gpus`: what there is to serve with.

use crate::DirectoryFlag;
use crate::admin::Admin;
use crate::error::CliError;
use crate::table::{print_json, print_table};
use serde::Serialize;
use std::process::ExitCode;
use torpor_gpuserver::server::size::ByteSize;
use torpor_proto::control::admin::{Enclosure, Gpu, ListGpusRequest};

const EXAMPLES: &str = "\
STATE is ready, starting (its worker process is being started), unresponsive (worker or driver do not answer) or failed (the
worker does not start; that is tried again). What is wrong is told on standard error.
RESTARTS counts worker processes that ended, each with those of its clients that are not covered (`torpor functions`).
SPARE is the worker that takes over then: ready, starting, failed (none can be made, say for want of GPU memory; the log says
why, and it is tried again) or off (--spare-worker false). Its context takes GPU memory, which FREE does not count.
--json also says what clients were brought to each GPU from the host and from other GPUs since its worker began
(from_host_bytes, from_peers_bytes), and how much of its memory the latter takes (landing_bytes).
STRICT are the workers of strict functions (isolation = \"strict\"), and what their contexts take of what functions may use.

Examples:
  torpor gpus
  torpor gpus --json | jq '.[].free_memory_bytes'";

/// List the GPUs: their memory, their clients, and how their workers are
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Gpus {
    #[command(flatten)]
    directory: DirectoryFlag,

    /// Print JSON: an array of objects, sizes in bytes
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    gpu: u32,
    name: String,
    total_memory_bytes: u64,
    free_memory_bytes: u64,
    clients: u32,
    state: String,
    worker_pid: u32,
    worker_restarts: u64,
    spare: String,
    spare_pid: u32,
    enclosures: Vec<Enclosed>,
    enclosure_bytes: u64,
    simulated: bool,
    trouble: String,
    landing_bytes: u64,
    from_host_bytes: u64,
    from_peers_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Enclosed {
    function: String,
    worker_pid: u32,
    state: String,
    trouble: String,
    worker_restarts: u64,
    clients: u32,
}

impl From<Enclosure> for Enclosed {
    fn from(enclosure: Enclosure) -> Self {
        let Enclosure { function, worker_pid, state, trouble, worker_restarts, clients } = enclosure;
        Self { function, worker_pid, state, trouble, worker_restarts, clients }
    }
}

impl From<Gpu> for Row {
    fn from(gpu: Gpu) -> Self {
        Self {
            gpu: gpu.index,
            name: gpu.name,
            total_memory_bytes: gpu.total_memory_bytes,
            free_memory_bytes: gpu.free_memory_bytes,
            clients: gpu.clients,
            state: gpu.state,
            worker_pid: gpu.worker_pid,
            worker_restarts: gpu.worker_restarts,
            spare: gpu.spare,
            spare_pid: gpu.spare_pid,
            enclosures: gpu.enclosures.into_iter().map(Enclosed::from).collect(),
            enclosure_bytes: gpu.enclosure_bytes,
            simulated: gpu.simulated,
            trouble: gpu.trouble,
            landing_bytes: gpu.landing_bytes,
            from_host_bytes: gpu.from_host_bytes,
            from_peers_bytes: gpu.from_peers_bytes,
        }
    }
}

impl Row {
    fn cells(&self) -> [String; 10] {
        let name = if self.simulated { format!("{} (simulated)", self.name) } else { self.name.clone() };
        [
            self.gpu.to_string(),
            name,
            ByteSize(self.total_memory_bytes).to_string(),
            ByteSize(self.free_memory_bytes).to_string(),
            self.clients.to_string(),
            self.state.clone(),
            self.worker_pid.to_string(),
            self.worker_restarts.to_string(),
            self.spare.clone(),
            match self.enclosures.len() as u64 {
                0 => "0".to_owned(),
                some => format!("{some}/{}", ByteSize(some * self.enclosure_bytes)),
            },
        ]
    }
}

impl Gpus {
    /// Lists.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let server = self.directory.server();
        let answer = Admin::connect(&server)?.ask(async |api| api.list_gpus(ListGpusRequest {}).await)?;
        let rows: Vec<Row> = answer.gpus.into_iter().map(Row::from).collect();
        if self.json {
            print_json(&rows);
        } else {
            let cells: Vec<_> = rows.iter().map(Row::cells).collect();
            let headings = [
                "GPU", "NAME", "MEMORY", "FREE", "CLIENTS", "STATE", "WORKER", "RESTARTS", "SPARE", "STRICT",
            ];
            print_table(headings, &cells);
            for row in rows.iter().filter(|row| !row.trouble.is_empty()) {
                eprintln!("torpor: GPU {}: {}", row.gpu, row.trouble);
            }
            for (row, its) in rows.iter().flat_map(|row| row.enclosures.iter().map(move |its| (row, its))) {
                if !its.trouble.is_empty() {
                    eprintln!("torpor: GPU {}, function {}: {}", row.gpu, its.function, its.trouble);
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
