//! A REQ socket of ZeroMQ that asks once, with blocking calls and without a thread of its own
//! ([`torpor_proto::zmtp`]).

use std::io::{self, Read, Write};
use torpor_proto::zmtp::{
    COMMAND, GREETING_BYTES, MAX_MESSAGE_FRAMES, MORE, WireError, check_greeting, check_length, check_ready,
    greeting, length_bytes, put_frame, ready_command,
};

/// The sockets that answer requests.
const ANSWERERS: [&str; 2] = ["ROUTER", "REP"];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// The server left, or the socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It does not speak ZeroMQ.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Sends a request and waits for the answer. Handshake and request go together: a busy server has to be waited for once.
pub(super) fn ask(stream: &mut (impl Read + Write), request: &[u8]) -> Result<Vec<u8>, RequestError> {
    let mut out = greeting().to_vec();
    out.extend(ready_command("REQ"));
    put_frame(&mut out, MORE, b"");
    put_frame(&mut out, 0, request);
    stream.write_all(&out)?;

    let mut theirs = [0; GREETING_BYTES];
    stream.read_exact(&mut theirs)?;
    check_greeting(&theirs)?;
    let (flags, ready) = read_frame(stream)?;
    if flags & COMMAND == 0 {
        return Err(WireError::Flags(flags).into());
    }
    check_ready(&ready, &ANSWERERS)?;
    for _ in 0..MAX_MESSAGE_FRAMES {
        let (flags, body) = read_frame(stream)?;
        if flags & (MORE | COMMAND) == 0 {
            return Ok(body);
        }
    }
    Err(WireError::Message.into())
}

fn read_frame(stream: &mut impl Read) -> Result<(u8, Vec<u8>), RequestError> {
    let mut flags = [0];
    stream.read_exact(&mut flags)?;
    let mut length = [0; 8];
    stream.read_exact(&mut length[8 - length_bytes(flags[0])?..])?;
    let mut body = vec![0; check_length(u64::from_be_bytes(length))?];
    stream.read_exact(&mut body)?;
    Ok((flags[0], body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use zeromq::{RepSocket, Socket, SocketRecv, SocketSend};

    /// A server whose ZeroMQ is somebody else's.
    fn echo(path: &std::path::Path) {
        let address = format!("ipc://{}", path.display());
        let (tell, bound) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut socket = RepSocket::new();
                socket.bind(&address).await.unwrap();
                tell.send(()).unwrap();
                loop {
                    let request = socket.recv().await.unwrap();
                    socket.send(request).await.unwrap();
                }
            });
        });
        bound.recv().unwrap();
    }

    #[test]
    fn another_zeromq_answers() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        echo(&path);
        for request in [vec![7; 5], vec![7; 3000]] {
            let mut stream = UnixStream::connect(&path).unwrap();
            assert_eq!(ask(&mut stream, &request).unwrap(), request);
        }
    }

    #[test]
    fn a_server_that_lies_about_lengths_or_leaves_is_an_error() {
        let answered = |bytes: &[u8]| {
            let (mut ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(bytes).unwrap();
            theirs.shutdown(std::net::Shutdown::Write).unwrap();
            ask(&mut ours, b"hello").unwrap_err()
        };
        let mut shaken = greeting().to_vec();
        shaken.extend(ready_command("ROUTER"));
        let huge = [&shaken[..], &[2], &(1_u64 << 46).to_be_bytes()].concat();
        assert!(matches!(answered(&huge), RequestError::Wire(WireError::Frame(_))));
        let endless = [&shaken[..], &[MORE, 0].repeat(100)].concat();
        assert!(matches!(answered(&endless), RequestError::Wire(WireError::Message)));
        assert!(matches!(answered(&[b'x'; 64]), RequestError::Wire(WireError::Greeting)));
        assert!(matches!(answered(&shaken), RequestError::Io(_)));
    }
}
