//! Several devices train what one does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use burn::tensor::{Device, Tensor};
use setpoint_train::{
    AdamWConfig, Collective, Communicator, DeviceGroup, Error, Fitted, MicroBatch, NoHooks, RunDir, StopReason,
    SumOnFirst, Task, TrainConfig, fit, fit_on,
};

use crate::common::{Bag, Poison, Recorder, Regression, metrics_without_times, responses};
use crate::{devices, ndarray};

/// 22 examples in batches of 8, 8 and 6, twice.
fn config() -> TrainConfig {
    TrainConfig {
        batch_size: 8,
        micro_batch: MicroBatch::Examples(3),
        epochs: 2.0,
        learning_rate: 0.05,
        optimizer: AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() },
        save_steps: Some(1),
        ..TrainConfig::default()
    }
}

/// The same, with parameters that move inside the backward pass.
fn in_backward() -> TrainConfig {
    TrainConfig {
        micro_batch: MicroBatch::Examples(8),
        max_grad_norm: Some(0.0),
        optimizer: AdamWConfig { in_backward: true, ..config().optimizer },
        ..config()
    }
}

fn flex() -> Device {
    Device::flex()
}

/// Two and three devices of a kind, and two of different kinds, between which numbers have to be carried.
fn groups() -> Vec<Vec<Device>> {
    vec![vec![flex(), flex()], vec![flex(), flex(), flex()], vec![ndarray(), ndarray()], vec![flex(), ndarray()]]
}

fn group(devices: &[Device]) -> DeviceGroup {
    DeviceGroup::new(devices.to_vec(), SumOnFirst)
}

fn train(
    devices: &DeviceGroup,
    config: &TrainConfig,
    run: &RunDir,
    hooks: &mut Recorder,
) -> Result<Fitted<Bag>, Error> {
    fit_on(devices, &Regression::new(22), Bag::new(&devices.first().clone().autodiff()), config, run, hooks)
}

/// Trains in a new folder.
fn whole(devices: &DeviceGroup, config: &TrainConfig) -> (Fitted<Bag>, Recorder, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut hooks = Recorder::default();
    let fitted = train(devices, config, &RunDir::create(dir.path()).unwrap(), &mut hooks).unwrap();
    (fitted, hooks, dir)
}

fn values(model: &Bag) -> Vec<f32> {
    model.bits().into_iter().map(f32::from_bits).collect()
}

fn close(found: &Bag, expected: &Bag, what: &str) {
    for (found, expected) in values(found).into_iter().zip(values(expected)) {
        assert!((found - expected).abs() < 1e-5, "{what}: {found} {expected}");
    }
}

#[test]
fn the_gradient_does_not_depend_on_the_number_of_devices() {
    for config in [config(), in_backward()] {
        let (expected, one, dir) = whole(&DeviceGroup::single(flex()), &config);
        for devices in groups() {
            let (fitted, several, several_dir) = whole(&group(&devices), &config);
            let what = format!("{devices:?}, in_backward {}", config.optimizer.in_backward);
            close(&fitted.model, &expected.model, &what);
            for (a, b) in several.reports.iter().zip(&one.reports) {
                assert!((a.loss - b.loss).abs() < 1e-6 * b.loss, "{what}: {} {}", a.loss, b.loss);
                assert!(
                    (a.grad_norm - b.grad_norm).abs() < 1e-5 * b.grad_norm,
                    "{what}: {} {}",
                    a.grad_norm,
                    b.grad_norm
                );
                assert_eq!(a.num_tokens, b.num_tokens, "{what}");
            }
            // Each device has a share, of one micro-batch or more.
            let passes = several.reports[0].micro_batches;
            let expected = if config.optimizer.in_backward { passes == devices.len() } else { passes >= devices.len() };
            assert!(expected, "{what}: {passes} passes");
            // Every example is logged once, whichever device computed it.
            let logged = |run: &std::path::Path| -> Vec<Vec<u64>> {
                let sorted = |line: &serde_json::Value| {
                    let mut examples: Vec<u64> =
                        line["example"].as_array().unwrap().iter().map(|e| e.as_u64().unwrap()).collect();
                    examples.sort_unstable();
                    examples
                };
                responses(run).iter().map(sorted).collect()
            };
            assert_eq!(logged(several_dir.path()), logged(dir.path()), "{what}");
        }
    }
}

