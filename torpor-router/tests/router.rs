//! Requests through a router to functions that answer, wait, die, or are not there.

mod support;

use std::time::Duration;
use support::Router;

const ONE: &str = "[functions.echo]\ncommand = ENDPOINT\n";

#[test]
fn a_request_goes_to_its_function_and_its_answer_comes_back() {
    let router = Router::start(ONE);
    let headers = [("x-mine", "1"), ("x-request-id", "abc"), ("connection", "x-hop"), ("x-hop", "1")];
    let answer = router.post("/v1/functions/echo/invoke/deep/er?a=%2F&b", &headers, "hello");
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = answer.json();
    assert_eq!((&told["path"], &told["body"]), (&"/invoke/deep/er?a=%2F&b".into(), &"hello".into()));
    assert_eq!((&told["headers"]["x-mine"], &told["headers"]["x-request-id"]), (&"1".into(), &"abc".into()));
    assert!(told["headers"].get("x-hop").is_none(), "what is between neighbours is not passed on: {told}");
    for header in
        ["x-from: function", "x-request-id: abc", "x-torpor-start: cold", "server-timing: queue;dur="]
    {
        assert!(answer.head.contains(header), "{header}: {}", answer.head);
    }
    let again = router.post("/v1/functions/echo/invoke", &[], "");
    assert!(!again.head.contains("x-torpor-start"), "the process is there already: {}", again.head);
    assert_eq!(router.post("/v1/functions/echo/invoke/stream", &[], "").body, "onetwothree");
    let chat = router.post("/v1/chat/completions", &[], r#"{"model": "echo", "messages": []}"#);
    assert_eq!(chat.json()["path"], "/v1/chat/completions");
    let infer = router.post("/v2/models/echo/infer", &[], "{}");
    assert_eq!(infer.json()["path"], "/v2/models/echo/infer");
    assert_eq!(router.metric("torpor_requests_total{function=\"echo\",code=\"200\"}"), 5.0);
    assert!(router.admin("GET", "/logs/echo", "").body.contains("[1] serving"));
    assert!(router.end().success());
}

#[test]
fn refusals_say_what_to_do() {
    let router = Router::start("[functions.broken]\ncommand = [\"sh\", \"-c\", \"echo why; exit 7\"]\n");
    for (path, headers, body, status, words) in [
        ("/v1/functions/none/invoke", &[][..], "", 404, "torpor functions"),
        ("/nothing", &[], "", 404, "/v1/functions/NAME/invoke"),
        ("/v1/chat/completions", &[], "no JSON", 400, "\\\"model\\\""),
        ("/v1/functions/broken/invoke", &[("x-torpor-deadline", "soon")], "", 400, "250ms"),
        ("/v1/functions/broken/invoke", &[], "", 503, "exit status: 7"),
    ] {
        let answer = router.post(path, headers, body);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.body.contains(words), "{path}: {answer:?}");
        assert_eq!(answer.json()["src"], "torpor");
    }
    let again = router.post("/v1/functions/broken/invoke", &[], "");
    assert!(again.status == 503 && again.head.contains("retry-after: 1"), "{again:?}");
    assert!(router.admin("GET", "/logs/broken", "").body.contains("why"));
    assert_eq!(
        router.raw(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").status,
        503,
        "no node serves"
    );
}

#[test]
fn requests_wait_in_order_and_no_longer_than_they_say() {
    let router = Router::start("[functions.echo]\ncommand = ENDPOINT\nmax_queue = 2\n");
    assert_eq!(router.post("/v1/functions/echo/invoke", &[], "").status, 200);
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| router.post("/v1/functions/echo/invoke/sleep?ms=3000", &[], ""));
        router.eventually("the process is busy", || {
            router.metric("torpor_requests_running{function=\"echo\"}") == 1.0
        });
        let late = router.post("/v1/functions/echo/invoke", &[("x-torpor-deadline", "50ms")], "");
        assert_eq!(late.status, 504, "{late:?}");
        let waiting: Vec<_> =
            (0..2).map(|_| scope.spawn(|| router.post("/v1/functions/echo/invoke", &[], ""))).collect();
        router.eventually("two wait", || router.metric("torpor_requests_waiting{function=\"echo\"}") == 2.0);
        let full = router.post("/v1/functions/echo/invoke", &[], "");
        assert!(full.status == 429 && full.head.contains("retry-after"), "{full:?}");
        assert_eq!(busy.join().unwrap().status, 200);
        assert!(waiting.into_iter().all(|waiting| waiting.join().unwrap().status == 200));
    });
}

#[test]
fn only_as_many_requests_as_may_are_on_the_gpus_at_once() {
    let functions = "[functions.a]\ncommand = ENDPOINT\n[functions.b]\ncommand = ENDPOINT\n";
    let one = format!("[scheduler]\nmax_running = 1\npolicy = \"slo-aware\"\n{functions}");
    let router = Router::start(&one);
    for name in ["a", "b"] {
        assert_eq!(router.post(&format!("/v1/functions/{name}/invoke"), &[], "").status, 200);
    }
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| router.post("/v1/functions/a/invoke/sleep?ms=4000", &[], ""));
        router.eventually("a is busy", || router.metric("torpor_requests_running{function=\"a\"}") == 1.0);
        let late = router.post("/v1/functions/b/invoke", &[("x-torpor-deadline", "50ms")], "");
        assert_eq!(late.status, 504, "b has a process, but not the GPUs: {late:?}");
        router.settings(functions);
        router.eventually("all may now", || {
            router.post("/v1/functions/b/invoke", &[("x-torpor-deadline", "500ms")], "").status == 200
        });
        assert_eq!(busy.join().unwrap().status, 200);
    });
}

