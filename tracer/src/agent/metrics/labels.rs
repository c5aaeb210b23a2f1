//! The values of one opt-in label, of which there are never more than its limit.
//!
//! A value beyond the limit is counted under [`OTHER`]. Once a minute those that were used most among
//! them take the places of admitted values that were used less. A series that ends that way, or because
//! its owner has been gone for long, ends with the count it had: adding that to `~other` would show a
//! monitor the same events a second time, as a rate that never was.

use hashbrown::HashMap;
use tracer_core::event::Timestamp;

/// The value that stands for all that are one too many.
pub const OTHER: &str = "~other";

/// No value: the label is left empty.
pub(super) const NO_VALUE: u16 = 0;
/// [`OTHER`].
pub(super) const OTHER_VALUE: u16 = 1;
const FIRST: u16 = 2;

/// The longest value, bytes; of a longer one the end is kept.
const LONGEST: usize = 64;

/// An opt-in label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// The port that a server listens on.
    LocalPort,
    /// The name of the owner's process.
    Process,
    /// The first twelve digits of the container's id.
    Container,
    /// The path of the cgroup.
    Cgroup,
    /// The network of the remote address, from a list.
    RemoteCidr,
    /// The service by the server's port, from a list.
    Service,
}

impl Label {
    /// Every label, in the order of the page.
    pub const ALL: [Self; 6] =
        [Self::LocalPort, Self::Process, Self::Container, Self::Cgroup, Self::RemoteCidr, Self::Service];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LocalPort => "local_port",
            Self::Process => "process",
            Self::Container => "container",
            Self::Cgroup => "cgroup",
            Self::RemoteCidr => "remote_cidr",
            Self::Service => "service",
        }
    }
}

/// How much of it there may be.
#[derive(Clone, Copy, Debug)]
pub struct LabelLimits {
    /// Most values of each label, [`OTHER`] not counted.
    pub values: u16,
    /// How long a value lasts that nothing uses, nanoseconds.
    pub expiry_ns: u64,
}

impl Default for LabelLimits {
    /// A hundred values, an hour.
    fn default() -> Self {
        Self { values: 100, expiry_ns: 3_600_000_000_000 }
    }
}

/// Why a value is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Something happened that is counted under it.
    Counted,
    /// It is there: it lasts, and is worth no more for that.
    Seen,
}

#[derive(Debug)]
struct Entry {
    value: Box<str>,
    /// In this minute.
    uses: u32,
    last_used: Timestamp,
}

/// The values of one label.
#[derive(Debug)]
pub struct LabelTable {
    limits: LabelLimits,
    index: HashMap<Box<str>, u16, foldhash::fast::RandomState>,
    entries: Vec<Option<Entry>>,
    /// Places among them that are empty.
    free: Vec<usize>,
    /// Those that did not fit, with their uses in this minute; at most as many as there are places.
    candidates: HashMap<Box<str>, u32, foldhash::fast::RandomState>,
    overflow: u64,
}

impl LabelTable {
    /// An empty one.
    pub fn new(limits: LabelLimits) -> Self {
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

    /// The number of a value, which is used now.
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
        let place = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        self.entries[place] = entry;
        let number = FIRST + u16::try_from(place).expect("there are no more places than the limit, a u16");
        self.index.insert(value.into(), number);
        number
    }

    /// The value of a number.
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

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// How often a value was one too many.
    pub fn overflow(&self) -> u64 {
        self.overflow
    }

    /// A minute is over. Gives the numbers of the values that end; another may have taken one already.
    pub(super) fn tick(&mut self, now: Timestamp) -> Vec<u16> {
        let mut ended = Vec::new();
        for place in 0..self.entries.len() {
            let idle = |entry: &Entry| now.since(entry.last_used) > self.limits.expiry_ns;
            if self.entries[place].as_ref().is_some_and(idle) {
                ended.extend(self.end(place));
            }
        }
        let mut candidates: Vec<_> = self.candidates.drain().collect();
        candidates.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
        // One that was admitted here never goes again: those after it are used less.
        let mut least: Vec<(u32, usize)> = (0..self.entries.len())
            .filter_map(|place| Some((self.entries[place].as_ref()?.uses, place)))
            .collect();
        least.sort_unstable();
        let mut least = least.into_iter();
        for (value, uses) in candidates {
            if self.index.len() >= usize::from(self.limits.values) {
                // Twice as much, so that equals do not take turns.
                let Some((_, place)) = least.next().filter(|(least, _)| uses / 2 > *least) else { break };
                ended.extend(self.end(place));
            }
            self.admit(&value, uses, now);
        }
        for entry in self.entries.iter_mut().flatten() {
            entry.uses = 0;
        }
        ended
    }

    fn end(&mut self, place: usize) -> Option<u16> {
        let entry = self.entries[place].take()?;
        self.free.push(place);
        self.index.remove(&entry.value)
    }
}

/// The end of a value, no longer than the longest.
fn tail(value: &str) -> &str {
    if value.len() <= LONGEST {
        return value;
    }
    let mut from = value.len() - LONGEST;
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
        LabelTable::new(LabelLimits { values, expiry_ns: 10 * MINUTE })
    }

    #[test]
    fn beyond_the_limit_it_is_other() {
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
    fn a_million_values_take_no_more_room_than_the_limit() {
        let mut table = table(100);
        for value in 0..1_000_000_u64 {
            table.resolve(
                &format!("10.{}.{}.{}", value >> 16, value >> 8 & 255, value & 255),
                Timestamp(value),
                Use::Counted,
            );
        }
        assert_eq!((table.len(), table.entries.len(), table.candidates.len()), (100, 100, 100));
        assert_eq!(table.overflow(), 999_900);
    }

    #[test]
    fn the_least_used_makes_room_for_one_that_is_used_more() {
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
    fn equals_do_not_take_turns() {
        let mut table = table(1);
        table.resolve("a", Timestamp(0), Use::Counted);
        table.resolve("b", Timestamp(0), Use::Counted);
        assert!(table.tick(Timestamp(MINUTE)).is_empty());
    }

    #[test]
    fn what_nothing_uses_ends() {
        let mut table = table(2);
        let gone = table.resolve("gone", Timestamp(0), Use::Counted);
        table.resolve("there", Timestamp(0), Use::Counted);
        table.resolve("there", Timestamp(9 * MINUTE), Use::Counted);
        assert!(table.tick(Timestamp(10 * MINUTE)).is_empty());
        assert_eq!(table.tick(Timestamp(11 * MINUTE)), [gone]);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn what_is_only_there_has_a_value_when_there_is_room_and_is_kept() {
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
    fn a_full_table_takes_over_at_once() {
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
        assert_eq!((table.len(), table.entries.len(), table.free.len()), (5000, 5000, 0));
        let busy = table.resolve("busy4999", Timestamp(MINUTE), Use::Seen);
        assert_eq!(table.value(busy), "busy4999");
    }

    #[test]
    fn of_a_long_value_the_end_is_kept() {
        let mut table = table(2);
        let long = format!("/kubepods.slice/{}é.scope", "x".repeat(100));
        let number = table.resolve(&long, Timestamp(0), Use::Counted);
        assert!(table.value(number).len() <= LONGEST);
        assert!(table.value(number).ends_with("xé.scope"));
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit_and_every_number_has_its_value(
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
                prop_assert!(table.len() <= usize::from(limit));
                prop_assert!(table.candidates.len() <= usize::from(limit));
            }
        }
    }
}
