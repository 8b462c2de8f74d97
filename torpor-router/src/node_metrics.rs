//! What the node server says, as metrics beside the router's own: GPUs, and functions' memory and swaps.

use crate::overview::NodeReport;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// A GPU, as the driver counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GpuLabel {
    gpu: u32,
}

/// A function on a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TimeLabels {
    function: String,
    gpu: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FunctionLabel {
    function: String,
}

/// The metrics of one report.
#[must_use]
pub fn registry(report: &NodeReport) -> Registry {
    let mut registry = Registry::with_prefix("torpor");
    let gpu_gauge = |of: fn(&torpor_proto::control::admin::Gpu) -> u64| {
        let family = Family::<GpuLabel, Gauge>::default();
        for gpu in &report.gpus {
            family.get_or_create(&GpuLabel { gpu: gpu.index }).set(of(gpu).try_into().unwrap_or(i64::MAX));
        }
        family
    };
    let used = gpu_gauge(|gpu| gpu.total_memory_bytes.saturating_sub(gpu.free_memory_bytes));
    registry.register_with_unit("gpu_memory_used", "GPU memory in use", Unit::Bytes, used);
    let total = gpu_gauge(|gpu| gpu.total_memory_bytes);
    registry.register_with_unit("gpu_memory_total", "GPU memory", Unit::Bytes, total);
    let healthy = gpu_gauge(|gpu| u64::from(gpu.state == "ready"));
    registry.register("gpu_healthy", "Whether the GPU's worker and driver answer", healthy);
    let restarts = Family::<GpuLabel, Counter>::default();
    for gpu in &report.gpus {
        restarts.get_or_create(&GpuLabel { gpu: gpu.index }).inc_by(gpu.worker_restarts);
    }
    registry.register("worker_restarts", "Worker processes that ended", restarts);

    let times = Family::<TimeLabels, Counter<f64, AtomicU64>>::default();
    for gpu in &report.gpus {
        for time in &gpu.times {
            let labels = TimeLabels { function: time.function.clone(), gpu: gpu.index };
            times.get_or_create(&labels).inc_by(Duration::from_micros(time.gpu_us).as_secs_f64());
        }
    }
    registry.register_with_unit("gpu", "Time in which the function used the GPU", Unit::Seconds, times);

    let (resident, host) =
        (Family::<FunctionLabel, Gauge>::default(), Family::<FunctionLabel, Gauge>::default());
    let (turns, swaps) =
        (Family::<FunctionLabel, Counter>::default(), Family::<FunctionLabel, Counter>::default());
    for function in &report.functions {
        let label = FunctionLabel { function: function.name.clone() };
        let gauge = |bytes: u64| bytes.try_into().unwrap_or(i64::MAX);
        resident.get_or_create(&label).set(gauge(function.resident_bytes));
        host.get_or_create(&label).set(gauge(function.host_bytes));
        turns.get_or_create(&label).inc_by(function.requests);
        swaps.get_or_create(&label).inc_by(function.swaps);
    }
    registry.register_with_unit("function_resident", "Memory on GPUs", Unit::Bytes, resident);
    registry.register_with_unit("function_host", "Memory in the host store", Unit::Bytes, host);
    registry.register("function_turns", "Times that the function was given a GPU", turns);
    registry.register("function_swaps", "Times that memory had to come for that", swaps);
    registry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use std::collections::BTreeSet;
    use torpor_proto::control::admin;

    fn text() -> String {
        let gpu = admin::Gpu {
            index: 1,
            state: "ready".to_owned(),
            total_memory_bytes: 100,
            free_memory_bytes: 30,
            times: vec![admin::FunctionTime { function: "f".to_owned(), gpu_us: 2_500_000 }],
            ..admin::Gpu::default()
        };
        let function = admin::Function { name: "f".to_owned(), swaps: 3, ..admin::Function::default() };
        let report = NodeReport { gpus: vec![gpu], functions: vec![function], ..NodeReport::default() };
        let metrics = Metrics::default();
        metrics.of("f").answered(200);
        metrics.text(&registry(&report))
    }

    #[test]
    fn the_node_s_numbers_stand_beside_the_router_s() {
        let text = text();
        for line in [
            "torpor_requests_total{function=\"f\",code=\"200\"} 1",
            "torpor_gpu_memory_used_bytes{gpu=\"1\"} 70",
            "torpor_gpu_healthy{gpu=\"1\"} 1",
            "torpor_gpu_seconds_total{function=\"f\",gpu=\"1\"} 2.5",
            "torpor_function_swaps_total{function=\"f\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
        }
        assert_eq!(text.matches("# EOF").count(), 1);
    }

    #[test]
    fn the_dashboard_asks_for_metrics_that_there_are() {
        let board = include_str!("../../deploy/grafana/torpor.json");
        let board: serde_json::Value = serde_json::from_str(board).unwrap();
        let panels = board["panels"].as_array().unwrap();
        let asked = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
        let asked: String = asked.map(|target| target["expr"].as_str().unwrap().to_owned() + " ").collect();
        let word = |text: &str| -> BTreeSet<String> {
            let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            words.filter(|word| word.starts_with("torpor_")).map(str::to_owned).collect()
        };
        let (asked, there) = (word(&asked), word(&text()));
        assert!(asked.len() > 8, "{asked:?}");
        assert_eq!(asked.difference(&there).collect::<Vec<_>>(), Vec::<&String>::new());
    }
}
