//! The page: a snapshot in one of the formats that a monitor may ask for.

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NativeHistogram,
        NativeHistogramBuckets, NoLabelSet,
    },
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{
    Format, Histogram, Kind, LiveQueues, Lost, Outcome, PageError, ProcessFigures, Snapshot,
    catalog::{self, Description},
    histogram::{HANDSHAKE_BOUNDS, SCHEMA, ZERO_THRESHOLD, seconds},
    names::{EVENT_TYPES, NETWORK_TYPES, ROLES},
    queues::{PortQueue, join},
    snapshot::OwnerCounts,
    tally::OPENERS,
};
use crate::lifecycle::{CloseReason, TcpState};

/// What does not change while the daemon runs.
#[derive(Clone, Debug)]
pub struct Agent {
    /// The mode it traces in; none for a recording.
    pub mode: Option<&'static str>,
    /// The kernel's release.
    pub kernel: String,
}

/// What is found at the moment of the page, rather than counted.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// What this process takes.
    pub process: ProcessFigures,
    /// The accept queues of listeners that can be looked at.
    pub queues: LiveQueues,
    /// How old the counts are; none for a recording, whose counts have no age.
    pub counts_age: Option<Duration>,
}

/// Makes the page.
///
/// # Errors
///
/// Never for what the daemon makes; the encoders' interface allows for it.
pub fn render(
    snapshot: Arc<Snapshot>,
    agent: &Agent,
    figures: Figures,
    format: Format,
) -> Result<Vec<u8>, PageError> {
    let mut registry = Registry::default();
    let page = Page { snapshot, agent: agent.clone(), figures };
    registry.register_collector(Box::new(page));
    format.encode(&registry)
}

#[derive(Debug)]
struct Page {
    snapshot: Arc<Snapshot>,
    agent: Agent,
    figures: Figures,
}

/// Labels of one series, in order; values that are empty are left out.
struct Labels<'a>(Vec<(&'a str, &'a str)>);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

/// One metric's series, as they are written.
struct Family<'a> {
    encoder: MetricEncoder<'a>,
    description: &'static Description,
}

