//! An instance that somebody else keeps: it is probed, and nothing else.

use crate::function::Function;
use crate::instance::Stop;
use crate::instance::health::is_healthy;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// From one look to the next.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Looks in a row that it may fail.
const WATCH_FAILURES: u32 = 3;

/// Watches an endpoint until it is no more healthy.
pub(super) async fn run(function: &Arc<Function>, address: Arc<str>, id: u64, stop: &mut Stop) -> String {
    let path = &function.deployment.health_path;
    let healthy = async {
        while !is_healthy(&address, path).await {
            sleep(WATCH_INTERVAL).await;
        }
        function.instance_ready(id, address.clone(), 0);
        let mut failures = 0;
        while failures < WATCH_FAILURES {
            sleep(WATCH_INTERVAL).await;
            failures = if is_healthy(&address, path).await { 0 } else { failures + 1 };
        }
    };
    tokio::select! {
        () = healthy => format!("{address} is not healthy any more: GET {path} gives no 2xx"),
        () = stop.wanted() => "no longer an endpoint".to_owned(),
    }
}
