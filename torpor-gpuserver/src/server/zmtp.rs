//! The part of ZeroMQ's wire protocol that a server of requests needs: ZMTP 3.0, NULL mechanism, as a ROUTER socket
//! that answers each request on the connection it came by. Source: rfc.zeromq.org/spec/23 (ZMTP/3.0).
//!
//! Written here because what comes in is not to be trusted: the `zeromq` crate (0.7.0) reserves as much memory as a
//! frame's header claims, so that nine bytes from a container end the whole server. Here a frame has
//! [`MAX_FRAME_BYTES`], a message [`MAX_MESSAGE_FRAMES`], and a handshake [`HANDSHAKE_TIMEOUT`].

use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Bytes of a frame, at most.
pub const MAX_FRAME_BYTES: usize = 16 * 1024;

/// Frames of a message, at most: routing frames, the empty delimiter, the payload.
pub const MAX_MESSAGE_FRAMES: usize = 8;

/// How long a peer may take to introduce itself.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

const GREETING_BYTES: usize = 64;
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub enum ZmtpError {
    /// The peer left, or the socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It took too long to introduce itself.
    #[error("no ZeroMQ handshake within {} seconds", HANDSHAKE_TIMEOUT.as_secs())]
    Slow,
    /// It speaks something else.
    #[error("the peer does not speak ZMTP 3 without authentication")]
    Greeting,
    /// It is a socket of a type that sends no requests.
    #[error("the peer is not a REQ, DEALER or ROUTER socket")]
    SocketType,
    /// A frame of the handshake where a message belongs, or the other way round, or reserved flags.
    #[error("a frame with flags {0:#04x} out of place")]
    Flags(u8),
    /// A frame longer than any request.
    #[error("a frame of {0} bytes; at most {MAX_FRAME_BYTES} are taken")]
    Frame(u64),
    /// A message with more frames than any request.
    #[error("a message of more than {MAX_MESSAGE_FRAMES} frames")]
    Message,
}

/// A request, and what its answer must begin with to find its way back.
#[derive(Debug, PartialEq, Eq)]
pub struct Incoming {
    envelope: Vec<Vec<u8>>,
    /// The last frame.
    pub payload: Vec<u8>,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Connection<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Introduces both sides to each other.
    ///
    /// # Errors
    /// [`ZmtpError`].
    pub async fn accept(stream: S) -> Result<Self, ZmtpError> {
        let mut connection = Self(stream);
        timeout(HANDSHAKE_TIMEOUT, connection.handshake()).await.map_err(|_| ZmtpError::Slow)??;
        Ok(connection)
    }

    async fn handshake(&mut self) -> Result<(), ZmtpError> {
        self.0.write_all(&our_greeting()).await?;
        let mut greeting = [0; GREETING_BYTES];
        self.0.read_exact(&mut greeting).await?;
        check_greeting(&greeting)?;
        self.0.write_all(&ready_command()).await?;
        let (flags, body) = self.read_frame().await?;
        if flags & COMMAND == 0 {
            return Err(ZmtpError::Flags(flags));
        }
        check_ready(&body)
    }

    /// The next request.
    ///
    /// # Errors
    /// [`ZmtpError`]; the connection is of no use afterwards.
    pub async fn receive(&mut self) -> Result<Incoming, ZmtpError> {
        let mut frames = Vec::new();
        loop {
            let (flags, body) = self.read_frame().await?;
            if flags & COMMAND != 0 {
                continue;
            }
            if flags & MORE == 0 {
                return Ok(Incoming { envelope: frames, payload: body });
            }
            frames.push(body);
            if frames.len() >= MAX_MESSAGE_FRAMES {
                return Err(ZmtpError::Message);
            }
        }
    }

    /// Answers a request.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn answer(&mut self, request: &Incoming, payload: &[u8]) -> Result<(), ZmtpError> {
        let mut out = Vec::new();
        for frame in &request.envelope {
            put_frame(&mut out, MORE, frame);
        }
        put_frame(&mut out, 0, payload);
        self.0.write_all(&out).await?;
        Ok(())
    }

    async fn read_frame(&mut self) -> Result<(u8, Vec<u8>), ZmtpError> {
        let flags = self.0.read_u8().await?;
        if flags & !(MORE | LONG | COMMAND) != 0 {
            return Err(ZmtpError::Flags(flags));
        }
        let length =
            if flags & LONG == 0 { u64::from(self.0.read_u8().await?) } else { self.0.read_u64().await? };
        let bytes = usize::try_from(length).ok().filter(|&bytes| bytes <= MAX_FRAME_BYTES);
        let mut body = vec![0; bytes.ok_or(ZmtpError::Frame(length))?];
        self.0.read_exact(&mut body).await?;
        Ok((flags, body))
    }
}

