//! `torpor load`: a function's memory to its GPU.

use crate::DirectoryFlag;
use crate::admin::Admin;
use crate::error::CliError;
use std::process::ExitCode;
use torpor_proto::control::admin::LoadFunctionRequest;

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

    #[command(flatten)]
    directory: DirectoryFlag,
}

impl Load {
    /// Loads, and waits until that is done.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let request = LoadFunctionRequest { name: self.name, gpu: self.gpu };
        Admin::connect_patiently(&self.directory.server())?
            .call(async |api| api.load_function(request).await)?;
        Ok(ExitCode::SUCCESS)
    }
}
