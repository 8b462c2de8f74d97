//! A session on the simulated GPU, or on the one that `TORPOR_TEST_DRIVER` names.

#[path = "../../../../tests/worker_support/client.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod client;
#[path = "../../../../tests/worker_support/kernels.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod kernels;

use super::*;
use crate::compiler::{Compiler, Life, answer};
use crate::driver::{Device, Driver, Reservation};
use crate::policy::eviction::Eviction;
use crate::policy::sharing::ActiveLimit;
use crate::state_file;
use crate::worker::gpu::digest::Digests;
use crate::worker::gpu::images::ImageStore;
use crate::worker::gpu::images::room::ImageLimits;
use crate::worker::gpu::tuning::Tuning;
use crate::worker::server_socket::ServerSocket;
use client::Client;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::cell::Cell;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use torpor_proto::command::Ping;
use torpor_proto::control::Message;
use torpor_proto::control::migration::{Checkpoint, Uses};
use torpor_proto::control::worker::{Attached, Detached, FromWorker, Released, Resumed, from_worker::Body};
use torpor_proto::handover;
use torpor_proto::layout::{DEVICE_WINDOW, HOST_WINDOW};
use torpor_proto::mapping::create_sealed;
use torpor_proto::ring::{Consumer, NO_SLOT};

const HOST_BYTES: u64 = 8 << 20;
const STAGING_BYTES: u64 = 4 << 20;
const SEGMENT_BYTES: u64 = 2 << 20;
const ARENA_BYTES: u64 = 8 << 30;

fn driver() -> PathBuf {
    if let Some(path) = std::env::var_os("TORPOR_TEST_DRIVER") {
        return path.into();
    }
    let program = std::env::current_exe().expect("this program has a path");
    let places = program.ancestors().skip(1).take(2).map(|folder| folder.join("libtorpor_simgpu.so"));
    let found = places.into_iter().find(|path| path.exists());
    found.expect("no simulated driver beside the tests: run `cargo build -p torpor-simgpu` first")
}

/// A compiler whose jobs are done by a thread of this process.
fn compiler(directory: &Path, device: &Arc<Device>) -> Compiler {
    let (socket, device) = (directory.join("compiler.sock"), device.clone());
    let listener = UnixListener::bind(&socket).expect("a socket");
    thread::spawn(move || {
        device.make_current().expect("the context is fine");
        for mut connection in listener.incoming().flatten() {
            let life = Life::of_this_process();
            answer(&mut connection, life, Ok(&device)).expect("whoever asks waits for the answer");
        }
    });
    Compiler::new(socket, directory.to_owned(), "driver".to_owned())
}

/// A worker without its main thread, and the server's end of its socket.
fn worker(images: PathBuf, arena: AddressRange) -> (Arc<Shared>, Reservation, OwnedFd) {
    let device = Device::open(Driver::load(&driver()).expect("the driver loads"), 0).expect("a device");
    device.make_current().expect("the context is fine");
    let window = Reservation::exactly(&device, arena.address, arena.bytes).expect("the arena is free");
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a socket");
    let tuning = Tuning {
        spin: Duration::ZERO,
        busy_turn: Duration::ZERO,
        staging_idle: Duration::MAX,
        linger: Duration::from_millis(1),
        swap: crate::swap_mode::SwapMode::Grouped,
        group_bytes: 8 << 20,
        memory_limit_bytes: 64 << 20,
        pinned_limit_bytes: u64::MAX,
        active_clients: ActiveLimit::Auto,
        eviction: Eviction::Lru,
        context_limit_bytes: 1 << 20,
        cover: false,
        lean: true,
        enclosed: false,
    };
    let limits = ImageLimits { disk_bytes: u64::MAX, code_bytes: u64::MAX };
    let compiler = compiler(&images, &device);
    let images = ImageStore::open(images, limits).expect("a directory");
    let digests = Digests::load(&device).expect("the kernel loads");
    (
        Arc::new(Shared::new(
            device,
            Arc::new(ServerSocket::new(theirs)),
            images,
            compiler,
            digests,
            None,
            tuning,
        )),
        window,
        ours,
    )
}

/// A worker without its main thread, and a client that comes to it.
struct Scene {
    shared: Arc<Shared>,
    link: Arc<Link>,
    attach: Attach,
    brought: Brought,
    client: Client,
    _window: Reservation,
    server: OwnedFd,
}

