//! A metric against KL: models of one method as a line, read at a given KL.

use crate::bootstrap::{Bootstrap, Estimate};
use crate::error::{Error, check_paired, check_sample};
use crate::summary::mean;

/// A model, prompt by prompt: entry `i` of every model belongs to the same prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct FrontierPoint {
    /// KL from the reference, nats per response.
    pub kl: Vec<f64>,
    /// The metric, such as the reward.
    pub value: Vec<f64>,
}

/// Returns the value of a line through `(KL, value)` at a KL, linear between neighbours; models with the same KL count as their mean. `None`
/// outside of the KLs of the models: nothing is extrapolated.
///
/// # Example
/// ```
/// let models = [(2.0, 1.5), (0.5, 0.0), (1.0, 1.0)];
/// assert_eq!(setpoint_eval::interpolate(&models, 1.5), Some(1.25));
/// assert_eq!(setpoint_eval::interpolate(&models, 2.5), None);
/// ```
#[must_use]
pub fn interpolate(points: &[(f64, f64)], kl: f64) -> Option<f64> {
    let line = line(points);
    let (first, last) = (line.first()?, line.last()?);
    if !(first.0..=last.0).contains(&kl) {
        return None;
    }
    Some(along(&line, kl))
}

/// Returns the points in the order of their KL, those with one KL as their mean.
fn line(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let same = |group: &[(f64, f64)]| (group[0].0, group.iter().map(|point| point.1).sum::<f64>() / group.len() as f64);
    sorted.chunk_by(|a, b| a.0 == b.0).map(same).collect()
}

/// Returns the value at a KL; before the first and after the last point, theirs.
fn along(line: &[(f64, f64)], kl: f64) -> f64 {
    let after = line.partition_point(|point| point.0 < kl);
    match (after.checked_sub(1).map(|before| line[before]), line.get(after)) {
        (Some((x0, y0)), Some(&(x1, y1))) => y0 + (kl - x0) / (x1 - x0) * (y1 - y0),
        (Some((_, value)), None) | (None, Some(&(_, value))) => value,
        (None, None) => f64::NAN,
    }
}

/// Estimates a method's metric at a KL, with its interval over prompts: each resample of the prompts moves every model, in KL and in metric,
/// and the line is read again. `None` if the KL is outside of those measured.
///
/// In a resample whose models do not reach the KL, the nearest of them counts.
///
/// # Errors
/// Models that were not measured on the same number of prompts, fewer than two prompts, a value that is not finite, or a setting of
/// `bootstrap` out of range.
pub fn at_kl(points: &[FrontierPoint], kl: f64, bootstrap: &Bootstrap) -> Result<Option<Estimate>, Error> {
    let Some(n) = prompts(&[points])? else { return Ok(None) };
    match reaches(points, kl) {
        true => bootstrap.statistic(n, |rows| read(points, kl, rows)).map(Some),
        false => Ok(None),
    }
}

/// Estimates how much more of a metric a method has than another at the same KL, with its interval: prompts are resampled for both methods
/// together, so what both share on a prompt cancels. `None` if the KL is outside of those measured of either.
///
/// # Errors
/// As [`at_kl`].
pub fn difference_at_kl(
    points: &[FrontierPoint],
    baseline: &[FrontierPoint],
    kl: f64,
    bootstrap: &Bootstrap,
) -> Result<Option<Estimate>, Error> {
    let Some(n) = prompts(&[points, baseline])? else { return Ok(None) };
    match reaches(points, kl) && reaches(baseline, kl) {
        true => bootstrap.statistic(n, |rows| read(points, kl, rows) - read(baseline, kl, rows)).map(Some),
        false => Ok(None),
    }
}

/// Checks that all models were measured on the same number of prompts, and returns it; `None` without a model.
fn prompts(lines: &[&[FrontierPoint]]) -> Result<Option<usize>, Error> {
    let mut points = lines.iter().flat_map(|line| line.iter());
    let Some(first) = points.next() else { return Ok(None) };
    let n = first.kl.len();
    for point in std::iter::once(first).chain(points) {
        check_paired("one model", n, "another model", point.kl.len())?;
        check_paired("KLs of a model", n, "its values", point.value.len())?;
        check_sample("KL", &point.kl, 2)?;
        check_sample("metric", &point.value, 2)?;
    }
    Ok(Some(n))
}

fn reaches(points: &[FrontierPoint], kl: f64) -> bool {
    let means: Vec<(f64, f64)> = points.iter().map(|point| (mean(&point.kl), 0.0)).collect();
    interpolate(&means, kl).is_some()
}

