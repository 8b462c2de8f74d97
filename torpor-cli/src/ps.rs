//! `torpor ps`: who is being served.

use crate::DirectoryFlag;
use crate::admin::Admin;
use crate::error::CliError;
use crate::table::{print_json, print_table, short_duration};
use serde::Serialize;
use std::process::ExitCode;
use std::time::Duration;
use torpor_gpuserver::server::size::ByteSize;
use torpor_proto::control::admin::{Client, ListClientsRequest};

const EXAMPLES: &str = "\
Columns: NAME is the function, MEMORY the device memory that the client has allocated, RESIDENT how much of it is on the GPU
now, PINNED its page-locked host memory. STATE is idle, waiting (for its GPU), active (the GPU has work of it) or failed
(every CUDA call of it returns an error).

Examples:
  torpor ps
  torpor ps --json | jq '.[] | select(.state == \"failed\") | .pid'";

/// List the clients: which process of which function is on which GPU, and what it holds
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Ps {
    #[command(flatten)]
    directory: DirectoryFlag,

    /// Print JSON: an array of objects, sizes in bytes
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    id: u64,
    function: String,
    pid: u32,
    program: String,
    gpu: u32,
    allocated_bytes: u64,
    resident_bytes: u64,
    host_bytes: u64,
    pinned_bytes: u64,
    state: String,
    commands: u64,
    age_ms: u64,
    covered: bool,
}

impl From<Client> for Row {
    fn from(client: Client) -> Self {
        Self {
            id: client.id,
            function: client.function,
            pid: client.pid,
            program: client.program,
            gpu: client.gpu,
            allocated_bytes: client.allocated_bytes,
            resident_bytes: client.memory_bytes,
            host_bytes: client.host_bytes,
            pinned_bytes: client.pinned_bytes,
            state: client.state,
            commands: client.commands,
            age_ms: client.age_ms,
            covered: client.covered,
        }
    }
}

impl Row {
    fn cells(&self) -> [String; 9] {
        [
            self.function.clone(),
            self.pid.to_string(),
            self.program.clone(),
            self.gpu.to_string(),
            ByteSize(self.allocated_bytes).to_string(),
            ByteSize(self.resident_bytes).to_string(),
            ByteSize(self.pinned_bytes).to_string(),
            self.state.clone(),
            short_duration(Duration::from_millis(self.age_ms)),
        ]
    }
}

impl Ps {
    /// Lists.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let server = self.directory.server();
        let answer =
            Admin::connect(&server)?.ask(async |api| api.list_clients(ListClientsRequest {}).await)?;
        let rows: Vec<Row> = answer.clients.into_iter().map(Row::from).collect();
        if self.json {
            print_json(&rows);
        } else if rows.is_empty() {
            eprintln!("torpor: nobody uses the GPUs; start a program with `torpor run -- COMMAND`");
        } else {
            let cells: Vec<_> = rows.iter().map(Row::cells).collect();
            print_table(
                ["NAME", "PID", "PROGRAM", "GPU", "MEMORY", "RESIDENT", "PINNED", "STATE", "AGE"],
                &cells,
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}
