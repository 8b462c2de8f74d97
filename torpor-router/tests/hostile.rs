//! Clients that mean no good, or that are broken: clean errors, bounded memory, and others are served.

mod support;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use support::Router;

const SETTINGS: &str = "[functions.echo]\ncommand = ENDPOINT\ntimeout = \"2s\"\n";
const INVOKE: &str = "POST /v1/functions/echo/invoke HTTP/1.1\r\nhost: x\r\n";

fn start() -> Router {
    let router = Router::start(SETTINGS);
    router.eventually("the function answers", || echo(&router));
    router
}

fn echo(router: &Router) -> bool {
    router.post("/v1/functions/echo/invoke", &[], "still here").status == 200
}

fn connect(router: &Router, begin: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(router.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(begin).unwrap();
    stream
}

#[test]
fn a_body_without_end_takes_no_memory_and_ends_with_the_time_out() {
    let router = start();
    let before = router.resident_kib();
    let mut stream = connect(&router, format!("{INVOKE}transfer-encoding: chunked\r\n\r\n").as_bytes());
    stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[b'a'; 1 << 16], b"\r\n"].concat();
    let (began, mut sent) = (Instant::now(), 0_u64);
    // The router, or the process behind it, takes no more at some time, and then hangs up.
    while sent < 1 << 30 && began.elapsed() < Duration::from_secs(30) && stream.write_all(&chunk).is_ok() {
        sent += 1 << 16;
    }
    let grown = router.resident_kib().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more for a body of {} MiB", sent >> 20);
    drop(stream);
    router.eventually("its place is free", || echo(&router));
}

#[test]
fn a_client_that_stops_in_the_middle_does_not_keep_its_place() {
    let router = start();
    let mut half = connect(&router, format!("{INVOKE}content-length: 100\r\n\r\nhalf").as_bytes());
    let mut answer = String::new();
    // Its process waits for the rest of the body, until the function's time-out.
    let _ = half.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    router.eventually("its place is free", || echo(&router));
    // Others that stop in the head, or say nothing, are nobody's burden.
    let idle: Vec<_> = (0..500).map(|_| connect(&router, b"POST /v1/func")).collect();
    assert!(echo(&router));
    drop(idle);
}

#[test]
fn ten_thousand_connections_take_little_memory_and_others_are_served() {
    const CONNECTIONS: usize = 9_900;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let most = limit.maximum.unwrap_or(u64::MAX);
    assert!(most >= 11_000, "this test holds {CONNECTIONS} connections: `ulimit -Hn` of {most} is too low");
    // Its limit is what a shell gives.
    setrlimit(Resource::Nofile, Rlimit { current: Some(1024), maximum: limit.maximum }).unwrap();
    let router = start();
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let before = router.resident_kib();
    // Of three one says nothing, one stops in the head, one in the body.
    let says = [String::new(), "POST /v1/func".to_owned(), format!("{INVOKE}content-length: 9\r\n\r\nhalf")];
    let held: Vec<_> = (0..CONNECTIONS).map(|place| connect(&router, says[place % 3].as_bytes())).collect();
    let grown = router.resident_kib().saturating_sub(before);
    assert!(grown < 200 << 10, "{grown} KiB more");
    drop(held);
    router.eventually("others are served", || echo(&router));
}

#[test]
fn what_could_be_two_requests_is_one_or_none() {
    let router = start();
    let second = "POST /v1/functions/echo/invoke/smuggled HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    let length = second.len() + 5;
    for request in [
        format!("{INVOKE}content-length: 5\r\ncontent-length: {length}\r\n\r\nhello{second}"),
        format!("{INVOKE}content-length: {length}\r\ntransfer-encoding: identity\r\n\r\nhello{second}"),
        format!("{INVOKE}content-length: +5\r\n\r\nhello{second}"),
        format!("{INVOKE}content-length: 5,5\r\n\r\nhello{second}"),
        format!("{INVOKE}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{second}"),
        format!("{INVOKE}transfer-encoding: xchunked\r\ncontent-length: 5\r\n\r\nhello{second}"),
        format!("{INVOKE}transfer-encoding: chunked\r\n\r\n-1\r\n\r\n{second}"),
        format!("{INVOKE}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n{second}"),
        format!("{INVOKE}transfer-encoding : chunked\r\n\r\n0\r\n\r\n{second}"),
    ] {
        let answer = router.raw(request.as_bytes());
        assert!(!answer.body.contains("/invoke/smuggled"), "{request}: {answer:?}");
    }
    let log = router.admin("GET", "/logs/echo", "").body;
    assert!(!log.contains("smuggled"), "the function saw none of them: {log}");
    assert!(echo(&router));
}

#[test]
fn paths_lead_to_functions_by_their_names_alone() {
    let router = start();
    for path in [
        "/v1/functions/../functions/echo/invoke",
        "/v1/functions/echo%2finvoke",
        "/v1/functions/echo%00/invoke",
        "/v1/functions//invoke",
        "//v1/functions/echo/invoke",
        "/v1/functions/%ff/invoke",
        "/V1/functions/echo/invoke",
        "/v1/functions/echo/scale",
        "/api/v1/functions/echo/scale",
        "/metrics",
        "/logs/echo",
        &format!("/v1/functions/{}/invoke", "e".repeat(60_000)),
    ] {
        let answer = router.post(path, &[], "");
        assert!((400..=431).contains(&answer.status), "{path}: {answer:?}");
    }
    let proxied =
        router.raw(b"GET http://127.0.0.1:1/v1/nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert_eq!(proxied.status, 404, "it is no open proxy: {proxied:?}");
    let tunnel = router.raw(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!((400..=405).contains(&tunnel.status), "{tunnel:?}");
}

#[test]
fn json_that_is_none_is_refused_and_a_slow_one_not_waited_for_long() {
    let router = start();
    let nested = "[".repeat(1 << 20);
    for body in ["", "{", "null", "[]", r#"{"model": 7}"#, r#"{"model": "../echo"}"#, &nested] {
        let answer = router.post("/v1/chat/completions", &[], body);
        assert!([400, 404].contains(&answer.status), "{}: {answer:?}", &body[..body.len().min(30)]);
        assert_eq!(answer.json()["src"], "torpor");
    }
    let huge = format!(r#"{{"model": "echo", "x": "{}"}}"#, "x".repeat(17 << 20));
    let refused = router.post("/v1/chat/completions", &[], &huge);
    // It may hang up before all of it was sent.
    assert!([0, 400].contains(&refused.status), "{}", refused.status);
    let mut slow =
        connect(&router, b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{");
    let mut answer = String::new();
    let _ = slow.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(echo(&router));
}

#[test]
fn an_answer_that_nobody_reads_does_not_keep_its_place() {
    let router = start();
    let deaf = connect(
        &router,
        b"POST /v1/functions/echo/invoke/big?mib=64 HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    );
    router
        .eventually("it has a place", || router.metric("torpor_requests_running{function=\"echo\"}") == 1.0);
    router.eventually("its place is free", || echo(&router));
    drop(deaf);
}
