//! Runs: repeatability, resume, evaluation, damaged checkpoints, values that are not finite.

use std::fs;
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, FloatDType, Tensor};
use setpoint_train::{
    AdamWConfig, Error, Fitted, LogResponses, MicroBatch, NoHooks, RunDir, Schedule, ScheduleKind, StopReason, Task,
    TrainConfig, Warmup, fit,
};

use crate::best::best;
use crate::common::{Bag, Poison, Recorder, Regression, metrics_without_times, responses};
use crate::devices;

/// 10 examples in batches of 4: 3 steps an epoch, 7 steps in all.
pub fn config() -> TrainConfig {
    TrainConfig {
        batch_size: 4,
        micro_batch: MicroBatch::Examples(2),
        max_steps: Some(7),
        learning_rate: 0.03,
        schedule: Schedule { kind: ScheduleKind::Cosine, warmup: Warmup::Steps(2) },
        optimizer: AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() },
        logging_steps: 2,
        eval_steps: Some(3),
        sample_steps: Some(3),
        save_steps: Some(2),
        keep_last: 2,
        ..TrainConfig::default()
    }
}

pub fn flex() -> Device {
    Device::flex().autodiff()
}

pub fn train(run: &RunDir, device: &Device, config: &TrainConfig, hooks: &mut Recorder) -> Result<Fitted<Bag>, Error> {
    fit(&Regression::new(10), Bag::new(device), config, run, hooks)
}

pub fn checkpoints(run: &RunDir) -> Vec<String> {
    let name = |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().to_string();
    run.checkpoints().unwrap().iter().map(name).collect()
}

#[test]
fn a_run_repeats_to_the_bit_and_writes_what_it_should() {
    for device in devices() {
        let mut results = vec![];
        for _ in 0..2 {
            let dir = tempfile::tempdir().unwrap();
            let run = RunDir::create(dir.path()).unwrap();
            let mut hooks = Recorder::default();
            let fitted = train(&run, &device, &config(), &mut hooks).unwrap();
            assert_eq!((fitted.steps, fitted.stop), (7, StopReason::Completed));
            assert_eq!(hooks.reports.len(), 7);
            let learning_rates: Vec<f64> = hooks.reports.iter().map(|r| r.learning_rate).collect();
            assert_eq!(learning_rates[..3], [0.0, 0.015, 0.03]);
            let at: Vec<u64> = hooks.evaluations.iter().map(|e| e.step).collect();
            assert_eq!(at, [3, 6, 7]);
            assert_eq!(checkpoints(&run), ["step-00000006", "step-00000007"]);
            assert_eq!(fitted.checkpoint, run.checkpoints().unwrap()[1]);

            let lines = metrics_without_times(dir.path());
            // Training after steps 2, 4, 6 and 7; evaluation after 3, 6 and 7.
            let steps: Vec<u64> = lines.iter().map(|l| l["step"].as_u64().unwrap()).collect();
            assert_eq!(steps, [2, 3, 4, 6, 6, 7, 7]);
            let losses: Vec<f64> = hooks.reports.iter().map(|r| r.loss).collect();
            let logged = |line: usize, name: &str| lines[line][name].as_f64().unwrap();
            assert_eq!(logged(0, "loss"), (losses[0] + losses[1]) / 2.0);
            assert_eq!(logged(5, "loss"), losses[6]);
            assert_eq!(logged(0, "grad_norm"), hooks.reports[1].grad_norm);
            assert_eq!(logged(0, "learning_rate"), 0.015);
            assert_eq!(logged(2, "epoch"), 4.0 / 3.0);
            assert_eq!(lines[5]["num_tokens"].as_u64(), Some(fitted.num_tokens));
            assert!(lines[0].contains_key("mse") && lines[0].contains_key("worst"));
            assert!(lines[1].contains_key("eval_score"));
            let samples = fs::read_to_string(run.join(RunDir::SAMPLES)).unwrap();
            assert_eq!(samples.lines().count(), 3);
            assert_eq!(fs::read_dir(run.join(RunDir::TENSORBOARD)).unwrap().count(), 1);
            results.push((fitted.model.bits(), lines));
        }
        assert_eq!(results[0], results[1]);
    }
}

