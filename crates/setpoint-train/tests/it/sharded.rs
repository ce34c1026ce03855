//! An optimizer that is divided among devices moves a model to the same bits as one that every device has.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use setpoint_train::{
    AdamW, AdamWConfig, BatchContext, ClipBy, Collective, Communicator, DeviceGroup, Error, GradientSink, Hooks,
    MicroBatch, MomentsFormat, NoHooks, PromptLogps, RunDir, Schedule, ScheduleKind, Sequence, StepReport, SumOnFirst,
    Task, TrainConfig, Warmup, backward, clip_scale, fit_on,
};
use setpoint_transformer::lora::{LoraConfig, attach};
use setpoint_transformer::{CausalLm, ModelConfig, Recompute};

use crate::common::{Bag, Regression};
use crate::seeded::Seeded;

/// 22 examples in batches of 8, 8 and 6, twice.
fn config() -> TrainConfig {
    TrainConfig {
        batch_size: 8,
        micro_batch: MicroBatch::Examples(3),
        epochs: 2.0,
        learning_rate: 0.05,
        // Every gradient is clipped.
        max_grad_norm: Some(0.01),
        optimizer: AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() },
        ..TrainConfig::default()
    }
}

/// The same, with parameters that move inside the backward pass.
fn in_backward(config: TrainConfig) -> TrainConfig {
    let optimizer = AdamWConfig { in_backward: true, ..config.optimizer };
    TrainConfig { micro_batch: MicroBatch::Examples(config.batch_size), clip_by: ClipBy::Previous, optimizer, ..config }
}

fn flex() -> Device {
    Device::flex().autodiff()
}

fn group(devices: usize) -> DeviceGroup {
    DeviceGroup::new(vec![Device::flex(); devices], SumOnFirst)
}

/// Writes down loss and norm of each step, and stops.
#[derive(Default)]
struct Steps {
    steps: Vec<(f64, f64)>,
    stop_after: Option<u64>,
}

impl<M: Module> Hooks<M> for Steps {
    fn progress(&mut self, report: &StepReport) {
        self.steps.push((report.loss, report.grad_norm));
    }

    fn should_stop(&mut self) -> bool {
        self.stop_after.is_some_and(|steps| self.steps.len() as u64 >= steps)
    }
}

/// The end of a run to the bit: the steps that this process made, and the files of parameters and optimizer.
type End = (Vec<(f64, f64)>, [Vec<u8>; 2]);

/// Trains for some steps, or to the end, from the beginning or from the checkpoint that is there.
fn train<T: Task>(
    dir: &Path,
    task: &T,
    model: T::Model,
    devices: usize,
    config: &TrainConfig,
    stop_after: Option<u64>,
) -> End {
    let run = if dir.exists() { RunDir::open(dir) } else { RunDir::create(dir) };
    let mut steps = Steps { stop_after, ..Steps::default() };
    let fitted = fit_on(&group(devices), task, model, config, &run.unwrap(), &mut steps).unwrap();
    let file = |name: &str| std::fs::read(fitted.checkpoint.join(name)).unwrap();
    (steps.steps, [file("model.safetensors"), file("optimizer.safetensors")])
}

/// The ends of a run whose optimizer is divided, and of one whose optimizer is not.
fn ends<T: Task>(task: &T, model: impl Fn() -> T::Model, devices: usize, config: &TrainConfig) -> [End; 2] {
    [true, false].map(|shard| {
        let config = TrainConfig { optimizer: AdamWConfig { shard, ..config.optimizer }, ..config.clone() };
        let dir = tempfile::tempdir().unwrap();
        train(&dir.path().join("run"), task, model(), devices, &config, None)
    })
}

fn assert_same<T: Task>(task: &T, model: impl Fn() -> T::Model, config: &TrainConfig, what: &str) {
    for devices in [2, 3] {
        let [divided, whole] = ends(task, &model, devices, config);
        assert_eq!(divided.0, whole.0, "{what}, {devices} devices: losses and norms");
        assert!(divided.1 == whole.1, "{what}, {devices} devices: parameters or optimizer");
    }
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
fn the_bits_do_not_depend_on_who_holds_the_optimizer() {
    let task = Regression::new(22);
    let unclipped = TrainConfig { max_grad_norm: Some(0.0), ..config() };
    let by_previous = TrainConfig { clip_by: ClipBy::Previous, ..config() };
    for (config, what) in [
        (config(), "accumulated and clipped"),
        (by_previous, "clipped by the step before"),
        (unclipped.clone(), "not clipped"),
        (in_backward(config()), "in the backward pass, clipped"),
        (in_backward(unclipped), "in the backward pass, not clipped"),
        // Two examples: with three devices one has no share of the batch.
        (TrainConfig { batch_size: 2, max_steps: Some(4), ..config() }, "fewer examples than devices"),
        (in_backward(TrainConfig { batch_size: 2, max_steps: Some(4), ..config() }), "the same in the backward pass"),
    ] {
        assert_same(&task, || Bag::new(&flex()), &config, what);
        // With master copies in f32.
        assert_same(&task, || Bag::new(&flex()).map(&mut Half), &config, &format!("{what}, bf16"));
    }
}

/// Blocks with matrices of 4096 numbers and more, whose moments can have 8-bit codes.
fn model() -> CausalLm {
    let config = ModelConfig::from_json(
        r#"{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
            "vocab_size": 96, "tie_word_embeddings": true, "rms_norm_eps": 1e-5, "max_position_embeddings": 64}"#,
    );
    let mut model = CausalLm::init(&config.unwrap(), 3, &flex());
    model.model.recompute = Recompute::Block;
    model
}

