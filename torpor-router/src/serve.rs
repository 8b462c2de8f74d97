//! The router as a program: its flags, its start, its end.

use crate::admin::{self, Admin};
use crate::descriptors::{TooFew, make_room};
use crate::engine::Engine;
use crate::fresh::Fresh;
use crate::front::{self, Front};
use crate::gate::Gate;
use crate::instance::Launcher;
use crate::keys::Keys;
use crate::listener::listen;
use crate::loading;
use crate::node::Node;
use crate::otlp::{self, OtlpError};
use crate::page::{self, Page};
use crate::proxy::Proxy;
use crate::registry::Registry;
use crate::settings::Settings;
use crate::spans::Spans;
use crate::tls;
use crate::told::Teller;
use crate::watch::Watch;
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use torpor_gpuserver::server::entrance::group::guard_socket;
use torpor_gpuserver::server::settings::{FileError, ServerSection, SettingsFile};
use torpor_proto::directory::ServerDirectory;

const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_CONNECTIONS: usize = 10_000;
/// People at once who look at the page.
const PAGE_CONNECTIONS: usize = 100;
/// Operators at once.
const ADMIN_CONNECTIONS: usize = 100;
/// The admin socket's name in the server directory.
pub const ADMIN_SOCKET: &str = "router.sock";

/// Take requests over HTTP and pass them to functions by name
#[derive(Debug, clap::Args)]
pub struct RouterArgs {
    /// The settings file, whose functions with a command, an image or endpoints are served (docs/configuration.md)
    #[arg(long, value_name = "FILE", env = "TORPOR_CONFIG")]
    pub config: PathBuf,

    /// Where to take requests [default: what the file says, else 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,

    /// Where to show the page, for people who look: read only, with a token in its address [default: what the file says, else nowhere]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub page: Option<SocketAddr>,

