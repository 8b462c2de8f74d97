//! A function's container, as the engine is asked for it. Pure: what is known, to what is asked.

use crate::config::{Container, Deployment};
use crate::engine::labels::Labels;
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use std::collections::{BTreeMap, HashMap};
use torpor_cdi::Edits;

/// Who a program is whose image would have it be root.
const NOBODY_SPECIAL: &str = "1000:1000";

/// Where that user, who has no home in the image, may write.
const HOME: &str = "/tmp";

/// Compilers of kernels load what they have put there.
const TMPFS: &str = "rw,exec,nosuid,nodev,mode=1777";

/// What an engine keeps of a container's log on its disk: the router has read it before.
const LOG_BYTES: &str = "16m";

/// What is known of a container before it is there.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// How its function is served.
    pub deployment: &'a Deployment,
    /// By what container.
    pub container: &'a Container,
    /// Who the image's programs are, as it says.
    pub image_user: &'a str,
    /// What makes it a client of this node.
    pub edits: &'a Edits,
    /// The network in which the router reaches it; none if its port is published on the host's loopback interface.
    pub network: Option<&'a str>,
    /// Whose it is.
    pub labels: &'a Labels<'a>,
}

/// What the engine is asked for.
#[must_use]
pub fn describe(known: Known<'_>) -> ContainerCreateBody {
    let Known { container, image_user, edits, network, labels, .. } = known;
    let port = format!("{}/tcp", container.port);
    let user = container.user.clone().or_else(|| is_root(image_user).then(|| NOBODY_SPECIAL.to_owned()));
    let published = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(String::new()) };
    let memory = container.memory.map(|size| size.0.cast_signed());
    let host_config = HostConfig {
        mounts: Some(edits.mounts.iter().map(mount).collect()),
        binds: (!container.volumes.is_empty()).then(|| container.volumes.clone()),
        readonly_rootfs: Some(container.read_only),
        tmpfs: container.read_only.then(|| HashMap::from([("/tmp".to_owned(), TMPFS.to_owned())])),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        // A program that is the first of its container would be sent SIGTERM and not end, and leave its dead children lying.
        init: Some(true),
        memory,
        // No swap beside it.
        memory_swap: memory,
        nano_cpus: container.cpus.map(torpor_gpuserver::server::settings::Cpus::nano),
        pids_limit: container.pids_limit.map(i64::from),
        network_mode: network.map(str::to_owned),
        port_bindings: network.is_none().then(|| HashMap::from([(port.clone(), Some(vec![published]))])),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([("max-size".to_owned(), LOG_BYTES.to_owned())])),
        }),
        // The router does that.
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            ..RestartPolicy::default()
        }),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(container.image.clone()),
        cmd: (!container.command.is_empty()).then(|| container.command.clone()),
        env: Some(environment(known, user.as_deref())),
        user,
        labels: Some(labels.all()),
        exposed_ports: Some(vec![port]),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    }
}

