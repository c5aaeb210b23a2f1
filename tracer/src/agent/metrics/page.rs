//! Renders a snapshot as a metrics page.

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
use tracer_core::{event::TcpState, lifecycle::CloseReason};

use crate::{
    agent::metrics::{
        LiveQueues, MetricKind, MetricsSnapshot, PageError, PageFormat, PortDrops,
        catalog::{self, Description},
        histogram::{HANDSHAKE_BOUNDS, Histogram, SCHEMA, ZERO_THRESHOLD, seconds},
        names::{ACCEPT_WAITS, EVENT_TYPES, LISTENER_DUMPS, Lost, NETWORK_TYPES, OutcomeLabel, ROLES},
        queues::PortQueue,
        snapshot::OwnerCounts,
        tally::HANDSHAKE_ROLES,
    },
    host::ListenDrops,
    sources::Coverage,
};

/// Properties that stay constant while the agent runs.
#[derive(Clone, Debug)]
pub struct Agent {
    /// The tracing mode; `None` for a recording.
    pub mode: Option<&'static str>,
    /// The kernel release.
    pub kernel: String,
    /// Whether the agent sees the whole host in spite of its namespaces, by kind of namespace; empty for a recording.
    pub sees: Vec<(&'static str, bool)>,
}

/// Values that are read when the page is made, instead of counted.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Resource usage of this process.
    pub process: ProcessFigures,
    /// The listening sockets at the last dump.
    pub listeners: ListenerFigures,
    /// The age of the counts; `None` for a recording.
    pub counts_age: Option<Duration>,
}

/// What the last listener dump found, and what the kernel has counted since the agent started.
#[derive(Clone, Debug, Default)]
pub struct ListenerFigures {
    /// The accept queues.
    pub queues: LiveQueues,
    /// The drops of each listening port.
    pub drops: PortDrops,
    /// The causes of drops in the dumped network namespace.
    pub causes: ListenDrops,
}

/// Resource usage of this process; a field is `None` where `/proc` does not provide it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessFigures {
    /// CPU time, user and system, seconds.
    pub cpu_seconds: Option<f64>,
    /// Resident memory, bytes.
    pub resident_bytes: Option<u64>,
    /// Virtual memory, bytes.
    pub virtual_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Limit of open file descriptors.
    pub max_fds: Option<u64>,
    /// Start time, seconds since 1970.
    pub start_seconds: Option<f64>,
}

/// Renders the page in a format.
///
/// # Errors
///
/// When the encoder fails, which no snapshot is known to cause.
pub fn render(
    snapshot: Arc<MetricsSnapshot>,
    agent: &Agent,
    figures: Figures,
    format: PageFormat,
) -> Result<Vec<u8>, PageError> {
    let mut registry = Registry::default();
    let page = Page { snapshot, agent: agent.clone(), figures };
    registry.register_collector(Box::new(page));
    format.encode(&registry)
}

#[derive(Debug)]
struct Page {
    snapshot: Arc<MetricsSnapshot>,
    agent: Agent,
    figures: Figures,
}

/// The labels of one series, in order.
struct Labels<'a>(Vec<(&'a str, &'a str)>);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

/// The series of one metric during encoding.
struct Family<'a> {
    encoder: MetricEncoder<'a>,
    description: &'static Description,
}

