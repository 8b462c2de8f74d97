//! Functions whose instances are containers, of an engine that is stood in for.

mod support;

use serde_json::json;
use std::fs;
use support::engine::{FakeEngine, free_port};
use support::{ENDPOINT, Router};

const ONE: &str = "[functions.echo]\nimage = \"ours/echo\"\nkeep_alive = \"100ms\"\n";

/// A router that asks an engine, on a node that has the functions' directories.
fn router(engine: &FakeEngine, functions: &str) -> Router {
    let variables = engine.variables();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("functions/echo")).unwrap();
    Router::start_in(directory.into(), functions, &variables)
}

fn ask(router: &Router) -> u16 {
    router.post("/v1/functions/echo/invoke", &[], "hello").status
}

#[test]
fn a_container_answers_for_its_function_and_is_removed_when_it_is_idle() {
    let engine = FakeEngine::start("ours/echo", ENDPOINT);
    let router = router(&engine, ONE);
    assert!(engine.containers().is_empty(), "no container without a request");
    let answer = router.post("/v1/functions/echo/invoke", &[], "hello");
    assert_eq!((answer.status, &answer.json()["body"]), (200, &"hello".into()), "{answer:?}");
    router.eventually("it is removed", || engine.containers().is_empty());
    assert_eq!(engine.known().done, ["make", "start", "stop", "remove"]);
    let logs = || router.admin("GET", "/logs/echo", "").body;
    // The engine has removed it before the router hears of that.
    router.eventually("the log ends", || logs().contains("[1] torpor: stopped"));
    assert!(logs().contains("[1] serving"), "{}", logs());
    assert_eq!(ask(&router), 200, "and another one comes");
    assert!(router.end().success());
    assert!(engine.containers().is_empty(), "none is left when the router ends");
}

#[test]
fn a_container_has_its_own_function_alone_and_no_rights() {
    let engine = FakeEngine::start("ours/echo", ENDPOINT);
    let router = router(&engine, "[functions.echo]\nimage = \"ours/echo\"\nmin_instances = 1\n");
    router.eventually("it is there", || engine.containers().len() == 1);
    let body = engine.containers()[0].1.clone();
    let directory = router.directory.path();
    let mounts = body["HostConfig"]["Mounts"].as_array().unwrap();
    let of_node: Vec<_> = mounts.iter().filter(|mount| mount["Target"] == "/run/torpor").collect();
    assert_eq!(of_node.len(), 1);
    assert_eq!(of_node[0]["Source"], directory.join("functions/echo").to_str().unwrap());
    assert!(mounts.iter().all(|mount| mount["ReadOnly"] == true && mount["Type"] == "bind"), "{mounts:?}");
    let preload = mounts.iter().find(|mount| mount["Target"] == "/etc/ld.so.preload").unwrap();
    let preload = fs::read_to_string(preload["Source"].as_str().unwrap()).unwrap();
    assert!(mounts.iter().any(|mount| mount["Target"] == preload.trim_end()));
    assert_eq!(body["HostConfig"]["CapDrop"], json!(["ALL"]));
    assert_eq!(body["Labels"]["dev.torpor.router"], directory.join("router.sock").to_str().unwrap());
}

#[test]
fn a_container_that_is_killed_is_replaced() {
    let engine = FakeEngine::start("ours/echo", ENDPOINT);
    let router = router(&engine, "[functions.echo]\nimage = \"ours/echo\"\nmin_instances = 1\n");
    assert_eq!(ask(&router), 200);
    let (first, _) = engine.containers().remove(0);
    engine.kill(&first);
    router.eventually(
        "another one is there alone",
        || matches!(engine.containers().as_slice(), [(id, _)] if *id != first),
    );
    router.eventually("it answers", || ask(&router) == 200);
    assert!(router.admin("GET", "/logs/echo", "").body.contains("[1] torpor: ended (status 137)"));
}

#[test]
fn a_container_that_wanted_too_much_memory_is_told_of() {
    let engine = FakeEngine::start("ours/echo", ENDPOINT);
    let router = router(&engine, "[functions.echo]\nimage = \"ours/echo\"\ncontainer_memory = \"1GiB\"\n");
    assert_eq!(ask(&router), 200);
    engine.kill_for_memory(&engine.containers()[0].0);
    let log = || router.admin("GET", "/logs/echo", "").body;
    router.eventually("the log says so", || log().contains("more than its container_memory, 1 GiB"));
}

