//! Taking over a settings file that changed, while the node serves.
//!
//! What cannot be, for one function, leaves that function as it was and is told in the log; all others go on with what is
//! new for them.

use crate::server::node::Node;
use crate::server::settings::clients::{memory_limit_bytes, tell_workers};
use crate::server::settings::file::{MemorySection, SchedulerSection, SettingsFile};
use crate::server::settings::function::Settings;
use crate::server::size::ByteSize;
use crate::server::usage;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use torpor_proto::control::worker::ClientUsage;

/// Takes over what a file says now.
pub async fn reload(node: &Arc<Node>, file: &SettingsFile) {
    let options = node.options();
    for key in restart_needed(&options.settings, file) {
        tracing::warn!(
            "{key} is another in the settings file now; that takes effect when the server is restarted"
        );
    }
    let mut settings = Settings::new(file, options.memory_limit_bytes);
    for error in settings.above(node.largest_gpu_limit_bytes()).collect::<Vec<_>>() {
        tracing::error!("{error}; until then the function keeps its old limit");
        keep_limit(node, &mut settings, &error.function);
    }
    let lowered = lowered_limits(node, &settings);
    if !lowered.is_empty() {
        let used = usage::by_client(node.gpus()).await;
        for refusal in refusals(&lowered, &used) {
            tracing::error!("{}", refusal.reason);
            keep_limit(node, &mut settings, &refusal.function);
        }
    }
    let named: Vec<String> = settings.named().map(str::to_owned).collect();
    node.settings().replace(settings);
    for function in named {
        if let Err(error) = node.ensure_function(&function) {
            tracing::error!(function, "the function of the settings file cannot be made: {error}");
        }
    }
    tell_workers(node);
    tracing::info!("the settings file has been read again");
}

fn keep_limit(node: &Node, settings: &mut Settings, function: &str) {
    let old = node.settings().settings().of(function).memory_limit_bytes;
    settings.keep_limit(function, old);
}

/// The keys whose values are read at the start alone and are others now.
fn restart_needed(running: &SettingsFile, file: &SettingsFile) -> Vec<&'static str> {
    // Taken apart, so that a key that is added is not forgotten here.
    let MemorySection { gpu_limit, host_pool, spill_dir, spill_limit } = &file.memory;
    let SchedulerSection { active_per_gpu, linger } = &file.scheduler;
    let (memory, scheduler) = (&running.memory, &running.scheduler);
    let keys = [
        ("[memory] gpu_limit", *gpu_limit != memory.gpu_limit),
        ("[memory] host_pool", *host_pool != memory.host_pool),
        ("[memory] spill_dir", *spill_dir != memory.spill_dir),
        ("[memory] spill_limit", *spill_limit != memory.spill_limit),
        ("[scheduler] active_per_gpu", *active_per_gpu != scheduler.active_per_gpu),
        ("[scheduler] linger", *linger != scheduler.linger),
    ];
    keys.into_iter().filter_map(|(key, changed)| changed.then_some(key)).collect()
}

/// A client that may allocate less than before.
#[derive(Debug)]
struct Lowered {
    client: u64,
    function: String,
    limit_bytes: u64,
}

fn lowered_limits(node: &Node, settings: &Settings) -> Vec<Lowered> {
    let clients = node.clients();
    let serving = clients.iter().filter(|client| client.is_serving() && !client.has_failed());
    let lowered = serving.filter_map(|client| {
        let function = &client.introduction.function;
        let limit_bytes = memory_limit_bytes(node, settings, function, client.introduction.gpu);
        let lower = limit_bytes < client.told.memory_limit_bytes;
        lower.then(|| Lowered { client: client.id.0, function: function.clone(), limit_bytes })
    });
    lowered.collect()
}

/// A function that keeps its memory limit.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    function: String,
    reason: String,
}

/// The functions whose lower limit is below what a client of them uses, or may use.
fn refusals(lowered: &[Lowered], used: &HashMap<u64, ClientUsage>) -> Vec<Refusal> {
    // By function, what is used by the client of it that uses most; `None` if its worker does not say.
    let mut refused: BTreeMap<&str, (u64, Option<u64>)> = BTreeMap::new();
    for lower in lowered {
        let in_use = used.get(&lower.client).map(usage::allocated_bytes);
        if in_use.is_some_and(|bytes| bytes <= lower.limit_bytes) {
            continue;
        }
        let worst = refused.entry(&lower.function).or_insert((lower.limit_bytes, in_use));
        worst.1 = worst.1.max(in_use);
    }
    let refusal = |(function, (limit, in_use)): (&str, (u64, Option<u64>))| {
        let limit = format!("{} ({limit} bytes)", ByteSize(limit));
        let why = match in_use {
            Some(bytes) => {
                format!("is below the {} ({bytes} bytes) that a client has allocated", ByteSize(bytes))
            }
            None => "may be below what its clients have allocated, which their GPU's worker does not say"
                .to_owned(),
        };
        let reason = format!(
            "function {function}: the new memory_limit of {limit} {why}; the old limit stays until its processes free \
             memory or end and the settings file is read again (SIGHUP)"
        );
        Refusal { function: function.to_owned(), reason }
    };
    refused.into_iter().map(refusal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn lowered(client: u64, function: &str, limit_bytes: u64) -> Lowered {
        Lowered { client, function: function.to_owned(), limit_bytes }
    }

    #[test]
    fn a_limit_below_use_is_refused_with_function_limit_and_use() {
        let usage = |client, allocated_bytes| {
            (client, ClientUsage { client, allocated_bytes, ..ClientUsage::default() })
        };
        let used = HashMap::from([usage(1, 3 << 20), usage(2, 1 << 20), usage(3, 2 << 20)]);
        let lowered = [
            lowered(1, "big", 2 << 20),
            lowered(2, "small", 2 << 20),
            lowered(3, "full", 2 << 20),
            lowered(4, "mute", 5),
        ];
        let refused = refusals(&lowered, &used);
        assert_eq!(refused.iter().map(|refusal| &*refusal.function).collect::<Vec<_>>(), ["big", "mute"]);
        for word in ["function big", "2 MiB (2097152 bytes)", "3 MiB (3145728 bytes)"] {
            assert!(refused[0].reason.contains(word), "{}", refused[0].reason);
        }
        assert!(refused[1].reason.contains("does not say"));
    }

    #[test]
    fn keys_that_need_a_restart_are_named() {
        let parse = |text| SettingsFile::parse(text, Path::new("t")).unwrap();
        let running = parse("[memory]\ngpu_limit = '1GiB'\n[scheduler]\nlinger = '5ms'");
        let changed =
            parse("[memory]\ngpu_limit = '1024MiB'\n[scheduler]\nlinger = '6ms'\nactive_per_gpu = 2");
        assert_eq!(restart_needed(&running, &changed), ["[scheduler] active_per_gpu", "[scheduler] linger"]);
        assert!(restart_needed(&running, &running).is_empty());
    }
}
