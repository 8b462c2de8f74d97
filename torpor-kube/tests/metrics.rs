//! What pods have and do, as a kubelet's list of pods and the node server say.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use support::Node;
use support::kubelet::{DeviceManager, PodResources};
use support::process::eventually;
use torpor_kube::protocol::v1::{
    CdiDevice, ClaimResource, ContainerDevices, ContainerResources, DynamicResource, PodResources as Pod,
};

/// An address that nobody listens at.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn pod(name: &str, container: ContainerResources) -> Pod {
    let container = ContainerResources { name: "main".to_owned(), ..container };
    Pod { name: name.to_owned(), namespace: "team".to_owned(), containers: vec![container] }
}

#[test]
fn a_function_s_memory_is_told_as_that_of_the_container_that_has_its_slot_or_claim() {
    let mut node = Node::new();
    node.start_server();
    let kubelet = DeviceManager::start(&node);
    let address = free_address();
    node.start_kube("device-plugin", &["--slots", "2", "--memory-limit", "64MiB", "--metrics", &address]);
    kubelet.registered(&node).allocate(&[&["slot-0"], &["slot-1"]]).unwrap();
    let devices = |resource: &str, device: &str| ContainerDevices {
        resource_name: resource.to_owned(),
        device_ids: vec![device.to_owned()],
    };
    let claimed = |driver: &str, device: &str| ClaimResource {
        driver_name: driver.to_owned(),
        cdi_devices: vec![CdiDevice { name: device.to_owned() }],
        ..ClaimResource::default()
    };
    let claims = vec![claimed("gpu.torpor.dev", "torpor.dev/pod=slot-1"), claimed("gpu.example.com", "x")];
    let dynamic = DynamicResource { claim_resources: claims, ..DynamicResource::default() };
    eventually("it says why it has no answer", || {
        get(&address)
            .is_ok_and(|answer| answer.contains(" 503 ") && answer.contains("does not say which pod"))
    });
    let _kubelet = PodResources::start(
        &node,
        vec![
            pod(
                "old",
                ContainerResources {
                    devices: vec![devices("torpor.dev/gpu", "slot-0")],
                    ..Default::default()
                },
            ),
            pod("new", ContainerResources { dynamic_resources: vec![dynamic], ..Default::default() }),
            pod(
                "other",
                ContainerResources {
                    devices: vec![devices("example.com/gpu", "slot-0")],
                    ..Default::default()
                },
            ),
        ],
    );
    let answer = get(&address).unwrap();
    for (pod, function) in [("old", "slot-0"), ("new", "slot-1")] {
        let labels = format!("namespace=\"team\",pod=\"{pod}\",container=\"main\",function=\"{function}\"");
        let limit = format!("torpor_pod_memory_limit_bytes{{{labels}}} {}\n", 64 << 20);
        assert!(
            answer.contains(&limit) && answer.contains(&format!("torpor_pod_swaps_total{{{labels}}} 0\n")),
            "{answer}"
        );
    }
    assert!(!answer.contains("other"), "{answer}");
}
