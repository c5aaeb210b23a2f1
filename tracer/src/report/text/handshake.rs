//! Describes handshakes in words: what happened to one, and what is wrong with a group.

use tracer_core::{
    analysis::{Fault, GroupKey, HandshakeAttempt, HandshakeOutcome},
    counted::counted,
    escape::escape,
    event::{HandshakeSegment, KernelName, Nanos},
    lifecycle::{
        CloseReason, DropPlace, DurationSource, HandshakeCaveat, ObservedDrops, Role, SegmentDrop,
        SegmentDrops,
    },
};

use crate::report::text::{endpoint::EndpointText, errno, quantity::spaced_duration};

/// Totals below this are shown as `3 of 9`, not in percent.
const FEW: u64 = 20;
/// Length of a container id.
const ID_DIGITS: usize = 64;
/// Retransmission waits that are listed one by one; more are shown as their sum.
const LISTED_WAITS: u8 = 5;

/// Returns the name of a group for people: container ids are cut to the usual 12 digits, and every port fits its column.
pub fn group_text(key: &GroupKey) -> String {
    match key {
        GroupKey::Unserved(port) => format!("port {port} here, closed"),
        // A name may be shorter than an id.
        GroupKey::Container(Some(id)) if id.len() == ID_DIGITS => {
            escape(id.chars().take(12).collect::<String>().as_bytes())
        }
        other => group_name(other),
    }
}

/// Returns the full name of a group.
pub(in crate::report) fn group_name(key: &GroupKey) -> String {
    match key {
        GroupKey::Service(endpoint) => EndpointText(*endpoint).to_string(),
        GroupKey::Served(port) => format!("port {port} here"),
        GroupKey::Unserved(port) => format!("port {port} here, nobody listens"),
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
        GroupKey::Pod(Some(name)) | GroupKey::Namespace(Some(name)) | GroupKey::Workload(Some(name)) => {
            escape(name.as_bytes())
        }
        GroupKey::Pod(None) | GroupKey::Namespace(None) | GroupKey::Workload(None) => "no pod".to_owned(),
        GroupKey::Role(role) => role.name().to_owned(),
        GroupKey::All => "all".to_owned(),
        GroupKey::Other => "~other".to_owned(),
    }
}

/// Formats a share in percent, or as `3 of 9` if the total is small or the share below 1 %.
fn share(count: u64, of: u64) -> String {
    if of < FEW {
        return format!("{count} of {of}");
    }
    match count * 100 / of {
        0 => format!("{count} of {of}"),
        percent => format!("{percent} %"),
    }
}

/// Describes a fault of a group in a few words.
pub fn fault_text(fault: &Fault) -> String {
    match *fault {
        Fault::Failing { outcome, count, of } => {
            format!("{} {}", share(count, of), outcome_words(outcome))
        }
        Fault::Resending { count, of, mean_wait } => match mean_wait {
            Some(wait) => format!("{} resent a SYN, each waits {}", share(count, of), spaced_duration(wait)),
            None => format!("{} resent a SYN", share(count, of)),
        },
        Fault::Dropping { drop } => format!("dropped here: {}", drop_text(&drop)),
        Fault::Slow { p50, host_median, by_network } => {
            let what = if by_network { "slow network" } else { "slow" };
            format!("{what}: p50 {}, host's median {}", spaced_duration(p50), spaced_duration(host_median))
        }
    }
}

/// Describes an outcome, to follow a number of handshakes.
pub(in crate::report) fn outcome_words(outcome: HandshakeOutcome) -> &'static str {
    match outcome {
        HandshakeOutcome::Established => "established",
        HandshakeOutcome::Failed(CloseReason::TimedOut) => "timed out",
        HandshakeOutcome::Failed(CloseReason::NoLocalPort) => "had no local port",
        HandshakeOutcome::Failed(CloseReason::Unknown) => "failed",
        HandshakeOutcome::Failed(CloseReason::ResetByPeer) => "reset by the peer",
        HandshakeOutcome::Failed(reason) => reason.name(),
        HandshakeOutcome::Abandoned => "abandoned by the client",
    }
}

/// Describes what happened to one handshake.
pub fn story(attempt: &HandshakeAttempt) -> String {
    let mut story = match attempt.outcome {
        HandshakeOutcome::Established => established(attempt),
        HandshakeOutcome::Failed(_) if attempt.unserved => "refused: nobody listens".to_owned(),
        HandshakeOutcome::Failed(reason) => failed(attempt, reason),
        HandshakeOutcome::Abandoned => abandoned(attempt),
    };
    if let Some(where_lost) = where_lost(attempt) {
        story.push_str("; ");
        story.push_str(&where_lost);
    }
    if let Some(backend) = attempt.backend {
        story.push_str("; backend ");
        story.push_str(&EndpointText(backend).to_string());
    }
    story
}

