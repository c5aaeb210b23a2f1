//! Adjusts limits and tolerances of the scenarios to the machine's speed.
//!
//! [`EMULATED`] in the environment, with any value but `0`, marks an emulated processor, which is tens of
//! times slower, at an uneven speed. `cargo xtask vm` sets it in its machines unless they use KVM. Its
//! effects:
//!
//! - Scenarios with many connections open fewer of them ([`count`]). Their assertions stay the same.
//! - Every wait has a longer limit ([`limit`]). Reaching it is still a failure.
//! - A reported time may differ more from the time that a relay imposed and measured ([`tolerance`]). The
//!   relay is a guest thread: between its timestamp and the kernel's, the emulator may preempt its processor.
//! - Slack of a few milliseconds on exact bounds is ten times as long ([`slack`]), for the same reason. Two
//!   scenarios use it. One checks the kernel's round-trip sample of a client's handshake against two
//!   timestamps of the relay: 20 ms of slack still separates a round trip of 60 ms from lost SYNs, which cost
//!   1 s and more. The other checks the duration from a SYN cookie, which has millisecond resolution and up
//!   to 64 ms of option bits: 30 ms of slack still separates a duration from none.

use std::{env, sync::LazyLock, time::Duration};

/// The environment variable.
pub const EMULATED: &str = "TCPTRACE_TEST_EMULATED";

/// Returns whether the processor is emulated.
pub fn emulated() -> bool {
    static IS: LazyLock<bool> = LazyLock::new(|| env::var_os(EMULATED).is_some_and(|value| value != "0"));
    *IS
}

/// Returns the first value, or the second if the processor is emulated.
pub fn count<T>(usual: T, where_emulated: T) -> T {
    if emulated() { where_emulated } else { usual }
}

/// Limit of every wait: 30 s, emulated 120 s. It is generous, because reaching it is a failure.
pub fn limit() -> Duration {
    Duration::from_secs(count(30, 120))
}

/// Allowed difference between a reported duration and the duration that the relay measured: 2 ms or 2 %,
/// whichever is more; emulated 20 ms or 5 %, because a single context switch can take milliseconds there.
pub fn tolerance(measured: Duration) -> Duration {
    let (least, percent) = count((2, 2), (20, 5));
    Duration::from_millis(least).max(measured * percent / 100)
}

/// Returns the given slack, or ten times as much if the processor is emulated.
pub fn slack(usual: Duration) -> Duration {
    usual * count(1, 10)
}

/// Prints that this kernel does not support the test, in the form that `cargo xtask vm` parses. The caller
/// must then end the test.
pub fn not_possible(reason: &str) {
    #[expect(clippy::print_stdout, reason = "`cargo xtask vm` reads the stdout of tests")]
    {
        println!("not possible on this kernel: {reason}");
    }
}
