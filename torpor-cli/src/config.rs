//! `torpor config`: the settings file.

use crate::error::CliError;
use crate::table::print_json;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use torpor_gpuserver::server::options::OptionsError;
use torpor_gpuserver::server::settings::SettingsFile;

const EXAMPLES: &str = "\
Every key, with unit and default: docs/configuration.md. A server reads the file that `--config` or $TORPOR_CONFIG names, and
reads it again when it changes.

Example:
  torpor config check /etc/torpor.toml && torpor serve --config /etc/torpor.toml";

/// The settings file
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Config {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Say whether a settings file has errors, and in which line. Whether limits fit the GPUs, the server says at its start
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,

        /// Print JSON: an object
        #[arg(long)]
        json: bool,
    },
}

impl Config {
    /// Checks.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let Verb::Check { file, json } = self.verb;
        let (_, settings) = SettingsFile::read_in_time(&file).map_err(OptionsError::from)?;
        let functions = settings.functions.len();
        if json {
            print_json(&json!({"file": file, "functions": functions}));
            return Ok(ExitCode::SUCCESS);
        }
        let plural = if functions == 1 { "" } else { "s" };
        println!("{}: no errors, {functions} function{plural}", file.display());
        Ok(ExitCode::SUCCESS)
    }
}