fn rows() -> Seeded {
    let row =
        |i: u32| Sequence { ids: (0..6 + i).map(|t| (7 * i + 5 * t) % 96).collect(), prompt_len: 3, scored_from: 1 };
    Seeded {
        sequences: (0..6).map(row).collect(),
        seeds: vec![-1.0, 0.5, -0.7, -1.0, 0.2, -0.4],
        prompt: PromptLogps::Skip,
    }
}

fn short() -> TrainConfig {
    TrainConfig { max_steps: Some(4), batch_size: 6, micro_batch: MicroBatch::Examples(2), ..config() }
}

#[test]
fn blocks_codes_and_adapters_have_owners() {
    let coded = AdamWConfig { state: MomentsFormat::EightBit, ..short().optimizer };
    let coded = TrainConfig { optimizer: coded, ..short() };
    let adapted = || {
        let lora = LoraConfig { rank: 4, dropout: Some(0.2), ..LoraConfig::default() };
        let mut adapted = attach(model(), &lora, 7).unwrap();
        adapted.model.recompute = Recompute::Block;
        adapted
    };
    for (config, what) in [
        (short(), "after the backward pass"),
        (in_backward(short()), "in the backward pass"),
        (coded.clone(), "8-bit"),
        (in_backward(coded), "8-bit, in the backward pass"),
    ] {
        assert_same(&rows(), model, &config, what);
        assert_same(&rows(), adapted, &config, &format!("{what}, adapter"));
    }
    // The codes are there, and an adapter's file has nothing of the frozen weights.
    let tensors = |model: &dyn Fn() -> CausalLm| {
        let config =
            TrainConfig { optimizer: AdamWConfig { state: MomentsFormat::EightBit, ..short().optimizer }, ..short() };
        let [(_, [_, optimizer]), _] = ends(&rows(), model, 2, &config);
        let file = safetensors::SafeTensors::deserialize(&optimizer).unwrap();
        file.names().iter().map(|name| name.to_string()).collect::<Vec<_>>()
    };
    assert!(tensors(&model).contains(&"model.layers.1.mlp.up_proj.weight.exp_avg.scales".to_owned()));
    assert!(tensors(&adapted).iter().all(|name| name.contains(".lora_")));
}

#[test]
fn a_run_goes_on_with_other_devices_and_another_division() {
    let task = Regression::new(22);
    for config in [config(), in_backward(config())] {
        // The devices and the division of three parts of a run, and of one that has the same devices and no division.
        for parts in
            [[(3, true), (2, true), (1, true)], [(1, true), (3, true), (2, false)], [(2, false), (2, true), (3, true)]]
        {
            let go_on = |divides: bool| {
                let dir = tempfile::tempdir().unwrap();
                let dir = dir.path().join("run");
                let mut ends = vec![];
                for (part, (devices, shard)) in parts.into_iter().enumerate() {
                    let optimizer = AdamWConfig { shard: shard && divides, ..config.optimizer };
                    let config = TrainConfig { optimizer, ..config.clone() };
                    let stop_after = (part < 2).then_some(2);
                    ends.push(train(&dir, &task, Bag::new(&flex()), devices, &config, stop_after));
                }
                ends
            };
            assert!(go_on(true) == go_on(false), "{parts:?}");
        }
    }
}

