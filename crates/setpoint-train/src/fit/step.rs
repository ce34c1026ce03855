//! The gradient of one step.

use burn::module::Module;
use burn::tensor::Tensor;
use setpoint_transformer::Part;

use crate::sink::norm_of;
use crate::task::accept_part;
use crate::{AdamW, Error, Forward, GradientSink, MetricSums, MicroBatch, ResponseValues, Survey, Task, TrainConfig};

/// Loss, metrics, responses' numbers and gradient norm of a whole batch.
pub(super) struct Measured {
    pub(super) loss: f64,
    pub(super) grad_norm: f64,
    pub(super) metrics: MetricSums,
    pub(super) responses: ResponseValues,
    pub(super) micro_batches: usize,
}

/// Runs the batch of a step (from 1) forward and backward, one micro-batch after another.
///
/// # Errors
/// When the loss or the gradient is not finite; the model has not moved then.
pub(super) fn accumulate<T: Task>(
    task: &T,
    model: &T::Model,
    batch: &[usize],
    config: &TrainConfig,
    step: u64,
    progress: f64,
) -> Result<(GradientSink, Measured), Error> {
    let (batch, denominator) = weighed(task, batch, step)?;
    let survey = Survey { progress, ..task.survey(model, &batch, config.micro_batch)? };
    let split = config.micro_batch.split(&batch, |example| task.cost(example));
    let mut sink = GradientSink::new();
    let mut loss = 0.0;
    let mut metrics = MetricSums::new();
    let mut responses = ResponseValues::default();
    for examples in &split {
        let mut forward = task.forward_surveyed(model, examples, denominator, &survey)?;
        metrics.merge(&forward.metrics);
        responses.append(std::mem::take(&mut forward.responses));
        loss += backward(task, model, examples, forward, &mut sink, step)?;
    }
    let grad_norm = sink.norm();
    if !grad_norm.is_finite() {
        return Err(Error::NonFinite {
            step,
            quantity: "gradient norm",
            value: grad_norm,
            examples: names(task, &culprits(task, model, &split, denominator, &survey, step)?),
        });
    }
    Ok((sink, Measured { loss, grad_norm, metrics, responses, micro_batches: split.len() }))
}

/// Runs the batch forward and backward in one piece, and moves each part of the model as soon as its gradient is complete.
///
/// # Errors
/// When the loss or the gradient is not finite. The model is lost then: parts of it may have moved already.
pub(super) fn move_in_backward<T: Task>(
    task: &T,
    model: T::Model,
    batch: &[usize],
    optimizer: &mut AdamW,
    learning_rate: f64,
    step: u64,
    progress: f64,
) -> Result<(T::Model, Measured), Error> {
    let (batch, denominator) = weighed(task, batch, step)?;
    let whole = MicroBatch::Examples(batch.len());
    let survey = Survey { progress, ..task.survey(&model, &batch, whole)? };
    let batch = whole.split(&batch, |example| task.cost(example)).concat();
    let forward = task.forward_surveyed(&model, &batch, denominator, &survey)?;
    let loss = checked_loss(task, &batch, &forward, step)?;
    let (metrics, responses) = (forward.metrics, forward.responses);
    let mut moving = Moving { model: Ok(model), optimizer, learning_rate, squares: vec![] };
    let decoder = task.decoder();
    // A tied head adds to the gradient of the embeddings, which is complete only at the end.
    let embeddings = format!("{decoder}.embed_tokens.weight");
    let mut rest = GradientSink::new();
    let mut gradients = forward.loss.backward();
    if let Ok(model) = &moving.model {
        rest.accept("", model, &mut gradients);
    }
    moving.accept(rest.take_all_but(&embeddings));
    if let Some(tape) = forward.tape {
        tape.backward(&mut gradients, &mut |part, gradients| {
            let block = matches!(part, Part::Block(..));
            accept_part(decoder, part, gradients, &mut rest);
            if block {
                moving.accept(rest.take_all_but(&embeddings));
            }
        });
    }
    moving.accept(rest);
    let grad_norm = norm_of(moving.squares);
    if !grad_norm.is_finite() {
        let (quantity, examples) = ("gradient norm", names(task, &batch));
        return Err(Error::NonFinite { step, quantity, value: grad_norm, examples });
    }
    Ok((moving.model?, Measured { loss, grad_norm, metrics, responses, micro_batches: 1 }))
}

/// A model on its way through its own backward pass.
struct Moving<'a, M> {
    model: Result<M, Error>,
    optimizer: &'a mut AdamW,
    learning_rate: f64,
    /// Of the gradients that have been used up.
    squares: Vec<Tensor<1>>,
}

impl<M: Module> Moving<'_, M> {
    fn accept(&mut self, sink: GradientSink) {
        if sink.is_empty() {
            return;
        }
        self.squares.extend(sink.squares());
        // The first error stays; what follows it changes nothing any more.
        let gone = Err(Error::Forward { reason: "an earlier part of the model could not be moved".into() });
        self.model = match std::mem::replace(&mut self.model, gone) {
            Ok(model) => self.optimizer.step(model, sink, self.learning_rate, 1.0),
            error => error,
        };
    }
}

