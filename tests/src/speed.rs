//! How fast the machine is that the scenarios run on.
//!
//! [`EMULATED`] in the environment, with any value but `0`, says that the processor is emulated, which is
//! some tens of times slower and not evenly so. `cargo xtask vm` sets it in its machines unless they use KVM.
//! It changes three things and no other: there are fewer connections in scenarios that make many
//! ([`count`]), every wait has a longer limit ([`limit`]), and a time that a relay imposed and measured may
//! differ more from the one shown ([`tolerance`]).

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
