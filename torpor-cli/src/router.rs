//! `torpor router`, `invoke`, `logs`, `scale` and `delete`: functions behind HTTP.

use crate::DirectoryFlag;
use crate::deploy::Settings;
use crate::error::CliError;
use crate::how_far::HowFar;
use crate::table::print_table;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, HeaderValue};
use hyper::{Method, Request};
use std::convert::Infallible;
use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use torpor_gpuserver::server::logging;
use torpor_router::admin::{FunctionRow, Scale as ScaleRequest};
use torpor_router::client::{
    Answer, ClientError, Connector, ask, ask_admin, connector, function_uri, headers,
};
use torpor_router::loading::{Loading, LoadingState};
use torpor_router::serve::ADMIN_SOCKET;
use torpor_router::{RouterArgs, serve};

/// Until a start that one waits for is told of.
const SILENCE: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
The settings file says which functions there are, and by which command each is started:

  [functions.classify]
  command = [\"python\", \"scripts/endpoint.py\", \"--model\", \"resnet50\"]
  slo_ms = 200

A process is started with the first request (or at once, with min_instances), through `torpor run`; it answers HTTP on the
port in $PORT, and is healthy when GET /health is answered with 2xx. `torpor serve` must run in the same directory. With
`image = \"any/image\"`, processes are containers, started by this machine's engine ($DOCKER_HOST, else /var/run/docker.sock).

Examples:
  torpor router --config torpor.toml
  torpor router --config torpor.toml --listen 0.0.0.0:8080
  curl -d @picture.json http://127.0.0.1:8080/v1/functions/classify/invoke";

/// Take requests over HTTP and pass them to functions by name
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Router {
    #[command(flatten)]
    router: RouterArgs,

    /// How much to log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: String,
}

impl Router {
    /// Serves until told to end.
    pub fn run(self) -> Result<ExitCode, CliError> {
        logging::begin(&self.log)?;
        let torpor = std::env::current_exe()?;
        Builder::new_multi_thread().enable_all().build()?.block_on(serve(self.router, torpor))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// For one conversation.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Prints an answer's body as it comes.
async fn print(answer: Answer) -> Result<(), CliError> {
    let (mut body, mut out) = (answer.into_body(), io::stdout().lock());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(ClientError::Broken)?;
        out.write_all(frame.data_ref().map_or(&[], |data| data))?;
        out.flush()?;
    }
    Ok(())
}

/// Send a request to a function and print its answer
#[derive(Debug, clap::Args)]
pub struct Invoke {
    /// The function
    name: String,

    /// Tell how far a function's start is, also where standard error is no terminal
    #[arg(long)]
    progress: bool,

    #[command(flatten)]
    payload: Payload,
}

/// What a request is, and where it goes.
#[derive(Debug, clap::Args)]
pub struct Payload {
    /// The body [default: standard input, if it is no terminal]
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    data: Option<String>,

    /// A file with the body
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// A header, such as "x-torpor-deadline: 250ms"
    #[arg(long, short = 'H', value_name = "NAME: VALUE")]
    pub header: Vec<String>,

    /// Where the router takes requests
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "TORPOR_URL")]
    pub url: String,

    /// For https: a file with the certificates to trust, PEM [default: whom the system trusts]
    #[arg(long, value_name = "FILE", env = "TORPOR_CACERT")]
    cacert: Option<PathBuf>,
}

impl Payload {
    /// How the router is reached.
    ///
    /// # Errors
    /// [`ClientError::Roots`].
    pub fn connector(&self) -> Result<Connector, ClientError> {
        connector(&self.url, self.cacert.as_deref())
    }

