//! The device plugin, as a kubelet sees it.

mod support;

use support::kubelet::{DeviceManager, RegisteredPlugin};
use support::{Container, Node, PRINT_MEMORY, inode};
use tonic::{Code, Streaming};
use torpor_kube::protocol::device_plugin::{ContainerAllocateResponse, ListAndWatchResponse};

fn start(node: &mut Node) -> DeviceManager {
    node.start_server();
    let kubelet = DeviceManager::start(node);
    node.start_kube("device-plugin", &["--slots", "3", "--memory-limit", "64MiB"]);
    kubelet
}

/// Reads on until all devices are that healthy.
fn until(node: &Node, devices: &mut Streaming<ListAndWatchResponse>, health: &str) {
    let next = async |devices: &mut Streaming<_>| {
        tokio::time::timeout(support::process::PATIENCE, devices.message()).await
    };
    loop {
        let list: ListAndWatchResponse =
            node.runtime.block_on(next(devices)).expect("nothing new").unwrap().unwrap();
        assert_eq!(list.devices.len(), 3);
        if list.devices.iter().all(|device| device.health == health) {
            return;
        }
    }
}

fn function_directory(container: &ContainerAllocateResponse) -> &str {
    let mut mounts = container.mounts.iter().filter(|mount| mount.container_path == "/run/torpor");
    &mounts.next().unwrap().host_path
}

#[test]
fn a_plugin_registers_and_lists_its_slots() {
    let mut node = Node::new();
    let kubelet = start(&mut node);
    let mut plugin = kubelet.registered(&node);
    assert_eq!((&*plugin.request.version, &*plugin.request.resource_name), ("v1beta1", "torpor.dev/gpu"));
    let mut devices = plugin.watch();
    let list = node.runtime.block_on(devices.message()).unwrap().unwrap().devices;
    assert_eq!(list.iter().map(|device| &*device.id).collect::<Vec<_>>(), ["slot-0", "slot-1", "slot-2"]);
    assert!(list.iter().all(|device| device.health == "Healthy"));
}

#[test]
fn each_container_is_given_its_own_function_in_the_order_of_the_requests_however_often_it_is_asked() {
    let mut node = Node::new();
    let kubelet = start(&mut node);
    let mut plugin = kubelet.registered(&node);
    let containers = plugin.allocate(&[&["slot-2"], &["slot-0"]]).unwrap();
    let directory = |slot: &str| node.directory().function(slot).path().display().to_string();
    assert_eq!(
        containers.iter().map(function_directory).collect::<Vec<_>>(),
        [directory("slot-2"), directory("slot-0")]
    );
    assert!(containers.iter().all(|container| container.mounts.iter().all(|mount| mount.read_only)));
    assert!(containers.iter().all(|container| container.devices.is_empty()), "no device is given");
    let before = inode(directory("slot-2").as_ref());
    assert_eq!(plugin.allocate(&[&["slot-2"]]).unwrap()[0], containers[0]);
    assert_eq!(inode(directory("slot-2").as_ref()), before, "containers have it mounted");
}

#[test]
fn a_program_of_a_container_has_cuda_with_the_slot_s_memory() {
    let mut node = Node::new();
    let kubelet = start(&mut node);
    let given = kubelet.registered(&node).allocate(&[&["slot-1"]]).unwrap().remove(0);
    let mounts = given.mounts.into_iter().map(|mount| (mount.host_path, mount.container_path)).collect();
    let container = Container { mounts, env: given.envs.into_iter().collect() };
    assert_eq!(container.run(PRINT_MEMORY), (64 << 20).to_string());
}

#[test]
fn devices_that_no_container_can_be_given_are_refused_with_the_reason() {
    let mut node = Node::new();
    let kubelet = start(&mut node);
    let mut plugin = kubelet.registered(&node);
    let refused = |plugin: &mut RegisteredPlugin, devices: &[&str]| plugin.allocate(&[devices]).unwrap_err();
    let two = refused(&mut plugin, &["slot-0", "slot-1"]);
    assert!(two.code() == Code::InvalidArgument && two.message().contains("ask for 1"), "{two}");
    let foreign = refused(&mut plugin, &["../default"]);
    assert!(foreign.code() == Code::InvalidArgument && foreign.message().contains("no device"), "{foreign}");
    assert!(node.functions().iter().all(|function| function.name == "default"));
}

#[test]
fn a_kubelet_that_starts_again_finds_the_plugin_again() {
    let mut node = Node::new();
    let kubelet = start(&mut node);
    let first = kubelet.registered(&node).allocate(&[&["slot-1"]]).unwrap();
    for _ in 0..2 {
        drop(DeviceManager::start(&node).registered(&node));
    }
    let kubelet = DeviceManager::start(&node);
    let mut plugin = kubelet.registered(&node);
    until(&node, &mut plugin.watch(), "Healthy");
    assert_eq!(plugin.allocate(&[&["slot-1"]]).unwrap(), first);
    drop(kubelet);
}

#[test]
fn a_plugin_that_starts_again_registers_again_also_before_the_kubelet_is_there() {
    let mut node = Node::new();
    let kubelet = start(&mut node);
    let first = kubelet.registered(&node).allocate(&[&["slot-1"]]).unwrap();
    node.kill_kube();
    node.start_kube("device-plugin", &["--slots", "3", "--memory-limit", "64MiB"]);
    assert_eq!(kubelet.registered(&node).allocate(&[&["slot-1"]]).unwrap(), first);
    let socket = {
        let folder = node.path("kubelet/device-plugins");
        drop(kubelet);
        std::fs::remove_file(folder.join("kubelet.sock")).unwrap();
        folder.join("torpor.dev-gpu.sock")
    };
    node.end_kube();
    assert!(!socket.exists(), "who ends in order leaves nothing");
    node.start_kube("device-plugin", &["--slots", "3"]);
    let waits =
        || node.kube_said("the kubelet does not listen at") && node.kube_said("No such file or directory");
    support::process::eventually("it says what it waits for, and why", waits);
    let kubelet = DeviceManager::start(&node);
    kubelet.registered(&node).allocate(&[&["slot-1"]]).unwrap();
}

#[test]
fn slots_are_unhealthy_while_the_gpu_s_worker_hangs_and_while_the_server_is_gone() {
    let mut node = Node::new();
    let kubelet = start(&mut node);
    let mut plugin = kubelet.registered(&node);
    let mut devices = plugin.watch();
    until(&node, &mut devices, "Healthy");
    let worker = node.hang_worker();
    until(&node, &mut devices, "Unhealthy");
    node.go_on(worker);
    until(&node, &mut devices, "Healthy");
    node.kill_server();
    until(&node, &mut devices, "Unhealthy");
    let refused = kubelet_asks(&kubelet, &node).allocate(&[&["slot-0"]]).unwrap_err();
    assert!(
        refused.code() == Code::Unavailable && refused.message().contains("torpor-server pod"),
        "{refused}"
    );
    node.start_server();
    until(&node, &mut devices, "Healthy");
    kubelet_asks(&kubelet, &node).allocate(&[&["slot-0"]]).unwrap();
}

/// Lets the plugin register once more: its socket is removed.
fn kubelet_asks(kubelet: &DeviceManager, node: &Node) -> RegisteredPlugin {
    std::fs::remove_file(node.path("kubelet/device-plugins/torpor.dev-gpu.sock")).unwrap();
    kubelet.registered(node)
}
