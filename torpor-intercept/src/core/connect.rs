//! Becoming a client: hello over ZeroMQ, shared memory over the lifeline.
//!
//! Runs on the thread that called `cuInit`, with blocking calls and one descriptor at a time. A server that is not there
//! is an error at once; one that is there but busy is waited for and asked again, until [`PATIENCE`] is over.

use super::request::{RequestError, ask};
use super::timed_stream::TimedStream;
use prost::Message;
use rustix::process::{Resource, getrlimit};
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use torpor_proto::PROTOCOL_VERSION;
use torpor_proto::channel::{ChannelError, MappedChannel};
use torpor_proto::control::client::{Answer, Hello, Look, Request, View, Welcome, answer, request};
use torpor_proto::directory::FunctionDirectory;
use torpor_proto::handover;
use torpor_proto::layout::{
    AddressRange, DEVICE_WINDOW, HOST_WINDOW, MIN_STAGING_BYTES, PAGE_BYTES, SEGMENT_GRANULE_BYTES,
};
use torpor_proto::mapping::{Mapping, check_sealed};

/// How long a server that is there may take to make this process a client.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two tries, at first; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Why this process is no client.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no server listens ({looked}); start one with `torpor serve`, or the program with `torpor run`")]
    NoServer { looked: String },
    #[error(
        "the server cannot be reached: {socket}: {error}; is the directory that TORPOR_SERVER names open to this user?"
    )]
    Closed { socket: String, error: io::Error },
    #[error("the server cannot be reached: {socket}: {error}")]
    Unreachable { socket: String, error: io::Error },
    #[error("the server at {socket} did not answer within {} seconds: it is stopped, or the node very busy", PATIENCE.as_secs())]
    Silent { socket: String },
    #[error("the server at {socket} broke off: {error}")]
    BrokeOff { socket: String, error: io::Error },
    #[error("the server refuses: {reason}")]
    Refused { reason: String, is_transient: bool },
    #[error("the server's answer makes no sense: {0}")]
    Nonsense(String),
    #[error(
        "this process may not open more files (RLIMIT_NOFILE, `ulimit -n`): a client needs three at once"
    )]
    Descriptors,
    #[error("the shared memory of the server cannot be used: {0}")]
    Memory(io::Error),
    #[error(
        "this process may not have the {needed} bytes of addresses that a client needs: RLIMIT_AS (`ulimit -v`) is {limit} \
         bytes; they are reserved and take no memory, so set it to `unlimited`"
    )]
    AddressLimit { needed: u64, limit: u64 },
    #[error("address {address:#x} cannot be had in this process: {error}")]
    Address { address: u64, error: io::Error },
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

impl ConnectError {
    /// Whether the next try may end otherwise.
    fn is_transient(&self) -> bool {
        matches!(self, Self::BrokeOff { .. } | Self::Refused { is_transient: true, .. })
    }

    /// What a socket that is connected says.
    fn of_conversation(socket: &str, error: io::Error) -> Self {
        let socket = socket.to_owned();
        match error.kind() {
            ErrorKind::TimedOut => Self::Silent { socket },
            _ => Self::BrokeOff { socket, error },
        }
    }

    fn of_connecting(socket: String, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE) => Self::Descriptors,
            Some(libc::EACCES | libc::EPERM) => Self::Closed { socket, error },
            _ if error.kind() == ErrorKind::TimedOut => Self::Silent { socket },
            _ => Self::Unreachable { socket, error },
        }
    }
}

/// What a client is made of.
pub(super) struct Connection {
    pub(super) welcome: Welcome,
    pub(super) channel: MappedChannel,
    pub(super) lifeline: OwnedFd,
    pub(super) arena: AddressRange,
    pub(super) host: AddressRange,
    /// Keeps the arena's addresses from being used for anything else.
    pub(super) arena_reservation: Mapping,
    pub(super) host_mapping: Mapping,
}

/// What a client would be told. The server forgets who does not come for its memory.
/// What a process that is no client may see of its device.
pub(super) fn look() -> Result<View, ConnectError> {
    let places = FunctionDirectory::from_environment();
    with_patience(Instant::now() + PATIENCE, |deadline| {
        let (directory, mut control) = reach(&places, deadline)?;
        match request(&mut control, &directory, request::Body::Look(Look {}))? {
            answer::Body::View(view) => Ok(view),
            _ => Err(ConnectError::Nonsense("no view of the device".to_owned())),
        }
    })
}

