//! trl's further pairwise losses and those of other papers: definitions, symmetries, extremes.

use proptest::prelude::*;
use setpoint_align::{
    AotSettings, ApoSettings, BcoPairSettings, DiscopopSettings, DpoShiftSettings, DpopSettings, ExoPairSettings,
    HingeSettings, LinearShift, NcaPairSettings, NemotronSettings, Pair, RobustSettings, RpoSettings, Settings, Shift,
    SigmoidNormSettings, SppoHardSettings, aot, aot_unpaired, apo_down, apo_zero, bco_pair, discopop, dpo_shift, dpop,
    exo_pair, hinge, match_by_rank, mixed, nca_pair, robust, rpo, rpo_bwd_kl, rpo_fwd_kl, rpo_sq, sigmoid_norm,
    sppo_hard, token_mean_nll,
};

use crate::pairwise::{
    Objective, Pairs, assert_finite_at_extremes, check, config, losses, ls, on_means, on_sums, pairs,
};
use crate::platform::{Platform, all, all_for, gradient, host, largest};

fn sigma(x: f64) -> f64 {
    ls(x).exp()
}

fn margin(p: &Pairs, i: usize) -> f64 {
    p.chosen[i] - p.rejected[i]
}

fn first_model(p: &Pairs, platform: &Platform) -> Pair {
    p.rewards(platform, 1).swap_remove(0)
}

/// `KL(Bern(σ(p)) ‖ Bern(σ(q)))` by its definition.
fn bernoulli_kl(p: f64, q: f64) -> f64 {
    sigma(p) * (ls(p) - ls(q)) + sigma(-p) * (ls(-p) - ls(-q))
}

const NEMOTRON: NemotronSettings = NemotronSettings { beta: 0.25, reward_scale: 0.5 };

/// Losses that hang on `h_w − h_l` alone.
fn on_margins() -> Vec<Objective> {
    vec![
        Objective {
            name: "robust",
            tensor: |_, _, h| losses(robust(h, &RobustSettings { beta: 0.25, label_smoothing: 0.125 })),
            formula: |p, i| {
                let x = 0.25 * margin(p, i);
                (-0.875 * ls(x) + 0.125 * ls(-x)) / 0.75
            },
        },
        Objective {
            name: "hinge",
            tensor: |_, _, h| losses(hinge(h, &HingeSettings { beta: 0.25 })),
            formula: |p, i| (1.0 - 0.25 * margin(p, i)).max(0.0),
        },
        Objective {
            name: "exo_pair",
            tensor: |_, _, h| losses(exo_pair(h, &ExoPairSettings { beta: 0.25, label_smoothing: 0.125 })),
            formula: |p, i| {
                let x = 0.25 * margin(p, i);
                sigma(x) * (ls(x) - 0.875f64.ln()) + sigma(-x) * (ls(-x) - 0.125f64.ln())
            },
        },
        Objective {
            name: "discopop",
            tensor: |_, _, h| losses(discopop(h, &DiscopopSettings { beta: 0.25, tau: 0.5 })),
            formula: |p, i| {
                let x = 0.25 * margin(p, i);
                -(1.0 - sigma(x / 0.5)) * ls(x) + sigma(x / 0.5) * (-x).exp()
            },
        },
        Objective {
            name: "rpo_sq",
            tensor: |platform, p, h| losses(rpo_sq(h, first_model(p, platform), &NEMOTRON)),
            formula: |p, i| {
                let [r, _] = &p.rewards;
                (0.25 * margin(p, i) - 0.5 * (r[0][i] - r[1][i])).powi(2)
            },
        },
        Objective {
            name: "rpo_bwd_kl",
            tensor: |platform, p, h| losses(rpo_bwd_kl(h, first_model(p, platform), &NEMOTRON)),
            formula: |p, i| {
                let [r, _] = &p.rewards;
                bernoulli_kl(0.5 * (r[0][i] - r[1][i]), 0.25 * margin(p, i))
            },
        },
        Objective {
            name: "rpo_fwd_kl",
            tensor: |platform, p, h| losses(rpo_fwd_kl(h, first_model(p, platform), &NEMOTRON)),
            formula: |p, i| {
                let [r, _] = &p.rewards;
                bernoulli_kl(0.25 * margin(p, i), 0.5 * (r[0][i] - r[1][i]))
            },
        },
    ]
}

