//! The driver for dynamic resource allocation, as a kubelet and an API server see it.

mod support;

use k8s_openapi::api::resource::v1::Device;
use serde_json::{Value, json};
use std::path::PathBuf;
use support::api_server::{ApiServer, NODE};
use support::kubelet::DraPlugin;
use support::process::{PATIENCE, eventually};
use support::{Container, Node, PRINT_MEMORY, inode};
use tonic::Streaming;
use torpor_kube::protocol::dra::Claim;
use torpor_kube::protocol::v1::{HealthStatus, NodeWatchResourcesResponse};

const UID: &str = "0b5c3f0e-7e57-4d52-9d0a-0123456789ab";
const MIB: u64 = 1 << 20;

fn start(node: &mut Node) -> ApiServer {
    let api = ApiServer::start(node);
    node.start_server();
    start_kube(node, &[]);
    api
}

fn start_kube(node: &mut Node, more: &[&str]) {
    let folder = node.path("cdi").display().to_string();
    let flags = ["--node-name", NODE, "--cdi-dir", &folder];
    node.start_kube("dra", &[&flags[..], more].concat());
}

fn claim(name: &str, uid: &str) -> Claim {
    Claim { namespace: "team".to_owned(), uid: uid.to_owned(), name: name.to_owned() }
}

fn parameters(more: &Value) -> Value {
    let mut parameters = json!({"apiVersion": "gpu.torpor.dev/v1", "kind": "FunctionParameters"});
    parameters.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!([{"source": "FromClaim", "requests": [], "opaque": {"driver": "gpu.torpor.dev", "parameters": parameters}}])
}

fn function(uid: &str) -> String {
    format!("claim-{uid}")
}

fn cdi_file(node: &Node, uid: &str) -> PathBuf {
    node.path("cdi").join(format!("torpor.dev-pod-claim-{uid}.json"))
}

/// What a runtime gives a container with a device: all mounts and variables of the only file that has it.
fn inject(node: &Node, id: &str) -> Container {
    let (kind, name) = id.split_once('=').unwrap();
    let files = std::fs::read_dir(node.path("cdi")).unwrap().map(|entry| entry.unwrap().path());
    let specs =
        files.map(|file| serde_json::from_str::<Value>(&std::fs::read_to_string(file).unwrap()).unwrap());
    let mut edits = Vec::new();
    for spec in specs.filter(|spec| spec["kind"] == kind) {
        let devices = spec["devices"].as_array().unwrap().iter();
        for device in devices.filter(|device| device["name"] == name) {
            edits.push([device["containerEdits"].clone(), spec["containerEdits"].clone()]);
        }
    }
    assert_eq!(edits.len(), 1, "a device that two files have counts for nothing");
    let mut container = Container::default();
    for edit in edits.into_iter().flatten() {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        for mount in edit["mounts"].as_array().into_iter().flatten() {
            container.mounts.push((text(&mount["hostPath"]), text(&mount["containerPath"])));
        }
        for variable in edit["env"].as_array().into_iter().flatten() {
            let (name, value) = variable.as_str().unwrap().split_once('=').unwrap();
            container.env.push((name.to_owned(), value.to_owned()));
        }
    }
    container
}

/// Reads on until the only device is that healthy.
fn until(node: &Node, stream: &mut Streaming<NodeWatchResourcesResponse>, health: HealthStatus) {
    loop {
        let next = async { tokio::time::timeout(PATIENCE, stream.message()).await };
        let devices = node.runtime.block_on(next).expect("nothing new").unwrap().unwrap().devices;
        assert_eq!(devices.len(), 1);
        let device = devices[0].device.clone().unwrap();
        assert_eq!((&*device.pool_name, &*device.device_name), (NODE, "gpu-0"));
        if devices[0].health() == health {
            return;
        }
    }
}

