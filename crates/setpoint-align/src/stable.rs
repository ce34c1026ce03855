//! Logarithms of probabilities that stay finite and exact at both ends.
//!
//! Everything here is elementwise, for any device and float dtype, and differentiable. Values and
//! slopes are computed separately, each by a formula that does not cancel: the chain rule through a
//! formula for the value adds up ½ and −½ where the slope is 1e-8.

use burn::tensor::Tensor;

/// A tensor with the given values that passes gradients on to `x` times the given slopes.
fn with_slopes<const D: usize>(x: Tensor<D>, values: Tensor<D>, slopes: Tensor<D>) -> Tensor<D> {
    // The difference is 0, and its derivative 1.
    let zero = x.clone() - x.inner();
    values + zero * slopes
}

/// `atanh(s)/s = 1 + s²/3 + s⁴/5 + …`: 16 terms are exact in f64 for `|s| ≤ 1/3`.
const ATANH_OVER_S_TERMS: i32 = 16;

/// `log(1 + u)` for `−½ ≤ u ≤ 1`, as `2·atanh(u/(2 + u))`.
///
/// Burn's own `log1p` is `log(1 + u)` on GPUs, which is 0 for `u` below f32's epsilon: the loss of a pair that is far apart would be.
fn log1p<const D: usize>(u: Tensor<D>) -> Tensor<D> {
    let s = u.clone() / u.add_scalar(2.0);
    let square = s.clone() * s.clone();
    let last = 1.0 / f64::from(2 * ATANH_OVER_S_TERMS - 1);
    let mut series = square.ones_like().mul_scalar(last);
    for k in (0..ATANH_OVER_S_TERMS - 1).rev() {
        series = (series * square.clone()).add_scalar(1.0 / f64::from(2 * k + 1));
    }
    (s * series).mul_scalar(2.0)
}

/// `log σ(x) = min(x, 0) − log(1 + exp(−|x|))`, without overflow or cancellation.
///
/// Its derivative `σ(−x)` is as exact: ½ at 0 (where the policy equals the reference, so where
/// training starts), 1 and 0 at `∓1e4`. Burn's own `log_sigmoid` evaluates `log(1 + exp(−x))` on
/// some backends, which rounds to 0 from `x ≈ 17` on in f32.
///
/// # Shapes
/// `[d…] -> [d…]`
pub fn log_sigmoid<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let at = x.clone().inner();
    let small = at.clone().abs().neg().exp(); // exp(−|x|), at most 1
    let values = at.clone().clamp_max(0.0) - log1p(small.clone());
    // σ(−x): exp(−x)/(1 + exp(−x)) for x ≥ 0, 1/(1 + exp(x)) below.
    let larger = small.clone().add_scalar(1.0).recip();
    let slopes = (larger.clone() * small).mask_where(at.lower_scalar(0.0), larger);
    with_slopes(x, values, slopes)
}

/// `σ(x)`, exact where it is next to 0 (`1 − σ(x)` is `σ(−x)`), with the derivative `σ(x)·σ(−x)`.
///
/// # Shapes
/// `[d…] -> [d…]`
pub fn sigmoid<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let at = x.clone().inner();
    let small = at.clone().abs().neg().exp(); // exp(−|x|), at most 1
    let larger = small.clone().add_scalar(1.0).recip(); // σ(|x|)
    let smaller = small * larger.clone(); // σ(−|x|)
    let slopes = larger.clone() * smaller.clone();
    let values = larger.mask_where(at.lower_scalar(0.0), smaller);
    with_slopes(x, values, slopes)
}

/// `x²`, as a product: its gradient is `x + x`, without rounding.
///
/// # Shapes
/// `[d…] -> [d…]`
pub(crate) fn square<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.clone() * x
}

/// `1 + x/2! + x²/3! + …`, i.e. `(exp(x) − 1)/x`: 17 terms are exact in f64 for `|x| ≤ ln 2`.
const EXPM1_OVER_X_TERMS: i32 = 17;

/// The largest log-probability that [`log1mexp`] tells from 0; what is nearer is taken as this.
const NEAREST_TO_ZERO: f64 = -1e-12;

/// `log(1 − exp(m))` for `m ≤ 0`: the log-probability of the complement.
///
/// Branches at `−ln 2` (Mächler 2012, "Accurately computing log(1 − exp(−|a|))"), so it is exact for
/// `m = −1e-7` as well as `m = −1e4`, with the derivative `−exp(m)/(1 − exp(m))`. At `m > −1e-12`
/// (a probability that rounds to 1) the value stays finite and the derivative is 0.
///
/// # Shapes
/// `[d…] -> [d…]`
pub fn log1mexp<const D: usize>(m: Tensor<D>) -> Tensor<D> {
    let certain = m.clone().inner().greater_scalar(NEAREST_TO_ZERO);
    let at = m.clone().inner().clamp_max(NEAREST_TO_ZERO);
    let branch = -core::f64::consts::LN_2;
    let near = at.clone().greater_scalar(branch);

    // 1 − exp(m) = −m·(1 + m/2! + m²/3! + …), by Horner's rule; backends lack `expm1`.
    let small = at.clone().clamp_min(branch);
    let mut series = small.ones_like();
    for k in (2..=EXPM1_OVER_X_TERMS).rev() {
        series = (series * small.clone()).div_scalar(f64::from(k)).add_scalar(1.0);
    }
    let near_zero = small.clone().neg().log() + series.clone().log();

    let probability = at.exp();
    let values = log1p(probability.clone().neg()).mask_where(near.clone(), near_zero);
    let complement = probability.clone().neg().add_scalar(1.0).mask_where(near, small.neg() * series);
    let slopes = (probability / complement).neg().mask_fill(certain, 0.0);
    with_slopes(m, values, slopes)
}
