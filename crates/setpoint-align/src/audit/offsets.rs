//! The check that rewards can be compared between prompts.

use serde::Serialize;

use crate::prompt_rewards::PromptRewards;
use crate::summary::mean_std;

/// The variance of rewards, split into a part between prompts and a part within them.
///
/// A Bradley–Terry reward model sees only differences within a prompt, so each prompt's rewards
/// may carry any offset. Pairwise objectives cancel it; point-wise targets take it at face value,
/// and a large offset drowns what distinguishes the responses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Offsets {
    /// Population variance of the rows' mean rewards.
    pub variance_of_means: f64,
    /// Variance within rows: squared deviations from the row's mean, pooled, divided by
    /// `responses − rows`.
    pub variance_within: f64,
    /// The variance of the means less what the variance within accounts for, at least 0.
    pub variance_of_offsets: f64,
    /// Offsets' share of `variance_of_offsets + variance_within` (the intraclass correlation).
    pub share: f64,
}

impl Offsets {
    /// `None` with fewer than two rows or without a row of two or more responses.
    pub(super) fn of(data: impl Iterator<Item = PromptRewards>) -> Option<Self> {
        let stats: Vec<(f64, f64, f64)> = data
            .map(|prompt| {
                let (mean, std) = mean_std(&prompt.rewards);
                (mean, std * std, prompt.rewards.len() as f64)
            })
            .collect();
        let responses: f64 = stats.iter().map(|(.., n)| n).sum();
        let degrees = responses as usize - stats.len();
        if stats.len() < 2 || degrees == 0 {
            return None;
        }
        let means: Vec<f64> = stats.iter().map(|(mean, ..)| *mean).collect();
        let variance_of_means = mean_std(&means).1.powi(2);
        let squares: f64 = stats.iter().map(|(_, variance, n)| variance * n).sum();
        let variance_within = squares / degrees as f64;
        // The mean of n rewards varies by variance_within/n without any offset, and the population
        // variance of k means by (k − 1)/k of that.
        let rows = stats.len() as f64;
        let mean_inverse = stats.iter().map(|(.., n)| 1.0 / n).sum::<f64>() / rows;
        let expected = variance_within * mean_inverse * (rows - 1.0) / rows;
        let variance_of_offsets = (variance_of_means - expected).max(0.0);
        let total = variance_of_offsets + variance_within;
        let share = if total > 0.0 { variance_of_offsets / total } else { 0.0 };
        Some(Self { variance_of_means, variance_within, variance_of_offsets, share })
    }
}