/// What the operator says, and what nobody may say otherwise.
fn environment(known: Known<'_>, user: Option<&str>) -> Vec<String> {
    let mut env = BTreeMap::new();
    if user == Some(NOBODY_SPECIAL) {
        env.insert("HOME", HOME);
    }
    env.extend(known.deployment.env.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    env.extend(known.edits.env.iter().filter_map(|pair| pair.split_once('=')));
    let port = known.container.port.to_string();
    // An engine whose default runtime is NVIDIA's gives GPUs to whoever's image asks for them.
    let own =
        [("PORT", &*port), ("TORPOR_FUNCTION", known.labels.function), ("NVIDIA_VISIBLE_DEVICES", "void")];
    env.extend(own);
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn is_root(user: &str) -> bool {
    matches!(user.split(':').next().unwrap_or_default(), "" | "0" | "root")
}

/// A mount of something that is there: an engine makes no folder in its place.
fn mount(mount: &torpor_cdi::Mount) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(mount.host_path.clone()),
        target: Some(mount.container_path.clone()),
        read_only: Some(true),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Processes;
    use crate::engine::labels::Owner;
    use std::path::Path;
    use torpor_cdi::Installation;
    use torpor_gpuserver::server::settings::SettingsFile;
    use torpor_proto::directory::ServerDirectory;

    fn body(section: &str, image_user: &str, network: Option<&str>) -> ContainerCreateBody {
        let text = format!("[functions.f]\nimage = 'any'\n{section}");
        let file = SettingsFile::parse(&text, Path::new("torpor.toml")).unwrap();
        let deployment = Deployment::all(&file).remove("f").unwrap();
        let Processes::Container(container) = &deployment.processes else { panic!("{deployment:?}") };
        let installation = Installation { library: Path::new("/l.so"), preload: Path::new("/preload") };
        let directory = ServerDirectory::new("/srv").function("f");
        let edits = Edits::of_all(installation).and(Edits::of_function(&directory));
        let owner = Owner { router: "/srv/router.sock".into(), directory: "/srv".into() };
        let labels = Labels { owner: &owner, function: "f", instance: 7 };
        let deployment = &deployment;
        describe(Known { deployment, container, image_user, edits: &edits, network, labels: &labels })
    }

    fn env(body: &ContainerCreateBody, name: &str) -> Option<String> {
        let pairs = body.env.iter().flatten().filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(found, _)| *found == name).map(|(_, value)| value.to_owned());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is there twice");
        value
    }

    #[test]
    fn a_container_can_do_nothing_that_its_function_does_not_need() {
        let body = body("", "", None);
        let host = body.host_config.as_ref().unwrap();
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(host.security_opt, Some(vec!["no-new-privileges:true".to_owned()]));
        assert_eq!((host.readonly_rootfs, host.privileged), (Some(true), None));
        assert_eq!((&host.devices, &host.device_requests), (&None, &None));
        assert_eq!(env(&body, "NVIDIA_VISIBLE_DEVICES").as_deref(), Some("void"));
        let mounts = host.mounts.as_ref().unwrap();
        assert!(mounts.iter().all(|mount| mount.read_only == Some(true)));
        let of_node = mounts.iter().filter(|mount| mount.source.as_deref().unwrap().starts_with("/srv"));
        let of_node: Vec<_> =
            of_node.map(|mount| (mount.source.as_deref(), mount.target.as_deref())).collect();
        assert_eq!(of_node, [(Some("/srv/functions/f"), Some("/run/torpor"))]);
        assert_eq!(host.binds, None);
    }

    #[test]
    fn who_would_be_root_is_somebody_else() {
        for (image_user, section, user) in [
            ("", "", Some("1000:1000")),
            ("root", "", Some("1000:1000")),
            ("0:0", "", Some("1000:1000")),
            ("app", "", None),
            ("", "user = '0'", Some("0")),
            ("app", "user = '7:8'", Some("7:8")),
        ] {
            assert_eq!(body(section, image_user, None).user.as_deref(), user, "{image_user} {section}");
        }
        assert_eq!(env(&body("", "", None), "HOME").as_deref(), Some("/tmp"), "root's is not his");
        assert_eq!(env(&body("", "app", None), "HOME"), None);
        assert_eq!(env(&body("env = { HOME = '/h' }", "", None), "HOME").as_deref(), Some("/h"));
    }

    #[test]
    fn limits_and_settings_are_the_engine_s() {
        let section = "container_memory = '1GiB'\ncpus = 0.5\npids_limit = 9\nread_only = false\n\
                       volumes = ['/m:/m:ro']\ncommand = ['a', 'b']\ncontainer_port = 80";
        let body = body(section, "", None);
        let host = body.host_config.as_ref().unwrap();
        assert_eq!((host.memory, host.memory_swap), (Some(1 << 30), Some(1 << 30)));
        assert_eq!((host.nano_cpus, host.pids_limit), (Some(500_000_000), Some(9)));
        assert_eq!((host.readonly_rootfs, &host.tmpfs), (Some(false), &None));
        assert_eq!(host.binds, Some(vec!["/m:/m:ro".to_owned()]));
        assert_eq!(body.cmd, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(env(&body, "PORT").as_deref(), Some("80"));
        assert_eq!(body.labels.unwrap()["dev.torpor.instance"], "7");
    }

    #[test]
    fn a_port_is_published_on_the_loopback_interface_or_in_a_network_alone() {
        let alone = body("", "", None).host_config.unwrap();
        let published = alone.port_bindings.unwrap()["8000/tcp"].clone().unwrap();
        assert_eq!(published[0].host_ip.as_deref(), Some("127.0.0.1"));
        let inside = body("", "", Some("node")).host_config.unwrap();
        assert_eq!((inside.port_bindings, inside.network_mode.as_deref()), (None, Some("node")));
    }

    #[test]
    fn what_torpor_says_cannot_be_said_otherwise() {
        let body = body(
            "env = { PORT = '1', TORPOR_SERVER = '/x', NVIDIA_VISIBLE_DEVICES = 'all', A = 'b=c' }",
            "",
            None,
        );
        assert_eq!(env(&body, "PORT").as_deref(), Some("8000"));
        assert_eq!(env(&body, "TORPOR_SERVER").as_deref(), Some("/run/torpor"));
        assert_eq!(env(&body, "TORPOR_FUNCTION").as_deref(), Some("f"));
        assert_eq!(env(&body, "NVIDIA_VISIBLE_DEVICES").as_deref(), Some("void"));
        assert_eq!(env(&body, "A").as_deref(), Some("b=c"));
    }
}
