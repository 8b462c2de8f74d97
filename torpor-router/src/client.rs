//! Asking a router: its admin socket, and functions through its front.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Why a router was not asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// None listens on the admin socket.
    #[error("no router listens at {socket}: {error}; start one with `torpor router --config FILE`")]
    NoRouter {
        /// Where.
        socket: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// None listens on the address.
    #[error("{url} cannot be reached: {error}; `torpor router` says where it listens when it starts")]
    Unreachable {
        /// Where.
        url: Uri,
        /// Why not.
        error: io::Error,
    },
    /// It is no URL of a router.
    #[error("{0:?} is no URL such as http://127.0.0.1:8080")]
    Url(String),
    /// The conversation broke.
    #[error("the router hung up: {0}")]
    Broken(#[from] hyper::Error),
    /// A header cannot be sent.
    #[error("{0:?} is no header such as \"x-torpor-deadline: 250ms\"")]
    Header(String),
    /// The router refuses.
    #[error("{0}")]
    Refused(String),
}

/// An answer, whose body is still to be read.
pub type Answer = Response<Incoming>;

/// Asks the admin socket.
///
/// # Errors
/// [`ClientError`]; a status that is no success is [`ClientError::Refused`] with the router's words.
pub async fn ask_admin(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<String>,
) -> Result<Answer, ClientError> {
    let no_router = |error| ClientError::NoRouter { socket: socket.to_owned(), error };
    let stream = UnixStream::connect(socket).await.map_err(no_router)?;
    let mut request = Request::new(Full::new(Bytes::from(body.unwrap_or_default())));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|_| ClientError::Url(path.to_owned()))?;
    request.headers_mut().insert(HOST, HeaderValue::from_static("router"));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let answer = send(stream, request).await?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    let told = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let message = told.as_ref().and_then(|told| told["error"]["message"].as_str());
    Err(ClientError::Refused(message.map_or_else(|| format!("the router answers {status}"), str::to_owned)))
}

/// Sends a request to a function.
///
/// # Errors
/// [`ClientError`]; any status is an answer.
pub async fn invoke(
    url: &str,
    function: &str,
    headers: &[String],
    body: Vec<u8>,
) -> Result<Answer, ClientError> {
    let wrong = || ClientError::Url(url.to_owned());
    let base: Uri = url.parse().map_err(|_| wrong())?;
    let authority = base.authority().filter(|_| base.scheme_str() == Some("http")).ok_or_else(wrong)?.clone();
    let mut request =
        Request::post(format!("/v1/functions/{function}/invoke")).body(Full::new(Bytes::from(body)));
    let request = request.as_mut().map_err(|_| wrong())?;
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| wrong())?;
    request.headers_mut().insert(HOST, host);
    request.headers_mut().extend(self::headers(headers)?);
    let address = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|error| ClientError::Unreachable { url: base.clone(), error })?;
    send(stream, std::mem::take(request)).await
}

/// Headers as they are given on a command line: `NAME: VALUE`.
///
/// # Errors
/// [`ClientError::Header`] with one that is none.
pub fn headers(texts: &[String]) -> Result<HeaderMap, ClientError> {
    let parse = |text: &String| {
        let (name, value) = text.split_once(':')?;
        Some((name.trim().parse::<HeaderName>().ok()?, HeaderValue::from_str(value.trim()).ok()?))
    };
    texts.iter().map(|text| parse(text).ok_or_else(|| ClientError::Header(text.clone()))).collect()
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its end is the answer's.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}
