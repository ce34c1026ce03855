//! Logistic regression with soft targets, row weights and an L1 penalty, for designs of a few columns.

use crate::error::Error;

/// Newton steps before a fit is given up.
const STEPS: usize = 200;
/// Sweeps of coordinate descent on one quadratic model.
const SWEEPS: usize = 10_000;

/// One row: features, target in `[0, 1]`, weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Row<const N: usize> {
    pub(crate) x: [f64; N],
    pub(crate) target: f64,
    pub(crate) weight: f64,
}

/// `1 / (1 + e^{−z})`.
pub(crate) fn logistic(z: f64) -> f64 {
    if z >= 0.0 { 1.0 / (1.0 + (-z).exp()) } else { z.exp() / (1.0 + z.exp()) }
}

pub(crate) fn dot<const N: usize>(a: &[f64; N], b: &[f64; N]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Cross-entropy of `target` under `logistic(z)`: `log(1 + e^z) − target·z`, without overflow.
pub(crate) fn cross_entropy(target: f64, z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p() - target * z
}

/// The coefficients `b` that minimise `Σ wᵢ·H(targetᵢ, logistic(xᵢ·b)) + penalty·‖b‖₁`, without an intercept of its own.
///
/// With `penalty = 1/C` this is the problem of liblinear's `L1R_LR` (Fan et al. 2008, eq. 1), which scikit-learn's
/// `LogisticRegression(penalty="l1", solver="liblinear")` solves. Proximal Newton: each quadratic model is minimised by coordinate
/// descent, each step is halved until the objective falls.
///
/// # Errors
/// [`Error::NotConverged`] where no finite minimum exists.
pub(crate) fn fit<const N: usize>(rows: &[Row<N>], penalty: f64) -> Result<[f64; N], Error> {
    fit_from([0.0; N], rows, penalty)
}

/// [`fit`], begun at the solution of a similar problem.
pub(crate) fn fit_from<const N: usize>(start: [f64; N], rows: &[Row<N>], penalty: f64) -> Result<[f64; N], Error> {
    let objective = |b: &[f64; N]| {
        let loss: f64 = rows.iter().map(|r| r.weight * cross_entropy(r.target, dot(&r.x, b))).sum();
        loss + penalty * b.iter().map(|b| b.abs()).sum::<f64>()
    };
    let mut b = start;
    let mut value = objective(&b);
    for _ in 0..STEPS {
        let direction = newton_direction(rows, &b, penalty);
        let size = direction.iter().fold(0.0_f64, |m, d| m.max(d.abs()));
        let scale = b.iter().fold(1.0_f64, |m, b| m.max(b.abs()));
        if size <= 1e-10 * scale {
            return Ok(b);
        }
        let mut step = 1.0;
        loop {
            let candidate = std::array::from_fn(|j| b[j] + step * direction[j]);
            let found = objective(&candidate);
            let gain = value - found;
            if gain >= 0.0 {
                (b, value) = (candidate, found);
            }
            // Near the minimum, rounding is all that is left of the descent.
            if gain.abs() <= 1e-15 * value.abs() {
                return Ok(b);
            }
            if gain > 0.0 {
                break;
            }
            step *= 0.5;
        }
    }
    Err(Error::NotConverged { what: "the logistic regression", iterations: STEPS })
}

/// Gradient of the smooth part at `b`: `Σ wᵢ·(pᵢ − targetᵢ)·xᵢ`.
#[cfg(test)]
pub(crate) fn gradient<const N: usize>(rows: &[Row<N>], b: &[f64; N]) -> [f64; N] {
    let mut gradient = [0.0; N];
    for row in rows {
        let residual = row.weight * (logistic(dot(&row.x, b)) - row.target);
        gradient.iter_mut().zip(&row.x).for_each(|(g, x)| *g += residual * x);
    }
    gradient
}

/// The step to the minimum of the quadratic model of the loss at `b` plus the penalty.
fn newton_direction<const N: usize>(rows: &[Row<N>], b: &[f64; N], penalty: f64) -> [f64; N] {
    let mut slope = [0.0; N];
    let mut curvature = [[0.0; N]; N];
    for row in rows {
        let p = logistic(dot(&row.x, b));
        let (residual, c) = (row.weight * (p - row.target), row.weight * p * (1.0 - p));
        for ((line, g), xi) in curvature.iter_mut().zip(&mut slope).zip(&row.x) {
            *g += residual * xi;
            line.iter_mut().zip(&row.x).for_each(|(h, xj)| *h += c * xi * xj);
        }
    }
    let mut step = [0.0; N];
    for _ in 0..SWEEPS {
        let mut moved = 0.0_f64;
        for j in 0..N {
            let h = curvature[j][j];
            // A column of zeros decides nothing.
            if h <= f64::MIN_POSITIVE {
                continue;
            }
            let g = slope[j] + dot(&curvature[j], &step);
            let unpenalised = b[j] + step[j] - g / h;
            let shrunk = unpenalised.signum() * (unpenalised.abs() - penalty / h).max(0.0);
            let change = shrunk - b[j] - step[j];
            step[j] += change;
            moved = moved.max(change.abs());
        }
        if moved < 1e-14 {
            break;
        }
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row<2>> {
        (0..40)
            .map(|i| {
                let t = f64::from(i) / 10.0 - 2.0;
                Row {
                    x: [1.0, t.sin() + 0.3 * t],
                    target: logistic(0.7 * t - 0.4 + (3.0 * t).cos()),
                    weight: 1.0 + t.abs(),
                }
            })
            .collect()
    }

    #[test]
    fn targets_that_follow_the_model_give_its_coefficients() {
        let truth = [0.8, -1.7];
        let mut rows = rows();
        rows.iter_mut().for_each(|r| r.target = logistic(dot(&r.x, &truth)));
        let got = fit(&rows, 0.0).unwrap();
        assert!(got.iter().zip(&truth).all(|(g, t)| (g - t).abs() < 1e-9), "{got:?}");
    }

    #[test]
    fn the_subgradient_of_the_penalised_objective_holds_zero() {
        let rows = rows();
        for penalty in [0.01, 1.0, 5.0, 1000.0] {
            let got = fit(&rows, penalty).unwrap();
            for (b, g) in got.iter().zip(gradient(&rows, &got)) {
                if *b == 0.0 {
                    assert!(g.abs() <= penalty, "{g} at penalty {penalty}");
                } else {
                    assert!((g + penalty * b.signum()).abs() < 1e-6 * (1.0 + penalty), "{g} at penalty {penalty}");
                }
            }
        }
        assert_eq!(fit(&rows, 1000.0).unwrap(), [0.0, 0.0], "no coefficient is worth that much");
    }

    #[test]
    fn a_row_of_weight_two_is_two_rows() {
        let rows = rows();
        let doubled: Vec<Row<2>> = rows.iter().flat_map(|r| [*r, *r]).collect();
        let heavy: Vec<Row<2>> = rows.iter().map(|r| Row { weight: 2.0 * r.weight, ..*r }).collect();
        let (a, b) = (fit(&doubled, 0.5).unwrap(), fit(&heavy, 0.5).unwrap());
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-9), "{a:?} {b:?}");
    }

    #[test]
    fn cross_entropy_is_its_definition_and_survives_large_arguments() {
        for z in [-3.0, -0.2, 0.0, 1.4] {
            let p: f64 = logistic(z);
            let expected = -(0.3 * p.ln() + 0.7 * (1.0 - p).ln());
            assert!((cross_entropy(0.3, z) - expected).abs() < 1e-14);
        }
        assert_eq!(cross_entropy(1.0, 1e4), 0.0);
        assert_eq!(cross_entropy(0.0, 1e4), 1e4);
    }
}
