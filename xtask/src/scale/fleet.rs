//! Many hosts: what Prometheus has to keep of them, and a simulated fleet.

use anyhow::Result;

use super::{
    host,
    reference::{Metric, Reference},
    table::{bytes, short, table, whole},
};

/// Bytes of a series on the page, its share of what explains the metrics included.
const PLAIN_LINE: f64 = 80.0;
/// The same with opt-in labels, as the agent reckons itself when it keeps them within their bytes.
const LABELLED_LINE: f64 = 110.0;
/// Bytes that opt-in labels may take of the page (docs/metrics.md).
const LABELLED_PAGE: f64 = 850_000.0;
/// The default of `--label-limit`.
const LABEL_LIMIT: f64 = 100.0;
/// Bytes of a sample in Prometheus' database, from its documentation: one to two.
const SAMPLE: f64 = 1.5;
/// Bytes of memory that Prometheus takes for an active series; a rule of thumb.
const ACTIVE_SERIES: f64 = 4_000.0;
/// Seconds between scrapes.
const INTERVALS: [f64; 3] = [15.0, 30.0, 60.0];
/// Recorded series of a role (deploy/prometheus/recording.rules.yaml): two quantiles, a rate, a share, a round trip.
const RECORDED_PER_ROLE: f64 = 5.0;

/// The table of series by metric.
pub(super) fn series(reference: &Reference) -> String {
    let mut rows: Vec<[String; 5]> = reference
        .metrics
        .iter()
        .filter(|metric| metric.series() > 1)
        .map(|metric| {
            [
                format!("`{}`", metric.name),
                metric.kind.clone(),
                metric.combinations.to_string(),
                metric.each.to_string(),
                metric.series().to_string(),
            ]
        })
        .collect();
    let single = reference.metrics.iter().map(Metric::series).filter(|&series| series == 1).sum();
    let plain = |name: &str, series: u32| {
        [name.to_owned(), String::new(), String::new(), String::new(), series.to_string()]
    };
    rows.push(plain("those with one series", single));
    rows.push(plain("**a host**", reference.series()));
    table(["metric", "kind", ">label combinations", ">series of each", ">series"], &rows)
}

/// Series of one owner in ordinary life: it opens or accepts over one network, succeeds and sometimes fails.
fn per_owner(reference: &Reference) -> Result<f64> {
    let handshakes = reference.metric("tcptrace_handshake_duration_seconds")?.each;
    // Established and one failure, SYNs sent again, two close reasons, bytes both ways, one state.
    Ok(f64::from(handshakes + 2 + 1 + 2 + 2 + 1))
}

/// The table of what opt-in labels add.
pub(super) fn labels(reference: &Reference) -> Result<String> {
    let always: u32 = reference.metrics.iter().filter(|metric| !metric.owned).map(Metric::series).sum();
    let each = per_owner(reference)?;
    let most = LABELLED_PAGE / LABELLED_LINE;
    let rows = [
        ("none", 0.0),
        ("one, with 10 values", 10.0),
        ("one, at its limit", LABEL_LIMIT),
        ("two, of which each of 100 values meets 3 of the other", LABEL_LIMIT * 3.0),
        ("all, and a million addresses that try", 1e6),
    ]
    .map(|(name, owners)| {
        let labelled = if owners == 0.0 {
            f64::from(reference.series() - always)
        } else {
            // Those who find no place are one more owner, `~other`.
            ((owners + 1.0) * each).min(most)
        };
        let series = f64::from(always) + labelled;
        let line = if owners == 0.0 { PLAIN_LINE } else { LABELLED_LINE };
        let page = f64::from(always) * PLAIN_LINE + labelled * line;
        [name.to_owned(), whole(owners), whole(labelled), whole(series), bytes(page)]
    });
    Ok(table(
        ["opt-in labels", ">combinations seen", ">series that have them", ">series of the host", ">page"],
        &rows,
    ))
}

