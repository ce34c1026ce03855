//! log σ and log(1 − exp) at both ends.

use setpoint_align::{log_sigmoid, log1mexp, sigmoid};

use crate::platform::{all, gradient, host};

/// Relative error of at most a few roundings, and of underflow where f32 has no such number.
fn assert_relative(what: &str, at: f64, found: f64, expected: f64, epsilon: f64) {
    let underflow = 1e-37;
    let tolerance = 8.0 * epsilon * expected.abs() + underflow;
    assert!((found - expected).abs() <= tolerance, "{what} at {at}: found {found:e}, expected {expected:e}");
}

#[test]
fn log_sigmoid_is_exact_to_rounding() {
    let xs = [-1e4, -90.0, -17.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 5.0, 17.0, 40.0, 80.0, 1e4];
    for platform in all() {
        let x = platform.leaf(&xs);
        let y = log_sigmoid(x.clone());
        let slopes = gradient(&x, &y.clone().sum().backward());
        for (i, &x) in xs.iter().enumerate() {
            let expected = if x < 0.0 { x - x.exp().ln_1p() } else { -(-x).exp().ln_1p() };
            assert_relative("log σ", x, host(&y)[i], expected, platform.epsilon);
            // σ(−x); for x < 0 it is near 1 and may be off by a rounding of 1.
            let expected = 1.0 / (1.0 + x.exp());
            assert_relative("its slope", x, slopes[i], expected, platform.epsilon);
        }
    }
}

#[test]
fn log_sigmoid_has_slope_one_half_where_training_starts() {
    for platform in all() {
        let x = platform.leaf(&[0.0]);
        let slope = gradient(&x, &log_sigmoid(x.clone()).backward());
        assert_eq!(slope, [0.5], "{platform:?}");
    }
}

#[test]
fn sigmoid_is_exact_to_rounding() {
    let xs = [-1e4, -80.0, -17.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 17.0, 80.0, 1e4];
    for platform in all() {
        let x = platform.leaf(&xs);
        let y = sigmoid(x.clone());
        let slopes = gradient(&x, &y.clone().sum().backward());
        for (i, &x) in xs.iter().enumerate() {
            let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
            assert_relative("σ", x, host(&y)[i], sigma(x), platform.epsilon);
            assert_relative("its slope", x, slopes[i], sigma(x) * sigma(-x), platform.epsilon);
        }
    }
}

#[test]
fn log1mexp_is_exact_to_rounding() {
    let branch = -std::f64::consts::LN_2;
    let ms =
        [-1e4, -80.0, -20.0, -3.0, -0.75, branch, -0.69, -0.5, -0.1, -1e-3, -1e-7, -1e-11].map(crate::platform::exact);
    for platform in all() {
        let m = platform.leaf(&ms);
        let y = log1mexp(m.clone());
        let slopes = gradient(&m, &y.clone().sum().backward());
        for (i, &m) in ms.iter().enumerate() {
            let complement = -m.exp_m1();
            let expected = if m > branch { complement.ln() } else { (-m.exp()).ln_1p() };
            assert_relative("log(1 − exp)", m, host(&y)[i], expected, 2.0 * platform.epsilon);
            assert_relative("its slope", m, slopes[i], -m.exp() / complement, 8.0 * platform.epsilon);
        }
    }
}

#[test]
fn a_certain_response_stays_finite() {
    for platform in all() {
        let m = platform.leaf(&[0.0, -0.0, -1e-20]);
        let y = log1mexp(m.clone());
        let slopes = gradient(&m, &y.clone().sum().backward());
        assert!(host(&y).iter().all(|y| *y < -27.0 && y.is_finite()), "{:?} on {platform:?}", host(&y));
        assert!(slopes.iter().all(|slope| *slope == 0.0), "{slopes:?} on {platform:?}");
    }
}
