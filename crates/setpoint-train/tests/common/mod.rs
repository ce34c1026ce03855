//! A small model and task that the unit tests and the integration tests share.

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::module::{Module, Param};
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData, activation};
use setpoint_train::{
    BatchContext, Error, Evaluation, Forward, Hooks, Measurement, MetricSums, PassNumbers, ResponseValues, RunDir,
    Sample, StepReport, Task, Trainable, Unread,
};

pub const VOCABULARY: usize = 7;
const WIDTH: usize = 4;

/// A bag of tokens, one hidden layer, one number.
#[derive(Module, Debug)]
pub struct Bag {
    pub embedding: Param<Tensor<2>>,
    pub layers: Vec<Layer>,
    pub head: Param<Tensor<2>>,
}

#[derive(Module, Debug)]
pub struct Layer {
    pub weight: Param<Tensor<2>>,
    pub bias: Param<Tensor<1>>,
}

impl Bag {
    /// The same values on every call.
    pub fn new(device: &Device) -> Self {
        let matrix = |rows: usize, columns: usize, seed: f32| {
            let values = (0..rows * columns).map(|i| (seed + 1.7 * i as f32).sin() * 0.5).collect();
            Param::from_data(TensorData::new::<f32, _>(values, [rows, columns]), device)
        };
        Self {
            embedding: matrix(VOCABULARY, WIDTH, 0.3),
            layers: vec![Layer {
                weight: matrix(WIDTH, WIDTH, 1.1),
                bias: Param::from_data([0.1f32, -0.2, 0.05, 0.0], device),
            }],
            head: matrix(WIDTH, 1, 2.2),
        }
    }

    /// `[b, s]` ids and weights of the tokens -> `[b]`
    fn forward(&self, ids: Tensor<2, Int>, weights: Tensor<2>) -> Tensor<1> {
        let [b, s] = ids.dims();
        // [b * s] -> [b * s, d] -> [b, s, d]
        let tokens = value(&self.embedding).select(0, ids.reshape([b * s])).reshape([b, s, WIDTH]);
        // [b, s, d] · [b, s, 1] -> [b, 1, d] -> [b, d]
        let mut hidden = (tokens * weights.reshape([b, s, 1])).sum_dim(1).reshape([b, WIDTH]);
        for layer in &self.layers {
            let bias = value(&layer.bias).reshape([1, WIDTH]);
            hidden = activation::tanh(hidden.matmul(value(&layer.weight)) + bias);
        }
        // [b, d] -> [b, 1] -> [b]
        hidden.matmul(value(&self.head)).reshape([b])
    }

    /// All parameters to the bit.
    pub fn bits(&self) -> Vec<u32> {
        let mut bits = vec![];
        let mut push = |data: TensorData| bits.extend(data.iter::<f32>().map(f32::to_bits));
        push(self.embedding.val().into_data());
        for layer in &self.layers {
            push(layer.weight.val().into_data());
            push(layer.bias.val().into_data());
        }
        push(self.head.val().into_data());
        bits
    }
}

impl Trainable for Bag {}

/// The parameter in f32, which the model computes in whatever its parameters' dtype.
fn value<const D: usize>(parameter: &Param<Tensor<D>>) -> Tensor<D> {
    parameter.val().cast(FloatDType::F32)
}

/// The fault of an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// Its loss is NaN.
    Loss,
    /// Its loss is fine and its gradient is not.
    Gradient,
}

/// A function that is called before each forward pass, with its number and the model.
pub type BeforePass = Box<dyn Fn(u64, &Bag) + Sync>;

/// Regression on bags of unequal length, weighted by their length.
pub struct Regression {
    pub examples: Vec<(Vec<u32>, f32)>,
    pub poison: Option<(usize, Poison)>,
    /// An order that is not a permutation, instead of the right one.
    pub wrong_order: Option<Vec<usize>>,
    /// Forward passes so far.
    pub passes: AtomicU64,
    /// Called before each forward pass.
    pub before_pass: BeforePass,
}

impl Regression {
    pub fn new(examples: usize) -> Self {
        let examples = (0..examples)
            .map(|i| {
                let length = 1 + (i * 5) % 6;
                let ids = (0..length).map(|t| ((i * 3 + t * t) % VOCABULARY) as u32).collect();
                (ids, (i as f32 * 0.9).cos())
            })
            .collect();
        Self { examples, poison: None, wrong_order: None, passes: AtomicU64::new(0), before_pass: Box::new(|_, _| {}) }
    }

    pub fn poisoned(examples: usize, example: usize, poison: Poison) -> Self {
        Self { poison: Some((example, poison)), ..Self::new(examples) }
    }
}

impl Task for Regression {
    type Model = Bag;
    type Probe = ();
    type Survey = ();

    fn len(&self) -> usize {
        self.examples.len()
    }

    fn weight(&self, example: usize) -> f64 {
        self.examples[example].0.len() as f64
    }

    fn cost(&self, example: usize) -> usize {
        self.examples[example].0.len()
    }

    fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        if let Some(order) = &self.wrong_order {
            return order.clone();
        }
        let examples = self.examples.len();
        assert_ne!(examples % 3, 0, "3 must generate the permutation");
        (0..examples).map(|i| (3 * i + (seed + epoch) as usize) % examples).collect()
    }

    fn forward(&self, model: &Bag, examples: &[usize], batch: &BatchContext<()>) -> Result<Forward, Error> {
        (self.before_pass)(1 + self.passes.fetch_add(1, Ordering::SeqCst), model);
        let device = model.head.val().device().without_autodiff();
        let width = examples.iter().map(|&e| self.cost(e)).max().unwrap_or(0);
        let (mut ids, mut shares, mut targets, mut weights) = (vec![], vec![], vec![], vec![]);
        for &example in examples {
            let (tokens, target) = &self.examples[example];
            for position in 0..width {
                ids.push(tokens.get(position).map_or(0, |&id| id as i32));
                let real = position < tokens.len();
                shares.push(if real { 1.0 / tokens.len() as f32 } else { 0.0 });
            }
            let poisoned = self.poison == Some((example, Poison::Loss));
            targets.push(if poisoned { f32::NAN } else { *target });
            weights.push(tokens.len() as f32);
        }
        let shape = [examples.len(), width];
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &device);
        let shares = Tensor::<2>::from_data(TensorData::new(shares, shape), &device);
        let targets = Tensor::<1>::from_data(targets.as_slice(), &device);
        let weights = Tensor::<1>::from_data(weights.as_slice(), &device);
        let errors = (model.forward(ids, shares) - targets).square();
        let of_examples = errors.clone();
        let mut loss = (errors * weights).sum_dim(0) / batch.denominator;
        if let Some((example, Poison::Gradient)) = self.poison
            && examples.contains(&example)
        {
            // √0 is 0 and its derivative is not finite.
            loss = loss + (model.head.val().reshape([WIDTH]) * 0.0).sum_dim(0).sqrt();
        }
        let lengths: Vec<(usize, f64)> = examples.iter().map(|&example| (example, self.weight(example))).collect();
        let numbers = Unread::of(of_examples).map(move |errors| {
            let mut metrics = MetricSums::new();
            metrics.mean("mse", errors.iter().sum(), errors.len() as f64);
            metrics.max("worst", errors.iter().copied().fold(0.0, f64::max));
            let mut responses = ResponseValues::default();
            for (&(example, length), &error) in lengths.iter().zip(&errors) {
                responses.push(example, [("error", error), ("length", length)]);
            }
            PassNumbers { metrics, per_example: errors.iter().map(|&error| error as f32).collect(), responses }
        });
        Ok(Forward { loss, numbers, tape: None, second_tape: None })
    }

    fn describe(&self, example: usize) -> String {
        format!("data.jsonl:{}", example + 1)
    }
}

/// Hooks that write down what they see.
#[derive(Default)]
pub struct Recorder {
    pub reports: Vec<StepReport>,
    pub evaluations: Vec<Evaluation>,
    pub warnings: Vec<String>,
    /// Metrics that the evaluations return, one after another; after them a sum of the parameters.
    pub scripted: RefCell<Vec<f64>>,
    /// Steps after which to stop.
    pub stop_after: Option<u64>,
    /// The metric above which an evaluation ends the run.
    pub end_above: Option<f64>,
}

impl Hooks<Bag> for Recorder {
    fn evaluate(&mut self, model: &Bag, _step: u64) -> Result<Measurement, Error> {
        let mut scripted = self.scripted.borrow_mut();
        let value = if scripted.is_empty() {
            model.bits().iter().map(|&bits| f64::from(f32::from_bits(bits))).sum()
        } else {
            scripted.remove(0)
        };
        let mut responses = ResponseValues::default();
        responses.push(0, [("score", value)]);
        Ok(Measurement {
            metrics: vec![("eval_score".into(), value)],
            responses,
            ends: self.end_above.is_some_and(|limit| value > limit),
        })
    }

    fn sample(&mut self, model: &Bag, step: u64) -> Result<Vec<Sample>, Error> {
        Ok(vec![Sample { prompt: format!("step {step}"), completion: format!("{:08x}", model.bits()[0]) }])
    }

    fn progress(&mut self, report: &StepReport) {
        self.reports.push(report.clone());
    }

    fn evaluated(&mut self, evaluation: &Evaluation) {
        self.evaluations.push(evaluation.clone());
    }

    fn warning(&mut self, message: &str) {
        self.warnings.push(message.to_string());
    }

    fn should_stop(&mut self) -> bool {
        let done = self.reports.last().map(|report| report.step);
        self.stop_after.is_some() && done == self.stop_after
    }
}

/// A metrics file without the fields that hold times.
pub fn metrics_without_times(run: &Path) -> Vec<serde_json::Map<String, serde_json::Value>> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines()
        .map(|line| {
            let mut line: serde_json::Map<_, _> = serde_json::from_str(line).unwrap();
            line.retain(|key, _| key != "step_seconds" && key != "tokens_per_second");
            line
        })
        .collect()
}

/// The lines of a run's log of responses.
pub fn responses(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join(RunDir::RESPONSES)).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
