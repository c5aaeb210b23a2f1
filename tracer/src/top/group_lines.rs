//! Selects, sorts and describes handshake groups and listeners.

use std::cmp::Reverse;

use tracer_core::{
    analysis::{GroupKey, GroupReport, ListenAddress, ListenerHandshakes, ListenerReport},
    escape::escape,
};

use crate::{
    report::{endpoint_text, fault_text, group_text},
    top::{HandshakeLine, ListenerLine, Query, Sort, rates::Counts},
};

/// Most groups of handshakes in the table.
const MAX_GROUPS: usize = 100;

/// Returns the first handshake groups in the order of a query. `groups` has the worst first.
pub(super) fn handshakes(
    groups: &[GroupReport<'_>],
    rates: &Counts<GroupKey>,
    query: &Query,
) -> Vec<HandshakeLine> {
    let rate = |group: &GroupReport<'_>| rates.get(group.key).copied().unwrap_or(0);
    let mut listed: Vec<&GroupReport<'_>> = groups.iter().filter(|group| lists_group(group, query)).collect();
    // The sort is stable: groups with equal keys stay in the order of their score.
    match query.sort {
        Sort::Group => listed.sort_by_cached_key(|group| group_text(group.key)),
        Sort::Count => listed.sort_by_key(|group| Reverse(group.stats.count())),
        Sort::Rate => listed.sort_by_key(|group| Reverse(rate(group))),
        Sort::Failed => listed.sort_by_key(|group| Reverse(group.stats.not_completed())),
        Sort::Resent => listed.sort_by_key(|group| Reverse(group.stats.retransmitted().0)),
        Sort::Handshake => listed.sort_by_cached_key(|group| Reverse(group.stats.durations().quantile(0.99))),
        _ => {}
    }
    if query.reversed {
        listed.reverse();
    }
    listed.truncate(MAX_GROUPS);
    listed.into_iter().map(|group| handshake_line(group, rate(group))).collect()
}

fn lists_group(group: &GroupReport<'_>, query: &Query) -> bool {
    query.search.is_empty() || query.matches(&format!("{} {}", group_text(group.key), why(group)))
}

/// Returns the faults of a group in words; empty without a fault.
fn why(group: &GroupReport<'_>) -> String {
    let faults: Vec<String> = group.score.faults.iter().map(fault_text).collect();
    faults.join("; ")
}

fn handshake_line(group: &GroupReport<'_>, per_second: u64) -> HandshakeLine {
    let durations = group.stats.durations();
    HandshakeLine {
        group: group_text(group.key),
        count: group.stats.count(),
        failed: group.stats.not_completed(),
        resent: group.stats.retransmitted().0,
        per_second,
        times: [durations.quantile(0.5), durations.quantile(0.99), durations.max()],
        why: why(group),
        is_offender: group.score.is_offender(),
    }
}

/// Returns the address at which the handshakes of a listener are counted.
pub(super) fn listen_address(report: &ListenerReport) -> ListenAddress {
    (report.socket.netns, report.socket.local)
}

/// Returns the line of a listener.
pub(super) fn listener_line(report: &ListenerReport, rates: &Counts<ListenAddress>) -> ListenerLine {
    let handshakes = report.handshakes.as_ref();
    ListenerLine {
        local: report.socket.local,
        netns: report.socket.netns,
        process: report.process,
        queue: report.socket.accept_queue,
        half_open: report.half_open,
        drops: report.drops_during,
        established: handshakes.map(ListenerHandshakes::established),
        abandoned: handshakes.map(ListenerHandshakes::abandoned),
        per_second: handshakes.map(|_| rates.get(&listen_address(report)).copied().unwrap_or(0)),
        handshake_p99: handshakes.and_then(|handshakes| handshakes.durations().quantile(0.99)),
        accept_wait_p99: handshakes.and_then(|handshakes| handshakes.accept_waits().quantile(0.99)),
    }
}

/// Returns whether a query lists a listener.
pub(super) fn lists_listener(report: &ListenerReport, query: &Query) -> bool {
    if query.search.is_empty() {
        return true;
    }
    let process = report.process.map(|process| format!("{} {}", escape(process.name()), process.pid));
    // With the space, `:80 ` is port 80 and not 8080.
    query.matches(&format!("{} {}", endpoint_text(report.socket.local), process.unwrap_or_default()))
}

/// Sorts listeners, which have the worst first, in the order of a query.
pub(super) fn sort_listeners(lines: &mut [ListenerLine], query: &Query) {
    // The sort is stable: listeners with equal keys stay in the order of the worst.
    match query.sort {
        Sort::Local => lines.sort_by_key(|line| (line.local.port, line.local.address)),
        Sort::Queue => lines.sort_by_key(|line| Reverse(line.queue.map(|queue| queue.length))),
        Sort::HalfOpen => lines.sort_by_key(|line| Reverse(line.half_open)),
        Sort::Dropped => lines.sort_by_key(|line| Reverse(line.drops)),
        Sort::Count => lines.sort_by_key(|line| Reverse(line.established)),
        Sort::Rate => lines.sort_by_key(|line| Reverse(line.per_second)),
        Sort::Handshake => lines.sort_by_key(|line| Reverse(line.handshake_p99)),
        Sort::AcceptWait => lines.sort_by_key(|line| Reverse(line.accept_wait_p99)),
        Sort::Process => {
            lines.sort_by_key(|line| line.process.map(|process| (process.comm, process.pid)));
        }
        _ => {}
    }
    if query.reversed {
        lines.reverse();
    }
}
