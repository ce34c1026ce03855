//! Bradley–Terry strengths of models against one baseline, with covariates that all models share.

use super::style::FEATURES;
use crate::error::Error;
use crate::logistic::{cross_entropy, dot, logistic};

/// Newton steps before a fit is given up.
const STEPS: usize = 100;
/// Per battle: below it the gradient is that of a minimum.
const FLAT: f64 = 1e-9;
/// The greatest strength: beyond it the probability is 1 within the precision of a report, and a model that won every battle has none.
const STRONGEST: f64 = 30.0;

/// One battle of a model with the baseline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Battle {
    /// The model's number.
    pub(super) model: usize,
    /// Differences of style.
    pub(super) style: [f64; FEATURES],
    /// 1 if the model won, ½ for a tie.
    pub(super) outcome: f64,
}

/// Strengths of the models above the baseline, and weights of the differences of style.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fit {
    pub(super) strengths: Vec<f64>,
    pub(super) style: [f64; FEATURES],
}

/// Fits strengths and weights of maximum likelihood to the battles of these numbers: `logit P(win) = strength[model] + style · weights`.
///
/// The Hessian of the strengths is diagonal, as a battle has one model. So each Newton step solves for the weights alone, with the Schur complement.
///
/// # Errors
/// [`Error::NotConverged`] if the styles decide every battle.
pub(super) fn fit(battles: &[Battle], rows: &[usize], models: usize) -> Result<Fit, Error> {
    let objective = |fit: &Fit| -> f64 {
        rows.iter().map(|&row| cross_entropy(battles[row].outcome, fit.logit(&battles[row]))).sum()
    };
    let mut fit = Fit { strengths: vec![0.0; models], style: [0.0; FEATURES] };
    let mut value = objective(&fit);
    for _ in 0..STEPS {
        let system = System::of(battles, rows, &fit);
        if system.steepest(&fit) <= FLAT * rows.len() as f64 {
            return Ok(fit);
        }
        let Some(direction) = system.solve() else { break };
        let mut step = 1.0;
        loop {
            let candidate = fit.moved(&direction, step);
            let found = objective(&candidate);
            if found <= value {
                // Near the minimum, rounding is all that is left of the descent.
                if value - found <= 1e-14 * value.abs() {
                    return Ok(candidate);
                }
                (fit, value) = (candidate, found);
                break;
            }
            if step < 1e-10 {
                return Ok(fit);
            }
            step *= 0.5;
        }
    }
    Err(Error::NotConverged { what: "the fit of style control", iterations: STEPS })
}

impl Fit {
    fn logit(&self, battle: &Battle) -> f64 {
        self.strengths[battle.model] + dot(&self.style, &battle.style)
    }

    fn moved(&self, direction: &Self, step: f64) -> Self {
        let moved = self.strengths.iter().zip(&direction.strengths);
        let strengths = moved.map(|(s, d)| (s + step * d).clamp(-STRONGEST, STRONGEST)).collect();
        Self { strengths, style: std::array::from_fn(|i| self.style[i] + step * direction.style[i]) }
    }
}

/// Gradient and Hessian.
struct System {
    gradient: Fit,
    /// Second derivatives by strength.
    diagonal: Vec<f64>,
    /// By strength and weight.
    mixed: Vec<[f64; FEATURES]>,
    /// By two weights.
    style: [[f64; FEATURES]; FEATURES],
}

impl System {
    fn of(battles: &[Battle], rows: &[usize], fit: &Fit) -> Self {
        let models = fit.strengths.len();
        let mut system = Self {
            gradient: Fit { strengths: vec![0.0; models], style: [0.0; FEATURES] },
            diagonal: vec![0.0; models],
            mixed: vec![[0.0; FEATURES]; models],
            style: [[0.0; FEATURES]; FEATURES],
        };
        for battle in rows.iter().map(|&row| &battles[row]) {
            let p = logistic(fit.logit(battle));
            let (residual, weight) = (p - battle.outcome, p * (1.0 - p));
            system.gradient.strengths[battle.model] += residual;
            system.diagonal[battle.model] += weight;
            for (i, &x) in battle.style.iter().enumerate() {
                system.gradient.style[i] += residual * x;
                system.mixed[battle.model][i] += weight * x;
                for (j, &y) in battle.style.iter().enumerate() {
                    system.style[i][j] += weight * x * y;
                }
            }
        }
        system
    }

    /// Returns the greatest part of the gradient, but for strengths that are as great as may be.
    fn steepest(&self, fit: &Fit) -> f64 {
        let strengths = self.gradient.strengths.iter().zip(&fit.strengths).filter(|(_, s)| s.abs() < STRONGEST);
        strengths.map(|(g, _)| g.abs()).chain(self.gradient.style.iter().map(|g| g.abs())).fold(0.0, f64::max)
    }

