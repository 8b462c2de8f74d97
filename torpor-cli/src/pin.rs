//! `torpor pin`: whether a function may be evicted.

use crate::DirectoryFlag;
use crate::admin::Admin;
use crate::error::CliError;
use crate::table::print_json;
use serde_json::json;
use std::process::ExitCode;
use torpor_proto::control::admin::PinFunctionRequest;

const EXAMPLES: &str = "\
A pinned function is never evicted to make room for others. Holds until the server ends, whatever the settings file says of
`pinned`; to have it for good, write it there (docs/configuration.md).

Examples:
  torpor pin resnet
  torpor pin resnet --gpu 1       # and it moves to GPU 1, where its next processes go too
  torpor pin resnet --off         # may be evicted again, and go to any GPU";

/// Keep a function's memory on its GPU
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Pin {
    /// The function
    name: String,

    /// Let it be evicted again
    #[arg(long)]
    off: bool,

    /// The GPU that it is to be on [default: any]
    #[arg(long, value_name = "N")]
    gpu: Option<u32>,

    /// Print JSON: an object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    directory: DirectoryFlag,
}

impl Pin {
    /// Pins.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let request = PinFunctionRequest { name: self.name.clone(), pinned: !self.off, gpu: self.gpu };
        Admin::connect(&self.directory.server())?.call(async |api| api.pin_function(request).await)?;
        if self.json {
            print_json(&json!({"name": self.name, "pinned": !self.off}));
        }
        Ok(ExitCode::SUCCESS)
    }
}
