//! A worker without a GPU. How it behaves is told by the name of the function whose client it is to serve.

use super::fake_store::FakeStore;
use std::fs::File;
use std::os::fd::AsFd;
use torpor_proto::channel::MappedChannel;
use torpor_proto::control::Message;
use torpor_proto::control::client::Device;
use torpor_proto::control::worker::{
    Attached, ClientFault, ClientUsage, Covered, Detached, DeviceFault, Failed, FromWorker, MemoryYielded,
    NotReleased, Pong, Ready, Released, Resumed, Seek, Settings, ToWorker, Usage, YieldMemory, from_worker,
    to_worker,
};
use torpor_proto::error::CudaError;
use torpor_proto::handover;
use torpor_proto::mapping::{check_sealed, create_sealed};

/// Its worker ends at once.
pub const DIES: &str = "dies";
/// Its worker loses its context and ends.
pub const LOSES_CONTEXT: &str = "loses-context";
/// As [`LOSES_CONTEXT`], and its worker does not end.
pub const LOSES_CONTEXT_AND_STAYS: &str = "loses-context-and-stays";
/// Workers lose their contexts before they serve it, as many as the file of `TORPOR_FAKE_LOSSES` has bytes left.
pub const COMES_TO_A_LOSS: &str = "comes-to-a-loss";
/// Its worker finds that it broke the protocol.
pub const BREAKS_PROTOCOL: &str = "breaks-protocol";
/// Its worker never says that it serves it, and never lets go of it.
pub const IGNORED: &str = "ignored";

/// Its worker never takes its memory off the GPU.
pub const BUSY: &str = "busy";

/// Its worker never gives it up.
pub const STAYS: &str = "stays";

/// Its worker says that it is covered, and never takes a command.
pub const COVERED: &str = "covered";

/// As [`COVERED`], and each worker ends that is to go on from its state.
pub const DEADLY: &str = "deadly";

/// As [`COVERED`], and its worker makes its state void.
pub const BUSY_AGAIN: &str = "busy-again";

/// As [`COVERED`], and its worker does not have it any more when another server comes, as if it had just been given up to the one before.
/// What it says first of letting go of it is not heard before another server comes.
pub const FORGOTTEN: &str = "forgotten";

/// Its workers' clients 1 and 2 seek each other at once when the first one is evicted, and give them up slowly.
pub const SEEK_EACH_OTHER: &str = "seek-each-other";

/// Bytes of GPU memory that every client is said to use.
pub const MEMORY_BYTES: u64 = 3 << 20;

/// A client as the worker knows it.
struct Served {
    client: u64,
    function: String,
    resident_bytes: u64,
    /// Another worker had it, or this one.
    came_back: bool,
}

/// Tells on standard error, which is the server's log, what it is to hold to for a client of a function.
fn tell_settings(function: &str, memory_limit_bytes: u64, writeback: i32, pinned: bool) {
    eprintln!("fake worker: {function}: limit {memory_limit_bytes} writeback {writeback} pinned {pinned}.");
}

/// What is held as long as this worker lives, of a GPU that has room for one context if `TORPOR_FAKE_ONE_CONTEXT` names a file.
/// `None` if there is no room, unless `TORPOR_FAKE_WAITS`.
fn take_context() -> Option<Option<File>> {
    let Some(path) = std::env::var_os("TORPOR_FAKE_ONE_CONTEXT") else { return Some(None) };
    eprintln!("fake worker: begins");
    let context = File::open(path).unwrap();
    if context.try_lock().is_err() {
        if std::env::var_os("TORPOR_FAKE_WAITS").is_none() {
            eprintln!("fake worker: no room for a context");
            return None;
        }
        eprintln!("fake worker: waits for a context");
        context.lock().unwrap();
    }
    Some(Some(context))
}

/// Whether another context is to be lost.
fn take_loss() -> bool {
    let path = std::env::var_os("TORPOR_FAKE_LOSSES").unwrap();
    let left = std::fs::read(&path).unwrap();
    left.split_last().is_some_and(|(_, rest)| std::fs::write(&path, rest).is_ok())
}

