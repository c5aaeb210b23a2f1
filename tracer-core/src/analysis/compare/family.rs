//! Tarone's correction for many tests.

/// Returns the factor that multiplies the probability of every test, so that the probability of any false claim is at most
/// `significance`. `min_ps` are the smallest probabilities that each test can have.
///
/// It is the smallest number k such that at most k tests can reach `significance` / k.
pub(super) fn factor(min_ps: impl IntoIterator<Item = f64>, significance: f64) -> u32 {
    let mut min_ps: Vec<f64> = min_ps.into_iter().collect();
    min_ps.sort_by(f64::total_cmp);
    (1..u32::MAX)
        .find(|&k| min_ps.partition_point(|&min_p| min_p <= significance / f64::from(k)) <= k as usize)
        .unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_can_claim_nothing_do_not_count() {
        assert_eq!(factor([], 0.05), 1);
        assert_eq!(factor([1e-9; 7], 0.05), 7);
        assert_eq!(factor([1e-9, 1e-9, 0.2, 0.2, 0.2], 0.05), 2);
        // Three reach 0.05 / 2, but only two reach 0.05 / 3.
        assert_eq!(factor([0.001, 0.004, 0.02, 0.03, 0.04], 0.05), 3);
    }
}
