//! The standard normal distribution.

/// `Φ(x)`, the probability that a standard normal variable is at most `x`.
pub(crate) fn cdf(x: f64) -> f64 {
    // erfc keeps full relative precision in the lower tail, where 1 + erf would cancel.
    0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
}

/// `Φ⁻¹(p)` for `p` in `[0, 1]`: minus and plus infinity at the ends.
///
/// Bisection on [`cdf`]: a handful of calls per interval, so certainty counts for more than speed.
pub(crate) fn quantile(p: f64) -> f64 {
    debug_assert!((0.0..=1.0).contains(&p));
    if p > 0.5 {
        return -quantile(1.0 - p);
    }
    if p == 0.0 {
        return f64::NEG_INFINITY;
    }
    // Φ(-39) is below the smallest subnormal.
    let (mut low, mut high) = (-39.0_f64, 0.0_f64);
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return high;
        }
        if cdf(middle) < p { low = middle } else { high = middle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Φ(x) by the composite Simpson rule on the density, from 0: another way than erfc.
    fn cdf_by_integration(x: f64) -> f64 {
        let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let steps = 2000;
        let h = x / steps as f64;
        let inner: f64 = (1..steps).map(|i| density(i as f64 * h) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
        0.5 + (density(0.0) + inner + density(x)) * h / 3.0
    }

    #[test]
    fn cdf_is_the_integral_of_the_density() {
        for x in [-4.0, -1.96, -0.3, 0.0, 0.7, 1.0, 3.2] {
            assert!((cdf(x) - cdf_by_integration(x)).abs() < 1e-12, "x = {x}");
        }
    }

    #[test]
    fn quantile_inverts_the_cdf_and_is_odd_about_one_half() {
        for x in [-8.0, -3.0, -1.0, -0.1, 0.0] {
            assert!((quantile(cdf(x)) - x).abs() < 1e-12, "x = {x}");
        }
        for p in [0.25, 0.125, 0.0625] {
            assert_eq!(quantile(p), -quantile(1.0 - p));
        }
        assert_eq!(quantile(0.0), f64::NEG_INFINITY);
        assert_eq!(quantile(1.0), f64::INFINITY);
    }
}
