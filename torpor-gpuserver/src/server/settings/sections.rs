//! The sections of the settings file that the server reads at its start, and their flags.

use crate::policy::eviction::Eviction;
use crate::policy::placement::Placement;
use crate::policy::sharing::ActiveLimit;
use crate::server::settings::choice::Policy;
use crate::server::settings::declare::{Kind, Setting, default, help, setting, settings, text, what_holds};
use crate::server::settings::text::{clients_of_node, device_memory, gpu_limits, host_memory};
use crate::server::settings::written::Written;
use crate::server::size::ByteSize;
use crate::server::time::Time;
use serde::Deserialize;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;
use torpor_proto::layout::MAX_CLIENTS;

/// As many clients as there are addresses for.
const ALL_CLIENTS: NonZeroU32 = NonZeroU32::new(MAX_CLIENTS).unwrap();

/// Contexts take 520 MiB each on an H100.
const EIGHT: NonZeroU32 = NonZeroU32::new(8).unwrap();

settings! {
    /// `[memory]`
    #[derive(Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct MemorySection;

    flags {
        /// Device memory that all functions together may use on one GPU; a list has one for each GPU
        #[arg(value_name = "SIZE,...", value_delimiter = ',', value_parser = device_memory)]
        #[serde(deserialize_with = "gpu_limits")]
        gpu_limit: Vec<ByteSize>, "the GPU's memory less 1 GiB or 5 %, whichever is smaller, and less another 576 MiB or 2.5 % where a \
            spare worker stands ready";

        /// Page-locked host memory in which functions are kept while they have no GPU; it grows as needed
        #[arg(value_name = "SIZE")]
        #[serde(deserialize_with = "host_memory")]
        host_pool: ByteSize, "half of the machine's memory";

        /// Where idle functions' memory goes when the host pool is full
        #[arg(value_name = "DIR")]
        spill_dir: PathBuf, "nowhere, new allocations fail then";

        /// Device memory of each GPU for each other one that it reaches, through which the memory of clients that move comes without
        /// the host; 0 for none
        #[arg(value_name = "SIZE")]
        peer_buffer: ByteSize = ByteSize(32 << 20);

        /// How much may lie in the spill directory
        #[arg(value_name = "SIZE")]
        spill_limit: ByteSize, "what the disk has";
    }

    keys {
        /// Page-locked host memory that all functions together may have on one GPU, staging included
        pinned_limit: ByteSize, "half of what the host pool leaves of the machine's memory, at least 1 GiB";

        /// Code that is kept in files
        image_limit: ByteSize = ByteSize(8 << 30);

        /// Code that is kept on a GPU though nobody uses it, with that in use
        code_limit: ByteSize = ByteSize(1 << 30);
    }
}

settings! {
    /// `[scheduler]`
    #[derive(Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct SchedulerSection;

    flags {
        /// Clients that may use one GPU at the same time: a number, or "auto" for those whose memory is there together
        #[arg(value_name = "N")]
        active_per_gpu: ActiveLimit = ActiveLimit::Auto;

        /// How long a client keeps its GPU after its last command
        #[arg(value_name = "TIME")]
        linger: Time = Time(Duration::from_millis(100));

        /// How long functions that ask for more all the time, and do not fit beside each other, wait for each other's turns
        #[arg(value_name = "TIME")]
        busy_turn: Time = Time(Duration::from_millis(200));

        /// Whether idle functions' state and memory are saved, so that they survive a fault of another one
        #[arg(value_name = "BOOL")]
        cover: bool = true;

        /// Whether busy functions that do not fit beside the others work with a part of their memory on the GPU
        #[arg(value_name = "BOOL")]
        lean: bool = true;

        /// Whether a second worker of each GPU stands ready, with a context of its own, to take over at once when the first one ends
        #[arg(value_name = "BOOL")]
        spare_worker: bool = true;

        /// Strict functions that may have a worker of their own on one GPU at the same time
        #[arg(value_name = "N")]
        strict_per_gpu: NonZeroU32 = EIGHT;

        /// Who leaves a GPU first when others need the room
        eviction: Eviction = Eviction::Predicted;
    }

    followed_flags {
        /// Where a client goes that waits for its turn
        placement: Placement = Placement::Deadline;
    }

    keys {
        /// Clients of all functions at a time
        #[serde(deserialize_with = "clients_of_node")]
        max_clients: NonZeroU32 = ALL_CLIENTS;
    }

    // By the router.
    followed {
        /// In which order the router's requests come to the GPUs
        policy: Policy = Policy::Deadline;

        /// Requests of all functions that the router lets be there at once
        max_running: NonZeroUsize, "all";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::settings::declare::flag;

    /// A row of a table, by its cells without quotes and links' targets.
    fn cells(row: &str) -> Vec<String> {
        let plain = |cell: &str| {
            let (mut text, mut rest) = (String::new(), cell);
            while let Some((before, (link, after))) = rest
                .split_once('[')
                .and_then(|(before, rest)| Some((before, rest.split_once("](")?)))
                .and_then(|(before, (link, rest))| Some((before, (link, rest.split_once(')')?.1))))
            {
                text.extend([before, link]);
                rest = after;
            }
            (text + rest).trim().replace(['`', '"'], "")
        };
        row.trim_matches('|').split('|').map(plain).collect()
    }

    #[test]
    fn the_document_has_each_key_with_its_default_and_its_flag() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let document = std::fs::read_to_string(path).unwrap();
        let sections = [
            ("memory", MemorySection::default().settings()),
            ("scheduler", SchedulerSection::default().settings()),
        ];
        for (section, settings) in sections {
            let (_, text) = document.split_once(&format!("\n## `[{section}]`\n")).unwrap();
            let table =
                text.split("\n## ").next().unwrap().lines().skip_while(|line| !line.starts_with("| key"));
            let rows: Vec<_> = table.take_while(|line| line.starts_with('|')).map(cells).collect();
            let rows = || rows.iter().skip(2).filter(|row| !row[0].is_empty());
            for row in rows() {
                assert!(
                    settings.iter().any(|setting| setting.name == row[0]),
                    "[{section}] has no {}",
                    row[0]
                );
            }
            for setting in &settings {
                let row = rows().find(|row| setting.name == row[0]);
                let row = row.unwrap_or_else(|| panic!("{path}: [{section}] {} is missing", setting.name));
                assert_eq!(row[2], setting.default, "{path}: default of [{section}] {}", setting.name);
                let is_flag = row[3] == flag(setting.name);
                assert_eq!(is_flag, setting.kind.is_flag(), "{path}: flag of [{section}] {}", setting.name);
            }
        }
    }
}
