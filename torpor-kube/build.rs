//! Compiles the kubelet's protocols with `protox`, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "proto/device_plugin.proto",
        "proto/plugin_registration.proto",
        "proto/dra.proto",
        "proto/dra_health.proto",
        "proto/dra_health_v1alpha1.proto",
        "proto/pod_resources.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
