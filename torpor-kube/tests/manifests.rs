//! The manifests of `deploy/kubernetes`: each is what the types of the API say, with no field that they do not know, and says what the
//! programs and their pages say.

mod support;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, PodSpec, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaimTemplate};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use torpor_gpuserver::server::settings::SettingsFile;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// The documents of a file.
fn documents(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Every object of the folder, with its file.
fn objects() -> Vec<(PathBuf, Value)> {
    let with_file = |file: PathBuf| documents(&file).into_iter().map(move |object| (file.clone(), object));
    let objects: Vec<_> = files(&folder()).into_iter().flat_map(with_file).collect();
    assert!(objects.len() > 15);
    objects
}

fn of_kind(kind: &str) -> Vec<Value> {
    objects().into_iter().map(|(_, object)| object).filter(|object| object["kind"] == kind).collect()
}

/// What one has and the other has not, or has differently: paths of fields.
fn missing(written: &Value, known: &Value, path: &str, found: &mut Vec<String>) {
    match (written, known) {
        (Value::Object(written), Value::Object(known)) => {
            for (key, value) in written {
                let nothing = &Value::Null;
                missing(value, known.get(key).unwrap_or(nothing), &format!("{path}.{key}"), found);
            }
        }
        (Value::Array(written), Value::Array(known)) if written.len() == known.len() => {
            for (at, (written, known)) in written.iter().zip(known).enumerate() {
                missing(written, known, &format!("{path}[{at}]"), found);
            }
        }
        // Amounts may be numbers, and are texts for the type.
        (Value::Number(written), Value::String(known)) if written.to_string() == *known => {}
        (written, known) if written == known => {}
        // What is empty may be left out.
        (Value::Object(written), Value::Null) if written.is_empty() => {}
        _ => found.push(path.to_owned()),
    }
}

/// Reads as a type of the API, which refuses what it does not know.
fn read<T: DeserializeOwned + Serialize>(object: &Value) -> Result<T, String> {
    let read: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let mut unknown = Vec::new();
    missing(object, &serde_json::to_value(&read).unwrap(), "", &mut unknown);
    if unknown.is_empty() { Ok(read) } else { Err(format!("the type does not know {unknown:?}")) }
}

/// Pods of Knative and KServe, whose types are not the API's: what the API knows of them, without what is theirs.
fn read_pod_of_others(pod: &Value, theirs: &[&str]) -> Result<(), String> {
    let mut pod = pod.clone();
    theirs.iter().for_each(|key| drop(pod.as_object_mut().unwrap().remove(*key)));
    read::<PodSpec>(&pod).map(drop)
}

fn check(object: &Value) -> Result<(), String> {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    match (text("apiVersion"), text("kind")) {
        ("v1", "Namespace") => read::<Namespace>(object).map(drop),
        ("v1", "ConfigMap") => read::<ConfigMap>(object).map(drop),
        ("v1", "ServiceAccount") => read::<ServiceAccount>(object).map(drop),
        ("v1", "Pod") => read::<Pod>(object).map(drop),
        ("apps/v1", "DaemonSet") => read::<DaemonSet>(object).map(drop),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => read::<ClusterRole>(object).map(drop),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => {
            read::<ClusterRoleBinding>(object).map(drop)
        }
        ("resource.k8s.io/v1", "DeviceClass") => read::<DeviceClass>(object).map(drop),
        ("resource.k8s.io/v1", "ResourceClaimTemplate") => read::<ResourceClaimTemplate>(object).map(drop),
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy") => {
            read::<ValidatingAdmissionPolicy>(object).map(drop)
        }
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding") => {
            read::<ValidatingAdmissionPolicyBinding>(object).map(drop)
        }
        ("serving.knative.dev/v1", "Service") => read_pod_of_others(
            &object["spec"]["template"]["spec"],
            &["containerConcurrency", "timeoutSeconds"],
        ),
        ("serving.kserve.io/v1beta1", "InferenceService") => read_pod_of_others(
            &object["spec"]["predictor"],
            &["containerConcurrency", "minReplicas", "maxReplicas"],
        ),
        ("kustomize.config.k8s.io/v1beta1", "Kustomization") => Ok(()),
        other => Err(format!("no type is known of {other:?}")),
    }
}

