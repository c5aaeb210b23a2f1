//! Losses and the agent's own state, in words.

use std::time::Duration;

use tracer_core::counted::counted_as;

use crate::agent::{
    metrics::{Figures, MetricsSnapshot},
    overview::document::{Health, Note},
};

/// Counts older than this are a problem: the tracing thread does not answer.
const STALE: Duration = Duration::from_secs(5);

/// Describes the losses of a snapshot and the agent's use of resources.
pub(super) fn health(metrics: &MetricsSnapshot, figures: &Figures) -> Health {
    let source = &metrics.source;
    let problems: Vec<String> = [
        sentence(
            source.lost,
            "transition was lost because the buffer was full",
            "transitions were lost because the buffer was full",
        ),
        sentence(
            source.others_lost,
            "other event was lost because the buffer was full",
            "other events were lost because the buffer was full",
        ),
        sentence(
            source.skipped.unwrap_or(0),
            "transition was skipped by the kernel",
            "transitions were skipped by the kernel",
        ),
        sentence(source.malformed, "record could not be decoded", "records could not be decoded"),
        sentence(
            metrics.tracker.evicted,
            "connection was evicted because the table was full: raise --max-connections",
            "connections were evicted because the table was full: raise --max-connections",
        ),
        sentence(
            metrics.tracker.unfollowed,
            "half-open, timewait or listening socket has no place in its table",
            "half-open, timewait or listening sockets have no place in their table",
        ),
        figures
            .counts_age
            .filter(|age| *age > STALE)
            .map(|age| format!("The tracing thread has not answered for {} s.", age.as_secs())),
        metrics.coverage.summary().map(|text| format!("{}.", capitalized(&text))),
    ]
    .into_iter()
    .flatten()
    .collect();
    let status = if problems.is_empty() { "ok" } else { "degraded" };
    let mut notes: Vec<Note> = problems.into_iter().map(|text| Note { problem: true, text }).collect();
    if notes.is_empty() {
        let text = match source.skipped {
            Some(_) => "No transition has been lost or skipped since the start.",
            None => "No transition has been lost since the start. This kernel does not count skipped ones.",
        };
        notes.push(Note { problem: false, text: text.to_owned() });
    }
    if let Some(text) = sentence(
        source.resyncs,
        "resync has compared the table with the host's sockets",
        "resyncs have compared the table with the host's sockets",
    ) {
        notes.push(Note { problem: false, text });
    }
    Health {
        status: status.to_owned(),
        notes,
        transitions_seen: source.seen,
        transitions_lost: source.lost,
        transitions_skipped: source.skipped,
        cpu_seconds: figures.process.cpu_seconds,
        resident_bytes: figures.process.resident_bytes,
        connections_tracked: metrics.live as u64,
    }
}

/// Returns a sentence about a number of things; none without any.
fn sentence(count: u64, one: &str, many: &str) -> Option<String> {
    (count != 0).then(|| format!("{}.", counted_as(count, one, many)))
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_things_is_a_sentence() {
        assert_eq!(sentence(0, "x", "xs"), None);
        assert_eq!(sentence(1, "record was lost", "records were lost").unwrap(), "1 record was lost.");
        assert_eq!(sentence(7, "record was lost", "records were lost").unwrap(), "7 records were lost.");
        assert_eq!(capitalized("incomplete on"), "Incomplete on");
    }
}