/// The table of what Prometheus keeps for so many hosts.
pub(super) fn prometheus(reference: &Reference) -> Result<String> {
    let all = f64::from(reference.series());
    let without_states: f64 = all - f64::from(reference.metric("tcptrace_state_duration_seconds")?.series());
    let durations = f64::from(reference.metric("tcptrace_handshake_duration_seconds")?.series());
    let alerts = durations
        + ["tcptrace_handshakes_total", "tcptrace_stuck_connections", "tcptrace_events_lost_total"]
            .iter()
            .map(|name| Ok(f64::from(reference.metric(name)?.series())))
            .sum::<Result<f64>>()?;
    // Both roles, a share for every outcome and for every port's queue, and the share of lost events.
    let recorded = 2.0 * RECORDED_PER_ROLE
        + f64::from(reference.metric("tcptrace_handshakes_total")?.series())
        + f64::from(reference.metric("tcptrace_listener_accept_queue")?.series())
        + 1.0;
    let mut rows = Vec::new();
    for hosts in [100.0, 1_000.0, 10_000.0] {
        for (kept, series) in [
            ("everything", all),
            ("without `tcptrace_state_duration_seconds`", without_states),
            ("what the main alerts need", alerts),
            ("only what recording rules make of it", recorded),
        ] {
            let total = hosts * series;
            let samples = INTERVALS.map(|interval| whole(total / interval));
            let [fast, medium, slow] = samples;
            rows.push([
                format!("{}, {kept}", whole(hosts)),
                whole(total),
                bytes(total * ACTIVE_SERIES),
                fast,
                medium,
                slow,
                bytes(total / INTERVALS[1] * 86_400.0 * SAMPLE),
            ]);
        }
    }
    Ok(table(
        [
            "hosts, and what is kept",
            ">series",
            ">memory",
            ">samples/s at 15 s",
            ">at 30 s",
            ">at 60 s",
            ">disk/day at 30 s",
        ],
        &rows,
    ))
}

/// Connections a second of the host at this place of a fleet, from 0 to 1, sorted by how busy they are.
///
/// A Pareto distribution: half of the hosts have less than twenty, one in a hundred more than a thousand, and the
/// busiest 30,000. The quantiles themselves are taken, so that every run gives the same fleet.
fn rate(place: f64) -> f64 {
    const LEAST: f64 = 10.0;
    (LEAST / (1.0 - place)).min(30_000.0)
}

/// The table of simulated fleets.
pub(super) fn fleet(reference: &Reference) -> String {
    let series = f64::from(reference.series());
    let rows = [100_u32, 1_000, 10_000].map(|hosts| {
        let rates: Vec<f64> =
            (0..hosts).map(|host| rate((f64::from(host) + 0.5) / f64::from(hosts))).collect();
        let all: f64 = rates.iter().sum();
        let busiest = rates.last().copied().unwrap_or(0.0);
        // Half a second covers a reader that is not scheduled, or a disk that stalls.
        let larger = rates.iter().filter(|&&rate| host::buffer_seconds(rate) < 0.5).count();
        [
            whole(f64::from(hosts)),
            whole(rates[rates.len() / 2]),
            whole(busiest),
            whole(host::transitions(all)),
            short(host::cpu(all)),
            bytes(f64::from(hosts) * series * PLAIN_LINE / INTERVALS[1]),
            bytes(host::recorded(all) * 86_400.0),
            larger.to_string(),
        ]
    });
    table(
        [
            ">hosts",
            ">connections/s of the median",
            ">of the busiest",
            ">transitions/s of all",
            ">CPUs for all",
            ">scraped/s at 30 s",
            ">recordings/day",
            ">hosts that want a larger `--buffer`",
        ],
        &rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_hosts_of_a_fleet_are_quiet() {
        let rates = [0.0, 0.5, 0.99, 1.0].map(|place| whole(rate(place)));
        assert_eq!(rates, ["10", "20", "1,000", "30,000"]);
    }
}
