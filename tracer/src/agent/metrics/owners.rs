//! The counts of each combination of opt-in label values.
//!
//! Without opt-in labels there is one combination and no look-up. With them, two limits bound the combinations:
//! the number of values of each label, and the size of the page.

use hashbrown::{HashMap, HashSet};
use slab::Slab;
use tracer_core::{
    escape::escape,
    event::{Nanos, Timestamp},
    lifecycle::{Connection, Role},
};

use crate::{
    agent::metrics::{
        Label, LabelLimits, LabelSources,
        label_sources::LabelInputs,
        labels::{LabelTable, NO_VALUE, OTHER_VALUE, Use},
        snapshot::OwnerCounts,
        tally::{Gauges, Tally},
    },
    host::Cgroup,
};

/// Estimated bytes that all combinations may take on the page, which keeps the page below 1 MB.
const PAGE_BYTES: usize = 850_000;
/// Estimated bytes of a line without its opt-in labels.
const LINE_BYTES: usize = 110;
/// Most combinations, whatever their size.
const MAX_SLOTS: usize = 1000;
/// Interval at which values and combinations expire or are replaced.
const TICK: Nanos = Nanos::from_secs(60);

/// The value number of each label.
type Key = [u16; Label::ALL.len()];

/// The counts of one combination.
#[derive(Debug)]
pub(super) struct Slot {
    key: Key,
    pub(super) tally: Tally,
    /// The result of the last complete gauge scan.
    pub(super) gauges: Gauges,
    /// The partial result of the running gauge scan.
    pub(super) next_gauges: Gauges,
    uses: u64,
    last_used: Timestamp,
}

/// The counts of all combinations.
#[derive(Debug)]
pub(super) struct Owners {
    sources: LabelSources,
    tables: Vec<LabelTable>,
    expiry: Nanos,
    slots: Slab<Slot>,
    index: HashMap<Key, usize, foldhash::fast::RandomState>,
    /// The page is full: no combination is added.
    full: bool,
    overflow: u64,
    ticked: Timestamp,
}

/// The index of the permanent combination: the only one without labels, otherwise `~other` for each label.
const BASE: usize = 0;

impl Owners {
    /// Creates the permanent combination.
    pub(super) fn new(sources: LabelSources, limits: LabelLimits) -> Self {
        let mut key = [NO_VALUE; Label::ALL.len()];
        for label in &sources.labels {
            key[*label as usize] = OTHER_VALUE;
        }
        let mut slots = Slab::new();
        let base = slots.insert(Slot::new(key, Timestamp(0)));
        debug_assert_eq!(base, BASE);
        Self {
            tables: sources.labels.iter().map(|_| LabelTable::new(limits)).collect(),
            sources,
            expiry: limits.expiry,
            slots,
            index: std::iter::once((key, base)).collect(),
            full: false,
            overflow: 0,
            ticked: Timestamp(0),
        }
    }

    /// Returns whether opt-in labels are enabled.
    pub(super) fn labelled(&self) -> bool {
        !self.tables.is_empty()
    }

    /// Looks up the cgroup of a new connection early, while the cgroup still exists.
    pub(super) fn begins(&mut self, connection: &Connection, now: Timestamp) {
        self.sources.note(connection, now);
    }

    /// Returns the slot in which to count an event.
    pub(super) fn slot(&mut self, inputs: LabelInputs, now: Timestamp) -> &mut Slot {
        self.slot_for(inputs, now, Use::Counted)
    }

    /// Returns the slot in which to count a live connection. This raises no rank: a lasting connection would raise it
    /// with every scan.
    pub(super) fn gauge_slot(&mut self, inputs: LabelInputs, now: Timestamp) -> &mut Slot {
        self.slot_for(inputs, now, Use::Seen)
    }

    fn slot_for(&mut self, inputs: LabelInputs, now: Timestamp, use_: Use) -> &mut Slot {
        let index = if self.tables.is_empty() { BASE } else { self.slot_index(inputs, now, use_) };
        &mut self.slots[index]
    }