    /// A request for how far a function is.
    ///
    /// # Errors
    /// [`ClientError`] if URL or headers are none.
    fn ask_how_far(&self, function: &str) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = function_uri(&self.url, function, "progress")?;
        *request.headers_mut() = headers(&self.header)?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        Ok(request)
    }

    /// A request.
    ///
    /// # Errors
    /// [`ClientError`] if URL or headers are none, and those of the body.
    fn request(&self, function: &str) -> Result<Request<Full<Bytes>>, CliError> {
        let mut request = Request::new(Full::new(Bytes::from(self.body()?)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = function_uri(&self.url, function, "invoke")?;
        *request.headers_mut() = headers(&self.header)?;
        Ok(request)
    }

    /// The body.
    ///
    /// # Errors
    /// Of the file, or of standard input.
    pub fn body(&self) -> io::Result<Vec<u8>> {
        match (&self.data, &self.file) {
            (Some(text), _) => Ok(text.clone().into_bytes()),
            (None, Some(path)) => fs::read(path),
            (None, None) if rustix::termios::isatty(io::stdin()) => Ok(Vec::new()),
            (None, None) => {
                let mut bytes = Vec::new();
                io::stdin().read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

impl Invoke {
    /// Sends, and exits with 1 if the answer's status is no success.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let (connector, request) = (self.payload.connector()?, self.payload.request(&self.name)?);
        runtime()?.block_on(async {
            let answer = tokio::select! {
                answer = ask(connector.clone(), request) => answer?,
                never = self.tell_how_far(connector) => match never? {},
            };
            let status = answer.status();
            print(answer).await?;
            if status.is_success() {
                return Ok(ExitCode::SUCCESS);
            }
            eprintln!("\ntorpor: {} answers {status}", self.name);
            Ok(ExitCode::FAILURE)
        })
    }
}

impl Invoke {
    /// Follows a start for as long as it takes, and after that goes on for ever.
    async fn tell_how_far(&self, connector: Connector) -> Result<Infallible, CliError> {
        let mut how_far = HowFar::new(self.progress);
        if how_far.is_wanted() {
            // Most functions have answered by then.
            tokio::time::sleep(SILENCE).await;
            let request = self.payload.ask_how_far(&self.name)?;
            if let Ok(answer) = ask(connector, request).await {
                let mut body = answer.into_body();
                // One event is one frame, unless somebody between cuts it, and then the next one tells.
                while let Some(Ok(frame)) = body.frame().await {
                    let text =
                        String::from_utf8_lossy(frame.data_ref().map_or(&[], |data| data)).into_owned();
                    let told = text.lines().find_map(|line| line.strip_prefix("data: "));
                    let loading = told.and_then(|told| serde_json::from_str::<Loading>(told).ok());
                    match loading {
                        Some(Loading { state: LoadingState::Starting, bytes, of_bytes, .. }) => {
                            how_far.show(&format!("{} is starting:", self.name), bytes, of_bytes);
                        }
                        _ => how_far.clear(),
                    }
                }
            }
        }
        drop(how_far);
        std::future::pending().await
    }
}

/// Where the router is asked about itself.
#[derive(Debug, clap::Args)]
pub struct RouterFlag {
    #[command(flatten)]
    pub directory: DirectoryFlag,

    /// The router's admin socket [default: router.sock in the server's directory]
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
}

impl RouterFlag {
    /// The admin socket.
    pub fn socket(&self) -> PathBuf {
        let beside = || self.directory.server().path().join(ADMIN_SOCKET);
        self.admin_socket.clone().unwrap_or_else(beside)
    }
}

/// Print what a function's processes have printed
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// The function
    name: String,

    /// Go on with what they print from now on
    #[arg(long, short)]
    follow: bool,

    #[command(flatten)]
    router: RouterFlag,
}

impl Logs {
    /// Prints the log.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let path = format!("/logs/{}{}", if self.follow { "stream/" } else { "" }, self.name);
        runtime()?.block_on(async {
            print(ask_admin(&self.router.socket(), Method::GET, &path, None).await?).await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Keep at least so many processes of a function, whatever the settings file says
#[derive(Debug, clap::Args)]
pub struct Scale {
    /// The function
    name: String,

    /// How many; without it, what the settings file says holds again
    instances: Option<usize>,

    #[command(flatten)]
    router: RouterFlag,
}

impl Scale {
    /// Scales, and prints the function's processes.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let body = serde_json::to_string(&ScaleRequest { min_instances: self.instances })
            .map_err(io::Error::from)?;
        let path = format!("/api/v1/functions/{}/scale", self.name);
        runtime()?.block_on(async {
            let answer = ask_admin(&self.router.socket(), Method::PUT, &path, Some(body)).await?;
            let bytes = answer.into_body().collect().await.map_err(ClientError::Broken)?;
            let row: FunctionRow = serde_json::from_slice(&bytes.to_bytes()).map_err(io::Error::from)?;
            let rows: Vec<_> = row
                .instances
                .into_iter()
                .map(|process| [process.id.to_string(), process.state, process.requests.to_string()])
                .collect();
            print_table(["INSTANCE", "STATE", "REQUESTS"], &rows);
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Stop serving a function until the settings file changes, or for good
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// The function
    name: String,

    /// Take it out of the settings file, too
    #[arg(long)]
    forget: bool,

    #[command(flatten)]
    router: RouterFlag,
}

impl Delete {
    /// Takes the function away; requests under way are answered.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let path = format!("/api/v1/functions/{}", self.name);
        runtime()?.block_on(ask_admin(&self.router.socket(), Method::DELETE, &path, None))?;
        if self.forget {
            Settings::of(&self.router)?.change(|functions| functions.remove(&self.name))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
