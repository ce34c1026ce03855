//! Pairwise objectives: definitions, symmetries, finite differences, extremes.

use burn::tensor::Tensor;
use proptest::prelude::*;
use setpoint_align::{
    CalDpoSettings, DpoSettings, IpoNormalize, IpoSettings, OrpoSettings, Pair, PairLoss, RpoSettings, Settings,
    SimpoSettings, SlicHfSettings, cal_dpo, dpo, ipo, orpo, rpo, simpo, slic_hf,
};

use crate::platform::{Platform, all, double, exact, gradient, host, largest};

/// Log-ratios (or log-probs) of the two sides, token counts, and rewards of two reward models.
#[derive(Debug, Clone)]
pub struct Pairs {
    pub chosen: Vec<f64>,
    pub rejected: Vec<f64>,
    pub chosen_tokens: Vec<f64>,
    pub rejected_tokens: Vec<f64>,
    pub rewards: [[Vec<f64>; 2]; 2],
}

pub fn pairs(values: std::ops::Range<f64>) -> impl Strategy<Value = Pairs> {
    (1..7usize).prop_flat_map(move |b| {
        let side = |range: std::ops::Range<f64>| prop::collection::vec(range.prop_map(exact), b);
        let tokens = || prop::collection::vec((1..60u32).prop_map(f64::from), b);
        let rewards = || [side(-3.0..3.0), side(-3.0..3.0)];
        (side(values.clone()), side(values.clone()), tokens(), tokens(), [rewards(), rewards()]).prop_map(
            |(chosen, rejected, chosen_tokens, rejected_tokens, rewards)| Pairs {
                chosen,
                rejected,
                chosen_tokens,
                rejected_tokens,
                rewards,
            },
        )
    })
}

impl Pairs {
    pub fn tokens(&self, platform: &Platform) -> Pair {
        Pair { chosen: platform.constant(&self.chosen_tokens), rejected: platform.constant(&self.rejected_tokens) }
    }

    pub fn rewards(&self, platform: &Platform, models: usize) -> Vec<Pair> {
        let model = |sides: &[Vec<f64>; 2]| Pair {
            chosen: platform.constant(&sides[0]),
            rejected: platform.constant(&sides[1]),
        };
        self.rewards[..models].iter().map(model).collect()
    }

    /// Losses, and gradients of their sum with respect to the two sides.
    pub fn run(&self, platform: &Platform, objective: impl Fn(Pair) -> Tensor<1>) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let leaves = Pair { chosen: platform.leaf(&self.chosen), rejected: platform.leaf(&self.rejected) };
        let losses = objective(leaves.clone());
        let gradients = losses.clone().sum().backward();
        (host(&losses), gradient(&leaves.chosen, &gradients), gradient(&leaves.rejected, &gradients))
    }

    pub fn swapped(&self) -> Self {
        let mut swapped = self.clone();
        std::mem::swap(&mut swapped.chosen, &mut swapped.rejected);
        std::mem::swap(&mut swapped.chosen_tokens, &mut swapped.rejected_tokens);
        swapped
    }
}

pub fn ls(x: f64) -> f64 {
    if x < 0.0 { x - x.exp().ln_1p() } else { -(-x).exp().ln_1p() }
}

/// An objective, and the same for one pair from its published formula.
pub struct Objective {
    pub name: &'static str,
    pub tensor: fn(&Platform, &Pairs, Pair) -> Tensor<1>,
    pub formula: fn(&Pairs, usize) -> f64,
}

pub fn losses(output: PairLoss) -> Tensor<1> {
    output.losses
}

