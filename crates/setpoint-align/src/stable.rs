//! Logarithms of probabilities that stay finite and exact at both ends.
//!
//! Everything here is elementwise, for any device and float dtype, and differentiable.

use burn::tensor::Tensor;

/// `log σ(x) = min(x, 0) − log(1 + exp(−|x|))`, computed without overflow or cancellation.
///
/// Its derivative `σ(−x)` is as exact: ½ at 0 (where the policy equals the reference, so where
/// training starts), 0 and 1 at `±1e4`. Burn's own `log_sigmoid` evaluates `log(1 + exp(−x))` on
/// some backends, which rounds to 0 from `x ≈ 17` on in f32.
///
/// # Shapes
/// `[d…] -> [d…]`
pub fn log_sigmoid<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let magnitude = x.clone().abs();
    // min(x, 0) as (x − |x|)/2, whose derivative at 0 is ½ where that of a clamp is 0 or 1.
    let negative_part = (x - magnitude.clone()).mul_scalar(0.5);
    negative_part - magnitude.neg().exp().log1p()
}

/// `1 + x/2! + x²/3! + …`, i.e. `(exp(x) − 1)/x`: 17 terms are exact in f64 for `|x| ≤ ln 2`.
const EXPM1_OVER_X_TERMS: i32 = 17;

/// The largest log-probability that [`log1mexp`] tells from 0; what is nearer is taken as this.
/// Its logarithm (−27.6) and the derivative there (−1e12) are finite in f32.
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
    let branch = -core::f64::consts::LN_2;
    let m = m.clamp_max(NEAREST_TO_ZERO);
    let near = m.clone().greater_scalar(branch);

    // Each branch sees inputs from its own side only: a discarded infinity would still reach the
    // backward pass as 0·∞.
    let small = m.clone().clamp_min(branch);
    // 1 − exp(m) = −m·(1 + m/2! + m²/3! + …), by Horner's rule; backends lack `expm1`.
    let mut series = small.ones_like();
    for k in (2..=EXPM1_OVER_X_TERMS).rev() {
        series = (series * small.clone()).div_scalar(f64::from(k)).add_scalar(1.0);
    }
    let near_zero = small.neg().log() + series.log();

    let far_from_zero = m.clamp_max(branch).exp().neg().log1p();
    far_from_zero.mask_where(near, near_zero)
}
