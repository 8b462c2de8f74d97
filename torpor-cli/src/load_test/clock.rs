//! A clock that says when a request is due.
//!
//! The runtime's timers have milliseconds, and wake up to two of them late: as long as some requests take, and part of every latency, as that
//! counts from when the request was due. A thread that sleeps is late by a twentieth of one.

use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Tells of each of these times after `begin`, which are in order, when it has come. It ends when nobody listens.
pub fn tell(begin: Instant, times: Vec<Duration>) -> UnboundedReceiver<Duration> {
    let (teller, told) = unbounded_channel();
    std::thread::spawn(move || {
        for at in times {
            std::thread::sleep((begin + at).saturating_duration_since(Instant::now()));
            if teller.send(at).is_err() {
                break;
            }
        }
    });
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_times_are_told_in_order_and_none_before_it_has_come() {
        let begin = Instant::now() + Duration::from_millis(20);
        let times: Vec<Duration> = [0, 1, 1, 30].map(Duration::from_millis).to_vec();
        let mut told = tell(begin, times.clone());
        for at in times {
            assert_eq!(told.recv().await, Some(at));
            assert!(begin.elapsed() >= at && Instant::now() >= begin);
        }
        assert_eq!(told.recv().await, None);
    }
}