pub(super) fn connect() -> Result<Connection, ConnectError> {
    let places = FunctionDirectory::from_environment();
    let (welcome, handed) = with_patience(Instant::now() + PATIENCE, |deadline| {
        let (directory, mut control) = reach(&places, deadline)?;
        let welcome = hello(&mut control, &directory)?;
        // Before the next descriptor: a program may have few.
        drop(control);
        let handed = take_memory(&directory, &welcome.token, deadline)?;
        Ok((welcome, handed))
    })?;
    let Handed { lifeline, channel, host: host_memory } = handed;
    let arena = AddressRange { address: welcome.arena_address, bytes: welcome.arena_bytes };
    let host = AddressRange { address: welcome.host_address, bytes: welcome.host_bytes };
    check(arena, DEVICE_WINDOW, SEGMENT_GRANULE_BYTES, "device addresses")?;
    check(host, HOST_WINDOW, PAGE_BYTES, "host addresses")?;
    if welcome.staging_bytes < MIN_STAGING_BYTES || welcome.staging_bytes > host.bytes {
        return Err(ConnectError::Nonsense("size of the staging area".to_owned()));
    }
    let channel = MappedChannel::open(channel)?;
    check_sealed(&host_memory, host.bytes).map_err(ConnectError::Memory)?;
    let nonsense = |what: &str| ConnectError::Nonsense(what.to_owned());
    let arena_bytes = usize::try_from(arena.bytes).map_err(|_| nonsense("arena size"))?;
    let host_bytes = usize::try_from(host.bytes).map_err(|_| nonsense("host range size"))?;
    let needed = arena.bytes.saturating_add(host.bytes);
    let taken = |address| move |error| not_mapped(address, needed, error);
    let arena_reservation = Mapping::reserve(arena.address, arena_bytes).map_err(taken(arena.address))?;
    let host_mapping = Mapping::fixed(&host_memory, host.address, host_bytes).map_err(taken(host.address))?;
    Ok(Connection { welcome, channel, lifeline, arena, host, arena_reservation, host_mapping })
}

/// The server is another program: what it gives must not lie where the program's own memory is.
fn check(
    range: AddressRange,
    window: AddressRange,
    granule: u64,
    what: &'static str,
) -> Result<(), ConnectError> {
    let whole = [range.address, range.bytes].iter().all(|number| number.is_multiple_of(granule));
    let inside = range.bytes > 0 && window.contains(range.address, range.bytes);
    if whole && inside { Ok(()) } else { Err(ConnectError::Nonsense(what.to_owned())) }
}

/// Tries again as long as that may help.
fn with_patience<T>(
    deadline: Instant,
    mut attempt: impl FnMut(Instant) -> Result<T, ConnectError>,
) -> Result<T, ConnectError> {
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt(deadline) {
            Err(error) if error.is_transient() && Instant::now() + pause < deadline => {
                crate::log::write(&format!("{error}; trying again"));
                std::thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            done => return done,
        }
    }
}

/// Connects to the first of the places where somebody listens.
fn reach(
    places: &[FunctionDirectory],
    deadline: Instant,
) -> Result<(FunctionDirectory, TimedStream), ConnectError> {
    let mut looked = String::new();
    for place in places {
        let socket = place.control_socket();
        match TimedStream::connect(&socket, deadline) {
            Ok(stream) => return Ok((place.clone(), stream)),
            Err(error) if is_nobody(&error) => {
                let separator = if looked.is_empty() { "" } else { "; " };
                // Writing into a String never fails.
                let _ = write!(looked, "{separator}{}: {error}", socket.display());
            }
            Err(error) => return Err(ConnectError::of_connecting(shown(socket), error)),
        }
    }
    Err(ConnectError::NoServer { looked })
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::ConnectionRefused)
}

fn shown(socket: PathBuf) -> String {
    socket.display().to_string()
}

fn hello(control: &mut TimedStream, directory: &FunctionDirectory) -> Result<Welcome, ConnectError> {
    let hello = Hello { pid: std::process::id(), program: program_name() };
    match request(control, directory, request::Body::Hello(hello))? {
        answer::Body::Welcome(welcome) => Ok(welcome),
        _ => Err(ConnectError::Nonsense("no welcome".to_owned())),
    }
}

/// Asks for something, and returns what the server gives.
fn request(
    control: &mut TimedStream,
    directory: &FunctionDirectory,
    body: request::Body,
) -> Result<answer::Body, ConnectError> {
    let request = Request { protocol_version: PROTOCOL_VERSION, body: Some(body) };
    let answer = ask(control, &request.encode_to_vec()).map_err(|error| match error {
        RequestError::Io(error) => ConnectError::of_conversation(&shown(directory.control_socket()), error),
        RequestError::Wire(error) => ConnectError::Nonsense(error.to_string()),
    })?;
    let nonsense = |what: &str| ConnectError::Nonsense(what.to_owned());
    let answer = Answer::decode(answer.as_slice()).map_err(|_| nonsense("not a message"))?;
    match answer.body {
        Some(answer::Body::Refusal(refusal)) => {
            Err(ConnectError::Refused { reason: refusal.reason, is_transient: refusal.transient })
        }
        Some(body) if answer.protocol_version == PROTOCOL_VERSION => Ok(body),
        _ => Err(nonsense("no answer of this release")),
    }
}

