//! Exact tests on paired outcomes: the sign test and McNemar's test.

use serde::{Deserialize, Serialize};

use crate::error::{Error, check_paired, check_sample};

/// Result of the sign test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SignTest {
    /// Pairs with `a > b`.
    pub above: usize,
    /// Pairs with `a = b`; they carry no information on the sign and are left out.
    pub ties: usize,
    /// Pairs with `a < b`.
    pub below: usize,
    /// Two-sided probability of a split at least this uneven if either sign were equally likely.
    pub p_value: f64,
}

/// Sign test (Arbuthnot; Dixon and Mood 1946), exact: is `a` above `b` more often than chance would have it?
///
/// Looks at the order alone, so no outlier can carry it; see [`Bootstrap::paired_difference`](crate::Bootstrap::paired_difference)
/// for the size of the difference.
///
/// # Errors
/// No pairs, unequal lengths, or a value that is not finite.
///
/// # Example
/// ```
/// let test = setpoint_eval::sign_test(&[1.0, 2.0, 3.0, 4.0, 5.0], &[0.0; 5])?;
/// assert_eq!(test.p_value, 2.0 / 32.0); // all five above: 2·(½)⁵
/// # Ok::<(), setpoint_eval::Error>(())
/// ```
pub fn sign_test(a: &[f64], b: &[f64]) -> Result<SignTest, Error> {
    check_paired("a", a.len(), "b", b.len())?;
    check_sample("a", a, 1)?;
    check_sample("b", b, 1)?;
    let above = a.iter().zip(b).filter(|(a, b)| a > b).count();
    let below = a.iter().zip(b).filter(|(a, b)| a < b).count();
    Ok(SignTest { above, ties: a.len() - above - below, below, p_value: even_split_p_value(above, below) })
}

/// Result of McNemar's test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Examples that both got right.
    pub both: usize,
    /// Examples that only the first got right.
    pub only_a: usize,
    /// Examples that only the second got right.
    pub only_b: usize,
    /// Examples that neither got right.
    pub neither: usize,
    /// Two-sided probability of a split of the discordant examples at least this uneven if both systems were equally good.
    pub p_value: f64,
}

/// McNemar's test (1947) in its exact binomial form, for two systems graded right or wrong on the same examples.
///
/// # Errors
/// No examples, or unequal lengths.
///
/// # Example
/// ```
/// let a = [true, true, true, false, true];
/// let b = [true, false, false, false, false];
/// let test = setpoint_eval::mcnemar(&a, &b)?;
/// assert_eq!((test.only_a, test.only_b), (3, 0));
/// assert_eq!(test.p_value, 2.0 / 8.0);
/// # Ok::<(), setpoint_eval::Error>(())
/// ```
pub fn mcnemar(a: &[bool], b: &[bool]) -> Result<McNemar, Error> {
    check_paired("a", a.len(), "b", b.len())?;
    if a.is_empty() {
        return Err(Error::TooFew { what: "examples", found: 0, needed: 1 });
    }
    let count = |wanted: (bool, bool)| a.iter().zip(b).filter(|(a, b)| (**a, **b) == wanted).count();
    let (only_a, only_b) = (count((true, false)), count((false, true)));
    Ok(McNemar {
        both: count((true, true)),
        only_a,
        only_b,
        neither: count((false, false)),
        p_value: even_split_p_value(only_a, only_b),
    })
}

