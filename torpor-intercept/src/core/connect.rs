//! Becoming a client: hello over ZeroMQ, shared memory over the lifeline.
//!
//! Runs on the thread that called `cuInit`, on an event loop of its own that is gone afterwards. Everything is bounded
//! by one time-out: a missing or dead server is an error within a second.

use prost::Message;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use torpor_proto::PROTOCOL_VERSION;
use torpor_proto::channel::{ChannelError, MappedChannel};
use torpor_proto::control::client::{Answer, Hello, Request, Welcome, answer, request};
use torpor_proto::directory::FunctionDirectory;
use torpor_proto::handover;
use torpor_proto::layout::{AddressRange, MIN_STAGING_BYTES};
use torpor_proto::mapping::{Mapping, check_sealed};
use zeromq::{ReqSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

/// How long any step may take.
const TIMEOUT: Duration = Duration::from_millis(900);

/// How long the server may take to attach the client to a worker, which page-locks the staging area.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(5);

/// Why this process is no client.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error(
        "no server listens at {directory}; start one with `torpor serve`, or the program with `torpor run`"
    )]
    NoServer { directory: String },
    #[error("the server at {directory} does not answer: {reason}")]
    NoAnswer { directory: String, reason: String },
    #[error("the server refuses: {0}")]
    Refused(String),
    #[error("the server's answer makes no sense: {0}")]
    Nonsense(&'static str),
    #[error("the server did not hand over shared memory: {0}")]
    Lifeline(std::io::Error),
    #[error("address {address:#x} is taken in this process: {error}")]
    Address { address: u64, error: std::io::Error },
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// What a client is made of.
pub(super) struct Connection {
    pub(super) welcome: Welcome,
    pub(super) channel: MappedChannel,
    pub(super) lifeline: OwnedFd,
    pub(super) arena: AddressRange,
    pub(super) host: AddressRange,
    /// The host range's memory, to map pieces of it elsewhere too.
    pub(super) host_memory: OwnedFd,
    /// Keeps the arena's addresses from being used for anything else.
    pub(super) arena_reservation: Mapping,
    pub(super) host_mapping: Mapping,
}

pub(super) fn connect() -> Result<Connection, ConnectError> {
    let directory = FunctionDirectory::from_environment();
    if !directory.control_socket().exists() {
        return Err(ConnectError::NoServer { directory: directory.path().display().to_string() });
    }
    let welcome = hello(&directory)?;
    let arena = AddressRange { address: welcome.arena_address, bytes: welcome.arena_bytes };
    let host = AddressRange { address: welcome.host_address, bytes: welcome.host_bytes };
    if welcome.staging_bytes < MIN_STAGING_BYTES || welcome.staging_bytes > host.bytes {
        return Err(ConnectError::Nonsense("size of the staging area"));
    }
    let (lifeline, channel, host_memory) = take_memory(&directory, &welcome.token)?;
    let channel = MappedChannel::open(channel)?;
    check_sealed(&host_memory, host.bytes).map_err(ConnectError::Lifeline)?;
    let taken = |address| move |error| ConnectError::Address { address, error };
    let arena_bytes = usize::try_from(arena.bytes).map_err(|_| ConnectError::Nonsense("arena size"))?;
    let host_bytes = usize::try_from(host.bytes).map_err(|_| ConnectError::Nonsense("host range size"))?;
    let arena_reservation = Mapping::reserve(arena.address, arena_bytes).map_err(taken(arena.address))?;
    let host_mapping = Mapping::fixed(&host_memory, host.address, host_bytes).map_err(taken(host.address))?;
    Ok(Connection { welcome, channel, lifeline, arena, host, host_memory, arena_reservation, host_mapping })
}

fn hello(directory: &FunctionDirectory) -> Result<Welcome, ConnectError> {
    let no_answer =
        |reason: String| ConnectError::NoAnswer { directory: directory.path().display().to_string(), reason };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| no_answer(error.to_string()))?;
    let request = Request {
        protocol_version: PROTOCOL_VERSION,
        body: Some(request::Body::Hello(Hello { pid: std::process::id(), program: program_name() })),
    };
    let exchange = async {
        let mut socket = ReqSocket::new();
        socket.connect(&format!("ipc://{}", directory.control_socket().display())).await?;
        socket.send(ZmqMessage::from(request.encode_to_vec())).await?;
        socket.recv().await
    };
    let answer = runtime
        .block_on(async { tokio::time::timeout(TIMEOUT, exchange).await })
        .map_err(|_| no_answer("no answer within a second".into()))?
        .map_err(|error| no_answer(error.to_string()))?;
    let bytes = answer.into_vec().concat();
    let answer = Answer::decode(bytes.as_slice()).map_err(|_| ConnectError::Nonsense("not a message"))?;
    match answer.body {
        Some(answer::Body::Welcome(welcome)) if answer.protocol_version == PROTOCOL_VERSION => Ok(welcome),
        Some(answer::Body::Refusal(refusal)) => Err(ConnectError::Refused(refusal.reason)),
        _ => Err(ConnectError::Nonsense("neither a welcome nor a refusal")),
    }
}

fn take_memory(
    directory: &FunctionDirectory,
    token: &[u8],
) -> Result<(OwnedFd, OwnedFd, OwnedFd), ConnectError> {
    let hand_over = || {
        let mut lifeline = UnixStream::connect(directory.lifeline_socket())?;
        lifeline.set_read_timeout(Some(ATTACH_TIMEOUT))?;
        lifeline.write_all(token)?;
        let (message, descriptors) = handover::receive(&lifeline)?;
        let [channel, host]: [OwnedFd; 2] = descriptors.try_into().map_err(|_| {
            // A refusal is a zero byte and the reason.
            let reason = message.strip_prefix(&[0]).unwrap_or(b"it closed the connection");
            std::io::Error::other(String::from_utf8_lossy(reason).into_owned())
        })?;
        Ok((lifeline.into(), channel, host))
    };
    hand_over().map_err(ConnectError::Lifeline)
}

fn program_name() -> String {
    let arguments: Vec<_> = std::env::args_os().take(2).collect();
    let words = arguments.iter().map(|word| {
        let word = word.to_string_lossy();
        word.rsplit('/').next().unwrap_or_default().chars().take(64).collect::<String>()
    });
    words.collect::<Vec<_>>().join(" ")
}
