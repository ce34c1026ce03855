//! DRO's further settings: the level's weight, the likelihood term, targets per token, own levels and the learned prompt term.

use proptest::prelude::*;
use serde::Deserialize;
use setpoint_align::{
    Aggregate, Dro, DroSettings, LogZ0, Pair, PromptBatch, PromptIndex, PromptObjective, PromptTerm, ReferenceSample,
    ResidualError, RpoSettings, ScoredResponse, Settings, best_nll, dro, prompt_log_z, residual_error, rpo,
    weigh_level, weighted_sum,
};

use crate::dro::{Case, cases};
use crate::goldens::read;
use crate::platform::{Platform, all, double, exact, gradient, host, largest, single};

fn config() -> ProptestConfig {
    ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() }
}

/// `(residuals, errors, loss, ∂L/∂logps, ∂L/∂prompt_logps)` with the case as the global batch.
fn run(case: &Case, platform: &Platform, settings: &DroSettings) -> [Vec<f64>; 5] {
    let (batch, logps, prompt_logps) = case.batch(platform);
    let prompts = case.index();
    let output = dro(batch, &prompts, settings);
    let weights = Aggregate::PerPrompt.response_weights(&prompts, prompts.prompts() as f64);
    let loss = weighted_sum(output.errors.clone(), &weights);
    let gradients = loss.backward();
    [
        host(&output.residuals),
        host(&output.errors),
        host(&loss),
        gradient(&logps, &gradients),
        gradient(&prompt_logps, &gradients),
    ]
}

/// The squares of the summands of a residual, to which rounding is relative.
fn size(case: &Case, settings: &DroSettings) -> f64 {
    let logps = largest(&case.logps).max(largest(&case.ref_logps)) + largest(&case.ref_prompt_logps);
    (largest(&case.rewards) + settings.beta * (2.0 * logps + settings.log_z0.abs())).powi(2)
}

