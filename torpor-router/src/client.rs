//! Asking a router: its admin socket, and functions through its front.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::UnixStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

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
        error: String,
    },
    /// It does not show that it is who it should be.
    #[error("{url} shows a certificate that is not trusted: {error}; --cacert FILE names whom to trust")]
    Untrusted {
        /// Where.
        url: Uri,
        /// Why not.
        error: String,
    },
    /// Nobody can be trusted.
    #[error("{path} cannot be used: {error}; --cacert wants a file of certificates in PEM")]
    Roots {
        /// The file; the system's if none was given.
        path: PathBuf,
        /// Why not.
        error: String,
    },
    /// It is no URL of a router.
    #[error("{0:?} is no URL such as http://127.0.0.1:8080 or https://host:8443")]
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

/// How routers are reached: with TLS where their URL says so.
pub type Connector = HttpsConnector<HttpConnector>;

/// Trusts whom the file of certificates names, or else whom the system trusts.
///
/// # Errors
/// [`ClientError::Roots`].
pub fn connector(url: &str, trusted: Option<&Path>) -> Result<Connector, ClientError> {
    let mut roots = RootCertStore::empty();
    let wrong = |path: &Path, error: &dyn ToString| ClientError::Roots {
        path: path.to_owned(),
        error: error.to_string(),
    };
    if let Some(path) = trusted {
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(path, &error))? {
            let certificate = certificate.map_err(|error| wrong(path, &error))?;
            roots.add(certificate).map_err(|error| wrong(path, &error))?;
        }
        if roots.is_empty() {
            return Err(wrong(path, &"no certificate is in it"));
        }
    } else if url.starts_with("https:") {
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        if roots.is_empty() {
            let error =
                system.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
            return Err(wrong(Path::new("the system's list of certificates"), &error));
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(Path::new("TLS"), &error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    http.enforce_http(false);
    let https = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1();
    Ok(https.wrap_connector(http))
}

/// Where a router is asked for something of a function.
///
/// # Errors
/// [`ClientError::Url`].
pub fn function_uri(url: &str, function: &str, what: &str) -> Result<Uri, ClientError> {
    let whole = format!("{}/v1/functions/{function}/{what}", url.trim_end_matches('/'));
    let uri = whole.parse::<Uri>().ok().filter(|uri| uri.authority().is_some());
    uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")))
        .ok_or_else(|| ClientError::Url(url.to_owned()))
}

/// Sends a request to a router.
///
/// # Errors
/// [`ClientError`]; any status is an answer.
pub async fn ask(connector: Connector, mut request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
    let url = request.uri().clone();
    *request.version_mut() = hyper::Version::HTTP_11;
    let client = Client::builder(TokioExecutor::new()).build(connector);
    client.request(request).await.map_err(|error| failed(url, &error))
}

/// Why a router that was to be asked was not.
fn failed(url: Uri, error: &legacy::Error) -> ClientError {
    let (mut cause, mut untrusted): (&dyn Error, bool) = (error, false);
    loop {
        untrusted |= matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)));
        // An error of I/O shows what it holds, but not as its source.
        let inner =
            cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref).map(|inner| inner as &dyn Error);
        match inner.or_else(|| cause.source()) {
            Some(deeper) => cause = deeper,
            None => break,
        }
    }
    let error = cause.to_string();
    if untrusted { ClientError::Untrusted { url, error } } else { ClientError::Unreachable { url, error } }
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

async fn send(stream: UnixStream, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its end is the answer's.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}
