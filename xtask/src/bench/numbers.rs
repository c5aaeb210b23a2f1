//! Statistics over repeated measurements.

/// Repeated measurements of one quantity.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample(Vec<f64>);

impl Sample {
    /// Adds a measurement.
    pub(super) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Returns the number of measurements.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the median; NaN without measurements.
    pub(super) fn median(&self) -> f64 {
        let sorted = self.sorted();
        match sorted.len() {
            0 => f64::NAN,
            length if length % 2 == 1 => sorted[length / 2],
            length => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
        }
    }

    /// Returns the quantile for a share from 0 to 1.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "an index of a few thousand measurements"
    )]
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let sorted = self.sorted();
        let index = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(index.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }

    /// Formats the median, with the minimum and the maximum in brackets if there are several measurements.
    pub(super) fn text(&self, decimals: usize) -> String {
        let sorted = self.sorted();
        match (sorted.first(), sorted.last()) {
            (Some(least), Some(greatest)) if sorted.len() > 1 => {
                format!("{:.decimals$} ({least:.decimals$} to {greatest:.decimals$})", self.median())
            }
            _ => format!("{:.decimals$}", self.median()),
        }
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        Self(values.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_spread() {
        let sample: Sample = [3.0, 1.0, 2.0].into_iter().collect();
        assert_eq!(sample.text(1), "2.0 (1.0 to 3.0)");
        let even: Sample = [4.0, 1.0, 2.0, 3.0].into_iter().collect();
        assert_eq!(even.text(2), "2.50 (1.00 to 4.00)");
        assert_eq!([7.0].into_iter().collect::<Sample>().text(0), "7");
    }

    #[test]
    fn quantiles_are_measured_values() {
        let sample: Sample = (1..=100).map(f64::from).collect();
        assert!((sample.quantile(0.5) - 50.0).abs() < f64::EPSILON);
        assert!((sample.quantile(0.99) - 99.0).abs() < f64::EPSILON);
        assert!((sample.quantile(1.0) - 100.0).abs() < f64::EPSILON);
        assert!(Sample::default().quantile(0.5).is_nan());
    }
}
