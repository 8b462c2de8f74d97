//! A worker process, driven as the node server and its clients drive it.
//!
//! The driver below is the simulated one, or the one that `TORPOR_TEST_DRIVER` names: the same tests run on a GPU.
#![allow(dead_code, reason = "each test program uses its own part of this module")]

pub mod client;
pub mod compiler;
pub mod contents;
pub mod kernels;

pub use client::Client;
pub use compiler::Compiler;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use torpor_proto::channel::MappedChannel;
use torpor_proto::control::Message;
use torpor_proto::control::client::Device;
use torpor_proto::control::worker::{
    Attach, Begin, Detach, FromWorker, ReportUsage, ToWorker, Usage, from_worker::Body as From,
    to_worker::Body as To,
};
use torpor_proto::handover;
use torpor_proto::layout::{AddressRange, DEVICE_WINDOW, HOST_WINDOW};
use torpor_proto::mapping::create_sealed;

/// Bytes of a test client's host range.
pub const HOST_BYTES: u64 = 64 << 20;
/// Device addresses of a client.
pub const ARENA_BYTES: u64 = 192 << 30;
/// Bytes of its staging area.
pub const STAGING_BYTES: u64 = 4 << 20;
/// Device memory it may have.
pub const LIMIT_BYTES: u64 = 256 << 20;

/// How long a worker may take to say something.
const PATIENCE: Duration = Duration::from_secs(30);

/// A worker process, and the server's end of its socket.
pub struct Worker {
    child: Child,
    /// Where its code is compiled.
    _compiler: Compiler,
    socket: OwnedFd,
    /// What it said of its device.
    pub device: Device,
    images: tempfile::TempDir,
}

/// Whether the tests run on a real GPU.
pub fn on_a_gpu() -> bool {
    std::env::var_os("TORPOR_TEST_DRIVER").is_some()
}

/// The simulated driver, or the one that `TORPOR_TEST_DRIVER` names.
pub fn driver() -> PathBuf {
    if let Some(path) = std::env::var_os("TORPOR_TEST_DRIVER") {
        return path.into();
    }
    let beside = Path::new(env!("CARGO_BIN_EXE_torpor-gpuserver")).parent().unwrap();
    let candidates = [beside.join("libtorpor_simgpu.so"), beside.join("deps/libtorpor_simgpu.so")];
    let found = candidates.into_iter().find(|path| path.exists());
    found.expect("no simulated driver beside the program: run `cargo build -p torpor-simgpu` first")
}

impl Worker {
    /// Starts a worker and waits until it is ready.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Self::start`], with environment variables.
    pub fn start_with(variables: &[(&str, &str)]) -> Self {
        Self::start_told(variables, Self::begin_message())
    }

    /// As [`Self::start_with`], with a message like [`Self::begin_message`]'s.
    pub fn start_told(variables: &[(&str, &str)], begin: Begin) -> Self {
        let mut worker = Self::spawn(variables, begin);
        match worker.hear() {
            From::Ready(ready) => worker.device = ready.device.unwrap(),
            other => panic!("the worker is not ready: {other:?}"),
        }
        worker
    }

    /// Starts a worker that cannot work as it is told, and returns its reason.
    pub fn fail_to_start(begin: Begin) -> String {
        let mut worker = Self::spawn(&[], begin);
        match worker.hear() {
            From::Failed(failed) => failed.reason,
            other => panic!("the worker started: {other:?}"),
        }
    }

