//! Where spans go: a collector, by OTLP, as OpenTelemetry's environment variables or the settings file say.

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry::KeyValue;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::runtime::Handle;

/// How long the collector may take for a batch, unless `OTEL_EXPORTER_OTLP_TIMEOUT` says it to the exporter.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long what is left may take at the router's end.
const LAST_TIMEOUT: Duration = Duration::from_secs(5);
/// Where it is said, the first of them that is set.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];

/// Why no spans can be sent.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// An endpoint or another setting is none.
    #[error(
        "spans cannot be sent: {0}; otlp_endpoint in [server] and $OTEL_EXPORTER_OTLP_ENDPOINT want a URL such as \
         http://127.0.0.1:4318"
    )]
    Exporter(#[from] ExporterBuildError),
    /// The protocol is unknown.
    #[error("$OTEL_EXPORTER_OTLP_PROTOCOL is {0:?}; it may be http/protobuf or grpc")]
    Protocol(String),
    /// The system's certificates cannot be read.
    #[error("spans cannot be sent: the system's certificates cannot be read: {0}")]
    Certificates(io::Error),
}

/// Takes spans and sends them, where somebody has said where to. Environment variables win over `settings`, the settings
/// file's endpoint.
///
/// # Errors
/// [`OtlpError`].
pub fn provider(settings: Option<&str>) -> Result<Option<SdkTracerProvider>, OtlpError> {
    provider_by(|name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()), settings)
}

fn provider_by(
    variable: impl Fn(&str) -> Option<String>,
    settings: Option<&str>,
) -> Result<Option<SdkTracerProvider>, OtlpError> {
    let said = ENDPOINTS.iter().any(|name| variable(name).is_some());
    if !said && settings.is_none()
        || variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
    {
        return Ok(None);
    }
    // The exporter reads the variables itself.
    let endpoint = settings.filter(|_| !said).map(|endpoint| endpoint.trim_end_matches('/'));
    let exporter = match PROTOCOLS.iter().find_map(|name| variable(name)).as_deref() {
        None | Some("http/protobuf") => {
            let builder = SpanExporter::builder().with_http().with_http_client(InRuntime::new()?);
            match endpoint {
                Some(endpoint) => builder.with_endpoint(format!("{endpoint}/v1/traces")),
                None => builder,
            }
            .build()?
        }
        Some("grpc") => {
            let builder = SpanExporter::builder().with_tonic();
            match endpoint {
                Some(endpoint) => builder.with_endpoint(endpoint),
                None => builder,
            }
            .build()?
        }
        Some(other) => return Err(OtlpError::Protocol(other.to_owned())),
    };
    let mut resource =
        Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if variable("OTEL_SERVICE_NAME").is_none()
        && !variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|named| named.contains("service.name="))
    {
        resource = resource.with_service_name("torpor-router");
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build());
    Ok(Some(provider.build()))
}

/// Sends what is left.
pub async fn end(provider: SdkTracerProvider) {
    // It waits for a thread of its own, whose client needs this runtime.
    let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST_TIMEOUT)).await;
    if let Ok(Err(error)) = ended {
        tracing::warn!("the last spans were not sent: {error}");
    }
}

/// Sends in this runtime what a thread outside of it asks for.
#[derive(Debug)]
struct InRuntime {
    client: HyperClient<HttpsConnector<HttpConnector>>,
    runtime: Handle,
}

impl InRuntime {
    fn new() -> Result<Self, OtlpError> {
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(tokio_rustls::rustls::crypto::ring::default_provider())
            .map_err(OtlpError::Certificates)?;
        let connector = connector.https_or_http().enable_http1().build();
        Ok(Self { client: HyperClient::new(connector, TIMEOUT, None), runtime: Handle::current() })
    }
}

impl HttpClient for InRuntime {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move { client.send_bytes(request).await });
        Box::pin(async move { sent.await? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(variables: &[(&str, &str)], settings: Option<&str>) -> Result<bool, String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        provider_by(variable, settings).map(|provider| provider.is_some()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn spans_are_sent_only_where_somebody_says_where_to() {
        let here = Some("http://127.0.0.1:1");
        assert_eq!(asked(&[], None), Ok(false));
        assert_eq!(asked(&[("OTEL_SERVICE_NAME", "x")], None), Ok(false));
        assert_eq!(asked(&[], here), Ok(true));
        assert_eq!(asked(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")], None), Ok(true));
        assert_eq!(asked(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], here), Ok(true));
        assert_eq!(asked(&[("OTEL_SDK_DISABLED", "true")], here), Ok(false));
        let error = asked(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier pigeon")], here).unwrap_err();
        assert!(error.contains("carrier pigeon") && error.contains("http/protobuf or grpc"), "{error}");
        let error = asked(&[], Some("no url")).unwrap_err();
        assert!(error.contains("no url") && error.contains("otlp_endpoint"), "{error}");
    }
}
