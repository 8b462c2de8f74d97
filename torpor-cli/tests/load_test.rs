//! `torpor load-test` against something that answers HTTP, and `torpor report` on what it wrote.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};

/// Answers each POST: functions named `fails` with 503, `late` with 504, others well.
fn serve(stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body).unwrap();
        let status = match head.split('/').nth(3) {
            Some("fails") => 503,
            Some("late") => 504,
            _ => 200,
        };
        let timing = "server-timing: queue;dur=2.5, gpu;dur=4.0;desc=1\r\nx-torpor-start: cold";
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 5\r\n{timing}\r\n\r\nhello");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn listen() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn torpor(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_torpor"));
    command.args(arguments).env_remove("TORPOR_CONFIG").stdin(std::process::Stdio::null()).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_request_has_a_record_and_failures_are_no_fast_answers() {
    let url = format!("http://{}", listen());
    let directory = tempfile::tempdir().unwrap();
    let records = directory.path().join("records.csv");
    let records = records.to_str().unwrap();
    let report = torpor(&[
        "load-test",
        "works",
        "fails",
        "late",
        "--url",
        &url,
        "--arrivals",
        "constant",
        "--rate",
        "50",
        "--duration",
        "1s",
        "--slo",
        "30s",
        "--records",
        records,
        "--json",
    ]);
    let whole = json(&report);
    let report = &whole["functions"];
    let counts = |row: &serde_json::Value| {
        ["requests", "ok", "errors", "timeouts", "unsent"].map(|key| row[key].as_u64().unwrap())
    };
    assert_eq!(counts(&report[0]), [50, 0, 50, 0, 0], "fails: {report}");
    assert_eq!(counts(&report[1]), [50, 0, 0, 50, 0], "late: {report}");
    assert_eq!(counts(&report[2]), [50, 50, 0, 0, 0], "works: {report}");
    assert_eq!(counts(&report[3]), [150, 50, 50, 50, 0], "total: {report}");
    assert!(report[0]["p50_ms"].is_null() && report[2]["p99_ms"].is_number(), "{report}");
    assert_eq!((&report[0]["attainment"], &report[2]["attainment"]), (&0.0.into(), &1.0.into()));
    assert_eq!(report[2]["cold"], 50, "as x-torpor-start says");
    let gpu = &whole["gpus"][0];
    assert_eq!((&gpu["gpu"], &gpu["requests"]), (&1.into(), &150.into()), "as server-timing says: {whole}");
    let figures = directory.path().join("figures");
    let again = ["report", records, "--slo", "30s", "--json", "--figures", figures.to_str().unwrap()];
    assert_eq!(json(&torpor(&again)), whole, "from the records alone");
    for (name, words) in [
        ("latency", &["latency, from when", "(ms, logarithmic)", "(%)", ">\nworks\n<"][..]),
        ("attainment", &["objective (%)", "works (30000 ms)", "100.0 %", "total"]),
        ("gpus", &["time (s)", "% of the time", "GPU 1 (mean"]),
    ] {
        let svg = std::fs::read_to_string(figures.join(name).with_extension("svg")).unwrap();
        for word in words {
            assert!(svg.contains(word), "{name}: {word}: {svg}");
        }
        let png = std::fs::read(figures.join(name).with_extension("png")).unwrap();
        assert!(png.starts_with(b"\x89PNG"), "{name}");
    }
    let written = std::fs::read_to_string(records).unwrap();
    assert_eq!(written.lines().count(), 151);
    assert!(written.lines().nth(1).unwrap().ends_with(",2.5,5,,4.0,1"), "queue, bytes, GPU: {written}");
    let table = torpor(&["report", records]);
    assert!(String::from_utf8(table.stdout).unwrap().contains("never"));
    // Records are a trace: the same requests again, but only to one function.
    let again = torpor(&["load-test", "works", "--trace", records, "--speed", "10", "--url", &url, "--json"]);
    assert_eq!(counts(&json(&again)["functions"][0]), [150, 150, 0, 0, 0]);
}

#[test]
fn nobody_there_and_too_many_at_once_are_counted_too() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    let load = [
        "load-test",
        "f",
        "--url",
        &url,
        "--arrivals",
        "constant",
        "--rate",
        "20",
        "--duration",
        "500ms",
        "--json",
    ];
    let nobody = &json(&torpor(&load))["functions"];
    assert_eq!((&nobody[0]["requests"], &nobody[0]["errors"]), (&10.into(), &10.into()), "{nobody}");
    let none = &json(&torpor(&[&load[..], &["--max-in-flight", "0"]].concat()))["functions"];
    assert_eq!((&none[0]["requests"], &none[0]["unsent"]), (&10.into(), &10.into()), "{none}");
    let empty = torpor(&["load-test", "f", "--duration", "0s"]);
    assert!(!empty.status.success() && String::from_utf8_lossy(&empty.stderr).contains("no request is due"));
}
