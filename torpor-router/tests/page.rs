//! The page and the overview behind it.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use support::{Answer, Router};

const SETTINGS: &str =
    "[server]\npage = \"127.0.0.1:0\"\n[functions.echo]\ncommand = ENDPOINT\nslo_ms = 60000\n";

/// Where the page is, and its token.
fn page(router: &Router) -> (SocketAddr, String) {
    let url = router.admin("GET", "/api/v1/page", "").body;
    let (address, token) = url.strip_prefix("http://").and_then(|rest| rest.split_once("/?token=")).unwrap();
    (address.parse().unwrap(), token.to_owned())
}

fn get(address: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    Router::raw_at(address, request.as_bytes())
}

#[test]
fn the_page_shows_the_functions_to_whoever_has_the_token() {
    let router = Router::start(SETTINGS);
    assert_eq!(router.post("/v1/functions/echo/invoke", &[], "").status, 200);
    let (address, token) = page(&router);
    let html = get(address, &format!("/?token={token}"));
    assert_eq!(html.status, 200, "{html:?}");
    assert!(html.head.contains("default-src 'none'") && html.body.contains("EventSource"), "{html:?}");
    assert!(!html.body.contains("://"), "it needs nothing from elsewhere");
    let overview = get(address, &format!("/overview?token={token}")).json();
    let echo = &overview["functions"][0];
    assert_eq!((&echo["name"], &echo["served"]["slo_ms"]), (&"echo".into(), &60000.into()), "{overview}");
    assert_eq!(echo["served"]["fared"]["attainment"], 1.0);
    assert!(echo["served"]["fared"]["p99_ms"].is_number());
    assert!(overview["trouble"].as_str().unwrap().contains("node server"), "none runs: {overview}");
    assert_eq!(router.admin("GET", "/api/v1/overview", "").json()["functions"][0]["name"], "echo");
    for path in ["/", "/?token=", "/?token=00", "/overview", "/events", "/elsewhere"] {
        let refused = get(address, path);
        assert_eq!(refused.status, 401, "{path}: {refused:?}");
        assert!(!refused.body.contains("echo"));
    }
    assert_eq!(get(address, &format!("/elsewhere?token={token}")).status, 404);
}

#[test]
fn the_page_is_told_again_and_again() {
    let router = Router::start(SETTINGS);
    let (address, token) = page(&router);
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /events?token={token} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let told: Vec<_> = lines.filter(|line| line.starts_with("data: ")).take(2).collect();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|told| told.contains("\"name\":\"echo\"")), "{told:?}");
    assert!(router.end().success(), "who looks does not keep it from ending");
}

#[test]
fn without_being_asked_for_there_is_no_page() {
    let router = Router::start("[functions.echo]\ncommand = ENDPOINT\n");
    let none = router.admin("GET", "/api/v1/page", "");
    assert!(none.status == 404 && none.body.contains("--page"), "{none:?}");
    assert_eq!(router.raw(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").status, 404);
}
