//! Objectives on single rows: KTO, QRPO, DRO-V.

use proptest::prelude::*;
use setpoint_align::{
    Desirable, DroBatch, DroSettings, DroVSettings, KtoSettings, PromptIndex, PromptTerm, QrpoSettings, Settings, dro,
    dro_v, kto, kto_reference_point, qrpo, reward_quantile, weighted_sum,
};

use crate::pairwise::{config, ls};
use crate::platform::{Platform, all, double, exact, gradient, host};

/// Log-ratios, rewards, labels.
fn rows() -> impl Strategy<Value = (Vec<f64>, Vec<f64>, Vec<bool>)> {
    let row = ((-30.0..30.0f64).prop_map(exact), (-3.0..3.0f64).prop_map(exact), any::<bool>());
    prop::collection::vec(row, 1..8).prop_map(|rows| {
        let (h, rest): (Vec<f64>, Vec<(f64, bool)>) = rows.into_iter().map(|(h, r, good)| (h, (r, good))).unzip();
        let (rewards, labels) = rest.into_iter().unzip();
        (h, rewards, labels)
    })
}

const KTO: KtoSettings =
    KtoSettings { beta: 0.25, desirable_weight: 1.5, undesirable_weight: 0.5, desirable: Desirable::Best };

fn kto_run(platform: &Platform, h: &[f64], labels: &[bool], z: f64) -> (Vec<f64>, Vec<f64>) {
    let leaf = platform.leaf(h);
    let output = kto(leaf.clone(), labels, z, &KTO);
    let gradients = output.losses.clone().sum().backward();
    (host(&output.losses), gradient(&leaf, &gradients))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn kto_is_its_formula((h, mismatched, labels) in rows()) {
        let z = kto_reference_point(&mismatched);
        prop_assert!(z >= 0.0);
        let sigma = |x: f64| ls(x).exp();
        let loss = |h: f64, good: bool| {
            if good { 1.5 * (1.0 - sigma(0.25 * (h - z))) } else { 0.5 * (1.0 - sigma(0.25 * (z - h))) }
        };
        let expected: Vec<f64> = h.iter().zip(&labels).map(|(&h, &good)| loss(h, good)).collect();
        for platform in all() {
            let (found, _) = kto_run(&platform, &h, &labels, z);
            platform.assert_close("losses", &found, &expected, platform.rounding(10.0));
        }
        for platform in double() {
            let (_, slopes) = kto_run(&platform, &h, &labels, z);
            let step = 1e-5;
            let differences: Vec<f64> = h
                .iter()
                .zip(&labels)
                .map(|(&h, &good)| (loss(h + step, good) - loss(h - step, good)) / (2.0 * step))
                .collect();
            platform.assert_close("slopes", &slopes, &differences, 1e-10);
        }
    }

    /// Rows see each other through `z` alone: with it they may be cut and ordered in any way.
    #[test]
    fn kto_in_parts_is_kto((h, mismatched, labels) in rows()) {
        let z = kto_reference_point(&mismatched);
        for platform in all() {
            let (whole, slopes) = kto_run(&platform, &h, &labels, z);
            for size in [1, 2, 3] {
                let parts = h.chunks(size).zip(labels.chunks(size));
                let (losses, own): (Vec<_>, Vec<_>) = parts.map(|(h, labels)| kto_run(&platform, h, labels, z)).unzip();
                prop_assert_eq!(&losses.concat(), &whole);
                prop_assert_eq!(&own.concat(), &slopes);
            }
        }
    }

    /// A good row and a bad one with the same log-ratio: `σ(−x) + σ(x) = 1`, weights aside.
    #[test]
    fn kto_of_both_labels_adds_up_to_one((h, mismatched, _labels) in rows()) {
        let settings = KtoSettings { beta: 0.25, ..KtoSettings::default() };
        let z = kto_reference_point(&mismatched);
        for platform in all() {
            let of = |good: bool| host(&kto(platform.constant(&h), &vec![good; h.len()], z, &settings).losses);
            let sums: Vec<f64> = of(true).iter().zip(of(false)).map(|(a, b)| a + b).collect();
            platform.assert_close("sums", &sums, &vec![1.0; h.len()], platform.rounding(1.0));
        }
    }

    /// QRPO is DRO with the quantile for a reward, its own log Z, and no prompt term.
    #[test]
    fn qrpo_is_dro((h, rewards, _labels) in rows()) {
        let settings = QrpoSettings { beta: 0.25, ..QrpoSettings::default() };
        let quantiles: Vec<f64> = rewards.iter().map(|&r| reward_quantile(r, &rewards)).collect();
        for platform in all() {
            let leaf = platform.leaf(&h);
            let losses = qrpo(leaf.clone(), platform.constant(&quantiles), &settings).losses;
            let slopes = gradient(&leaf, &losses.clone().sum().backward());

            let other = platform.leaf(&h);
            let zeros = platform.constant(&vec![0.0; h.len()]);
            let batch = DroBatch {
                logps: other.clone(),
                ref_logps: zeros.clone(),
                rewards: platform.constant(&quantiles),
                prompt_logps: zeros.clone(),
                ref_prompt_logps: zeros,
                levels: None,
                tokens: None,
            };
            let dro_settings =
                DroSettings { beta: 0.25, log_z0: settings.log_z(), prompt_term: PromptTerm::Off, ..Default::default() };
            let errors = dro(batch, &PromptIndex::from_counts(&vec![1; h.len()]).unwrap(), &dro_settings).errors;
            let dro_slopes = gradient(&other, &errors.clone().sum().backward());
            platform.assert_close("losses", &host(&losses), &host(&errors), platform.rounding(100.0));
            platform.assert_close("slopes", &slopes, &dro_slopes, platform.rounding(10.0));
        }
    }

    /// DRO-V with `V = β·log Z` is half of DRO's error; the value's gradient is minus the residual.
    #[test]
    fn dro_v_is_half_of_dro((h, rewards, _labels) in rows(), log_z in (-5i32..5).prop_map(f64::from)) {
        let settings = DroVSettings { beta: 0.25 };
        for platform in all() {
            let (leaf, values) = (platform.leaf(&h), platform.leaf(&vec![0.25 * log_z; h.len()]));
            let losses = dro_v(leaf.clone(), platform.constant(&rewards), values.clone(), &settings).losses;
            let gradients = losses.clone().sum().backward();
            let residuals: Vec<f64> = h.iter().zip(&rewards).map(|(h, r)| r - 0.25 * (h + log_z)).collect();
            let halves: Vec<f64> = residuals.iter().map(|e| 0.5 * e * e).collect();
            let rounding = platform.rounding(100.0);
            platform.assert_close("losses", &host(&losses), &halves, rounding);
            let minus = |factor: f64| residuals.iter().map(|e| -factor * e).collect::<Vec<_>>();
            platform.assert_close("by h", &gradient(&leaf, &gradients), &minus(0.25), rounding);
            platform.assert_close("by V", &gradient(&values, &gradients), &minus(1.0), rounding);
        }
    }
}

