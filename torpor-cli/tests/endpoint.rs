//! The reference endpoint, on the CPU: real payloads in, answers out, and tokens as they come.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

struct Endpoint(Child, SocketAddr);

impl Endpoint {
    fn start(model: &str) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/endpoint.py");
        let mut command = Command::new(support::torch_python());
        command.arg(script).args(["--model", model, "--device", "cpu"]);
        command.env("PORT", address.port().to_string()).env("OMP_NUM_THREADS", "1");
        let endpoint = Self(command.spawn().unwrap(), address);
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(began.elapsed() < Duration::from_secs(120), "{model} does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        endpoint
    }

    /// Posts a body, and returns status line, head and body as they come.
    fn post(&self, path: &str, kind: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.1).unwrap();
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {kind}\r\n");
        write!(stream, "{head}content-length: {length}\r\n\r\n").unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn json(&self, body: &str) -> serde_json::Value {
        let answer = self.post("/invoke", "application/json", body.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tokens_stream_and_are_those_of_the_whole_answer() {
    let endpoint = Endpoint::start("small_llm");
    let whole = endpoint.json(r#"{"prompt": "hello", "max_tokens": 4}"#);
    let text = whole["choices"][0]["text"].as_str().unwrap();
    assert_eq!(text.len(), 4);
    let body = br#"{"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, "stream": true}"#;
    let streamed = endpoint.post("/v1/chat/completions", "application/json", body);
    assert!(streamed.contains("content-type: text/event-stream"), "{streamed}");
    let events: Vec<_> = streamed.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!((events.len(), events[4]), (5, "[DONE]"));
    let token = |event: &&str| {
        let event: serde_json::Value = serde_json::from_str(event).unwrap();
        event["choices"][0]["delta"]["content"].as_str().unwrap().to_owned()
    };
    assert_eq!(events[..4].iter().map(token).collect::<String>(), text);
    for body in
        ["no JSON", "[]", r#"{"max_tokens": 0}"#, r#"{"messages": "x"}"#, r#"{"max_tokens": 9, "prompt": 3}"#]
    {
        let refused = endpoint.post("/invoke", "application/json", body.as_bytes());
        assert!(refused.starts_with("HTTP/1.1 400"), "{body}: {refused}");
    }
}

#[test]
fn pictures_get_five_classes_and_questions_a_span() {
    let classifier = Endpoint::start("small_cnn");
    let likely = classifier.json("{}")["top5"].as_array().unwrap().clone();
    let probabilities: Vec<f64> = likely.iter().map(|one| one["probability"].as_f64().unwrap()).collect();
    assert_eq!(probabilities.len(), 5);
    assert!(probabilities.is_sorted_by(|a, b| a >= b) && probabilities.iter().sum::<f64>() < 1.0);
    drop(classifier);
    let finder = Endpoint::start("small_qa");
    let tokens = [5, 6, 7, 8];
    let found = finder.json(&format!(r#"{{"tokens": {tokens:?}}}"#));
    let (begin, end) = (found["begin"].as_u64().unwrap() as usize, found["end"].as_u64().unwrap() as usize);
    assert_eq!(found["tokens"], serde_json::json!(tokens[begin..=end]));
    let refused = finder.post("/invoke", "application/json", br#"{"tokens": [99999]}"#);
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
}
