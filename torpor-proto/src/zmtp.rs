//! The part of ZeroMQ's wire protocol that a request and its answer need, as bytes: ZMTP 3.0, NULL mechanism. Source:
//! rfc.zeromq.org/spec/23 (ZMTP/3.0).
//!
//! No socket is touched here: the node server reads and writes these bytes asynchronously, the preloaded library with
//! blocking calls. Nothing that comes in is trusted: a frame has [`MAX_FRAME_BYTES`], a message [`MAX_MESSAGE_FRAMES`].
//! (The `zeromq` crate, 0.7.0, reserves as much memory as a frame's header claims: nine bytes end the process.)

/// Bytes of a frame, at most.
pub const MAX_FRAME_BYTES: usize = 16 * 1024;

/// Frames of a message, at most: routing frames, the empty delimiter, the payload.
pub const MAX_MESSAGE_FRAMES: usize = 8;

/// Bytes that each side begins with.
pub const GREETING_BYTES: usize = 64;

/// Flag of a frame that is not its message's last.
pub const MORE: u8 = 1;

/// Flag of a frame whose length has eight bytes.
pub const LONG: u8 = 2;

/// Flag of a frame that is no part of a message.
pub const COMMAND: u8 = 4;

/// What a peer must not send.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It speaks something else.
    #[error("the peer does not speak ZMTP 3 without authentication")]
    Greeting,
    /// It is a socket of a type that has nothing to say to ours.
    #[error("the peer is no socket of a fitting type")]
    SocketType,
    /// A frame of the handshake where a message belongs, or the other way round, or reserved flags.
    #[error("a frame with flags {0:#04x} out of place")]
    Flags(u8),
    /// A frame longer than any message.
    #[error("a frame of {0} bytes; at most {MAX_FRAME_BYTES} are taken")]
    Frame(u64),
    /// A message with more frames than any request.
    #[error("a message of more than {MAX_MESSAGE_FRAMES} frames")]
    Message,
}

/// What each side begins with.
#[must_use]
pub fn greeting() -> [u8; GREETING_BYTES] {
    let mut greeting = [0; GREETING_BYTES];
    (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
    greeting[12..16].copy_from_slice(b"NULL");
    greeting
}

/// Checks what the other side began with.
///
/// # Errors
/// [`WireError::Greeting`].
pub fn check_greeting(greeting: &[u8; GREETING_BYTES]) -> Result<(), WireError> {
    let mut null = [0; 20];
    null[..4].copy_from_slice(b"NULL");
    let good = greeting[0] == 0xff && greeting[9] == 0x7f && greeting[10] >= 3 && greeting[12..32] == null;
    if good { Ok(()) } else { Err(WireError::Greeting) }
}

/// The command that ends a side's handshake: the type of its socket (`REQ`, `ROUTER`), at most 255 bytes.
#[must_use]
pub fn ready_command(socket_type: &str) -> Vec<u8> {
    let mut body = b"\x05READY\x0bSocket-Type".to_vec();
    body.extend(u32::try_from(socket_type.len()).unwrap_or(u32::MAX).to_be_bytes());
    body.extend(socket_type.as_bytes());
    let mut out = Vec::new();
    put_frame(&mut out, COMMAND, &body);
    out
}

/// Checks the body of the other side's ready command: its socket must be of one of these types.
///
/// # Errors
/// [`WireError::Greeting`] if it is none, [`WireError::SocketType`].
pub fn check_ready(body: &[u8], fitting: &[&str]) -> Result<(), WireError> {
    let mut rest = body.strip_prefix(b"\x05READY").ok_or(WireError::Greeting)?;
    while !rest.is_empty() {
        let (name, value, after) = split_property(rest).ok_or(WireError::Greeting)?;
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            let fits = fitting.iter().any(|fitting| fitting.as_bytes() == value);
            return if fits { Ok(()) } else { Err(WireError::SocketType) };
        }
        rest = after;
    }
    Err(WireError::SocketType)
}

/// A property is a name with a length of one byte and a value with a length of four.
fn split_property(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&name_bytes, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(name_bytes))?;
    let (value_bytes, rest) = rest.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*value_bytes) as usize)?;
    Some((name, value, rest))
}

/// Appends a frame.
pub fn put_frame(out: &mut Vec<u8>, flags: u8, body: &[u8]) {
    if let Ok(short) = u8::try_from(body.len()) {
        out.extend([flags, short]);
    } else {
        out.push(flags | LONG);
        out.extend((body.len() as u64).to_be_bytes());
    }
    out.extend(body);
}

/// How many bytes of length follow a frame's flags: 1 or 8, big-endian.
///
/// # Errors
/// [`WireError::Flags`] if any are set that ZMTP reserves.
pub fn length_bytes(flags: u8) -> Result<usize, WireError> {
    if flags & !(MORE | LONG | COMMAND) != 0 {
        return Err(WireError::Flags(flags));
    }
    Ok(if flags & LONG == 0 { 1 } else { 8 })
}

/// The length of a frame that claims one, before anything is reserved for it.
///
/// # Errors
/// [`WireError::Frame`] above [`MAX_FRAME_BYTES`].
pub fn check_length(claimed: u64) -> Result<usize, WireError> {
    let bytes = usize::try_from(claimed).ok().filter(|&bytes| bytes <= MAX_FRAME_BYTES);
    bytes.ok_or(WireError::Frame(claimed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_side_takes_what_the_other_says() {
        check_greeting(&greeting()).unwrap();
        for socket_type in ["REQ", "ROUTER"] {
            let ready = ready_command(socket_type);
            assert_eq!(ready[0], COMMAND);
            assert_eq!(usize::from(ready[1]), ready.len() - 2);
            check_ready(&ready[2..], &["DEALER", socket_type]).unwrap();
            assert_eq!(check_ready(&ready[2..], &["SUB"]), Err(WireError::SocketType));
        }
    }

    #[test]
    fn a_frame_s_length_is_checked_before_its_bytes_are_there() {
        let mut long = Vec::new();
        put_frame(&mut long, MORE, &[7; 300]);
        assert_eq!((long[0], length_bytes(long[0])), (MORE | LONG, Ok(8)));
        assert_eq!(long[1..9], 300_u64.to_be_bytes());
        assert_eq!(length_bytes(0x80), Err(WireError::Flags(0x80)));
        assert_eq!(check_length(1 << 46), Err(WireError::Frame(1 << 46)));
        assert_eq!(check_length(MAX_FRAME_BYTES as u64), Ok(MAX_FRAME_BYTES));
    }

    proptest! {
        #[test]
        fn no_ready_command_panics(mut body in prop::collection::vec(any::<u8>(), 0..60)) {
            body.splice(0..0, *b"\x05READY");
            let _ = check_ready(&body, &["REQ"]);
        }
    }
}
