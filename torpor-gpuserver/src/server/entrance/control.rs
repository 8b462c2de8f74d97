//! The control endpoint of a function: a request comes in, its answer goes out, and the connection ends. Who asks again
//! connects again, at the pace that its function is given.

use crate::server::entrance::admission::AdmitError;
use crate::server::entrance::function::Entrance;
use crate::server::entrance::zmtp::{Connection, ZmtpError};
use std::io::ErrorKind;
use tokio::net::UnixStream;
use torpor_proto::PROTOCOL_VERSION;
use torpor_proto::control::Message;
use torpor_proto::control::client::{Answer, Refusal, Request, answer, request};

/// Serves a connection until it ends.
pub async fn serve(stream: UnixStream, entrance: Entrance) {
    match converse(stream, &entrance).await {
        Ok(()) => {}
        Err(ZmtpError::Io(error))
            if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe) => {}
        Err(error) => {
            let function = &*entrance.function;
            entrance.log.tell(|| tracing::warn!(function, "control connection dropped: {error}"));
        }
    }
}

async fn converse(stream: UnixStream, entrance: &Entrance) -> Result<(), ZmtpError> {
    let mut connection = Connection::accept(stream).await?;
    let request = connection.receive().await?;
    let body = answer_to(&request.payload, entrance).await.unwrap_or_else(|refusal| {
        let (function, reason) = (&*entrance.function, &refusal.reason);
        entrance.log.tell(|| tracing::warn!(function, "client refused: {reason}"));
        answer::Body::Refusal(refusal)
    });
    let answer = Answer { protocol_version: PROTOCOL_VERSION, body: Some(body) };
    connection.answer(&request, &answer.encode_to_vec()).await?;
    Ok(())
}

async fn answer_to(payload: &[u8], entrance: &Entrance) -> Result<answer::Body, Refusal> {
    let for_good = |reason: String| Refusal { reason, transient: false };
    let unreadable =
        |_| for_good("the request cannot be read: use shim and server of one release".to_owned());
    let request = Request::decode(payload).map_err(unreadable)?;
    if request.protocol_version != PROTOCOL_VERSION {
        return Err(for_good(format!(
            "the client speaks protocol version {}, the server {PROTOCOL_VERSION}: use shim and server of one release",
            request.protocol_version
        )));
    }
    let said = request.body.ok_or_else(|| for_good("the request says nothing".to_owned()))?;
    let ending = || Refusal { reason: "the server is ending".to_owned(), transient: true };
    let node = entrance.node.upgrade().ok_or_else(ending)?;
    let refused = |error: AdmitError| Refusal { transient: error.is_transient(), reason: error.to_string() };
    match said {
        request::Body::Hello(hello) => {
            node.admit(&entrance.function, hello).await.map(answer::Body::Welcome).map_err(refused)
        }
        request::Body::Look(_) => {
            node.look(&entrance.function).await.map(answer::Body::View).map_err(refused)
        }
    }
}