#[test]
fn an_interrupted_run_ends_like_an_uninterrupted_one() {
    for device in devices() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path().join("whole")).unwrap();
        let whole = train(&run, &device, &config(), &mut Recorder::default()).unwrap();

        let path = dir.path().join("parts");
        // Step 3 is in the middle of a logging window and at the end of an epoch.
        for (stop_after, reason) in
            [(Some(3), StopReason::Requested), (Some(5), StopReason::Requested), (None, StopReason::Completed)]
        {
            let run = match path.exists() {
                false => RunDir::create(&path).unwrap(),
                true => RunDir::open(&path).unwrap(),
            };
            let mut hooks = Recorder { stop_after, ..Recorder::default() };
            let fitted = train(&run, &device, &config(), &mut hooks).unwrap();
            assert_eq!(fitted.stop, reason);
            if stop_after.is_none() {
                assert_eq!(fitted.model.bits(), whole.model.bits());
                assert_eq!(fitted.num_tokens, whole.num_tokens);
                assert_eq!(fitted.evaluation, whole.evaluation);
            }
        }
        assert_eq!(metrics_without_times(&path), metrics_without_times(run.path()));
        for log in [RunDir::SAMPLES, RunDir::RESPONSES] {
            let bytes = |path: &Path| fs::read(path.join(log)).unwrap();
            assert_eq!(bytes(&path), bytes(run.path()), "{log}");
        }
        assert_eq!(fs::read_dir(path.join(RunDir::TENSORBOARD)).unwrap().count(), 3);

        // A finished run is not continued.
        let run = RunDir::open(&path).unwrap();
        let mut hooks = Recorder::default();
        let again = train(&run, &device, &config(), &mut hooks).unwrap();
        assert_eq!(again.model.bits(), whole.model.bits());
        assert!(hooks.reports.is_empty());
    }
}

/// `(data, step)` of the lines.
fn logged(lines: &[serde_json::Value]) -> Vec<(&str, u64)> {
    lines.iter().map(|line| (line["data"].as_str().unwrap(), line["step"].as_u64().unwrap())).collect()
}

#[test]
fn the_log_of_responses_holds_the_numbers_of_the_steps_passes() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path()).unwrap();
    let task = Regression::new(10);
    let mut hooks = Recorder::default();
    fit(&task, Bag::new(&flex()), &config(), &run, &mut hooks).unwrap();
    let lines = responses(dir.path());
    // 7 steps of 3 an epoch: the first pass is steps 1 to 3, the last 5 to 7. Evaluated are 3, 6 and 7.
    let expected: Vec<(&str, u64)> = [1, 2, 3]
        .map(|s| ("train", s))
        .into_iter()
        .chain([("eval", 3)])
        .chain([5, 6, 7].map(|s| ("train", s)))
        .collect();
    assert_eq!(logged(&lines), [expected, vec![("eval", 7)]].concat());
    let numbers = |line: &serde_json::Value, name: &str| -> Vec<f64> {
        line[name].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    };
    let mut seen: Vec<f64> = lines[..3].iter().flat_map(|line| numbers(line, "example")).collect();
    seen.sort_by(f64::total_cmp);
    assert_eq!(seen, (0..10).map(f64::from).collect::<Vec<_>>(), "a pass meets every example once");
    for line in lines.iter().filter(|line| line["data"] == "train") {
        let report = &hooks.reports[line["step"].as_u64().unwrap() as usize - 1];
        assert_eq!(line["epoch"], report.epoch);
        let (errors, lengths) = (numbers(line, "error"), numbers(line, "length"));
        let own: Vec<f64> =
            numbers(line, "example").iter().map(|&e| task.examples[e as usize].0.len() as f64).collect();
        assert_eq!(lengths, own);
        // The loss is the mean of the errors by length.
        let loss = errors.iter().zip(&lengths).map(|(e, l)| e * l).sum::<f64>() / lengths.iter().sum::<f64>();
        assert!((loss - report.loss).abs() < 1e-6 * loss.abs().max(1.0), "{line}: {loss} {}", report.loss);
    }
    let score = hooks.evaluations[2].metrics[0].1;
    assert!((numbers(&lines[7], "score")[0] - score).abs() < 1e-6 * score.abs().max(1.0));
}

