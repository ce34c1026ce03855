//! Online methods against trl's own code in f64 (`tests/golden/make_online.py`, `make_online_ppo.py`).

use std::collections::BTreeMap;

use serde::Deserialize;
use setpoint_align::online::{
    GrpoSettings, KlEstimator, OnlineObjective, PolicyBatch, PpoSettings, RewardAt, RlooSettings, Sampled,
    ScaleRewards, ValueBatch, clipped_value, gae, group_relative, leave_one_out, normalize, whiten,
};
use setpoint_align::{PromptIndex, weighted_sum};

use crate::goldens::read;
use crate::platform::{Platform, double, gradient, host, largest, single};

#[derive(Deserialize)]
struct PolicyGolden {
    max_new_tokens: usize,
    tokens: Vec<usize>,
    /// One per response.
    advantages: Vec<f64>,
    logps: Vec<f64>,
    old: Vec<f64>,
    #[serde(rename = "ref")]
    reference: Vec<f64>,
    weights: Vec<f64>,
    grpo: Vec<PolicyCase<GrpoSettings>>,
    rloo: Vec<PolicyCase<RlooSettings>>,
}

#[derive(Deserialize)]
struct PolicyCase<S> {
    settings: S,
    /// True if the loss of each token is weighted because another program sampled.
    #[serde(default)]
    weighted: bool,
    /// True if the policy itself sampled.
    #[serde(default)]
    on_policy: bool,
    loss: f64,
    gradient: Vec<f64>,
    metrics: BTreeMap<String, f64>,
}

impl PolicyGolden {
    /// Computes a case on a platform and compares it.
    fn check<S: OnlineObjective>(&self, name: &str, platform: &Platform, case: &PolicyCase<S>) {
        let objective = &case.settings;
        let spread = self.tokens.iter().zip(&self.advantages).flat_map(|(&count, &a)| std::iter::repeat_n(a, count));
        let weights = self.weights.iter().map(|&weight| if case.weighted { weight } else { 1.0 });
        let logps = platform.leaf(&self.logps);
        let output = objective.losses(&PolicyBatch {
            logps: logps.clone(),
            old_logps: (!case.on_policy).then(|| self.old.clone()),
            ref_logps: objective.reference_in_loss().then(|| self.reference.clone()),
            advantages: spread.zip(weights).map(|(advantage, weight)| advantage * weight).collect(),
            tokens: self.tokens.clone(),
            max_new_tokens: self.max_new_tokens,
        });
        // The weights are those that a round gives out.
        let old: Vec<Vec<f64>> = self.tokens.iter().map(|&count| vec![-1.0; count]).collect();
        let sampled: Vec<Sampled<'_>> = old
            .iter()
            .map(|old| Sampled { reward: 1.0, stopped: true, old_logps: old, ref_logps: old, values: &[] })
            .collect();
        let prompts = PromptIndex::from_counts(&[4, 4]).unwrap();
        let denominator: f64 = objective.prepare(&sampled, &prompts, &objective.start()).unwrap().weights.iter().sum();
        let loss = weighted_sum(output.losses, &vec![1.0 / denominator; self.tokens.len()]);
        let slopes = gradient(&logps, &loss.backward());

        // f32 rounds log-ratios of up to 6 nats, and the ratios in proportion.
        let tolerance = |values: &[f64]| platform.rounding(6.0 * largest(values).max(1.0));
        platform.assert_close(&format!("{name}: loss"), &host(&loss), &[case.loss], tolerance(&[case.loss]));
        let what = format!("{name}: gradient");
        platform.assert_close(&what, &slopes, &case.gradient, tolerance(&case.gradient));
        let logged = output.metrics.read();
        for (metric, &expected) in &case.metrics {
            let extreme = logged.minima.iter().chain(&logged.maxima).find(|(own, _)| own == metric);
            let found = extreme.map(|(_, value)| *value).or_else(|| logged.metrics.get(metric));
            let found = found.unwrap_or_else(|| panic!("{name}: no metric {metric}"));
            platform.assert_close(&format!("{name}: {metric}"), &[found], &[expected], tolerance(&[expected]));
        }
    }
}

#[test]
fn grpo_and_its_variants_equal_trl() {
    let golden: PolicyGolden = read("../online/policy.json");
    assert!(golden.grpo.len() >= 45);
    for (number, case) in golden.grpo.iter().enumerate() {
        for platform in double().into_iter().chain(single()) {
            golden.check(&format!("case {number}, {:?}", case.settings), &platform, case);
        }
    }
}

