//! Reads the host settings for the core's model of TIME_WAIT.

use std::fs;

use tracer_core::{event::Nanos, lifecycle::TimeWaitModel};

/// Returns the model with the FIN_WAIT2 timeout of this network namespace, or the kernel's default if it cannot be
/// read.
///
/// The setting is `net.ipv4.tcp_fin_timeout`, seconds (`tcp_fin_time`, 6.18 include/net/tcp.h).
pub(crate) fn time_wait_model() -> TimeWaitModel {
    fs::read_to_string("/proc/sys/net/ipv4/tcp_fin_timeout")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
        .map_or_else(TimeWaitModel::default, |seconds| TimeWaitModel {
            fin_timeout: Nanos::from_secs(seconds),
        })
}
