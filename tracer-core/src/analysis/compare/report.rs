//! The shifts between two periods.

use std::collections::BTreeSet;

use crate::{
    analysis::{
        GroupKey,
        compare::{
            family::factor,
            period::{CloseSample, ComparePeriod, GroupSamples, HandshakeSample},
            share::{Difference, Share, difference, float},
        },
    },
    event::Nanos,
    lifecycle::CloseReason,
};

/// The probability of any false claim in a report: 1 %.
pub const SIGNIFICANCE: f64 = 0.01;
/// The smallest shift of a quantile that is claimed: 100 µs and [`MIN_SHIFT_PERCENT`] of the value before. Processor
/// frequencies and other programs shift handshakes by as much between two runs of the same traffic.
pub const MIN_SHIFT: Nanos = Nanos::from_micros(100);
/// See [`MIN_SHIFT`].
pub const MIN_SHIFT_PERCENT: u64 = 20;
/// The time that a failed handshake costs in the order of groups, seconds.
const FAILURE_COST: f64 = 10.0;
/// The time that a retransmitted SYN costs, seconds.
const SYN_COST: f64 = 1.0;
/// The time that a connection with retransmitted data costs, seconds: the kernel's minimum timeout (`TCP_RTO_MIN`).
const DATA_COST: f64 = 0.2;

/// A measure of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Handshakes that failed or were abandoned.
    HandshakeFailures,
    /// Completed handshakes with a retransmitted SYN; for a server, SYN-ACK.
    HandshakeLoss,
    /// The median duration of completed handshakes.
    HandshakeP50,
    /// The 99th percentile of the duration of completed handshakes.
    HandshakeP99,
    /// Closed connections for which this host retransmitted data.
    DataLoss,
    /// Closed connections with this close reason.
    CloseReason(CloseReason),
}

impl Measure {
    /// Returns the name in machine output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HandshakeFailures => "handshake_failures",
            Self::HandshakeLoss => "handshake_loss",
            Self::HandshakeP50 => "handshake_p50",
            Self::HandshakeP99 => "handshake_p99",
            Self::DataLoss => "data_loss",
            Self::CloseReason(_) => "close_reason",
        }
    }

    /// Returns the close reason of [`Self::CloseReason`].
    pub const fn close_reason(self) -> Option<CloseReason> {
        match self {
            Self::CloseReason(reason) => Some(reason),
            _ => None,
        }
    }

    /// Returns whether more of it is neither better nor worse.
    const fn is_neutral(self) -> bool {
        matches!(self, Self::CloseReason(reason) if !reason.is_failure())
    }
}

/// What a comparison claims about a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It became worse.
    Worse,
    /// It became better.
    Better,
    /// It shifted, and is neither good nor bad.
    Changed,
    /// Chance explains the difference, or it is too small to matter.
    NotProven,
    /// There are too few events for any claim.
    TooFew,
}

impl Verdict {
    /// Returns the name in machine output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Worse => "worse",
            Self::Better => "better",
            Self::Changed => "changed",
            Self::NotProven => "not_proven",
            Self::TooFew => "too_few",
        }
    }

    /// Returns whether a shift is claimed.
    pub const fn is_claim(self) -> bool {
        matches!(self, Self::Worse | Self::Better | Self::Changed)
    }
}

/// A measure in one period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeriodShare {
    /// The events; for a quantile, durations above the quantile of both periods together.
    pub count: u64,
    /// The handshakes or connections for which this is known.
    pub of: u64,
    /// The quantile, exact; none for other measures.
    pub quantile: Option<Nanos>,
}

impl PeriodShare {
    /// Returns the share of events, from 0 to 1; none without handshakes or connections.
    pub fn share(&self) -> Option<f64> {
        (self.of > 0).then(|| float(self.count) / float(self.of))
    }
}

/// The tested difference of a measure of a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    /// The measure.
    pub measure: Measure,
    /// Before the change.
    pub before: PeriodShare,
    /// After the change.
    pub after: PeriodShare,
    /// How much more the share varies within a period than independent events do; at least 1.
    pub design_effect: f64,
    /// The probability of such a difference without a shift, from 0 to 1.
    pub p_value: f64,
    /// The same, corrected for the number of tests.
    pub adjusted_p_value: f64,
    /// What is claimed.
    pub verdict: Verdict,
}

/// The shifts of a group.
#[derive(Clone, Debug)]
pub struct ComparedGroup<'a> {
    /// The key of the group.
    pub key: &'a GroupKey,
    /// The number of handshakes before and after.
    pub handshakes: (u64, u64),
    /// The measures that both periods have, in the order of [`Measure`].
    pub shifts: Vec<Shift>,
    /// The mean time that a handshake loses more than before because of the claimed shifts, seconds; negative if it gains.
    pub cost: f64,
}

