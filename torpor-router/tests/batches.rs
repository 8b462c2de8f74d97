//! Batches: adjacent requests become one for a program that declares it, and each client gets its own answer.

mod support;

use std::thread;
use support::{Answer, Router};

/// A batch waits for its last request, however slow the machine.
const PATIENT: &str =
    "[functions.f]\ncommand = ENDPOINT\nmin_instances = 1\nbatch_size = 3\nbatch_window = \"1h\"\n";

/// Posts bodies at once.
fn post_all(router: &Router, path: &str, bodies: &[&str]) -> Vec<Answer> {
    thread::scope(|scope| {
        let post = |body| scope.spawn(move || router.post(path, &[], body));
        let asked: Vec<_> = bodies.iter().map(|&body| post(body)).collect();
        asked.into_iter().map(|answer| answer.join().unwrap()).collect()
    })
}

#[test]
fn a_full_batch_is_one_request_and_each_client_gets_its_own_answer() {
    let router = Router::start(PATIENT);
    let bodies = ["1", "\"two\"", "[3]"];
    let answers = post_all(&router, "/v1/functions/f/invoke", &bodies);
    for (answer, body) in answers.iter().zip(bodies) {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!((&answer.json()["of"], answer.json()["you"].to_string().as_str()), (&3.into(), body));
        assert!(answer.head.contains("x-torpor-batch: 3"), "{answer:?}");
    }
    assert_eq!(router.metric("torpor_requests_total{function=\"f\",code=\"200\"}"), 3.0);
}

#[test]
fn tensors_are_batched_by_their_rows() {
    let router = Router::start(PATIENT);
    let infer = |id: &str, data: &str, rows: usize| {
        format!(
            r#"{{"id":"{id}","inputs":[{{"name":"x","shape":[{rows}],"datatype":"FP32","data":{data}}}]}}"#
        )
    };
    let (one, two) = (infer("a", "[1]", 1), infer("b", "[2,3]", 2));
    let answers = post_all(&router, "/v2/models/f/infer", &[&one, &two]);
    let told: Vec<_> = answers
        .iter()
        .map(|answer| (answer.json()["id"].clone(), answer.json()["outputs"][0]["data"].to_string()))
        .collect();
    assert_eq!(told, [("a".into(), "[2]".to_owned()), ("b".into(), "[4,6]".to_owned())]);
}

#[test]
fn a_batch_that_does_not_fill_goes_when_its_window_is_over() {
    let router =
        Router::start("[functions.f]\ncommand = ENDPOINT\nbatch_size = 1000\nbatch_window = \"20ms\"\n");
    let answer = router.post("/v1/functions/f/invoke", &[], "7");
    assert_eq!(
        (answer.status, &answer.json()["of"], &answer.json()["you"]),
        (200, &1.into(), &7.into()),
        "{answer:?}"
    );
    let other = router.post("/v1/functions/f/invoke", &[("content-type", "text/plain")], "no JSON");
    assert_eq!(other.json()["body"], "no JSON", "it goes alone");
    let refused = router.post("/v1/functions/f/invoke", &[], "no JSON");
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (400, Some("invalid_request")));
    let wrong = router.post("/v1/functions/f/invoke?wrong", &[], "7");
    assert_eq!(wrong.status, 502, "{wrong:?}");
    assert!(wrong.body.contains("a batch of 1 must be answered with a JSON list"), "{wrong:?}");
}

#[test]
fn who_waits_no_longer_takes_nobody_along() {
    let router = Router::start(PATIENT);
    let hasty = router.post("/v1/functions/f/invoke", &[("x-torpor-deadline", "100ms")], "1");
    assert_eq!(hasty.status, 504, "{hasty:?}");
    let answers = post_all(&router, "/v1/functions/f/invoke", &["2", "3"]);
    let sizes: Vec<_> = answers.iter().map(|answer| answer.json()["of"].clone()).collect();
    assert_eq!(sizes, [2, 2], "the one that opened the batch is not in it");
}