/// The examples of a batch that weigh something, and the weight of all.
fn weighed<T: Task>(task: &T, batch: &[usize], step: u64) -> Result<(Vec<usize>, f64), Error> {
    let denominator: f64 = batch.iter().map(|&example| task.weight(example)).sum();
    if !(denominator.is_finite() && denominator > 0.0) {
        return Err(Error::Weight { step, found: denominator, examples: names(task, batch) });
    }
    Ok((batch.iter().copied().filter(|&example| task.weight(example) != 0.0).collect(), denominator))
}

/// Adds one micro-batch's gradient to the sink and returns its loss.
fn backward<T: Task>(
    task: &T,
    model: &T::Model,
    examples: &[usize],
    forward: Forward,
    sink: &mut GradientSink,
    step: u64,
) -> Result<f64, Error> {
    let value = checked_loss(task, examples, &forward, step)?;
    crate::task::backward(model, task.decoder(), forward.loss, forward.tape, sink);
    Ok(value)
}

/// The loss of a forward pass whose parts fit each other and are finite.
fn checked_loss<T: Task>(task: &T, examples: &[usize], forward: &Forward, step: u64) -> Result<f64, Error> {
    let wrong = |reason: String| Err(Error::Forward { reason });
    if forward.per_example.len() != examples.len() {
        return wrong(format!(
            "expected {} losses in `per_example`, found {}",
            examples.len(),
            forward.per_example.len()
        ));
    }
    if forward.loss.dims() != [1] {
        return wrong(format!("expected a loss of shape [1], found {:?}", forward.loss.dims()));
    }
    if !forward.loss.is_tracked() {
        return wrong("the loss has no graph; is the model on an autodiff device, with parameters to train?".into());
    }
    let value = f64::from(forward.loss.clone().into_scalar::<f32>());
    let bad: Vec<usize> = examples
        .iter()
        .zip(&forward.per_example)
        .filter(|(_, loss)| !loss.is_finite())
        .map(|(&example, _)| example)
        .collect();
    if !value.is_finite() || !bad.is_empty() {
        return Err(Error::NonFinite {
            step,
            quantity: "loss",
            value,
            examples: names(task, if bad.is_empty() { examples } else { &bad }),
        });
    }
    Ok(value)
}

/// The examples whose gradient is not finite, found by computing it again: first each micro-batch
/// alone, then each example of the bad ones.
///
/// Costs nothing as long as all is well, because nobody looks at the norm of a micro-batch.
fn culprits<T: Task>(
    task: &T,
    model: &T::Model,
    split: &[Vec<usize>],
    denominator: f64,
    survey: &Survey,
    step: u64,
) -> Result<Vec<usize>, Error> {
    let bad = |examples: &[usize]| -> Result<bool, Error> {
        let mut sink = GradientSink::new();
        let forward = task.forward_surveyed(model, examples, denominator, survey)?;
        backward(task, model, examples, forward, &mut sink, step)?;
        Ok(!sink.norm().is_finite())
    };
    let mut found = vec![];
    for examples in split {
        if !bad(examples)? {
            continue;
        }
        let before = found.len();
        for &example in examples {
            if bad(&[example])? {
                found.push(example);
            }
        }
        if found.len() == before {
            found.extend(examples);
        }
    }
    if found.is_empty() {
        // Each is finite and only their sum is not.
        found.extend(split.iter().flatten());
    }
    Ok(found)
}

fn names<T: Task>(task: &T, examples: &[usize]) -> Vec<String> {
    examples.iter().map(|&example| task.describe(example)).collect()
}

/// The batch of a step (from 0) within its epoch's order.
pub(super) fn batch(order: &[usize], batch_size: usize, step_in_epoch: u64) -> &[usize] {
    let start = step_in_epoch as usize * batch_size;
    &order[start..(start + batch_size).min(order.len())]
}

/// The order of an epoch, checked to visit each example once.
pub(super) fn epoch_order<T: Task>(task: &T, seed: u64, epoch: u64) -> Result<Vec<usize>, Error> {
    let order = task.order(seed, epoch);
    let examples = task.len();
    let wrong = |reason: String| Error::Order { epoch, examples, reason };
    if order.len() != examples {
        return Err(wrong(format!("it has {} entries", order.len())));
    }
    let mut seen = vec![false; examples];
    for &example in &order {
        match seen.get_mut(example) {
            Some(seen) if !*seen => *seen = true,
            _ => return Err(wrong(format!("{example} is out of range or occurs twice"))),
        }
    }
    Ok(order)
}

/// Whether a module is on a device that records graphs.
pub(super) fn trains<M: Module>(module: &M) -> bool {
    crate::parameters::list(module).iter().any(|info| info.trains)
}