#[test]
fn an_interrupted_run_on_several_devices_ends_with_the_bits_of_one_that_was_not() {
    for config in [config(), in_backward()] {
        let devices = group(&[flex(), flex()]);
        let (expected, _, expected_dir) = whole(&devices, &config);
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path()).unwrap();
        let mut hooks = Recorder { stop_after: Some(2), ..Recorder::default() };
        assert_eq!(train(&devices, &config, &run, &mut hooks).unwrap().stop, StopReason::Requested);
        drop(run);
        let mut hooks = Recorder::default();
        let resumed = train(&devices, &config, &RunDir::open(dir.path()).unwrap(), &mut hooks).unwrap();
        assert_eq!(resumed.model.bits(), expected.model.bits());
        assert!(hooks.warnings.is_empty(), "{:?}", hooks.warnings);
        assert_eq!(metrics_without_times(dir.path()), metrics_without_times(expected_dir.path()));
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_devices_and_says_so() {
    let (expected, ..) = whole(&DeviceGroup::single(flex()), &config());
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path()).unwrap();
    let mut hooks = Recorder { stop_after: Some(2), ..Recorder::default() };
    train(&DeviceGroup::single(flex()), &config(), &run, &mut hooks).unwrap();
    drop(run);
    let mut hooks = Recorder::default();
    let devices = group(&[flex(), flex()]);
    let resumed = train(&devices, &config(), &RunDir::open(dir.path()).unwrap(), &mut hooks).unwrap();
    close(&resumed.model, &expected.model, "from one device to two");
    let [warning] = hooks.warnings.as_slice() else { panic!("{:?}", hooks.warnings) };
    assert!(warning.contains("began on 1 device and goes on with 2"), "{warning}");
}

#[test]
fn devices_without_an_example_move_with_the_others() {
    for config in [config(), in_backward()] {
        let config = TrainConfig { batch_size: 2, max_steps: Some(3), ..config };
        let (expected, ..) = whole(&DeviceGroup::single(flex()), &config);
        let (fitted, hooks, _dir) = whole(&group(&[flex(), ndarray(), flex()]), &config);
        close(&fitted.model, &expected.model, "three devices, two examples");
        assert_eq!(hooks.warnings, ["1 of 3 devices has nothing to do: a batch has 2 examples"]);
    }
}

#[test]
fn a_loss_that_is_not_finite_on_any_device_stops_all_and_names_the_row() {
    for config in [config(), in_backward()] {
        // Whichever device it falls to.
        for example in 0..8 {
            let row = Regression::new(22).order(0, 0)[example];
            for (poison, quantity) in [(Poison::Loss, "loss"), (Poison::Gradient, "gradient norm")] {
                let dir = tempfile::tempdir().unwrap();
                let run = RunDir::create(dir.path()).unwrap();
                let task = Regression::poisoned(22, row, poison);
                let model = Bag::new(&flex().autodiff());
                let error = fit_on(&group(&[flex(), flex()]), &task, model, &config, &run, &mut NoHooks).unwrap_err();
                let text = error.to_string();
                assert!(text.starts_with(&format!("step 1: the {quantity} is not finite")), "{text}");
                assert!(text.contains(&format!("data.jsonl:{}", row + 1)), "{text}");
                // What has moved in the backward pass cannot be computed again: the batch is named.
                let named = if config.optimizer.in_backward && poison == Poison::Gradient { 8 } else { 1 };
                assert_eq!(text.matches("data.jsonl:").count(), named, "{text}");
            }
        }
    }
}

/// Counts what goes from device to device.
#[derive(Debug, Default)]
struct Counted {
    calls: AtomicUsize,
    parameters: AtomicUsize,
    broadcasts: AtomicUsize,
}

