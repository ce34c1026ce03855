//! Properties of the online methods' losses and of the numbers of a round.

use proptest::prelude::*;
use setpoint_align::online::{
    Clip, GrpoLoss, GrpoSettings, Importance, ONLINE_METHODS, OnlineMethod, OnlineObjective, PolicyBatch, PpoSettings,
    ReinforcePpSettings, RlooSettings, Sampled, ValueBatch, clipped_policy, clipped_value,
};
use setpoint_align::{Error, PromptIndex};

use crate::pairwise::config;
use crate::platform::{Platform, all, double, exact, gradient, host};

/// The methods with settings that use all of their terms.
fn objectives() -> Vec<Box<dyn OnlineObjective>> {
    let mut found: Vec<Box<dyn OnlineObjective>> = vec![
        Box::new(PpoSettings { clip_high: Some(0.3), ratio_cap: Some(3.0), ..PpoSettings::default() }),
        Box::new(ReinforcePpSettings::default()),
        Box::new(RlooSettings { clip_high: Some(0.3), ..RlooSettings::default() }),
    ];
    for loss in [GrpoLoss::Dapo, GrpoLoss::Grpo, GrpoLoss::DrGrpo, GrpoLoss::Cispo] {
        for importance in [Importance::Token, Importance::Sequence] {
            let clip_high = if loss == GrpoLoss::Cispo { 1.5 } else { 0.3 };
            let beta = 0.25;
            found.push(Box::new(GrpoSettings {
                loss,
                importance,
                beta,
                clip_high: Some(clip_high),
                ..GrpoSettings::default()
            }));
        }
    }
    found
}

/// One response: its tokens' log-probs under the policy, the one that sampled and the reference, and its advantage.
#[derive(Debug, Clone)]
struct Response {
    logps: Vec<f64>,
    old: Vec<f64>,
    reference: Vec<f64>,
    advantage: f64,
}

fn responses() -> impl Strategy<Value = Vec<Response>> {
    let token = (-4.0..-0.1f64, -0.6..0.6f64, -0.6..0.6f64);
    let response = (prop::collection::vec(token, 1..5), -2.0..2.0f64).prop_map(|(tokens, advantage)| Response {
        logps: tokens.iter().map(|(old, step, _)| exact(old + step)).collect(),
        old: tokens.iter().map(|(old, ..)| exact(*old)).collect(),
        reference: tokens.iter().map(|(old, _, away)| exact(old + away)).collect(),
        advantage: exact(advantage),
    });
    prop::collection::vec(response, 1..5)
}

/// The losses of some responses and their slopes in the tokens' log-probs.
fn run(platform: &Platform, objective: &dyn OnlineObjective, responses: &[Response]) -> (Vec<f64>, Vec<f64>) {
    let all = |of: fn(&Response) -> &Vec<f64>| responses.iter().flat_map(|one| of(one).clone()).collect::<Vec<f64>>();
    let logps = platform.leaf(&all(|one| &one.logps));
    let losses = objective
        .losses(&PolicyBatch {
            logps: logps.clone(),
            old_logps: Some(all(|one| &one.old)),
            ref_logps: objective.reference_in_loss().then(|| all(|one| &one.reference)),
            advantages: responses.iter().flat_map(|one| vec![one.advantage; one.logps.len()]).collect(),
            tokens: responses.iter().map(|one| one.logps.len()).collect(),
            max_new_tokens: 6,
        })
        .losses;
    let gradients = losses.clone().sum().backward();
    (host(&losses), gradient(&logps, &gradients))
}

