use burn::tensor::Device;
use setpoint_train::{
    DeviceGroup, Measurement, MicroBatch, NoHooks, RunDir, Schedule, ScheduleKind, TrainConfig, Warmup, evaluate, fit,
};

use super::*;
use crate::model::to_host;
use crate::testing::{devices, tiny_model};

fn pair(chosen: &[u32], rejected: &[u32], margin: f64, name: &str) -> Preference {
    Preference { chosen: chosen.to_vec(), rejected: rejected.to_vec(), margin, name: name.to_owned() }
}

fn pairs() -> Vec<Preference> {
    vec![
        pair(&[1, 5, 6, 2], &[1, 5, 7, 8, 9, 2], 0.5, "a.jsonl:1"),
        pair(&[1, 9, 2], &[1, 9, 0, 2], 0.0, "a.jsonl:2"),
        pair(&[1, 4, 4, 4, 4, 4, 4, 2], &[1, 4, 2], -1.0, "a.jsonl:3"),
        pair(&[3], &[11], 0.0, "a.jsonl:4"),
    ]
}

fn value(metrics: &[(String, f64)], name: &str) -> f64 {
    metrics.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}")).1
}

/// A batch of four pairs.
fn four() -> BatchContext<()> {
    BatchContext { denominator: 4.0, ..BatchContext::default() }
}

/// Loss and metrics on a held-out set.
fn measure(task: &PreferenceTask, model: &RewardModel, mut micro_batch: MicroBatch) -> Vec<(String, f64)> {
    let here = DeviceGroup::single(model.device());
    let Measurement { metrics, .. } = evaluate(task, &here, model, &mut micro_batch, 0.0, &|| false).unwrap();
    metrics
}