impl ComparedGroup<'_> {
    /// Returns the most important verdict.
    pub fn verdict(&self) -> Verdict {
        self.shifts.iter().map(|shift| shift.verdict).min().unwrap_or(Verdict::TooFew)
    }
}

/// The result of a comparison.
#[derive(Clone, Debug)]
pub struct CompareReport<'a> {
    /// The groups of both periods: first those with a claim, the worst first, then by the number of handshakes.
    pub groups: Vec<ComparedGroup<'a>>,
    /// Groups that only the first period has.
    pub only_before: u64,
    /// Groups that only the second period has.
    pub only_after: u64,
    /// The tests that had enough events for a claim.
    pub tests: u64,
}

impl<'a> CompareReport<'a> {
    /// Compares two periods.
    pub fn new(before: &'a ComparePeriod, after: &'a ComparePeriod) -> Self {
        let mut tested: Vec<(&GroupKey, (u64, u64), Vec<Tested>)> = Vec::new();
        for (key, earlier) in &before.groups {
            let Some(later) = after.groups.get(key) else { continue };
            let handshakes = (earlier.handshakes.len() as u64, later.handshakes.len() as u64);
            tested.push((key, handshakes, tests(earlier, later)));
        }
        let min_ps = tested.iter().flat_map(|(_, _, tests)| tests).map(|test| test.difference.test.min_p);
        let factor = f64::from(factor(min_ps.clone(), SIGNIFICANCE));
        let able = min_ps.filter(|&min_p| min_p * factor <= SIGNIFICANCE).count();
        let both = tested.len();
        let mut groups: Vec<ComparedGroup<'_>> = tested
            .into_iter()
            .map(|(key, handshakes, tests)| {
                let shifts: Vec<Shift> = tests.iter().map(|test| test.judge(factor)).collect();
                let cost = shifts.iter().map(cost).sum();
                ComparedGroup { key, handshakes, shifts, cost }
            })
            .collect();
        groups.sort_by(|a, b| {
            let claimed = |group: &ComparedGroup<'_>| match group.verdict() {
                Verdict::NotProven | Verdict::TooFew => Verdict::NotProven,
                claim => claim,
            };
            let size = |group: &ComparedGroup<'_>| group.handshakes.0 + group.handshakes.1;
            claimed(a)
                .cmp(&claimed(b))
                .then_with(|| b.cost.total_cmp(&a.cost))
                .then_with(|| size(b).cmp(&size(a)))
                .then_with(|| a.key.cmp(b.key))
        });
        Self {
            groups,
            only_before: (before.groups.len() - both) as u64,
            only_after: (after.groups.len() - both) as u64,
            tests: able as u64,
        }
    }

    /// Returns how many shifts have this verdict.
    pub fn count(&self, verdict: Verdict) -> u64 {
        self.groups.iter().flat_map(|group| &group.shifts).filter(|shift| shift.verdict == verdict).count()
            as u64
    }
}

/// A test before the correction for the number of tests.
struct Tested {
    measure: Measure,
    before: PeriodShare,
    after: PeriodShare,
    difference: Difference,
}

impl Tested {
    fn new(measure: Measure, before: &Share, after: &Share, quantiles: Option<(Nanos, Nanos)>) -> Self {
        let period = |share: &Share, quantile| {
            let (count, of) = share.counts();
            PeriodShare { count, of, quantile }
        };
        Self {
            measure,
            before: period(before, quantiles.map(|it| it.0)),
            after: period(after, quantiles.map(|it| it.1)),
            difference: difference(before, after),
        }
    }

    fn judge(&self, factor: f64) -> Shift {
        let Difference { design_effect, test } = self.difference;
        let adjusted = (test.p * factor).min(1.0);
        let verdict = if test.min_p * factor > SIGNIFICANCE {
            Verdict::TooFew
        } else if adjusted > SIGNIFICANCE || !self.matters() {
            Verdict::NotProven
        } else if self.measure.is_neutral() {
            Verdict::Changed
        } else if self.after.share() > self.before.share() {
            Verdict::Worse
        } else {
            Verdict::Better
        };
        Shift {
            measure: self.measure,
            before: self.before,
            after: self.after,
            design_effect,
            p_value: test.p,
            adjusted_p_value: adjusted,
            verdict,
        }
    }

