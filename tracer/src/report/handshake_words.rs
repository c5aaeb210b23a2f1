//! Handshakes in words: the story of one, and what is wrong with a group.

use tracer_core::{
    analysis::{Fault, GroupKey, HandshakeAttempt, HandshakeOutcome},
    escape::escape,
    lifecycle::{CloseReason, DurationSource, HandshakeCaveat, Role},
};

use crate::report::{
    errno,
    text::{self, EndpointText},
};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// Below this many a share is told in numbers, not in percent.
const FEW: u64 = 20;
/// Waits that are listed one by one; more are summed up.
const LISTED_WAITS: u8 = 5;

/// A duration with its unit apart, as in a sentence: `40 ms`, `3.02 s`.
pub(super) fn time(nanoseconds: u64) -> String {
    let (value, unit) = match nanoseconds {
        ..MS => (thousandths(nanoseconds, 1_000), "µs"),
        MS..SECOND => (thousandths(nanoseconds, MS), "ms"),
        _ if nanoseconds < 60 * SECOND => (thousandths(nanoseconds, SECOND), "s"),
        _ => return text::duration_text(Some(nanoseconds)),
    };
    format!("{value} {unit}")
}

/// Three digits at least.
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn thousandths(nanoseconds: u64, unit: u64) -> String {
    let value = nanoseconds as f64 / unit as f64;
    let text = match value {
        ..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => return format!("{value:.0}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The name of a group for people: of a container's id no more than is usually shown.
pub fn group_text(key: &GroupKey) -> String {
    match key {
        GroupKey::Container(Some(id)) => escape(id.chars().take(12).collect::<String>().as_bytes()),
        other => group_name(other),
    }
}

/// The name of a group, whole.
pub(super) fn group_name(key: &GroupKey) -> String {
    match key {
        GroupKey::Service(endpoint) => EndpointText(*endpoint).to_string(),
        GroupKey::Served(port) => format!("port {port} here"),
        GroupKey::Remote(address) => address.to_string(),
        GroupKey::RemotePort(0) | GroupKey::LocalPort(0) => "no port".to_owned(),
        GroupKey::RemotePort(port) | GroupKey::LocalPort(port) => format!("port {port}"),
        GroupKey::Process(Some(comm)) => {
            let end = comm.iter().position(|&byte| byte == 0).unwrap_or(comm.len());
            escape(&comm[..end])
        }
        GroupKey::Process(None) => "unknown process".to_owned(),
        GroupKey::Container(Some(id)) => escape(id.as_bytes()),
        GroupKey::Container(None) => "no container".to_owned(),
        GroupKey::Role(role) => role.name().to_owned(),
        GroupKey::All => "all".to_owned(),
        GroupKey::Other => "~other".to_owned(),
    }
}

/// A share in percent, or in numbers when there are few.
fn share(count: u64, of: u64) -> String {
    if of < FEW {
        return format!("{count} of {of}");
    }
    match count * 100 / of {
        0 => format!("{count} of {of}"),
        percent => format!("{percent} %"),
    }
}

/// What is wrong, in a few words.
pub fn fault(fault: &Fault) -> String {
    match *fault {
        Fault::Failing { outcome, count, of } => {
            format!("{} {}", share(count, of), failed_words(outcome))
        }
        Fault::Losing { count, of, mean_wait_ns } => match mean_wait_ns {
            Some(wait) => format!("{} lost a SYN, each waits {}", share(count, of), time(wait)),
            None => format!("{} lost a SYN", share(count, of)),
        },
        Fault::Slow { p50_ns, host_ns, by_network } => {
            let what = if by_network { "slow network" } else { "slow" };
            format!("{what}: p50 {}, host's median {}", time(p50_ns), time(host_ns))
        }
    }
}

/// How openings end, after a number of them.
fn failed_words(outcome: HandshakeOutcome) -> &'static str {
    match outcome {
        HandshakeOutcome::Established => "established",
        HandshakeOutcome::Failed(CloseReason::TimedOut) => "timed out",
        HandshakeOutcome::Failed(CloseReason::NoLocalPort) => "found no local port",
        HandshakeOutcome::Failed(CloseReason::Unknown) => "failed",
        HandshakeOutcome::Failed(CloseReason::ResetByPeer) => "reset by the peer",
        HandshakeOutcome::Failed(reason) => reason.name(),
        HandshakeOutcome::Abandoned => "abandoned by the client",
    }
}

/// What happened to one handshake.
pub fn story(opening: &HandshakeAttempt) -> String {
    match opening.outcome {
        HandshakeOutcome::Established => established(opening),
        HandshakeOutcome::Failed(reason) => failed(opening, reason),
        HandshakeOutcome::Abandoned => abandoned(opening),
    }
}

fn established(opening: &HandshakeAttempt) -> String {
    let Some(duration) = opening.duration_ns else {
        return match opening.caveat {
            Some(HandshakeCaveat::RetransmitSchedule) => {
                format!("unknown: {} sent again, which of them was answered is not known", answers(opening))
            }
            _ => "unknown: the kernel has no sample".to_owned(),
        };
    };
    let about = if opening.source == DurationSource::Modelled { "about " } else { "" };
    let made_of = match parts(opening, duration) {
        Parts::Unknown => String::new(),
        Parts::All(part) => format!(", all {part}"),
        Parts::Sum(parts) if parts.len() == 1 => format!(", {}", parts[0]),
        Parts::Sum(parts) => format!(" = {}", parts.join(" + ")),
    };
    let mut story = format!("{about}{}{made_of}", time(duration));
    match opening.caveat {
        Some(HandshakeCaveat::SynCookie) => story.push_str(", up to 64 ms too long (SYN cookie)"),
        Some(HandshakeCaveat::FirstData) => {
            story.push_str(" until the client's first data, which it may have waited for");
        }
        Some(HandshakeCaveat::SynAckRetransmitted | HandshakeCaveat::RetransmitSchedule) | None => {}
    }
    story
}

enum Parts {
    Unknown,
    All(&'static str),
    Sum(Vec<String>),
}

fn parts(opening: &HandshakeAttempt, duration: u64) -> Parts {
    let split = opening.split();
    let mut parts = Vec::new();
    let wait = split.resends.unwrap_or(0);
    if opening.lost_a_syn() == Some(true) {
        parts.push(lost(opening, wait));
    }
    if let Some(network) = split.network {
        // A tenth and a millisecond is more than the grain of the clocks.
        let rest = duration.saturating_sub(network).saturating_sub(wait);
        let matters = rest > MS && rest > duration / 10;
        if parts.is_empty() && !matters {
            return Parts::All("network");
        }
        parts.push(format!("{} network", time(network)));
        if matters {
            parts.push(format!("{} in this host", time(rest)));
        }
    } else if !parts.is_empty() && wait > 0 {
        let rest = duration.saturating_sub(wait);
        parts.push(format!("{} until the answer", time(rest)));
    }
    if parts.is_empty() { Parts::Unknown } else { Parts::Sum(parts) }
}

/// `2 SYNs lost (1 s + 2 s)`.
fn lost(opening: &HandshakeAttempt, wait: u64) -> String {
    let count = opening.retransmits.unwrap_or(0);
    let what = if opening.role == Role::Server { "SYN-ACK" } else { "SYN" };
    let counted = format!("{count} {what}{} lost", if count == 1 { "" } else { "s" });
    if wait < SECOND / 2 {
        // The first was answered after all, only later than the kernel waits for an answer.
        return match opening.rtt_ns {
            Some(_) => format!("{count} {what}{} resent in vain", if count == 1 { "" } else { "s" }),
            None => format!("{counted} (waits unknown)"),
        };
    }
    match opening.schedule() {
        Some(schedule) if schedule.resends == count && count <= LISTED_WAITS => {
            let waits: Vec<String> = schedule.intervals().map(|seconds| format!("{seconds} s")).collect();
            format!("{counted} ({})", waits.join(" + "))
        }
        _ => format!("{counted} ({})", time(wait)),
    }
}

fn answers(opening: &HandshakeAttempt) -> String {
    let count = opening.retransmits.unwrap_or(0);
    format!("{count} SYN-ACK{}", if count == 1 { "" } else { "s" })
}

fn failed(opening: &HandshakeAttempt, reason: CloseReason) -> String {
    let after = opening.duration_ns.map(|duration| format!(" after {}", time(duration))).unwrap_or_default();
    let resent = opening.retransmits.unwrap_or(0);
    let sent = format!("{} SYN{}", u16::from(resent) + 1, if resent == 0 { "" } else { "s" });
    let name = match opening.error {
        Some(error) if reason == CloseReason::Unreachable => format!(" ({})", errno::name(error)),
        _ => String::new(),
    };
    match (reason, opening.retransmits, opening.duration_ns) {
        (CloseReason::TimedOut, Some(_), Some(duration)) => {
            format!("timed out after {sent}: no answer in {}", time(duration))
        }
        (CloseReason::TimedOut, ..) => format!("timed out{after}: no answer"),
        (CloseReason::Cancelled, Some(1..), Some(duration)) => {
            format!("given up by the application after {sent}: no answer in {}", time(duration))
        }
        (CloseReason::Cancelled, ..) => format!("given up by the application{after}"),
        (CloseReason::NoLocalPort, ..) => "no local port was free".to_owned(),
        (CloseReason::Unknown, ..) => format!("failed{after}, for an unknown reason"),
        (CloseReason::ResetByPeer, ..) => format!("reset by the peer{after}"),
        (reason, Some(1..), _) => format!("{}{name}{after}, {sent}", reason.name()),
        (reason, ..) => format!("{}{name}{after}", reason.name()),
    }
}

fn abandoned(opening: &HandshakeAttempt) -> String {
    let sent = u16::from(opening.retransmits.unwrap_or(0)) + 1;
    let waited =
        opening.duration_ns.map(|duration| format!(" in more than {}", time(duration))).unwrap_or_default();
    format!("abandoned by the client: {sent} SYN-ACKs, no final ACK{waited}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_whole_for_machines_and_short_for_people() {
        let id = "0123456789abcdef".repeat(4);
        let key = GroupKey::Container(Some(id.as_str().into()));
        assert_eq!(group_name(&key), id);
        assert_eq!(group_text(&key), "0123456789ab");
    }
}
