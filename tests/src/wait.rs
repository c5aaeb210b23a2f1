//! Waiting for something that can be observed.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::speed::limit;

/// Looks until `look` finds something, and panics with `what` when the limit passes without.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let limit = limit();
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Lets time pass that a traced state must then show, and tells how much it was.
pub fn pause(time: Duration) -> Duration {
    let start = Instant::now();
    thread::sleep(time);
    start.elapsed()
}
