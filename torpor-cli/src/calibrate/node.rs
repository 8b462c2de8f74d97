//! The node as it is measured: its functions are asked through the router, and loaded and unloaded by the server.

use crate::admin::Admin;
use crate::calibrate::CalibrationError;
use crate::error::CliError;
use crate::load_test::send::phase;
use crate::topology::topology;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::time::Instant;
use tokio::runtime::{Builder, Runtime};
use torpor_gpuserver::policy::topology::Topology;
use torpor_proto::control::admin::{
    Function, Gpu, ListFunctionsRequest, ListGpusRequest, LoadFunctionRequest, ReportTopologyRequest,
    UnloadFunctionRequest,
};
use torpor_proto::directory::ServerDirectory;
use torpor_router::client::ClientError;

/// A server and the router before it.
pub struct Node {
    admin: Admin,
    // For the second of two loads at once.
    other: Admin,
    url: String,
    runtime: Runtime,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// What its function had it for, and nobody else's request was answered there.
    pub turn_ms: f64,
    /// What it took besides: the network, the router, and whoever asks.
    pub beside_ms: f64,
}

/// Two functions that were loaded at once.
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// Until both were there.
    pub both_ms: f64,
    /// What a load of nothing takes of that.
    pub overhead_ms: f64,
}

impl Node {
    pub fn connect(directory: &ServerDirectory, url: &str) -> Result<Self, CliError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Ok(Self {
            admin: Admin::connect_patiently(directory)?,
            other: Admin::connect_patiently(directory)?,
            url: url.trim_end_matches('/').to_owned(),
            runtime,
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// Asks a function, and waits until the whole answer is there.
    pub fn ask(&mut self, function: &str) -> Result<Asked, CliError> {
        let wrong = || ClientError::Url(self.url.clone());
        let uri =
            format!("{}/v1/functions/{function}/invoke", self.url).parse::<Uri>().map_err(|_| wrong())?;
        let mut request = Request::new(Full::new(Bytes::from_static(b"{}")));
        (*request.method_mut(), *request.uri_mut()) = (hyper::Method::POST, uri.clone());
        let begin = Instant::now();
        let asked = self.runtime.block_on(async {
            let answer = self
                .client
                .request(request)
                .await
                .map_err(|error| ClientError::Unreachable { url: uri, error: error.to_string() })?;
            let status = answer.status();
            let of_phase = |name| phase(answer.headers(), name).map_or(0.0, |(ms, _)| ms);
            let (waited_ms, turn_ms) = (of_phase("queue"), of_phase("function"));
            answer.into_body().collect().await.map_err(ClientError::Broken)?;
            Ok::<_, ClientError>((status, waited_ms, turn_ms))
        });
        let ms = 1e3 * begin.elapsed().as_secs_f64();
        let (status, waited_ms, turn_ms) = asked?;
        if status.is_success() {
            return Ok(Asked { turn_ms, beside_ms: ms - waited_ms - turn_ms });
        }
        Err(CalibrationError::Failed { function: function.to_owned(), status }.into())
    }

    pub fn unload(&mut self, function: &str) -> Result<(), CliError> {
        let request = UnloadFunctionRequest { name: function.to_owned() };
        self.admin.call(async |api| api.unload_function(request).await).map(drop)
    }

    /// Milliseconds until all memory of the function is on that GPU, or on its own.
    pub fn load(&mut self, function: &str, gpu: Option<u32>) -> Result<f64, CliError> {
        load(&mut self.admin, function, gpu)
    }

    /// Two at once. A load of nothing takes `overhead_ms`.
    pub fn load_both(&mut self, first: &str, second: &str, overhead_ms: f64) -> Result<Loaded, CliError> {
        let Self { admin, other, .. } = self;
        let begin = Instant::now();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| load(other, second, None));
            load(admin, first, None)?;
            second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        Ok(Loaded { both_ms: 1e3 * begin.elapsed().as_secs_f64(), overhead_ms })
    }

    /// Device memory that the function has on GPUs now.
    pub fn resident_bytes(&mut self, function: &str) -> Result<u64, CliError> {
        let of_it = |row: &Function| row.name == function;
        Ok(self.functions()?.into_iter().find(of_it).map_or(0, |row| row.resident_bytes))
    }

    /// All that the server knows.
    pub fn functions(&mut self) -> Result<Vec<Function>, CliError> {
        Ok(self.admin.call(async |api| api.list_functions(ListFunctionsRequest {}).await)?.functions)
    }

    /// What the server knows of the paths between GPUs.
    pub fn topology(&mut self) -> Result<Topology, CliError> {
        self.admin.call(async |api| api.report_topology(ReportTopologyRequest {}).await).map(topology)
    }

    pub fn gpus(&mut self) -> Result<Vec<Gpu>, CliError> {
        Ok(self.admin.call(async |api| api.list_gpus(ListGpusRequest {}).await)?.gpus)
    }
}

fn load(admin: &mut Admin, function: &str, gpu: Option<u32>) -> Result<f64, CliError> {
    let request = LoadFunctionRequest { name: function.to_owned(), gpu };
    let begin = Instant::now();
    admin.call(async |api| api.load_function(request).await)?;
    Ok(1e3 * begin.elapsed().as_secs_f64())
}