    fn slot_index(&mut self, inputs: LabelInputs, now: Timestamp, use_: Use) -> usize {
        let key = self.key(inputs, now, use_);
        let index = match self.index.get(&key) {
            Some(&index) => index,
            None if self.full || self.slots.len() >= MAX_SLOTS => {
                self.overflow += u64::from(use_ == Use::Counted);
                BASE
            }
            None => {
                let index = self.slots.insert(Slot::new(key, now));
                self.index.insert(key, index);
                index
            }
        };
        let slot = &mut self.slots[index];
        slot.uses += u64::from(use_ == Use::Counted);
        slot.last_used = now;
        index
    }

    fn key(&mut self, inputs: LabelInputs, now: Timestamp, use_: Use) -> Key {
        let mut key = [NO_VALUE; Label::ALL.len()];
        let cgroup = self.sources.cgroup(&inputs, now);
        for (label, table) in self.sources.labels.iter().zip(&mut self.tables) {
            key[*label as usize] = match label {
                Label::LocalPort if inputs.role == Role::Server => {
                    table.resolve(itoa::Buffer::new().format(inputs.local.port), now, use_)
                }
                Label::LocalPort => NO_VALUE,
                Label::Process => match inputs.process {
                    Some(process) => table.resolve(&escape(process.name()), now, use_),
                    None => NO_VALUE,
                },
                Label::Container => match cgroup.as_ref().and_then(|it| it.owner.container.as_ref()) {
                    Some(container) => {
                        table.resolve(container.id.get(..12).unwrap_or(&container.id), now, use_)
                    }
                    None => NO_VALUE,
                },
                Label::Cgroup => match &cgroup {
                    Some(cgroup) => table.resolve(&escape(cgroup.path.as_bytes()), now, use_),
                    None => NO_VALUE,
                },
                Label::K8sNamespace => match cgroup.as_deref().and_then(Cgroup::pod) {
                    Some(pod) => table.resolve(pod.namespace(), now, use_),
                    None => NO_VALUE,
                },
                Label::K8sPod => match cgroup.as_deref().and_then(Cgroup::pod) {
                    Some(pod) => table.resolve(pod.pod(), now, use_),
                    None => NO_VALUE,
                },
                Label::K8sWorkload => match cgroup.as_deref().and_then(Cgroup::pod) {
                    Some(pod) => table.resolve(pod.workload(), now, use_),
                    None => NO_VALUE,
                },
                Label::RemoteCidr => {
                    table.resolve(self.sources.networks.of(inputs.remote.address), now, use_)
                }
                Label::Service => match inputs.service_port() {
                    Some(port) => table.resolve(self.sources.services.of(port), now, use_),
                    None => NO_VALUE,
                },
            };
        }
        key
    }

