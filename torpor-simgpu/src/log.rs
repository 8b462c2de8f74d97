//! The simulator's log: the file that `TORPOR_SIMGPU_LOG` names, or nothing.
//!
//! One line an entry, `torpor-simgpu[pid]: …`, appended at once, so that several processes can share the file and a test
//! can read it while they run.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

/// Where reports go.
#[derive(Debug, Default)]
pub struct Log {
    file: Option<File>,
    said: Mutex<HashSet<String>>,
}

impl Log {
    /// A log that appends to `path`, or that keeps silent if there is none.
    pub fn open(path: Option<&Path>) -> std::io::Result<Self> {
        let file = path.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
        Ok(Self { file, said: Mutex::default() })
    }

    /// Adds a line.
    pub fn line(&self, message: &str) {
        if let Some(mut file) = self.file.as_ref() {
            let line = format!("torpor-simgpu[{}]: {}\n", std::process::id(), message.replace('\n', " "));
            // A full disk must not change what the simulated program sees.
            let _ = file.write_all(line.as_bytes());
        }
    }

    /// Adds a line unless the same one was written before.
    pub fn once(&self, message: &str) {
        if self.file.is_some() && crate::lock(&self.said).insert(message.to_owned()) {
            self.line(message);
        }
    }
}