/// Says where the lost segments of a handshake were lost; none if no segment was lost, or without an answer.
fn where_lost(attempt: &HandshakeAttempt) -> Option<String> {
    if let Some(dropped) = drops_text(&attempt.drops) {
        return Some(dropped);
    }
    let resent = attempt.retransmits.is_some_and(|count| count > 0);
    let lost = match attempt.outcome {
        HandshakeOutcome::Established => attempt.lost == Some(true),
        HandshakeOutcome::Failed(reason) => {
            reason == CloseReason::TimedOut || (reason == CloseReason::Cancelled && resent)
        }
        HandshakeOutcome::Abandoned => true,
    };
    if !lost {
        return None;
    }
    let established = attempt.outcome == HandshakeOutcome::Established;
    let left = match (attempt.drops.observed, established) {
        (ObservedDrops::None, _) => return None,
        // A server's SYN-ACK meets no accept queue. A SYN may: the peer may be on this host, too.
        (ObservedDrops::ExceptFullQueues, _) if attempt.role != Role::Server => {
            return (!established).then(|| "no drop seen on this host".to_owned());
        }
        (_, true) => "it left this host",
        (_, false) => "it left this host, not answered",
    };
    Some(left.to_owned())
}

/// Describes what this host dropped of a handshake: `dropped here: 2 SYNs, netfilter_drop in nft_do_chain`; none if nothing.
pub(in crate::report) fn drops_text(drops: &SegmentDrops) -> Option<String> {
    let dropped: Vec<String> = drops.iter().map(drop_text).collect();
    (!dropped.is_empty()).then(|| format!("dropped here: {}", dropped.join(", ")))
}

/// Describes dropped segments: `2 SYNs, netfilter_drop in nft_do_chain`.
fn drop_text(drop: &SegmentDrop) -> String {
    let count = segments_text(drop.count.into(), drop.segment);
    format!("{count}, {}", cause_text(drop.reason, drop.function))
}

/// Describes a number of segments: `2 SYNs`.
fn segments_text(count: u64, segment: HandshakeSegment) -> String {
    counted(count, segment_name(segment))
}

/// Describes the cause of a drop: `netfilter_drop in nft_do_chain`.
fn cause_text(reason: KernelName, function: Option<KernelName>) -> String {
    let function = function.map(|function| format!(" in {function}")).unwrap_or_default();
    format!("{reason}{function}")
}

/// Describes the dropped segments of a service: `2 SYNs to 192.0.2.1:80, netfilter_drop in nft_do_chain`.
pub(in crate::report) fn place_text(place: &DropPlace, count: u64) -> String {
    let way = if place.segment == HandshakeSegment::SynAck { "from" } else { "to" };
    format!(
        "{} {way} {}, {}",
        segments_text(count, place.segment),
        EndpointText(place.service),
        cause_text(place.reason, place.function)
    )
}

/// Returns the name of a segment for people.
pub(in crate::report) fn segment_name(segment: HandshakeSegment) -> &'static str {
    match segment {
        HandshakeSegment::Syn => "SYN",
        HandshakeSegment::SynAck => "SYN-ACK",
        HandshakeSegment::Ack => "ACK",
    }
}

fn established(attempt: &HandshakeAttempt) -> String {
    let Some(duration) = attempt.duration else {
        return match attempt.caveat {
            Some(HandshakeCaveat::RetransmitSchedule) => {
                let resent = counted(attempt.retransmits.unwrap_or(0), "SYN-ACK");
                format!("unknown: {resent} retransmitted, unclear which one was answered")
            }
            Some(HandshakeCaveat::FastOpenDeferred) => {
                "unknown: Fast Open deferred the SYN, which was then retransmitted".to_owned()
            }
            _ => "unknown: the kernel has no sample".to_owned(),
        };
    };
    let about = if attempt.source == DurationSource::Modelled { "about " } else { "" };
    let made_of = match parts(attempt, duration) {
        Parts::Unknown => String::new(),
        Parts::All(part) => format!(", all {part}"),
        Parts::Sum(parts) if parts.len() == 1 => format!(", {}", parts[0]),
        Parts::Sum(parts) => format!(" = {}", parts.join(" + ")),
    };
    let mut story = format!("{about}{}{made_of}", spaced_duration(duration));
    match attempt.caveat {
        Some(HandshakeCaveat::SynCookie) => story.push_str(", up to 64 ms too long (SYN cookie)"),
        // The final ACK did not arrive. It is known why if this host dropped it; else the client may have had nothing to
        // send for a while.
        Some(HandshakeCaveat::FirstData) => {
            let dropped = attempt.drops.iter().any(|drop| drop.segment == HandshakeSegment::Ack);
            story.push_str(if dropped {
                " until the client's first data, because the final ACK was dropped"
            } else {
                " until the client's first data, which it may have waited for"
            });
        }
        Some(HandshakeCaveat::FastOpenDeferred) => story.push_str(", from the SYN that the first write sent"),
        Some(HandshakeCaveat::SynAckRetransmitted | HandshakeCaveat::RetransmitSchedule) | None => {}
    }
    story
}