/// Its addresses are those of a number: tests run side by side.
fn scene(number: u64, images: &Path, state: Option<OwnedFd>) -> Scene {
    let arena = AddressRange { address: DEVICE_WINDOW.address + number * ARENA_BYTES, bytes: ARENA_BYTES };
    let host = AddressRange { address: HOST_WINDOW.address + number * HOST_BYTES, bytes: HOST_BYTES };
    let (shared, _window, server) = worker(images.to_owned(), arena);
    let attach = Attach {
        client: 1,
        arena_address: arena.address,
        arena_bytes: arena.bytes,
        host_address: host.address,
        host_bytes: HOST_BYTES,
        staging_bytes: STAGING_BYTES,
        memory_limit_bytes: 64 << 20,
        pinned_limit_bytes: u64::MAX,
        image_limit_bytes: u64::MAX,
        resumed: state.is_some(),
        ..Attach::default()
    };
    let (channel, channel_file) = MappedChannel::create().expect("a channel");
    let host_file = create_sealed("host", HOST_BYTES).expect("memory");
    let copy = |file: &OwnedFd| file.try_clone().expect("a descriptor");
    let brought = Brought { channel: copy(&channel_file), host: copy(&host_file), state };
    let client = Client::new(&attach, channel, channel_file, host_file);
    let link = shared.enlist(1, "f", arena).expect("it is alone");
    Scene { shared, link, attach, brought, client, _window, server }
}

#[test]
fn nothing_is_done_again_while_another_client_is_made() {
    let images = tempfile::tempdir().expect("a directory");
    let state = state_file::write(&Checkpoint::default()).expect("memory");
    let Scene { shared, link, attach, brought, mut client, _window, server: _server } =
        scene(0, images.path(), Some(state));
    let slot = client.ask_later(Ping {}, &[]);
    // By the worker that is dead.
    let (ring, words) = (client.channel.ring(), &client.channel.words);
    assert_eq!(Consumer::resume(ring).pop(ring, words, &mut Record::default()), Ok(true));
    let elsewhere = AddressRange { address: link.arena.end(), bytes: ARENA_BYTES };
    let other = shared.enlist(2, "g", elsewhere).expect("it is elsewhere");
    let (theirs, there) = (shared.clone(), link.clone());
    let session = thread::spawn(move || {
        live(&theirs, &there, &attach, brought, Session::serve);
        theirs.delist(1, true);
    });
    while link.presence.is_coming() {
        thread::yield_now();
    }
    let began = Instant::now();
    thread::sleep(Duration::from_millis(100));
    let is_answered = client.channel.slots[usize::from(slot)].is_done();
    assert!(!is_answered || began.elapsed() >= Duration::from_secs(1), "it did not wait");
    assert!(shared.is_making(), "it waits for the other one");
    other.presence.begin_again();
    assert!(!shared.is_making(), "neither for itself nor for one that does something again, too");
    client.await_slot(slot).expect("it is answered");
    shared.detach(1);
    session.join().expect("it ends in order");
}

#[test]
fn who_comes_with_a_state_is_told_nothing_of_a_context_that_is_lost_before_it_is_served() {
    let told = |number, state| {
        let images = tempfile::tempdir().expect("a directory");
        let Scene { shared, link, attach, brought, client, _window, server: _server } =
            scene(number, images.path(), state);
        let made = Session::open(&shared, &link, &attach, brought.channel, brought.host);
        let _session = made.expect("the GPU takes it");
        shared.lose(CudaError::ILLEGAL_ADDRESS, "a neighbour's kernel".to_owned());
        client.channel.sticky_error()
    };
    assert_eq!(told(2, None), Some(CudaError::ILLEGAL_ADDRESS));
    let state = state_file::write(&Checkpoint::default()).expect("memory");
    assert_eq!(told(3, Some(state)), None, "the server has its state");
}

#[test]
fn who_comes_with_a_state_is_known_by_its_uses() {
    let images = tempfile::tempdir().expect("a directory");
    let uses = Uses { gaps: 3.0, seconds: 0.006, since_us: 0 };
    let state = state_file::write(&Checkpoint { uses: Some(uses), ..Checkpoint::default() }).expect("memory");
    let Scene { shared, link, attach, brought, client: _client, _window, server: _server } =
        scene(6, images.path(), Some(state));
    let known = Cell::new(None);
    live(&shared, &link, &attach, brought, |session, _first| {
        known.set(session.shared.memory.past_uses(1));
        Stop::Detached
    });
    shared.delist(1, true);
    let known = known.get().expect("it was used elsewhere");
    assert_eq!((known.gaps, known.seconds), (3.0, 0.006));
}