/// Losses in which each side counts for itself.
fn on_sides() -> Vec<Objective> {
    vec![
        Objective {
            name: "nca_pair",
            tensor: |_, _, h| losses(nca_pair(h, &NcaPairSettings { beta: 0.25 })),
            formula: |p, i| {
                let (w, l) = (0.25 * p.chosen[i], 0.25 * p.rejected[i]);
                -ls(w) - 0.5 * ls(-w) - 0.5 * ls(-l)
            },
        },
        Objective {
            name: "bco_pair",
            tensor: |_, _, h| losses(bco_pair(h, &BcoPairSettings { beta: 0.25 })),
            formula: |p, i| -ls(0.25 * p.chosen[i]) - ls(-0.25 * p.rejected[i]),
        },
        Objective {
            name: "sppo_hard",
            tensor: |_, _, h| losses(sppo_hard(h, &SppoHardSettings { beta: 0.25 })),
            formula: |p, i| (p.chosen[i] - 2.0).powi(2) + (p.rejected[i] + 2.0).powi(2),
        },
        Objective {
            name: "apo_zero",
            tensor: |_, _, h| losses(apo_zero(h, &ApoSettings { beta: 0.25 })),
            formula: |p, i| 1.0 - sigma(0.25 * p.chosen[i]) + sigma(0.25 * p.rejected[i]),
        },
        Objective {
            name: "apo_down",
            tensor: |_, _, h| losses(apo_down(h, &ApoSettings { beta: 0.25 })),
            formula: |p, i| sigma(0.25 * p.chosen[i]) + 1.0 - sigma(0.25 * margin(p, i)),
        },
        Objective {
            name: "sigmoid_norm",
            tensor: |platform, p, h| losses(sigmoid_norm(h, p.tokens(platform), &SigmoidNormSettings { beta: 2.0 })),
            formula: |p, i| -ls(2.0 * (p.chosen[i] / p.chosen_tokens[i] - p.rejected[i] / p.rejected_tokens[i])),
        },
        Objective {
            name: "dpop",
            tensor: |_, _, h| losses(dpop(h, &DpopSettings { beta: 0.25, lambda: 5.0 })),
            formula: |p, i| -ls(0.25 * (margin(p, i) - 5.0 * (-p.chosen[i]).max(0.0))),
        },
        Objective {
            name: "dpo_shift",
            tensor: |_, _, h| losses(dpo_shift(h, 0.5, &DpoShiftSettings { beta: 0.25, shift: Shift::Fixed(0.75) })),
            formula: |p, i| -ls(0.25 * (p.chosen[i] - 0.75 * p.rejected[i])),
        },
        Objective {
            name: "dpo_shift that increases",
            // A quarter of the way from 0.5 to 0.9.
            tensor: |_, _, h| {
                let shift = Shift::Linear(LinearShift { from: 0.5, to: 0.9 });
                losses(dpo_shift(h, 0.25, &DpoShiftSettings { beta: 0.25, shift }))
            },
            formula: |p, i| -ls(0.25 * (p.chosen[i] - 0.6 * p.rejected[i])),
        },
    ]
}

fn reversed(p: &Pairs) -> Pairs {
    let mut p = p.clone();
    let lists = [&mut p.chosen, &mut p.rejected, &mut p.chosen_tokens, &mut p.rejected_tokens];
    lists.into_iter().chain(p.rewards.iter_mut().flatten()).for_each(|list| list.reverse());
    p
}