/// Objectives on log-ratios (or log-probs) of any sign.
pub fn on_sums() -> Vec<Objective> {
    vec![
        Objective {
            name: "dpo",
            tensor: |_, _, h| losses(dpo(h, &DpoSettings { beta: 0.25, label_smoothing: 0.0 })),
            formula: |p, i| -ls(0.25 * (p.chosen[i] - p.rejected[i])),
        },
        Objective {
            name: "cdpo",
            tensor: |_, _, h| losses(dpo(h, &DpoSettings { beta: 0.25, label_smoothing: 0.125 })),
            formula: |p, i| {
                let x = 0.25 * (p.chosen[i] - p.rejected[i]);
                -0.875 * ls(x) - 0.125 * ls(-x)
            },
        },
        Objective {
            name: "ipo",
            tensor: |platform, p, h| losses(ipo(h, p.tokens(platform), &IpoSettings::default())),
            formula: |p, i| (p.chosen[i] / p.chosen_tokens[i] - p.rejected[i] / p.rejected_tokens[i] - 5.0).powi(2),
        },
        Objective {
            name: "ipo of sums",
            tensor: |platform, p, h| {
                let settings = IpoSettings { beta: 0.5, normalize: IpoNormalize::None };
                losses(ipo(h, p.tokens(platform), &settings))
            },
            formula: |p, i| (p.chosen[i] - p.rejected[i] - 1.0).powi(2),
        },
        Objective {
            name: "rpo",
            tensor: |platform, p, h| {
                losses(rpo(
                    h,
                    &p.rewards(platform, 1),
                    &RpoSettings { beta: 0.25, pessimism: 0.0, ..Default::default() },
                ))
            },
            formula: |p, i| {
                let [r, _] = &p.rewards;
                (r[0][i] - r[1][i] - 0.25 * (p.chosen[i] - p.rejected[i])).powi(2)
            },
        },
        Objective {
            name: "rpo, ensemble and pessimistic",
            tensor: |platform, p, h| {
                losses(rpo(
                    h,
                    &p.rewards(platform, 2),
                    &RpoSettings { beta: 0.25, pessimism: 0.5, ..Default::default() },
                ))
            },
            formula: |p, i| {
                let square = |r: &[Vec<f64>; 2]| (r[0][i] - r[1][i] - 0.25 * (p.chosen[i] - p.rejected[i])).powi(2);
                square(&p.rewards[0]).min(square(&p.rewards[1])) + 0.5 * 0.5 * (-p.chosen[i] - p.rejected[i])
            },
        },
        Objective {
            name: "cal_dpo",
            tensor: |_, _, h| losses(cal_dpo(h, &CalDpoSettings { beta: 0.25, calibration_weight: 0.5 })),
            formula: |p, i| {
                let (w, l) = (p.chosen[i], p.rejected[i]);
                -ls(w - l) + 0.5 * ((w - 2.0).powi(2) + (l + 2.0).powi(2))
            },
        },
        Objective {
            name: "slic_hf",
            tensor: |_, _, logps| losses(slic_hf(logps, &SlicHfSettings { delta: 1.0, lambda: 0.125 })),
            formula: |p, i| (1.0 - p.chosen[i] + p.rejected[i]).max(0.0) - 0.125 * p.chosen[i],
        },
    ]
}

/// Objectives on mean log-probs, which are below 0.
pub fn on_means() -> Vec<Objective> {
    vec![
        Objective {
            name: "simpo",
            tensor: |_, _, m| losses(simpo(m, &SimpoSettings { beta: 2.0, gamma_beta_ratio: 0.25 })),
            formula: |p, i| -ls(2.0 * (p.chosen[i] - p.rejected[i]) - 0.5),
        },
        Objective {
            name: "orpo",
            tensor: |_, _, m| {
                orpo(m.clone(), m.chosen.neg(), &OrpoSettings { lambda: 0.25, ..Default::default() }).losses
            },
            formula: |p, i| {
                let log_odds = |m: f64| m - (-m.exp_m1()).ln();
                -p.chosen[i] - 0.25 * ls(log_odds(p.chosen[i]) - log_odds(p.rejected[i]))
            },
        },
    ]
}

/// One side of the pairs.
type Side = fn(&mut Pairs) -> &mut Vec<f64>;

