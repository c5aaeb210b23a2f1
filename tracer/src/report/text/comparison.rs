//! Describes measures of a comparison in words.

use tracer_core::analysis::{Measure, PeriodShare};

use crate::report::text::quantity::duration_text;

/// The names of the hosts of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparedHosts {
    /// The host of the recording from before the change.
    pub before: String,
    /// The host after the change.
    pub after: String,
}

/// Returns the name of a measure for people.
pub(in crate::report) fn measure_text(measure: Measure) -> String {
    match measure {
        Measure::HandshakeFailures => "failed handshakes".to_owned(),
        Measure::HandshakeLoss => "resent SYNs".to_owned(),
        Measure::HandshakeP50 => "handshake p50".to_owned(),
        Measure::HandshakeP99 => "handshake p99".to_owned(),
        Measure::DataLoss => "resent data".to_owned(),
        Measure::CloseReason(reason) => format!("closed: {}", reason.name()),
    }
}

/// Returns the value of a measure: a quantile, or a share in percent.
pub(in crate::report) fn period_text(period: &PeriodShare) -> String {
    match (period.quantile, period.share()) {
        (Some(quantile), _) => duration_text(Some(quantile)),
        (None, Some(share)) => format!("{:.2}%", share * 100.0),
        (None, None) => "-".to_owned(),
    }
}

/// Returns a probability with two digits; a small one as a bound.
pub(in crate::report) fn probability_text(probability: f64) -> String {
    match probability {
        ..0.0001 => "<0.0001".to_owned(),
        0.0001..0.01 => format!("{probability:.4}"),
        _ => format!("{probability:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use tracer_core::event::Nanos;

    use super::*;

    #[test]
    fn values_have_their_units() {
        let share = PeriodShare { count: 21, of: 1_000, quantile: None };
        assert_eq!(period_text(&share), "2.10%");
        assert_eq!(period_text(&PeriodShare::default()), "-");
        assert_eq!(period_text(&PeriodShare { quantile: Some(Nanos(62_000)), ..share }), "62.0us");
        assert_eq!([0.0, 0.000_12, 0.5, 1.0].map(probability_text), ["<0.0001", "0.0001", "0.50", "1.00"]);
    }
}
