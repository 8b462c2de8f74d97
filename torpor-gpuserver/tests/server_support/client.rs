//! A client that speaks hello and lifeline, and nothing else. Its ZeroMQ is not the server's own.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use torpor_proto::PROTOCOL_VERSION;
use torpor_proto::channel::MappedChannel;
use torpor_proto::control::Message;
use torpor_proto::control::client::{Answer, Hello, Request, Welcome, answer, request};
use torpor_proto::directory::FunctionDirectory;
use torpor_proto::handover;
use torpor_proto::mapping::check_sealed;
use zeromq::{ReqSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

/// A client that has its memory.
pub struct Client {
    pub welcome: Welcome,
    pub channel: MappedChannel,
    pub channel_file: OwnedFd,
    pub lifeline: UnixStream,
    pub host_file: OwnedFd,
}

/// Sends bytes to the control endpoint and returns the answer.
pub fn ask(directory: &FunctionDirectory, request: Vec<u8>) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        let mut socket = ReqSocket::new();
        socket.connect(&format!("ipc://{}", directory.control_socket().display())).await.unwrap();
        socket.send(ZmqMessage::from(request)).await.unwrap();
        socket.recv().await.unwrap()
    });
    let answer = Answer::decode(answer.into_vec().concat().as_slice()).unwrap();
    assert_eq!(answer.protocol_version, PROTOCOL_VERSION);
    answer
}

/// Says hello in a version of the protocol; the refusal's reason is the error.
pub fn hello(directory: &FunctionDirectory, protocol_version: u32) -> Result<Welcome, String> {
    let hello = Hello { pid: std::process::id(), program: "test program".to_owned() };
    let request = Request { protocol_version, body: Some(request::Body::Hello(hello)) };
    match ask(directory, request.encode_to_vec()).body.unwrap() {
        answer::Body::Welcome(welcome) => Ok(welcome),
        answer::Body::Refusal(refusal) => Err(refusal.reason),
        answer::Body::View(_) => panic!("a hello is not answered with a view"),
    }
}

/// Takes the memory that a token is good for; the refusal's reason is the error.
pub fn take_memory(
    directory: &FunctionDirectory,
    welcome: &Welcome,
) -> Result<(UnixStream, MappedChannel, OwnedFd, OwnedFd), String> {
    let mut lifeline = UnixStream::connect(directory.lifeline_socket()).unwrap();
    lifeline.write_all(&welcome.token).unwrap();
    let (message, mut descriptors) = handover::receive(&lifeline).unwrap();
    match (&message[..], descriptors.len()) {
        ([handover::TAKE], 2) => {
            let (host, channel) = (descriptors.remove(1), descriptors.remove(0));
            check_sealed(&host, welcome.host_bytes).unwrap();
            Ok((lifeline, MappedChannel::open(&channel).unwrap(), channel, host))
        }
        ([handover::REFUSED | handover::LATER, reason @ ..], 0) => {
            Err(String::from_utf8(reason.to_vec()).unwrap())
        }
        other => panic!("{other:?}"),
    }
}

/// Becomes a client of a function.
pub fn connect(directory: &FunctionDirectory) -> Client {
    let welcome = hello(directory, PROTOCOL_VERSION).unwrap();
    let (lifeline, channel, channel_file, host_file) = take_memory(directory, &welcome).unwrap();
    Client { welcome, channel, channel_file, lifeline, host_file }
}

impl Client {
    /// Whether the server has let go of it.
    pub fn is_dropped(&mut self) -> bool {
        self.lifeline.set_nonblocking(true).unwrap();
        match self.lifeline.read(&mut [0]) {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}
