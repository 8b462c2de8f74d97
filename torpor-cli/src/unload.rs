//! `torpor unload`: a function's memory off its GPU.

use crate::DirectoryFlag;
use crate::admin::Admin;
use crate::error::CliError;
use crate::table::print_json;
use serde_json::json;
use std::process::ExitCode;
use torpor_proto::control::admin::UnloadFunctionRequest;

const EXAMPLES: &str = "\
Ends when nothing of the function is on a GPU any more; its memory is kept on the host, and its next request brings it back.
A function that is busy for ten seconds is an error; it leaves as soon as it is idle all the same.

Example:
  torpor unload resnet";

/// Take a function's memory off its GPU
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Unload {
    /// The function
    name: String,

    /// Print JSON: an object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    directory: DirectoryFlag,
}

impl Unload {
    /// Unloads, and waits until that is done.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let request = UnloadFunctionRequest { name: self.name.clone() };
        Admin::connect_patiently(&self.directory.server())?
            .call(async |api| api.unload_function(request).await)?;
        if self.json {
            print_json(&json!({"name": self.name, "resident_bytes": 0}));
        }
        Ok(ExitCode::SUCCESS)
    }
}