impl Family<'_> {
    fn each(
        &mut self,
        values: &[&str],
        owner: &[(&'static str, String)],
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let own = self.description.labels.iter().copied().zip(values.iter().copied());
        let labels: Vec<_> = own.chain(owner.iter().map(|(name, value)| (*name, value.as_str()))).collect();
        if labels.is_empty() {
            return write(&mut self.encoder);
        }
        write(&mut self.encoder.encode_family(&Labels(labels))?)
    }

    fn counter(&mut self, values: &[&str], value: u64) -> fmt::Result {
        self.owned_counter(values, &[], value)
    }

    fn owned_counter(
        &mut self,
        values: &[&str],
        owner: &[(&'static str, String)],
        value: u64,
    ) -> fmt::Result {
        self.each(values, owner, |encoder| encoder.encode_counter::<NoLabelSet, _, u64>(&value, None))
    }

    fn seconds(&mut self, value: f64) -> fmt::Result {
        self.each(&[], &[], |encoder| encoder.encode_counter::<NoLabelSet, _, u64>(&value, None))
    }

    fn gauge(&mut self, values: &[&str], value: u64) -> fmt::Result {
        self.owned_gauge(values, &[], value)
    }

    fn owned_gauge(&mut self, values: &[&str], owner: &[(&'static str, String)], value: u64) -> fmt::Result {
        self.each(values, owner, |encoder| encoder.encode_gauge(&value))
    }

    fn info(&mut self, values: &[&str]) -> fmt::Result {
        let labels = self.description.labels.iter().copied().zip(values.iter().copied()).collect();
        self.encoder.encode_info(&Labels(labels))
    }

    fn histogram(
        &mut self,
        values: &[&str],
        owner: &[(&'static str, String)],
        histogram: &Histogram,
    ) -> fmt::Result {
        let (spans, deltas) = histogram.native_buckets();
        let native = NativeHistogram {
            schema: SCHEMA,
            zero_threshold: ZERO_THRESHOLD,
            zero_count: histogram.native_zero(),
            negative: NativeHistogramBuckets { spans: &[], deltas: &[] },
            positive: NativeHistogramBuckets { spans: &spans, deltas: &deltas },
            created: None,
        };
        self.each(values, owner, |encoder| {
            encoder.encode_histogram_with_native::<NoLabelSet>(
                histogram.sum_seconds(),
                histogram.count(),
                &histogram.buckets(),
                None,
                native,
            )
        })
    }
}

fn family(
    encoder: &mut DescriptorEncoder<'_>,
    description: &'static Description,
    write: impl FnOnce(&mut Family<'_>) -> fmt::Result,
) -> fmt::Result {
    let kind = match description.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
        Kind::Info => MetricType::Info,
    };
    let unit = description.unit.map(|unit| match unit {
        "seconds" => Unit::Seconds,
        "bytes" => Unit::Bytes,
        other => Unit::Other(other.to_owned()),
    });
    let encoder = encoder.encode_descriptor(description.stem, description.help, unit.as_ref(), kind)?;
    write(&mut Family { encoder, description })
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        self.openings(encoder)?;
        self.states(encoder)?;
        self.ends(encoder)?;
        self.queues(encoder)?;
        self.account(encoder)?;
        self.process(encoder)
    }
}

/// Whether a series is shown: one that belongs to an owner is when there is something to show, the others
/// are always there, so that a monitor sees them rise from 0.
fn shown(labelled: bool, count: u64) -> bool {
    !labelled || count > 0
}

impl Page {
    fn openings(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Snapshot { totals, owners, labelled, .. } = &*self.snapshot;
        let empty = Histogram::new(HANDSHAKE_BOUNDS);
        family(encoder, &catalog::HANDSHAKE_DURATION, |family| {
            for OwnerCounts { labels: owner, tally, .. } in owners {
                for (role, by_network) in ROLES.iter().zip(&tally.durations) {
                    for (network, histogram) in NETWORK_TYPES.iter().zip(by_network) {
                        let always = !labelled && ROLES[..2].contains(role);
                        if let Some(histogram) = histogram.as_deref().or(always.then_some(&empty)) {
                            family.histogram(&[role.name(), network], owner, histogram)?;
                        }
                    }
                }
            }
            Ok(())
        })?;
        family(encoder, &catalog::HANDSHAKE_RTT, |family| {
            for (role, histogram) in ROLES.iter().zip(&totals.rtts) {
                family.histogram(&[role.name()], &[], histogram)?;
            }
            Ok(())
        })?;
        family(encoder, &catalog::HANDSHAKES, |family| {
            for OwnerCounts { labels: owner, tally, .. } in owners {
                for (role, counts) in ROLES.iter().zip(&tally.handshakes) {
                    for (outcome, &count) in Outcome::ALL.iter().zip(counts) {
                        if shown(*labelled, count) {
                            family.owned_counter(&[role.name(), outcome.name()], owner, count)?;
                        }
                    }
                }
            }
            Ok(())
        })?;
        family(encoder, &catalog::SYN_RETRANSMITS, |family| {
            for OwnerCounts { labels: owner, tally, .. } in owners {
                for (role, &count) in ROLES[..OPENERS].iter().zip(&tally.syn_retransmits) {
                    if shown(*labelled, count) {
                        family.owned_counter(&[role.name()], owner, count)?;
                    }
                }
            }
            Ok(())
        })
    }

    fn states(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Snapshot { totals, owners, labelled, thresholds, .. } = &*self.snapshot;
        family(encoder, &catalog::STATE_DURATION, |family| {
            for state in TcpState::ALL.into_iter().filter(|&state| state != TcpState::Closed) {
                family.histogram(&[state.name()], &[], &totals.state_durations[state as usize])?;
            }
            Ok(())
        })?;
        family(encoder, &catalog::TRANSITIONS, |family| {
            for from in TcpState::ALL {
                for to in TcpState::ALL {
                    let count = totals.transitions[from as usize][to as usize];
                    if count > 0 || is_usual(from, to) {
                        family.counter(&[from.name(), to.name()], count)?;
                    }
                }
            }
            Ok(())
        })?;
        family(encoder, &catalog::CONNECTIONS, |family| {
            for (place, OwnerCounts { labels: owner, standing, .. }) in owners.iter().enumerate() {
                for state in TcpState::ALL.into_iter().filter(|&state| state != TcpState::Closed) {
                    // The first is the one that always exists: the only one, or `~other`.
                    let unowned = if place == 0 { self.unowned(state) } else { 0 };
                    let count = u64::from(standing.connections[state as usize]) + unowned;
                    if shown(*labelled, count) {
                        family.owned_gauge(&[state.name()], owner, count)?;
                    }
                }
            }
            Ok(())
        })?;
        family(encoder, &catalog::STUCK, |family| {
            for OwnerCounts { labels: owner, standing, .. } in owners {
                for state in TcpState::ALL.into_iter().filter(|&state| thresholds.of(state).is_some()) {
                    let count = u64::from(standing.stuck[state as usize]);
                    if shown(*labelled, count) {
                        family.owned_gauge(&[state.name()], owner, count)?;
                    }
                }
            }
            Ok(())
        })
    }

    /// What is in a state and belongs to nobody: it has no connection in the table any more, or is none.
    fn unowned(&self, state: TcpState) -> u64 {
        let count = match state {
            TcpState::Listen => self.snapshot.listeners,
            TcpState::TimeWait => self.snapshot.time_wait,
            TcpState::FinWait2 => self.snapshot.fin_wait_2,
            _ => 0,
        };
        count as u64
    }

    fn ends(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Snapshot { totals, owners, labelled, .. } = &*self.snapshot;
        family(encoder, &catalog::CONNECTION_DURATION, |family| {
            for (role, histogram) in ROLES.iter().zip(&totals.connection_durations) {
                family.histogram(&[role.name()], &[], histogram)?;
            }
            Ok(())
        })?;
        family(encoder, &catalog::CONNECTIONS_CLOSED, |family| {
            for OwnerCounts { labels: owner, tally, .. } in owners {
                for (role, counts) in ROLES.iter().zip(&tally.closed) {
                    for (reason, &count) in CloseReason::ALL.iter().zip(counts) {
                        if shown(*labelled, count) {
                            family.owned_counter(&[role.name(), reason.name()], owner, count)?;
                        }
                    }
                }
            }
            Ok(())
        })?;
        for (description, received) in [(&catalog::BYTES_SENT, false), (&catalog::BYTES_RECEIVED, true)] {
            family(encoder, description, |family| {
                for OwnerCounts { labels: owner, tally, .. } in owners {
                    let bytes = if received { tally.bytes_received } else { tally.bytes_sent };
                    if shown(*labelled, bytes) {
                        family.owned_counter(&[], owner, bytes)?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn queues(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let queues = join(&self.figures.queues, &self.snapshot.queues);
        let mut each = |description, value: fn(&PortQueue) -> Option<u32>| {
            family(encoder, description, |family| {
                for queue in &queues {
                    if let Some(value) = value(queue) {
                        family.gauge(&[itoa::Buffer::new().format(queue.port)], u64::from(value))?;
                    }
                }
                Ok(())
            })
        };
        each(&catalog::ACCEPT_QUEUE, |queue| queue.length)?;
        each(&catalog::ACCEPT_QUEUE_LIMIT, |queue| Some(queue.limit))?;
        each(&catalog::ACCEPT_QUEUE_PEAK, |queue| queue.peak)
    }

    fn account(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Snapshot { totals, source, tracker, .. } = &*self.snapshot;
        family(encoder, &catalog::EVENTS, |family| {
            EVENT_TYPES
                .iter()
                .zip(&totals.events)
                .try_for_each(|(name, &count)| family.counter(&[name], count))
        })?;
        family(encoder, &catalog::EVENTS_LOST, |family| {
            for lost in Lost::ALL {
                let count = match lost {
                    Lost::Ring => Some(source.lost),
                    Lost::RingOther => Some(source.others_lost),
                    Lost::Kernel => source.skipped,
                    Lost::Malformed => Some(source.malformed),
                };
                if let Some(count) = count {
                    family.counter(&[lost.name()], count)?;
                }
            }
            Ok(())
        })?;
        for (description, count) in
            [(&catalog::EVENTS_RECOVERED, source.recovered), (&catalog::EVENTS_DUPLICATE, source.duplicates)]
        {
            family(encoder, description, |family| family.counter(&[], count))?;
        }
        family(encoder, &catalog::TRACKED, |family| family.gauge(&[], self.snapshot.live as u64))?;
        for (description, count) in [
            (&catalog::EVICTED, tracker.evicted),
            (&catalog::UNMATCHED, tracker.unmatched),
            (&catalog::GAPS, tracker.gaps),
            (&catalog::UNFOLLOWED, tracker.unfollowed),
            (&catalog::TIME_WAIT_REUSED, tracker.time_wait_reused),
        ] {
            family(encoder, description, |family| family.counter(&[], count))?;
        }
        family(encoder, &catalog::LABEL_OVERFLOW, |family| {
            let overflows = &self.snapshot.overflows;
            overflows.iter().try_for_each(|&(label, count)| {
                let live = if label == "port" { self.figures.queues.overflow() } else { 0 };
                family.counter(&[label], count + live)
            })
        })?;
        if let Some(age) = self.figures.counts_age {
            family(encoder, &catalog::COUNTS_AGE, |family| {
                family.each(&[], &[], |encoder| encoder.encode_gauge(&age.as_secs_f64()))
            })?;
        }
        if let Some(mode) = self.agent.mode {
            family(encoder, &catalog::MODE, |family| family.info(&[mode, &self.agent.kernel]))?;
        }
        family(encoder, &catalog::BUILD, |family| family.info(&[env!("CARGO_PKG_VERSION")]))?;
        if let Some(time) = self.snapshot.bpf_run_ns {
            family(encoder, &catalog::BPF_RUN, |family| family.seconds(seconds(time)))?;
        }
        Ok(())
    }

    fn process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ProcessFigures { cpu_seconds, resident_bytes, virtual_bytes, open_fds, max_fds, start_seconds } =
            self.figures.process;
        if let Some(cpu) = cpu_seconds {
            family(encoder, &catalog::PROCESS_CPU, |family| family.seconds(cpu))?;
        }
        for (description, value) in [
            (&catalog::PROCESS_RESIDENT, resident_bytes),
            (&catalog::PROCESS_VIRTUAL, virtual_bytes),
            (&catalog::PROCESS_OPEN_FDS, open_fds),
            (&catalog::PROCESS_MAX_FDS, max_fds),
        ] {
            if let Some(value) = value {
                family(encoder, description, |family| family.gauge(&[], value))?;
            }
        }
        if let Some(start) = start_seconds {
            family(encoder, &catalog::PROCESS_START, |family| {
                family.each(&[], &[], |encoder| encoder.encode_gauge(&start))
            })?;
        }
        Ok(())
    }
}

/// The changes of state of ordinary lives (RFC 9293, section 3.3.2, as Linux makes them).
fn is_usual(from: TcpState, to: TcpState) -> bool {
    use TcpState as S;
    matches!(
        (from, to),
        (S::Closed, S::SynSent | S::Listen)
            | (S::Listen, S::SynReceived | S::Closed)
            | (S::SynSent | S::SynReceived, S::Established | S::Closed)
            | (S::Established, S::FinWait1 | S::CloseWait | S::Closed)
            | (S::FinWait1, S::FinWait2 | S::Closing | S::Closed)
            | (S::FinWait2 | S::Closing | S::LastAck, S::Closed)
            | (S::CloseWait, S::LastAck | S::Closed)
    )
}
