//! Whose counts are whose: a set of counts for each combination of the opt-in labels' values.
//!
//! Without opt-in labels there is one set, and nothing is looked up. With them the combinations are limited
//! twice: by the values of each label, and by the room that all of them take on the page.

use std::{path::Path, time::Duration};

use hashbrown::{HashMap, HashSet};
use slab::Slab;
use tracer_core::{
    escape::escape,
    event::{Endpoint, Process, Timestamp},
    lifecycle::{Connection, HalfOpen, Role},
};

use crate::{
    agent::metrics::{
        Label, LabelLimits, LabelTable, ListError, Networks, Services,
        labels::{NO_VALUE, OTHER_VALUE, Use},
        snapshot::OwnerCounts,
        tally::{Gauges, Tally},
    },
    host::CgroupResolver,
};

/// About as many bytes as all combinations may take on the page, so that the whole stays below 1 MB.
const PAGE_BYTES: usize = 850_000;
/// A line without its opt-in labels.
const LINE_BYTES: usize = 110;
/// Most combinations, however short.
const MOST_SLOTS: usize = 1000;
/// How often values and combinations make room for others.
const TICK_NS: u64 = 60_000_000_000;

/// A value of each label, by number.
type Key = [u16; Label::ALL.len()];

/// Where the labels' values come from.
#[derive(Debug, Default)]
pub struct LabelSources {
    labels: Vec<Label>,
    networks: Networks,
    services: Services,
    resolver: Option<CgroupResolver>,
}

impl LabelSources {
    /// The labels that were asked for, each as `local_port`, `process`, `container`, `cgroup`,
    /// `remote_cidr=FILE` or `service=FILE`.
    ///
    /// # Errors
    ///
    /// When a list cannot be used.
    pub fn new(requests: &[(Label, Option<std::path::PathBuf>)]) -> Result<Self, ListError> {
        let mut sources = Self::default();
        for (label, list) in requests {
            let list = list.as_deref().unwrap_or(Path::new(""));
            match label {
                Label::RemoteCidr => sources.networks = Networks::read(list)?,
                Label::Service => sources.services = Services::read(list)?,
                _ => {}
            }
            if !sources.labels.contains(label) {
                sources.labels.push(*label);
            }
        }
        sources.labels.sort_unstable_by_key(|label| *label as u8);
        Ok(sources)
    }

    /// With the cgroups of the traced host.
    #[must_use]
    pub fn with_resolver(self, resolver: CgroupResolver) -> Self {
        Self { resolver: Some(resolver), ..self }
    }

    fn asks_for_cgroup(&self) -> bool {
        self.labels.iter().any(|label| matches!(label, Label::Container | Label::Cgroup))
    }
}

/// What is known of the one that something is counted for.
#[derive(Clone, Copy)]
pub(super) struct LabelInputs {
    role: Role,
    local: Endpoint,
    remote: Endpoint,
    process: Option<Process>,
    cgroup_id: Option<u64>,
}

impl LabelInputs {
    pub(super) fn of(connection: &Connection) -> Self {
        Self {
            role: connection.role,
            local: connection.local,
            remote: connection.remote,
            process: connection.owner.process,
            cgroup_id: connection.cgroup_id,
        }
    }

    pub(super) fn of_half_open(half_open: &HalfOpen) -> Self {
        Self {
            role: Role::Server,
            local: half_open.local,
            remote: half_open.remote,
            process: None,
            cgroup_id: None,
        }
    }

    /// The server's port; none when it is unknown which end that is.
    fn service_port(&self) -> Option<u16> {
        match self.role {
            Role::Server => Some(self.local.port),
            Role::Client => Some(self.remote.port),
            Role::Simultaneous | Role::Unknown => None,
        }
    }
}

/// One combination.
#[derive(Debug)]
pub(super) struct Slot {
    key: Key,
    pub(super) tally: Tally,
    /// As the last whole look at the table found them.
    pub(super) gauges: Gauges,
    /// As the look that goes on finds them.
    pub(super) next_gauges: Gauges,
    uses: u64,
    last_used: Timestamp,
}

/// All combinations.
#[derive(Debug)]
pub struct Owners {
    sources: LabelSources,
    tables: Vec<LabelTable>,
    expiry_ns: u64,
    slots: Slab<Slot>,
    index: HashMap<Key, usize, foldhash::fast::RandomState>,
    /// The page has no room for another combination.
    full: bool,
    overflow: u64,
    ticked: Timestamp,
}

/// The combination that always exists: without labels the only one, else `~other`.
const BASE: usize = 0;

