//! The bounded set of values of one opt-in label.
//!
//! A value beyond the limit is counted under [`OTHER`]. Once a minute, the most used of those candidates replace
//! admitted values with less use. A replaced or expired series is dropped with its count. Adding that count to
//! `~other` would report the same events twice, as a rate that never happened.

use hashbrown::HashMap;
use tracer_core::event::{Nanos, Timestamp};

/// The value that stands for all values beyond the limit.
pub(super) const OTHER: &str = "~other";

/// No value: the page omits the label.
pub(super) const NO_VALUE: u16 = 0;
/// [`OTHER`].
pub(super) const OTHER_VALUE: u16 = 1;
/// The number of the first admitted value.
const FIRST: u16 = 2;

/// The longest value, bytes. Longer values keep their end.
const MAX_BYTES: usize = 64;

/// An opt-in label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// The server's listening port.
    LocalPort,
    /// The process name of the owner.
    Process,
    /// The first 12 digits of the container id.
    Container,
    /// The cgroup path.
    Cgroup,
    /// The Kubernetes namespace of the pod.
    K8sNamespace,
    /// The name of the Kubernetes pod.
    K8sPod,
    /// The Kubernetes workload, derived from the name of the pod.
    K8sWorkload,
    /// The network that contains the remote address, from a list.
    RemoteCidr,
    /// The service on the server's port, from a list.
    Service,
}

impl Label {
    /// Every label, in the order of the page.
    pub const ALL: [Self; 9] = [
        Self::LocalPort,
        Self::Process,
        Self::Container,
        Self::Cgroup,
        Self::K8sNamespace,
        Self::K8sPod,
        Self::K8sWorkload,
        Self::RemoteCidr,
        Self::Service,
    ];

    /// The label name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::LocalPort => "local_port",
            Self::Process => "process",
            Self::Container => "container",
            Self::Cgroup => "cgroup",
            Self::K8sNamespace => "k8s_namespace",
            Self::K8sPod => "k8s_pod",
            Self::K8sWorkload => "k8s_workload",
            Self::RemoteCidr => "remote_cidr",
            Self::Service => "service",
        }
    }
}

/// Limits of the opt-in labels.
#[derive(Clone, Copy, Debug)]
pub struct LabelLimits {
    /// Most values of each label, without [`OTHER`].
    pub values: u16,
    /// How long an unused value is kept.
    pub expiry: Nanos,
}

impl Default for LabelLimits {
    /// 100 values, 1 hour.
    fn default() -> Self {
        Self { values: 100, expiry: Nanos::from_secs(3_600) }
    }
}

/// The reason for resolving a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// An event is counted under the value. Raises the value's rank.
    Counted,
    /// A live connection has the value. Prevents expiry, without raising the rank.
    Seen,
}

#[derive(Debug)]
struct Entry {
    value: Box<str>,
    /// Counted events in the current minute.
    uses: u32,
    last_used: Timestamp,
}

/// The values of one label.
#[derive(Debug)]
pub(super) struct LabelTable {
    limits: LabelLimits,
    index: HashMap<Box<str>, u16, foldhash::fast::RandomState>,
    entries: Vec<Option<Entry>>,
    /// Indices of empty entries.
    free: Vec<usize>,
    /// Values beyond the limit with their uses in the current minute; at most as many as the limit.
    candidates: HashMap<Box<str>, u32, foldhash::fast::RandomState>,
    overflow: u64,
}

impl LabelTable {
    /// Creates an empty table. The limit is at least 1.
    pub(super) fn new(limits: LabelLimits) -> Self {
        let values = limits.values.clamp(1, u16::MAX - FIRST);
        Self {
            limits: LabelLimits { values, ..limits },
            index: HashMap::default(),
            entries: Vec::new(),
            free: Vec::new(),
            candidates: HashMap::default(),
            overflow: 0,
        }
    }