proptest! {
    #![proptest_config(config())]

    /// A batch may be cut into micro-batches of any size, on any device.
    #[test]
    fn losses_in_parts_are_the_losses(responses in responses()) {
        for objective in objectives() {
            for platform in double() {
                let (whole, slopes) = run(&platform, objective.as_ref(), &responses);
                for size in [1, 2] {
                    let (losses, own): (Vec<_>, Vec<_>) =
                        responses.chunks(size).map(|part| run(&platform, objective.as_ref(), part)).unzip();
                    platform.assert_close("losses", &losses.concat(), &whole, platform.rounding(100.0));
                    platform.assert_close("slopes", &own.concat(), &slopes, platform.rounding(100.0));
                }
            }
        }
    }

    /// The gradient is the slope of the loss, except for CISPO, whose weights have none.
    #[test]
    fn gradients_are_slopes(responses in responses()) {
        let step = 1e-6;
        for objective in objectives() {
            if format!("{objective:?}").contains("Cispo") {
                continue;
            }
            for platform in double() {
                let at = |by: f64| {
                    let mut moved = responses.clone();
                    // Tokens go different ways, or a whole response would have no slope where its tokens share a ratio.
                    let tokens = moved.iter_mut().flat_map(|one| &mut one.logps).enumerate();
                    tokens.for_each(|(t, logp)| *logp += by * direction(t));
                    let (losses, slopes) = run(&platform, objective.as_ref(), &moved);
                    (losses.iter().sum::<f64>(), slopes)
                };
                let (above, below) = (at(step), at(-step));
                let found = (above.0 - below.0) / (2.0 * step);
                let (_, slopes) = at(0.0);
                let expected: f64 = slopes.iter().enumerate().map(|(t, slope)| slope * direction(t)).sum();
                // At a kink a slope jumps, and the difference quotient lies between both sides.
                let jump: f64 = above.1.iter().zip(&below.1).map(|(a, b)| (a - b).abs()).sum();
                prop_assert!((found - expected).abs() <= 1e-7 + jump, "{objective:?}: {found}, {expected}");
            }
        }
    }
}

fn direction(token: usize) -> f64 {
    [1.0, -0.5, 0.25, 0.75][token % 4]
}

/// The slopes of the clipped loss, by ratio and sign of the advantage.
#[test]
fn clipping_stops_the_gradient_on_the_right_side_only() {
    let clip = Clip { low: 0.2, high: 0.3, cap: Some(2.0) };
    // Ratio, advantage, slope in the log-ratio.
    let cases = [
        [0.5, 1.0, -0.5],
        [0.5, -1.0, 0.0],
        [0.9, 1.0, -0.9],
        [0.9, -1.0, 0.9],
        [1.0, 2.0, -2.0],
        [1.5, 1.0, 0.0],
        [1.5, -1.0, 1.5],
        [2.5, 1.0, 0.0],
        [2.5, -1.0, 0.0],
    ];
    let log_ratios = cases.map(|[ratio, ..]: [f64; 3]| ratio.ln());
    let (advantages, expected) = (cases.map(|[_, advantage, _]| advantage), cases.map(|[.., slope]| slope));
    for platform in all() {
        let leaf = platform.leaf(&log_ratios);
        let found = clipped_policy(leaf.clone(), platform.constant(&advantages), &clip);
        let slopes = gradient(&leaf, &found.losses.sum().backward());
        platform.assert_close("slopes", &slopes, &expected, platform.rounding(3.0));
    }
}

#[test]
fn extreme_log_ratios_stay_finite() {
    let extreme = |logp: f64, old: f64, reference: f64, advantage: f64| Response {
        logps: vec![logp, -1.0],
        old: vec![old, -1.0],
        reference: vec![reference, -1.0],
        advantage,
    };
    let responses = [
        extreme(-1e4, -0.1, -0.1, 3.0),
        extreme(-0.1, -1e4, -0.1, -3.0),
        extreme(-0.1, -1e4, -1e4, 3.0),
        extreme(-1e4, -1e4, -0.1, -3.0),
    ];
    for objective in objectives() {
        for platform in all() {
            let (losses, slopes) = run(&platform, objective.as_ref(), &responses);
            assert!(
                losses.iter().chain(&slopes).all(|value| value.is_finite()),
                "{objective:?} on {platform:?}: {losses:?}"
            );
        }
    }
}

/// On the policy's own samples the gradient is REINFORCE's, `−A` times the weight of the token.
#[test]
fn the_first_pass_is_reinforce() {
    for about in ONLINE_METHODS {
        let objective = OnlineMethod::named(about.name).unwrap().objective();
        for platform in all() {
            let logps = platform.leaf(&[-1.0, -2.0, -0.5]);
            let output = objective.losses(&PolicyBatch {
                logps: logps.clone(),
                old_logps: None,
                ref_logps: None,
                advantages: vec![0.75, 0.75, -1.5],
                tokens: vec![2, 1],
                max_new_tokens: 4,
            });
            let slopes = gradient(&logps, &output.losses.sum().backward());
            platform.assert_close(about.name, &slopes, &[-0.75, -0.75, 1.5], platform.rounding(2.0));
        }
    }
}

