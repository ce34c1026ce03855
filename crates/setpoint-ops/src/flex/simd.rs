//! Loops that the compiler vectorises for the processor at hand.

pub(super) use crate::exp::exp;

/// Runs `f`, compiled for the widest vectors that the processor has. The closure itself and what it calls must be `#[inline(always)]` to take
/// part.
#[inline(always)]
pub(crate) fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Asks for values that will be wanted soon, where the processor can be asked.
#[inline(always)]
pub(super) fn prefetch(x: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in x.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 has SSE, and an address is all that is read.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = x;
}

/// Accumulators of a sum or a maximum, so that it does not wait for itself.
const LANES: usize = 32;

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Replaces each score by `cap · tanh(score / cap)`.
///
/// `tanh(x) = 1 − 2 / (e^2x + 1)` loses digits near 0, where a series takes its place: `x − x³/3 + 2x⁵/15 − 17x⁷/315`.
#[inline(always)]
pub(super) fn bound(scores: &mut [f32], cap: f32) {
    for score in scores {
        let x = *score / cap;
        let square = x * x;
        let near = x * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0 - square * (17.0 / 315.0))));
        let far = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
        *score = cap * if square < 0.01 { near } else { far };
    }
}

/// The slope of [`bound`] at a score, from the bounded one: `1 − (score / cap)²`.
#[inline(always)]
pub(super) fn slope_of_bound(bounded: f32, cap: f32) -> f32 {
    let share = bounded / cap;
    1.0 - share * share
}

/// The sum of the lanes, by halves.
#[inline(always)]
fn total(mut lanes: [f32; LANES]) -> f32 {
    for half in [16, 8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

/// Folds each lane by `f`, then the lanes.
#[inline(always)]
fn fold(x: &[f32], start: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let whole = x.chunks_exact(LANES);
    let rest = whole.remainder();
    for part in whole {
        for i in 0..LANES {
            lanes[i] = f(lanes[i], part[i]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = f(*lane, x);
    }
    for half in [16, 8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = f(lanes[i], lanes[i + half]);
        }
    }
    lanes[0]
}

/// The largest value; NaN may be passed over, as a sum over the same values will show it.
#[inline(always)]
pub(super) fn highest(x: &[f32]) -> f32 {
    fold(x, f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
}

/// `Σ x · y`.
#[inline(always)]
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (whole_x, whole_y) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let rest = whole_x.remainder().iter().zip(whole_y.remainder());
    for (x, y) in whole_x.zip(whole_y) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    for (lane, (x, y)) in lanes.iter_mut().zip(rest) {
        *lane += x * y;
    }
    total(lanes)
}

/// Replaces each `x` by `e^(x − shift)` and answers their sum.
#[inline(always)]
pub(super) fn exp_sum(x: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let mut whole = x.chunks_exact_mut(LANES);
    for part in &mut whole {
        for i in 0..LANES {
            part[i] = exp(part[i] - shift);
            lanes[i] += part[i];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(whole.into_remainder()) {
        *x = exp(*x - shift);
        *lane += *x;
    }
    total(lanes)
}

/// Replaces each `x` by `factor · e^(x − shift)`.
#[inline(always)]
pub(super) fn exp_scaled(x: &mut [f32], shift: f32, factor: f32) {
    for x in x {
        *x = factor * exp(*x - shift);
    }
}

/// `y = factor · e^(x − shift)`.
#[inline(always)]
pub(super) fn exp_scaled_to(y: &mut [f32], x: &[f32], shift: f32, factor: f32) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = factor * exp(x - shift);
    }
}

/// Replaces each bounded `x` by `factor · e^(x − shift)`, times the slope of the bound.
#[inline(always)]
pub(super) fn exp_scaled_within(x: &mut [f32], shift: f32, factor: f32, cap: f32) {
    for x in x {
        *x = factor * exp(*x - shift) * slope_of_bound(*x, cap);
    }
}

/// `Σ e^(x − shift)`.
#[inline(always)]
pub(super) fn exp_total(x: &[f32], shift: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let whole = x.chunks_exact(LANES);
    let rest = whole.remainder();
    for part in whole {
        for i in 0..LANES {
            lanes[i] += exp(part[i] - shift);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += exp(x - shift);
    }
    total(lanes)
}

/// `Σ e^(x − shift)` and `Σ e^(x − shift) · (x − shift)`.
#[inline(always)]
pub(super) fn exp_moments(x: &[f32], shift: f32) -> (f32, f32) {
    let mut sums = [0.0; LANES];
    let mut means = [0.0; LANES];
    let whole = x.chunks_exact(LANES);
    let rest = whole.remainder();
    for part in whole {
        for i in 0..LANES {
            let s = part[i] - shift;
            let e = exp(s);
            sums[i] += e;
            means[i] += e * s;
        }
    }
    for (i, x) in rest.iter().enumerate() {
        let s = x - shift;
        let e = exp(s);
        sums[i] += e;
        means[i] += e * s;
    }
    (total(sums), total(means))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.0;
            let expected = f64::from(x).exp();
            let unit = f64::from((expected as f32).next_up() - expected as f32);
            let error = (f64::from(exp(x)) - expected).abs() / unit;
            assert!(error <= 2.0, "exp({x}) is off by {error} units");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 1.3e-38);
        assert!(exp(f32::INFINITY) > 1e38);
    }

    #[test]
    fn sums_count_every_element() {
        for n in [1, 31, 32, 33, 100] {
            let x: Vec<f32> = (0..n).map(|i| i as f32 * 0.1 - 1.0).collect();
            let (sum, mean) = vectorised(
                #[inline(always)]
                || exp_moments(&x, 0.5),
            );
            let expected = |f: &dyn Fn(f64) -> f64| x.iter().map(|&x| f(f64::from(x))).sum::<f64>();
            let close = |a: f32, b: f64| assert!((f64::from(a) - b).abs() < 1e-5 * (1.0 + b.abs()), "{a} against {b}");
            close(sum, expected(&|x| (x - 0.5).exp()));
            close(mean, expected(&|x| (x - 0.5).exp() * (x - 0.5)));
            close(
                vectorised(
                    #[inline(always)]
                    || dot(&x, &x),
                ),
                expected(&|x| x * x),
            );
            close(
                vectorised(
                    #[inline(always)]
                    || exp_total(&x, 0.5),
                ),
                expected(&|x| (x - 0.5).exp()),
            );
            close(
                vectorised(
                    #[inline(always)]
                    || exp_sum(&mut x.clone(), 0.5),
                ),
                expected(&|x| (x - 0.5).exp()),
            );
            assert_eq!(
                vectorised(
                    #[inline(always)]
                    || highest(&x)
                ),
                x[n - 1]
            );
        }
    }
}
