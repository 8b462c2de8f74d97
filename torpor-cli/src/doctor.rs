//! `torpor doctor`: whether the node is well.
//!
//! Everything in the host store is hashed again, in memory and in files, and the GPUs' workers are asked after. What is
//! wrong is told with what to do about it.

use crate::DirectoryFlag;
use crate::admin::Admin;
use crate::error::CliError;
use crate::table::{print, print_json, print_table};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::process::ExitCode;
use torpor_gpuserver::server::size::ByteSize;
use torpor_proto::control::admin::{
    Client, Gpu, ListClientsRequest, ListGpusRequest, ReportStoreRequest, ReportStoreResponse, SpillDisk,
    VerifyStoreRequest, VerifyStoreResponse,
};

/// A disk with less room than this is full: the store writes as much at a time.
const LITTLE_ROOM_BYTES: u64 = 32 << 20;

const EXAMPLES: &str = "\
Takes as long as reading all that the host store keeps, in memory and in files. Functions are served meanwhile.

LOCKED is the page-locked host memory of a GPU's clients, CODE what is loaded of functions' images there, of what there may be.

Exits with 1 if something is damaged or a GPU is not ready; each line that begins with `problem:` says what to do.

Examples:
  torpor doctor
  torpor doctor --json | jq '.problems[].what'";

/// Check the node: the host store's contents, in memory and in files, and the GPUs
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Doctor {
    #[command(flatten)]
    directory: DirectoryFlag,

    /// Print JSON: an object, sizes in bytes
    #[arg(long)]
    json: bool,
}

/// What is wrong.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Problem {
    what: String,
    remedy: &'static str,
}

/// How full the host store is.
#[derive(Debug, Serialize)]
struct HostStore {
    pool_bytes: u64,
    locked_bytes: u64,
    used_bytes: u64,
    saved_bytes: u64,
    spilled_bytes: u64,
    spill_limit_bytes: u64,
    spill_disk_free_bytes: Option<u64>,
}

/// How much code is in files.
#[derive(Debug, Serialize)]
struct Images {
    bytes: u64,
    limit_bytes: u64,
}

/// What a function has in the host store.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Stored {
    function: String,
    host_bytes: u64,
    spilled_bytes: u64,
}

