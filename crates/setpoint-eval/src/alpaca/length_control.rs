//! The length-controlled win rate: what the judge would prefer if both answers were equally long.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::annotation::AlpacaAnnotation;
use super::reference::GlmReference;
use super::win_rate::as_probability;
use crate::error::Error;
use crate::logistic::{Row, cross_entropy, dot, fit, fit_from, logistic};
use crate::summary::mean_and_variance;

/// Weight of both gamed baselines together, relative to the model's rows (`regularize_to_baseline_lambda` of `length_controlled_v1`).
const GAMED_WEIGHT: f64 = 0.2;
/// The GLM without difficulties.
const MINIMAL: &str = "length_controlled_minimal";
/// The GLM without gamed rows.
const NO_REGULARIZATION: &str = "length_controlled_noreg";
/// Folds of the search for the penalty.
const FOLDS: usize = 5;

/// The L1 penalty of the GLM: `1/C` in scikit-learn's terms.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GlmPenalty {
    /// No penalty.
    None,
    /// `C` given: the weight of the data against `‖b‖₁`.
    C(f64),
    /// `C` from scikit-learn's ten, `10^{−4 … 4}`, by the log-loss in five folds, as alpaca_eval chooses it.
    #[default]
    CrossValidated,
}

impl LengthControlled {
    /// Returns which inputs are missing of the leaderboard's GLM, `length_controlled_v1`: the names of the files and their settings.
    pub fn missing(&self) -> &'static [(&'static str, &'static str)] {
        const FILES: [(&str, &str); 2] =
            [("instruction_difficulty.csv", "length_control.difficulty"), ("df_gamed.csv", "length_control.gamed")];
        match self.glm {
            MINIMAL => &FILES,
            NO_REGULARIZATION => &FILES[1..],
            _ => &[],
        }
    }
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// Coefficients of the GLM.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GlmWeights {
    /// Of `tanh(Δlength / std)`.
    #[serde(rename = "np.tanh(std_delta_len)")]
    pub length: f64,
    /// Of the instruction's difficulty.
    #[serde(rename = "instruction_difficulty")]
    pub difficulty: f64,
    /// Of `not_gamed_baseline`: the model itself.
    #[serde(rename = "not_gamed_baseline.astype(float)")]
    pub model: f64,
}

/// The length-controlled win rate and the fit behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LengthControlled {
    /// Mean predicted preference at equal lengths, in percent.
    pub length_controlled_winrate: f64,
    /// Standard error over instructions, in percent. It measures how the predictions differ from instruction to instruction: without
    /// difficulties they are all equal, it is 0 by construction, and not written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lc_standard_error: f64,
    /// The one of alpaca_eval's GLMs that the inputs allowed.
    pub glm: &'static str,
    /// The coefficients.
    pub weights: GlmWeights,
    /// The penalty's `C`; `None` without one.
    pub c: Option<f64>,
}

/// Fits the GLM and predicts the win rate at equal lengths (Dubois et al. 2024, eq. 2):
/// `P(model preferred) = logistic(θ·m + φ·tanh(Δlength/std) + ψ·difficulty)`, at `Δlength = 0`.
///
/// With instruction difficulties and gamed rows this is alpaca_eval's `length_controlled_v1`, the leaderboard's. Without the gamed
/// rows it is `length_controlled_noreg`, without the difficulties `length_controlled_minimal`.
///
/// Δlength is the baseline's length minus the model's, in characters, over its standard deviation (divisor `n − 1`). Rows without
/// a preference take no part in the fit, and are predicted like the others.
///
/// # Errors
/// Fewer than two rows, more rows than difficulties, lengths that never differ, or a fit without a minimum.
pub fn length_controlled(
    rows: &[AlpacaAnnotation],
    reference: &GlmReference,
    penalty: GlmPenalty,
) -> Result<LengthControlled, Error> {
    let data = design(rows, reference)?;
    let c = match penalty {
        GlmPenalty::None => None,
        GlmPenalty::C(c) if c > 0.0 => Some(c),
        GlmPenalty::C(c) => return Err(Error::Setting { name: "C", value: c, expected: "a number above 0" }),
        GlmPenalty::CrossValidated => Some(cross_validated(&data)?),
    };
    let [length, difficulty, model] = fit(&data, c.map_or(0.0, f64::recip))?;
    let weights = GlmWeights { length, difficulty, model };
    let glm = match (reference.difficulty.is_empty(), reference.gamed.is_empty()) {
        (true, _) => MINIMAL,
        (false, true) => NO_REGULARIZATION,
        (false, false) => "length_controlled_v1",
    };
    let (mean, variance) = mean_and_variance(&predictions(rows.len(), reference, &weights));
    Ok(LengthControlled {
        length_controlled_winrate: 100.0 * mean,
        lc_standard_error: if reference.difficulty.is_empty() {
            0.0
        } else {
            100.0 * (variance / rows.len() as f64).sqrt()
        },
        glm,
        weights,
        c,
    })
}