#[test]
fn the_setting_says_which_responses_are_logged_and_may_change() {
    let dir = tempfile::tempdir().unwrap();
    let train = |name: &str, log_responses, best: TrainConfig, mut hooks: Recorder| {
        let path = dir.path().join(name);
        let run = if path.exists() { RunDir::open(&path).unwrap() } else { RunDir::create(&path).unwrap() };
        train(&run, &flex(), &TrainConfig { log_responses, ..best }, &mut hooks).unwrap();
        responses(&path)
    };
    let stop_after = |step| Recorder { stop_after: Some(step), ..Recorder::default() };
    assert!(train("none", LogResponses::None, config(), Recorder::default()).is_empty());
    let all = train("all", LogResponses::All, config(), Recorder::default());
    assert_eq!(all.len(), 7 + 3);
    // Nobody knows that the run will end after step 4; that its evaluation is the last is known when it is made.
    let scripted = || Recorder { scripted: vec![1.0, 5.0, 4.0, 3.0, 9.0].into(), ..Recorder::default() };
    let early = train("early", LogResponses::FirstAndLast, best(false, Some(2)), scripted());
    assert_eq!(logged(&early), [("train", 1), ("eval", 1), ("train", 2), ("train", 3), ("train", 4), ("eval", 4)]);
    // Begun without, gone on with.
    train("later", LogResponses::None, config(), stop_after(4));
    let later = train("later", LogResponses::All, config(), Recorder::default());
    assert_eq!(later, all[all.len() - later.len()..]);
    assert_eq!(logged(&later)[0], ("train", 5));
}

#[test]
fn another_configuration_or_fingerprint_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut hooks = Recorder { stop_after: Some(3), ..Recorder::default() };
    let run = RunDir::create(dir.path()).unwrap();
    let started = TrainConfig { fingerprint: "data 1".into(), ..config() };
    train(&run, &flex(), &started, &mut hooks).unwrap();

    let changed = TrainConfig {
        learning_rate: 0.02,
        fingerprint: "data 2".into(),
        // How checkpoints are kept may change.
        save_steps: Some(5),
        ..started
    };
    let error = train(&run, &flex(), &changed, &mut Recorder::default()).unwrap_err().to_string();
    assert!(error.contains("`learning_rate` was 0.03 and is now 0.02"), "{error}");
    assert!(error.contains("`fingerprint` was \"data 1\" and is now \"data 2\""), "{error}");
    assert!(!error.contains("save_steps"), "{error}");
}

/// Flips a bit in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_reported_and_the_one_before_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path().join("whole")).unwrap();
    let whole = train(&run, &flex(), &config(), &mut Recorder::default()).unwrap();
    let expected = metrics_without_times(run.path());

    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        let path = dir.path().join(file);
        let run = RunDir::create(&path).unwrap();
        let mut hooks = Recorder { stop_after: Some(5), ..Recorder::default() };
        train(&run, &flex(), &config(), &mut hooks).unwrap();
        assert_eq!(checkpoints(&run), ["step-00000004", "step-00000005"]);
        damage(&run.checkpoints().unwrap()[1].join(file));

        let mut hooks = Recorder::default();
        let fitted = train(&run, &flex(), &config(), &mut hooks).unwrap();
        assert_eq!(hooks.reports[0].step, 5);
        assert_eq!(hooks.warnings.len(), 1);
        let warning = &hooks.warnings[0];
        assert!(warning.contains(file) && warning.contains("step-00000004"), "{warning}");
        assert_eq!(fitted.model.bits(), whole.model.bits());
        assert_eq!(metrics_without_times(&path), expected);
    }
}

#[test]
fn a_run_with_damaged_checkpoints_only_does_not_start_over() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path()).unwrap();
    let mut hooks = Recorder { stop_after: Some(5), ..Recorder::default() };
    train(&run, &flex(), &config(), &mut hooks).unwrap();
    for checkpoint in run.checkpoints().unwrap() {
        fs::remove_file(checkpoint.join("model.safetensors")).unwrap();
    }
    let before = fs::read(run.join(RunDir::METRICS)).unwrap();
    let error = train(&run, &flex(), &config(), &mut Recorder::default()).unwrap_err();
    assert!(matches!(&error, Error::NoUsableCheckpoint { reasons, .. } if reasons.len() == 2));
    assert_eq!(fs::read(run.join(RunDir::METRICS)).unwrap(), before);
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_names_the_row() {
    for (poison, quantity) in [(Poison::Loss, "loss"), (Poison::Gradient, "gradient norm")] {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path()).unwrap();
        let device = flex();
        // The poisoned example is the last of the first epoch.
        let row = *Regression::new(10).order(0, 0).last().unwrap();
        let task = Regression::poisoned(10, row, poison);
        let error = fit(&task, Bag::new(&device), &config(), &run, &mut NoHooks).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("step 3: the {quantity} is not finite")), "{text}");
        assert!(text.ends_with(&format!("offending: data.jsonl:{}", row + 1)), "{text}");
        // The last good checkpoint is there and named, and the run goes on once the data is repaired.
        assert_eq!(checkpoints(&run), ["step-00000002"]);
        let named = format!("the newest good checkpoint is {} (step 2)", run.checkpoints().unwrap()[0].display());
        assert!(text.contains(&named), "{text}");
        let resumed = train(&run, &device, &config(), &mut Recorder::default()).unwrap();
        let clean = RunDir::create(dir.path().join("clean")).unwrap();
        let expected = train(&clean, &device, &config(), &mut Recorder::default()).unwrap();
        assert_eq!(resumed.model.bits(), expected.model.bits());
    }
}