#[test]
fn extremes_stay_finite() {
    let h = [1e4, -1e4, 0.0];
    for platform in all() {
        let finite = |losses: burn::tensor::Tensor<1>, leaf: &burn::tensor::Tensor<1>| {
            let slopes = gradient(leaf, &weighted_sum(losses.clone(), &[1.0; 3]).backward());
            assert!(host(&losses).iter().chain(&slopes).all(|v| v.is_finite()), "{platform:?}");
        };
        for labels in [[true; 3], [false; 3]] {
            let leaf = platform.leaf(&h);
            finite(kto(leaf.clone(), &labels, 1e4, &KtoSettings::default()).losses, &leaf);
        }
        let leaf = platform.leaf(&h);
        finite(qrpo(leaf.clone(), platform.constant(&[1.0, 0.0, 0.5]), &QrpoSettings::default()).losses, &leaf);
        let leaf = platform.leaf(&h);
        let (rewards, values) = (platform.constant(&[50.0, -50.0, 0.0]), platform.constant(&[0.0; 3]));
        finite(dro_v(leaf.clone(), rewards, values, &DroVSettings::default()).losses, &leaf);
    }
}

/// The authors' `log β + 1/β` is the limit for small β; at β = ½ it is 0.15 nats off.
#[test]
fn the_exact_log_z_of_a_uniform_reward() {
    for beta in [0.003, 0.05, 0.5, 2.0] {
        // Simpson's rule on ∫ exp((q − 1)/β) dq, which does not overflow.
        let n = 20_000;
        let at = |i: i32| ((f64::from(i) / f64::from(n) - 1.0) / beta).exp();
        let inner: f64 = (1..n).map(|i| at(i) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
        let integral = (at(0) + inner + at(n)) / (3.0 * f64::from(n));
        let found = QrpoSettings { beta, ..QrpoSettings::default() }.log_z();
        assert!((found - (integral.ln() + 1.0 / beta)).abs() < 1e-9, "{beta}: {found}");
    }
    let short = 0.5f64.ln() + 2.0;
    assert!((short - QrpoSettings { beta: 0.5, ..QrpoSettings::default() }.log_z() - 0.1454).abs() < 1e-3);
}

#[test]
fn reference_points_and_quantiles() {
    assert_eq!(kto_reference_point(&[1.0, 2.0, 6.0]), 3.0);
    assert_eq!(kto_reference_point(&[1.0, -9.0]), 0.0);
    assert_eq!(kto_reference_point(&[]), 0.0);
    assert_eq!(reward_quantile(-1.0, &[0.0, 1.0]), 0.0);
    assert_eq!(reward_quantile(1.0, &[0.0, 1.0]), 1.0);
    assert!(KtoSettings { undesirable_weight: -1.0, ..Default::default() }.validate().is_err());
    assert!(QrpoSettings { beta: 0.0, ..QrpoSettings::default() }.validate().is_err());
    assert!(DroVSettings { beta: 0.0 }.validate().is_err());
    assert!(KtoSettings::default().validate().is_ok() && QrpoSettings::default().validate().is_ok());
    assert!(DroVSettings::default().validate().is_ok());
}