/// `C` of the fit that ended at `weights`, from its optimality condition: the gradient of the loss by a coefficient that is not 0 is
/// `∓1/C`. `None` where the fit had no noticeable penalty.
#[cfg(test)]
pub(super) fn implied_penalty(
    rows: &[AlpacaAnnotation],
    reference: &GlmReference,
    weights: &GlmWeights,
) -> Result<Option<f64>, Error> {
    let b = [weights.length, weights.difficulty, weights.model];
    let slope = crate::logistic::gradient(&design(rows, reference)?, &b);
    let pulls: Vec<f64> = b.iter().zip(slope).filter(|(b, _)| **b != 0.0).map(|(b, g)| -g * b.signum()).collect();
    let mean = pulls.iter().sum::<f64>() / pulls.len().max(1) as f64;
    // Solvers stop early: the nearest of the ten on a logarithmic scale is the one that was meant.
    let nearest = |c: f64| grid().min_by(|a, b| (a / c).ln().abs().total_cmp(&(b / c).ln().abs()));
    Ok(if mean > 0.0 { nearest(mean.recip()) } else { None })
}

/// scikit-learn's default `Cs`.
fn grid() -> impl Iterator<Item = f64> {
    (0..10).map(|i| 10.0_f64.powf(-4.0 + 8.0 * f64::from(i) / 9.0))
}

/// Gamed rows first, then the model's; columns: length, difficulty, model.
fn design(rows: &[AlpacaAnnotation], reference: &GlmReference) -> Result<Vec<Row<3>>, Error> {
    if rows.len() < 2 {
        return Err(Error::TooFew { what: "annotations", found: rows.len(), needed: 2 });
    }
    if !reference.difficulty.is_empty() && reference.difficulty.len() < rows.len() {
        return Err(Error::LengthMismatch {
            left_name: "the annotations",
            left: rows.len(),
            right_name: "the instruction difficulties",
            right: reference.difficulty.len(),
        });
    }
    let deltas: Vec<f64> = rows.iter().map(|r| r.baseline_length as f64 - r.model_length as f64).collect();
    let deviation = mean_and_variance(&deltas).1.sqrt();
    if deviation == 0.0 {
        return Err(Error::Setting {
            name: "the deviation of the length differences",
            value: 0.0,
            expected: "a number above 0: the lengths of baseline and model differ by the same everywhere",
        });
    }
    let gamed = reference.gamed.iter().filter(|_| !reference.difficulty.is_empty()).filter_map(|r| {
        let x = [r.tanh_length, r.difficulty, 0.0];
        // Halved because there are two gamed baselines.
        Some(Row { x, target: r.target?, weight: GAMED_WEIGHT / 2.0 })
    });
    let own = rows.iter().zip(&deltas).enumerate().filter_map(|(i, (row, delta))| {
        let difficulty = reference.difficulty.get(i).copied().unwrap_or(0.0);
        let x = [(delta / deviation).tanh(), difficulty, 1.0];
        Some(Row { x, target: as_probability(row.preference?), weight: 1.0 })
    });
    Ok(gamed.chain(own).collect())
}

fn predictions(n: usize, reference: &GlmReference, weights: &GlmWeights) -> Vec<f64> {
    let at = |i| weights.model + weights.difficulty * reference.difficulty.get(i).copied().unwrap_or(0.0);
    (0..n).map(|i| logistic(at(i))).collect()
}