#[test]
fn a_session_that_panics_keeps_its_memory_until_its_work_has_ended() {
    let images = tempfile::tempdir().expect("a directory");
    let Scene { shared, link, attach, brought, mut client, _window, server: _server } =
        scene(1, images.path(), None);
    let (theirs, there) = (shared.clone(), link.clone());
    let session = thread::spawn(move || {
        live(&theirs, &there, &attach, brought, |session, first| {
            session.serve(first);
            panic!("as a mistake of the worker would");
        });
        theirs.delist(1, true);
    });
    client.load_kernels();
    let flag = client.allocate(0, SEGMENT_BYTES).expect("there is room");
    client.launch_at(2, flag, 0);
    client.ask(Ping {}).expect("it is served");
    assert!(client.push(999, NO_SLOT, &[], &[]), "there is room");
    torpor_proto::ring::wake_consumer(client.channel.ring());
    shared.detach(1);
    let began = Instant::now();
    while client.channel.sticky_error().is_none() {
        assert!(began.elapsed() < Duration::from_secs(20), "the client is not told");
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(50));
    assert!(!session.is_finished(), "its kernel has not ended");
    assert_eq!(shared.device.memory_info().err(), None, "the context is well");
    let mut word = vec![0_u8; 4];
    word[0] = 1;
    let done = client.write_host(0, &word);
    let stream = crate::driver::Stream::new(&shared.device, 0).expect("a stream");
    let (to, from) = ((crate::driver::Place::Device, flag), (crate::driver::Place::Host, done));
    // SAFETY: the session keeps both until its kernel, which waits for this, has ended.
    unsafe { stream.copy(to, from, word.len()) }.expect("the context is well");
    session.join().expect("it ends in order");
    assert_eq!(shared.lost(), None);
}

/// What the server has been told of clients since it listened last.
fn told(server: &OwnedFd) -> Vec<Body> {
    rustix::io::ioctl_fionbio(server, true).expect("it is a socket");
    let next = || FromWorker::decode(handover::receive(server).ok()?.0.as_slice()).ok()?.body;
    std::iter::from_fn(next).collect()
}

#[test]
fn the_end_of_a_session_is_told_to_the_server_that_asks_for_it_and_to_no_other() {
    let images = tempfile::tempdir().expect("a directory");
    let Scene { shared, server, .. } = scene(4, images.path(), None);
    let (detached, resumed) = (Body::Detached(Detached { client: 1 }), |server| Resumed { server });
    shared.resume(1);
    let coming = Body::Attached(Attached { client: 1, is_coming: true });
    assert_eq!(told(&server), [coming, Body::Resumed(resumed(1))]);
    shared.detach(1);
    assert_eq!(told(&server), [], "it has not ended");
    shared.resume(2);
    assert_eq!(told(&server), [detached.clone(), Body::Resumed(resumed(2))], "this one did not ask for it");
    shared.delist(1, true);
    assert_eq!(told(&server), []);
    shared.detach(1);
    assert_eq!(told(&server), [detached]);
}

#[test]
fn another_server_knows_what_became_of_each_client_when_it_hears_that_this_was_all() {
    const SERVERS: u64 = 300;
    let images = tempfile::tempdir().expect("a directory");
    let Scene { shared, link, server, .. } = scene(5, images.path(), None);
    let state = state_file::write(&Checkpoint::default()).expect("memory");
    shared.delist(1, true);
    for number in 1..=SERVERS {
        shared.enlist(1, "f", link.arena).expect("it is alone");
        thread::scope(|scope| {
            scope.spawn(|| shared.delist_released(1, &state));
            shared.resume(number);
        });
        let (told, released) = (told(&server), Body::Released(Released { client: 1 }));
        let all = told.iter().position(|said| *said == Body::Resumed(Resumed { server: number }));
        let is_of_it = |said: &Body| matches!(said, Body::Attached(_)) || *said == released;
        assert!(told.iter().take(all.expect("it is said")).any(is_of_it), "{told:?}");
        assert!(told.contains(&released));
    }
}

#[test]
fn memory_that_somebody_is_giving_back_is_waited_for() {
    // More than half of the simulated GPU.
    const BYTES: u64 = 100 << 30;
    let images = tempfile::tempdir().expect("a directory");
    let Scene { shared, .. } = scene(7, images.path(), None);
    let turn = std::sync::Mutex::new(());
    let work = || {
        shared.device.make_current().expect("the context is fine");
        for _ in 0..300 {
            {
                let _one_at_a_time = turn.lock();
                let piece = shared.memory.take(BYTES).expect("whoever had it has given it back");
                shared.memory.lay_by(piece);
            }
            shared.memory.trim();
        }
    };
    thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(work))));
}
