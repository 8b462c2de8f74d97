//! `torpor functions`: what each function has, where, and how it was served.

use crate::DirectoryFlag;
use crate::admin::Admin;
use crate::error::CliError;
use crate::table::{print_json, print_table};
use serde::Serialize;
use std::process::ExitCode;
use torpor_gpuserver::server::size::ByteSize;
use torpor_proto::control::admin::{Function, Isolation, ListFunctionsRequest};

const EXAMPLES: &str = "\
Columns: CLIENTS are its processes, of as many as max_clients says; MEMORY is the device memory that the function's clients have allocated, RESIDENT how much of it is on the GPU now,
HOST how much of it the host keeps, of which SPILLED lies in files; LIMIT is what each client may allocate. LOCKED is the
page-locked host memory of its processes on one GPU, and IMAGES the code that they use there, of what they may. STATE is idle, waiting (for its GPU),
active or failed (every CUDA call of its clients returns an error). Of its REQUESTS, HITS found all memory on the GPU, for
SWAPS some had to be brought. SLO and PINNED are its settings. FIXED images keep it on its GPU: the server's log says why; so does memory that its SHARING processes have together.
ARRAYS are its arrays, texture and surface objects: how many, and the memory of the arrays.
ISOLATION is its setting: a strict function has workers of its own, and stays on the GPU where it began unless it is moved by
`torpor load --gpu` or `torpor pin --gpu`; with processes from before the setting was changed, how many of them are strict.
DEVICES are what its programs see (gpus); all that one process sees lie on one GPU.
COVERED are those of its clients that would survive a fault of another function now: they are idle, and all they have is saved.

Examples:
  torpor functions
  torpor functions --json | jq '.[] | select(.resident_bytes > 0) | .name'";

/// List the functions: what they have on GPUs and in host memory, and how their requests were served
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Functions {
    #[command(flatten)]
    directory: DirectoryFlag,

    /// Print JSON: an array of objects, sizes in bytes
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    directory: String,
    clients: u32,
    gpus: Vec<u32>,
    state: String,
    resident_bytes: u64,
    allocated_bytes: u64,
    host_bytes: u64,
    spilled_bytes: u64,
    requests: u64,
    hits: u64,
    swaps: u64,
    memory_limit_bytes: u64,
    max_clients: Option<u32>,
    pinned_bytes: u64,
    pinned_limit_bytes: Option<u64>,
    image_bytes: u64,
    image_limit_bytes: u64,
    slo_ms: Option<u32>,
    writeback: String,
    pinned: bool,
    fixed_images: u64,
    arrays: u64,
    array_bytes: u64,
    covered_clients: u32,
    sharing_clients: u64,
    isolation: String,
    strict_clients: u32,
    devices: u32,
}

impl From<Function> for Row {
    fn from(function: Function) -> Self {
        Self {
            isolation: isolation(&function).to_owned(),
            strict_clients: function.strict_clients,
            devices: function.devices,
            name: function.name,
            directory: function.directory,
            clients: function.clients,
            gpus: function.gpus,
            state: function.state,
            resident_bytes: function.resident_bytes,
            allocated_bytes: function.allocated_bytes,
            host_bytes: function.host_bytes,
            spilled_bytes: function.spilled_bytes,
            requests: function.requests,
            hits: function.hits,
            swaps: function.swaps,
            memory_limit_bytes: function.memory_limit_bytes,
            max_clients: function.max_clients,
            pinned_bytes: function.pinned_bytes,
            pinned_limit_bytes: function.pinned_limit_bytes,
            image_bytes: function.image_bytes,
            image_limit_bytes: function.image_limit_bytes,
            slo_ms: function.slo_ms,
            writeback: function.writeback,
            pinned: function.pinned,
            fixed_images: function.fixed_images,
            arrays: function.arrays,
            array_bytes: function.array_bytes,
            covered_clients: function.covered_clients,
            sharing_clients: function.sharing_clients,
        }
    }
}

const HEADINGS: [&str; 22] = [
    "NAME",
    "STATE",
    "CLIENTS",
    "GPU",
    "MEMORY",
    "RESIDENT",
    "HOST",
    "SPILLED",
    "LIMIT",
    "LOCKED",
    "IMAGES",
    "REQUESTS",
    "HITS",
    "SWAPS",
    "SLO",
    "PINNED",
    "FIXED",
    "ARRAYS",
    "SHARING",
    "ISOLATION",
    "COVERED",
    "DEVICES",
];

impl Row {
    fn cells(&self) -> [String; 22] {
        let nothing = || "-".to_owned();
        let gpus: Vec<String> = self.gpus.iter().map(u32::to_string).collect();
        [
            self.name.clone(),
            self.state.clone(),
            self.max_clients
                .map_or_else(|| self.clients.to_string(), |most| format!("{}/{most}", self.clients)),
            if gpus.is_empty() { nothing() } else { gpus.join(",") },
            ByteSize(self.allocated_bytes).to_string(),
            ByteSize(self.resident_bytes).to_string(),
            ByteSize(self.host_bytes).to_string(),
            ByteSize(self.spilled_bytes).to_string(),
            ByteSize(self.memory_limit_bytes).to_string(),
            self.pinned_limit_bytes
                .map_or_else(|| ByteSize(self.pinned_bytes).to_string(), |most| of(self.pinned_bytes, most)),
            of(self.image_bytes, self.image_limit_bytes),
            self.requests.to_string(),
            self.hits.to_string(),
            self.swaps.to_string(),
            self.slo_ms.map_or_else(nothing, |ms| format!("{ms}ms")),
            if self.pinned { "yes" } else { "no" }.to_owned(),
            self.fixed_images.to_string(),
            format!("{}/{}", self.arrays, ByteSize(self.array_bytes)),
            self.sharing_clients.to_string(),
            match (self.isolation == "strict", self.strict_clients) {
                (true, strict) if strict == self.clients => self.isolation.clone(),
                (false, 0) => self.isolation.clone(),
                (_, strict) => format!("{} ({strict}/{} strict)", self.isolation, self.clients),
            },
            format!("{}/{}", self.covered_clients, self.clients),
            self.devices.to_string(),
        ]
    }
}

/// As it is written in the settings file.
fn isolation(function: &Function) -> &'static str {
    match function.isolation() {
        Isolation::Shared => "shared",
        Isolation::Strict => "strict",
    }
}

/// So much of what there may be.
fn of(bytes: u64, limit_bytes: u64) -> String {
    format!("{}/{}", ByteSize(bytes), ByteSize(limit_bytes))
}

impl Functions {
    /// Lists.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let server = self.directory.server();
        let mut admin = Admin::connect(&server)?;
        let answer = admin.ask(async |api| api.list_functions(ListFunctionsRequest {}).await)?;
        let rows: Vec<Row> = answer.functions.into_iter().map(Row::from).collect();
        if self.json {
            print_json(&rows);
        } else {
            let cells: Vec<_> = rows.iter().map(Row::cells).collect();
            print_table(HEADINGS, &cells);
        }
        Ok(ExitCode::SUCCESS)
    }
}