    /// Returns the number of a value and records its use.
    pub(super) fn resolve(&mut self, value: &str, now: Timestamp, use_: Use) -> u16 {
        let uses = u32::from(use_ == Use::Counted);
        let value = tail(value);
        if value.is_empty() {
            return NO_VALUE;
        }
        if value == OTHER {
            return OTHER_VALUE;
        }
        if let Some(&number) = self.index.get(value) {
            if let Some(entry) = self.entries[usize::from(number - FIRST)].as_mut() {
                entry.uses = entry.uses.saturating_add(uses);
                entry.last_used = now;
            }
            return number;
        }
        if self.index.len() < usize::from(self.limits.values) {
            return self.admit(value, uses, now);
        }
        if use_ == Use::Seen {
            return OTHER_VALUE;
        }
        self.overflow += 1;
        if let Some(uses) = self.candidates.get_mut(value) {
            *uses = uses.saturating_add(1);
        } else if self.candidates.len() < usize::from(self.limits.values) {
            self.candidates.insert(value.into(), 1);
        }
        OTHER_VALUE
    }

    fn admit(&mut self, value: &str, uses: u32, now: Timestamp) -> u16 {
        let entry = Some(Entry { value: value.into(), uses, last_used: now });
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        self.entries[index] = entry;
        let number = FIRST + u16::try_from(index).expect("the limit of the entries is a u16");
        self.index.insert(value.into(), number);
        number
    }

    /// Returns the value of a number; [`OTHER`] when the value has ended.
    pub(super) fn value(&self, number: u16) -> &str {
        match number {
            NO_VALUE => "",
            OTHER_VALUE => OTHER,
            number => self
                .entries
                .get(usize::from(number - FIRST))
                .and_then(Option::as_ref)
                .map_or(OTHER, |entry| &entry.value),
        }
    }

    /// Returns how many uses exceeded the limit.
    pub(super) fn overflow(&self) -> u64 {
        self.overflow
    }

    /// Ends a minute: expires and replaces values. Returns the numbers of the ended values, which may be reused already.
    pub(super) fn tick(&mut self, now: Timestamp) -> Vec<u16> {
        let mut ended = Vec::new();
        for index in 0..self.entries.len() {
            let idle = |entry: &Entry| now.since(entry.last_used) > self.limits.expiry;
            if self.entries[index].as_ref().is_some_and(idle) {
                ended.extend(self.end(index));
            }
        }
        let mut candidates: Vec<_> = self.candidates.drain().collect();
        candidates.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
        // A value admitted here is never replaced here: the remaining candidates have fewer uses.
        let mut least: Vec<(u32, usize)> = (0..self.entries.len())
            .filter_map(|index| Some((self.entries[index].as_ref()?.uses, index)))
            .collect();
        least.sort_unstable();
        let mut least = least.into_iter();
        for (value, uses) in candidates {
            if self.index.len() >= usize::from(self.limits.values) {
                // Twice the uses, so that equally used values do not alternate.
                let Some((_, index)) = least.next().filter(|(least, _)| uses / 2 > *least) else { break };
                ended.extend(self.end(index));
            }
            self.admit(&value, uses, now);
        }
        for entry in self.entries.iter_mut().flatten() {
            entry.uses = 0;
        }
        ended
    }

    fn end(&mut self, index: usize) -> Option<u16> {
        let entry = self.entries[index].take()?;
        self.free.push(index);
        self.index.remove(&entry.value)
    }
}

