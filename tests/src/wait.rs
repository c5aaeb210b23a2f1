//! Waits for observable conditions.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::speed::limit;

/// Polls `probe` until it returns a value. Panics with `what` when the limit passes.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let limit = limit();
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < end, "waited {limit:?} for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Sleeps for at least `time`, and returns the actual duration. The traced state must last at least as long.
pub fn pause(time: Duration) -> Duration {
    let start = Instant::now();
    thread::sleep(time);
    start.elapsed()
}