impl Family<'_> {
    fn series(
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
        self.series(values, owner, |encoder| encoder.encode_counter::<NoLabelSet, _, u64>(&value, None))
    }

    fn seconds(&mut self, value: f64) -> fmt::Result {
        self.series(&[], &[], |encoder| encoder.encode_counter::<NoLabelSet, _, u64>(&value, None))
    }

    fn gauge(&mut self, values: &[&str], value: u64) -> fmt::Result {
        self.owned_gauge(values, &[], value)
    }

    fn owned_gauge(&mut self, values: &[&str], owner: &[(&'static str, String)], value: u64) -> fmt::Result {
        self.series(values, owner, |encoder| encoder.encode_gauge(&value))
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
        self.series(values, owner, |encoder| {
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
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Histogram => MetricType::Histogram,
        MetricKind::Info => MetricType::Info,
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
        self.handshakes(encoder)?;
        self.states(encoder)?;
        self.closed(encoder)?;
        self.queues(encoder)?;
        self.tracer(encoder)?;
        self.process(encoder)
    }
}

/// Returns whether to write a series. With opt-in labels, only non-zero series are written. Without them, a series is
/// always present, so that Prometheus sees its increase from 0.
fn is_shown(labelled: bool, count: u64) -> bool {
    !labelled || count > 0
}

impl Page {
    fn handshakes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let MetricsSnapshot { totals, owners, labelled, .. } = &*self.snapshot;
        let empty = Histogram::new(&HANDSHAKE_BOUNDS);
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
                    for (outcome, &count) in OutcomeLabel::ALL.iter().zip(counts) {
                        if is_shown(*labelled, count) {
                            family.owned_counter(&[role.name(), outcome.name()], owner, count)?;
                        }
                    }
                }
            }
            Ok(())
        })?;
        family(encoder, &catalog::SYN_RETRANSMITS, |family| {
            for OwnerCounts { labels: owner, tally, .. } in owners {
                for (role, &count) in ROLES[..HANDSHAKE_ROLES].iter().zip(&tally.syn_retransmits) {
                    if is_shown(*labelled, count) {
                        family.owned_counter(&[role.name()], owner, count)?;
                    }
                }
            }
            Ok(())
        })?;
        self.whole_handshake(encoder)
    }

    fn whole_handshake(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let totals = &self.snapshot.totals;
        family(encoder, &catalog::ACCEPT_WAIT, |family| {
            for (until, histogram) in ACCEPT_WAITS.iter().zip(&totals.accept_waits) {
                family.histogram(&[until], &[], histogram)?;
            }
            Ok(())
        })?;
        family(encoder, &catalog::INBOUND_REFUSED, |family| {
            totals
                .inbound_refused
                .iter()
                .try_for_each(|((), reason, count)| family.counter(&[reason.text()], count))
        })?;
        family(encoder, &catalog::SEGMENT_DROPS, |family| {
            totals.segment_drops.iter().try_for_each(|(segment, reason, count)| {
                family.counter(&[segment.name(), reason.text()], count)
            })
        })
    }

    fn states(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let MetricsSnapshot { totals, owners, labelled, thresholds, .. } = &*self.snapshot;
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
            for (index, OwnerCounts { labels: owner, gauges, .. }) in owners.iter().enumerate() {
                for state in TcpState::ALL.into_iter().filter(|&state| state != TcpState::Closed) {
                    // The first combination is the permanent one: the only one, or `~other`.
                    let unowned = if index == 0 { self.snapshot.unowned(state) } else { 0 };
                    let count = u64::from(gauges.connections[state as usize]) + unowned;
                    if is_shown(*labelled, count) {
                        family.owned_gauge(&[state.name()], owner, count)?;
                    }
                }
            }
            Ok(())
        })?;
        family(encoder, &catalog::STUCK, |family| {
            for OwnerCounts { labels: owner, gauges, .. } in owners {
                for state in TcpState::ALL.into_iter().filter(|&state| thresholds.of(state).is_some()) {
                    let count = u64::from(gauges.stuck[state as usize]);
                    if is_shown(*labelled, count) {
                        family.owned_gauge(&[state.name()], owner, count)?;
                    }
                }
            }
            Ok(())
        })
    }

    fn closed(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let MetricsSnapshot { totals, owners, labelled, .. } = &*self.snapshot;
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
                        if is_shown(*labelled, count) {
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
                    if is_shown(*labelled, bytes) {
                        family.owned_counter(&[], owner, bytes)?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn queues(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let queues = self.snapshot.accept_queues(&self.figures.listeners.queues);
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
        each(&catalog::ACCEPT_QUEUE_PEAK, |queue| queue.peak)?;
        self.listener_drops(encoder)
    }

    fn listener_drops(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ListenerFigures { drops, causes, .. } = &self.figures.listeners;
        family(encoder, &catalog::LISTENER_DROPS, |family| {
            let mut text = itoa::Buffer::new();
            drops.ports.iter().try_for_each(|&(port, count)| family.counter(&[text.format(port)], count))
        })?;
        // The received cookies have no metric: they say nothing about drops.
        let ListenDrops { listen_overflows, listen_drops, syn_queue_full_drops, syn_cookies_sent, .. } =
            *causes;
        for (description, count) in [
            (&catalog::LISTEN_DROPS, listen_drops),
            (&catalog::LISTEN_OVERFLOWS, listen_overflows),
            (&catalog::SYN_QUEUE_FULL_DROPS, syn_queue_full_drops),
            (&catalog::SYN_COOKIES_SENT, syn_cookies_sent),
        ] {
            if let Some(count) = count {
                family(encoder, description, |family| family.counter(&[], count))?;
            }
        }
        Ok(())
    }

    fn tracer(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let MetricsSnapshot { totals, source, tracker, .. } = &*self.snapshot;
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
        family(encoder, &catalog::COVERAGE_GAPS, |family| {
            for (name, count) in Coverage::NAMES.into_iter().zip(self.snapshot.coverage.counts()) {
                family.gauge(&[name], count)?;
            }
            family.gauge(&[LISTENER_DUMPS], self.figures.listeners.queues.failures())
        })?;
        if !self.agent.sees.is_empty() {
            family(encoder, &catalog::HOST_VISIBLE, |family| {
                self.agent.sees.iter().try_for_each(|&(kind, sees)| family.gauge(&[kind], u64::from(sees)))
            })?;
        }
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
            (&catalog::RESYNCS, source.resyncs),
            (&catalog::UNFOLLOWED, tracker.unfollowed),
            (&catalog::TIME_WAIT_REUSED, tracker.time_wait_reused),
        ] {
            family(encoder, description, |family| family.counter(&[], count))?;
        }
        family(encoder, &catalog::LABEL_OVERFLOW, |family| {
            let overflows = &self.snapshot.overflows;
            overflows.iter().try_for_each(|&(label, count)| {
                let ListenerFigures { queues, drops, .. } = &self.figures.listeners;
                let live = if label == "port" { queues.overflow() + drops.overflow } else { 0 };
                family.counter(&[label], count + live)
            })
        })?;
        if let Some(age) = self.figures.counts_age {
            family(encoder, &catalog::COUNTS_AGE, |family| {
                family.series(&[], &[], |encoder| encoder.encode_gauge(&age.as_secs_f64()))
            })?;
        }
        if let Some(mode) = self.agent.mode {
            family(encoder, &catalog::MODE, |family| family.info(&[mode, &self.agent.kernel]))?;
        }
        family(encoder, &catalog::BUILD, |family| family.info(&[env!("CARGO_PKG_VERSION")]))?;
        if let Some(time) = self.snapshot.bpf_run_time {
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
                family.series(&[], &[], |encoder| encoder.encode_gauge(&start))
            })?;
        }
        Ok(())
    }
}

/// Returns whether a transition is part of a regular connection (RFC 9293, section 3.3.2, as implemented by Linux).
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
