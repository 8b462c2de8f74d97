//! Whose a container is: what the router writes on it, and finds it by when it has been killed meanwhile.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The admin socket of the container's router, of which no two have the same.
const ROUTER: &str = "dev.torpor.router";
const DIRECTORY: &str = "dev.torpor.directory";
const FUNCTION: &str = "dev.torpor.function";
const INSTANCE: &str = "dev.torpor.instance";

/// A router, by its paths on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its admin socket.
    pub router: PathBuf,
    /// The node server's directory.
    pub directory: PathBuf,
}

impl Owner {
    /// What all containers of this router have, and no others.
    #[must_use]
    pub fn filter(&self) -> HashMap<String, Vec<String>> {
        HashMap::from([("label".to_owned(), vec![format!("{ROUTER}={}", self.router.display())])])
    }
}

/// What is written on a container.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// Its router.
    pub owner: &'a Owner,
    /// Its function.
    pub function: &'a str,
    /// Its number among the function's.
    pub instance: u64,
}

impl Labels<'_> {
    /// As the engine has them.
    #[must_use]
    pub fn all(&self) -> HashMap<String, String> {
        let path = |path: &Path| path.display().to_string();
        HashMap::from([
            (ROUTER.to_owned(), path(&self.owner.router)),
            (DIRECTORY.to_owned(), path(&self.owner.directory)),
            (FUNCTION.to_owned(), self.function.to_owned()),
            (INSTANCE.to_owned(), self.instance.to_string()),
        ])
    }
}
