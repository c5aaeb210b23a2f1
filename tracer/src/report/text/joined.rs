//! Describes joined handshakes in words: what happened to one, and how two recordings fit together.

use tracer_core::{
    analysis::{ClockEstimate, HandshakeOutcome, JoinCounts, JoinedHandshake},
    counted::{counted, counted_as},
    escape::escape,
    event::{HandshakeSegment, Nanos},
    lifecycle::{CloseReason, ObservedDrops, SegmentDrop},
};

use crate::report::text::{
    handshake::{outcome_words, segment_name},
    quantity::spaced_duration,
};

/// The names of the two hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinHosts {
    /// The host of the recording that the report is about.
    pub this: String,
    /// The other host.
    pub other: String,
}

/// Describes what happened to one handshake.
pub fn joined_story(joined: &JoinedHandshake<'_>) -> String {
    let mut story = outcome(joined);
    let lost: Vec<String> =
        HandshakeSegment::ALL.into_iter().filter_map(|segment| lost(joined, segment)).collect();
    let end = if lost.is_empty() { without_loss(joined).map(str::to_owned) } else { Some(lost.join(", ")) };
    if let Some(end) = end {
        story.push_str("; ");
        story.push_str(&end);
    }
    story
}

fn outcome(joined: &JoinedHandshake<'_>) -> String {
    let Some(server) = joined.server else {
        let trace = if joined.server_drops.is_empty() { ": no trace on the server's host" } else { "" };
        return format!("{}{trace}", failure(joined.client.outcome));
    };
    match (joined.client.outcome, server.outcome) {
        (HandshakeOutcome::Established, HandshakeOutcome::Established) => {
            joined.duration().map_or_else(|| "unknown duration".to_owned(), spaced_duration)
        }
        (HandshakeOutcome::Established, HandshakeOutcome::Abandoned) => {
            "the client connected, the server did not".to_owned()
        }
        (HandshakeOutcome::Failed(_), _) if server.unserved => "refused: nobody listens".to_owned(),
        (failed @ HandshakeOutcome::Failed(_), HandshakeOutcome::Abandoned) => {
            format!("{}, although the server answered", failure(failed))
        }
        (client, server) => format!("client {}, server {}", outcome_words(client), outcome_words(server)),
    }
}

fn failure(outcome: HandshakeOutcome) -> &'static str {
    match outcome {
        HandshakeOutcome::Failed(CloseReason::Cancelled) => "given up by the application",
        outcome => outcome_words(outcome),
    }
}

/// Describes the loss of one kind of segment: `1 SYN lost, dropped by the server's host (netfilter_drop in nft_do_chain)`.
fn lost(joined: &JoinedHandshake<'_>, segment: HandshakeSegment) -> Option<String> {
    let count = joined.fate.lost(segment).filter(|&count| count > 0)?;
    let by_client = joined.client.drops.as_deref().map(|drops| (drops, "client"));
    let by_server = (&joined.server_drops, "server");
    let mut places: Vec<String> = Vec::new();
    for (drops, host) in by_client.into_iter().chain([by_server]) {
        let of_segment: Vec<&SegmentDrop> = drops.iter().filter(|drop| drop.segment == segment).collect();
        let dropped = of_segment.iter().fold(0, |sum: u32, drop| sum.saturating_add(drop.count));
        if dropped == 0 {
            continue;
        }
        let how_many = if dropped == count { String::new() } else { format!("{dropped} ") };
        let reasons: Vec<String> = of_segment.into_iter().map(reason).collect();
        places.push(format!(", {how_many}dropped by the {host}'s host ({})", reasons.join(", ")));
    }
    if places.is_empty() && sees_drops(joined, segment) {
        places.push(" between the hosts".to_owned());
    }
    Some(format!("{} lost{}", counted(count, segment_name(segment)), places.concat()))
}

fn reason(drop: &SegmentDrop) -> String {
    let function = drop.function.map(|function| format!(" in {function}")).unwrap_or_default();
    format!("{}{function}", drop.reason)
}