#[test]
fn rloo_equals_trl() {
    let golden: PolicyGolden = read("../online/policy.json");
    assert!(golden.rloo.len() >= 3);
    for case in &golden.rloo {
        for platform in double().into_iter().chain(single()) {
            golden.check(&format!("{:?}", case.settings), &platform, case);
        }
    }
}

#[derive(Deserialize)]
struct AdvantageGolden {
    rewards: Vec<f64>,
    values: Vec<f64>,
    gae: Vec<GaeCase>,
    whitened: Vec<f64>,
    whitened_with_mean: Vec<f64>,
    counts: Vec<usize>,
    group_rewards: Vec<Option<f64>>,
    group_relative: BTreeMap<String, Vec<f64>>,
    leave_one_out: BTreeMap<String, Vec<f64>>,
}

#[derive(Deserialize)]
struct GaeCase {
    gamma: f64,
    lambda: f64,
    advantages: Vec<f64>,
}

fn assert_near(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{what}[{i}]: found {a}, expected {b}");
    }
}

#[test]
fn advantages_equal_numpy() {
    let golden: AdvantageGolden = read("../online/advantages.json");
    assert_eq!(golden.gae.len(), 16);
    for case in &golden.gae {
        let what = format!("γ = {}, λ = {}", case.gamma, case.lambda);
        let found = gae(&golden.rewards, &golden.values, case.gamma, case.lambda);
        assert_near(&what, &found.advantages, &case.advantages, 1e-12);
    }
    for (shift_mean, expected) in [(true, &golden.whitened), (false, &golden.whitened_with_mean)] {
        let mut values = golden.rewards.clone();
        whiten(&mut values, shift_mean);
        assert_near("whitened", &values, expected, 1e-12);
    }
    let prompts = PromptIndex::from_counts(&golden.counts).unwrap();
    let rewards: Vec<f64> = golden.group_rewards.iter().map(|reward| reward.unwrap_or(f64::NAN)).collect();
    for (name, scale) in [("group", ScaleRewards::Group), ("batch", ScaleRewards::Batch), ("none", ScaleRewards::None)]
    {
        assert_near(name, &group_relative(&rewards, &prompts, scale), &golden.group_relative[name], 1e-12);
    }
    let plain = leave_one_out(&rewards, &prompts);
    assert_near("leave one out", &plain, &golden.leave_one_out["plain"], 1e-12);
    // As the method does it, which also leaves out a prompt's only reward.
    let old = [-1.0];
    let sampled: Vec<Sampled<'_>> = rewards
        .iter()
        .map(|&reward| Sampled { reward, stopped: true, old_logps: &old, ref_logps: &[], values: &[] })
        .collect();
    let settings = RlooSettings { beta: 0.0, normalize_advantages: true, ..RlooSettings::default() };
    let prepared = settings.prepare(&sampled, &prompts, &settings.start()).unwrap();
    assert_near("normalised", &prepared.advantages.concat(), &golden.leave_one_out["normalized"], 1e-12);
    assert_near(
        "normalised",
        &normalize(&[2.0, 4.0]),
        &[-1.0 / (2f64.sqrt() + 1e-4), 1.0 / (2f64.sqrt() + 1e-4)],
        1e-12,
    );
}

#[derive(Deserialize)]
struct PpoGolden {
    max_new_tokens: usize,
    cases: Vec<PpoCase>,
}