proptest! {
    #![proptest_config(config())]

    /// λ = 1 is DRO, bit for bit; split into level and distances it is the same number.
    #[test]
    fn with_the_level_at_full_weight_it_is_dro(case in cases(prop::collection::vec(1..5usize, 1..6))) {
        let settings = DroSettings { beta: 0.25, log_z0: 3.0, ..Default::default() };
        prop_assert_eq!(settings.level_weight, 1.0);
        let prompts = case.index();
        for platform in all() {
            let [residuals, errors, ..] = run(&case, &platform, &settings);
            let squares = residual_error(platform.constant(&residuals), ResidualError::Mse);
            prop_assert_eq!(&errors, &host(&squares));
            let split = weigh_level(platform.constant(&residuals), &prompts, 1.0);
            let tolerance = 4.0 * platform.rounding(size(&case, &settings));
            let means = |errors| host(&prompts.mean(errors));
            platform.assert_close("errors", &means(split), &means(squares), tolerance);
        }
    }

    /// λ = 0: the mean over a prompt's pairs of RPO, times (n − 1)/(2n).
    #[test]
    fn without_the_level_it_is_rpo_over_all_pairs(case in cases(prop::collection::vec(2..5usize, 1..4))) {
        let settings = DroSettings { beta: 0.25, log_z0: 3.0, level_weight: 0.0, ..Default::default() };
        for platform in all() {
            let [.., slopes, _] = run(&case, &platform, &settings);
            let [_, _, loss, ..] = run(&case, &platform, &settings);
            let (batch, logps, _) = case.batch(&platform);
            let mut total: Option<burn::tensor::Tensor<1>> = None;
            for prompt in 0..case.prompts {
                let own: Vec<usize> = (0..case.logps.len()).filter(|&j| case.prompt_of[j] == prompt).collect();
                let n = own.len() as f64;
                let pairs: Vec<(usize, usize)> =
                    own.iter().flat_map(|&i| own.iter().filter(move |&&j| i < j).map(move |&j| (i, j))).collect();
                let rewards = Pair::gather(platform.constant(&case.rewards), &pairs);
                let rpo_settings = RpoSettings { beta: settings.beta, pessimism: 0.0, ..Default::default() };
                let log_ratios = Pair::gather(logps.clone() - batch.ref_logps.clone(), &pairs);
                let losses = rpo(log_ratios, &[rewards], &rpo_settings).losses;
                let weight = (n - 1.0) / (2.0 * n) / pairs.len() as f64 / case.prompts as f64;
                let part = weighted_sum(losses, &vec![weight; pairs.len()]);
                total = Some(match total {
                    Some(sum) => sum + part,
                    None => part,
                });
            }
            let total = total.unwrap();
            let tolerance = 8.0 * platform.rounding(size(&case, &settings));
            platform.assert_close("loss", &loss, &host(&total), tolerance);
            let expected = gradient(&logps, &total.backward());
            platform.assert_close("slopes", &slopes, &expected, 8.0 * platform.rounding(size(&case, &settings).sqrt()));
        }
    }

    /// Targets per token of responses of one token are targets per response; own levels that are all `log_z0` are `log_z0`.
    #[test]
    fn one_token_and_one_level_change_nothing(case in cases(prop::collection::vec(1..5usize, 1..6))) {
        let settings = DroSettings { beta: 0.25, log_z0: 3.0, prompt_term: PromptTerm::Off, ..Default::default() };
        for platform in all() {
            let [residuals, errors, ..] = run(&case, &platform, &settings);
            let (batch, ..) = case.batch(&platform);
            let ones = vec![1.0; case.logps.len()];
            let batch = setpoint_align::DroBatch {
                tokens: Some(platform.constant(&ones)),
                levels: Some(platform.constant(&vec![3.0; case.prompts])),
                ..batch
            };
            let per_token = DroSettings { length_normalize: true, log_z0: f64::NAN, ..settings };
            let output = dro(batch, &case.index(), &per_token);
            prop_assert_eq!(&residuals, &host(&output.residuals));
            prop_assert_eq!(&errors, &host(&output.errors));
        }
    }

    /// The gradient reaches the prompt, and is the slope of the loss there.
    #[test]
    fn the_learned_prompt_term_equals_finite_differences(
        case in cases(prop::collection::vec(1..4usize, 1..4)), level_weight in (0.0..2.0).prop_map(exact),
    ) {
        let settings = DroSettings {
            beta: 0.25, log_z0: 3.0, prompt_term: PromptTerm::Learned, level_weight, ..Default::default()
        };
        let step = 1e-3;
        for platform in double() {
            let [.., slopes, prompt_slopes] = run(&case, &platform, &settings);
            let loss = |case: &Case| {
                let [_, _, loss, ..] = run(case, &platform, &settings);
                loss[0]
            };
            let difference = |shift: &dyn Fn(&mut Case, f64)| {
                let at = |by: f64| {
                    let mut moved = case.clone();
                    shift(&mut moved, by);
                    loss(&moved)
                };
                (at(step) - at(-step)) / (2.0 * step)
            };
            let tolerance = 4.0 * platform.rounding(size(&case, &settings) * (1.0 + level_weight)) / step;
            for (x, &slope) in prompt_slopes.iter().enumerate() {
                let found = difference(&|case: &mut Case, by| case.prompt_logps[x] += by);
                platform.assert_close("prompt slope", &[slope], &[found], tolerance);
            }
            for (j, &slope) in slopes.iter().enumerate() {
                let found = difference(&|case: &mut Case, by| case.logps[j] += by);
                platform.assert_close("slope", &[slope], &[found], tolerance);
            }
        }
    }
}

#[derive(Deserialize)]
struct Golden {
    inputs: Vec<Input>,
    cases: Vec<GoldenCase>,
    log_z: Vec<LogZ>,
}

#[derive(Deserialize)]
struct Input {
    counts: Vec<usize>,
    rewards: Vec<f64>,
    logps: Vec<f64>,
    ref_logps: Vec<f64>,
    prompt_logps: Vec<f64>,
    ref_prompt_logps: Vec<f64>,
    tokens: Vec<f64>,
}

#[derive(Deserialize)]
struct Options {
    beta: f64,
    log_z0: f64,
    levels: Option<Vec<f64>>,
    prompt_term: PromptTerm,
    aggregate: Aggregate,
    level_weight: f64,
    nll_weight: f64,
    length_normalize: bool,
}

