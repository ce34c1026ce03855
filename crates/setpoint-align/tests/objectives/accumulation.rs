//! Cutting a global batch into micro-batches changes neither loss nor gradient.

use burn::tensor::Tensor;
use setpoint_align::{
    Aggregate, DpoSettings, DroBatch, DroSettings, Moments, Pair, PromptIndex, ResidualError, dpo, dro, weighted_sum,
};

use crate::platform::{Platform, all, gradient, host, largest};

/// 8 prompts with 1 to 5 responses; every number follows from its index.
const COUNTS: [usize; 8] = [2, 1, 3, 5, 1, 4, 2, 3];

fn numbers(count: usize, low: f64, high: f64, seed: usize) -> Vec<f64> {
    let unit = |i: usize| ((i * 37 + seed * 11 + 5) % 64) as f64 / 64.0;
    (0..count).map(|i| low + (high - low) * unit(i)).collect()
}

/// Loss and gradient per response of the global batch, cut after every `prompts` prompts; the
/// weight of a single shared parameter is in `through`.
fn dro_in_parts(platform: &Platform, settings: &DroSettings, aggregate: Aggregate, prompts: usize) -> Parts {
    let n = COUNTS.iter().sum();
    let [logps, ref_logps] = [1, 2].map(|seed| numbers(n, -60.0, -1.0, seed));
    let rewards = numbers(n, -4.0, 4.0, 3);
    let [prompt_logps, ref_prompt_logps] = [4, 5].map(|seed| numbers(COUNTS.len(), -40.0, -1.0, seed));
    let denominator = aggregate.denominator(&COUNTS);

    let mut parts = Parts::default();
    let (mut response, mut prompt) = (0, 0);
    for counts in COUNTS.chunks(prompts) {
        let responses = response..response + counts.iter().sum::<usize>();
        let own_prompts = prompt..prompt + counts.len();
        (response, prompt) = (responses.end, own_prompts.end);

        let index = PromptIndex::from_counts(counts).unwrap();
        // Every log-prob depends on one shared parameter, as in a model.
        let parameter = platform.leaf(&[1.0]);
        let leaf = platform.leaf(&logps[responses.clone()]);
        let batch = DroBatch {
            logps: leaf.clone() * parameter.clone(),
            ref_logps: platform.constant(&ref_logps[responses.clone()]),
            rewards: platform.constant(&rewards[responses.clone()]),
            prompt_logps: platform.constant(&prompt_logps[own_prompts.clone()]) * parameter.clone(),
            ref_prompt_logps: platform.constant(&ref_prompt_logps[own_prompts]),
            levels: None,
            tokens: None,
        };
        let output = dro(batch, &index, settings);
        let loss = weighted_sum(output.errors, &aggregate.response_weights(&index, denominator));
        let gradients = loss.backward();
        parts.loss += host(&loss)[0];
        parts.parameter += gradient(&parameter, &gradients)[0];
        parts.responses.extend(gradient(&leaf, &gradients));
    }
    parts
}

#[derive(Default)]
struct Parts {
    loss: f64,
    parameter: f64,
    responses: Vec<f64>,
}

#[test]
fn dro_one_by_eight_is_eight_by_one_is_two_by_four() {
    let plain = DroSettings { log_z0: 10.0, ..Default::default() };
    let huber = DroSettings { error: ResidualError::Huber(1.0), ..plain };
    for settings in [plain, huber, DroSettings { level_weight: 0.25, ..plain }] {
        for aggregate in [Aggregate::PerPrompt, Aggregate::PerResponse] {
            for platform in all() {
                let whole = dro_in_parts(&platform, &settings, aggregate, 8);
                assert!(whole.parameter.abs() > 1e-3, "a gradient that could tell a difference");
                for prompts in [1, 2, 4] {
                    let parts = dro_in_parts(&platform, &settings, aggregate, prompts);
                    if settings.level_weight == 1.0 {
                        assert_eq!(parts.responses, whole.responses, "elementwise, so bit for bit, on {platform:?}");
                    } else {
                        let size = platform.rounding(largest(&whole.responses));
                        platform.assert_close("slopes", &parts.responses, &whole.responses, size);
                    }
                    let tolerance = |value: f64| platform.rounding(value.abs().max(1.0));
                    platform.assert_close("loss", &[parts.loss], &[whole.loss], tolerance(whole.loss));
                    // 21 summands of either sign, each at most the sum of their magnitudes.
                    let size: f64 = whole.responses.iter().map(|g| g.abs() * 60.0).sum();
                    platform.assert_close("parameter", &[parts.parameter], &[whole.parameter], tolerance(size));
                }
            }
        }
    }
}

#[test]
fn dpo_one_by_eight_is_eight_by_one_is_two_by_four() {
    let settings = DpoSettings { beta: 0.1, label_smoothing: 0.1 };
    let [chosen, rejected] = [6, 7].map(|seed| numbers(8, -20.0, 20.0, seed));
    for platform in all() {
        let in_parts = |size: usize| {
            let (mut loss, mut slopes) = (0.0, Vec::new());
            for (chosen, rejected) in chosen.chunks(size).zip(rejected.chunks(size)) {
                let leaf: Tensor<1> = platform.leaf(chosen);
                let log_ratios = Pair { chosen: leaf.clone(), rejected: platform.constant(rejected) };
                let part = weighted_sum(dpo(log_ratios, &settings).losses, &vec![1.0 / 8.0; size]);
                let gradients = part.backward();
                loss += host(&part)[0];
                slopes.extend(gradient(&leaf, &gradients));
            }
            (loss, slopes)
        };
        let (loss, slopes) = in_parts(8);
        for size in [1, 2, 4] {
            let (part_loss, part_slopes) = in_parts(size);
            platform.assert_close("loss", &[part_loss], &[loss], platform.rounding(loss));
            platform.assert_close("slopes", &part_slopes, &slopes, platform.rounding(0.1 / 8.0));
        }
    }
}

#[test]
fn metrics_of_parts_combine_to_those_of_the_whole() {
    let values = numbers(24, -3.0, 3.0, 8);
    let moments = |values: &[f64]| values.iter().map(|&value| Moments::of(value)).reduce(Moments::plus).unwrap();
    let expected = moments(&values);
    for size in [1, 5, 12] {
        let found = values.chunks(size).map(moments).reduce(Moments::plus).unwrap();
        assert_eq!((found.count, found.max), (expected.count, expected.max));
        assert!((found.mean - expected.mean).abs() < 1e-13);
        assert!((found.std() - expected.std()).abs() < 1e-13);
    }
}
