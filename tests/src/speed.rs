//! How fast the machine is that the scenarios run on.
//!
//! [`EMULATED`] in the environment, with any value but `0`, says that the processor is emulated, which is
//! some tens of times slower and not evenly so. `cargo xtask vm` sets it in its machines unless they use KVM.
//! It changes these and nothing else:
//!
//! - There are fewer connections in scenarios that make many ([`count`]). What they assert stays the same.
//! - Every wait has a longer limit ([`limit`]). Reaching it is a failure there as well.
//! - A time that a relay imposed and measured may differ more from the one shown ([`tolerance`]). The relay is a
//!   thread of the guest: between its note of the time and the kernel's own, its processor may be taken away,
//!   and gets it back after a turn of the emulator's, not of the guest's scheduler.
//! - A few milliseconds that a scenario adds to an exact bound are ten times as many ([`slack`]), for the same
//!   reason. Two scenarios do: the kernel's round-trip sample of a client's handshake, whose bounds are two notes
//!   of the relay, and the duration that comes back in a SYN cookie, of which the kernel knows milliseconds and up
//!   to 64 of them are no time. What they tell apart is far more than the 20 and 30 ms: a round trip of 60 ms from
//!   one that includes lost SYNs, 1 s and more, and a duration from none.

use std::{env, sync::LazyLock, time::Duration};

/// The variable.
pub const EMULATED: &str = "TCPTRACE_TEST_EMULATED";

/// Whether the processor is emulated.
pub fn emulated() -> bool {
    static IS: LazyLock<bool> = LazyLock::new(|| env::var_os(EMULATED).is_some_and(|value| value != "0"));
    *IS
}

/// The first, or the second where the processor is emulated.
pub fn count<T>(usual: T, where_emulated: T) -> T {
    if emulated() { where_emulated } else { usual }
}

/// The longest that any wait lasts: generous, because reaching it is a failure. 30 s, emulated 120 s.
pub fn limit() -> Duration {
    Duration::from_secs(count(30, 120))
}

/// How far a duration that the program shows may be from `measured`, its value by the relay: 2 ms or 2 %,
/// whichever is more; emulated 20 ms or 5 %, for there a single context switch can take milliseconds.
pub fn tolerance(measured: Duration) -> Duration {
    let (least, percent) = count((2, 2), (20, 5));
    Duration::from_millis(least).max(measured * percent / 100)
}

/// A few milliseconds that a scenario allows, or ten times as much where the processor is emulated.
pub fn slack(usual: Duration) -> Duration {
    usual * count(1, 10)
}

/// Says on stdout that this kernel cannot do what the test is about, in the form that `cargo xtask vm` lists;
/// the test is to end then.
pub fn not_possible(reason: &str) {
    #[expect(clippy::print_stdout, reason = "what a test prints is its report")]
    {
        println!("not possible on this kernel: {reason}");
    }
}