#[test]
fn values_are_clipped_where_they_have_moved_far_enough() {
    // Old values 0, width 1, targets 2: moving up lowers the loss until 1, moving down is not held back.
    for platform in all() {
        let values = platform.leaf(&[0.5, 1.5, -1.5]);
        let batch =
            ValueBatch { values: values.clone(), old_values: vec![0.0; 3], returns: vec![2.0; 3], slots: vec![1, 2] };
        let output = clipped_value(&batch, 1.0);
        platform.assert_close("losses", &host(&output.losses), &[1.125, 0.5 + 6.125], platform.rounding(10.0));
        assert!((output.metrics.read().get("val/clipfrac_avg").unwrap() - 1.0 / 3.0).abs() < 1e-12);
        let slopes = gradient(&values, &output.losses.sum().backward());
        platform.assert_close("slopes", &slopes, &[-1.5, 0.0, -3.5], platform.rounding(10.0));
    }
}

fn sampled<'a>(reward: f64, stopped: bool, old: &'a [f64], reference: &'a [f64], values: &'a [f64]) -> Sampled<'a> {
    Sampled { reward, stopped, old_logps: old, ref_logps: reference, values }
}

/// With values of 0, λ = γ = 1 and no KL divergence, PPO's advantages are the whitened rewards: REINFORCE.
#[test]
fn ppo_without_values_is_reinforce() {
    let (old, zeros) = ([-1.0, -2.0], [0.0, 0.0]);
    let prompts = PromptIndex::from_counts(&[1, 1]).unwrap();
    let settings = PpoSettings { kl_coef: 0.0, lambda: 1.0, ..PpoSettings::default() };
    let round = [sampled(3.0, true, &old, &[], &zeros), sampled(1.0, true, &old[..1], &[], &zeros[..1])];
    let found = settings.prepare(&round, &prompts, &settings.start()).unwrap();
    // Rewards 3, 3 and 1: mean 7/3, variance 4/3.
    let scale = (4.0f64 / 3.0 + 1e-8).sqrt();
    let expected = [2.0 / 3.0 / scale, 2.0 / 3.0 / scale, -4.0 / 3.0 / scale];
    assert!(found.advantages.concat().iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
    assert_eq!(found.returns, [vec![3.0, 3.0], vec![1.0]]);
    assert_eq!(found.weights, [2.0, 1.0]);
    // REINFORCE++ has no values to begin with.
    let plain = ReinforcePpSettings { kl_coef: 0.0, ..ReinforcePpSettings::default() };
    let without = [sampled(3.0, true, &old, &[], &[]), sampled(1.0, true, &old[..1], &[], &[])];
    assert_eq!(plain.prepare(&without, &prompts, &plain.start()).unwrap().advantages, found.advantages);
}

/// The slot behind the end: the reward reaches the stop token times λ.
#[test]
fn the_reward_may_be_behind_the_end() {
    use setpoint_align::online::RewardAt;
    let (old, reference) = ([-1.0, -1.0], [-1.0, -1.0]);
    let prompts = PromptIndex::from_counts(&[1, 1]).unwrap();
    let settings = |reward_at| PpoSettings { reward_at, lambda: 0.5, ..PpoSettings::default() };
    let inside = settings(RewardAt::LastToken);
    let round = [sampled(8.0, true, &old, &reference, &[0.0; 2]), sampled(0.0, true, &old, &reference, &[0.0; 2])];
    assert_eq!(inside.prepare(&round, &prompts, &inside.start()).unwrap().returns[0], [4.0, 8.0]);
    let behind = settings(RewardAt::AfterEnd);
    let round = [sampled(8.0, true, &old, &reference, &[0.0; 3]), sampled(0.0, true, &old, &reference, &[0.0; 2])];
    let found = behind.prepare(&round, &prompts, &behind.start()).unwrap();
    assert_eq!(found.returns[0], [2.0, 4.0, 8.0]);
    assert_eq!(found.advantages[0].len(), 2);
}

#[test]
fn responses_without_a_reward_take_no_part() {
    let (old, values) = ([-1.0], [0.5]);
    let prompts = PromptIndex::from_counts(&[3, 2]).unwrap();
    let rewards = [1.0, f64::NAN, 3.0, 2.0, f64::NAN];
    for about in ONLINE_METHODS {
        let objective = OnlineMethod::named(about.name).unwrap().objective();
        let values: &[f64] = if objective.has_value() { &values } else { &[] };
        let round: Vec<_> = rewards.iter().map(|&reward| sampled(reward, true, &old, &old, values)).collect();
        let found = objective.prepare(&round, &prompts, &objective.start()).unwrap();
        assert_eq!(found.weights, [1.0, 0.0, 1.0, 1.0, 0.0], "{}", about.name);
        assert_eq!((found.advantages[1][0], found.advantages[4][0]), (0.0, 0.0), "{}", about.name);
        // The others are as if the two had not been sampled.
        let rest: Vec<_> = round.iter().copied().filter(|one| !one.reward.is_nan()).collect();
        let alone = objective.prepare(&rest, &PromptIndex::from_counts(&[2, 1]).unwrap(), &objective.start()).unwrap();
        let kept: Vec<f64> = [0, 2, 3].iter().map(|&i| found.advantages[i][0]).collect();
        assert_eq!(kept, alone.advantages.concat(), "{}", about.name);
        assert_eq!(found.metrics, alone.metrics, "{}", about.name);

        let none: Vec<_> = [f64::NAN; 5].map(|reward| sampled(reward, true, &old, &old, values)).into();
        let error = objective.prepare(&none, &prompts, &objective.start()).unwrap_err();
        assert_eq!(error, Error::NoRewards { responses: 5 });
        assert!(error.to_string().starts_with("none of the 5 responses of the round has a reward"), "{error}");
    }
}

#[test]
fn numbers_that_are_not_finite_are_named() {
    let (old, bad) = ([-1.0, -2.0], [-1.0, f64::NEG_INFINITY]);
    let prompts = PromptIndex::from_counts(&[1, 2]).unwrap();
    let settings = RlooSettings::default();
    let good = sampled(1.0, true, &old, &old, &[]);
    for (response, part) in [
        (sampled(1.0, true, &bad, &old, &[]), "log-probability under the policy is -inf"),
        (sampled(1.0, true, &old, &bad, &[]), "log-probability under the reference is -inf"),
        (sampled(f64::INFINITY, true, &old, &old, &[]), "reward is inf"),
    ] {
        let error = settings.prepare(&[good, good, response], &prompts, &settings.start()).unwrap_err().to_string();
        let expected = format!("prompt 1 of the round, response 1: the {part}, expected a finite number");
        assert_eq!(error, expected);
    }
}

#[test]
fn cut_responses_are_punished_or_left_out() {
    let old = [-1.0];
    let prompts = PromptIndex::from_counts(&[3]).unwrap();
    let round: Vec<_> = [true, true, false].map(|stopped| sampled(1.0, stopped, &old, &old, &[])).into();
    let punished = GrpoSettings { missing_stop_penalty: 3.0, ..GrpoSettings::default() };
    let found = punished.prepare(&round, &prompts, &punished.start()).unwrap();
    assert!(found.advantages[2][0] < -1.0 && found.advantages[0][0] > 0.5, "{found:?}");
    let masked = GrpoSettings { mask_truncated: true, ..punished };
    let found = masked.prepare(&round, &prompts, &masked.start()).unwrap();
    assert_eq!(found.weights, [1.0, 1.0, 0.0]);
    assert!(found.advantages[0][0] > 0.5, "its reward still counts for the others");
}

#[test]
fn the_state_of_a_round_goes_to_the_next() {
    let (old, reference) = ([-1.0, -1.0], [-4.0, -4.0]);
    let prompts = PromptIndex::from_counts(&[1, 1]).unwrap();
    let settings =
        PpoSettings { kl_target: Some(3.0), kl_horizon: 10.0, reward_normalization: true, ..PpoSettings::default() };
    let values = [0.0, 0.0];
    let round = [sampled(1.0, true, &old, &reference, &values), sampled(3.0, true, &old, &reference, &values)];
    let first = settings.prepare(&round, &prompts, &settings.start()).unwrap();
    // 6 nats are twice the target: the coefficient grows by a fifth · 2/10.
    assert_eq!(first.metrics["objective/kl"], 6.0);
    assert!((first.next.kl_coef - 0.05 * 1.04).abs() < 1e-12, "{:?}", first.next);
    let text = serde_json::to_string(&first.next).unwrap();
    let state = serde_json::from_str(&text).unwrap();
    assert_eq!(first.next, state);
    let second = settings.prepare(&round, &prompts, &state).unwrap();
    assert_eq!(second.metrics["kl_coef"], first.next.kl_coef);
    assert_eq!(second.next.rewards.unwrap().count, 4.0);
}
