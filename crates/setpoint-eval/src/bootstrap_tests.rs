use super::*;

/// Every resample of `values`, each as likely as any other: the distribution that the bootstrap samples from.
fn all_resample_means(values: &[f64]) -> Vec<f64> {
    let n = values.len();
    let mut means: Vec<f64> = (0..n.pow(n as u32))
        .map(|mut code| {
            let mut sum = 0.0;
            for _ in 0..n {
                sum += values[code % n];
                code /= n;
            }
            sum / n as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    means
}

fn bootstrap(method: BootstrapMethod, resamples: usize, level: f64, seed: u64) -> Bootstrap {
    Bootstrap { resamples, level, method, seed }
}

/// A skewed sample without ties among its resample means.
const SKEWED: [f64; 5] = [0.1, 0.43, 0.97, 2.2, 7.3];

#[test]
fn percentile_interval_is_that_of_the_enumerated_distribution() {
    let exact = all_resample_means(&SKEWED);
    let resamples = 40_000;
    let got = bootstrap(BootstrapMethod::Percentile, resamples, 0.8, 3).mean(&SKEWED).unwrap();
    // The share of the exact distribution below each end, within 5 standard errors of a binomial share.
    for (end, tail) in [(got.low, 0.1), (got.high, 0.9)] {
        let share = exact.partition_point(|v| *v <= end) as f64 / exact.len() as f64;
        // Tie groups of the exact distribution have at most 5! = 120 members.
        let allowed = 5.0 * (0.1_f64 * 0.9 / resamples as f64).sqrt() + 120.0 / exact.len() as f64;
        assert!((share - tail).abs() < allowed, "{end}: {share} against {tail} ± {allowed}");
    }
}

#[test]
fn bca_interval_is_the_textbook_formula_on_the_enumerated_distribution() {
    let exact = all_resample_means(&SKEWED);
    let n = SKEWED.len() as f64;
    let mean = SKEWED.iter().sum::<f64>() / n;

    // Leave-one-out by actually leaving one out.
    let jackknife: Vec<f64> = (0..SKEWED.len())
        .map(|out| SKEWED.iter().enumerate().filter(|(i, _)| *i != out).map(|(_, v)| v).sum::<f64>() / (n - 1.0))
        .collect();
    let centre = jackknife.iter().sum::<f64>() / n;
    let a = jackknife.iter().map(|v| (centre - v).powi(3)).sum::<f64>()
        / (6.0 * jackknife.iter().map(|v| (centre - v).powi(2)).sum::<f64>().powf(1.5));
    assert!(a > 0.0, "the sample leans to the right");
    let below = exact.iter().filter(|v| **v < mean - 1e-12).count() as f64;
    let tied = exact.iter().filter(|v| (**v - mean).abs() <= 1e-12).count() as f64;
    let z0 = normal::quantile((below + 0.5 * tied) / exact.len() as f64);

    let resamples = 40_000;
    let got = bootstrap(BootstrapMethod::Bca, resamples, 0.8, 4).mean(&SKEWED).unwrap();
    for (end, tail) in [(got.low, 0.1), (got.high, 0.9)] {
        let z = normal::quantile(tail);
        let expected = normal::cdf(z0 + (z0 + z) / (1.0 - a * (z0 + z)));
        let share = exact.partition_point(|v| *v <= end) as f64 / exact.len() as f64;
        // z0 is itself estimated, which about doubles the error of a plain quantile.
        let allowed = 10.0 * (expected * (1.0 - expected) / resamples as f64).sqrt() + 120.0 / exact.len() as f64;
        assert!((share - expected).abs() < allowed, "{end}: {share} against {expected} ± {allowed}");
        assert!(expected > tail, "BCa moves both ends of a right-skewed mean up");
    }
}

#[test]
fn replicates_spread_as_the_ideal_bootstrap_does() {
    // Var* of the resampled mean is Σ(x − x̄)²/n², exactly.
    let n = SKEWED.len() as f64;
    let mean = SKEWED.iter().sum::<f64>() / n;
    let ideal = (SKEWED.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n * n)).sqrt();
    let resamples = 20_000;
    let settings = bootstrap(BootstrapMethod::Percentile, resamples, 0.9, 1);
    let got = settings.statistic(SKEWED.len(), |rows| rows.iter().map(|&i| SKEWED[i]).sum::<f64>() / n).unwrap();
    // The relative error of a standard deviation from B draws is about √((κ − 1)/4B); κ < 4 here.
    let allowed = 5.0 * (3.0 / (4.0 * resamples as f64)).sqrt();
    assert!((got.std_error / ideal - 1.0).abs() < allowed, "{} against {ideal}", got.std_error);
}

#[test]
fn mean_and_the_general_statistic_agree() {
    for method in [BootstrapMethod::Percentile, BootstrapMethod::Bca] {
        let settings = bootstrap(method, 500, 0.9, 11);
        let mean = settings.mean(&SKEWED).unwrap();
        let general =
            settings.statistic(5, |rows| rows.iter().map(|&i| SKEWED[i]).sum::<f64>() / rows.len() as f64).unwrap();
        assert!((mean.low - general.low).abs() < 1e-12 && (mean.high - general.high).abs() < 1e-12);
        assert_eq!(mean.value, general.value);
    }
}

#[test]
fn intervals_follow_shifts_scales_and_reflections() {
    for method in [BootstrapMethod::Percentile, BootstrapMethod::Bca] {
        let settings = bootstrap(method, 999, 0.9, 5);
        let base = settings.mean(&SKEWED).unwrap();
        // Powers of two and small integers keep the arithmetic exact enough to compare closely.
        let moved = settings.mean(&SKEWED.map(|v| 4.0 * v + 3.0)).unwrap();
        assert!((moved.low - (4.0 * base.low + 3.0)).abs() < 1e-9);
        assert!((moved.high - (4.0 * base.high + 3.0)).abs() < 1e-9);
        let mirrored = settings.mean(&SKEWED.map(|v| -v)).unwrap();
        assert!((mirrored.low + base.high).abs() < 1e-9);
        assert!((mirrored.high + base.low).abs() < 1e-9);
    }
}

#[test]
fn percentile_coverage_of_normal_means_is_what_theory_says() {
    // For normal data the interval is close to x̄ ± z·s·√((n−1)/n)/√n, so it covers with P(|t₂₄| ≤ z√(24/25)).
    let (n, simulations, level) = (25_usize, 400_usize, 0.9);
    let reach = normal::quantile(0.5 + level / 2.0) * ((n - 1) as f64 / n as f64).sqrt();
    let expected = student_t_central(reach, (n - 1) as f64);
    let mut rng = ChaCha8Rng::seed_from_u64(2024);
    let covered = (0..simulations)
        .filter(|simulation| {
            let sample: Vec<f64> = (0..n).map(|_| 1.5 + normal::quantile(rng.random_range(1e-12..1.0))).collect();
            let got = bootstrap(BootstrapMethod::Percentile, 400, level, *simulation as u64).mean(&sample).unwrap();
            got.low <= 1.5 && 1.5 <= got.high
        })
        .count() as f64
        / simulations as f64;
    let allowed = 4.0 * (expected * (1.0 - expected) / simulations as f64).sqrt();
    assert!((covered - expected).abs() < allowed, "covered {covered}, expected {expected} ± {allowed}");
}

/// P(|T| ≤ t) for Student's t by Simpson's rule on the unnormalised density.
fn student_t_central(t: f64, freedom: f64) -> f64 {
    let density = |x: f64| (1.0 + x * x / freedom).powf(-(freedom + 1.0) / 2.0);
    let simpson = |to: f64| {
        let steps = 4000;
        let h = to / steps as f64;
        let inner: f64 = (1..steps).map(|i| density(i as f64 * h) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
        (density(0.0) + inner + density(to)) * h / 3.0
    };
    simpson(t) / simpson(60.0)
}

#[test]
fn a_constant_sample_has_an_interval_of_width_zero() {
    for method in [BootstrapMethod::Percentile, BootstrapMethod::Bca] {
        let got = bootstrap(method, 200, 0.95, 0).mean(&[0.1; 7]).unwrap();
        assert_eq!(got.low, got.high);
        assert!((got.low - 0.1).abs() < 1e-15 && got.std_error < 1e-15);
    }
}

#[test]
fn all_replicates_on_one_side_stay_finite() {
    // The minimum can never fall below the sample's: every replicate ties or lies above.
    let got = Bootstrap::default()
        .statistic(5, |rows| rows.iter().map(|&i| SKEWED[i]).fold(f64::INFINITY, f64::min))
        .unwrap();
    assert!(got.low >= 0.1 && got.high <= 7.3 && got.low <= got.high);
    assert_eq!(adjusted_tail(0.975, 5.0, 1.0 / 6.0), 1.0, "past the pole");
    assert_eq!(adjusted_tail(0.025, -5.0, -1.0 / 6.0), 0.0, "past the other pole");
}

#[test]
fn paired_difference_is_the_mean_of_differences() {
    let settings = bootstrap(BootstrapMethod::Bca, 300, 0.9, 9);
    let zeros = [0.0; 5];
    let paired = settings.paired_difference(&SKEWED, &zeros).unwrap();
    assert_eq!(paired, settings.mean(&SKEWED).unwrap());
    // A shift common to both cancels exactly in binary fractions.
    let shifted = settings.paired_difference(&[1.5, 2.5, 4.0], &[1.0, 2.0, 3.5]).unwrap();
    assert_eq!((shifted.value, shifted.low, shifted.high, shifted.std_error), (0.5, 0.5, 0.5, 0.0));
}

#[test]
fn bad_input_is_named() {
    let settings = Bootstrap::default();
    assert!(matches!(settings.mean(&[1.0]), Err(Error::TooFew { found: 1, needed: 2, .. })));
    assert!(matches!(settings.mean(&[1.0, f64::INFINITY]), Err(Error::NotFinite { index: 1, .. })));
    assert!(matches!(
        settings.paired_difference(&[1.0, 2.0], &[1.0]),
        Err(Error::LengthMismatch { left: 2, right: 1, .. })
    ));
    let odd = Bootstrap { level: 95.0, ..settings };
    assert!(matches!(odd.mean(&[1.0, 2.0]), Err(Error::Setting { name: "level", .. })));
    let few = Bootstrap { resamples: 10, ..settings };
    assert!(matches!(few.mean(&[1.0, 2.0]), Err(Error::Setting { name: "resamples", .. })));
    assert!(matches!(settings.statistic(3, |_| f64::NAN), Err(Error::NotFinite { .. })));
}

#[test]
fn settings_come_from_a_file_and_unknown_keys_are_refused() {
    let settings: Bootstrap = serde_json::from_str(r#"{"resamples": 2000, "method": "percentile"}"#).unwrap();
    assert_eq!(settings, bootstrap(BootstrapMethod::Percentile, 2000, 0.95, 0));
    assert!(serde_json::from_str::<Bootstrap>(r#"{"resample": 2000}"#).is_err());
}