/// What the server hands over.
struct Handed {
    lifeline: OwnedFd,
    channel: OwnedFd,
    host: OwnedFd,
}

fn take_memory(
    directory: &FunctionDirectory,
    token: &[u8],
    deadline: Instant,
) -> Result<Handed, ConnectError> {
    let socket = shown(directory.lifeline_socket());
    let broke_off = |error| ConnectError::of_conversation(&socket, error);
    let mut lifeline = match TimedStream::connect(&directory.lifeline_socket(), deadline) {
        Ok(lifeline) => lifeline,
        // It listened for the hello: it is ending, or being replaced.
        Err(error) if is_nobody(&error) => return Err(broke_off(error)),
        Err(error) => return Err(ConnectError::of_connecting(socket, error)),
    };
    lifeline.write_all(token).map_err(broke_off)?;
    let (message, descriptors) = lifeline.receive(|stream| handover::receive(stream)).map_err(broke_off)?;
    match (&message[..], <[OwnedFd; 2]>::try_from(descriptors)) {
        ([handover::TAKE], Ok([channel, host])) => Ok(Handed { lifeline: lifeline.into(), channel, host }),
        // The kernel leaves out those that the process has no room for.
        ([handover::TAKE], Err(_)) => Err(ConnectError::Descriptors),
        (&[verdict @ (handover::REFUSED | handover::LATER), ref reason @ ..], _) => {
            let reason = String::from_utf8_lossy(reason).into_owned();
            Err(ConnectError::Refused { reason, is_transient: verdict == handover::LATER })
        }
        ([], _) => Err(broke_off(ErrorKind::UnexpectedEof.into())),
        _ => Err(ConnectError::Nonsense("neither memory nor a refusal".to_owned())),
    }
}

/// Why addresses cannot be had.
fn not_mapped(address: u64, needed: u64, error: io::Error) -> ConnectError {
    match getrlimit(Resource::As).current {
        Some(limit) if error.kind() == ErrorKind::OutOfMemory => ConnectError::AddressLimit { needed, limit },
        _ => ConnectError::Address { address, error },
    }
}

fn program_name() -> String {
    let arguments: Vec<_> = std::env::args_os().take(2).collect();
    let words = arguments.iter().map(|word| {
        let word = word.to_string_lossy();
        word.rsplit('/').next().unwrap_or_default().chars().take(64).collect::<String>()
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use torpor_proto::directory::ServerDirectory;

    fn refused(is_transient: bool) -> ConnectError {
        ConnectError::Refused { reason: "no".to_owned(), is_transient }
    }

    #[test]
    fn what_passes_is_tried_again_until_the_deadline_and_nothing_else_is() {
        let later = Instant::now() + Duration::from_secs(20);
        let mut outcomes = vec![Ok(7), Err(refused(true)), Err(refused(true))];
        assert_eq!(with_patience(later, |_| outcomes.pop().unwrap()).unwrap(), 7);
        let tries_until = |deadline, is_transient| {
            let mut tries = 0;
            let attempt = |_| {
                tries += 1;
                Err::<(), _>(refused(is_transient))
            };
            assert!(with_patience(deadline, attempt).is_err());
            tries
        };
        assert_eq!(tries_until(later, false), 1);
        assert!(tries_until(Instant::now() + FIRST_PAUSE * 4, true) > 1);
    }

    #[test]
    fn nobody_listening_names_every_socket_that_was_looked_for() {
        let home = tempfile::tempdir().unwrap();
        let server = ServerDirectory::new(home.path());
        let places = [server.function("a"), server.function("b")];
        let error = reach(&places, Instant::now() + PATIENCE).unwrap_err().to_string();
        for place in places {
            let line = format!("{}: No such file", place.control_socket().display());
            assert!(error.contains(&line), "{error}");
        }
    }

    #[test]
    fn a_limit_of_addresses_is_told_as_such() {
        let out_of_memory = || io::Error::from(ErrorKind::OutOfMemory);
        let told = not_mapped(0x1000, 5 << 30, out_of_memory());
        match getrlimit(Resource::As).current {
            Some(_) => assert!(matches!(told, ConnectError::AddressLimit { .. })),
            None => assert!(matches!(told, ConnectError::Address { .. })),
        }
    }
}
