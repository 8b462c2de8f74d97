//! What a container may write to the control socket: every connection ends with an answer or an error, in bounded memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tokio::io::AsyncWriteExt;
use torpor_gpuserver::server::entrance::zmtp::Connection;
use torpor_proto::zmtp::MAX_FRAME_BYTES;

/// What an honest peer says first; inputs whose first byte is even begin behind it.
const HANDSHAKE: &[u8] =
    b"\xff\0\0\0\0\0\0\0\0\x7f\x03\0NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
      \x04\x19\x05READY\x0bSocket-Type\0\0\0\x03REQ";

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        if first % 2 == 0 {
            theirs.write_all(HANDSHAKE).await.expect("there is room for a handshake");
        }
        let bytes = &bytes[..bytes.len().min(512 << 10)];
        theirs.write_all(bytes).await.expect("there is room for the input");
        theirs.shutdown().await.expect("a pipe can be closed");
        let Ok(mut connection) = Connection::accept(ours).await else { return };
        while let Ok(request) = connection.receive().await {
            assert!(request.payload.len() <= MAX_FRAME_BYTES);
            if connection.answer(&request, &request.payload).await.is_err() {
                break;
            }
        }
    });
});
