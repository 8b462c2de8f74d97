//! `torpor load`: a function's memory to its GPU.

use crate::DirectoryFlag;
use crate::admin::Admin;
use crate::error::CliError;
use crate::how_far::HowFar;
use crate::table::print_json;
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::sleep;
use torpor_proto::control::admin::{ListFunctionsRequest, LoadFunctionRequest};

/// How often whoever waits is told how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
Ends when all memory of the function's processes is on their GPU, so that the next request need not wait for it. It may be
evicted again to make room, unless it is pinned (`torpor pin`).

Examples:
  torpor load resnet
  torpor load resnet --gpu 0      # moves it there first, if it is on another GPU";

/// Bring a function's memory to its GPU before its next request
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Load {
    /// The function
    name: String,

    /// The GPU that it is to be on [default: wherever it is]
    #[arg(long, value_name = "N")]
    gpu: Option<u32>,

    /// Print JSON: an object, sizes in bytes
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    directory: DirectoryFlag,
}

impl Load {
    /// Loads, and waits until that is done.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let request = LoadFunctionRequest { name: self.name.clone(), gpu: self.gpu };
        let mut how_far = HowFar::new(false);
        let loaded = Admin::connect_patiently(&self.directory.server())?.call(async |api| {
            let mut looking = api.clone();
            let mut loading = std::pin::pin!(api.load_function(request));
            loop {
                tokio::select! {
                    loaded = &mut loading => return loaded,
                    () = sleep(LOOK_EVERY), if how_far.is_wanted() => {}
                }
                let functions = looking.list_functions(ListFunctionsRequest {}).await?.into_inner().functions;
                if let Some(function) = functions.iter().find(|function| function.name == self.name) {
                    how_far.show("loading", function.resident_bytes, Some(function.allocated_bytes));
                }
            }
        })?;
        drop(how_far);
        if self.json {
            print_json(&json!({"name": self.name, "resident_bytes": loaded.resident_bytes}));
        }
        Ok(ExitCode::SUCCESS)
    }
}