#[derive(Deserialize)]
struct PpoCase {
    settings: TrlPpo,
    tokens: Vec<usize>,
    stopped: Vec<bool>,
    scores: Vec<f64>,
    old: Vec<Vec<f64>>,
    #[serde(rename = "ref")]
    reference: Vec<Vec<f64>>,
    values: Vec<Vec<f64>>,
    /// Advantages of all slots before they are whitened: returns minus values.
    unwhitened: Vec<Vec<f64>>,
    advantages: Vec<Vec<f64>>,
    steps: Vec<PpoStep>,
    metrics: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct PpoStep {
    loss: f64,
    logps: Vec<Vec<f64>>,
    values: Vec<Vec<f64>>,
    grad_logps: Vec<Vec<f64>>,
    grad_values: Vec<Vec<f64>>,
}

/// The settings by trl's names; those that are left out have trl's defaults.
#[derive(Deserialize)]
#[serde(default)]
struct TrlPpo {
    kl_coef: f64,
    kl_estimator: KlEstimator,
    gamma: f64,
    lam: f64,
    cliprange: f64,
    cliprange_value: f64,
    vf_coef: f64,
    whiten_rewards: bool,
    missing_eos_penalty: f64,
}

impl Default for TrlPpo {
    fn default() -> Self {
        Self {
            kl_coef: 0.05,
            kl_estimator: KlEstimator::K1,
            gamma: 1.0,
            lam: 0.95,
            cliprange: 0.2,
            cliprange_value: 0.2,
            vf_coef: 0.1,
            whiten_rewards: false,
            missing_eos_penalty: 0.0,
        }
    }
}

impl TrlPpo {
    fn ours(&self) -> PpoSettings {
        PpoSettings {
            kl_coef: self.kl_coef,
            kl_estimator: self.kl_estimator,
            gamma: self.gamma,
            lambda: self.lam,
            clip: self.cliprange,
            value_clip: self.cliprange_value,
            value_weight: self.vf_coef,
            whiten_rewards: self.whiten_rewards,
            missing_stop_penalty: self.missing_eos_penalty,
            reward_at: RewardAt::AfterEnd,
            ..PpoSettings::default()
        }
    }
}

#[test]
fn ppo_equals_trl_on_its_own_samples() {
    let golden: PpoGolden = read("../online/ppo.json");
    assert_eq!(golden.cases.len(), 3);
    for (number, case) in golden.cases.iter().enumerate() {
        let settings = case.settings.ours();
        let n = case.tokens.len();
        let sampled: Vec<Sampled<'_>> = (0..n)
            .map(|i| Sampled {
                reward: case.scores[i],
                stopped: case.stopped[i],
                old_logps: &case.old[i],
                ref_logps: &case.reference[i],
                values: &case.values[i],
            })
            .collect();
        let prompts = PromptIndex::from_counts(&vec![1; n]).unwrap();
        let prepared = settings.prepare(&sampled, &prompts, &settings.start()).unwrap();
        assert_eq!(prepared.weights, case.tokens.iter().map(|&count| count as f64).collect::<Vec<_>>());
        let advantages = prepared.advantages.concat();
        assert_near(&format!("case {number}: advantages"), &advantages, &case.advantages.concat(), 1e-12);
        let differences: Vec<f64> =
            prepared.returns.concat().iter().zip(case.values.concat()).map(|(target, value)| target - value).collect();
        assert_near(&format!("case {number}: returns"), &differences, &case.unwhitened.concat(), 1e-12);

        let slots: Vec<usize> = case.values.iter().map(Vec::len).collect();
        let (all_tokens, all_slots) = (case.tokens.iter().sum::<usize>() as f64, slots.iter().sum::<usize>() as f64);
        let mut averages: BTreeMap<&str, f64> = BTreeMap::new();
        for (at, step) in case.steps.iter().enumerate() {
            for platform in double() {
                let what = |part: &str| format!("case {number}, step {at}: {part}");
                let (logps, values) = (platform.leaf(&step.logps.concat()), platform.leaf(&step.values.concat()));
                let policy = settings.losses(&PolicyBatch {
                    logps: logps.clone(),
                    old_logps: Some(case.old.concat()),
                    ref_logps: None,
                    advantages: advantages.clone(),
                    tokens: case.tokens.clone(),
                    max_new_tokens: golden.max_new_tokens,
                });
                let value = clipped_value(
                    &ValueBatch {
                        values: values.clone(),
                        old_values: case.values.concat(),
                        returns: prepared.returns.concat(),
                        slots: slots.clone(),
                    },
                    settings.value_clip,
                );
                let loss = weighted_sum(policy.losses, &vec![1.0 / all_tokens; n])
                    + weighted_sum(value.losses, &vec![settings.value_weight / all_slots; n]);
                let gradients = loss.backward();
                assert_near(&what("loss"), &host(&loss), &[step.loss], 1e-12);
                assert_near(&what("by log-prob"), &gradient(&logps, &gradients), &step.grad_logps.concat(), 1e-12);
                assert_near(&what("by value"), &gradient(&values, &gradients), &step.grad_values.concat(), 1e-12);
                if platform.name == "flex" {
                    let (policy, value) = (policy.metrics.read().metrics, value.metrics.read());
                    for (metrics, name) in [
                        (&policy, "policy/clipfrac_avg"),
                        (&policy, "loss/policy_avg"),
                        (&value, "loss/value_avg"),
                        (&value, "val/clipfrac_avg"),
                    ] {
                        *averages.entry(name).or_default() += metrics.get(name).unwrap() / case.steps.len() as f64;
                    }
                }
            }
        }
        // trl adds metrics up in f32.
        for (name, &expected) in &case.metrics {
            let found = averages.get(name.as_str()).copied().or_else(|| prepared.metrics.get(name).copied());
            let found = found.unwrap_or_else(|| panic!("no metric {name}"));
            assert_near(name, &[found], &[expected], 1e-6);
        }
    }
}
