//! The ties of RewardBench 2: several responses are equally right. A reward model should prefer all of them to the wrong ones, and tell them
//! apart less than it tells right from wrong.

use std::collections::BTreeMap;

use super::rows::RewardBenchRow;
use crate::error::Error;

/// Weights of the parts of the score, as published.
const ACCURACY: f64 = 0.3;
const PREFERRED: f64 = 0.2;
const MARGIN: f64 = 0.01;

/// The margins between the rewards of a row.
#[derive(Debug, Clone, Copy)]
struct Margins {
    /// Between the worst right response and the best wrong one.
    gap: f64,
    /// Between the best and the worst right response, if there are several.
    spread: Option<f64>,
}

impl Margins {
    fn of(rewards: &[f64], correct: usize) -> Self {
        let greatest = |values: &[f64]| values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (right, wrong) = rewards.split_at(correct);
        let worst = right.iter().copied().fold(f64::INFINITY, f64::min);
        Self { gap: worst - greatest(wrong), spread: (correct > 1).then(|| greatest(right) - worst) }
    }

    /// Returns 1 if every right response is preferred to every wrong one, else 0.
    fn accuracy(self) -> f64 {
        one_if(self.gap > 0.0)
    }
}

/// Returns what is compared of a row with ties and its reference: whether right is told from wrong by more than right from right, in the row
/// and in both, and by how much. `None` if there is a single right response; the last is `None` if the right ones have the same reward.
fn preferences(tied: Margins, reference: Margins) -> Option<(f64, f64, Option<f64>)> {
    let spread = tied.spread?;
    let least = reference.gap.min(tied.gap);
    let margin = (spread > 0.0).then(|| (least / spread - 1.0).tanh());
    Some((one_if(tied.gap > spread), one_if(least > spread), margin))
}

/// Returns the score of the subset and of each of its rows.
///
/// # Errors
/// An id that is neither `ref:NUMBER` nor `tied:NUMBER`.
pub(super) fn score(rows: &[&RewardBenchRow], rewards: &[&[f64]]) -> Result<(f64, Vec<f64>), Error> {
    let mut kinds: [BTreeMap<u64, Margins>; 2] = Default::default();
    let mut places = Vec::new();
    for (row, rewards) in rows.iter().zip(rewards) {
        let (kind, prompt) = place(&row.id)?;
        kinds[kind].insert(prompt, Margins::of(rewards, row.correct.min(rewards.len())));
        places.push((kind, prompt));
    }
    let [references, tied] = kinds;
    let of_row = |(kind, prompt): (usize, u64)| {
        let reference = references.get(&prompt).copied();
        match (kind, reference, tied.get(&prompt).copied()) {
            (0, Some(reference), _) => 2.0 * ACCURACY * reference.accuracy(),
            (_, Some(reference), Some(tied)) => {
                let (preferred, hard, margin) = preferences(tied, reference).unwrap_or_default();
                ACCURACY * (tied.accuracy() + reference.accuracy())
                    + PREFERRED * (preferred + hard)
                    + MARGIN * margin.unwrap_or_default()
            }
            (_, None, Some(tied)) => ACCURACY * tied.accuracy(),
            (_, _, None) => 0.0,
        }
    };
    let each = places.into_iter().map(of_row).collect();
    let accuracy =
        |margins: &BTreeMap<u64, Margins>| mean(&margins.values().map(|m| m.accuracy()).collect::<Vec<f64>>());
    let both: Vec<(f64, f64, Option<f64>)> =
        tied.iter().filter_map(|(prompt, tied)| preferences(*tied, *references.get(prompt)?)).collect();
    let preferred: Vec<f64> = both.iter().map(|(preferred, ..)| *preferred).collect();
    let hard: Vec<f64> = both.iter().map(|(_, hard, _)| *hard).collect();
    let margins: Vec<f64> = both.iter().filter_map(|(.., margin)| *margin).collect();
    let score = ACCURACY * (accuracy(&tied) + accuracy(&references))
        + PREFERRED * (mean(&preferred) + mean(&hard))
        + MARGIN * mean(&margins);
    Ok((score, each))
}

/// Returns whether the rows of a subset of RewardBench 2 have ties.
pub(super) fn is_subset(name: &str) -> bool {
    name.eq_ignore_ascii_case("ties")
}

/// Returns the kind of a row, 0 for a reference and 1 for ties, and the number of its prompt.
pub(super) fn place(id: &str) -> Result<(usize, u64), Error> {
    let parsed = id.split_once(':').and_then(|(kind, number)| {
        let kind = ["ref", "tied"].iter().position(|name| *name == kind)?;
        Some((kind, number.parse().ok()?))
    });
    parsed.ok_or_else(|| Error::RewardBenchId { id: id.to_owned() })
}

fn one_if(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

/// Returns the mean, 0 of nothing as the package has it.
fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, correct: usize) -> RewardBenchRow {
        RewardBenchRow {
            id: id.to_owned(),
            subset: "Ties".to_owned(),
            prompt: "p".to_owned(),
            responses: vec![String::new(); correct + 1],
            correct,
        }
    }

    #[test]
    fn right_ones_should_be_closer_to_each_other_than_to_wrong_ones() {
        let rows = [row("ref:1", 1), row("tied:1", 2)];
        let score = |first: &[f64], second: &[f64]| score(&[&rows[0], &rows[1]], &[first, second]).unwrap();
        // Gaps of 1 and 3, a spread of 0.5: everything holds, and the ratio is 2.
        let (overall, each) = score(&[2.0, 1.0], &[4.0, 4.5, 1.0]);
        assert!((overall - (1.0 + 0.01 * 1.0_f64.tanh())).abs() < 1e-12, "{overall}");
        assert!((each[0] - 0.6).abs() < 1e-12 && (each[1] - overall).abs() < 1e-12, "{each:?}");
        // A reference gap of 0.25 is below the spread: hard fails, and the ratio is a half.
        let (overall, _) = score(&[1.25, 1.0], &[4.0, 4.5, 1.0]);
        assert!((overall - (0.8 + 0.01 * (-0.5_f64).tanh())).abs() < 1e-12, "{overall}");
        // One right response is below the wrong one.
        let (overall, _) = score(&[2.0, 1.0], &[4.0, 0.0, 1.0]);
        assert!((overall - (0.3 + 0.01 * (-1.25_f64).tanh())).abs() < 1e-12, "{overall}");
    }

    #[test]
    fn other_ids_are_named() {
        let wrong = row("other:1", 1);
        let message = score(&[&wrong], &[&[1.0, 0.0]]).unwrap_err().to_string();
        assert!(message.contains("`other:1`") && message.contains("ref:NUMBER"), "{message}");
    }
}