/// The `C` of the grid with the least weighted log-loss on held-out folds.
///
/// Row `i` of `n` is in fold `(n − 1 − i) mod 5`: what scikit-learn's `GroupKFold` does with groups of one size, up to the order in
/// which numpy sorts equal numbers.
fn cross_validated(data: &[Row<3>]) -> Result<f64, Error> {
    let fold = |i: usize| (data.len() - 1 - i) % FOLDS;
    let mut losses: Vec<(f64, f64)> = grid().map(|c| (c, 0.0)).collect();
    for held_out in 0..FOLDS {
        let part = |test: bool| -> Vec<Row<3>> {
            data.iter().enumerate().filter(|(i, _)| (fold(*i) == held_out) == test).map(|(_, r)| *r).collect()
        };
        let (train, test) = (part(false), part(true));
        let mut b = [0.0; 3];
        for (c, loss) in &mut losses {
            b = fit_from(b, &train, c.recip())?;
            let sum: f64 = test.iter().map(|r| r.weight * cross_entropy(r.target, dot(&r.x, &b))).sum();
            *loss += sum / test.len().max(1) as f64;
        }
    }
    let best = losses.iter().min_by(|a, b| a.1.total_cmp(&b.1));
    Ok(best.map_or(1.0, |(c, _)| *c))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Preferences that follow the GLM exactly: `m + l·tanh(Δ/std)`.
    fn rows(model: f64, length: f64) -> Vec<AlpacaAnnotation> {
        let lengths: Vec<(usize, usize)> = (0..60).map(|i| (400 + (i * 37) % 251, 300 + (i * 91) % 467)).collect();
        let deltas: Vec<f64> = lengths.iter().map(|(a, b)| *a as f64 - *b as f64).collect();
        let deviation = mean_and_variance(&deltas).1.sqrt();
        lengths
            .iter()
            .zip(&deltas)
            .map(|(&(baseline_length, model_length), d)| AlpacaAnnotation {
                preference: Some(1.0 + logistic(model + length * (d / deviation).tanh())),
                baseline_length,
                model_length,
            })
            .collect()
    }

    #[test]
    fn a_model_that_wins_by_length_alone_is_level_at_equal_lengths() {
        let rows = rows(0.0, -2.0);
        let got = length_controlled(&rows, &GlmReference::default(), GlmPenalty::None).unwrap();
        assert!((got.length_controlled_winrate - 50.0).abs() < 1e-6, "{got:?}");
        assert!((got.weights.length + 2.0).abs() < 1e-6, "{got:?}");
        assert_eq!((got.glm, got.weights.difficulty, got.c), ("length_controlled_minimal", 0.0, None));
        assert_eq!(got.lc_standard_error, 0.0, "without difficulties all predictions are equal");
        assert_eq!(got.missing()[0].0, "instruction_difficulty.csv");
        assert!(!serde_json::to_string(&got).unwrap().contains("lc_standard_error"));
    }

    #[test]
    fn the_penalty_of_a_fit_can_be_read_from_its_coefficients() {
        let rows = rows(0.9, -1.3);
        let c = grid().nth(4).unwrap();
        let fitted = length_controlled(&rows, &GlmReference::default(), GlmPenalty::C(c)).unwrap();
        let implied = implied_penalty(&rows, &GlmReference::default(), &fitted.weights).unwrap();
        assert_eq!(implied, Some(c));
    }

    #[test]
    fn a_row_without_a_preference_takes_no_part_in_the_fit() {
        let mut some = rows(0.4, -1.0);
        let all = length_controlled(&some, &GlmReference::default(), GlmPenalty::None).unwrap();
        some[7].preference = None;
        let fewer = length_controlled(&some, &GlmReference::default(), GlmPenalty::None).unwrap();
        assert!((all.length_controlled_winrate - fewer.length_controlled_winrate).abs() < 1e-6);
    }

    #[test]
    fn what_cannot_be_fitted_is_said() {
        let rows = rows(0.4, -1.0);
        let short = GlmReference { difficulty: vec![0.0; 3], gamed: Vec::new() };
        assert!(matches!(length_controlled(&rows, &short, GlmPenalty::None), Err(Error::LengthMismatch { .. })));
        let equal: Vec<AlpacaAnnotation> =
            rows.iter().map(|r| AlpacaAnnotation { model_length: r.baseline_length, ..*r }).collect();
        let found = length_controlled(&equal, &GlmReference::default(), GlmPenalty::None);
        assert!(matches!(found, Err(Error::Setting { .. })), "{found:?}");
        let found = length_controlled(&rows, &GlmReference::default(), GlmPenalty::C(0.0));
        assert!(matches!(found, Err(Error::Setting { name: "C", .. })), "{found:?}");
    }
}
