//! Spans of requests, as a collector receives them.

mod support;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use support::Router;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// A collector that speaks OTLP over HTTP: every span comes out of the channel, with the name of its service.
fn collect() -> (SocketAddr, Receiver<(String, Span)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, (spans, collected)) = (listener.local_addr().unwrap(), channel());
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| receive(stream, &spans)));
    (address, collected)
}

fn receive(stream: TcpStream, spans: &Sender<(String, Span)>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
    }
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    pass_on(ExportTraceServiceRequest::decode(&body[..]).unwrap(), spans);
    let mut stream = stream;
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .unwrap();
}

fn pass_on(request: ExportTraceServiceRequest, spans: &Sender<(String, Span)>) {
    for resource in request.resource_spans {
        let attributes = resource.resource.unwrap().attributes;
        let service = attributes.iter().find(|one| one.key == "service.name").unwrap().value.clone();
        let service = format!("{:?}", service.unwrap());
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.send((service.clone(), span)).unwrap();
        }
    }
}

/// The same of a collector that speaks OTLP over gRPC, and wants a key.
struct Collector(Sender<(String, Span)>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if request.metadata().get("x-key").is_none_or(|key| key != "secret") {
            return Err(Status::unauthenticated("no key"));
        }
        pass_on(request.into_inner(), &self.0);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn collect_by_grpc() -> (SocketAddr, Receiver<(String, Span)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (address, (spans, collected)) = (listener.local_addr().unwrap(), channel());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let service = TraceServiceServer::new(Collector(spans));
            let connections = tokio_stream::wrappers::TcpListenerStream::new(listener);
            Server::builder().add_service(service).serve_with_incoming(connections).await.unwrap();
        });
    });
    (address, collected)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(span: &Span, key: &str) -> String {
    span.attributes
        .iter()
        .find(|one| one.key == key)
        .map(|one| format!("{:?}", one.value))
        .unwrap_or_default()
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";

#[test]
fn a_request_is_a_part_of_its_client_s_trace_and_its_function_of_its_own() {
    let (collector, collected) = collect();
    let router = Router::start(&format!(
        "[server]\notlp_endpoint = \"http://{collector}/\"\n[functions.echo]\ncommand = ENDPOINT\n"
    ));
    let trace = format!("00-{TRACE}-{CLIENT}-01");
    let headers = [("traceparent", trace.as_str()), ("x-request-id", "mine")];
    let told = router.post("/v1/functions/echo/invoke?a=b", &headers, "hello").json();
    let given = told["headers"]["traceparent"].as_str().unwrap().to_owned();
    let late = [("x-torpor-deadline", "300ms")];
    assert_eq!(router.post("/v1/functions/echo/invoke/sleep?ms=2000", &late, "").status, 504);
    let unsampled = format!("00-{}-{CLIENT}-00", TRACE.replace('4', "5"));
    let told = router.post("/v1/functions/echo/invoke", &[("traceparent", &unsampled)], "").json();
    assert!(told["headers"]["traceparent"].as_str().unwrap().ends_with("-00"), "{told}");
    assert!(router.end().success());
    let spans: Vec<_> = collected.try_iter().collect();
    assert!(spans.iter().all(|(service, _)| service.contains("torpor-router")), "{spans:?}");
    let of_trace = |trace: &str| -> Vec<Span> {
        spans.iter().map(|(_, span)| span).filter(|span| hex(&span.trace_id) == trace).cloned().collect()
    };
    let mine = of_trace(TRACE);
    let request = mine.iter().find(|span| span.name == "POST echo").unwrap();
    assert_eq!(hex(&request.parent_span_id), CLIENT);
    assert_eq!(given, format!("00-{TRACE}-{}-01", hex(&request.span_id)), "the function goes on from it");
    for (key, words) in [
        ("torpor.function", "echo"),
        ("torpor.request_id", "mine"),
        ("http.response.status_code", "200"),
        ("torpor.start", "cold"),
        ("url.path", "\"/invoke\""),
    ] {
        assert!(attribute(request, key).contains(words), "{key}: {request:?}");
    }
    let mut phases: Vec<_> = mine.iter().filter(|span| span.parent_span_id == request.span_id).collect();
    phases.sort_by_key(|span| span.start_time_unix_nano);
    let names: Vec<_> = phases.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["queue", "execute", "answer"], "no node server says more");
    let mut at = request.start_time_unix_nano;
    for phase in phases {
        assert_eq!(phase.start_time_unix_nano, at, "{phase:?}");
        at = phase.end_time_unix_nano;
    }
    assert!(at <= request.end_time_unix_nano);
    let others = spans.iter().filter(|(_, span)| hex(&span.trace_id) != TRACE && span.name == "POST echo");
    let [(_, late)] = &others.collect::<Vec<_>>()[..] else {
        panic!("unsampled ones are not sent: {spans:?}")
    };
    assert!(late.parent_span_id.is_empty() && attribute(late, "error.type").contains("504"), "{late:?}");
    assert_eq!(late.status.as_ref().unwrap().code, 2, "an error: {late:?}");
}

#[test]
fn spans_go_by_grpc_where_opentelemetry_s_variables_say_so() {
    let (collector, collected) = collect_by_grpc();
    let settings =
        format!("[server]\notlp_endpoint = \"http://{collector}\"\n[functions.echo]\ncommand = ENDPOINT\n");
    let variables = [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret")];
    let router = Router::start_with(&settings, &variables);
    let trace = format!("00-{TRACE}-{CLIENT}-01");
    router.post("/v1/functions/echo/invoke", &[("traceparent", &trace)], "hello").json();
    assert!(router.end().success());
    let spans: Vec<_> = collected.try_iter().collect();
    assert!(spans.iter().all(|(service, _)| service.contains("torpor-router")), "{spans:?}");
    let request = spans.iter().find(|(_, span)| span.name == "POST echo").map(|(_, span)| span);
    let request = request.unwrap_or_else(|| panic!("{spans:?}"));
    assert_eq!((hex(&request.trace_id), hex(&request.parent_span_id)), (TRACE.to_owned(), CLIENT.to_owned()));
    assert!(spans.iter().any(|(_, span)| span.parent_span_id == request.span_id && span.name == "execute"));
}

#[test]
fn without_a_collector_the_trace_goes_to_the_function_as_it_came() {
    let router = Router::start("[functions.echo]\ncommand = ENDPOINT\n");
    let trace = format!("00-{TRACE}-{CLIENT}-01");
    let told = router.post("/v1/functions/echo/invoke", &[("traceparent", &trace)], "").json();
    assert_eq!(told["headers"]["traceparent"], trace);
}
