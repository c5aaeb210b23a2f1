//! Compares the handshakes and closes of two periods, such as before and after a change: which groups shifted, and whether
//! chance explains the shift.
//!
//! Each measure of a group is a share: of the handshakes with a loss, of the failed ones, of the durations above a quantile
//! of both periods together (the quantile test, a generalization of the median test). Three steps decide about a shift:
//!
//! 1. Handshakes come in bursts, and a host is busy for a while. The design effect says how much more a share varies between
//!    the time slices of a period than independent events do. Counts are divided by it (J. N. K. Rao and A. J. Scott, "A
//!    simple method for the analysis of clustered binary data", Biometrics 48, 1992).
//! 2. Fisher's exact test gives the probability of a difference at least this large without a shift. It holds for samples of
//!    any size. (R. A. Fisher, "Statistical Methods for Research Workers", 1934; for the quantile test W. J. Conover,
//!    "Practical Nonparametric Statistics", 1999, section 4.3.)
//! 3. Many groups mean many tests. Tarone's correction bounds the probability of any false claim in a report, and does not
//!    count tests with too few events for any claim (R. E. Tarone, "A modified Bonferroni method for discrete data",
//!    Biometrics 46, 1990).

mod family;
mod fisher;
mod period;
mod report;
mod share;

pub use period::{ComparePeriod, MAX_COMPARED_GROUPS, MAX_COMPARED_SAMPLES};
pub use report::{
    CompareReport, ComparedGroup, MIN_SHIFT, MIN_SHIFT_PERCENT, Measure, PeriodShare, SIGNIFICANCE, Shift,
    Verdict,
};