    fn spawn(variables: &[(&str, &str)], begin: Begin) -> Self {
        let (images, compiler) = (tempfile::tempdir().unwrap(), Compiler::start());
        let (socket, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_torpor-gpuserver"))
            .args(["worker", "--device", "0"])
            .envs(variables.iter().copied())
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let path = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let begin = Begin { images: path(images.path()), compiler: path(&compiler.socket()), ..begin };
        let worker = Self { child, _compiler: compiler, socket, device: Device::default(), images };
        worker.tell(To::Begin(begin), &[]);
        worker
    }

    /// What a worker is told first, but for the directory of its images and its compiler.
    pub fn begin_message() -> Begin {
        Begin {
            driver: driver().into_os_string().into_vec(),
            log: "info".to_owned(),
            spin_us: 200,
            linger_us: 100_000,
            staging_idle_us: u64::MAX,
            pinned_limit_bytes: u64::MAX,
            image_limit_bytes: u64::MAX,
            code_limit_bytes: u64::MAX,
            active_clients: "auto".to_owned(),
            eviction: "lru".to_owned(),
            swap: "grouped".to_owned(),
            swap_group_bytes: 8 << 20,
            ..Begin::default()
        }
    }

    /// The directory of its images.
    pub fn images(&self) -> &Path {
        self.images.path()
    }

    /// The next thing it says, other than that somebody waits for a turn, or uses which device.
    pub fn hear(&mut self) -> From {
        loop {
            match self.hear_all() {
                From::Waiting(_) | From::Home(_) => {}
                other => return other,
            }
        }
    }

    /// The next device that it says somebody uses: the client, and which.
    pub fn hear_home(&mut self) -> (u64, u32) {
        loop {
            if let From::Home(home) = self.hear_all() {
                return (home.client, home.device);
            }
        }
    }

    fn hear_all(&mut self) -> From {
        let timeout = rustix::event::Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let mut ready = [rustix::event::PollFd::new(&self.socket, rustix::event::PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut ready, Some(&timeout)).unwrap(), 1, "the worker says nothing");
        let (message, _) = handover::receive(&self.socket).unwrap();
        assert!(!message.is_empty(), "the worker is gone: {:?}", self.child.wait());
        FromWorker::decode(message.as_slice()).unwrap().body.unwrap()
    }

    /// Tells it something.
    pub fn tell(&self, body: To, descriptors: &[OwnedFd]) {
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        handover::send(&self.socket, &ToWorker { body: Some(body) }.encode_to_vec(), &borrowed).unwrap();
    }

    /// What a client in `slot` would be attached with: addresses follow each other in both windows.
    pub fn attach_message(slot: u32) -> Attach {
        let range = |window: AddressRange, bytes| AddressRange {
            address: window.address + u64::from(slot) * bytes,
            bytes,
        };
        let (arena, host) = (range(DEVICE_WINDOW, ARENA_BYTES), range(HOST_WINDOW, HOST_BYTES));
        Attach {
            client: u64::from(slot) + 1,
            function: "test".to_owned(),
            arena_address: arena.address,
            arena_bytes: arena.bytes,
            host_address: host.address,
            host_bytes: HOST_BYTES,
            staging_bytes: STAGING_BYTES,
            memory_limit_bytes: LIMIT_BYTES,
            pinned_limit_bytes: u64::MAX,
            image_limit_bytes: u64::MAX,
            ..Attach::default()
        }
    }

    /// Attaches a client and waits until it is served.
    pub fn attach(&mut self, slot: u32) -> Client {
        self.attach_as(Self::attach_message(slot))
    }

    /// As [`Self::attach`], with a message like [`Self::attach_message`]'s.
    pub fn attach_as(&mut self, attach: Attach) -> Client {
        let (channel, channel_file) = MappedChannel::create().unwrap();
        let host = create_sealed("host", HOST_BYTES).unwrap();
        let (channel_kept, host_kept) = (channel_file.try_clone().unwrap(), host.try_clone().unwrap());
        let client = Client::new(&attach, channel, channel_kept, host_kept);
        self.tell(To::Attach(attach), &[channel_file, host]);
        match self.hear() {
            From::Attached(attached) if attached.client == client.id => client,
            other => panic!("not attached: {other:?}"),
        }
    }

    /// Detaches a client and returns how long that took.
    pub fn detach(&mut self, client: u64) {
        self.tell(To::Detach(Detach { client }), &[]);
        match self.hear() {
            From::Detached(detached) if detached.client == client => {}
            other => panic!("not detached: {other:?}"),
        }
    }

    /// What the thread of a client's session is doing, a letter as in proc(5).
    pub fn state_of_session(&self, client: u64) -> char {
        let threads = format!("/proc/{}/task", self.child.id());
        let of_client = |thread: &PathBuf| {
            std::fs::read_to_string(thread.join("comm"))
                .is_ok_and(|name| name.trim() == format!("client-{client}"))
        };
        let threads = std::fs::read_dir(threads).unwrap().map(|thread| thread.unwrap().path());
        let thread = threads.into_iter().find(of_client).expect("the client has a session");
        let stat = std::fs::read_to_string(thread.join("stat")).unwrap();
        let (_, behind_the_name) = stat.rsplit_once(") ").unwrap();
        behind_the_name.chars().next().unwrap()
    }

    /// What its clients use.
    pub fn usage(&mut self) -> Usage {
        self.tell(To::ReportUsage(ReportUsage {}), &[]);
        let mut clients = Vec::new();
        loop {
            match self.hear() {
                From::Usage(mut part) => {
                    clients.append(&mut part.clients);
                    if !part.more {
                        return Usage { clients, ..part };
                    }
                }
                other => panic!("no usage: {other:?}"),
            }
        }
    }

    /// Closes the socket and waits for the process to end.
    pub fn end(self) -> std::process::ExitStatus {
        let Self { mut child, socket, .. } = self;
        drop(socket);
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if began.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("the worker does not end");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
