//! Where the parts of an installation are: beside the running executable, unless the environment says otherwise.

use std::env;
use std::path::{Path, PathBuf};

/// The program whose subcommands are the workers.
pub const SERVER_PROGRAM: Part = Part { file: "torpor-gpuserver", variable: "TORPOR_GPUSERVER" };

/// The driver that simulates GPUs.
pub const SIMULATED_DRIVER: Part = Part { file: "libtorpor_simgpu.so", variable: "TORPOR_SIMGPU" };

/// The library that client programs are started with.
pub const INTERCEPT_LIBRARY: Part = Part { file: "libtorpor_intercept.so", variable: "TORPOR_INTERCEPT" };

/// A file that Torpor needs at run time.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    file: &'static str,
    variable: &'static str,
}

/// A file of the installation is not where it should be.
#[derive(Debug, thiserror::Error)]
#[error("{file} is missing: looked at {looked_at}; put it beside the program, or name it in {variable}")]
pub struct MissingPart {
    file: &'static str,
    variable: &'static str,
    looked_at: String,
}

impl Part {
    /// The file named by the environment, else the one beside the running executable (or beside the directory of
    /// tests and examples that Cargo puts executables into).
    ///
    /// # Errors
    /// [`MissingPart`] if there is no such file.
    pub fn find(self) -> Result<PathBuf, MissingPart> {
        let candidates = self.candidates();
        let found = candidates.iter().find(|path| path.is_file());
        found.and_then(|path| std::path::absolute(path).ok()).ok_or_else(|| MissingPart {
            file: self.file,
            variable: self.variable,
            looked_at: candidates
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// Whether a path has this file's name.
    #[must_use]
    pub fn is_at(self, path: &Path) -> bool {
        path.file_name().is_some_and(|name| name == self.file)
    }

    fn candidates(self) -> Vec<PathBuf> {
        if let Some(named) = env::var_os(self.variable).filter(|value| !value.is_empty()) {
            return vec![named.into()];
        }
        let Ok(executable) = env::current_exe() else { return Vec::new() };
        executable.ancestors().skip(1).take(2).map(|directory| directory.join(self.file)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_part_says_where_it_was_looked_for_and_what_to_do() {
        let part = Part { file: "libnot_there.so", variable: "TORPOR_NOT_SET" };
        let message = part.find().unwrap_err().to_string();
        assert!(message.contains("libnot_there.so") && message.contains("TORPOR_NOT_SET"), "{message}");
    }
}
