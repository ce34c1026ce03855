//! Signs of texts that have lost their variety.

use std::collections::HashSet;

use crate::prompt_index::PromptIndex;
use crate::summary::mean_std;

/// The number of tokens whose repetition counts.
const WINDOW: usize = 4;

/// The share of distinct windows below which a text is repetitive.
const LEAST_DISTINCT: f64 = 0.3;

/// The number of tokens from which on equal responses count.
const LEAST_EQUAL: usize = 16;

/// Computes Pearson's correlation of two lists; `None` for fewer than three pairs, or if one of them does not vary. Pairs with a
/// number that is not finite are left out.
///
/// # Panics
/// If the two differ in length.
///
/// ```
/// use setpoint_align::online::correlation;
///
/// assert!((correlation(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]).unwrap() - 1.0).abs() < 1e-12);
/// assert_eq!(correlation(&[1.0, 2.0, 3.0], &[5.0, 5.0, 5.0]), None);
/// ```
pub fn correlation(x: &[f64], y: &[f64]) -> Option<f64> {
    assert_eq!(x.len(), y.len(), "pairs of numbers");
    let finite = x.iter().zip(y).filter(|(x, y)| x.is_finite() && y.is_finite());
    let (x, y): (Vec<f64>, Vec<f64>) = finite.map(|(x, y)| (*x, *y)).unzip();
    if x.len() < 3 {
        return None;
    }
    let ((mean_x, std_x), (mean_y, std_y)) = (mean_std(&x), mean_std(&y));
    // Each distance in its own deviation: products of large numbers are none.
    let sum: f64 = x.iter().zip(&y).map(|(x, y)| ((x - mean_x) / std_x) * ((y - mean_y) / std_y)).sum();
    let correlation = sum / x.len() as f64;
    (std_x > 0.0 && std_y > 0.0).then_some(correlation.clamp(-1.0, 1.0))
}

/// Returns the share of the responses in which less than 30 % of all windows of four tokens are distinct. A response of fewer
/// than four tokens is not repetitive.
pub fn repetitive_share(responses: &[&[u32]]) -> f64 {
    let repetitive = |ids: &&&[u32]| {
        let windows = ids.len().saturating_sub(WINDOW - 1);
        let distinct: HashSet<&[u32]> = ids.windows(WINDOW).collect();
        windows > 0 && (distinct.len() as f64) < LEAST_DISTINCT * windows as f64
    };
    responses.iter().filter(repetitive).count() as f64 / responses.len().max(1) as f64
}

/// Returns the share of the responses that repeat an earlier response to the same prompt token by token. Short ones, of fewer than 16
/// tokens, do not count: several samples of the right answer `Yes.` are equal because there are few such answers.
///
/// # Panics
/// If there is not a prompt per response.
pub fn equal_share(responses: &[&[u32]], prompts: &PromptIndex) -> f64 {
    assert_eq!(responses.len(), prompts.responses(), "a prompt per response");
    let mut seen = HashSet::new();
    let repeated = responses
        .iter()
        .zip(prompts.prompt_of())
        .filter(|(ids, prompt)| ids.len() >= LEAST_EQUAL && !seen.insert((**prompt, **ids)));
    repeated.count() as f64 / responses.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlations_leave_out_what_is_no_number() {
        let (x, y) = ([1.0, 2.0, f64::NAN, 3.0, 4.0], [4.0, 3.0, 9.0, 2.0, 1.0]);
        assert!((correlation(&x, &y).unwrap() + 1.0).abs() < 1e-12);
        assert!((correlation(&[1e300, 2e300, 3e300], &[1.0, 2.0, 4.0]).unwrap() - 0.981_980_506).abs() < 1e-8);
        assert_eq!(correlation(&[1.0, 2.0], &[1.0, 2.0]), None);
    }

    #[test]
    fn loops_are_repetitive_and_short_texts_are_not() {
        let varied: Vec<u32> = (0..40).collect();
        // 37 windows, 2 of them distinct.
        let looped: Vec<u32> = (0..40).map(|i| i % 2).collect();
        assert_eq!(repetitive_share(&[&varied, &looped, &[7, 7, 7], &[7, 7, 7, 7]]), 0.25);
        assert_eq!(repetitive_share(&[]), 0.0);
    }

    #[test]
    fn equal_responses_count_within_their_prompt() {
        let prompts = PromptIndex::from_counts(&[3, 1]).unwrap();
        let [long, other]: [Vec<u32>; 2] = [(0..16).collect(), (1..17).collect()];
        assert_eq!(equal_share(&[&long, &long, &other, &long], &prompts), 0.25);
        // "Yes." to every prompt, and all samples of a right answer.
        assert_eq!(equal_share(&[&[1, 2], &[1, 2], &[1, 2], &[1, 2]], &prompts), 0.0);
        assert_eq!(equal_share(&[&long[..15], &long[..15], &long[..15], &other], &prompts), 0.0);
    }
}
