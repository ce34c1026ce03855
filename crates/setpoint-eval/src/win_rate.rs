//! Win rate of a policy against a baseline on the same prompts.

use serde::{Deserialize, Serialize};

use crate::bootstrap::{Bootstrap, Estimate};
use crate::error::{Error, check_paired, check_sample};
use crate::paired::{SignTest, sign_test};

/// The frequency and the margin with which the policy's rewards beat the baseline's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WinRate {
    /// Prompts on which the policy's reward is higher.
    pub wins: usize,
    /// Prompts on which both are equal.
    pub ties: usize,
    /// Prompts on which the baseline's reward is higher.
    pub losses: usize,
    /// `(wins + ties/2) / prompts`, resampled by prompt.
    pub rate: Estimate,
    /// Mean reward of the policy minus that of the baseline, resampled by prompt.
    pub difference: Estimate,
    /// Two-sided p-value of the exact sign test, ties left out.
    pub p_value: f64,
}

/// Compares rewards prompt by prompt; `policy[i]` and `baseline[i]` belong to the same prompt.
///
/// # Units
/// Any reward, the same for both.
///
/// # Errors
/// Fewer than two prompts, unequal lengths, a reward that is not finite, or a setting of `bootstrap` out of range.
pub fn win_rate(policy: &[f64], baseline: &[f64], bootstrap: &Bootstrap) -> Result<WinRate, Error> {
    check_paired("policy rewards", policy.len(), "baseline rewards", baseline.len())?;
    check_sample("policy rewards", policy, 2)?;
    check_sample("baseline rewards", baseline, 2)?;
    let SignTest { above, ties, below, p_value } = sign_test(policy, baseline)?;
    let points: Vec<f64> = policy
        .iter()
        .zip(baseline)
        .map(|(p, b)| match p.total_cmp(b) {
            _ if p == b => 0.5, // 0 and −0 too
            std::cmp::Ordering::Greater => 1.0,
            _ => 0.0,
        })
        .collect();
    Ok(WinRate {
        wins: above,
        ties,
        losses: below,
        rate: bootstrap.mean(&points)?,
        difference: bootstrap.paired_difference(policy, baseline)?,
        p_value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_rate_difference_and_test_come_from_the_same_pairs() {
        let policy = [3.0, 1.0, 2.0, 0.0, 5.0, 1.0];
        let baseline = [1.0, 1.0, 1.0, -0.0, 2.0, 4.0];
        let got = win_rate(&policy, &baseline, &Bootstrap::default()).unwrap();
        assert_eq!((got.wins, got.ties, got.losses), (3, 2, 1));
        assert!((got.rate.value - 4.0 / 6.0).abs() < 1e-15);
        assert!((got.difference.value - (2.0 + 1.0 + 3.0 - 3.0) / 6.0).abs() < 1e-15);
        assert_eq!(got.p_value, sign_test(&policy, &baseline).unwrap().p_value);
    }

    #[test]
    fn the_interval_of_the_rate_is_that_of_a_binomial_share() {
        // Without ties, resampling points 0/1 draws Binomial(n, p̂): its 90 % quantiles, from the binomial itself.
        let (n, wins) = (50_usize, 35_usize);
        let policy: Vec<f64> = (0..n).map(|i| if i < wins { 1.0 } else { -1.0 }).collect();
        let settings = Bootstrap { level: 0.9, method: crate::BootstrapMethod::Percentile, ..Bootstrap::default() };
        let got = win_rate(&policy, &vec![0.0; n], &settings).unwrap();
        let p = wins as f64 / n as f64;
        let quantile = |tail: f64| {
            let (mut k, mut probability, mut total) = (0, (1.0 - p).powi(n as i32), 0.0);
            loop {
                total += probability;
                if total >= tail {
                    return k as f64 / n as f64;
                }
                probability *= (n - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
                k += 1;
            }
        };
        // The steps of the distribution at both ends are 10 standard errors wide, so the very step is hit.
        assert!((got.rate.low - quantile(0.05)).abs() < 1e-12, "{} {}", got.rate.low, quantile(0.05));
        assert!((got.rate.high - quantile(0.95)).abs() < 1e-12, "{} {}", got.rate.high, quantile(0.95));
        assert!((got.rate.std_error - (p * (1.0 - p) / (n - 1) as f64).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn swapping_the_sides_mirrors_the_result() {
        let (a, b) = ([0.3, 0.9, 0.4, 0.7, 0.5], [0.2, 0.8, 0.6, 0.7, 0.1]);
        let settings = Bootstrap::default();
        let (ab, ba) = (win_rate(&a, &b, &settings).unwrap(), win_rate(&b, &a, &settings).unwrap());
        assert!((ab.rate.value + ba.rate.value - 1.0).abs() < 1e-12);
        assert!((ab.rate.low + ba.rate.high - 1.0).abs() < 1e-12);
        assert!((ab.difference.low + ba.difference.high).abs() < 1e-12);
        assert_eq!((ab.wins, ab.losses, ab.p_value), (ba.losses, ba.wins, ba.p_value));
    }

    #[test]
    fn bad_input_is_named() {
        let settings = Bootstrap::default();
        assert!(matches!(
            win_rate(&[1.0, f64::NAN], &[0.0, 0.0], &settings),
            Err(Error::NotFinite { what: "policy rewards", index: 1, .. })
        ));
        assert!(matches!(win_rate(&[1.0, 2.0], &[0.0], &settings), Err(Error::LengthMismatch { .. })));
        assert!(matches!(win_rate(&[1.0], &[0.0], &settings), Err(Error::TooFew { .. })));
    }
}
