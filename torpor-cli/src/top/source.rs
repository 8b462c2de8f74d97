//! Where a look comes from: a router, which knows everything, or the node server alone.

use crate::admin::Admin;
use crate::error::CliError;
use crate::router::RouterFlag;
use http_body_util::BodyExt;
use hyper::Method;
use std::io;
use std::path::PathBuf;
use tokio::runtime::{Builder, Runtime};
use torpor_proto::control::admin::{ListClientsRequest, ListFunctionsRequest, ListGpusRequest};
use torpor_router::client::{ClientError, ask_admin};
use torpor_router::overview::{NodeReport, Overview};

/// Who is asked.
#[derive(Debug)]
pub(super) enum Source {
    /// A router, at its admin socket.
    Router(PathBuf, Runtime),
    /// The node server.
    Node(Box<Admin>),
}

impl Source {
    /// Finds a router, or else the node server.
    pub(super) fn open(flag: &RouterFlag) -> Result<Self, CliError> {
        let socket = flag.socket();
        if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            return Ok(Self::Router(socket, Builder::new_current_thread().enable_all().build()?));
        }
        Ok(Self::Node(Box::new(Admin::connect(&flag.directory.server())?)))
    }

    pub(super) fn look(&mut self) -> Result<Overview, CliError> {
        match self {
            Self::Router(socket, runtime) => runtime.block_on(async {
                let answer = ask_admin(socket, Method::GET, "/api/v1/overview", None).await?;
                let body = answer.into_body().collect().await.map_err(ClientError::Broken)?.to_bytes();
                Ok(serde_json::from_slice(&body).map_err(io::Error::from)?)
            }),
            Self::Node(admin) => {
                let report = NodeReport {
                    gpus: admin.ask(async |api| api.list_gpus(ListGpusRequest {}).await)?.gpus,
                    clients: admin.ask(async |api| api.list_clients(ListClientsRequest {}).await)?.clients,
                    functions: admin
                        .ask(async |api| api.list_functions(ListFunctionsRequest {}).await)?
                        .functions,
                };
                let trouble = "no router runs: there are no queues, rates and latencies to show";
                Ok(Overview::of(&report, Vec::new(), trouble.to_owned()))
            }
        }
    }
}