#[test]
fn the_kubelet_finds_the_driver_and_its_services() {
    let mut node = Node::new();
    let _api = start(&mut node);
    let plugin = DraPlugin::find(&node);
    assert_eq!((&*plugin.info.r#type, &*plugin.info.name), ("DRAPlugin", "gpu.torpor.dev"));
    assert_eq!(
        plugin.info.endpoint,
        node.path("kubelet/plugins/gpu.torpor.dev/dra.sock").display().to_string()
    );
    assert_eq!(
        plugin.info.supported_versions,
        ["v1.DRAPlugin", "v1.DRAResourceHealth", "v1alpha1.DRAResourceHealth"]
    );
    assert_eq!(plugin.registration_socket.file_name().unwrap(), "gpu.torpor.dev-reg.sock");
    eventually("it is told that the kubelet knows it", || node.kube_said("the kubelet knows gpu.torpor.dev"));
}

#[test]
fn a_program_of_a_container_with_a_claim_is_the_claim_s_function() {
    let mut node = Node::new();
    let api = start(&mut node);
    api.allocate("one", UID, "64Mi", &parameters(&json!({"sloMs": 200})));
    let answer = DraPlugin::find(&node).prepare_one(&claim("one", UID));
    assert_eq!(answer.error, "");
    let [device] = &answer.devices[..] else { panic!("{answer:?}") };
    assert_eq!(
        (&device.request_names[..], &*device.pool_name, &*device.device_name),
        (&["gpu".to_owned()][..], NODE, "gpu-0")
    );
    assert_eq!(device.share_id.as_deref(), Some("5a1f0c3e-0000-4000-8000-000000000000"));
    assert_eq!(device.cdi_device_ids, [format!("torpor.dev/pod={}", function(UID))]);
    let listed = node.function(&function(UID)).unwrap();
    assert_eq!((listed.memory_limit_bytes, listed.slo_ms), (64 * MIB, Some(200)));
    assert_eq!(inject(&node, &device.cdi_device_ids[0]).run(PRINT_MEMORY), (64 * MIB).to_string());
}

#[test]
fn claims_are_prepared_and_unprepared_however_often_it_is_asked() {
    let mut node = Node::new();
    let api = start(&mut node);
    api.allocate("one", UID, "64Mi", &json!([]));
    let plugin = DraPlugin::find(&node);
    let directory = node.directory().function(&function(UID));
    let first = plugin.prepare_one(&claim("one", UID));
    let (before, file) = (inode(directory.path()), inode(&cdi_file(&node, UID)));
    assert_eq!(plugin.prepare_one(&claim("one", UID)), first);
    assert_eq!(
        (inode(directory.path()), inode(&cdi_file(&node, UID))),
        (before, file),
        "containers have it mounted"
    );
    for _ in 0..2 {
        assert_eq!(plugin.unprepare(&claim("one", UID)).error, "");
        assert!(!directory.path().exists() && !cdi_file(&node, UID).exists());
        assert_eq!(node.function(&function(UID)), None);
    }
    assert_eq!(plugin.unprepare(&claim("never", "11111111-2222-4333-8444-555555555555")).error, "");
    assert_eq!(plugin.prepare_one(&claim("one", UID)), first);
}

#[test]
fn every_claim_is_answered_and_what_is_wrong_with_one_is_said_of_that_one() {
    let mut node = Node::new();
    let api = start(&mut node);
    let uids: [&str; 7] = ["good", "old", "gone", "greedy", "odd", "huge", "../default"];
    for name in ["good", "greedy", "odd", "huge"] {
        let (memory, more) = match name {
            "greedy" => ("64Mi", json!({"memoryLimit": "65Mi"})),
            "odd" => ("64Mi", json!({"memory": "1Mi"})),
            "huge" => ("4Ti", json!({})),
            _ => ("64Mi", json!({})),
        };
        api.allocate(name, name, memory, &parameters(&more));
    }
    api.allocate("old", "new", "64Mi", &json!([]));
    let claims: Vec<Claim> =
        uids.iter().map(|&uid| claim(if uid.contains('/') { "good" } else { uid }, uid)).collect();
    let answers = DraPlugin::find(&node).prepare(&claims);
    let said = |uid: &str| answers[uid].error.clone();
    assert_eq!((said("good"), answers["good"].devices.len()), (String::new(), 1));
    let reasons = [
        ("old", "team/old is another one now"),
        ("gone", "there is no claim team/gone"),
        ("greedy", "raise capacity.requests.memory"),
        ("odd", "unknown field `memory`"),
        ("huge", "4 TiB"),
        ("../default", "is no name of a claim"),
    ];
    for (uid, reason) in reasons {
        assert!(said(uid).contains(reason) && answers[uid].devices.is_empty(), "{uid}: {}", said(uid));
    }
    let functions: Vec<_> = node.functions().into_iter().map(|function| function.name).collect();
    assert_eq!(functions, ["claim-good", "default"]);
    assert_eq!(std::fs::read_dir(node.path("cdi")).unwrap().count(), 1);
}

#[test]
fn names_that_lead_elsewhere_are_neither_prepared_nor_unprepared() {
    let mut node = Node::new();
    let _api = start(&mut node);
    let plugin = DraPlugin::find(&node);
    let kept = node.path("cdi/torpor.dev-pod-claim-x.json");
    std::fs::create_dir_all(node.path("cdi")).unwrap();
    std::fs::write(&kept, "dear").unwrap();
    for uid in ["", "..", "a/../x", "../../torpor/functions/default", "a\0b", "a.json"] {
        assert!(plugin.unprepare(&claim("one", uid)).error.contains("is no name of a claim"), "{uid:?}");
    }
    for name in ["../nodes", "one?x=1", "", "one/status"] {
        let answer = plugin.prepare_one(&Claim { name: name.to_owned(), ..claim("", UID) });
        assert!(answer.error.contains("is no name of a claim"), "{}", answer.error);
        let answer = plugin.prepare_one(&Claim { namespace: name.to_owned(), ..claim("one", UID) });
        assert!(answer.error.contains("is no name of a claim"), "{}", answer.error);
    }
    assert!(kept.exists() && node.directory().function("default").path().exists());
}

#[test]
fn a_driver_that_starts_again_knows_the_claims_of_the_one_before() {
    let mut node = Node::new();
    let api = start(&mut node);
    api.allocate("one", UID, "64Mi", &json!([]));
    let first = DraPlugin::find(&node).prepare_one(&claim("one", UID));
    // Its sockets are left behind.
    node.kill_kube();
    start_kube(&mut node, &[]);
    let plugin = DraPlugin::find(&node);
    assert_eq!(plugin.prepare_one(&claim("one", UID)), first);
    node.end_kube();
    assert!(!node.path("kubelet/plugins_registry/gpu.torpor.dev-reg.sock").exists(), "so the kubelet knows");
    assert!(cdi_file(&node, UID).exists(), "its pods go on");
    start_kube(&mut node, &[]);
    let plugin = DraPlugin::find(&node);
    // The claim's object may be gone by then.
    api.delete_claim("one");
    assert_eq!(plugin.unprepare(&claim("one", UID)).error, "");
    assert!(!cdi_file(&node, UID).exists() && node.function(&function(UID)).is_none());
}

#[test]
fn sockets_that_the_kubelet_or_somebody_else_removes_are_made_again() {
    let mut node = Node::new();
    let api = start(&mut node);
    api.allocate("one", UID, "64Mi", &json!([]));
    let first = DraPlugin::find(&node);
    for socket in [first.registration_socket.clone(), PathBuf::from(&first.info.endpoint)] {
        std::fs::remove_file(&socket).unwrap();
        eventually("it is there again", || socket.exists());
        assert_eq!(DraPlugin::find(&node).prepare_one(&claim("one", UID)).error, "");
    }
}

#[test]
fn a_server_that_starts_again_holds_claims_to_what_was_agreed() {
    let mut node = Node::new();
    let api = start(&mut node);
    api.allocate("one", UID, "64Mi", &json!([]));
    let plugin = DraPlugin::find(&node);
    let first = plugin.prepare_one(&claim("one", UID));
    node.kill_server();
    let said = plugin.prepare_one(&claim("one", UID)).error;
    assert!(said.contains("is the torpor-server pod of this node running?"), "{said}");
    node.start_server();
    assert_eq!(node.function(&function(UID)).unwrap().memory_limit_bytes, 64 * MIB);
    assert_eq!(plugin.prepare_one(&claim("one", UID)), first);
    assert_eq!(inject(&node, &first.devices[0].cdi_device_ids[0]).run(PRINT_MEMORY), (64 * MIB).to_string());
}

#[test]
fn a_claim_that_goes_while_the_server_is_gone_goes_with_its_function_when_it_is_back() {
    let mut node = Node::new();
    let api = start(&mut node);
    let other = "11111111-2222-4333-8444-555555555555";
    api.allocate("one", UID, "64Mi", &json!([]));
    api.allocate("other", other, "64Mi", &json!([]));
    let plugin = DraPlugin::find(&node);
    plugin.prepare(&[claim("one", UID), claim("other", other)]);
    node.kill_server();
    eventually("the driver notices", || node.kube_said("no node server answers"));
    assert_eq!(plugin.unprepare(&claim("one", UID)).error, "");
    assert!(!cdi_file(&node, UID).exists());
    node.start_server();
    eventually("its function goes", || node.function(&function(UID)).is_none());
    assert!(node.function(&function(other)).is_some());
}

#[test]
fn a_gpu_whose_worker_hangs_is_offered_to_nobody_and_unhealthy_for_who_has_it() {
    let mut node = Node::new();
    let api = start(&mut node);
    let plugin = DraPlugin::find(&node);
    eventually("the GPU is published", || api.devices() == ["gpu-0"]);
    let mut streams = plugin.watch_health();
    streams.iter_mut().for_each(|stream| until(&node, stream, HealthStatus::Healthy));
    let worker = node.hang_worker();
    streams.iter_mut().for_each(|stream| until(&node, stream, HealthStatus::Unhealthy));
    eventually("it is offered no more", || api.devices().is_empty());
    node.go_on(worker);
    streams.iter_mut().for_each(|stream| until(&node, stream, HealthStatus::Healthy));
    eventually("it is offered again", || api.devices() == ["gpu-0"]);
    node.kill_server();
    streams.iter_mut().for_each(|stream| until(&node, stream, HealthStatus::Unhealthy));
    eventually("nor is that of a server that is gone", || api.devices().is_empty());
}

#[test]
fn what_is_published_is_the_node_s_and_is_kept_there() {
    let mut node = Node::new();
    let api = start(&mut node);
    eventually("it is published", || api.slice().is_some());
    let slice = api.slice().unwrap();
    let [owner] = &slice.metadata.owner_references.unwrap()[..] else { panic!("one owner") };
    assert_eq!((&*owner.kind, &*owner.name, &*owner.uid), ("Node", NODE, "node-uid"));
    assert_eq!((&*slice.spec.driver, slice.spec.node_name.as_deref()), ("gpu.torpor.dev", Some(NODE)));
    assert_eq!((&*slice.spec.pool.name, slice.spec.pool.resource_slice_count), (NODE, 1));
    let [device] = &slice.spec.devices.unwrap()[..] else { panic!("one device") };
    let Device { capacity, attributes, allow_multiple_allocations, .. } = device.clone();
    let memory = capacity.unwrap()["memory"].value.0.clone();
    assert!(["Mi", "Gi"].iter().any(|unit| memory.ends_with(unit)), "{memory}");
    assert_eq!(allow_multiple_allocations, Some(true));
    assert_eq!(attributes.unwrap()["simulated"].bool, Some(true));
    let generation = || api.slice().map(|slice| slice.spec.pool.generation);
    // As the kubelet does with what a driver published that it does not know for a while.
    let before = generation();
    api.delete_slices();
    eventually("it is published again", || generation() > before);
    let before = generation();
    node.kill_kube();
    start_kube(&mut node, &["--shares", "2"]);
    eventually("the next driver publishes", || generation() > before);
    assert_eq!(api.devices(), ["gpu-0-share-0", "gpu-0-share-1"]);
}

#[test]
fn a_cluster_without_consumable_capacity_is_told_of() {
    let mut node = Node::new();
    let api = ApiServer::start(&node);
    api.drop_sharing();
    node.start_server();
    start_kube(&mut node, &[]);
    eventually("it is said what to do", || node.kube_said("with --shares N each GPU is good for N"));
}