#[derive(Deserialize)]
struct GoldenCase {
    input: usize,
    options: Options,
    loss: f64,
    residuals: Vec<f64>,
    errors: Vec<f64>,
    targets: Vec<f64>,
    nll: f64,
    grad_logps: Vec<f64>,
    grad_prompt_logps: Vec<f64>,
}

#[derive(Deserialize)]
struct LogZ {
    beta: f64,
    ref_logps: Vec<f64>,
    rewards: Vec<f64>,
    samples: Vec<f64>,
    in_data: Vec<bool>,
    log_z: f64,
    effective_samples: f64,
}

/// By the trait that the task calls, with the likelihood term as the task adds it.
#[test]
fn dro_with_further_settings_equals_numpy() {
    let golden: Golden = read("dro_further.json");
    assert!(golden.cases.len() >= 20);
    for (number, expected) in golden.cases.iter().enumerate() {
        let input = &golden.inputs[expected.input];
        let prompts = PromptIndex::from_counts(&input.counts).unwrap();
        let Options { beta, log_z0, prompt_term, aggregate, level_weight, nll_weight, length_normalize, .. } =
            expected.options;
        let settings = Dro {
            beta: Some(beta),
            log_z0: Some(LogZ0::Nats(log_z0)),
            prompt_term,
            aggregate,
            level_weight,
            nll_weight,
            length_normalize,
            ..Dro::default()
        };
        assert_eq!(settings.problems(), []);
        let levels = expected.options.levels.clone().unwrap_or_else(|| vec![log_z0; input.counts.len()]);
        // The best response of each prompt, the first of equals.
        let mut start = 0;
        let best: Vec<usize> = input
            .counts
            .iter()
            .map(|count| {
                let own = start..start + count;
                start = own.end;
                own.reduce(|best, j| if input.rewards[j] > input.rewards[best] { j } else { best }).unwrap()
            })
            .collect();
        let tokens: f64 = best.iter().map(|&j| input.tokens[j]).sum();
        for platform in double().into_iter().chain(single()) {
            let (logps, prompt_logps) = (platform.leaf(&input.logps), platform.leaf(&input.prompt_logps));
            let batch = PromptBatch {
                logps: logps.clone(),
                ref_logps: platform.constant(&input.ref_logps),
                rewards: platform.constant(&input.rewards),
                prompt_logps: prompt_logps.clone(),
                ref_prompt_logps: platform.constant(&input.ref_prompt_logps),
                levels: levels.clone(),
                tokens: input.tokens.clone(),
                log_mass: vec![0.0; input.counts.len()],
            };
            let objective: &dyn PromptObjective = &settings;
            let output = objective.losses(batch, &prompts);
            let denominator = aggregate.denominator(prompts.counts());
            let weights = objective.aggregate().response_weights(&prompts, denominator);
            let count = best.len() as f64;
            let shares = best_nll(logps.clone(), &best, count, tokens);
            let nll = weighted_sum(shares, &vec![1.0 / count; best.len()]);
            let loss = weighted_sum(output.losses.clone(), &weights) + objective.nll_weight() * nll.clone();
            let gradients = loss.backward();

            let nats = largest(&input.logps).max(largest(&input.ref_prompt_logps)).max(log_z0.abs());
            let reward = largest(&input.rewards) + beta * nats;
            let squared = reward * reward * (1.0 + level_weight) + objective.nll_weight() * nats;
            let slope = 2.0 * beta * reward * (1.0 + level_weight);
            let check = |what: &str, found: &[f64], values: &[f64], input: f64| {
                let what = format!("case {number}: {what}");
                // To 1e-6 of each value in f64; f32 rounds the inputs to 6e-8 of their size.
                let tolerance = 4.0 * platform.rounding(largest(values).max(input));
                platform.assert_close(&what, found, values, tolerance);
                if platform.epsilon < 1e-10 {
                    let floor = 1e-12 * largest(values);
                    for (found, value) in found.iter().zip(values) {
                        assert!((found - value).abs() <= 1e-6 * value.abs() + floor, "{what}: {found}, {value}");
                    }
                }
            };
            let values = output.values.read();
            check("errors", &values.errors, &expected.errors, squared);
            check("targets", &values.targets, &expected.targets, reward / beta * largest(&input.tokens));
            check("nll", &host(&nll), &[expected.nll], nats);
            check("loss", &host(&loss), &[expected.loss], squared);
            check("grad_logps", &gradient(&logps, &gradients), &expected.grad_logps, slope);
            check("grad_prompt", &gradient(&prompt_logps, &gradients), &expected.grad_prompt_logps, slope);
            let residual = values.metrics.get("dro/residual").unwrap();
            let mean = expected.residuals.iter().sum::<f64>() / expected.residuals.len() as f64;
            check("residuals", &[residual], &[mean], reward);
        }
    }
}

