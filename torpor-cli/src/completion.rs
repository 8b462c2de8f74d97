//! `torpor completion` and `torpor manual`: what a shell and `man` know of the command line.

use crate::Arguments;
use crate::error::CliError;
use crate::table::print;
use clap::CommandFactory;
use clap_complete::Shell;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  torpor completion bash > /etc/bash_completion.d/torpor
  torpor completion zsh > \"${fpath[1]}/_torpor\"
  torpor completion fish > ~/.config/fish/completions/torpor.fish";

/// Print what makes a shell complete this command
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    /// Prints.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "torpor", &mut script);
        print(&String::from_utf8_lossy(&script));
        Ok(ExitCode::SUCCESS)
    }
}

/// Write the manual pages: torpor(1), and one for each verb
#[derive(Debug, clap::Args)]
pub struct Manual {
    /// The folder for them, which is there, such as /usr/local/share/man/man1
    directory: PathBuf,
}

impl Manual {
    /// Writes.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let cannot = |error| CliError::Manual { directory: self.directory.clone(), error };
        clap_mangen::generate_to(Arguments::command(), &self.directory).map_err(cannot)?;
        Ok(ExitCode::SUCCESS)
    }
}
