//! A token bucket: so many at once, then so many a second.

use std::time::{Duration, Instant};

/// How many tokens there are.
#[derive(Debug)]
pub struct Bucket {
    burst: f64,
    per_second: f64,
    tokens: f64,
    counted: Instant,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        Self { burst: burst.into(), per_second: per_second.into(), tokens: burst.into(), counted: now }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// How long it takes until there is one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.counted).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        self.counted = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        // Rounded up, so that there is one then.
        Err(Duration::from_secs_f64((1.0 - self.tokens) / self.per_second) + Duration::from_micros(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_so_many_a_second() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(3, 2, begin);
        assert_eq!((0..3).filter(|_| bucket.take(begin).is_ok()).count(), 3);
        let wait = bucket.take(begin).unwrap_err();
        assert!(wait >= Duration::from_millis(500) && wait < Duration::from_millis(501), "{wait:?}");
        bucket.take(begin + wait).unwrap();
        bucket.take(begin + wait).unwrap_err();
        // What is not used is not kept beyond the burst.
        let later = begin + Duration::from_secs(3600);
        assert_eq!((0..9).filter(|_| bucket.take(later).is_ok()).count(), 3);
    }
}