#[test]
fn containers_in_a_network_are_reached_by_their_addresses() {
    let engine = FakeEngine::start("ours/echo", ENDPOINT);
    let function = format!("{ONE}container_port = {}\n", free_port());
    let inside = router(&engine, &format!("[server]\ncontainer_network = \"node\"\n{function}"));
    assert_eq!(ask(&inside), 200);
    let nowhere = router(&engine, &format!("[server]\ncontainer_network = \"silent\"\n{function}"));
    let answer = nowhere.post("/v1/functions/echo/invoke", &[], "");
    assert!(answer.status == 503 && answer.body.contains("no address in the network silent"), "{answer:?}");
}

#[test]
fn an_image_that_is_not_there_is_pulled() {
    let engine = FakeEngine::start("ours/other", ENDPOINT);
    engine.known().elsewhere.insert("ours/echo:latest".to_owned());
    let router = router(&engine, ONE);
    assert_eq!(ask(&router), 200);
    assert_eq!(engine.known().done[..2], ["pull ours/echo:latest", "make"]);
}

#[test]
fn what_cannot_be_started_says_why_and_leaves_nothing() {
    let engine = FakeEngine::start("ours/echo", ENDPOINT);
    let refusal = |functions: &str, make_directory: bool| {
        let router = router(&engine, functions);
        if !make_directory {
            fs::remove_dir(router.directory.path().join("functions/echo")).unwrap();
        }
        let answer = router.post("/v1/functions/echo/invoke", &[], "");
        assert!(answer.status == 503 && answer.head.contains("retry-after"), "{answer:?}");
        answer.body
    };
    let missing = refusal("[functions.echo]\nimage = \"ours/none\"\n", true);
    assert!(missing.contains("ours/none") && missing.contains("pull access denied"), "{missing}");
    assert!(missing.contains("docker pull ours/none"), "{missing}");
    let wrong = refusal("[functions.echo]\nimage = \"ours/echo\"\ncommand = [\"nothing\"]\n", true);
    assert!(wrong.contains("executable file not found"), "{wrong}");
    assert!(engine.containers().is_empty(), "one that was not started is removed");
    let early = refusal(ONE, false);
    assert!(early.contains("no directory yet") && early.contains("node server"), "{early}");
}

#[test]
fn an_engine_that_is_not_there_is_named() {
    let engine = FakeEngine::start("ours/echo", ENDPOINT);
    let library = engine.variables()[1].1.clone();
    let variables = [("DOCKER_HOST", "unix:///nowhere/engine.sock"), ("TORPOR_INTERCEPT", library.as_str())];
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("functions/echo")).unwrap();
    let router = Router::start_in(directory.into(), ONE, &variables);
    let answer = router.post("/v1/functions/echo/invoke", &[], "");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(
        answer.body.contains("/nowhere/engine.sock") && answer.body.contains("DOCKER_HOST"),
        "{answer:?}"
    );
}

#[test]
fn an_engine_that_is_started_anew_does_not_end_its_containers() {
    let engine = FakeEngine::start("ours/echo", ENDPOINT);
    let router = router(&engine, "[functions.echo]\nimage = \"ours/echo\"\nmin_instances = 1\n");
    assert_eq!(ask(&router), 200);
    let (first, _) = engine.containers().remove(0);
    engine.be_silent(true);
    assert_eq!(ask(&router), 200, "the container is there, whatever the engine does");
    engine.kill(&first);
    engine.be_silent(false);
    router.eventually(
        "its end is heard of, and another one is there",
        || matches!(engine.containers().as_slice(), [(id, _)] if *id != first),
    );
    router.eventually("it answers", || ask(&router) == 200);
}

#[test]
fn what_a_killed_router_left_is_removed_by_the_next_one() {
    let engine = FakeEngine::start("ours/echo", ENDPOINT);
    let first = router(&engine, "[functions.echo]\nimage = \"ours/echo\"\nmin_instances = 1\n");
    assert_eq!(ask(&first), 200);
    let (left, _) = engine.containers().remove(0);
    let somebody_s = engine.add(json!({"dev.torpor.router": "/elsewhere/router.sock"}));
    let directory = first.kill();
    assert_eq!(engine.containers().len(), 2);
    let variables = engine.variables();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let next = Router::start_in(directory, "", &variables);
    next.eventually("it is removed", || engine.containers().iter().all(|(id, _)| *id != left));
    assert_eq!(engine.containers()[0].0, somebody_s, "another router's stays");
}
