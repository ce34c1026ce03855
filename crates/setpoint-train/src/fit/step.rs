//! The gradient of one step.

use burn::module::Module;

use crate::{Error, Forward, GradientSink, MetricSums, Survey, Task, TrainConfig};

/// Loss, metrics and gradient of a whole batch.
pub(super) struct Accumulated {
    pub(super) sink: GradientSink,
    pub(super) loss: f64,
    pub(super) grad_norm: f64,
    pub(super) metrics: MetricSums,
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
    total_steps: u64,
) -> Result<Accumulated, Error> {
    let denominator: f64 = batch.iter().map(|&example| task.weight(example)).sum();
    if !(denominator.is_finite() && denominator > 0.0) {
        return Err(Error::Weight { step, found: denominator, examples: names(task, batch) });
    }
    let batch: Vec<usize> = batch.iter().copied().filter(|&example| task.weight(example) != 0.0).collect();
    let progress = (step - 1) as f64 / total_steps as f64;
    let survey = Survey { progress, ..task.survey(model, &batch, config.micro_batch)? };
    let split = config.micro_batch.split(&batch, |example| task.cost(example));
    let mut sink = GradientSink::new();
    let mut loss = 0.0;
    let mut metrics = MetricSums::new();
    for examples in &split {
        let forward = task.forward_surveyed(model, examples, denominator, &survey)?;
        metrics.merge(&forward.metrics);
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
    Ok(Accumulated { sink, loss, grad_norm, metrics, micro_batches: split.len() })
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
    crate::task::backward(model, task.decoder(), forward.loss, forward.tape, sink);
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
