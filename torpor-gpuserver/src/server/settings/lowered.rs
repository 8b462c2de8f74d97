//! Memory limits that are lowered while clients run: none may be below what a client has allocated already.

use crate::server::node::Node;
use crate::server::settings::clients::memory_limit_bytes;
use crate::server::settings::function::Settings;
use crate::server::size::ByteSize;
use crate::server::workers::usage;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use torpor_proto::control::worker::ClientUsage;

/// A function whose lower limit is below what a client of it uses, or may use.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLow {
    /// Which.
    pub function: String,
    limit_bytes: u64,
    /// What the client of it that uses most has; `None` if its worker does not say.
    in_use_bytes: Option<u64>,
}

impl fmt::Display for TooLow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { function, limit_bytes, in_use_bytes } = self;
        let limit = ByteSize(*limit_bytes);
        write!(formatter, "function {function}: the new memory_limit of {limit} ({limit_bytes} bytes) ")?;
        match in_use_bytes {
            Some(bytes) => write!(
                formatter,
                "is below the {} ({bytes} bytes) that a client has allocated",
                ByteSize(*bytes)
            ),
            None => formatter.write_str(
                "may be below what its clients have allocated, which their GPU's worker does not say",
            ),
        }
    }
}

/// The functions for which these settings may not hold yet.
pub async fn too_low(node: &Node, settings: &Settings) -> Vec<TooLow> {
    let lowered = lowered_limits(node, settings);
    if lowered.is_empty() {
        return Vec::new();
    }
    refusals(&lowered, &usage::by_client(node.gpus()).await)
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
        let limit_bytes = memory_limit_bytes(node, settings, function, client.introduction.gpu());
        let lower = limit_bytes < client.told.memory_limit_bytes;
        lower.then(|| Lowered { client: client.id.0, function: function.clone(), limit_bytes })
    });
    lowered.collect()
}

fn refusals(lowered: &[Lowered], used: &HashMap<u64, ClientUsage>) -> Vec<TooLow> {
    let mut refused: BTreeMap<&str, TooLow> = BTreeMap::new();
    for lower in lowered {
        let in_use_bytes = used.get(&lower.client).map(usage::allocated_bytes);
        if in_use_bytes.is_some_and(|bytes| bytes <= lower.limit_bytes) {
            continue;
        }
        let worst = refused.entry(&lower.function).or_insert_with(|| TooLow {
            function: lower.function.clone(),
            limit_bytes: lower.limit_bytes,
            in_use_bytes,
        });
        worst.in_use_bytes = worst.in_use_bytes.max(in_use_bytes);
    }
    refused.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let said = refused[0].to_string();
        for word in ["function big", "2 MiB (2097152 bytes)", "3 MiB (3145728 bytes)"] {
            assert!(said.contains(word), "{said}");
        }
        assert!(refused[1].to_string().contains("does not say"));
    }
}