impl Owners {
    /// With these labels and limits.
    pub fn new(sources: LabelSources, limits: LabelLimits) -> Self {
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
            expiry_ns: limits.expiry_ns,
            slots,
            index: std::iter::once((key, base)).collect(),
            full: false,
            overflow: 0,
            ticked: Timestamp(0),
        }
    }

    /// Whether there are opt-in labels.
    pub fn labelled(&self) -> bool {
        !self.tables.is_empty()
    }

    /// How many combinations there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Never: one always exists.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Looks the cgroup of a connection that begins up, while it certainly exists.
    pub(super) fn begins(&mut self, connection: &Connection, now: Timestamp) {
        if self.sources.asks_for_cgroup()
            && let Some(resolver) = &mut self.sources.resolver
        {
            let process = connection.owner.process.as_ref();
            resolver.note(connection.cgroup_id, process, Duration::from_nanos(now.0));
        }
    }

    /// The counts of an owner, to count something that happened.
    pub(super) fn slot(&mut self, inputs: LabelInputs, now: Timestamp) -> &mut Slot {
        self.slot_for(inputs, now, Use::Counted)
    }

    /// The counts of an owner who is there. That is no use: a connection that stays would be one every second.
    pub(super) fn gauge_slot(&mut self, inputs: LabelInputs, now: Timestamp) -> &mut Slot {
        self.slot_for(inputs, now, Use::Seen)
    }

    fn slot_for(&mut self, inputs: LabelInputs, now: Timestamp, use_: Use) -> &mut Slot {
        let place = if self.tables.is_empty() { BASE } else { self.place(inputs, now, use_) };
        &mut self.slots[place]
    }

    fn place(&mut self, inputs: LabelInputs, now: Timestamp, use_: Use) -> usize {
        let key = self.key(inputs, now, use_);
        let place = match self.index.get(&key) {
            Some(&place) => place,
            None if self.full || self.slots.len() >= MOST_SLOTS => {
                self.overflow += u64::from(use_ == Use::Counted);
                BASE
            }
            None => {
                let place = self.slots.insert(Slot::new(key, now));
                self.index.insert(key, place);
                place
            }
        };
        let slot = &mut self.slots[place];
        slot.uses += u64::from(use_ == Use::Counted);
        slot.last_used = now;
        place
    }

    fn key(&mut self, inputs: LabelInputs, now: Timestamp, use_: Use) -> Key {
        let mut key = [NO_VALUE; Label::ALL.len()];
        let cgroup = if self.sources.asks_for_cgroup() {
            self.sources.resolver.as_mut().and_then(|resolver| {
                resolver.cgroup(inputs.cgroup_id, inputs.process.as_ref(), Duration::from_nanos(now.0))
            })
        } else {
            None
        };
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

    /// Every combination.
    pub(super) fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut().map(|(_, slot)| slot)
    }

    /// Lets time pass: what nobody uses ends, and what is used more takes the place of what is used less.
    pub(super) fn advance(&mut self, now: Timestamp) {
        if self.tables.is_empty() || now.since(self.ticked) < TICK_NS {
            return;
        }
        self.ticked = now;
        for (label, table) in self.sources.labels.iter().zip(&mut self.tables) {
            let ended: HashSet<u16, foldhash::fast::RandomState> = table.tick(now).into_iter().collect();
            if !ended.is_empty() {
                retain(&mut self.slots, &mut self.index, |slot| !ended.contains(&slot.key[*label as usize]));
            }
        }
        let expiry_ns = self.expiry_ns;
        retain(&mut self.slots, &mut self.index, |slot| now.since(slot.last_used) <= expiry_ns);
        self.full &= self.bytes() > PAGE_BYTES / 4 * 3;
    }

    /// Gives up the least used combinations until the rest fits on the page.
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
            .filter(|(place, _)| *place != BASE)
            .map(|(place, slot)| (slot.uses, place))
            .collect();
        uses.sort_unstable();
        for (_, place) in uses {
            if bytes <= PAGE_BYTES {
                break;
            }
            bytes -= self.bytes_of(&self.slots[place]);
            let slot = self.slots.remove(place);
            self.index.remove(&slot.key);
            self.overflow += 1;
        }
    }

    fn bytes(&self) -> usize {
        self.slots.iter().map(|(_, slot)| self.bytes_of(slot)).sum()
    }

    /// About what a combination takes on the page.
    fn bytes_of(&self, slot: &Slot) -> usize {
        let labels: usize = self
            .labels_of(slot)
            .map(|(name, value)| name.len() + value.len() + value.matches(['\\', '"']).count() + 4)
            .sum();
        (slot.tally.lines() + slot.gauges.lines()) * (LINE_BYTES + labels)
    }

    /// The labels of a combination with their values; those without a value are left out.
    fn labels_of(&self, slot: &Slot) -> impl Iterator<Item = (&'static str, &str)> {
        let key = slot.key;
        self.sources
            .labels
            .iter()
            .zip(&self.tables)
            .map(move |(label, table)| (label.name(), table.value(key[*label as usize])))
            .filter(|(_, value)| !value.is_empty())
    }

    /// A copy of every combination's labels and counts.
    pub(super) fn copy(&self) -> Vec<OwnerCounts> {
        self.slots
            .iter()
            .map(|(_, slot)| {
                let labels = self.labels_of(slot).map(|(name, value)| (name, value.to_owned())).collect();
                OwnerCounts { labels, tally: slot.tally.clone(), gauges: slot.gauges }
            })
            .collect()
    }

    /// How often a value, or a combination, was one too many, by label.
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
    slots.retain(|place, slot| {
        let kept = place == BASE || keep(slot);
        if !kept {
            index.remove(&slot.key);
        }
        kept
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracer_core::lifecycle::CloseReason;

    use super::*;
    use crate::agent::metrics::OutcomeLabel;

    const LABELS: [(Label, Option<std::path::PathBuf>); 2] =
        [(Label::LocalPort, None), (Label::Process, None)];

    fn owners(labels: &[(Label, Option<std::path::PathBuf>)], values: u16) -> Owners {
        let limits = LabelLimits { values, ..LabelLimits::default() };
        Owners::new(LabelSources::new(labels).unwrap(), limits)
    }

    fn inputs(port: u16, name: u8) -> LabelInputs {
        let end = |port| Endpoint { address: "10.0.0.1".parse().unwrap(), port };
        let mut comm = [0; 16];
        comm[..2].copy_from_slice(&[b'a' + name / 26 % 26, b'a' + name % 26]);
        LabelInputs {
            role: Role::Server,
            local: end(port),
            remote: end(1),
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
    fn without_labels_there_is_one() {
        let mut owners = owners(&[], 10);
        for port in 1..1000 {
            count_one(&mut owners, inputs(port, 0), Timestamp(0));
        }
        assert_eq!((owners.len(), count(&owners, &[])), (1, Some(999)));
    }

    #[test]
    fn each_label_is_folded_by_itself() {
        let mut owners = owners(&LABELS, 2);
        for port in [80, 81, 82, 83] {
            count_one(&mut owners, inputs(port, 0), Timestamp(0));
        }
        assert_eq!(count(&owners, &[("local_port", "81"), ("process", "aa")]), Some(1));
        assert_eq!(count(&owners, &[("local_port", "~other"), ("process", "aa")]), Some(2));
        assert_eq!(owners.overflows(), [("local_port", 2), ("process", 0), ("series", 0)]);
    }

    #[test]
    fn what_is_used_more_takes_over_and_other_keeps_its_count() {
        let mut owners = owners(&LABELS[..1], 1);
        count_one(&mut owners, inputs(80, 0), Timestamp(0));
        for _ in 0..10 {
            count_one(&mut owners, inputs(81, 0), Timestamp(1));
        }
        owners.advance(Timestamp(TICK_NS));
        count_one(&mut owners, inputs(81, 0), Timestamp(TICK_NS));
        assert_eq!(count(&owners, &[("local_port", "80")]), None);
        assert_eq!(count(&owners, &[("local_port", "81")]), Some(1));
        assert_eq!(count(&owners, &[("local_port", "~other")]), Some(10));
    }

    #[test]
    fn who_stays_is_no_use_and_does_not_vanish() {
        let mut owners = owners(&LABELS[..1], 1);
        count_one(&mut owners, inputs(80, 0), Timestamp(0));
        let hour = LabelLimits::default().expiry_ns;
        for second in 0..=hour / 1_000_000_000 {
            let now = Timestamp(second * 1_000_000_000);
            for port in [80, 81] {
                owners.gauge_slot(inputs(port, 0), now);
            }
            owners.advance(now);
        }
        owners.advance(Timestamp(hour + TICK_NS));
        assert_eq!(owners.overflows(), [("local_port", 0), ("series", 0)]);
        assert_eq!(count(&owners, &[("local_port", "80")]), Some(1));
        assert!(owners.slots.iter().all(|(_, slot)| slot.uses <= 1));
    }

    #[test]
    fn series_of_the_vanished_end() {
        let mut owners = owners(&LABELS, 10);
        count_one(&mut owners, inputs(80, 0), Timestamp(0));
        let hour = LabelLimits::default().expiry_ns;
        owners.advance(Timestamp(hour - 1));
        assert_eq!(owners.len(), 2);
        owners.advance(Timestamp(hour + TICK_NS));
        assert_eq!(owners.len(), 1);
    }

    #[test]
    fn the_page_has_an_end() {
        let mut owners = owners(&LABELS, 500);
        for port in 1..=500 {
            let tally = &mut owners.slot(inputs(port, 0), Timestamp(0)).tally;
            for role in [Role::Client, Role::Server] {
                for ipv4 in [true, false] {
                    tally.duration(role, ipv4, 1);
                }
                for reason in CloseReason::ALL {
                    tally.closed(role, reason);
                }
            }
        }
        assert!(owners.bytes() > PAGE_BYTES);
        owners.fit();
        assert!(owners.bytes() <= PAGE_BYTES && owners.full && owners.len() > 10);
        let len = owners.len();
        count_one(&mut owners, inputs(1000, 1), Timestamp(0));
        assert_eq!(owners.len(), len);
    }

    proptest! {
        /// Whatever comes, `~other` never goes back, and nothing grows beyond its limit.
        #[test]
        fn other_never_goes_back(
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
                prop_assert!(owners.len() <= values * values);
                prop_assert_eq!(owners.index.len(), owners.slots.len());
            }
        }
    }
}