/// Returns the last [`MAX_BYTES`] bytes of a value, cut at a character.
fn tail(value: &str) -> &str {
    if value.len() <= MAX_BYTES {
        return value;
    }
    let mut from = value.len() - MAX_BYTES;
    while !value.is_char_boundary(from) {
        from += 1;
    }
    &value[from..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: u64 = 60_000_000_000;

    fn table(values: u16) -> LabelTable {
        LabelTable::new(LabelLimits { values, expiry: Nanos(10 * MINUTE) })
    }

    #[test]
    fn a_value_beyond_the_limit_is_other() {
        let mut table = table(2);
        let numbers: Vec<u16> = ["a", "b", "c", "a", "", "~other"]
            .iter()
            .map(|value| table.resolve(value, Timestamp(0), Use::Counted))
            .collect();
        let values: Vec<&str> = numbers.iter().map(|&number| table.value(number)).collect();
        assert_eq!(values, ["a", "b", "~other", "a", "", "~other"]);
        assert_eq!(table.overflow(), 1);
    }

    #[test]
    fn a_million_values_stay_within_the_limit() {
        let mut table = table(100);
        for value in 0..1_000_000_u64 {
            table.resolve(
                &format!("10.{}.{}.{}", value >> 16, value >> 8 & 255, value & 255),
                Timestamp(value),
                Use::Counted,
            );
        }
        assert_eq!((table.index.len(), table.entries.len(), table.candidates.len()), (100, 100, 100));
        assert_eq!(table.overflow(), 999_900);
    }

    #[test]
    fn a_more_used_value_replaces_the_least_used() {
        let mut table = table(2);
        let now = Timestamp(MINUTE);
        for _ in 0..100 {
            table.resolve("busy", now, Use::Counted);
        }
        let idle = table.resolve("idle", now, Use::Counted);
        for _ in 0..50 {
            assert_eq!(table.resolve("new", now, Use::Counted), OTHER_VALUE);
        }
        assert_eq!(table.tick(now), [idle]);
        let number = table.resolve("new", now, Use::Counted);
        assert_eq!(table.value(number), "new");
        assert_eq!(table.resolve("idle", now, Use::Counted), OTHER_VALUE);
    }

    #[test]
    fn equally_used_values_do_not_alternate() {
        let mut table = table(1);
        table.resolve("a", Timestamp(0), Use::Counted);
        table.resolve("b", Timestamp(0), Use::Counted);
        assert!(table.tick(Timestamp(MINUTE)).is_empty());
    }

    #[test]
    fn an_unused_value_expires() {
        let mut table = table(2);
        let gone = table.resolve("gone", Timestamp(0), Use::Counted);
        table.resolve("there", Timestamp(0), Use::Counted);
        table.resolve("there", Timestamp(9 * MINUTE), Use::Counted);
        assert!(table.tick(Timestamp(10 * MINUTE)).is_empty());
        assert_eq!(table.tick(Timestamp(11 * MINUTE)), [gone]);
        assert_eq!(table.index.len(), 1);
    }

    #[test]
    fn a_seen_value_is_admitted_below_the_limit_and_kept() {
        let mut table = table(1);
        let there = table.resolve("there", Timestamp(0), Use::Seen);
        assert_eq!(table.value(there), "there");
        for second in 0..1000 {
            assert_eq!(table.resolve("there", Timestamp(second * MINUTE), Use::Seen), there);
            assert_eq!(table.resolve("another", Timestamp(second * MINUTE), Use::Seen), OTHER_VALUE);
            assert!(table.tick(Timestamp(second * MINUTE)).is_empty());
        }
        assert_eq!((table.overflow(), table.candidates.len()), (0, 0));
    }

    #[test]
    fn a_full_table_is_replaced_in_one_tick() {
        let mut table = table(5000);
        for value in 0..5000 {
            table.resolve(&format!("idle{value}"), Timestamp(0), Use::Counted);
        }
        for _ in 0..4 {
            for value in 0..5000 {
                table.resolve(&format!("busy{value}"), Timestamp(1), Use::Counted);
            }
        }
        assert_eq!(table.tick(Timestamp(MINUTE)).len(), 5000);
        assert_eq!((table.index.len(), table.entries.len(), table.free.len()), (5000, 5000, 0));
        let busy = table.resolve("busy4999", Timestamp(MINUTE), Use::Seen);
        assert_eq!(table.value(busy), "busy4999");
    }

    #[test]
    fn a_long_value_keeps_its_end() {
        let mut table = table(2);
        let long = format!("/kubepods.slice/{}é.scope", "x".repeat(100));
        let number = table.resolve(&long, Timestamp(0), Use::Counted);
        assert!(table.value(number).len() <= MAX_BYTES);
        assert!(table.value(number).ends_with("xé.scope"));
    }

    proptest! {
        #[test]
        fn the_limit_holds_and_every_number_has_its_value(
            limit in 1..20_u16,
            steps in prop::collection::vec((0..40_u32, 0..3_u64, any::<bool>()), 1..400),
        ) {
            let mut table = table(limit);
            let mut now = 0;
            for (value, minutes, tick) in steps {
                now += minutes * MINUTE;
                if tick {
                    table.tick(Timestamp(now));
                }
                let value = value.to_string();
                let number = table.resolve(&value, Timestamp(now), Use::Counted);
                let shown = table.value(number);
                prop_assert!(shown == value || shown == OTHER);
                prop_assert!(table.index.len() <= usize::from(limit));
                prop_assert!(table.candidates.len() <= usize::from(limit));
            }
        }
    }
}
