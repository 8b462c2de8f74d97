//! A worker in this process, spoken to as the node server does, with one client that does nothing.

use crate::client::Client;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use torpor_gpuserver::worker::{WorkerOptions, run};
use torpor_proto::channel::MappedChannel;
use torpor_proto::control::Message;
use torpor_proto::control::worker::from_worker::Body as From;
use torpor_proto::control::worker::to_worker::Body as To;
use torpor_proto::control::worker::{Attach, Begin, Detach, FromWorker, ToWorker};
use torpor_proto::mapping::create_sealed;
use torpor_proto::{handover, layout};

const GIB: u64 = 1 << 30;
/// Device addresses of each client.
const ARENA_BYTES: u64 = 4 * GIB;
/// Host addresses from one client to the next.
const HOST_STRIDE: u64 = GIB;
/// Bytes of a client's host range.
pub const HOST_BYTES: u64 = 16 << 20;
/// What of it is staging.
const STAGING_BYTES: u64 = 4 << 20;
/// Device memory that a client may have.
const LIMIT_BYTES: u64 = 64 << 20;
/// Bytes that the bystander has, and what they are.
const KEPT_BYTES: usize = 64 << 10;
const KEPT: u8 = 0x5a;

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

/// The worker, and the bystander.
pub struct Worker {
    socket: OwnedFd,
    bystander: Client,
    kept: u64,
    /// Clients attached so far: none has another's number.
    attached: u64,
}

impl Worker {
    /// Runs with the process's worker, and looks whether the bystander has noticed.
    pub fn with(run: impl FnOnce(&mut Self)) {
        WORKER.with_borrow_mut(|worker| {
            let worker = worker.get_or_insert_with(Self::start);
            run(worker);
            let kept = worker.bystander.download(worker.kept, KEPT_BYTES);
            assert!(kept.iter().all(|&byte| byte == KEPT), "the bystander's memory is not what it was");
        });
    }

    fn start() -> Self {
        let driver = std::env::var_os("TORPOR_FUZZ_DRIVER").expect(
            "TORPOR_FUZZ_DRIVER names the simulated driver: target/debug/libtorpor_simgpu.so, with its path",
        );
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .expect("a socket pair");
        let images = tempfile::tempdir().expect("a directory").keep();
        let begin = Begin {
            driver: driver.into_encoded_bytes(),
            images: images.into_os_string().into_encoded_bytes(),
            pinned_limit_bytes: GIB,
            image_limit_bytes: GIB,
            code_limit_bytes: GIB,
            spin_us: 50,
            linger_us: 1000,
            active_clients: "auto".to_owned(),
            eviction: "lru".to_owned(),
            swap: "grouped".to_owned(),
            swap_group_bytes: 8 << 20,
            ..Begin::default()
        };
        let options = WorkerOptions { device: 0, server: theirs, console: None, begin, kept: false };
        std::thread::spawn(|| run(options));
        let hear = handover::receive(&socket).expect("the worker speaks").0;
        match FromWorker::decode(hear.as_slice()).expect("a message").body {
            Some(From::Ready(_)) => {}
            other => panic!("the worker is not ready: {other:?}"),
        }
        let bystander = attach(&socket, 1, 0);
        let mut worker = Self { socket, bystander, kept: 0, attached: 1 };
        worker.kept =
            worker.bystander.allocate(0, layout::SEGMENT_GRANULE_BYTES).expect("memory for the bystander");
        worker.bystander.upload(worker.kept, &[KEPT; KEPT_BYTES]);
        worker
    }

    /// The bystander's memory, for those who try to reach it.
    pub fn bystanders_memory(&self) -> u64 {
        self.kept
    }

    /// A new client, at addresses of its place.
    pub fn attach(&mut self, place: u64) -> Client {
        self.attached += 1;
        attach(&self.socket, self.attached, 1 + place)
    }

    /// Ends clients; the worker is done with each when this returns.
    pub fn detach(&mut self, mut clients: Vec<u64>) {
        for &client in &clients {
            tell(&self.socket, To::Detach(Detach { client }), Vec::new());
        }
        while !clients.is_empty() {
            if let From::Detached(detached) = hear(&self.socket) {
                clients.retain(|&client| client != detached.client);
            }
        }
    }
}

fn attach(socket: &OwnedFd, client: u64, place: u64) -> Client {
    let attach = Attach {
        client,
        function: "fuzz".to_owned(),
        arena_address: layout::DEVICE_WINDOW.address + place * ARENA_BYTES,
        arena_bytes: ARENA_BYTES,
        host_address: layout::HOST_WINDOW.address + place * HOST_STRIDE,
        host_bytes: HOST_BYTES,
        staging_bytes: STAGING_BYTES,
        memory_limit_bytes: LIMIT_BYTES,
        pinned_limit_bytes: GIB,
        image_limit_bytes: GIB,
        ..Attach::default()
    };
    let (channel, channel_file) = MappedChannel::create().expect("a channel");
    let host = create_sealed("host", HOST_BYTES).expect("a host range");
    let kept = (channel_file.try_clone().expect("a descriptor"), host.try_clone().expect("a descriptor"));
    let client = Client::new(&attach, channel, kept.0, kept.1);
    tell(socket, To::Attach(attach), vec![channel_file, host]);
    loop {
        match hear(socket) {
            From::Attached(attached) if attached.client == client.id => return client,
            From::ClientFault(fault) if fault.client == client.id => panic!("not attached: {}", fault.reason),
            _ => {}
        }
    }
}

fn tell(socket: &OwnedFd, body: To, descriptors: Vec<OwnedFd>) {
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    handover::send(socket, &ToWorker { body: Some(body) }.encode_to_vec(), &borrowed)
        .expect("the worker listens");
}

fn hear(socket: &OwnedFd) -> From {
    let timeout = Timespec { tv_sec: 30, tv_nsec: 0 };
    let mut ready = [PollFd::new(socket, PollFlags::IN)];
    // libFuzzer's clock interrupts system calls.
    let polled = rustix::io::retry_on_intr(|| poll(&mut ready, Some(&timeout)));
    assert_eq!(polled, Ok(1), "the worker says nothing");
    let (message, _) = handover::receive(socket).expect("the worker speaks");
    assert!(!message.is_empty(), "the worker is gone");
    FromWorker::decode(message.as_slice()).expect("a message").body.expect("a known message")
}
