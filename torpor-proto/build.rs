//! Compiles the protobufs with `protox`, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["control", "event", "worker", "admin", "migration", "keeper"]
        .map(|name| format!("proto/{name}.proto"));
    for file in &files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    // As JSON, what happened is one object, named beside its fields.
    let serialize = |more: &str| format!("#[cfg_attr(feature = \"serde\", derive(serde::Serialize){more})]");
    tonic_prost_build::configure()
        .message_attribute(".torpor.event", serialize(""))
        .enum_attribute(".torpor.event", serialize(", serde(tag = \"event\", rename_all = \"snake_case\")"))
        .compile_fds(descriptors)?;
    Ok(())
}