/// Pairs do not see each other: in another order they have the same losses and gradients, bit for bit.
fn unordered(objective: &Objective, p: &Pairs) {
    let other = reversed(p);
    for platform in all() {
        let (there, chosen, rejected) = p.run(&platform, |pair| (objective.tensor)(&platform, p, pair));
        let (mut back, mut other_chosen, mut other_rejected) =
            other.run(&platform, |pair| (objective.tensor)(&platform, &other, pair));
        [&mut back, &mut other_chosen, &mut other_rejected].into_iter().for_each(|values| values.reverse());
        assert_eq!((there, chosen, rejected), (back, other_chosen, other_rejected), "{}", objective.name);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn losses_equal_formula_and_finite_differences(p in pairs(-30.0..30.0)) {
        on_margins().iter().chain(&on_sides()).for_each(|objective| check(objective, &p, 1.0));
    }

    #[test]
    fn pairs_in_another_order_have_the_same_losses(sums in pairs(-30.0..30.0), means in pairs(-4.0..-0.05)) {
        on_margins().iter().chain(&on_sides()).chain(&on_sums()).for_each(|objective| unordered(objective, &sums));
        on_means().iter().for_each(|objective| unordered(objective, &means));
    }

    /// Adding the same number to both log-ratios changes nothing where only their difference counts, and something elsewhere.
    #[test]
    fn shifts_count_where_sides_count(p in pairs(-30.0..30.0), shift in (1i32..8).prop_map(f64::from)) {
        let mut shifted = p.clone();
        [&mut shifted.chosen, &mut shifted.rejected].into_iter().flatten().for_each(|h| *h += shift);
        for platform in all_for(4) {
            for objective in on_margins() {
                let (before, chosen, rejected) = p.run(&platform, |pair| (objective.tensor)(&platform, &p, pair));
                let (after, ..) = shifted.run(&platform, |pair| (objective.tensor)(&platform, &shifted, pair));
                let size = 100.0 + largest(&before);
                platform.assert_close(objective.name, &after, &before, platform.rounding(size));
                for (chosen, rejected) in chosen.iter().zip(&rejected) {
                    prop_assert!((chosen + rejected).abs() <= platform.rounding(chosen.abs()), "{}", objective.name);
                }
            }
            let (before, ..) = p.run(&platform, |h| losses(dpo_shift(h, 0.0, &DpoShiftSettings::default())));
            let (after, ..) = shifted.run(&platform, |h| losses(dpo_shift(h, 0.0, &DpoShiftSettings::default())));
            prop_assert!(before.iter().zip(&after).all(|(before, after)| after < before), "a shift up by 0.05 of it");
        }
    }

    /// With the sides swapped: −ls(x) + ls(−x) = −x, and σ(x) + σ(−x) = 1.
    #[test]
    fn swapped_sides(p in pairs(-30.0..30.0)) {
        let swapped = p.swapped();
        let differ = |objective: &Objective, platform: &Platform, sign: f64| -> Vec<f64> {
            let (there, ..) = p.run(platform, |pair| (objective.tensor)(platform, &p, pair));
            let (back, ..) = swapped.run(platform, |pair| (objective.tensor)(platform, &swapped, pair));
            there.iter().zip(&back).map(|(a, b)| a + sign * b).collect()
        };
        let (margins, sides) = (on_margins(), on_sides());
        let named = |name: &str| margins.iter().chain(&sides).find(|o| o.name == name).unwrap();
        let b = p.chosen.len();
        let all_margins: Vec<f64> = (0..b).map(|i| -0.25 * margin(&p, i)).collect();
        for platform in all_for(6) {
            let rounding = platform.rounding(60.0);
            platform.assert_close("robust", &differ(named("robust"), &platform, -1.0),
                &all_margins.iter().map(|x| x / 0.75).collect::<Vec<_>>(), rounding);
            platform.assert_close("bco_pair", &differ(named("bco_pair"), &platform, -1.0), &all_margins, rounding);
            platform.assert_close("apo_zero", &differ(named("apo_zero"), &platform, 1.0), &vec![2.0; b], rounding);
        }
    }

    /// One reward model: Nemotron's square is Fisch et al.'s.
    #[test]
    fn rpo_sq_is_rpo(p in pairs(-30.0..30.0)) {
        for platform in all() {
            let settings = NemotronSettings { beta: 0.25, reward_scale: 1.0 };
            let (nemotron, ..) = p.run(&platform, |h| losses(rpo_sq(h, first_model(&p, &platform), &settings)));
            let (fisch, ..) =
                p.run(&platform, |h| losses(rpo(h, &p.rewards(&platform, 1), &RpoSettings { beta: 0.25, pessimism: 0.0, ..Default::default() })));
            prop_assert_eq!(nemotron, fisch);
        }
    }

    /// AOT by its definition on sorted values, loss and gradient.
    #[test]
    fn aot_sorts_the_whole_batch(p in pairs(-30.0..30.0)) {
        let settings = AotSettings { beta: 0.25, label_smoothing: 0.125 };
        let b = p.chosen.len();
        let sorted = |values: &[f64]| {
            let mut values = values.to_vec();
            values.sort_by(f64::total_cmp);
            values
        };
        let smoothed = |x: f64| -0.875 * ls(0.25 * x) - 0.125 * ls(-0.25 * x);
        let mean = |a: &[f64], b: &[f64]| {
            let each = sorted(a).into_iter().zip(sorted(b)).map(|(a, b)| smoothed(a - b));
            each.sum::<f64>() / a.len() as f64
        };
        // The rewards stand in for the reference.
        let reference = &p.rewards[0];
        let margins: Vec<f64> = (0..b).map(|i| margin(&p, i)).collect();
        let ref_margins: Vec<f64> = (0..b).map(|i| reference[0][i] - reference[1][i]).collect();
        let matched = match_by_rank(&margins, &ref_margins);
        let (down, up) = (match_by_rank(&p.chosen, &p.rejected), match_by_rank(&p.rejected, &p.chosen));
        for platform in all() {
            let (paired, ..) = p.run(&platform, |logps| {
                losses(aot(logps, first_model(&p, &platform), platform.constant(&matched), &settings))
            });
            let (unpaired, chosen, rejected) = p.run(&platform, |h| {
                let matched = Pair { chosen: platform.constant(&down), rejected: platform.constant(&up) };
                losses(aot_unpaired(h, matched, &settings))
            });
            let average = |losses: &[f64]| losses.iter().sum::<f64>() / b as f64;
            let rounding = platform.rounding(60.0);
            platform.assert_close("aot", &[average(&paired)], &[mean(&margins, &ref_margins)], rounding);
            platform.assert_close("aot_unpaired", &[average(&unpaired)], &[mean(&p.chosen, &p.rejected)], rounding);
            // Every rank pulls its two responses apart with the same force.
            let total: f64 = chosen.iter().chain(&rejected).sum();
            prop_assert!(total.abs() <= rounding, "{total}");
            let slope = |x: f64| 0.25 * (-0.875 * sigma(-0.25 * x) + 0.125 * sigma(0.25 * x));
            let expected: Vec<f64> = (0..b).map(|i| slope(p.chosen[i] - down[i])).collect();
            platform.assert_close("aot_unpaired, chosen", &chosen, &expected, rounding);
        }
    }
}

#[test]
fn extremes_stay_finite() {
    on_margins().iter().chain(&on_sides()).for_each(|o| assert_finite_at_extremes(o, &[1e4, -1e4, 0.0]));
    let paired = Objective {
        name: "aot",
        tensor: |platform, p, logps| {
            let n = p.chosen.len();
            let ref_margins: Vec<f64> = (0..n).map(|i| if i % 2 == 0 { 1e4 } else { -1e4 }).collect();
            let reference = Pair { chosen: platform.constant(&p.rejected), rejected: platform.constant(&p.chosen) };
            losses(aot(logps, reference, platform.constant(&ref_margins), &AotSettings::default()))
        },
        formula: |_, _| 0.0,
    };
    assert_finite_at_extremes(&paired, &[1e4, -1e4, 0.0]);
    let unpaired = Objective {
        name: "aot_unpaired",
        tensor: |_, _, h| {
            let matched = Pair { chosen: h.rejected.clone().inner(), rejected: h.chosen.clone().inner() };
            losses(aot_unpaired(h, matched, &AotSettings::default()))
        },
        formula: |_, _| 0.0,
    };
    assert_finite_at_extremes(&unpaired, &[1e4, -1e4, 0.0]);
    // The temperatures at the ends of their range.
    for tau in [1e-3, 1.0] {
        for platform in all() {
            let h = Pair { chosen: platform.leaf(&[1e4, -1e4]), rejected: platform.leaf(&[-1e4, 1e4]) };
            let output = discopop(h.clone(), &DiscopopSettings { beta: 1.0, tau });
            let slopes = gradient(&h.chosen, &output.losses.clone().sum().backward());
            assert!(host(&output.losses).iter().chain(&slopes).all(|v| v.is_finite()), "{tau} on {platform:?}");
        }
    }
}

/// `h_w = ln 2/β` is where NCA leaves a chosen response alone.
#[test]
fn nca_has_a_target_for_the_chosen() {
    let settings = NcaPairSettings { beta: 0.5 };
    for platform in all() {
        let h = Pair { chosen: platform.leaf(&[2f64.ln() / 0.5]), rejected: platform.constant(&[0.0]) };
        let gradients = nca_pair(h.clone(), &settings).losses.backward();
        platform.assert_close("slope", &gradient(&h.chosen, &gradients), &[0.0], platform.rounding(1.0));
    }
}

/// The likelihood term is the mean over the batch's tokens, however the batch is cut, and losses add up with their weights.
#[test]
fn likelihood_and_mixtures() {
    let (logps, tokens) = ([-3.0, -40.0, -0.5, -7.0], [2.0, 30.0, 1.0, 4.0]);
    let total = tokens.iter().sum::<f64>();
    let expected = 50.5 / total;
    for platform in all() {
        for size in [1, 2, 4] {
            let found: f64 = logps
                .chunks(size)
                .map(|part| host(&token_mean_nll(platform.constant(part), 4.0, total)).iter().sum::<f64>() / 4.0)
                .sum();
            platform.assert_close("nll", &[found], &[expected], platform.rounding(expected));
        }
        let (a, b) = (platform.leaf(&[1.0, 2.0]), platform.leaf(&[3.0, 5.0]));
        let both = mixed([(1.0, a.clone()), (0.25, b.clone())]);
        assert_eq!(host(&both), [1.75, 3.25]);
        let gradients = both.sum().backward();
        assert_eq!((gradient(&a, &gradients), gradient(&b, &gradients)), (vec![1.0; 2], vec![0.25; 2]));
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    assert!(RobustSettings { label_smoothing: 0.5, ..Default::default() }.validate().is_err());
    assert!(HingeSettings { beta: -1.0 }.validate().is_err());
    assert!(ExoPairSettings { label_smoothing: 0.0, ..Default::default() }.validate().is_err());
    assert!(NcaPairSettings { beta: f64::NAN }.validate().is_err());
    assert!(BcoPairSettings { beta: 0.0 }.validate().is_err());
    assert!(SppoHardSettings { beta: 0.0 }.validate().is_err());
    assert!(ApoSettings { beta: 0.0 }.validate().is_err());
    assert!(DiscopopSettings { tau: 1.5, ..Default::default() }.validate().is_err());
    assert!(SigmoidNormSettings { beta: 0.0 }.validate().is_err());
    assert!(AotSettings { label_smoothing: -0.1, ..Default::default() }.validate().is_err());
    assert!(DpopSettings { lambda: -1.0, ..Default::default() }.validate().is_err());
    assert!(DpoShiftSettings { shift: Shift::Fixed(0.0), ..Default::default() }.validate().is_err());
    let ends =
        |from, to| DpoShiftSettings { shift: Shift::Linear(LinearShift { from, to }), ..Default::default() }.validate();
    assert!(ends(0.5, 1.0).is_ok() && ends(1.0, 0.5).is_ok());
    assert!(ends(0.0, 1.0).unwrap_err().to_string().contains("shift.from"));
    assert!(ends(1.0, 1.1).unwrap_err().to_string().contains("shift.to"));
    assert!(NemotronSettings { reward_scale: f64::INFINITY, ..Default::default() }.validate().is_err());
    let defaults = [
        RobustSettings::default().validate(),
        HingeSettings::default().validate(),
        ExoPairSettings::default().validate(),
        NcaPairSettings::default().validate(),
        BcoPairSettings::default().validate(),
        SppoHardSettings::default().validate(),
        ApoSettings::default().validate(),
        DiscopopSettings::default().validate(),
        SigmoidNormSettings::default().validate(),
        AotSettings::default().validate(),
        DpopSettings::default().validate(),
        DpoShiftSettings::default().validate(),
        NemotronSettings::default().validate(),
    ];
    assert!(defaults.iter().all(Result::is_ok));
}