#[test]
fn moments_in_another_format_are_refused_by_name() {
    let task = Regression::new(22);
    let coded = AdamWConfig { state: MomentsFormat::EightBit, ..config().optimizer };
    let formats = [config(), TrainConfig { optimizer: coded, ..config() }];
    for (was, is, said) in [
        (0, 1, "`optimizer.state` was \"f32\" and is now \"8bit\""),
        (1, 0, "`optimizer.state` was \"8bit\" and is now \"f32\""),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("run");
        train(&dir, &task, Bag::new(&flex()), 2, &formats[was], Some(2));
        // With the same number of devices, and with another.
        for devices in [2, 3] {
            let run = RunDir::open(&dir).unwrap();
            let ended = fit_on(&group(devices), &task, Bag::new(&flex()), &formats[is], &run, &mut NoHooks);
            let Err(error) = ended else { panic!("{said}") };
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}

#[test]
fn an_interrupted_run_ends_with_the_bits_of_one_that_was_not() {
    let task = Regression::new(22);
    for config in [config(), TrainConfig { clip_by: ClipBy::Previous, ..config() }, in_backward(config())] {
        for devices in [1, 3] {
            let dir = tempfile::tempdir().unwrap();
            let go = |name: &str, stop_after| {
                train(&dir.path().join(name), &task, Bag::new(&flex()), devices, &config, stop_after)
            };
            let (whole, first, rest) = (go("whole", None), go("parts", Some(2)), go("parts", None));
            assert_eq!([first.0, rest.0].concat(), whole.0, "{devices} devices: {:?}", config.clip_by);
            assert!(rest.1 == whole.1, "{devices} devices: {:?}", config.clip_by);
        }
    }
}

/// One device, by hand: the gradient of each step is clipped by the norm that the gradient of the step before had.
#[test]
fn the_norm_of_the_step_before_clips() {
    let schedule = Schedule { kind: ScheduleKind::Constant, warmup: Warmup::Steps(0) };
    let config = TrainConfig { schedule, micro_batch: MicroBatch::Examples(8), clip_by: ClipBy::Previous, ..config() };
    let task = Regression::new(22);
    let (mut model, mut optimizer) = (Bag::new(&flex()), AdamW::new(config.optimizer));
    let (mut before, mut norms) = (None, vec![]);
    for batch in [task.order(0, 0), task.order(0, 1)].iter().flat_map(|order| order.chunks(8)) {
        let denominator = batch.iter().map(|&example| task.weight(example)).sum();
        // In the order in which the engine computes a batch.
        let mut batch = batch.to_vec();
        batch.sort_by_key(|&example| std::cmp::Reverse(task.cost(example)));
        let forward = task.forward(&model, &batch, &BatchContext { denominator, ..BatchContext::default() }).unwrap();
        let mut sink = GradientSink::new();
        backward(&model, "model", forward.loss, forward.tape, &mut sink);
        let norm = sink.norm();
        let scale = before.map_or(1.0, |norm| clip_scale(norm, 0.01));
        model = optimizer.step(model, sink, config.learning_rate, scale).unwrap();
        before = Some(norm);
        norms.push(norm);
    }
    assert!(norms.iter().all(|&norm| norm > 0.02), "all but the first are clipped: {norms:?}");
    for config in [config.clone(), in_backward(config)] {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path()).unwrap();
        let mut steps = Steps::default();
        let fitted = fit_on(&group(1), &task, Bag::new(&flex()), &config, &run, &mut steps).unwrap();
        assert_eq!(steps.steps.iter().map(|(_, norm)| *norm).collect::<Vec<_>>(), norms);
        assert_eq!(fitted.model.bits(), model.bits(), "in_backward {}", config.optimizer.in_backward);
    }
}

/// A collective in which one device leaves before a broadcast, counted over all devices.
#[derive(Debug)]
struct Leaving {
    device: usize,
    at: usize,
}

struct Leaver {
    end: Box<dyn Communicator>,
    broadcasts: AtomicUsize,
    at: Option<usize>,
}

impl Collective for Leaving {
    fn connect(&self, devices: &[Device]) -> Vec<Box<dyn Communicator>> {
        let ends = SumOnFirst.connect(devices).into_iter().enumerate();
        let leaver = |(device, end)| {
            let at = (device == self.device).then_some(self.at);
            Box::new(Leaver { end, broadcasts: AtomicUsize::new(0), at }) as Box<dyn Communicator>
        };
        ends.map(leaver).collect()
    }
}

impl Communicator for Leaver {
    fn all_reduce(&mut self, parts: Vec<Tensor<1>>) -> Option<Vec<Tensor<1>>> {
        self.end.all_reduce(parts)
    }

    fn reduce_scatter(&mut self, parts: Vec<Tensor<1>>, owners: &[usize]) -> Option<Vec<Tensor<1>>> {
        self.end.reduce_scatter(parts, owners)
    }

    fn broadcast(&mut self, part: &Tensor<1>, owner: usize) -> Option<Tensor<1>> {
        if Some(self.broadcasts.fetch_add(1, Ordering::SeqCst)) == self.at {
            return None;
        }
        self.end.broadcast(part, owner)
    }
}

#[test]
fn a_device_that_leaves_while_weights_are_gathered_is_noticed() {
    for config in [config(), in_backward(config())] {
        // Four parameters a step.
        for (device, at) in [(0, 0), (1, 1), (2, 3), (0, 6), (2, 8)] {
            let devices = DeviceGroup::new(vec![Device::flex(); 3], Leaving { device, at });
            let dir = tempfile::tempdir().unwrap();
            let run = RunDir::create(dir.path()).unwrap();
            let ended = fit_on(&devices, &Regression::new(22), Bag::new(&flex()), &config, &run, &mut NoHooks);
            let Err(Error::Forward { reason }) = ended else { panic!("device {device} leaves") };
            assert_eq!(reason, "a device stopped in the middle of a step");
        }
    }
}
