//! Taking connections: so many at once, with TLS if there is a certificate, and none that dawdles over that or a request's head.

use crate::fresh::Fresh;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

/// How long a client may take for the head of a request, and a connection rest between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to read anything of an answer: while it does not, the answer's process cannot go on.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of a request's head, at most.
const HEAD_BYTES: usize = 64 << 10;
/// After the system has refused a connection (no descriptors left, say).
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// Where connections come from.
pub trait Listener {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>>;
}

impl Listener for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn next(&self) -> io::Result<Self::Stream> {
        let (stream, _) = self.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Listener for UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn next(&self) -> io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }
}

/// Serves connections until `ending` says so; those that are open then finish the request they are in. Returns at once.
pub async fn listen(
    listener: impl Listener,
    most: usize,
    routes: Router,
    tls: Option<Arc<Fresh<TlsAcceptor>>>,
    mut ending: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(most));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.next() => accepted,
            () = async { drop(ending.wait_for(|ending| *ending).await) } => return,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!("a connection was not taken: {error}");
                sleep(REFUSED_PAUSE).await;
                continue;
            }
        };
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let stream = Box::pin(stream);
        let (routes, ending, tls) = (routes.clone(), ending.clone(), tls.as_ref().map(|tls| tls.get()));
        tokio::spawn(async move {
            match tls {
                None => converse(stream, routes, ending).await,
                // Boxed, or a connection without it is as large.
                Some(tls) => Box::pin(converse_in_private(&tls, stream, routes, ending)).await,
            }
            drop(place);
        });
    }
}

/// Who does not shake hands in time, or not at all, is as one that speaks no HTTP.
async fn converse_in_private(
    tls: &TlsAcceptor,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: Router,
    ending: watch::Receiver<bool>,
) {
    if let Ok(Ok(stream)) = timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
        converse(stream, routes, ending).await;
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: Router,
    mut ending: watch::Receiver<bool>,
) {
    let mut connection = std::pin::pin!({
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES);
        http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
    });
    let mut asked = false;
    loop {
        tokio::select! {
            // An error is the client's: it has left, or spoke no HTTP.
            _ = connection.as_mut() => return,
            () = async { drop(ending.wait_for(|ending| *ending).await) }, if !asked => {
                asked = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