#[test]
fn a_model_without_gradients_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path()).unwrap();
    let error = train(&run, &Device::flex(), &config(), &mut Recorder::default()).unwrap_err();
    assert!(error.to_string().contains("autodiff device"), "{error}");
}

#[test]
fn frozen_parameters_stay_and_are_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path()).unwrap();
    let device = flex();
    let mut model = Bag::new(&device);
    model.embedding = model.embedding.set_require_grad(false);
    let start = model.embedding.val().into_data();
    let mut hooks = Recorder { stop_after: Some(4), ..Recorder::default() };
    let fitted = fit(&Regression::new(10), model.clone(), &config(), &run, &mut hooks).unwrap();
    assert_eq!(fitted.model.embedding.val().into_data(), start);
    let bytes = fs::read(fitted.checkpoint.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut names = file.names();
    names.sort();
    assert_eq!(names, ["head", "layers.0.bias", "layers.0.weight"]);

    let resumed = fit(&Regression::new(10), model, &config(), &run, &mut NoHooks).unwrap();
    assert_eq!(resumed.steps, 7);
    // A model that trains other parameters is not the one that was saved.
    let other = RunDir::create(dir.path().join("other")).unwrap();
    let mut hooks = Recorder { stop_after: Some(4), ..Recorder::default() };
    train(&other, &device, &config(), &mut hooks).unwrap();
    let mut model = Bag::new(&device);
    model.embedding = model.embedding.set_require_grad(false);
    let error = fit(&Regression::new(10), model, &config(), &other, &mut NoHooks).unwrap_err();
    assert!(error.to_string().contains("`embedding`"), "{error}");
}

/// Casts every parameter to bf16.
struct Half;

impl ModuleMapper for Half {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let tensor = tensor.inner().cast(FloatDType::BF16).autodiff().set_require_grad(true);
        Param::from_mapped_value(id, tensor, mapper)
    }
}

#[test]
fn a_half_precision_run_resumes_with_its_master_weights() {
    let dir = tempfile::tempdir().unwrap();
    let model = || Bag::new(&flex()).map(&mut Half);
    let train = |name: &str, stop_after| {
        let path = dir.path().join(name);
        let run = if path.exists() { RunDir::open(&path).unwrap() } else { RunDir::create(&path).unwrap() };
        let mut hooks = Recorder { stop_after, ..Recorder::default() };
        fit(&Regression::new(10), model(), &config(), &run, &mut hooks).unwrap()
    };
    let whole = train("whole", None);
    let stopped = train("parts", Some(4));
    let bytes = fs::read(stopped.checkpoint.join("optimizer.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("head.master").unwrap().dtype(), safetensors::Dtype::F32);
    let resumed = train("parts", None);
    assert_eq!(resumed.model.head.val().dtype(), DType::BF16);
    assert_eq!(resumed.model.bits(), whole.model.bits());
    assert_ne!(whole.model.bits(), model().bits());
}

#[test]
fn a_wrong_order_and_a_batch_without_weight_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let error = |name: &str, task: &Regression| {
        let run = RunDir::create(dir.path().join(name)).unwrap();
        fit(task, Bag::new(&flex()), &config(), &run, &mut NoHooks).unwrap_err().to_string()
    };
    let mut task = Regression::new(4);
    for (name, order, expected) in [
        ("short", vec![0, 1], "it has 2 entries"),
        ("twice", vec![0, 1, 1, 3], "1 is out of range or occurs twice"),
        ("outside", vec![0, 1, 2, 4], "4 is out of range"),
    ] {
        task.wrong_order = Some(order);
        let text = error(name, &task);
        assert!(text.contains("different examples of 0..4") && text.contains(expected), "{text}");
    }
    task.wrong_order = None;
    task.examples.iter_mut().for_each(|(ids, _)| ids.clear());
    let text = error("weight", &task);
    assert!(text.contains("total weight of the batch is 0") && text.contains("data.jsonl:1"), "{text}");
}