    /// Iterates over all combinations.
    pub(super) fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut().map(|(_, slot)| slot)
    }

    /// Expires unused combinations, and replaces less used label values by more used ones.
    pub(super) fn advance(&mut self, now: Timestamp) {
        if self.tables.is_empty() || now.since(self.ticked) < TICK {
            return;
        }
        self.ticked = now;
        for (label, table) in self.sources.labels.iter().zip(&mut self.tables) {
            let ended: HashSet<u16, foldhash::fast::RandomState> = table.tick(now).into_iter().collect();
            if !ended.is_empty() {
                retain(&mut self.slots, &mut self.index, |slot| !ended.contains(&slot.key[*label as usize]));
            }
        }
        let expiry = self.expiry;
        retain(&mut self.slots, &mut self.index, |slot| now.since(slot.last_used) <= expiry);
        self.full &= self.bytes() > PAGE_BYTES / 4 * 3;
    }

    /// Drops the least used combinations until the rest fits on the page.
    pub(super) fn fit(&mut self) {
        if self.tables.is_empty() {
            return;
        }
        let mut bytes = self.bytes();
        if bytes <= PAGE_BYTES {
            return;
        }
        self.full = true;
        let mut uses: Vec<_> = self
            .slots
            .iter()
            .filter(|(index, _)| *index != BASE)
            .map(|(index, slot)| (slot.uses, index))
            .collect();
        uses.sort_unstable();
        for (_, index) in uses {
            if bytes <= PAGE_BYTES {
                break;
            }
            bytes -= self.bytes_of(&self.slots[index]);
            let slot = self.slots.remove(index);
            self.index.remove(&slot.key);
            self.overflow += 1;
        }
    }

    fn bytes(&self) -> usize {
        self.slots.iter().map(|(_, slot)| self.bytes_of(slot)).sum()
    }

    /// Estimates the bytes of a combination on the page.
    fn bytes_of(&self, slot: &Slot) -> usize {
        let labels: usize = self
            .labels_of(slot)
            .map(|(name, value)| name.len() + value.len() + value.matches(['\\', '"']).count() + 4)
            .sum();
        (slot.tally.lines() + slot.gauges.lines()) * (LINE_BYTES + labels)
    }

    /// Returns the labels of a combination that have a value.
    fn labels_of(&self, slot: &Slot) -> impl Iterator<Item = (&'static str, &str)> {
        let key = slot.key;
        self.sources
            .labels
            .iter()
            .zip(&self.tables)
            .map(move |(label, table)| (label.name(), table.value(key[*label as usize])))
            .filter(|(_, value)| !value.is_empty())
    }

    /// Copies the labels and counts of every combination.
    pub(super) fn copy(&self) -> Vec<OwnerCounts> {
        self.slots
            .iter()
            .map(|(_, slot)| {
                let labels = self.labels_of(slot).map(|(name, value)| (name, value.to_owned())).collect();
                OwnerCounts { labels, tally: slot.tally.clone(), gauges: slot.gauges }
            })
            .collect()
    }

    /// Returns how often a value exceeded its limit, by label; `series` counts combinations.
    pub(super) fn overflows(&self) -> Vec<(&'static str, u64)> {
        let values = self.sources.labels.iter().zip(&self.tables);
        let mut all: Vec<_> = values.map(|(label, table)| (label.name(), table.overflow())).collect();
        if self.labelled() {
            all.push(("series", self.overflow));
        }
        all
    }
}

impl Slot {
    fn new(key: Key, now: Timestamp) -> Self {
        Self {
            key,
            tally: Tally::default(),
            gauges: Gauges::default(),
            next_gauges: Gauges::default(),
            uses: 0,
            last_used: now,
        }
    }
}