fn our_greeting() -> [u8; GREETING_BYTES] {
    let mut greeting = [0; GREETING_BYTES];
    (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
    greeting[12..16].copy_from_slice(b"NULL");
    greeting
}

fn check_greeting(greeting: &[u8; GREETING_BYTES]) -> Result<(), ZmtpError> {
    let mut null = [0; 20];
    null[..4].copy_from_slice(b"NULL");
    let good = greeting[0] == 0xff && greeting[9] == 0x7f && greeting[10] >= 3 && greeting[12..32] == null;
    if good { Ok(()) } else { Err(ZmtpError::Greeting) }
}

fn ready_command() -> Vec<u8> {
    let mut body = b"\x05READY\x0bSocket-Type".to_vec();
    body.extend(6_u32.to_be_bytes());
    body.extend(b"ROUTER");
    let mut out = Vec::new();
    put_frame(&mut out, COMMAND, &body);
    out
}

fn check_ready(body: &[u8]) -> Result<(), ZmtpError> {
    let mut rest = body.strip_prefix(b"\x05READY").ok_or(ZmtpError::Greeting)?;
    while !rest.is_empty() {
        let (name, value, after) = split_property(rest).ok_or(ZmtpError::Greeting)?;
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            let asks = matches!(value, b"REQ" | b"DEALER" | b"ROUTER");
            return if asks { Ok(()) } else { Err(ZmtpError::SocketType) };
        }
        rest = after;
    }
    Err(ZmtpError::SocketType)
}

/// A property is a name with a length of one byte and a value with a length of four.
fn split_property(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&name_bytes, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(name_bytes))?;
    let (value_bytes, rest) = rest.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*value_bytes) as usize)?;
    Some((name, value, rest))
}

fn put_frame(out: &mut Vec<u8>, flags: u8, body: &[u8]) {
    if let Ok(short) = u8::try_from(body.len()) {
        out.extend([flags, short]);
    } else {
        out.push(flags | LONG);
        out.extend((body.len() as u64).to_be_bytes());
    }
    out.extend(body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::runtime::Builder;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn request_socket_hello() -> Vec<u8> {
        let mut hello = our_greeting().to_vec();
        put_frame(&mut hello, COMMAND, b"\x05READY\x0bSocket-Type\0\0\0\x03REQ\x08Identity\0\0\0\0");
        hello
    }

    /// What the server makes of a peer that sends these bytes and leaves.
    fn serve(bytes: &[u8]) -> Result<Incoming, ZmtpError> {
        block_on(async {
            let (mut peer, ours) = tokio::io::duplex(1 << 20);
            peer.write_all(bytes).await.unwrap();
            peer.shutdown().await.unwrap();
            Connection::accept(ours).await?.receive().await
        })
    }

    #[test]
    fn a_request_keeps_its_envelope() {
        let mut bytes = request_socket_hello();
        put_frame(&mut bytes, MORE, b"");
        put_frame(&mut bytes, 0, &[7; 300]);
        let request = serve(&bytes).unwrap();
        assert_eq!(request, Incoming { envelope: vec![vec![]], payload: vec![7; 300] });
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_unread() {
        let mut bytes = request_socket_hello();
        bytes.push(LONG);
        bytes.extend((1_u64 << 46).to_be_bytes());
        assert!(matches!(serve(&bytes), Err(ZmtpError::Frame(claimed)) if claimed == 1 << 46));
    }

    #[test]
    fn a_message_without_end_is_refused() {
        let mut bytes = request_socket_hello();
        (0..100).for_each(|_| put_frame(&mut bytes, MORE, b""));
        assert!(matches!(serve(&bytes), Err(ZmtpError::Message)));
    }

    #[test]
    fn a_subscriber_is_refused() {
        let mut bytes = our_greeting().to_vec();
        put_frame(&mut bytes, COMMAND, b"\x05READY\x0bSocket-Type\0\0\0\x03SUB");
        assert!(matches!(serve(&bytes), Err(ZmtpError::SocketType)));
        assert!(matches!(serve(b"GET / HTTP/1.1\r\n\r\n"), Err(ZmtpError::Io(_))));
        assert!(matches!(serve(&[b'x'; 100]), Err(ZmtpError::Greeting)));
    }

    proptest! {
        #[test]
        fn no_bytes_after_the_greeting_panic(noise in prop::collection::vec(any::<u8>(), 0..200), ready in any::<bool>()) {
            let mut bytes = if ready { request_socket_hello() } else { our_greeting().to_vec() };
            bytes.extend(noise);
            let _ = serve(&bytes);
        }

        #[test]
        fn no_ready_command_panics(mut body in prop::collection::vec(any::<u8>(), 0..60)) {
            body.splice(0..0, *b"\x05READY");
            let _ = check_ready(&body);
        }
    }
}