#[test]
fn every_manifest_is_of_a_type_of_the_api_and_has_no_field_that_it_does_not_know() {
    for (file, object) in objects() {
        check(&object).unwrap_or_else(|why| panic!("{} ({}): {why}", file.display(), object["kind"]));
    }
    // The test itself does see a misspelt field.
    let mut server = of_kind("DaemonSet").remove(0);
    server["spec"]["template"]["spec"]["containers"][0]["securityContext"]["runAsUsr"] = 5.into();
    assert!(check(&server).unwrap_err().contains("containers[0].securityContext.runAsUsr"));
}

#[test]
fn kustomizations_name_what_is_there_and_leave_nothing_out() {
    for file in files(&folder()).into_iter().filter(|file| file.ends_with("kustomization.yaml")) {
        let folder = file.parent().unwrap();
        let kustomization = documents(&file).remove(0);
        let named: BTreeSet<PathBuf> = kustomization["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| folder.join(name.as_str().unwrap()).canonicalize().unwrap())
            .collect();
        let beside = files(folder).into_iter().filter(|other| *other != file);
        for other in beside {
            assert!(
                named.contains(&other.canonicalize().unwrap()),
                "{} leaves {} out",
                file.display(),
                other.display()
            );
        }
    }
}

/// The container of the DaemonSet of a name.
fn container(name: &str) -> (PodSpec, k8s_openapi::api::core::v1::Container) {
    let sets = of_kind("DaemonSet").into_iter().map(|object| read::<DaemonSet>(&object).unwrap());
    let set = sets.into_iter().find(|set| set.metadata.name.as_deref() == Some(name)).unwrap();
    let pod = set.spec.template.spec.unwrap();
    let container = pod.containers[0].clone();
    (pod, container)
}

#[test]
fn the_programs_take_the_arguments_that_their_pods_have() {
    for (name, more) in [("torpor-dra", &["--node-name", "n"][..]), ("torpor-device-plugin", &[])] {
        let (_, container) = container(name);
        // Another container's library is missing here: that is said after the arguments are read.
        let mut command = support::process::kube();
        command.args(container.args.unwrap()).args(more).args(["--install-dir", "/nonexistent/x"]);
        command.env("TORPOR_INTERCEPT", "/nonexistent/library.so");
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(1) && said.contains("libtorpor_intercept.so is missing"),
            "{said}"
        );
    }
}

#[test]
fn paths_are_the_same_on_the_host_and_in_the_pods_and_no_pod_has_a_right_more_than_it_needs() {
    for name in ["torpor-server", "torpor-dra", "torpor-device-plugin"] {
        let (pod, container) = container(name);
        for volume in pod.volumes.unwrap() {
            let mounts = container.volume_mounts.as_ref().unwrap();
            let mount = mounts.iter().find(|mount| mount.name == volume.name).unwrap();
            if let Some(host) = volume.host_path {
                assert_eq!(host.path, mount.mount_path, "{name}");
            }
        }
        let security = container.security_context.unwrap();
        assert_eq!(security.allow_privilege_escalation, Some(false));
        assert_eq!((security.privileged, security.read_only_root_filesystem), (None, Some(true)));
        let capabilities = security.capabilities.unwrap();
        assert_eq!(capabilities.drop.unwrap(), ["ALL"]);
        let added = capabilities.add.unwrap_or_default();
        assert_eq!(added, if name == "torpor-server" { vec!["IPC_LOCK", "SYS_NICE"] } else { vec![] });
        assert_eq!(pod.automount_service_account_token == Some(false), name != "torpor-dra", "{name}");
        assert!(pod.host_pid.is_none() && pod.host_network.is_none() && pod.host_ipc.is_none());
    }
}

#[test]
fn the_settings_are_a_settings_file() {
    let settings = read::<ConfigMap>(&of_kind("ConfigMap").remove(0)).unwrap().data.unwrap();
    SettingsFile::parse(&settings["torpor.toml"], Path::new("torpor.toml")).unwrap();
}