/// Returns whether both hosts would have seen a drop of this segment.
fn sees_drops(joined: &JoinedHandshake<'_>, segment: HandshakeSegment) -> bool {
    let Some(server) = joined.server else { return false };
    let sees = |observed, needs_queues: bool| match observed {
        ObservedDrops::All => true,
        ObservedDrops::ExceptFullQueues => !needs_queues,
        ObservedDrops::None => false,
    };
    // Only a SYN meets the accept queue of a listener.
    sees(joined.client.observed_drops, false) && sees(server.observed_drops, segment == HandshakeSegment::Syn)
}

/// Says why no loss is stated; none if a failure explains itself.
fn without_loss(joined: &JoinedHandshake<'_>) -> Option<&'static str> {
    let server = joined.server.filter(|server| !server.unserved)?;
    if HandshakeSegment::ALL.iter().all(|&segment| joined.fate.lost(segment) == Some(0)) {
        return Some("nothing lost");
    }
    if server.queue_full {
        return Some("the server's accept queue was full");
    }
    if server.deferred {
        return Some("the server waited for data");
    }
    Some("no loss is proven")
}

/// Sums up the join in a few lines.
pub fn join_summary(counts: &JoinCounts, clock: Option<&ClockEstimate>, hosts: &JoinHosts) -> Vec<String> {
    let (this, other) = (escape(hosts.this.as_bytes()), escape(hosts.other.as_bytes()));
    let (this, other) = if this == other {
        (format!("{this} (--input)"), format!("{other} (--join)"))
    } else {
        (this, other)
    };
    let mut first =
        vec![format!("Handshakes with both ends, on {this} and on {other}: {}", counts.matched())];
    if counts.without_trace > 0 {
        first.push(format!("failed without a trace on the server's host: {}", counts.without_trace));
    }
    first.push(format!("with a lost segment: {}", counts.with_loss));
    let mut unmatched = vec![format!(
        "Without the other end: {} on {this}, {} on {other}",
        counts.this.unmatched, counts.other.unmatched
    )];
    for (host, side) in [(&this, counts.this), (&other, counts.other)] {
        for (count, what) in [
            (side.ambiguous, "ambiguous"),
            (side.without_numbers, "without initial sequence numbers"),
            (side.beyond_limit, "beyond the limit"),
        ] {
            if count > 0 {
                unmatched.push(format!("{count} on {host} {what}"));
            }
        }
    }
    vec![first.join("; "), clock_line(clock, &this, &other), unmatched.join("; ")]
}

fn clock_line(clock: Option<&ClockEstimate>, this: &str, other: &str) -> String {
    let Some(clock) = clock else {
        return "Clock offset: unknown, because no completed handshake has both ends".to_owned();
    };
    let bounds = clock.bounds;
    // A large offset is as exact as a small one.
    let absolute = |nanoseconds: i64| match nanoseconds.unsigned_abs() {
        short @ ..1_000_000_000 => spaced_duration(Nanos(short)),
        long => format!("{}.{:06} s", long / 1_000_000_000, long % 1_000_000_000 / 1_000),
    };
    let side = if bounds.middle() < 0 { "behind" } else { "ahead of" };
    let mut parts = vec![format!(
        "Clock offset: {other} is {} ± {} {side} {this}",
        absolute(bounds.middle()),
        absolute(bounds.uncertainty())
    )];
    if clock.drifts() {
        let signed = |offset: i64| format!("{}{}", if offset < 0 { "-" } else { "" }, absolute(offset));
        parts.push(format!(
            "it changed from {} at the first handshake to {} at the last",
            signed(clock.first.middle()),
            signed(clock.last.middle())
        ));
    }
    match clock.contradictions {
        0 => {}
        count => {
            let contradict = counted_as(count, "handshake contradicts", "handshakes contradict");
            parts.push(format!("{contradict} the earlier ones, as if a clock was set"));
        }
    }
    parts.join("; ")
}