/// Call from the test named `fake_worker`: serves if this process is one, else does nothing.
pub fn serve_if_asked() {
    if std::env::var_os("TORPOR_FAKE_WORKER").is_none() {
        return;
    }
    let socket = std::io::stdin();
    let say = |body| {
        handover::send(&socket, &FromWorker { body: Some(body), number: 0 }.encode_to_vec(), &[]).unwrap()
    };
    let Some(_context) = take_context() else {
        let reason = "out of memory".to_owned();
        say(from_worker::Body::Failed(Failed { reason }));
        return;
    };
    let device = Device { name: "Fake GPU".to_owned(), total_memory_bytes: 8 << 30, ..Device::default() };
    say(from_worker::Body::Ready(Ready { device: Some(device) }));
    let mut clients: Vec<Served> = Vec::new();
    // Those that it had for another server, and those of which it has said that they are let go of, though nobody has heard.
    let (mut forgotten, mut unheard): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
    let mut store = FakeStore::default();
    loop {
        let (message, descriptors) = handover::receive(socket.as_fd()).unwrap();
        if message.is_empty() {
            return;
        }
        match ToWorker::decode(message.as_slice()).unwrap().body.unwrap() {
            to_worker::Body::Attach(attach) => {
                let [channel, host, state @ ..] = &descriptors[..] else {
                    panic!("{} descriptors", descriptors.len())
                };
                assert_eq!(state.len(), usize::from(attach.resumed));
                let mapped = MappedChannel::open(channel).unwrap();
                check_sealed(host, attach.host_bytes).unwrap();
                let client = attach.client;
                store.attach(client, &attach.function).into_iter().for_each(say);
                if attach.function == IGNORED {
                    continue;
                }
                if attach.function == COMES_TO_A_LOSS && take_loss() {
                    mapped.fail(CudaError::ILLEGAL_ADDRESS);
                    let reason = "another one's kernel read nonsense".to_owned();
                    let fault = DeviceFault { code: 700, reason, ..DeviceFault::default() };
                    say(from_worker::Body::DeviceFault(fault));
                    // Too late: it is about to end.
                    say(from_worker::Body::Attached(Attached { client, is_coming: false }));
                    return;
                }
                if attach.resumed && attach.function == DEADLY {
                    std::process::abort();
                }
                tell_settings(&attach.function, attach.memory_limit_bytes, attach.writeback, attach.pinned);
                let function = attach.function.clone();
                let came_back = attach.resumed;
                clients.push(Served { client, function, resident_bytes: MEMORY_BYTES, came_back });
                say(from_worker::Body::Attached(Attached { client, is_coming: false }));
                if [COVERED, DEADLY, BUSY_AGAIN, FORGOTTEN].contains(&attach.function.as_str()) {
                    let state = create_sealed("state", 8).unwrap();
                    let word = if attach.function == BUSY_AGAIN { [0; 8] } else { *b"it holds" };
                    assert_eq!(rustix::io::pwrite(&state, &word, 0), Ok(8));
                    let body = Some(from_worker::Body::Covered(Covered { client, by_numbers: true }));
                    let message = FromWorker { body, number: 0 };
                    handover::send(&socket, &message.encode_to_vec(), &[state.as_fd()]).unwrap();
                }
                match attach.function.as_str() {
                    DIES => std::process::abort(),
                    LOSES_CONTEXT | LOSES_CONTEXT_AND_STAYS => {
                        let reason = "the kernel read nonsense".to_owned();
                        say(from_worker::Body::DeviceFault(DeviceFault {
                            code: 700,
                            reason,
                            ..DeviceFault::default()
                        }));
                        if attach.function == LOSES_CONTEXT {
                            return;
                        }
                        // Whoever still attaches is not heard.
                        loop {
                            std::thread::park();
                        }
                    }
                    BREAKS_PROTOCOL => {
                        let reason = "command 999".to_owned();
                        say(from_worker::Body::ClientFault(ClientFault { client, reason }));
                    }
                    _ => {}
                }
            }
            to_worker::Body::Release(release) => {
                let client = release.client;
                let served = clients.iter().find(|served| served.client == client).unwrap();
                if served.function == STAYS {
                    let reason = "it knows too much".to_owned();
                    say(from_worker::Body::NotReleased(NotReleased { client, reason }));
                    continue;
                }
                if served.function == SEEK_EACH_OTHER {
                    std::thread::sleep(std::time::Duration::from_millis(200));
                }
                store.detach(client);
                clients.retain(|served| served.client != client);
                let (state, body) = (create_sealed("state", 8).unwrap(), Released { client });
                let message = FromWorker { body: Some(from_worker::Body::Released(body)), number: 0 };
                handover::send(&socket, &message.encode_to_vec(), &[state.as_fd()]).unwrap();
            }
            to_worker::Body::Detach(detach) => {
                store.detach(detach.client);
                clients.retain(|served| served.client != detach.client);
                if forgotten.contains(&detach.client) {
                    eprintln!("fake worker: lets go of a client, unheard");
                    forgotten.retain(|&client| client != detach.client);
                    unheard.push(detach.client);
                    continue;
                }
                say(from_worker::Body::Detached(Detached { client: detach.client }));
            }
            to_worker::Body::ReportUsage(_) => {
                store.use_again().into_iter().for_each(say);
                let usage = |served: &Served| ClientUsage {
                    client: served.client,
                    memory_bytes: served.resident_bytes,
                    allocated_bytes: MEMORY_BYTES,
                    host_bytes: 1 << 20,
                    requests: 5,
                    hits: 3,
                    swaps: 2,
                    pinned_bytes: 4096,
                    commands: 7,
                    busy: false,
                    ..ClientUsage::default()
                };
                say(from_worker::Body::Usage(Usage {
                    clients: clients.iter().map(usage).collect(),
                    free_memory_bytes: 5 << 30,
                    total_memory_bytes: 8 << 30,
                    more: false,
                    ..Usage::default()
                }));
            }
            to_worker::Body::Ping(_) => say(from_worker::Body::Pong(Pong::default())),
            // It has no GPU, and nothing happens here that anybody follows.
            to_worker::Body::Begin(_)
            | to_worker::Body::Follow(_)
            | to_worker::Body::Gate(_)
            | to_worker::Body::Proceed(_) => {}
            to_worker::Body::Settings(settings) => {
                // One that it does not have needs none.
                let Some(served) = clients.iter().find(|served| served.client == settings.client) else {
                    continue;
                };
                let Settings { memory_limit_bytes, writeback, pinned, .. } = settings;
                tell_settings(&served.function, memory_limit_bytes, writeback, pinned);
            }
            to_worker::Body::Evict(evict) => {
                let served = clients.iter_mut().find(|served| served.client == evict.client).unwrap();
                if served.function != BUSY {
                    served.resident_bytes = 0;
                }
                if served.function == SEEK_EACH_OTHER && served.client == 1 {
                    for (client, exporter) in [(1, 2), (2, 1)] {
                        say(from_worker::Body::Seek(Seek { client, exporter }));
                    }
                }
            }
            to_worker::Body::SwapIn(swap_in) => {
                let served = clients.iter_mut().find(|served| served.client == swap_in.client).unwrap();
                served.resident_bytes = MEMORY_BYTES;
            }
            to_worker::Body::Slab(slab) => say(store.slab(slab, &descriptors)),
            to_worker::Body::ReturnSlab(slab) => say(store.return_slab(slab.index)),
            to_worker::Body::StoreAnswer(answer) => store.answer(answer).into_iter().for_each(say),
            // Its clients have neither commands nor memory.
            to_worker::Body::Mark(_) => {}
            to_worker::Body::RevokeLease(revoke) => store.revoke(revoke.client).into_iter().for_each(say),
            to_worker::Body::Sought(sought) => {
                eprintln!("fake worker: client {} is to look once more", sought.client);
            }
            to_worker::Body::Lend(_) | to_worker::Body::Borrow(_) | to_worker::Body::Unlink(_) => {}
            to_worker::Body::Forget(_) => {}
            // It has no memory that it could not give up.
            to_worker::Body::YieldMemory(YieldMemory { demand, bytes, .. }) => {
                say(from_worker::Body::MemoryYielded(MemoryYielded {
                    demand,
                    bytes,
                    ..MemoryYielded::default()
                }));
            }
            to_worker::Body::AllowMemory(_)
            | to_worker::Body::GrantMemory(_)
            | to_worker::Body::RefuseMemory(_) => {}
            to_worker::Body::Resume(resume) => {
                unheard.drain(..).for_each(|client| say(from_worker::Body::Detached(Detached { client })));
                let (kept, gone): (Vec<_>, Vec<_>) =
                    clients.into_iter().partition(|served| served.function != FORGOTTEN || served.came_back);
                clients = kept;
                forgotten.extend(gone.iter().map(|served| served.client));
                for &Served { client, .. } in &clients {
                    say(from_worker::Body::Attached(Attached { client, is_coming: false }));
                }
                say(from_worker::Body::Resumed(Resumed { server: resume.server }));
            }
        }
    }
}