/// What of the host store was hashed again.
#[derive(Debug, Serialize)]
struct Verified {
    chunks: u64,
    checked_chunks: u64,
    checked_bytes: u64,
    damaged: Vec<String>,
    contradictions: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
struct GpuState {
    gpu: u32,
    name: String,
    state: String,
    worker_pid: u32,
    worker_restarts: u64,
    trouble: String,
    pinned_bytes: u64,
    pinned_limit_bytes: u64,
    code_bytes: u64,
    code_limit_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    host_store: HostStore,
    images: Images,
    functions: Vec<Stored>,
    verified: Verified,
    gpus: Vec<GpuState>,
    problems: Vec<Problem>,
}

impl Doctor {
    /// Looks and reports.
    pub fn run(self) -> Result<ExitCode, CliError> {
        // A server that does not answer at all is told of soon.
        Admin::connect(&self.directory.server())?
            .call(async |api| api.list_gpus(ListGpusRequest {}).await)?;
        let mut admin = Admin::connect_patiently(&self.directory.server())?;
        let store = admin.call(async |api| api.report_store(ReportStoreRequest {}).await)?;
        let clients = admin.call(async |api| api.list_clients(ListClientsRequest {}).await)?.clients;
        let verified = admin.call(async |api| api.verify_store(VerifyStoreRequest {}).await)?;
        // Last, because the check takes time.
        let gpus = admin.call(async |api| api.list_gpus(ListGpusRequest {}).await)?.gpus;
        let report = Report::new(&store, &clients, verified, gpus);
        if self.json {
            print_json(&report);
        } else {
            report.print();
        }
        Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Report {
    fn new(
        store: &ReportStoreResponse,
        clients: &[Client],
        verified: VerifyStoreResponse,
        gpus: Vec<Gpu>,
    ) -> Self {
        let gpu_state = |gpu: Gpu| GpuState {
            gpu: gpu.index,
            name: if gpu.simulated { format!("{} (simulated)", gpu.name) } else { gpu.name },
            state: gpu.state,
            worker_pid: gpu.worker_pid,
            worker_restarts: gpu.worker_restarts,
            trouble: gpu.trouble,
            pinned_bytes: gpu.pinned_bytes,
            pinned_limit_bytes: gpu.pinned_limit_bytes,
            code_bytes: gpu.code_bytes,
            code_limit_bytes: gpu.code_limit_bytes,
        };
        let verified = Verified {
            chunks: verified.chunks,
            checked_chunks: verified.checked,
            checked_bytes: verified.checked_bytes,
            damaged: verified.damaged,
            contradictions: verified.contradictions,
        };
        let gpus: Vec<GpuState> = gpus.into_iter().map(gpu_state).collect();
        Self {
            problems: problems(&verified, &gpus, store.spill_disk.as_ref()),
            host_store: HostStore {
                pool_bytes: store.pool_bytes,
                locked_bytes: store.total_bytes,
                used_bytes: store.used_bytes,
                saved_bytes: store.saved_bytes,
                spilled_bytes: store.spilled_bytes,
                spill_limit_bytes: store.spill_limit_bytes,
                spill_disk_free_bytes: store.spill_disk.as_ref().map(|disk| disk.free_bytes),
            },
            images: Images { bytes: store.image_bytes, limit_bytes: store.image_limit_bytes },
            functions: by_function(store, clients),
            verified,
            gpus,
        }
    }

    fn print(&self) {
        let Images { bytes, limit_bytes } = self.images;
        let images = format!("images:     {} in files, at most {}", ByteSize(bytes), ByteSize(limit_bytes));
        print(&format!("{}\n{}\n{images}\n\n", self.host_store.describe(), self.verified.describe()));
        let stored = |function: &Stored| {
            let [host, spilled] = [function.host_bytes, function.spilled_bytes].map(ByteSize);
            [function.function.clone(), host.to_string(), spilled.to_string()]
        };
        if !self.functions.is_empty() {
            print_table(["NAME", "HOST", "SPILLED"], &self.functions.iter().map(stored).collect::<Vec<_>>());
            print("\n");
        }
        let of = |bytes, limit_bytes| format!("{} of {}", ByteSize(bytes), ByteSize(limit_bytes));
        let gpu = |gpu: &GpuState| {
            [
                gpu.gpu.to_string(),
                gpu.name.clone(),
                gpu.state.clone(),
                gpu.worker_restarts.to_string(),
                of(gpu.pinned_bytes, gpu.pinned_limit_bytes),
                of(gpu.code_bytes, gpu.code_limit_bytes),
            ]
        };
        let headings = ["GPU", "NAME", "STATE", "RESTARTS", "LOCKED", "CODE"];
        print_table(headings, &self.gpus.iter().map(gpu).collect::<Vec<_>>());
        let told = |problem: &Problem| format!("\nproblem: {}\n  {}\n", problem.what, problem.remedy);
        let problems: String = self.problems.iter().map(told).collect();
        print(if problems.is_empty() { "\nno problems\n" } else { &problems });
    }
}

impl HostStore {
    fn describe(&self) -> String {
        let [pool, locked, used, saved, spilled] =
            [self.pool_bytes, self.locked_bytes, self.used_bytes, self.saved_bytes, self.spilled_bytes]
                .map(ByteSize);
        let files = match self.spill_limit_bytes {
            0 => "no spill directory".to_owned(),
            limit if limit > i64::MAX as u64 => format!("{spilled} spilled to files, without a limit"),
            limit => format!("{spilled} spilled to files of at most {}", ByteSize(limit)),
        };
        format!(
            "host store: {used} in use of {locked} page-locked, at most {pool}; equal contents save {saved}; {files}"
        )
    }
}

impl Verified {
    fn describe(&self) -> String {
        let Self { chunks, checked_chunks, damaged, contradictions, .. } = self;
        let checked =
            format!("{checked_chunks} of {chunks} chunks ({}) hashed again", ByteSize(self.checked_bytes));
        let rest =
            if checked_chunks < chunks { " (the others' contents are not known yet, or moved)" } else { "" };
        match (damaged.len(), contradictions.len()) {
            (0, 0) => format!("contents:   {checked}{rest}: as they were stored"),
            (damaged, contradictions) => {
                format!("contents:   {checked}{rest}: {damaged} damaged, {contradictions} contradictions")
            }
        }
    }
}

/// What each function's clients have together, by name. A client that is gone has nothing.
fn by_function(store: &ReportStoreResponse, clients: &[Client]) -> Vec<Stored> {
    let names: HashMap<u64, &str> =
        clients.iter().map(|client| (client.id, client.function.as_str())).collect();
    let mut functions = BTreeMap::<&str, Stored>::new();
    for client in &store.clients {
        let Some(&name) = names.get(&client.client) else { continue };
        let stored = functions.entry(name).or_default();
        stored.host_bytes = stored.host_bytes.saturating_add(client.host_bytes);
        stored.spilled_bytes = stored.spilled_bytes.saturating_add(client.spilled_bytes);
    }
    functions.into_iter().map(|(name, stored)| Stored { function: name.to_owned(), ..stored }).collect()
}

fn problems(verified: &Verified, gpus: &[GpuState], spill_disk: Option<&SpillDisk>) -> Vec<Problem> {
    let full_disk = spill_disk.filter(|disk| disk.free_bytes < LITTLE_ROOM_BYTES).map(|disk| Problem {
        what: format!("the disk of the spill directory {} is full: it has {} left", disk.directory, ByteSize(disk.free_bytes)),
        remedy: "make room on it, or restart the server with another --spill-dir or a larger --host-pool: until then functions \
                 that need room on a GPU get error 2 (out of memory)",
    });
    let damaged = verified.damaged.iter().map(|what| Problem {
        what: what.clone(),
        remedy: "restart the function's processes, for this memory of them is lost; check the machine's memory (`dmesg`), \
                 or the disk if it is a spill file",
    });
    let contradictions = verified.contradictions.iter().map(|what| Problem {
        what: format!("the host store's bookkeeping contradicts itself: {what}"),
        remedy: "this is a mistake in Torpor: keep the server's log, restart the server, and report it",
    });
    let unready = gpus.iter().filter(|gpu| gpu.state != "ready").map(|gpu| Problem {
        what: match (gpu.trouble.as_str(), gpu.worker_pid) {
            ("", _) => format!("GPU {} ({}) is {}", gpu.gpu, gpu.name, gpu.state),
            (trouble, 0) => format!("GPU {} ({}) is {}: {trouble}", gpu.gpu, gpu.name, gpu.state),
            (trouble, pid) => {
                format!("GPU {} ({}, worker {pid}) is {}: {trouble}", gpu.gpu, gpu.name, gpu.state)
            }
        },
        remedy: match gpu.state.as_str() {
            "unresponsive" => "look at the worker's process (`ps`; `kill -CONT` if it is stopped) and at the GPU \
                               (`nvidia-smi`, `dmesg`); `kill -KILL` of the worker fails its clients and starts another",
            "starting" => "its worker is being started; look again in some seconds",
            _ => "the server's log says why, and it is tried again by itself; look at the GPU with `nvidia-smi`",
        },
    });
    damaged.chain(contradictions).chain(full_disk).chain(unready).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use torpor_proto::control::admin::StoreClient;

    #[test]
    fn functions_have_what_their_clients_have_and_clients_that_are_gone_have_nothing() {
        let client = |id, function: &str| Client { id, function: function.to_owned(), ..Client::default() };
        let stored = |client, host_bytes, spilled_bytes| StoreClient { client, host_bytes, spilled_bytes };
        let store = ReportStoreResponse {
            clients: vec![stored(1, 8, 2), stored(2, u64::MAX, 1), stored(3, 5, 0), stored(4, 7, 7)],
            ..ReportStoreResponse::default()
        };
        let functions = by_function(&store, &[client(1, "b"), client(2, "b"), client(3, "a")]);
        let row = |function: &str, host_bytes, spilled_bytes| Stored {
            function: function.to_owned(),
            host_bytes,
            spilled_bytes,
        };
        assert_eq!(functions, [row("a", 5, 0), row("b", u64::MAX, 3)]);
    }

    #[test]
    fn every_problem_is_told_with_what_to_do() {
        let gpu = |gpu, state: &str| GpuState {
            gpu,
            name: "G".to_owned(),
            state: state.to_owned(),
            worker_pid: 7,
            worker_restarts: 0,
            trouble: if state == "unresponsive" { "it hangs".to_owned() } else { String::new() },
            ..GpuState::default()
        };
        let verified = Verified {
            chunks: 3,
            checked_chunks: 2,
            checked_bytes: 4 << 20,
            damaged: vec!["chunk 5 of function f: gone bad".to_owned()],
            contradictions: vec!["two owners".to_owned()],
        };
        let found = problems(
            &verified,
            &[gpu(0, "ready"), gpu(1, "failed"), gpu(2, "starting"), gpu(3, "unresponsive")],
            None,
        );
        let told: Vec<&str> = found.iter().map(|problem| problem.what.as_str()).collect();
        assert_eq!(told.len(), 5);
        assert_eq!(told[4], "GPU 3 (G, worker 7) is unresponsive: it hangs");
        for (told, words) in told.iter().zip(["function f", "two owners", "GPU 1 (G) is failed", "GPU 2"]) {
            assert!(told.contains(words), "{told}");
        }
        assert!(found[0].remedy.contains("restart the function's processes"));
        let disk = |free_bytes| SpillDisk { directory: "/spill".to_owned(), free_bytes };
        let well = Verified { damaged: Vec::new(), contradictions: Vec::new(), ..verified };
        assert!(problems(&well, &[], Some(&disk(LITTLE_ROOM_BYTES))).is_empty());
        let full = problems(&well, &[], Some(&disk(1 << 20)));
        assert!(full[0].what.contains("/spill is full: it has 1 MiB left"), "{}", full[0].what);
        assert!(found[3].remedy.contains("look again"));
        assert_eq!(
            verified.describe(),
            "contents:   2 of 3 chunks (4 MiB) hashed again (the others' contents are not known yet, or moved): 1 damaged, \
             1 contradictions"
        );
    }
}