    /// Returns Newton's step; `None` if a style is a combination of others.
    fn solve(&self) -> Option<Fit> {
        let (mut left, mut right) = (self.style, self.gradient.style.map(|g| -g));
        // A model that no battle is of, or that wins without fail, has no second derivative, and stays where it is.
        let solvable = |model: usize| self.diagonal[model] > 1e-12;
        for model in (0..self.diagonal.len()).filter(|model| solvable(*model)) {
            let mixed = &self.mixed[model];
            for i in 0..FEATURES {
                right[i] += mixed[i] * self.gradient.strengths[model] / self.diagonal[model];
                for j in 0..FEATURES {
                    left[i][j] -= mixed[i] * mixed[j] / self.diagonal[model];
                }
            }
        }
        let style = solved(left, right)?;
        let strengths = (0..self.diagonal.len()).map(|model| {
            if !solvable(model) {
                return 0.0;
            }
            -(self.gradient.strengths[model] + dot(&self.mixed[model], &style)) / self.diagonal[model]
        });
        Some(Fit { strengths: strengths.collect(), style })
    }
}

/// Solves a system of linear equations; `None` if it has no single solution.
fn solved(mut left: [[f64; FEATURES]; FEATURES], mut right: [f64; FEATURES]) -> Option<[f64; FEATURES]> {
    let scale = left.iter().flatten().fold(0.0_f64, |most, value| most.max(value.abs()));
    for column in 0..FEATURES {
        let pivot = (column..FEATURES).max_by(|a, b| left[*a][column].abs().total_cmp(&left[*b][column].abs()))?;
        if left[pivot][column].abs() <= 1e-12 * scale {
            return None;
        }
        left.swap(column, pivot);
        right.swap(column, pivot);
        let above = left[column];
        for row in column + 1..FEATURES {
            let factor = left[row][column] / above[column];
            left[row].iter_mut().zip(above).for_each(|(value, above)| *value -= factor * above);
            right[row] -= factor * right[column];
        }
    }
    for column in (0..FEATURES).rev() {
        let known: f64 = (column + 1..FEATURES).map(|k| left[column][k] * right[k]).sum();
        right[column] = (right[column] - known) / left[column][column];
    }
    Some(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn battles() -> Vec<Battle> {
        // Styles of all signs, and outcomes that no plane separates.
        (0..240_u32)
            .map(|i| {
                let x = |k: u32| f64::from((i * (2 * k + 3) + k * k) % 17) / 8.0 - 1.0;
                Battle {
                    model: (i % 3) as usize,
                    style: [x(1), x(2), x(3), x(5)],
                    outcome: f64::from(i * 7 % 5 % 3) / 2.0,
                }
            })
            .collect()
    }

    #[test]
    fn the_gradient_is_zero_at_the_fit() {
        let battles = battles();
        let rows: Vec<usize> = (0..battles.len()).collect();
        let fit = fit(&battles, &rows, 3).unwrap();
        let system = System::of(&battles, &rows, &fit);
        assert!(system.steepest(&fit) < 1e-5, "{}", system.steepest(&fit));
        assert!(fit.strengths.iter().chain(&fit.style).all(|b| b.abs() < 3.0 && *b != 0.0), "{fit:?}");
    }

    #[test]
    fn without_styles_the_strength_is_the_logit_of_the_mean() {
        let mut battles = battles();
        // Styles that are orthogonal to everything: each battle twice, with both signs.
        battles = battles.iter().flat_map(|b| [*b, Battle { style: b.style.map(|x| -x), ..*b }]).collect();
        let rows: Vec<usize> = (0..battles.len()).collect();
        let fit = fit(&battles, &rows, 3).unwrap();
        for model in 0..3 {
            let own: Vec<f64> = battles.iter().filter(|b| b.model == model).map(|b| b.outcome).collect();
            let mean = own.iter().sum::<f64>() / own.len() as f64;
            assert!((logistic(fit.strengths[model]) - mean).abs() < 1e-6, "{fit:?}");
        }
        assert!(fit.style.iter().all(|w| w.abs() < 1e-6));
    }

    #[test]
    fn a_model_that_always_wins_has_the_greatest_strength() {
        let mut battles = battles();
        battles.iter_mut().filter(|b| b.model == 1).for_each(|b| b.outcome = 1.0);
        let rows: Vec<usize> = (0..battles.len()).collect();
        let fit = fit(&battles, &rows, 3).unwrap();
        assert!(logistic(fit.strengths[1]) > 1.0 - 1e-4, "{fit:?}");
        assert!(fit.strengths[0].abs() < 3.0);
        let same: Vec<Battle> = battles.iter().map(|b| Battle { style: [1.0; FEATURES], ..*b }).collect();
        assert!(super::fit(&same, &rows, 3).is_err(), "equal styles");
    }
}
