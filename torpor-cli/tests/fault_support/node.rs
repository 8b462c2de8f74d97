//! A node with simulated GPUs, whose driver is told what goes wrong.

use super::client::Client;
use crate::server_support::server::{Server, eventually};
use crate::support::torpor;
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A server, its workers, and where the simulated driver reports.
pub struct Node {
    pub server: Server,
    reports: tempfile::TempDir,
    clients: AtomicU32,
}

impl Node {
    /// So many GPUs with these faults, in the language of docs/simulated-gpu.md.
    pub fn start(gpus: usize, faults: &str) -> Self {
        Self::start_with(gpus, &[("TORPOR_SIMGPU_FAULTS", faults)])
    }

    /// So many GPUs with settings of the simulated driver.
    pub fn start_with(gpus: usize, settings: &[(&str, &str)]) -> Self {
        Self::start_serving(gpus, settings, &[])
    }

    /// One GPU, and flags of `torpor serve`.
    pub fn start_limited(flags: &[&str]) -> Self {
        Self::start_serving(1, &[], flags)
    }

    fn start_serving(gpus: usize, settings: &[(&str, &str)], flags: &[&str]) -> Self {
        let reports = tempfile::tempdir().unwrap();
        let server = Server::start_by(|directory| {
            let mut command = torpor(reports.path());
            command.arg("serve").arg("--directory").arg(directory.path());
            // Who is covered survives, and what covers is counted by the rules for faults, which a spare counts, too.
            command.args(["--driver", "simulated", "--staging", "4MiB", "--cover", "false"]);
            command.args(["--spare-worker", "false"]).args(flags);
            command.env("TORPOR_SIMGPU_DEVICES", gpus.to_string());
            command.env("TORPOR_SIMGPU_LOG", reports.path().join("log"));
            command.envs(settings.iter().copied());
            command.stdin(Stdio::null()).stdout(Stdio::null());
            command
        });
        Self { server, reports, clients: AtomicU32::new(0) }
    }

    /// A new client, on whatever GPU.
    pub fn client(&self) -> Client {
        self.client_of(&self.next_function())
    }

    /// A new client on a GPU. It is pinned: while it waits there, an idle GPU would take it.
    pub fn client_on(&self, gpu: u32) -> Client {
        let function = self.next_function();
        let client = self.client_of(&function);
        let pinned = self.verb(&["pin", &function, "--gpu", &gpu.to_string()]);
        assert!(pinned.status.success(), "{}", String::from_utf8_lossy(&pinned.stderr));
        let clients = self.server.clients();
        let listed = clients.iter().find(|client| client.function == function).unwrap();
        assert_eq!(listed.gpu, gpu);
        client
    }

    /// A new client of a function.
    pub fn client_of(&self, function: &str) -> Client {
        let mut run = torpor(self.reports.path());
        run.args(["run", "--function", function, "--directory"]).arg(self.server.directory.path());
        Client::start(run)
    }

    /// What a verb of `torpor` says of this node.
    pub fn verb(&self, arguments: &[&str]) -> Output {
        let (verb, rest) = arguments.split_first().unwrap();
        torpor(self.reports.path())
            .args([verb, "--directory"])
            .arg(self.server.directory.path())
            .args(rest)
            .output()
            .unwrap()
    }

    fn next_function(&self) -> String {
        format!("f{}", self.clients.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits until a GPU's worker has been replaced, and the new one serves.
    pub fn wait_for_replacement(&self, gpu: usize) {
        eventually("another worker serves", || {
            let gpu = &self.server.gpus()[gpu];
            gpu.worker_restarts > 0 && gpu.state == "ready"
        });
    }

    /// What the simulated driver reported, besides what machine it is.
    pub fn reports(&self) -> String {
        let log = fs::read_to_string(self.reports.path().join("log")).unwrap_or_default();
        log.lines().filter(|line| !line.ends_with(" time")).collect::<Vec<_>>().join("\n")
    }
}

/// Panics unless the log has a line with all these words.
pub fn assert_said(node: &Node, words: &[&str]) {
    let log = node.server.log();
    assert!(log.lines().any(|line| words.iter().all(|word| line.contains(word))), "{words:?} in {log}");
}

/// A path, as flags and settings have it.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
