//! The objectives and host computations against numbers computed elsewhere in f64
//! (`tests/golden/make_objectives.py`).

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use setpoint_align::{
    Aggregate, ClipRange, DpoSettings, DroSettings, LogZ0, Pair, PromptIndex, PromptRewards, PromptTerm, ResidualError,
    RewardTransform, Role, ScoredResponse, Settings, chosen_rewards, dpo, dro, prompt_log_mass, weighted_sum,
};

use crate::dro::Case;
use crate::platform::{Platform, double, gradient, host, largest, single};

pub fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/objectives").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// f32 holds the inputs to 6e-8 of their size, so results are compared relative to the largest.
fn tolerance(platform: &Platform, expected: &[f64], input: f64) -> f64 {
    platform.rounding(largest(expected).max(input))
}

#[derive(Deserialize)]
struct DroGolden {
    inputs: Vec<DroInput>,
    cases: Vec<DroCase>,
}

#[derive(Deserialize)]
struct DroInput {
    counts: Vec<usize>,
    rewards: Vec<f64>,
    logps: Vec<f64>,
    ref_logps: Vec<f64>,
    prompt_logps: Vec<f64>,
    ref_prompt_logps: Vec<f64>,
}

#[derive(Deserialize)]
struct DroOptions {
    beta: f64,
    log_z0: f64,
    prompt_term: PromptTerm,
    error: ResidualError,
    aggregate: Aggregate,
}

#[derive(Deserialize)]
struct DroCase {
    input: usize,
    options: DroOptions,
    loss: f64,
    residuals: Vec<f64>,
    errors: Vec<f64>,
    targets: Vec<f64>,
    log_z: Vec<f64>,
    log_ratios: Vec<f64>,
    prompt_log_ratios: Vec<f64>,
    grad_logps: Vec<f64>,
}

#[test]
fn dro_equals_numpy() {
    let golden: DroGolden = read("dro.json");
    assert!(golden.cases.len() >= 30);
    for (number, expected) in golden.cases.iter().enumerate() {
        let input = &golden.inputs[expected.input];
        let prompts = PromptIndex::from_counts(&input.counts).unwrap();
        let case = Case {
            prompt_of: prompts.prompt_of().to_vec(),
            prompts: prompts.prompts(),
            logps: input.logps.clone(),
            ref_logps: input.ref_logps.clone(),
            rewards: input.rewards.clone(),
            prompt_logps: input.prompt_logps.clone(),
            ref_prompt_logps: input.ref_prompt_logps.clone(),
        };
        let DroOptions { beta, log_z0, prompt_term, error, aggregate } = expected.options;
        let settings = DroSettings { beta, log_z0, prompt_term, error, ..Default::default() };
        settings.validate().unwrap();
        for platform in double().into_iter().chain(single()) {
            let (batch, logps, _) = case.batch(&platform);
            let output = dro(batch, &prompts, &settings);
            let weights = aggregate.response_weights(&prompts, aggregate.denominator(prompts.counts()));
            let loss = weighted_sum(output.errors.clone(), &weights);
            let slopes = gradient(&logps, &loss.backward());

            // The largest log-prob is what f32's rounding of a log-ratio is relative to.
            let nats = largest(&input.ref_prompt_logps).max(largest(&input.logps)).max(log_z0.abs());
            let reward = largest(&input.rewards).max(beta * nats);
            let squared = if error == ResidualError::Mae { reward } else { reward * reward };
            let slope = if error == ResidualError::Mae { 0.0 } else { 2.0 * beta * reward * largest(&weights) };
            let check = |what: &str, found: &[f64], values: &[f64], input: f64| {
                let what = format!("case {number}: {what}");
                platform.assert_close(&what, found, values, tolerance(&platform, values, input));
            };
            check("log_ratios", &host(&output.log_ratios), &expected.log_ratios, nats);
            check("prompt_log_ratios", &host(&output.prompt_log_ratios), &expected.prompt_log_ratios, nats);
            check("log_z", &host(&output.log_z), &expected.log_z, nats);
            check("targets", &host(&output.targets), &expected.targets, reward / beta);
            check("residuals", &host(&output.residuals), &expected.residuals, reward);
            check("errors", &host(&output.errors), &expected.errors, squared);
            check("loss", &host(&loss), &[expected.loss], squared);
            check("grad_logps", &slopes, &expected.grad_logps, slope);
        }
    }
}

#[derive(Deserialize)]
struct DpoGolden {
    input: DpoInput,
    cases: Vec<DpoCase>,
}

#[derive(Deserialize)]
struct DpoInput {
    chosen_logps: Vec<f64>,
    rejected_logps: Vec<f64>,
    ref_chosen_logps: Vec<f64>,
    ref_rejected_logps: Vec<f64>,
}

#[derive(Deserialize)]
struct DpoCase {
    beta: f64,
    label_smoothing: f64,
    loss: f64,
    losses: Vec<f64>,
    grad_chosen_logps: Vec<f64>,
    grad_rejected_logps: Vec<f64>,
    rewards_chosen: Vec<f64>,
    rewards_rejected: Vec<f64>,
}