/// Checks losses against the formula, and gradients against finite differences of it. Points
/// next to a kink (of a hinge, of a minimum) are passed over: no difference tells its slope.
pub fn check(objective: &Objective, p: &Pairs, input_slope: f64) {
    let Objective { name, tensor, formula } = objective;
    let b = p.chosen.len();
    let expected: Vec<f64> = (0..b).map(|i| formula(p, i)).collect();
    // Roundings within are relative to the size of the inputs and of the result.
    let size = largest(&expected) + input_slope * (1.0 + largest(&p.chosen) + largest(&p.rejected)).powi(2);
    for platform in all() {
        let (found, ..) = p.run(&platform, |pair| tensor(&platform, p, pair));
        platform.assert_close(name, &found, &expected, platform.rounding(size));
    }
    let step = 1e-4;
    for platform in double() {
        let (_, chosen, rejected) = p.run(&platform, |pair| tensor(&platform, p, pair));
        for i in 0..b {
            let at = |side: Side, by: f64| {
                let mut shifted = p.clone();
                side(&mut shifted)[i] += by;
                formula(&shifted, i)
            };
            let sides: [(Side, f64); 2] = [(|p| &mut p.chosen, chosen[i]), (|p| &mut p.rejected, rejected[i])];
            for (side, slope) in sides {
                let [far_below, below, here, above, far_above] =
                    [-2.0, -1.0, 0.0, 1.0, 2.0].map(|steps| at(side, steps * step));
                let (right, left) = ((far_above - here) / step, (here - far_below) / step);
                // Of fourth order: ORPO's third derivative is 2λ/m³.
                let difference = (8.0 * (above - below) - (far_above - far_below)) / (12.0 * step);
                let bend = (right - left).abs();
                if bend > 0.02 * (1.0 + difference.abs()) || bend > 0.5 * difference.abs() {
                    continue;
                }
                let tolerance = 1e-9 * (1.0 + difference.abs()) + 1e-15 * size / step;
                platform.assert_close(name, &[slope], &[difference], tolerance);
            }
        }
    }
}

pub fn config() -> ProptestConfig {
    ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn sums_equal_formula_and_finite_differences(p in pairs(-30.0..30.0)) {
        on_sums().iter().for_each(|objective| check(objective, &p, 1.0));
    }

    #[test]
    fn means_equal_formula_and_finite_differences(p in pairs(-4.0..-0.05)) {
        // 1/(1 − exp(m)) is 20 at −0.05.
        on_means().iter().for_each(|objective| check(objective, &p, 20.0));
    }

    /// Only the difference of the log-ratios counts.
    #[test]
    fn dpo_is_invariant_to_a_shift(p in pairs(-30.0..30.0), shift in (-8i32..8).prop_map(f64::from)) {
        let settings = DpoSettings { beta: 0.25, label_smoothing: 0.125 };
        for platform in all() {
            let shifted = Pairs {
                chosen: p.chosen.iter().map(|h| h + shift).collect(),
                rejected: p.rejected.iter().map(|h| h + shift).collect(),
                ..p.clone()
            };
            let (before, chosen, rejected) = p.run(&platform, |h| dpo(h, &settings).losses);
            let (after, ..) = shifted.run(&platform, |h| dpo(h, &settings).losses);
            platform.assert_close("losses", &after, &before, platform.rounding(40.0));
            for (chosen, rejected) in chosen.iter().zip(&rejected) {
                prop_assert_eq!(*chosen, -rejected);
            }
        }
    }

    /// Swapping the sides: −ls(x) + ls(−x) = −x, so cDPO's losses differ by (1 − 2ε)·β·(h_w − h_l).
    #[test]
    fn dpo_is_antisymmetric_up_to_the_margin(p in pairs(-30.0..30.0)) {
        let settings = DpoSettings { beta: 0.25, label_smoothing: 0.125 };
        for platform in all() {
            let (there, ..) = p.run(&platform, |h| dpo(h, &settings).losses);
            let (back, ..) = p.swapped().run(&platform, |h| dpo(h, &settings).losses);
            let difference: Vec<f64> = there.iter().zip(&back).map(|(a, b)| a - b).collect();
            let margins = p.chosen.iter().zip(&p.rejected).map(|(w, l)| -0.75 * 0.25 * (w - l));
            platform.assert_close("difference", &difference, &margins.collect::<Vec<_>>(), platform.rounding(60.0));
        }
    }

    /// A pair without an order: swapping responses and rewards together changes nothing.
    #[test]
    fn rpo_needs_no_order(p in pairs(-30.0..30.0)) {
        let settings = RpoSettings { beta: 0.25, pessimism: 0.5, ..Default::default() };
        let mut swapped = p.swapped();
        swapped.rewards.iter_mut().for_each(|sides| sides.reverse());
        for platform in all() {
            let (there, ..) = p.run(&platform, |h| rpo(h, &p.rewards(&platform, 2), &settings).losses);
            let (back, ..) = swapped.run(&platform, |h| rpo(h, &swapped.rewards(&platform, 2), &settings).losses);
            platform.assert_close("losses", &back, &there, platform.rounding(900.0));
        }
    }
}