#[test]
fn a_process_that_dies_is_replaced() {
    let router = Router::start(ONE);
    let before = router.post("/v1/functions/echo/invoke", &[], "").json()["pid"].clone();
    let died = router.post("/v1/functions/echo/invoke/die", &[], "");
    assert_eq!((died.status, &died.json()["error"]["code"]), (502, &"bad_gateway".into()), "{died:?}");
    router.eventually("it answers again", || router.post("/v1/functions/echo/invoke", &[], "").status == 200);
    assert_ne!(router.post("/v1/functions/echo/invoke", &[], "").json()["pid"], before);
}

#[test]
fn functions_follow_the_settings_file_and_the_operator() {
    let router = Router::start("[defaults]\nkeep_alive = \"100ms\"\n[functions.echo]\ncommand = ENDPOINT\n");
    let instances =
        || router.admin("GET", "/api/v1/functions", "").json()[0]["instances"].as_array().map_or(0, Vec::len);
    assert_eq!(instances(), 0, "no process without a request");
    assert_eq!(router.post("/v1/functions/echo/invoke", &[], "").status, 200);
    router.eventually("it is stopped after keep_alive", || instances() == 0);
    router.admin("PUT", "/api/v1/functions/echo/scale", r#"{"min_instances": 2}"#);
    router.eventually("two run", || instances() == 2);
    router.settings("[functions.other]\ncommand = ENDPOINT\n");
    router
        .eventually("the other answers", || router.post("/v1/functions/other/invoke", &[], "").status == 200);
    assert_eq!(router.post("/v1/functions/echo/invoke", &[], "").status, 404);
    router.settings("[functions.other]\ncommand = 3\n");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(
        router.post("/v1/functions/other/invoke", &[], "").status,
        200,
        "a wrong file changes nothing"
    );
    assert_eq!(router.admin("DELETE", "/api/v1/functions/other", "").status, 200);
    assert_eq!(router.post("/v1/functions/other/invoke", &[], "").status, 404);
}

#[test]
fn hostile_requests_get_clean_errors_and_others_are_served() {
    let router = Router::start(ONE);
    assert_eq!(router.post("/v1/functions/echo/invoke", &[], "").status, 200);
    let path = "POST /v1/functions/echo/invoke HTTP/1.1\r\nhost: x\r\n";
    let hostile: Vec<Vec<u8>> = vec![
        format!("{path}content-length: 5\r\ncontent-length: 6\r\n\r\nhello").into_bytes(),
        format!("{path}transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n").into_bytes(),
        format!("{path}content-length: -1\r\n\r\n").into_bytes(),
        format!("{path}{}\r\n", "x-many: 1\r\n".repeat(10_000)).into_bytes(),
        [path.as_bytes(), b"x: ", &vec![b'a'; 200 << 10], b"\r\n\r\n"].concat(),
        b"GET /v1/functions/../../etc/passwd HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec(),
        b"GET /v1/functions/%2e%2e/invoke HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"\0\0\0\0\r\n\r\n".to_vec(),
    ];
    for request in hostile {
        let start = String::from_utf8_lossy(&request[..request.len().min(90)]).into_owned();
        let mut answer = router.raw(&request);
        if answer.status == 0 {
            answer.status = 400; // closed without a word, which is as good
        }
        assert!((400..=502).contains(&answer.status), "{start:?}: {answer:?}");
    }
    // A thousand that say nothing.
    let idle: Vec<_> = (0..1000).map(|_| std::net::TcpStream::connect(router.address).unwrap()).collect();
    assert_eq!(router.post("/v1/functions/echo/invoke", &[], "still here").json()["body"], "still here");
    drop(idle);
}

#[test]
fn keys_are_asked_for_where_there_are_any() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "secret\n").unwrap();
    let router = Router::start(&format!("[server]\napi_keys_file = {:?}\n{ONE}", keys.path()));
    let refused = router.post("/v1/functions/echo/invoke", &[], "");
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (401, &"invalid_api_key".into()));
    let admitted = router.post("/v1/functions/echo/invoke", &[("authorization", "Bearer secret")], "");
    assert_eq!(admitted.status, 200, "{admitted:?}");
}

#[test]
fn endpoints_of_others_are_used_while_they_are_healthy() {
    let elsewhere = Router::start("[functions.echo]\ncommand = ENDPOINT\nmin_instances = 1\n");
    let address = || {
        let row = &elsewhere.admin("GET", "/api/v1/functions", "").json()[0]["instances"][0]["address"];
        row.as_str().map(str::to_owned)
    };
    elsewhere.eventually("it is healthy", || address().is_some());
    let router = Router::start(&format!("[functions.far]\nendpoints = [{:?}]\n", address().unwrap()));
    let answer = router.post("/v1/functions/far/invoke", &[], "hello");
    assert_eq!(answer.json()["body"], "hello");
    elsewhere.end();
    router.eventually("it is not asked any more", || {
        router.post("/v1/functions/far/invoke", &[("x-torpor-deadline", "100ms")], "").status == 504
    });
}