    /// Where the node server listens [default: $TORPOR_SERVER, else $XDG_RUNTIME_DIR/torpor, else /run/torpor]
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// Why a router does not serve.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// The settings file is none.
    #[error(transparent)]
    Settings(#[from] FileError),
    /// The address is taken, or not this machine's.
    #[error("requests cannot be taken on {address}: {error}; --listen and --page name others")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The admin socket cannot be made.
    #[error("the admin socket {path} cannot be made: {error}; does the node server run, and as this user?")]
    Admin {
        /// Where.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The keys cannot be read.
    #[error("the keys in {path} cannot be read: {error}")]
    Keys {
        /// Where.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("the certificate {chain} and the key {key} cannot be used: {error}")]
    Tls {
        /// The certificate.
        chain: PathBuf,
        /// Its key.
        key: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// One of them is missing.
    #[error("tls_cert and tls_key in [server] go together: one of them is missing")]
    HalfTls,
    /// There would be too few file descriptors.
    #[error(transparent)]
    Descriptors(#[from] TooFew),
    /// Spans cannot go where they should.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Serves until SIGTERM or SIGINT; then requests under way are answered and processes end. `torpor` is the program that starts
/// functions.
///
/// # Errors
/// [`RouterError`].
pub async fn serve(arguments: RouterArgs, torpor: PathBuf) -> Result<(), RouterError> {
    let file = SettingsFile::read(&arguments.config)?;
    let directory = arguments.directory.map_or_else(ServerDirectory::from_environment, ServerDirectory::new);
    let server = &file.server;
    let keys = match &server.api_keys_file {
        None => None,
        Some(path) => {
            let keys = Fresh::new(vec![path.clone()], |paths| Keys::read(&paths[0]));
            Some(Arc::new(keys.map_err(|error| RouterError::Keys { path: path.clone(), error })?))
        }
    };
    let tls = certificate(server)?;
    let most = make_room(server.max_connections.map(usize::from), MAX_CONNECTIONS)?;
    let address = arguments.listen.or(server.listen).unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 8080).into());
    let listener = bind(address).await?;
    let admin_socket = server.admin_socket.clone().unwrap_or_else(|| directory.path().join(ADMIN_SOCKET));
    let admin_listener = private_socket(&admin_socket)
        .map_err(|error| RouterError::Admin { path: admin_socket.clone(), error })?;
    if !address.ip().is_loopback() && keys.is_none() {
        tracing::warn!(
            "everybody who can reach {address} may ask functions: api_keys_file in [server] lets in those with a key"
        );
    }
    let node = Arc::new(Node::new(directory.path().to_owned()));
    let engine =
        Arc::new(Engine::new(directory.clone(), admin_socket.clone(), server.container_network.clone()));
    let launcher = Launcher {
        torpor,
        directory: directory.path().to_owned(),
        node: node.clone(),
        engine: engine.clone(),
    };
    if engine.had_containers() {
        let engine = engine.clone();
        tokio::spawn(async move {
            if let Err(error) = engine.ready().await {
                tracing::warn!("containers of a router that was killed may be left: {error}");
            }
        });
    }
    let registry = Arc::new(Registry::new(launcher, node.clone()));
    let (gate, teller) = (Arc::<Gate>::default(), Arc::<Teller>::default());
    let settings = Arc::new(Settings::new(&arguments.config, registry.clone(), gate.clone()));
    settings.apply(&file);
    let telemetry = otlp::provider(server.otlp_endpoint.as_deref())?;
    let spans = telemetry.as_ref().map(|provider| Arc::new(Spans::new(provider)));
    let proxy = Proxy::new(gate.clone(), teller.clone(), spans);
    let front = Front { registry: registry.clone(), node: node.clone(), keys: keys.clone(), proxy };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let watch = Arc::new(Watch::new(registry.clone(), node.clone(), gate.clone()));
    let (end, ending) = watch::channel(false);
    let page = match arguments.page.or(server.page) {
        None => None,
        Some(address) => {
            let (listener, token) = (bind(address).await?, token()?);
            let url = format!("{scheme}://{}/?token={token}", listener.local_addr()?);
            let page = Arc::new(Page { watch: watch.clone(), token });
            tokio::spawn(listen(listener, PAGE_CONNECTIONS, page::routes(page), tls.clone(), ending.clone()));
            tracing::info!("the page is at {url}");
            Some(url.into())
        }
    };
    let address = listener.local_addr()?;
    let drain_timeout = server.drain_timeout.map_or(DRAIN_TIMEOUT, |time| time.0);
    let admin = Admin { registry: registry.clone(), watch: watch.clone(), page, settings: settings.clone() };
    tokio::spawn(listen(listener, most, front::routes(Arc::new(front)), tls.clone(), ending.clone()));
    tokio::spawn(listen(admin_listener, ADMIN_CONNECTIONS, admin::routes(admin), None, ending));
    tokio::spawn({
        let registry = registry.clone();
        async move { registry.tend().await }
    });
    tokio::spawn({
        let (registry, watch) = (registry.clone(), watch.clone());
        async move { loading::watch(&registry, &watch).await }
    });
    tokio::spawn({
        let node = node.clone();
        async move { teller.tell(&node).await }
    });
    tokio::spawn(async move { node.watch().await });
    tracing::info!("requests are taken on {scheme}://{address}, {} functions", registry.all().len());
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = settings.follow(|| {
            keys.iter().for_each(|keys| keys.look());
            tls.iter().for_each(|tls| tls.look());
        }) => {}
    }
    end.send_replace(true);
    registry.drain(drain_timeout).await;
    engine.end().await;
    if let Some(telemetry) = telemetry {
        otlp::end(telemetry).await;
    }
    // It is in a directory of ours, and may be gone.
    let _ = std::fs::remove_file(&admin_socket);
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, RouterError> {
    TcpListener::bind(address).await.map_err(|error| RouterError::Listen { address, error })
}

/// Something that nobody guesses.
fn token() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What the front shows who it is with, if the settings name it.
fn certificate(server: &ServerSection) -> Result<Option<Arc<Fresh<TlsAcceptor>>>, RouterError> {
    let paths = match (&server.tls_cert, &server.tls_key) {
        (None, None) => return Ok(None),
        (Some(chain), Some(key)) => vec![chain.clone(), key.clone()],
        _ => return Err(RouterError::HalfTls),
    };
    let wrong = |error| RouterError::Tls { chain: paths[0].clone(), key: paths[1].clone(), error };
    Ok(Some(Arc::new(Fresh::new(paths.clone(), tls::acceptor).map_err(wrong)?)))
}

/// A Unix socket for this user alone, and for the group to which the server's directory is open. One that a router left behind makes room.
fn private_socket(path: &Path) -> io::Result<UnixListener> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "a router listens there already")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    guard_socket(path)?;
    Ok(listener)
}