fn retain(
    slots: &mut Slab<Slot>,
    index: &mut HashMap<Key, usize, foldhash::fast::RandomState>,
    keep: impl Fn(&Slot) -> bool,
) {
    slots.retain(|slot_index, slot| {
        let kept = slot_index == BASE || keep(slot);
        if !kept {
            index.remove(&slot.key);
        }
        kept
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracer_core::{
        event::{Endpoint, Nanos, Process},
        lifecycle::CloseReason,
    };

    use super::*;
    use crate::agent::metrics::names::OutcomeLabel;

    const LABELS: [Label; 2] = [Label::LocalPort, Label::Process];

    fn owners(labels: &[Label], values: u16) -> Owners {
        let limits = LabelLimits { values, ..LabelLimits::default() };
        Owners::new(LabelSources::new(labels), limits)
    }

    fn inputs(port: u16, name: u8) -> LabelInputs {
        let endpoint = |port| Endpoint { address: "10.0.0.1".parse().unwrap(), port };
        let mut comm = [0; 16];
        comm[..2].copy_from_slice(&[b'a' + name / 26 % 26, b'a' + name % 26]);
        LabelInputs {
            role: Role::Server,
            local: endpoint(port),
            remote: endpoint(1),
            process: Some(Process { pid: 1, uid: 1, comm }),
            cgroup_id: None,
        }
    }

    fn count(owners: &Owners, labels: &[(&str, &str)]) -> Option<u64> {
        let wanted: Vec<_> = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let found = owners.copy().into_iter().find(|it| it.labels == wanted);
        found.map(|it| it.tally.handshakes[1][0])
    }

    fn count_one(owners: &mut Owners, inputs: LabelInputs, now: Timestamp) {
        owners.slot(inputs, now).tally.handshake(Role::Server, OutcomeLabel::Established);
    }

    #[test]
    fn without_labels_there_is_one_combination() {
        let mut owners = owners(&[], 10);
        for port in 1..1000 {
            count_one(&mut owners, inputs(port, 0), Timestamp(0));
        }
        assert_eq!((owners.slots.len(), count(&owners, &[])), (1, Some(999)));
    }

    #[test]
    fn each_label_overflows_separately() {
        let mut owners = owners(&LABELS, 2);
        for port in [80, 81, 82, 83] {
            count_one(&mut owners, inputs(port, 0), Timestamp(0));
        }
        assert_eq!(count(&owners, &[("local_port", "81"), ("process", "aa")]), Some(1));
        assert_eq!(count(&owners, &[("local_port", "~other"), ("process", "aa")]), Some(2));
        assert_eq!(owners.overflows(), [("local_port", 2), ("process", 0), ("series", 0)]);
    }

    #[test]
    fn a_more_used_value_takes_over_and_other_keeps_its_count() {
        let mut owners = owners(&LABELS[..1], 1);
        count_one(&mut owners, inputs(80, 0), Timestamp(0));
        for _ in 0..10 {
            count_one(&mut owners, inputs(81, 0), Timestamp(1));
        }
        owners.advance(Timestamp(TICK.0));
        count_one(&mut owners, inputs(81, 0), Timestamp(TICK.0));
        assert_eq!(count(&owners, &[("local_port", "80")]), None);
        assert_eq!(count(&owners, &[("local_port", "81")]), Some(1));
        assert_eq!(count(&owners, &[("local_port", "~other")]), Some(10));
    }

    #[test]
    fn a_lasting_connection_keeps_its_series_and_adds_no_use() {
        let mut owners = owners(&LABELS[..1], 1);
        count_one(&mut owners, inputs(80, 0), Timestamp(0));
        let hour = LabelLimits::default().expiry.0;
        for second in 0..=hour / 1_000_000_000 {
            let now = Timestamp(second * 1_000_000_000);
            for port in [80, 81] {
                owners.gauge_slot(inputs(port, 0), now);
            }
            owners.advance(now);
        }
        owners.advance(Timestamp(hour + TICK.0));
        assert_eq!(owners.overflows(), [("local_port", 0), ("series", 0)]);
        assert_eq!(count(&owners, &[("local_port", "80")]), Some(1));
        assert!(owners.slots.iter().all(|(_, slot)| slot.uses <= 1));
    }

    #[test]
    fn unused_series_expire() {
        let mut owners = owners(&LABELS, 10);
        count_one(&mut owners, inputs(80, 0), Timestamp(0));
        let hour = LabelLimits::default().expiry.0;
        owners.advance(Timestamp(hour - 1));
        assert_eq!(owners.slots.len(), 2);
        owners.advance(Timestamp(hour + TICK.0));
        assert_eq!(owners.slots.len(), 1);
    }

    #[test]
    fn the_page_size_is_bounded() {
        let mut owners = owners(&LABELS, 500);
        for port in 1..=500 {
            let tally = &mut owners.slot(inputs(port, 0), Timestamp(0)).tally;
            for role in [Role::Client, Role::Server] {
                for ipv4 in [true, false] {
                    tally.duration(role, ipv4, Nanos(1));
                }
                for reason in CloseReason::ALL {
                    tally.closed(role, reason);
                }
            }
        }
        assert!(owners.bytes() > PAGE_BYTES);
        owners.fit();
        assert!(owners.bytes() <= PAGE_BYTES && owners.full && owners.slots.len() > 10);
        let len = owners.slots.len();
        count_one(&mut owners, inputs(1000, 1), Timestamp(0));
        assert_eq!(owners.slots.len(), len);
    }

    proptest! {
        /// `~other` never decreases, and the limits hold.
        #[test]
        fn other_never_decreases(
            limit in 1..6_u16,
            steps in prop::collection::vec((1..12_u16, 0..12_u8, 0..90_u64), 1..300),
        ) {
            let mut owners = owners(&LABELS, limit);
            let mut now = 0;
            let mut before = 0;
            for (port, name, seconds) in steps {
                now += seconds * 1_000_000_000;
                count_one(&mut owners, inputs(port, name), Timestamp(now));
                owners.advance(Timestamp(now));
                let other = count(&owners, &[("local_port", "~other"), ("process", "~other")]).unwrap();
                prop_assert!(other >= before);
                before = other;
                let values = usize::from(limit) + 1;
                prop_assert!(owners.slots.len() <= values * values);
                prop_assert_eq!(owners.index.len(), owners.slots.len());
            }
        }
    }
}
