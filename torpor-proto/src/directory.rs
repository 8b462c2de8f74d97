//! Where things are in the file system.
//!
//! ```text
//! $XDG_RUNTIME_DIR/torpor or /run/torpor
//! ├── lock                        held by the server; has its process's number
//! ├── admin.sock                  admin API (gRPC)
//! ├── compiler-N.sock             where GPU N's code is unpacked and compiled, for the workers alone
//! ├── images/                     code images by content hash, for the workers alone
//! ├── enclosures/                the same of each strict function, as long as it has a worker
//! ├── terms/                      what was said of functions when they were made
//! ├── containers/                 what the router mounts into containers that it starts, if it does
//! └── functions/
//!     └── NAME/                   stays when the server ends; mounted into the containers of this function: its identity, its only capability
//!         ├── control.sock        ZeroMQ: hello, limits
//!         └── lifeline.sock       takes a token, hands over shared memory, and is closed by whichever side dies
//! ```

use std::env;
use std::path::{Path, PathBuf};

/// The function of a program that was given none.
pub const DEFAULT_FUNCTION: &str = "default";

/// A name that cannot be a function's.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is no function name: use 1 to 63 letters, digits, '-', '_' or '.', and begin with a letter or digit"
)]
pub struct InvalidName(String);

/// Checks a function's name.
///
/// # Errors
/// [`InvalidName`].
pub fn check_function_name(name: &str) -> Result<(), InvalidName> {
    let allowed = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    let begins_well = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if begins_well && name.len() <= 63 && name.chars().all(allowed) {
        Ok(())
    } else {
        Err(InvalidName(name.to_owned()))
    }
}

/// The directory of a node server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerDirectory(PathBuf);

impl ServerDirectory {
    /// The directory at a path.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// `$TORPOR_SERVER`, else `$XDG_RUNTIME_DIR/torpor`, else `/run/torpor`.
    #[must_use]
    pub fn from_environment() -> Self {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self(set("TORPOR_SERVER").unwrap_or_else(|| {
            set("XDG_RUNTIME_DIR")
                .map_or_else(|| PathBuf::from("/run/torpor"), |runtime| runtime.join("torpor"))
        }))
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The admin API's socket.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.0.join("admin.sock")
    }

    /// Held by the server that listens here, or is about to; its process's number is written in it.
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// The socket of a GPU's compiler; GPUs are counted as the driver counts.
    #[must_use]
    pub fn compiler_socket(&self, gpu: u32) -> PathBuf {
        self.0.join(format!("compiler-{gpu}.sock"))
    }

    /// The image store.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.0.join("images")
    }

    /// Code images of strict functions, a directory for each.
    #[must_use]
    pub fn enclosures(&self) -> PathBuf {
        self.0.join("enclosures")
    }

    /// What was said of functions when they were made, a file for each.
    #[must_use]
    pub fn terms(&self) -> PathBuf {
        self.0.join("terms")
    }

    /// What the router mounts into the containers that it starts.
    #[must_use]
    pub fn containers(&self) -> PathBuf {
        self.0.join("containers")
    }

    /// All functions.
    #[must_use]
    pub fn functions(&self) -> PathBuf {
        self.0.join("functions")
    }

    /// One function.
    #[must_use]
    pub fn function(&self, name: &str) -> FunctionDirectory {
        FunctionDirectory(self.functions().join(name))
    }
}

/// The directory of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionDirectory(PathBuf);

impl FunctionDirectory {
    /// Where a client looks, one after the other: in `$TORPOR_SERVER` itself, which may be a function's directory (as
    /// mounted into a container), then in the function `$TORPOR_FUNCTION` (or [`DEFAULT_FUNCTION`]) of the server there.
    #[must_use]
    pub fn from_environment() -> [Self; 2] {
        let server = ServerDirectory::from_environment();
        let name = env::var("TORPOR_FUNCTION").unwrap_or_default();
        let function = server.function(if name.is_empty() { DEFAULT_FUNCTION } else { &name });
        [Self(server.0), function]
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The ZeroMQ endpoint's socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// The socket that hands over shared memory.
    #[must_use]
    pub fn lifeline_socket(&self) -> PathBuf {
        self.0.join("lifeline.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for name in ["a", "resnet-152", "a.b_C9"] {
            check_function_name(name).unwrap();
        }
        for name in ["", ".", "..", "a/b", "-x", "ü", &"x".repeat(64)] {
            assert!(check_function_name(name).is_err(), "{name}");
        }
    }
}
