//! A bandit with a known optimum: three prompts, responses of one token among three, and a tabular policy.
//!
//! The optimum of reward minus β times the KL divergence is `π* ∝ π_ref·exp(R/β)`; here β = 1.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};
use setpoint_align::online::{
    GrpoLoss, GrpoSettings, OnlineObjective, OnlineState, PolicyBatch, PpoSettings, Prepared, ReinforcePpSettings,
    RlooSettings, Sampled, ScaleRewards, ValueBatch, clipped_value,
};
use setpoint_align::{DroBatch, DroSettings, PromptIndex, PromptTerm, dro, weighted_sum};

use crate::platform::{Platform, double, gradient, host, largest};

const PROMPTS: usize = 3;
const TOKENS: usize = 3;
const REWARDS: [[f64; TOKENS]; PROMPTS] = [[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 1.0, 1.0]];
const REFERENCE: [[f64; TOKENS]; PROMPTS] = [[0.2, 0.3, 0.5], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]];

/// `π*`, prompt after prompt.
fn optimum() -> Vec<f64> {
    let of = |prompt: usize| {
        let weights: Vec<f64> = (0..TOKENS).map(|k| REFERENCE[prompt][k] * REWARDS[prompt][k].exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.into_iter().map(move |weight| weight / total)
    };
    (0..PROMPTS).flat_map(of).collect()
}

fn ref_logps() -> Vec<f64> {
    REFERENCE.concat().into_iter().map(f64::ln).collect()
}

/// `log π` of every prompt's tokens.
fn log_probabilities(logits: Tensor<1>) -> Tensor<1> {
    log_softmax(logits.reshape([PROMPTS, TOKENS]), 1).reshape([PROMPTS * TOKENS])
}

fn probabilities(platform: &Platform, logits: &[f64]) -> Vec<f64> {
    host(&log_probabilities(platform.constant(logits))).into_iter().map(f64::exp).collect()
}

/// A round: which token of which prompt each response is, `3·prompt + token`, and its share of the mean.
struct Round {
    choices: Vec<usize>,
    weights: Vec<f64>,
    prompts: PromptIndex,
}

impl Round {
    /// Every response there is, by its probability: gradients are exact.
    fn exact(probabilities: &[f64]) -> Self {
        let weights = probabilities.iter().map(|probability| probability / PROMPTS as f64).collect();
        let prompts = PromptIndex::from_counts(&[TOKENS; PROMPTS]).unwrap();
        Self { choices: (0..PROMPTS * TOKENS).collect(), weights, prompts }
    }

    /// `n` samples of each prompt.
    fn sampled(probabilities: &[f64], n: usize, random: &mut Random) -> Self {
        let choose = |prompt: usize, random: &mut Random| {
            let own = &probabilities[TOKENS * prompt..TOKENS * (prompt + 1)];
            let at = random.draw();
            TOKENS * prompt + if at < own[0] { 0 } else { 1 + usize::from(at >= own[0] + own[1]) }
        };
        let choices: Vec<usize> = (0..PROMPTS * n).map(|i| choose(i / n, random)).collect();
        let weights = vec![1.0 / (PROMPTS * n) as f64; PROMPTS * n];
        Self { choices, weights, prompts: PromptIndex::from_counts(&[n; PROMPTS]).unwrap() }
    }

    fn prepare(&self, objective: &dyn OnlineObjective, logps: &[f64], values: &[f64], state: &OnlineState) -> Prepared {
        let (reference, rewards) = (ref_logps(), REWARDS.concat());
        let sampled: Vec<Sampled<'_>> = self
            .choices
            .iter()
            .map(|&choice| Sampled {
                reward: rewards[choice],
                stopped: true,
                old_logps: &logps[choice..=choice],
                ref_logps: &reference[choice..=choice],
                values: if objective.has_value() { &values[choice / TOKENS..=choice / TOKENS] } else { &[] },
            })
            .collect();
        objective.prepare(&sampled, &self.prompts, state).unwrap()
    }

    /// The slopes of the objective's loss in the logits.
    fn slopes(
        &self,
        platform: &Platform,
        objective: &dyn OnlineObjective,
        logits: &[f64],
        prepared: &Prepared,
    ) -> Vec<f64> {
        let leaf = platform.leaf(logits);
        let indices: Vec<i64> = self.choices.iter().map(|&choice| choice as i64).collect();
        let indices = Tensor::<1, Int>::from_data(indices.as_slice(), &platform.device);
        let reference = ref_logps();
        let output = objective.losses(&PolicyBatch {
            logps: log_probabilities(leaf.clone()).select(0, indices),
            old_logps: None,
            ref_logps: objective
                .reference_in_loss()
                .then(|| self.choices.iter().map(|&choice| reference[choice]).collect()),
            advantages: prepared.advantages.concat(),
            tokens: vec![1; self.choices.len()],
            max_new_tokens: 1,
        });
        gradient(&leaf, &weighted_sum(output.losses, &self.weights).backward())
    }
}

/// Knuth's linear congruential generator: numbers from 0 to 1.
struct Random(u64);

impl Random {
    fn draw(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Descends the exact gradient for some steps with a falling rate; returns the final probabilities.
fn descend(platform: &Platform, objective: &dyn OnlineObjective, rate: f64, steps: usize) -> Vec<f64> {
    let mut logits = ref_logps();
    for step in 0..steps {
        let now = probabilities(platform, &logits);
        let round = Round::exact(&now);
        let logps: Vec<f64> = now.iter().map(|p| p.ln()).collect();
        // A perfect value network: the mean of reward minus KL divergence under the policy.
        let value = |prompt: usize| -> f64 {
            let own = TOKENS * prompt..TOKENS * (prompt + 1);
            let (reference, rewards) = (ref_logps(), REWARDS.concat());
            own.map(|k| now[k] * (rewards[k] - (logps[k] - reference[k]))).sum()
        };
        let values: Vec<f64> = (0..PROMPTS).map(value).collect();
        let prepared = round.prepare(objective, &logps, &values, &objective.start());
        let slopes = round.slopes(platform, objective, &logits, &prepared);
        let rate = rate * (1.0 - step as f64 / steps as f64);
        logits.iter_mut().zip(slopes).for_each(|(logit, slope)| *logit -= rate * slope);
    }
    probabilities(platform, &logits)
}

fn grpo(kl_correction: bool) -> GrpoSettings {
    GrpoSettings {
        beta: 1.0,
        kl_correction,
        loss: GrpoLoss::DrGrpo,
        scale_rewards: ScaleRewards::None,
        ..GrpoSettings::default()
    }
}

#[test]
fn exact_gradients_lead_to_the_optimum() {
    let expected = optimum();
    for (found, value) in expected.iter().zip([0.7533, 0.1529, 0.0938]) {
        assert!((found - value).abs() < 1e-4, "{expected:?}");
    }
    let objectives: [(Box<dyn OnlineObjective>, f64); 4] = [
        (Box::new(RlooSettings { beta: 1.0, ..RlooSettings::default() }), 2.0),
        (Box::new(PpoSettings { kl_coef: 1.0, ..PpoSettings::default() }), 1.0),
        (Box::new(ReinforcePpSettings { kl_coef: 1.0, ..ReinforcePpSettings::default() }), 2.0),
        (Box::new(grpo(true)), 2.0),
    ];
    for platform in double() {
        for (objective, rate) in &objectives {
            let found = descend(&platform, objective.as_ref(), *rate, 600);
            platform.assert_close(&format!("{objective:?}"), &found, &expected, 1e-3);
        }
    }
}

/// The gradient of the plain estimate k3 is that of the KL divergence the other way round, and its optimum is another.
#[test]
fn grpo_without_the_correction_goes_elsewhere() {
    for platform in double() {
        let found = descend(&platform, &grpo(false), 2.0, 600);
        platform.assert_close("first prompt", &found[..TOKENS], &[0.7159, 0.1316, 0.1525], 1e-3);
        assert!((found[0] - optimum()[0]).abs() > 0.03, "{found:?}");
    }
}

/// DRO with each prompt's own log Z has the same optimum, where every residual is 0.
#[test]
fn dro_reaches_the_optimum_with_residual_0() {
    let (reference, rewards) = (ref_logps(), REWARDS.concat());
    let level = |prompt: usize| (0..TOKENS).map(|k| REFERENCE[prompt][k] * REWARDS[prompt][k].exp()).sum::<f64>().ln();
    let levels: Vec<f64> = (0..PROMPTS).map(level).collect();
    let prompts = PromptIndex::from_counts(&[TOKENS; PROMPTS]).unwrap();
    let settings = DroSettings { beta: 1.0, prompt_term: PromptTerm::Off, ..DroSettings::default() };
    for platform in double() {
        let mut logits = reference.clone();
        let mut residuals = vec![];
        for _ in 0..600 {
            let leaf = platform.leaf(&logits);
            let zeros = platform.constant(&[0.0; PROMPTS]);
            let output = dro(
                DroBatch {
                    logps: log_probabilities(leaf.clone()),
                    ref_logps: platform.constant(&reference),
                    rewards: platform.constant(&rewards),
                    prompt_logps: zeros.clone(),
                    ref_prompt_logps: zeros,
                    levels: Some(platform.constant(&levels)),
                    tokens: None,
                },
                &prompts,
                &settings,
            );
            residuals = host(&output.residuals);
            let slopes = gradient(&leaf, &weighted_sum(output.errors, &[1.0 / 9.0; 9]).backward());
            logits.iter_mut().zip(slopes).for_each(|(logit, slope)| *logit -= 2.0 * slope);
        }
        assert!(largest(&residuals) < 1e-6, "{residuals:?} on {platform:?}");
        platform.assert_close("DRO", &probabilities(&platform, &logits), &optimum(), 1e-6);
    }
}

/// 400 rounds of 66 samples, as a run has them. PPO's values are learned from the returns.
#[test]
fn sampled_rounds_lead_to_the_optimum() {
    const ROUNDS: usize = 400;
    let objectives: [(Box<dyn OnlineObjective>, f64); 3] = [
        (Box::new(RlooSettings { beta: 1.0, ..RlooSettings::default() }), 2.0),
        (Box::new(PpoSettings { kl_coef: 1.0, ..PpoSettings::default() }), 2.0),
        (Box::new(grpo(true)), 1.0),
    ];
    let platforms = double();
    let platform = &platforms[0];
    for (objective, rate) in &objectives {
        let (mut logits, mut values, mut state) = (ref_logps(), vec![0.0; PROMPTS], objective.start());
        let mut random = Random(1);
        for round_number in 0..ROUNDS {
            let now = probabilities(platform, &logits);
            let logps: Vec<f64> = now.iter().map(|p| p.ln()).collect();
            let round = Round::sampled(&now, 22, &mut random);
            let prepared = round.prepare(objective.as_ref(), &logps, &values, &state);
            state = prepared.next;
            let slopes = round.slopes(platform, objective.as_ref(), &logits, &prepared);
            let rate = rate * (1.0 - round_number as f64 / ROUNDS as f64);
            logits.iter_mut().zip(slopes).for_each(|(logit, slope)| *logit -= rate * slope);
            for (choice, returns) in round.choices.iter().zip(&prepared.returns).filter(|_| objective.has_value()) {
                values[choice / TOKENS] += 0.01 * (returns[0] - values[choice / TOKENS]);
            }
        }
        let (found, expected) = (probabilities(platform, &logits), optimum());
        for prompt in 0..PROMPTS {
            let own = TOKENS * prompt..TOKENS * (prompt + 1);
            let variation: f64 = own.map(|k| 0.5 * (found[k] - expected[k]).abs()).sum();
            assert!(variation < 0.05, "{objective:?}, prompt {prompt}: {variation}, {found:?}");
        }
    }
}

/// Responses of two tokens, each of two kinds: the values become the expected returns.
#[test]
fn values_of_a_chain_become_expected_returns() {
    // Response 2a + b is the tokens a and b.
    let (first, second) = ([0.25, 0.75], [[0.5, 0.5], [0.125, 0.875]]);
    let rewards = [[4.0, 0.0], [-2.0, 2.0]];
    let expected_after: Vec<f64> = (0..2).map(|a| (0..2).map(|b| second[a][b] * rewards[a][b]).sum()).collect();
    let expected_before: f64 = (0..2).map(|a| first[a] * expected_after[a]).sum();
    let settings = PpoSettings { kl_coef: 0.0, ..PpoSettings::default() };
    let prompts = PromptIndex::from_counts(&[4]).unwrap();
    let responses: Vec<(usize, usize)> = (0..4).map(|i| (i / 2, i % 2)).collect();
    let probability: Vec<f64> = responses.iter().map(|&(a, b)| first[a] * second[a][b]).collect();
    for platform in double() {
        // The value before the first token, and those after each kind of it.
        let mut values = [0.0; 3];
        for _ in 0..300 {
            let own: Vec<[f64; 2]> = responses.iter().map(|&(a, _)| [values[0], values[1 + a]]).collect();
            let old = [-1.0, -1.0];
            let sampled: Vec<Sampled<'_>> = responses
                .iter()
                .zip(&own)
                .map(|(&(a, b), own)| Sampled {
                    reward: rewards[a][b],
                    stopped: true,
                    old_logps: &old,
                    ref_logps: &[],
                    values: own,
                })
                .collect();
            let prepared = settings.prepare(&sampled, &prompts, &settings.start()).unwrap();
            let leaf = platform.leaf(&values);
            let places: Vec<i64> = responses.iter().flat_map(|&(a, _)| [0, 1 + a as i64]).collect();
            let places = Tensor::<1, Int>::from_data(places.as_slice(), &platform.device);
            let batch = ValueBatch {
                values: leaf.clone().select(0, places),
                old_values: own.concat(),
                returns: prepared.returns.concat(),
                slots: vec![2; 4],
            };
            let losses = clipped_value(&batch, settings.value_clip).losses;
            let slopes = gradient(&leaf, &weighted_sum(losses, &probability).backward());
            values.iter_mut().zip(slopes).for_each(|(value, slope)| *value -= 0.5 * slope);
        }
        let expected = [expected_before, expected_after[0], expected_after[1]];
        platform.assert_close("values", &values, &expected, 1e-3);
    }
}