/// `min(1, 2·P(X ≤ min(left, right)))` for `X ~ Binomial(left + right, ½)`; 1 where there is nothing to split.
fn even_split_p_value(left: usize, right: usize) -> f64 {
    let n = (left + right) as f64;
    let smaller = left.min(right);
    // Σ_{i ≤ k} C(n, i) = C(n, k)·(1 + k/(n−k+1)·(1 + (k−1)/(n−k+2)·(…))): the largest term first, so nothing underflows.
    let mut ratio_sum = 1.0;
    for i in 1..=smaller {
        let i = i as f64;
        ratio_sum = 1.0 + ratio_sum * i / (n - i + 1.0);
    }
    // C(n, k)/2ⁿ factor by factor, halving whenever the product exceeds 1: no overflow, and exact while n is small.
    let (mut product, mut halvings) = (1.0_f64, left + right);
    for i in 1..=smaller {
        let i = i as f64;
        product *= (n - smaller as f64 + i) / i;
        while product > 1.0 && halvings > 0 {
            product *= 0.5;
            halvings -= 1;
        }
    }
    // Below 2⁻¹⁰⁷⁴ there is only 0.
    let tail = product * 2.0_f64.powi(-i32::try_from(halvings).unwrap_or(i32::MAX)) * ratio_sum;
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same probability by counting in integers.
    fn by_counting(left: u32, right: u32) -> f64 {
        let n = left + right;
        let mut choose: u128 = 1;
        let mut sum: u128 = 0;
        for i in 0..=left.min(right) {
            sum += choose;
            choose = choose * u128::from(n - i) / u128::from(i + 1);
        }
        (2.0 * sum as f64 / 2.0_f64.powi(n as i32)).min(1.0)
    }

    #[test]
    fn p_values_equal_those_counted_in_integers() {
        for left in 0..40_u32 {
            for right in 0..40_u32 {
                let (got, expected) = (even_split_p_value(left as usize, right as usize), by_counting(left, right));
                assert!((got / expected - 1.0).abs() < 1e-12, "{left}:{right} {got} against {expected}");
            }
        }
    }

    #[test]
    fn large_counts_approach_the_normal_with_continuity_correction() {
        let (left, right) = (50_800_usize, 49_200_usize);
        let n = (left + right) as f64;
        let z = ((left - right) as f64 - 1.0) / n.sqrt();
        let expected = 2.0 * crate::normal::cdf(-z);
        let got = even_split_p_value(left, right);
        assert!((got / expected - 1.0).abs() < 1e-3, "{got} against {expected}");
        assert!(even_split_p_value(2_000_000, 0) == 0.0, "too small for f64, and no NaN");
    }

    #[test]
    fn the_test_rejects_a_true_null_at_most_as_often_as_it_says() {
        // Exactly: under the null, the outcomes with p ≤ α have total probability ≤ α.
        let n = 23_usize;
        for alpha in [0.01, 0.05, 0.2] {
            let mut choose = 1.0_f64;
            let mut rejected = 0.0;
            for k in 0..=n {
                if even_split_p_value(k, n - k) <= alpha {
                    rejected += choose / 2.0_f64.powi(n as i32);
                }
                choose *= (n - k) as f64 / (k + 1) as f64;
            }
            assert!(rejected > 0.0 && rejected <= alpha, "{rejected} at {alpha}");
        }
    }

    #[test]
    fn sign_test_leaves_ties_out() {
        let got = sign_test(&[1.0, 1.0, 2.0, 0.0, 5.0], &[1.0, 0.0, 0.0, 1.0, 5.0]).unwrap();
        assert_eq!((got.above, got.ties, got.below), (2, 2, 1));
        assert_eq!(got.p_value, by_counting(2, 1));
        assert_eq!(sign_test(&[1.0], &[1.0]).unwrap().p_value, 1.0);
    }

    #[test]
    fn mcnemar_fills_its_table_and_looks_at_the_discordant_only() {
        let a = [true, true, false, false, true, true, true];
        let b = [true, false, true, false, false, false, false];
        let got = mcnemar(&a, &b).unwrap();
        assert_eq!((got.both, got.only_a, got.only_b, got.neither), (1, 4, 1, 1));
        assert!((got.p_value - by_counting(4, 1)).abs() < 1e-12);
        assert!(matches!(mcnemar(&[true], &[]), Err(Error::LengthMismatch { .. })));
        assert!(matches!(mcnemar(&[], &[]), Err(Error::TooFew { .. })));
    }
}