impl Collective for &'static Counted {
    fn connect(&self, devices: &[Device]) -> Vec<Box<dyn Communicator>> {
        let count = |end| Box::new(Counting { counted: self, end }) as Box<dyn Communicator>;
        SumOnFirst.connect(devices).into_iter().map(count).collect()
    }
}

struct Counting {
    counted: &'static Counted,
    end: Box<dyn Communicator>,
}

impl Communicator for Counting {
    fn all_reduce(&mut self, parts: Vec<Tensor<1>>) -> Option<Vec<Tensor<1>>> {
        self.counted.calls.fetch_add(1, Ordering::SeqCst);
        self.counted.parameters.fetch_add(parts.len(), Ordering::SeqCst);
        self.end.all_reduce(parts)
    }

    fn reduce_scatter(&mut self, parts: Vec<Tensor<1>>, owners: &[usize]) -> Option<Vec<Tensor<1>>> {
        self.counted.calls.fetch_add(1, Ordering::SeqCst);
        self.counted.parameters.fetch_add(parts.len(), Ordering::SeqCst);
        self.end.reduce_scatter(parts, owners)
    }

    fn broadcast(&mut self, part: &Tensor<1>, owner: usize) -> Option<Tensor<1>> {
        self.counted.broadcasts.fetch_add(1, Ordering::SeqCst);
        self.end.broadcast(part, owner)
    }
}

#[test]
fn gradients_are_added_up_once_a_step_and_weights_gathered_if_they_are_divided() {
    for shard in [true, false] {
        let counted: &'static Counted = Box::leak(Box::default());
        let config = TrainConfig { optimizer: AdamWConfig { shard, ..config().optimizer }, ..config() };
        whole(&DeviceGroup::new(vec![flex(), flex()], counted), &config);
        // Six steps on two devices; embeddings, a weight, a bias and a head.
        let of = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        let found = [&counted.calls, &counted.parameters, &counted.broadcasts].map(of);
        assert_eq!(found, [6 * 2, 6 * 2 * 4, if shard { 6 * 2 * 4 } else { 0 }]);
    }
}

#[test]
fn the_models_of_all_devices_hold_the_same_bits_at_every_step() {
    let whole = TrainConfig { micro_batch: MicroBatch::Examples(8), ..config() };
    let undivided =
        |config: TrainConfig| TrainConfig { optimizer: AdamWConfig { shard: false, ..config.optimizer }, ..config };
    for config in [whole.clone(), undivided(whole), in_backward(), undivided(in_backward())] {
        let models = Arc::new(Mutex::new(vec![]));
        let seen = models.clone();
        let before_pass = Box::new(move |_, model: &Bag| seen.lock().unwrap().push(model.bits()));
        let task = Regression { before_pass, ..Regression::new(22) };
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path()).unwrap();
        let model = Bag::new(&flex().autodiff());
        fit_on(&group(&[flex(), flex(), flex()]), &task, model, &config, &run, &mut NoHooks).unwrap();
        let models = models.lock().unwrap();
        assert_eq!(models.len(), 6 * 3);
        let steps: Vec<&[Vec<u32>]> = models.chunks(3).collect();
        for models in &steps {
            assert!(models.iter().all(|model| *model == models[0]));
        }
        assert!(steps.windows(2).all(|pair| pair[0][0] != pair[1][0]), "every step moves the model");
    }
}

#[test]
fn a_model_that_is_not_on_the_first_device_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path()).unwrap();
    let model = Bag::new(&flex().autodiff());
    let error = fit_on(&group(&[ndarray(), flex()]), &Regression::new(22), model, &config(), &run, &mut NoHooks);
    let text = error.unwrap_err().to_string();
    assert!(text.contains("the model is on") && text.contains("the first of the devices"), "{text}");
}

#[test]
fn one_device_is_a_group_of_one() {
    for device in devices() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path()).unwrap();
        let alone = fit(&Regression::new(22), Bag::new(&device), &config(), &run, &mut NoHooks).unwrap();
        let (grouped, ..) = whole(&DeviceGroup::single(device), &config());
        assert_eq!(grouped.model.bits(), alone.model.bits());
    }
}