/// Log-ratios of ±1e4 and mean log-probs of −1e-7 and 0, each against each; responses of one token.
pub fn assert_finite_at_extremes(objective: &Objective, values: &[f64]) {
    let n = values.len() * values.len();
    let rewards = |value: f64| vec![value; n];
    let p = Pairs {
        chosen: values.iter().flat_map(|&value| vec![value; values.len()]).collect(),
        rejected: values.repeat(values.len()),
        chosen_tokens: vec![1.0; n],
        rejected_tokens: vec![1.0; n],
        rewards: [[rewards(50.0), rewards(-50.0)], [rewards(0.0), rewards(0.0)]],
    };
    for platform in all() {
        let (losses, chosen, rejected) = p.run(&platform, |pair| (objective.tensor)(&platform, &p, pair));
        for values in [&losses, &chosen, &rejected] {
            assert!(values.iter().all(|v| v.is_finite()), "{} on {platform:?}: {values:?}", objective.name);
        }
    }
}

#[test]
fn extremes_stay_finite() {
    on_sums().iter().for_each(|objective| assert_finite_at_extremes(objective, &[1e4, -1e4, 0.0]));
    on_means().iter().for_each(|objective| assert_finite_at_extremes(objective, &[-1e4, -1e-7, 0.0]));
}

#[test]
fn the_logged_rewards_carry_no_graph_and_follow_trl() {
    for platform in all() {
        let h = || Pair { chosen: platform.leaf(&[4.0]), rejected: platform.leaf(&[-6.0]) };
        let tokens = Pair { chosen: platform.constant(&[2.0]), rejected: platform.constant(&[3.0]) };
        let rewards = |output: PairLoss| {
            assert!(!output.rewards.chosen.is_autodiff() && !output.rewards.rejected.is_autodiff());
            [host(&output.rewards.chosen)[0], host(&output.rewards.rejected)[0]]
        };
        let half = 0.5;
        assert_eq!(rewards(dpo(h(), &DpoSettings { beta: half, label_smoothing: 0.0 })), [2.0, -3.0]);
        // Not normalised, though the loss is.
        assert_eq!(
            rewards(ipo(h(), tokens, &IpoSettings { beta: half, normalize: IpoNormalize::Tokens })),
            [2.0, -3.0]
        );
        assert_eq!(rewards(cal_dpo(h(), &CalDpoSettings { beta: half, calibration_weight: 1.0 })), [2.0, -3.0]);
        assert_eq!(rewards(simpo(h(), &SimpoSettings { beta: half, gamma_beta_ratio: 0.5 })), [2.0, -3.0]);
        assert_eq!(rewards(slic_hf(h(), &SlicHfSettings::default())), [4.0, -6.0]);
        let model = Pair { chosen: platform.constant(&[1.0]), rejected: platform.constant(&[0.0]) };
        assert_eq!(
            rewards(rpo(h(), &[model], &RpoSettings { beta: half, pessimism: 0.0, ..Default::default() })),
            [2.0, -3.0]
        );
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    assert!(IpoSettings { beta: 0.0, ..Default::default() }.validate().is_err());
    assert!(SimpoSettings { gamma_beta_ratio: f64::NAN, ..Default::default() }.validate().is_err());
    assert!(OrpoSettings { lambda: -0.1, ..Default::default() }.validate().is_err());
    assert!(RpoSettings { pessimism: -1.0, ..Default::default() }.validate().is_err());
    assert!(CalDpoSettings { calibration_weight: f64::INFINITY, ..Default::default() }.validate().is_err());
    assert!(SlicHfSettings { delta: -1.0, ..Default::default() }.validate().is_err());
    let defaults = [
        IpoSettings::default().validate(),
        SimpoSettings::default().validate(),
        OrpoSettings::default().validate(),
        RpoSettings::default().validate(),
        CalDpoSettings::default().validate(),
        SlicHfSettings::default().validate(),
    ];
    assert!(defaults.iter().all(Result::is_ok));
}

#[test]
fn gathered_pairs_add_up_the_gradients_of_a_shared_response() {
    for platform in all() {
        let logps = platform.leaf(&[-1.0, -2.0, -3.0]);
        let pairs = Pair::gather(logps.clone(), &[(0, 1), (0, 2)]);
        let gradients = pairs.margin().sum().backward();
        assert_eq!(gradient(&logps, &gradients), [2.0, -1.0, -1.0], "{platform:?}");
    }
}
