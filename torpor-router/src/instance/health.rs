//! Whether a program answers, and what it is told when it does.

use crate::function::Function;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// From one look at a program's health to the next.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// How long it may take to say that it is healthy.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How much of what it says beside that is taken, and for how long that is waited for.
const PROBE_BYTES: u64 = 64 << 10;
const PROBE_PATIENCE: Duration = Duration::from_millis(100);

/// Says that an instance is healthy once it is, and why it is no more. `ended` says how it was when it ends by itself, and
/// `process_group` what its program is once it is healthy.
pub(super) async fn live(
    function: &Arc<Function>,
    id: u64,
    address: Arc<str>,
    process_group: impl FnOnce() -> u32,
    ended: impl Future<Output = String>,
) -> String {
    let mut ended = pin!(ended);
    let started = Instant::now();
    let healthy = async {
        while !is_healthy(&address, &function.deployment.health_path).await {
            sleep(PROBE_INTERVAL).await;
        }
    };
    tokio::select! {
        () = healthy => {}
        ended = &mut ended => return ended + " before it was healthy",
        () = sleep(function.deployment.start_timeout) => {
            let path = &function.deployment.health_path;
            return format!("not healthy within {:?}: GET {path} on {address} gives no 2xx", function.deployment.start_timeout);
        }
    }
    tracing::info!(function = &*function.name, id, %address, "ready after {:?}", started.elapsed());
    function.instance_ready(id, address, process_group());
    ended.await
}

/// Whether a GET is answered with 2xx.
pub(super) async fn is_healthy(address: &str, path: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        // A program that is hung up on while it answers may say so in its log.
        let rest = async { tokio::io::copy(&mut stream.take(PROBE_BYTES), &mut tokio::io::sink()).await };
        let _ = timeout(PROBE_PATIENCE, rest).await;
        io::Result::Ok(status)
    };
    matches!(timeout(PROBE_TIMEOUT, ask).await, Ok(Ok(status)) if status.starts_with(b"HTTP/1.") && status[9] == b'2')
}
