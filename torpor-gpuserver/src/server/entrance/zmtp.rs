//! A ROUTER socket of ZeroMQ that answers each request on the connection it came by ([`torpor_proto::zmtp`]).
//!
//! What comes in is not to be trusted, nor that it comes at all: a handshake has [`HANDSHAKE_TIMEOUT`], a request
//! [`REQUEST_TIMEOUT`].

use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use torpor_proto::zmtp::{
    COMMAND, GREETING_BYTES, MAX_MESSAGE_FRAMES, MORE, WireError, check_greeting, check_length, check_ready,
    greeting, length_bytes, put_frame, ready_command,
};

/// How long a peer may take to introduce itself.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a peer may take to say what it wants.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The sockets that send requests.
const REQUESTERS: [&str; 3] = ["REQ", "DEALER", "ROUTER"];

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub enum ZmtpError {
    /// The peer left, or the socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It took too long to introduce itself.
    #[error("no ZeroMQ handshake within {} seconds", HANDSHAKE_TIMEOUT.as_secs())]
    Slow,
    /// It says nothing more.
    #[error("no request within {} seconds", REQUEST_TIMEOUT.as_secs())]
    Idle,
    /// It sends what a peer must not send.
    #[error(transparent)]
    Wire(#[from] WireError),
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
        self.0.write_all(&greeting()).await?;
        let mut theirs = [0; GREETING_BYTES];
        self.0.read_exact(&mut theirs).await?;
        check_greeting(&theirs)?;
        self.0.write_all(&ready_command("ROUTER")).await?;
        let (flags, body) = self.read_frame().await?;
        if flags & COMMAND == 0 {
            return Err(WireError::Flags(flags).into());
        }
        Ok(check_ready(&body, &REQUESTERS)?)
    }

    /// The next request.
    ///
    /// # Errors
    /// [`ZmtpError`]; the connection is of no use afterwards.
    pub async fn receive(&mut self) -> Result<Incoming, ZmtpError> {
        timeout(REQUEST_TIMEOUT, self.read_request()).await.map_err(|_| ZmtpError::Idle)?
    }

    async fn read_request(&mut self) -> Result<Incoming, ZmtpError> {
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
                return Err(WireError::Message.into());
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
        let claimed = match length_bytes(flags)? {
            1 => u64::from(self.0.read_u8().await?),
            _ => self.0.read_u64().await?,
        };
        let mut body = vec![0; check_length(claimed)?];
        self.0.read_exact(&mut body).await?;
        Ok((flags, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::runtime::Builder;
    use torpor_proto::zmtp::LONG;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn request_socket_hello() -> Vec<u8> {
        let mut hello = greeting().to_vec();
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
        assert!(
            matches!(serve(&bytes), Err(ZmtpError::Wire(WireError::Frame(claimed))) if claimed == 1 << 46)
        );
    }

    #[test]
    fn a_message_without_end_is_refused() {
        let mut bytes = request_socket_hello();
        (0..100).for_each(|_| put_frame(&mut bytes, MORE, b""));
        assert!(matches!(serve(&bytes), Err(ZmtpError::Wire(WireError::Message))));
    }

    #[test]
    fn a_subscriber_is_refused() {
        let mut bytes = greeting().to_vec();
        put_frame(&mut bytes, COMMAND, b"\x05READY\x0bSocket-Type\0\0\0\x03SUB");
        assert!(matches!(serve(&bytes), Err(ZmtpError::Wire(WireError::SocketType))));
        assert!(matches!(serve(b"GET / HTTP/1.1\r\n\r\n"), Err(ZmtpError::Io(_))));
        assert!(matches!(serve(&[b'x'; 100]), Err(ZmtpError::Wire(WireError::Greeting))));
    }

    proptest! {
        #[test]
        fn no_bytes_after_the_greeting_panic(noise in prop::collection::vec(any::<u8>(), 0..200), ready in any::<bool>()) {
            let mut bytes = if ready { request_socket_hello() } else { greeting().to_vec() };
            bytes.extend(noise);
            let _ = serve(&bytes);
        }
    }
}
