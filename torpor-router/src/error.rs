//! Why a request is not answered by its function, as the client reads it.

use crate::batch::kind::NoBatch;
use crate::loading::Loading;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use serde_json::json;
use std::time::Duration;
use torpor_gpuserver::server::size::ByteSize;

/// Why a request is refused. The answer is OpenAI's error envelope with `src`, which tells the router's errors from a function's.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// Nothing has that path.
    #[error("there is nothing at this path; a function answers at /v1/functions/NAME/invoke")]
    Path,
    /// The settings file has no such function, or one with no command, image or endpoints.
    #[error(
        "no function {0:?} is deployed; `torpor functions` lists them, and [functions.NAME] with a command, an image or endpoints deploys one"
    )]
    Unknown(String),
    /// The key is missing or wrong.
    #[error("the request needs a key: Authorization: Bearer KEY")]
    Key,
    /// The page's token is missing or wrong.
    #[error("the page wants the token that is in its address, in the router's log when it starts")]
    Token,
    /// The settings ask for no page.
    #[error("this router has no page; --page 127.0.0.1:8081, or page in [server], asks for one")]
    NoPage,
    /// A header's value says nothing.
    #[error("the header {name} wants {expected}")]
    Header {
        /// The header.
        name: &'static str,
        /// What it may say.
        expected: &'static str,
    },
    /// The body does not name a model.
    #[error("the body must be JSON of at most {limit_mib} MiB with the function's name as \"model\"")]
    Model {
        /// How long it may be.
        limit_mib: usize,
    },
    /// The body cannot be part of a batch.
    #[error("this function takes batches: the body must be JSON of at most {limit_mib} MiB")]
    BatchBody {
        /// How long it may be.
        limit_mib: usize,
    },
    /// It did not come in time.
    #[error("the body did not come before the deadline")]
    SlowBatchBody,
    /// The client hung up in the middle of it.
    #[error("the body broke off")]
    Hangup,
    /// The function took a batch and did not answer it as one.
    #[error("the function does not answer batches as it should: {0}")]
    NoBatch(NoBatch),
    /// The body that names a model does not come.
    #[error("the body did not come within 10 s")]
    SlowBody,
    /// The function has as many waiting requests as it may.
    #[error("{0} requests wait for this function already, as many as its max_queue lets")]
    QueueFull(usize),
    /// The deadline passed before a process had a place.
    #[error(
        "the deadline passed while the request waited for a process{}",
        .starting.as_ref().map(|loading| format!("; one is starting: {}", loading.text())).unwrap_or_default()
    )]
    WaitedTooLong {
        /// How far a process was that is on its way.
        starting: Option<Loading>,
    },
    /// No GPU has as much memory as it may use.
    #[error(
        "the function may use {wants} of device memory, and the largest GPU has {has} for functions: it is not started; lower its \
         memory_limit, or raise gpu_limit in [memory]"
    )]
    NeverFits {
        /// Its limit.
        wants: ByteSize,
        /// The GPU's.
        has: ByteSize,
    },
    /// The deadline passed before the function answered.
    #[error("the function did not answer before the deadline")]
    AnsweredTooLate,
    /// Its process ended before it was healthy.
    #[error("the function's process does not start: {reason}; `torpor logs` shows what it said")]
    DoesNotStart {
        /// How it ended.
        reason: String,
        /// When the next one is tried.
        retry: Duration,
    },
    /// Its process ended, or broke the connection, before it had answered.
    #[error("the function's process ended or hung up before it answered: {0}")]
    Broken(String),
    /// The function is being taken away.
    #[error("the function is being removed")]
    Removed,
    /// The settings file has an error.
    #[error("nothing changes: {0}")]
    Settings(String),
    /// The router ends.
    #[error("the router is shutting down")]
    Draining,
}

impl Refusal {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Path | Self::Unknown(_) | Self::NoPage => StatusCode::NOT_FOUND,
            Self::Key | Self::Token => StatusCode::UNAUTHORIZED,
            Self::Header { .. }
            | Self::Model { .. }
            | Self::BatchBody { .. }
            | Self::Hangup
            | Self::Settings(_) => StatusCode::BAD_REQUEST,
            Self::SlowBody | Self::SlowBatchBody => StatusCode::REQUEST_TIMEOUT,
            Self::QueueFull(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NeverFits { .. } => StatusCode::INSUFFICIENT_STORAGE,
            Self::WaitedTooLong { .. } | Self::AnsweredTooLate => StatusCode::GATEWAY_TIMEOUT,
            Self::DoesNotStart { .. } | Self::Removed | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken(_) | Self::NoBatch(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// A word for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Path | Self::Unknown(_) | Self::NoPage => "not_found",
            Self::Key | Self::Token => "invalid_api_key",
            Self::Header { .. }
            | Self::Model { .. }
            | Self::BatchBody { .. }
            | Self::Hangup
            | Self::Settings(_) => "invalid_request",
            Self::SlowBody | Self::SlowBatchBody => "request_timeout",
            Self::QueueFull(_) => "concurrency_limit",
            Self::NeverFits { .. } => "insufficient_storage",
            Self::WaitedTooLong { .. } | Self::AnsweredTooLate => "gateway_timeout",
            Self::DoesNotStart { .. } | Self::Removed | Self::Draining => "service_unavailable",
            Self::Broken(_) | Self::NoBatch(_) => "bad_gateway",
        }
    }

    /// After how long the client may try again, if that makes sense.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::QueueFull(_) | Self::Draining => Some(Duration::from_secs(1)),
            Self::DoesNotStart { retry, .. } => Some(*retry),
            _ => None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = json!({
            "src": "torpor",
            "error": {"message": self.to_string(), "type": "torpor_error", "param": null, "code": self.code()},
        });
        if let Self::WaitedTooLong { starting: Some(loading) } = &self {
            body["loading"] = json!(loading);
        }
        let mut response = Response::builder().status(self.status()).header(CONTENT_TYPE, "application/json");
        if let Some(after) = self.retry_after() {
            response = response.header(RETRY_AFTER, after.as_secs_f64().ceil().max(1.0) as u64);
        }
        response.body(Body::from(body.to_string())).unwrap_or_default()
    }
}