#[test]
fn losses_and_metrics_are_those_of_the_single_scores() {
    for device in devices() {
        let (model, _) = tiny_model(&device);
        let center = 0.01;
        let task = PreferenceTask::new(pairs(), center, RopeSwitch::default()).unwrap();
        let forward = task.forward(&model, &[0, 1, 2, 3], &four()).unwrap();

        let score = |row: &Vec<u32>| f64::from(to_host(model.scores(&[row]).unwrap()).unwrap()[0]);
        let scores: Vec<(f64, f64)> = pairs().iter().map(|p| (score(&p.chosen), score(&p.rejected))).collect();
        let losses: Vec<f64> = (pairs().iter().zip(&scores))
            .map(|(p, (w, l))| (-(w - l - p.margin)).exp().ln_1p() + center * (w + l).powi(2))
            .collect();
        let Forward { loss, numbers, .. } = forward;
        let PassNumbers { metrics, per_example, responses } = numbers.read();
        for (got, expected) in per_example.iter().zip(&losses) {
            assert!((f64::from(*got) - expected).abs() < 1e-5, "{got} {expected}");
        }
        assert_eq!(responses.examples(), [0, 0, 1, 1, 2, 2, 3, 3]);
        assert_eq!(responses.series("chosen"), Some(&[1.0, 0.0].repeat(4)[..]));
        let rewards = responses.series("reward").unwrap();
        for (got, expected) in rewards.iter().zip(scores.iter().flat_map(|(w, l)| [w, l])) {
            assert!((f64::from(*got) - expected).abs() < 1e-5, "{got} {expected}");
        }
        let mean = losses.iter().sum::<f64>() / 4.0;
        assert!((f64::from(loss.into_scalar::<f32>()) - mean).abs() < 1e-5);

        let all: Vec<f64> = scores.iter().flat_map(|(w, l)| [*w, *l]).collect();
        let expected = [
            ("accuracy", scores.iter().filter(|(w, l)| w > l).count() as f64 / 4.0),
            ("margin", scores.iter().map(|(w, l)| w - l).sum::<f64>() / 4.0),
            ("mean_reward", all.iter().sum::<f64>() / 8.0),
            ("min_reward", all.iter().copied().fold(f64::INFINITY, f64::min)),
            ("max_reward", all.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        ];
        for (name, expected) in expected {
            let got = value(&metrics.values(), name);
            assert!((got - expected).abs() < 1e-5, "{name}: {got} {expected}");
        }
    }
}

#[test]
fn the_split_into_micro_batches_changes_neither_loss_nor_gradient_nor_evaluation() {
    for device in devices() {
        let (model, _) = tiny_model(&device.autodiff());
        let task = PreferenceTask::new(pairs(), 0.01, RopeSwitch::default()).unwrap();
        let run = |split: &[&[usize]]| {
            let mut loss = 0.0;
            let mut gradient = vec![0.0; 16];
            for examples in split {
                let forward = task.forward(&model, examples, &four()).unwrap();
                loss += forward.loss.clone().inner().into_scalar::<f32>();
                let gradients = forward.loss.backward();
                let part: Vec<f32> =
                    model.score.weight.val().grad(&gradients).unwrap().into_data().try_to_vec().unwrap();
                gradient.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            }
            (loss, gradient)
        };
        let (whole_loss, whole) = run(&[&[0, 1, 2, 3]]);
        for split in [&[&[0, 3][..], &[1, 2]][..], &[&[2], &[0], &[3], &[1]]] {
            let (loss, gradient) = run(split);
            assert!((loss - whole_loss).abs() < 1e-5);
            for (got, expected) in gradient.iter().zip(&whole) {
                assert!((got - expected).abs() < 1e-5 * expected.abs().max(1.0), "{got} {expected}");
            }
        }

        let whole = measure(&task, &model, MicroBatch::Examples(4));
        assert!((value(&whole, "eval_loss") - f64::from(whole_loss)).abs() < 1e-5);
        for micro_batch in [MicroBatch::Examples(1), MicroBatch::Tokens(12)] {
            let split = measure(&task, &model, micro_batch);
            for (name, expected) in &whole {
                assert!((value(&split, name) - expected).abs() < 1e-5, "{name}");
            }
        }
    }
}

#[test]
fn a_tie_costs_a_coin_flip_and_has_no_gradient() {
    for device in devices() {
        let (model, _) = tiny_model(&device.autodiff());
        let task =
            PreferenceTask::new(vec![pair(&[1, 5, 2], &[1, 5, 2], 0.0, "tie")], 0.0, RopeSwitch::default()).unwrap();
        let forward = task.forward(&model, &[0], &BatchContext { denominator: 1.0, ..four() }).unwrap();
        let numbers = forward.numbers.read();
        assert!((numbers.per_example[0] - 2.0_f32.ln()).abs() < 1e-6);
        assert_eq!(value(&numbers.metrics.values(), "accuracy"), 0.0);
        let gradients = forward.loss.backward();
        let gradient: Vec<f32> = model.score.weight.val().grad(&gradients).unwrap().into_data().try_to_vec().unwrap();
        assert!(gradient.iter().all(|g| g.abs() < 1e-6), "{gradient:?}");
    }
}

#[test]
fn training_learns_which_token_is_better() {
    // Token 7 makes a response good and 8 makes it bad, wherever they stand.
    let filler = |seed: u32, n: u32| (0..n).map(move |i| 9 + (seed * 7 + i * 5 + seed * i) % 14);
    let response = |seed: u32, mark: u32| -> Vec<u32> {
        [1].into_iter().chain(filler(seed, 1 + seed % 4)).chain([mark]).chain(filler(seed + 50, 2)).chain([2]).collect()
    };
    let data = |from: u32, to: u32| -> PreferenceTask {
        let pairs: Vec<Preference> =
            (from..to).map(|seed| pair(&response(seed, 7), &response(seed + 3, 8), 0.0, "made")).collect();
        PreferenceTask::new(pairs, 0.01, RopeSwitch::default()).unwrap()
    };
    let (train, held_out) = (data(0, 48), data(100, 148));
    #[allow(deprecated)]
    let device = Device::flex().autodiff();
    let (model, _) = tiny_model(&device);
    let before = measure(&held_out, &model, MicroBatch::Examples(16));

    let dir = tempfile::tempdir().unwrap();
    let config = TrainConfig {
        epochs: 6.0,
        batch_size: 16,
        micro_batch: MicroBatch::Tokens(128),
        learning_rate: 1e-2,
        schedule: Schedule { kind: ScheduleKind::Cosine, warmup: Warmup::Steps(2) },
        ..TrainConfig::default()
    };
    let run = RunDir::create(dir.path().join("run")).unwrap();
    let fitted = fit(&train, model, &config, &run, &mut NoHooks).unwrap();

    let after = measure(&held_out, &fitted.model, MicroBatch::Examples(16));
    assert!(value(&before, "eval_accuracy") < 0.9, "nothing to learn: {}", value(&before, "eval_accuracy"));
    assert_eq!(value(&after, "eval_accuracy"), 1.0, "before: {:?}, after: {:?}", before, after);
    assert!(value(&after, "eval_loss") < 0.1, "{after:?}");
}

#[test]
#[allow(deprecated)]
fn what_cannot_be_trained_on_is_named() {
    let new = |pair: Preference, center: f64| {
        PreferenceTask::new(vec![pair], center, RopeSwitch::default()).unwrap_err().to_string()
    };
    assert!(new(pair(&[1], &[2], 0.0, "x"), -0.5).contains("centring coefficient"));
    assert!(new(pair(&[1], &[], 0.0, "x.jsonl:4"), 0.0).starts_with("x.jsonl:4, rejected: is empty"));
    assert!(new(pair(&[1], &[2], f64::NAN, "x.jsonl:4"), 0.0).starts_with("x.jsonl:4: the margin is NaN"));

    let (model, _) = tiny_model(&Device::flex());
    let task = PreferenceTask::new(vec![pair(&[1], &[99], 0.0, "x.jsonl:7")], 0.0, RopeSwitch::default()).unwrap();
    let error = task.forward(&model, &[0], &BatchContext { denominator: 1.0, ..four() }).unwrap_err().to_string();
    assert!(error.starts_with("x.jsonl:7, rejected: token 99"), "{error}");
    assert_eq!(task.describe(0), "x.jsonl:7");
    assert_eq!((task.cost(0), task.weight(0)), (2, 1.0));
}