#[test]
fn dpo_equals_numpy() {
    let golden: DpoGolden = read("dpo.json");
    assert!(golden.cases.len() >= 6);
    let input = &golden.input;
    for expected in &golden.cases {
        let settings = DpoSettings { beta: expected.beta, label_smoothing: expected.label_smoothing };
        for platform in double().into_iter().chain(single()) {
            let logps =
                Pair { chosen: platform.leaf(&input.chosen_logps), rejected: platform.leaf(&input.rejected_logps) };
            let reference = Pair {
                chosen: platform.constant(&input.ref_chosen_logps),
                rejected: platform.constant(&input.ref_rejected_logps),
            };
            let output = dpo(logps.clone() - reference, &settings);
            let pairs = input.chosen_logps.len();
            let loss = weighted_sum(output.losses.clone(), &vec![1.0 / pairs as f64; pairs]);
            let gradients = loss.backward();

            // Each pair relative to its own size: they differ by many orders of magnitude.
            let check = |what: &str, found: &[f64], values: &[f64], input_error: &dyn Fn(usize) -> f64| {
                for i in 0..pairs {
                    let tolerance = platform.rounding(values[i].abs()) + input_error(i);
                    platform.assert_close(what, &found[i..=i], &values[i..=i], tolerance);
                }
            };
            // f32 rounds the log-probs of pair i, and the logits with them.
            let logit = |i: usize| {
                let sides =
                    [&input.chosen_logps, &input.rejected_logps, &input.ref_chosen_logps, &input.ref_rejected_logps];
                platform.rounding(expected.beta * sides.iter().map(|side| side[i].abs()).fold(0.0, f64::max))
            };
            let slope = expected.beta / pairs as f64;
            check("losses", &host(&output.losses), &expected.losses, &|i| logit(i).max(0.0));
            check("rewards/chosen", &host(&output.rewards.chosen), &expected.rewards_chosen, &logit);
            check("rewards/rejected", &host(&output.rewards.rejected), &expected.rewards_rejected, &logit);
            // σ(1 − σ) ≤ ¼ turns an error of the logit into one of the slope.
            let slope_error = |i: usize| slope * (0.25 * logit(i)).min(1.0) + platform.rounding(slope);
            check("chosen", &gradient(&logps.chosen, &gradients), &expected.grad_chosen_logps, &slope_error);
            check("rejected", &gradient(&logps.rejected, &gradients), &expected.grad_rejected_logps, &slope_error);
            platform.assert_close("loss", &host(&loss), &[expected.loss], platform.rounding(expected.loss));
        }
    }
}

#[derive(Deserialize)]
struct RewardsGolden {
    counts: Vec<usize>,
    rewards: Vec<f64>,
    clip: [f64; 2],
    transforms: std::collections::BTreeMap<String, Vec<f64>>,
    audit: AuditGolden,
    log_z0_auto: AutoGolden,
}

#[derive(Deserialize)]
struct AuditGolden {
    beta: f64,
    ref_logps: Vec<f64>,
    log_mass: Vec<f64>,
}

#[derive(Deserialize)]
struct AutoGolden {
    chosen: Vec<bool>,
    beta: f64,
    log_z0: std::collections::BTreeMap<String, f64>,
}

#[test]
fn rewards_masses_and_log_z0_equal_numpy() {
    let golden: RewardsGolden = read("rewards.json");
    let cut = |values: &[f64]| {
        let mut rest = values;
        let take = |&count: &usize| {
            let (own, other) = rest.split_at(count);
            rest = other;
            own.to_vec()
        };
        golden.counts.iter().map(take).collect::<Vec<_>>()
    };
    let close = |what: &str, found: &[f64], expected: &[f64]| {
        assert_eq!(found.len(), expected.len(), "{what}");
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * (1.0 + b.abs());
        assert!(found.iter().zip(expected).all(near), "{what}: found {found:?}, expected {expected:?}");
    };
    let prompts: Vec<PromptRewards> =
        cut(&golden.rewards).into_iter().enumerate().map(|(row, rewards)| PromptRewards::new(row, rewards)).collect();

    assert_eq!(golden.transforms.len(), 6);
    for (name, expected) in &golden.transforms {
        let transform = match name.as_str() {
            "clip" => RewardTransform::Clip(ClipRange::Between(golden.clip)),
            name => serde_json::from_value(name.into()).unwrap(),
        };
        let fitted = transform.fit(&prompts, 1.0).unwrap();
        let found: Vec<f64> = prompts.iter().flat_map(|p| fitted.apply(p).unwrap().rewards).collect();
        close(name, &found, expected);
    }

    let AuditGolden { beta, ref_logps, log_mass } = &golden.audit;
    let masses: Vec<f64> = cut(ref_logps)
        .iter()
        .zip(cut(&golden.rewards))
        .map(|(ref_logps, rewards)| {
            let responses: Vec<ScoredResponse> =
                ref_logps.iter().zip(rewards).map(|(&ref_logp, reward)| ScoredResponse { ref_logp, reward }).collect();
            prompt_log_mass(&responses, *beta)
        })
        .collect();
    close("log_mass", &masses, log_mass);

    let mut labels = golden.log_z0_auto.chosen.iter();
    let labelled: Vec<PromptRewards> = prompts
        .into_iter()
        .map(|prompt| {
            let role = |chosen: &bool| Some(if *chosen { Role::Chosen } else { Role::Rejected });
            let own = labels.by_ref().take(prompt.rewards.len()).map(role).collect();
            prompt.with_labels(own)
        })
        .collect();
    for (shift, &expected) in &golden.log_z0_auto.log_z0 {
        let auto = LogZ0::Auto { chosen_shift: shift.parse().unwrap() };
        let found = auto.resolve(golden.log_z0_auto.beta, &chosen_rewards(&labelled)).unwrap();
        close(shift, &[found], &[expected]);
    }
}
