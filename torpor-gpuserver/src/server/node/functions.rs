//! The functions of the node: made, found again, closed.

use crate::policy::event::What;
use crate::server::entrance::function::{Function, kept_name};
use crate::server::entrance::sockets;
use crate::server::entrance::tree::TreeError;
use crate::server::node::Node;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use torpor_proto::directory::{DEFAULT_FUNCTION, InvalidName, check_function_name};

/// Why there is no such function.
#[derive(Debug, thiserror::Error)]
pub enum FunctionError {
    /// Its name is none.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Its directory cannot be, or cannot go.
    #[error(transparent)]
    Directory(#[from] TreeError),
    /// Somebody counts on it.
    #[error("function {0} stays, for the settings file names it or it is the default")]
    Named(String),
    /// Its sockets cannot be.
    #[error("the sockets in {path} cannot be made: {error}")]
    Sockets {
        /// The function's directory.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

impl Node {
    /// Name and directory of each function.
    #[must_use]
    pub fn functions(&self) -> Vec<(String, String)> {
        let functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = |function: &Function| function.directory().path().display().to_string();
        functions.iter().map(|(name, function)| (name.clone(), directory(function))).collect()
    }
    /// Makes a function unless it is there, also if somebody deleted its directory. Returns its directory.
    ///
    /// # Errors
    /// [`FunctionError`].
    pub fn ensure_function(self: &Arc<Self>, name: &str) -> Result<PathBuf, FunctionError> {
        check_function_name(name)?;
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        match functions.get(name) {
            Some(function) if function.is_there() => return Ok(function.directory().path().to_owned()),
            Some(_) => {
                tracing::warn!(function = name, "its directory or sockets were removed; making them again")
            }
            None => {}
        }
        // Those that it serves stay served: only its sockets are others.
        functions.remove(name);
        let directory = self.tree.function(name);
        let inherited = {
            let places = [&*directory.control_socket(), &*directory.lifeline_socket()];
            sockets::inherit(&mut self.heritage(), &kept_name(name), places)
        };
        let directory = if inherited.is_some() { directory } else { self.tree.make_function(name)? };
        let path = directory.path().to_owned();
        let function = Function::open(self, name, directory, &self.acceptor, inherited)
            .map_err(|error| FunctionError::Sockets { path: path.clone(), error })?;
        functions.insert(name.to_owned(), function);
        self.events().tell(What::FunctionCreated { function: name.into() });
        Ok(path)
    }

    /// Takes a function away: its directory, its terms, its pin. Those that it serves stay served.
    ///
    /// # Errors
    /// [`FunctionError`]; one that is not there is no error.
    pub fn remove_function(&self, name: &str) -> Result<(), FunctionError> {
        check_function_name(name)?;
        if name == DEFAULT_FUNCTION || self.settings().settings().named().any(|named| named == name) {
            return Err(FunctionError::Named(name.to_owned()));
        }
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        functions.remove(name);
        self.keeper.forget(&kept_name(name));
        self.tree.remove_function(name)?;
        self.settings().forget(name);
        Ok(())
    }

    /// Opens the functions of the server that was here before: containers have their directories mounted.
    pub fn reopen_functions(self: &Arc<Self>) {
        for name in self.tree.functions() {
            if let Err(error) = self.ensure_function(&name) {
                tracing::error!(function = name, "the function of an earlier server stays closed: {error}");
            }
        }
    }

    /// Closes every function's sockets, and removes them and the admin API's.
    pub fn close_functions(&self) {
        self.functions.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.tree.clear();
    }
}
