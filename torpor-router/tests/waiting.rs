//! Requests that wait for a process: how much memory they take.

mod support;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Write;
use std::net::TcpStream;
use support::Router;

#[test]
fn ten_thousand_requests_wait_in_little_memory() {
    const REQUESTS: usize = 9_900;
    let most = getrlimit(Resource::Nofile).maximum;
    assert!(
        most.is_none_or(|most| most >= 11_000),
        "this test holds {REQUESTS} connections: see `ulimit -Hn`"
    );
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
    // Nothing listens there.
    let router = Router::start("[functions.never]\nendpoints = [\"127.0.0.1:9\"]\nmax_queue = 10000\n");
    let before = router.resident_kib();
    let request = b"POST /v1/functions/never/invoke HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello";
    let send = |_| {
        let mut stream = TcpStream::connect(router.address).unwrap();
        stream.write_all(request).unwrap();
        stream
    };
    let waiting: Vec<_> = (0..REQUESTS).map(send).collect();
    router.eventually("all of them wait", || {
        router.metric("torpor_requests_waiting{function=\"never\"}") == REQUESTS as f64
    });
    let grown = router.resident_kib().saturating_sub(before);
    // 16 KiB each, of which hyper has 8 in buffers.
    assert!(grown < 160 << 10, "{grown} KiB more");
    drop(waiting);
    router.eventually("none waits", || router.metric("torpor_requests_waiting{function=\"never\"}") == 0.0);
}
