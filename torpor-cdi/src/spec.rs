//! The file that container runtimes read: what a container of each function is given.
//!
//! [CDI](https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md) names a device `vendor/class=name`; a runtime
//! that is asked for it mounts and sets what the file says.

use crate::edits::{Edits, Installation};
use serde::Serialize;
use std::fmt;
use torpor_proto::directory::ServerDirectory;

/// What `--device` names before the function. Two files that describe the same device both count for nothing, so each who writes
/// files has a kind of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// Any function, for people.
    #[serde(rename = "torpor.dev/gpu")]
    Gpu,
    /// A function that is a pod's, for the kubelet.
    #[serde(rename = "torpor.dev/pod")]
    Pod,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Gpu => "torpor.dev/gpu",
            Self::Pod => "torpor.dev/pod",
        })
    }
}

/// A CDI specification.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    cdi_version: &'static str,
    kind: Kind,
    devices: Vec<Device>,
    container_edits: Edits,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    container_edits: Edits,
}

/// Whether CDI allows the name: it wants a letter or digit at the end, too.
#[must_use]
pub fn is_device_name(name: &str) -> bool {
    name.ends_with(|last: char| last.is_ascii_alphanumeric())
}

impl Spec {
    /// Of these functions of a server.
    ///
    /// `functions` are in order, each with [`is_device_name`], and at least one: a file without devices is refused by runtimes.
    #[must_use]
    pub fn new(
        kind: Kind,
        server: &ServerDirectory,
        functions: &[String],
        installation: Installation<'_>,
    ) -> Self {
        let device = |name: &String| Device {
            name: name.clone(),
            container_edits: Edits::of_function(&server.function(name)),
        };
        Self {
            cdi_version: lowest_version(functions),
            kind,
            devices: functions.iter().map(device).collect(),
            container_edits: Edits::of_all(installation),
        }
    }

    /// As the file has it.
    ///
    /// # Panics
    /// Never: strings and lists are always JSON.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("strings and lists are JSON");
        text.push('\n');
        text
    }
}

/// The lowest version that has what is used: older runtimes refuse files of newer versions.
fn lowest_version(functions: &[String]) -> &'static str {
    let leading_digit = functions.iter().any(|name| name.starts_with(|first: char| first.is_ascii_digit()));
    if leading_digit { "0.5.0" } else { "0.3.0" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn spec(functions: &[&str]) -> serde_json::Value {
        let functions: Vec<String> = functions.iter().map(|&name| name.to_owned()).collect();
        let server = ServerDirectory::new("/srv/torpor");
        let installation =
            Installation { library: Path::new("/lib/shim.so"), preload: Path::new("/run/cdi/preload") };
        let spec = Spec::new(Kind::Gpu, &server, &functions, installation);
        serde_json::from_str(&spec.text()).unwrap()
    }

    #[test]
    fn a_function_is_a_device_that_is_given_its_own_directory_alone() {
        let spec = spec(&["bert", "resnet"]);
        assert_eq!(spec["kind"], "torpor.dev/gpu");
        assert_eq!(spec["devices"][1]["name"], "resnet");
        let mounts = spec["devices"][1]["containerEdits"]["mounts"].as_array().unwrap();
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0]["hostPath"], "/srv/torpor/functions/resnet");
        assert_eq!(mounts[0]["containerPath"], "/run/torpor");
    }

    #[test]
    fn no_variable_of_an_image_is_replaced() {
        let spec = spec(&["bert"]);
        let edits = spec["containerEdits"]["env"].as_array().unwrap().iter();
        let names: Vec<_> = edits.map(|edit| edit.as_str().unwrap().split_once('=').unwrap().0).collect();
        assert_eq!(names, ["TORPOR_SERVER", "TRITON_LIBCUDA_PATH"]);
        assert!(spec["devices"][0]["containerEdits"].get("env").is_none());
    }

    #[test]
    fn a_kind_is_written_as_it_is_named() {
        for kind in [Kind::Gpu, Kind::Pod] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.to_string());
        }
    }

    #[test]
    fn the_version_is_the_lowest_that_has_what_is_used() {
        assert_eq!(spec(&["bert"])["cdiVersion"], "0.3.0");
        assert_eq!(spec(&["7b", "bert"])["cdiVersion"], "0.5.0");
        assert!(is_device_name("a-1") && !is_device_name("a-"));
    }
}
