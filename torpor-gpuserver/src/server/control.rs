//! The control endpoint of a function: requests come in, answers go out.

use crate::server::function::Entrance;
use crate::server::zmtp::{Connection, ZmtpError};
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
        Err(error) => tracing::warn!(function = &*entrance.function, "control connection dropped: {error}"),
    }
}

async fn converse(stream: UnixStream, entrance: &Entrance) -> Result<(), ZmtpError> {
    let mut connection = Connection::accept(stream).await?;
    loop {
        let request = connection.receive().await?;
        let body = match answer_to(&request.payload, entrance).await {
            Ok(body) => body,
            Err(reason) => {
                tracing::warn!(function = &*entrance.function, "client refused: {reason}");
                answer::Body::Refusal(Refusal { reason })
            }
        };
        let answer = Answer { protocol_version: PROTOCOL_VERSION, body: Some(body) };
        connection.answer(&request, &answer.encode_to_vec()).await?;
    }
}

async fn answer_to(payload: &[u8], entrance: &Entrance) -> Result<answer::Body, String> {
    let unreadable = |_| "the request cannot be read: use shim and server of one release".to_owned();
    let request = Request::decode(payload).map_err(unreadable)?;
    if request.protocol_version != PROTOCOL_VERSION {
        return Err(format!(
            "the client speaks protocol version {}, the server {PROTOCOL_VERSION}: use shim and server of one release",
            request.protocol_version
        ));
    }
    let Some(request::Body::Hello(hello)) = request.body else {
        return Err("the request says nothing".to_owned());
    };
    let node = entrance.node.upgrade().ok_or("the server is ending")?;
    let welcome = node.admit(&entrance.function, hello).await.map_err(|error| error.to_string())?;
    Ok(answer::Body::Welcome(welcome))
}