/// The parts of a duration.
enum Parts {
    Unknown,
    All(&'static str),
    Sum(Vec<String>),
}

fn parts(attempt: &HandshakeAttempt, duration: Nanos) -> Parts {
    let split = attempt.split();
    let mut parts = Vec::new();
    let wait = split.retransmit_wait.unwrap_or_default();
    match (attempt.lost, attempt.retransmits) {
        (Some(true), _) => parts.push(lost(attempt, wait)),
        (None, Some(count @ 1..)) => {
            let resent = counted(count, segment(attempt));
            parts.push(format!("{resent} resent, although the first one arrived"));
        }
        _ => {}
    }
    if let Some(network) = split.network {
        // More than the resolution of the clocks: 1 ms, and a tenth of the duration.
        let rest = duration.saturating_sub(network).saturating_sub(wait);
        let matters = rest > Nanos::from_millis(1) && rest.saturating_mul(10) > duration;
        if parts.is_empty() && !matters {
            return Parts::All("network");
        }
        parts.push(format!("{} network", spaced_duration(network)));
        if matters {
            parts.push(format!("{} on this host", spaced_duration(rest)));
        }
    } else if !parts.is_empty() && wait > Nanos::ZERO {
        let rest = duration.saturating_sub(wait);
        parts.push(format!("{} until the answer", spaced_duration(rest)));
    }
    if parts.is_empty() { Parts::Unknown } else { Parts::Sum(parts) }
}

/// Returns the name of the segment that this host retransmits.
fn segment(attempt: &HandshakeAttempt) -> &'static str {
    if attempt.role == Role::Server { "SYN-ACK" } else { "SYN" }
}

/// Describes lost SYNs and how long each was waited for: `2 SYNs lost (1 s + 2 s)`.
fn lost(attempt: &HandshakeAttempt, wait: Nanos) -> String {
    let count = attempt.retransmits.unwrap_or(0);
    let lost = format!("{} lost", counted(count, segment(attempt)));
    if wait < Nanos::from_millis(500) {
        return format!("{lost} (waits unknown)");
    }
    match attempt.schedule() {
        Some(schedule) if schedule.retransmits == count && count <= LISTED_WAITS => {
            let waits: Vec<String> =
                schedule.intervals().map(|wait| format!("{} s", wait.as_secs())).collect();
            format!("{lost} ({})", waits.join(" + "))
        }
        _ => format!("{lost} ({})", spaced_duration(wait)),
    }
}

fn failed(attempt: &HandshakeAttempt, reason: CloseReason) -> String {
    let after =
        attempt.duration.map(|duration| format!(" after {}", spaced_duration(duration))).unwrap_or_default();
    let resent = attempt.retransmits.unwrap_or(0);
    let sent = counted(u16::from(resent) + 1, "SYN");
    let name = match attempt.error {
        Some(error) if reason == CloseReason::Unreachable => format!(" ({})", errno::name(error)),
        _ => String::new(),
    };
    match (reason, attempt.retransmits, attempt.duration) {
        (CloseReason::TimedOut, Some(_), Some(duration)) => {
            format!("timed out after {sent}: no answer in {}", spaced_duration(duration))
        }
        (CloseReason::TimedOut, ..) => format!("timed out{after}: no answer"),
        (CloseReason::Cancelled, Some(1..), Some(duration)) => {
            format!("given up by the application after {sent}: no answer in {}", spaced_duration(duration))
        }
        (CloseReason::Cancelled, ..) => format!("given up by the application{after}"),
        (CloseReason::NoLocalPort, ..) => "no local port was free".to_owned(),
        (CloseReason::Unknown, ..) => format!("failed{after}, for an unknown reason"),
        (CloseReason::ResetByPeer, ..) => format!("reset by the peer{after}"),
        (reason, Some(1..), _) => format!("{}{name}{after}, {sent}", reason.name()),
        (reason, ..) => format!("{}{name}{after}", reason.name()),
    }
}

fn abandoned(attempt: &HandshakeAttempt) -> String {
    let sent = counted(u16::from(attempt.retransmits.unwrap_or(0)) + 1, "SYN-ACK");
    let waited = attempt
        .duration
        .map(|duration| format!(" in more than {}", spaced_duration(duration)))
        .unwrap_or_default();
    format!("abandoned by the client: {sent}, no final ACK{waited}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_port_fits_the_column() {
        assert_eq!(group_text(&GroupKey::Unserved(65_535)).len(), 23);
    }

    #[test]
    fn container_ids_are_full_for_machines_and_short_for_people() {
        let id = "0123456789abcdef".repeat(4);
        let key = GroupKey::Container(Some(id.as_str().into()));
        assert_eq!(group_name(&key), id);
        assert_eq!(group_text(&key), "0123456789ab");
        assert_eq!(
            group_text(&GroupKey::Container(Some("a-container-with-a-name".into()))),
            "a-container-with-a-name"
        );
    }
}