/// Reads a line at a KL on some of the prompts.
fn read(points: &[FrontierPoint], kl: f64, rows: &[usize]) -> f64 {
    let mean = |values: &[f64]| rows.iter().map(|&row| values[row]).sum::<f64>() / rows.len() as f64;
    let means: Vec<(f64, f64)> = points.iter().map(|point| (mean(&point.kl), mean(&point.value))).collect();
    along(&line(&means), kl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_straight_between_neighbours_and_ends_with_them() {
        let points = [(3.0, 1.0), (1.0, 2.0), (2.0, 6.0)];
        for (kl, value) in [(1.0, 2.0), (1.25, 3.0), (2.0, 6.0), (2.5, 3.5), (3.0, 1.0)] {
            assert_eq!(interpolate(&points, kl), Some(value), "{kl}");
        }
        for kl in [0.999, 3.001, f64::NAN] {
            assert_eq!(interpolate(&points, kl), None, "{kl}");
        }
        assert_eq!(interpolate(&[(1.0, 2.0), (1.0, 4.0), (2.0, 6.0)], 1.5), Some(4.5));
        assert_eq!(interpolate(&[(1.0, 2.0)], 1.0), Some(2.0));
        assert_eq!(interpolate(&[], 1.0), None);
    }

    /// Models whose KLs are the same on every prompt, so that only the metric varies.
    fn at(kl: f64, value: &[f64]) -> FrontierPoint {
        FrontierPoint { kl: vec![kl; value.len()], value: value.to_vec() }
    }

    const A: [f64; 6] = [0.0, 2.0, 5.0, 1.0, 7.0, 3.0];
    const B: [f64; 6] = [1.0, 1.0, 8.0, 2.0, 6.0, 9.0];

    #[test]
    fn with_certain_kls_the_interval_is_that_of_a_mean() {
        // A quarter of the way from A to B: the same mean of the same mixture, so the same resamples.
        let bootstrap = Bootstrap { resamples: 500, seed: 3, ..Bootstrap::default() };
        let mixture: Vec<f64> = A.iter().zip(&B).map(|(a, b)| 0.75 * a + 0.25 * b).collect();
        let expected = bootstrap.mean(&mixture).unwrap();
        let found = at_kl(&[at(2.0, &B), at(1.0, &A)], 1.25, &bootstrap).unwrap().unwrap();
        for (found, expected) in [(found.value, expected.value), (found.low, expected.low), (found.high, expected.high)]
        {
            assert!((found - expected).abs() < 1e-9, "{found} against {expected}");
        }
    }

    #[test]
    fn a_difference_is_taken_prompt_by_prompt() {
        let bootstrap = Bootstrap { resamples: 500, ..Bootstrap::default() };
        // The other method has a tenth more on every prompt: certain, though the values vary by much more.
        let more: Vec<f64> = A.iter().map(|a| a + 0.1).collect();
        let (mine, other) = ([at(1.0, &more), at(2.0, &more)], [at(0.5, &A), at(3.0, &A)]);
        let found = difference_at_kl(&mine, &other, 1.5, &bootstrap).unwrap().unwrap();
        assert!((found.value - 0.1).abs() < 1e-12 && found.std_error < 1e-12, "{found:?}");
        assert!((found.low - 0.1).abs() < 1e-9 && (found.high - 0.1).abs() < 1e-9, "{found:?}");
        // Alone, each is uncertain.
        assert!(at_kl(&mine, 1.5, &bootstrap).unwrap().unwrap().std_error > 0.5);
        // Swapped sides change the sign.
        let back = difference_at_kl(&other, &mine, 1.5, &bootstrap).unwrap().unwrap();
        assert_eq!(back.value, -found.value);
    }

    #[test]
    fn an_uncertain_kl_widens_the_interval() {
        let bootstrap = Bootstrap { resamples: 500, ..Bootstrap::default() };
        let ones = [1.0; 6];
        // Both metrics are certain, and the first model's KL is 1 ± 0.4 on a prompt: value = (kl − x)/(4 − x) from 0 to 1.
        let near = FrontierPoint { kl: vec![0.6, 1.4, 0.6, 1.4, 0.6, 1.4], value: vec![0.0; 6] };
        let far = at(4.0, &ones);
        let found = at_kl(&[near, far], 2.0, &bootstrap).unwrap().unwrap();
        assert!((found.value - 1.0 / 3.0).abs() < 1e-12);
        // d value / d x = (kl − 4)/(4 − x)² = −2/9; the mean of six has the deviation 0.4/√6 (bootstrap: divisor n).
        let expected = 2.0 / 9.0 * 0.4 / 6.0_f64.sqrt();
        assert!((found.std_error / expected - 1.0).abs() < 0.15, "{} against {expected}", found.std_error);
    }

    #[test]
    fn outside_of_the_measured_range_there_is_no_value() {
        let bootstrap = Bootstrap { resamples: 100, ..Bootstrap::default() };
        let (mine, other) = ([at(1.0, &A), at(2.0, &B)], [at(1.5, &A), at(3.0, &B)]);
        for kl in [0.9, 2.1] {
            assert_eq!(at_kl(&mine, kl, &bootstrap).unwrap(), None);
        }
        assert!(at_kl(&mine, 1.2, &bootstrap).unwrap().is_some());
        assert_eq!(difference_at_kl(&mine, &other, 1.2, &bootstrap).unwrap(), None);
        assert!(difference_at_kl(&mine, &other, 1.7, &bootstrap).unwrap().is_some());
        assert_eq!(at_kl(&[], 1.0, &bootstrap).unwrap(), None);
    }

    #[test]
    fn bad_input_is_named() {
        let bootstrap = Bootstrap { resamples: 100, ..Bootstrap::default() };
        let uneven = [at(1.0, &A), at(2.0, &B[..5])];
        assert!(matches!(at_kl(&uneven, 1.5, &bootstrap), Err(Error::LengthMismatch { .. })));
        let infinite = [at(1.0, &[0.0, f64::INFINITY])];
        assert!(matches!(at_kl(&infinite, 1.0, &bootstrap), Err(Error::NotFinite { what: "metric", .. })));
        assert!(matches!(at_kl(&[at(1.0, &[0.0])], 1.0, &bootstrap), Err(Error::TooFew { .. })));
        let single = [FrontierPoint { kl: vec![1.0; 3], value: vec![1.0; 2] }];
        assert!(matches!(at_kl(&single, 1.0, &bootstrap), Err(Error::LengthMismatch { .. })));
    }
}
