//! Settings of the traced host that the core's model of TIME_WAIT needs.

use std::fs;

use tracer_core::lifecycle::TimeWaitModel;

/// The administrator's FIN_WAIT2 timeout in this network namespace; the kernel's default elsewhere.
///
/// `net.ipv4.tcp_fin_timeout`, seconds (`tcp_fin_time`, 6.18 include/net/tcp.h).
pub fn time_wait_model() -> TimeWaitModel {
    fs::read_to_string("/proc/sys/net/ipv4/tcp_fin_timeout")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
        .map_or_else(TimeWaitModel::default, |seconds| TimeWaitModel {
            fin_timeout_ns: seconds.saturating_mul(1_000_000_000),
        })
}