#[test]
fn log_z_from_reference_samples_equals_numpy() {
    let golden: Golden = read("dro_further.json");
    for expected in &golden.log_z {
        let scored = |(&ref_logp, &reward): (&f64, &f64)| ScoredResponse { ref_logp, reward };
        let responses: Vec<ScoredResponse> = expected.ref_logps.iter().zip(&expected.rewards).map(scored).collect();
        let sample = |(&reward, &in_data): (&f64, &bool)| ReferenceSample { reward, in_data };
        let samples: Vec<ReferenceSample> = expected.samples.iter().zip(&expected.in_data).map(sample).collect();
        let found = prompt_log_z(&responses, &samples, expected.beta).unwrap();
        assert!((found.log_z - expected.log_z).abs() < 1e-12 * (1.0 + expected.log_z.abs()), "{found:?}");
        assert!((found.effective_samples / expected.effective_samples - 1.0).abs() < 1e-9, "{found:?}");
    }
}

#[test]
fn beta_follows_from_the_rewards_once() {
    // Population standard deviation 2.
    let rewards = [1.0, 5.0, 1.0, 5.0];
    let mut settings = Dro { beta: None, beta_sigma: Some(0.15), ..Dro::default() };
    assert_eq!(settings.problems(), []);
    assert!(settings.beta().is_nan());
    assert_eq!(settings.resolve(&rewards), Ok(Some(0.15)));
    assert_eq!((settings.beta(), PromptObjective::beta_sigma(&settings)), (0.3, Some(0.15)));
    assert_eq!(settings.resolve(&[0.0, 100.0]), Ok(None));
    assert_eq!(settings.beta(), 0.3);
    let mut settings = Dro { beta: None, beta_sigma: Some(0.15), ..Dro::default() };
    let error = settings.resolve(&[2.0, 2.0]).unwrap_err().to_string();
    assert!(error.contains("beta_sigma") && error.contains("a standard deviation of 0"), "{error}");
}

#[test]
fn settings_that_do_not_go_together_are_named() {
    let dro = Dro::default;
    let wrong = [
        ("beta_sigma", Dro { beta_sigma: Some(0.2), ..dro() }),
        ("level_weight", Dro { level_weight: 0.5, error: ResidualError::Mae, ..dro() }),
        ("length_normalize", Dro { length_normalize: true, prompt_term: PromptTerm::Full, ..dro() }),
        ("log_z0", Dro { log_z0: Some(LogZ0::PerPrompt), prompt_term: PromptTerm::Full, ..dro() }),
        ("log_z0", Dro { log_z0: Some(LogZ0::PerPrompt), length_normalize: true, ..dro() }),
        ("nll_weight", Dro { nll_weight: -1.0, ..dro() }),
    ];
    for (setting, settings) in wrong {
        let found: Vec<Option<&str>> = settings.problems().iter().map(|problem| problem.setting).collect();
        assert_eq!(found, [Some(setting)]);
    }
    for settings in [
        Dro { beta: None, ..dro() },
        Dro { beta: None, beta_sigma: Some(0.0), ..dro() },
        Dro { level_weight: -0.1, ..dro() },
    ] {
        assert_eq!(settings.problems().len(), 1, "{settings:?}");
    }
}