    /// Returns whether the difference is large enough; of quantiles, it must have the direction of the shares.
    fn matters(&self) -> bool {
        let (Some(before), Some(after)) = (self.before.quantile, self.after.quantile) else { return true };
        let shift = Nanos(before.0.abs_diff(after.0));
        let is_large =
            shift >= MIN_SHIFT && shift.saturating_mul(100) >= before.saturating_mul(MIN_SHIFT_PERCENT);
        is_large && (after > before) == (self.after.share() > self.before.share())
    }
}

/// Tests all measures that both periods of a group have.
fn tests(before: &GroupSamples, after: &GroupSamples) -> Vec<Tested> {
    let mut tests = Vec::new();
    if !before.handshakes.is_empty() && !after.handshakes.is_empty() {
        let failures = |samples: &[HandshakeSample]| {
            Share::of(samples.iter().map(|sample| (sample.ended, !sample.completed)))
        };
        let (earlier, later) = (failures(&before.handshakes), failures(&after.handshakes));
        tests.push(Tested::new(Measure::HandshakeFailures, &earlier, &later, None));
        let losses = |samples: &[HandshakeSample]| {
            Share::of(samples.iter().filter_map(|sample| Some((sample.ended, sample.retransmitted?))))
        };
        let (earlier, later) = (losses(&before.handshakes), losses(&after.handshakes));
        if earlier.counts().1 > 0 && later.counts().1 > 0 {
            tests.push(Tested::new(Measure::HandshakeLoss, &earlier, &later, None));
        }
        tests.extend(quantile_tests(&before.handshakes, &after.handshakes));
    }
    if !before.closes.is_empty() && !after.closes.is_empty() {
        let losses = |samples: &[CloseSample]| {
            Share::of(samples.iter().filter_map(|sample| Some((sample.closed, sample.retransmitted?))))
        };
        let (earlier, later) = (losses(&before.closes), losses(&after.closes));
        if earlier.counts().1 > 0 && later.counts().1 > 0 {
            tests.push(Tested::new(Measure::DataLoss, &earlier, &later, None));
        }
        let reasons: BTreeSet<CloseReason> =
            before.closes.iter().chain(&after.closes).map(|sample| sample.reason).collect();
        for reason in reasons {
            let closes = |samples: &[CloseSample]| {
                Share::of(samples.iter().map(|sample| (sample.closed, sample.reason == reason)))
            };
            let (earlier, later) = (closes(&before.closes), closes(&after.closes));
            tests.push(Tested::new(Measure::CloseReason(reason), &earlier, &later, None));
        }
    }
    tests
}

fn quantile_tests(before: &[HandshakeSample], after: &[HandshakeSample]) -> Vec<Tested> {
    let sorted = |samples: &[HandshakeSample]| {
        let mut durations: Vec<Nanos> = samples.iter().filter_map(HandshakeSample::duration).collect();
        durations.sort_unstable();
        durations
    };
    let (earlier, later) = (sorted(before), sorted(after));
    let mut pooled = [earlier.as_slice(), later.as_slice()].concat();
    pooled.sort_unstable();
    let test = |(measure, percent)| {
        let quantiles = (quantile(&earlier, percent)?, quantile(&later, percent)?);
        let limit = quantile(&pooled, percent)?;
        let above = |samples: &[HandshakeSample]| {
            Share::of(samples.iter().filter_map(|sample| Some((sample.ended, sample.duration()? > limit))))
        };
        Some(Tested::new(measure, &above(before), &above(after), Some(quantiles)))
    };
    [(Measure::HandshakeP50, 50), (Measure::HandshakeP99, 99)].into_iter().filter_map(test).collect()
}

/// Returns a quantile: the value at the rank that the percentage of all others does not exceed.
fn quantile(sorted: &[Nanos], percent: usize) -> Option<Nanos> {
    sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied()
}

/// Returns the time that a handshake loses because of a claimed shift, seconds.
fn cost(shift: &Shift) -> f64 {
    if !shift.verdict.is_claim() {
        return 0.0;
    }
    let seconds = |period: PeriodShare| float(period.quantile.unwrap_or_default().0) / 1e9;
    let share = shift.after.share().unwrap_or_default() - shift.before.share().unwrap_or_default();
    match shift.measure {
        Measure::HandshakeFailures => share * FAILURE_COST,
        Measure::HandshakeLoss => share * SYN_COST,
        Measure::HandshakeP50 => seconds(shift.after) - seconds(shift.before),
        // One handshake of a hundred.
        Measure::HandshakeP99 => (seconds(shift.after) - seconds(shift.before)) / 100.0,
        Measure::DataLoss => share * DATA_COST,
        Measure::CloseReason(reason) if reason.is_failure() => share * FAILURE_COST,
        Measure::CloseReason(_) => 0.0,
    }
}
