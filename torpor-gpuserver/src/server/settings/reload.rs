//! Taking over a settings file that changed, while the node serves.
//!
//! What cannot be, for one function, leaves that function as it was and is told in the log; all others go on with what is
//! new for them.

use crate::policy::placement::Placement;
use crate::server::node::Node;
use crate::server::settings::clients::tell_workers;
use crate::server::settings::declare;
use crate::server::settings::file::SettingsFile;
use crate::server::settings::function::Settings;
use crate::server::settings::lowered::too_low;
use std::sync::Arc;

/// Takes over what a file says now.
pub async fn reload(node: &Arc<Node>, file: &SettingsFile) {
    let options = node.options();
    for key in restart_needed(&options.settings, file) {
        tracing::warn!(
            "{key} is another in the settings file now; that takes effect when the server is restarted"
        );
    }
    let mut settings =
        Settings::new(file, options.flags.memory_limit).with_terms_of(node.settings().settings());
    for error in settings.above(node.largest_gpu_limit_bytes()).collect::<Vec<_>>() {
        tracing::error!("{error}; until then the function keeps its old limit");
        keep_limit(node, &mut settings, &error.function);
    }
    for low in too_low(node, &settings).await {
        tracing::error!(
            "{low}; the old limit stays until its processes free memory or end and the settings file is read again (SIGHUP)"
        );
        keep_limit(node, &mut settings, &low.function);
    }
    let named: Vec<String> = settings.named().map(str::to_owned).collect();
    node.settings().replace(settings);
    for function in named {
        if let Err(error) = node.ensure_function(&function) {
            tracing::error!(function, "the function of the settings file cannot be made: {error}");
        }
    }
    tell_workers(node);
    place_by(node, options.placement.unwrap_or_else(|| file.scheduler.placement()));
    tracing::info!("the settings file has been read again");
}

fn place_by(node: &Node, placement: Placement) {
    let is_another = node.placement().send_if_modified(|now| std::mem::replace(now, placement) != placement);
    if is_another {
        tracing::info!("clients that wait go where {} says from now on", declare::text(&placement));
    }
}

fn keep_limit(node: &Node, settings: &mut Settings, function: &str) {
    let old = node.settings().settings().of(function).memory_limit_bytes;
    settings.keep_limit(function, old);
}

/// The keys that are others now, though they are read at the start alone.
fn restart_needed(running: &SettingsFile, file: &SettingsFile) -> Vec<String> {
    let sections = [
        ("memory", running.memory.settings(), file.memory.settings()),
        ("scheduler", running.scheduler.settings(), file.scheduler.settings()),
    ];
    let keys = sections.into_iter().flat_map(|(section, running, now)| {
        declare::restart_needed(running, now).map(move |key| format!("[{section}] {key}"))
    });
    keys.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn keys_that_need_a_restart_are_named() {
        let parse = |text| SettingsFile::parse(text, Path::new("t")).unwrap();
        let running = parse("[memory]\ngpu_limit = '1GiB'\n[scheduler]\nlinger = '5ms'");
        let changed =
            parse("[memory]\ngpu_limit = '1024MiB'\n[scheduler]\nlinger = '6ms'\nactive_per_gpu = 2");
        assert_eq!(restart_needed(&running, &changed), ["[scheduler] active_per_gpu", "[scheduler] linger"]);
        assert!(restart_needed(&running, &running).is_empty());
        let routed = parse("[scheduler]\npolicy = 'fifo'\nmax_running = 3\nplacement = 'random'");
        assert!(restart_needed(&SettingsFile::default(), &routed).is_empty(), "these are followed");
    }
}
