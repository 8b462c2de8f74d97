//! Processes whose logs are read.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_torpor-kube");

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `done` says so.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "it never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A part of Torpor that Cargo builds beside the program, or into `deps` if only a test wants it; the newest of both.
pub fn part(file: &str) -> PathBuf {
    let beside = Path::new(PROGRAM).parent().unwrap();
    let candidates = [beside.join(file), beside.join("deps").join(file)];
    let built = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).ok();
    let found = candidates.into_iter().filter(|path| path.is_file()).max_by_key(built);
    found.unwrap_or_else(|| panic!("{file} is missing: run `cargo build --workspace` first"))
}

/// `torpor-kube`, with nothing of this process's environment that it would listen to.
pub fn kube() -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_remove("TORPOR_LOG").env_remove("TORPOR_SERVER").env_remove("NODE_NAME");
    command
}

/// A process, killed when it is dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(mut command: Command, log: &Path) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(log).unwrap());
        Self { child: command.spawn().unwrap(), log: log.to_owned() }
    }

    pub fn said(&self, text: &str) -> bool {
        fs::read_to_string(&self.log).unwrap().contains(text)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}
