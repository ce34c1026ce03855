//! The gradient of one step.

use std::sync::Arc;

use setpoint_transformer::lora::MaskSeed;

use super::budget::Budget;
use super::team::{Pace, Step, Team};
use crate::sink::Squares;
use crate::task::{backward_all, survey};
use crate::{BatchContext, Error, Forward, GradientSink, MetricSums, ResponseValues, Task, Trainable};

/// Loss, metrics, responses' numbers and gradient norm of a whole batch.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) loss: f64,
    pub(super) grad_norm: f64,
    /// The squares of the gradients that have moved the model in the backward pass.
    pub(super) squares: Squares,
    pub(super) metrics: MetricSums,
    pub(super) responses: ResponseValues,
    pub(super) micro_batches: usize,
}

impl Measured {
    /// Adds what another device has measured on its share, but for the norm, which does not follow from the shares'.
    pub(super) fn add(&mut self, other: Self) {
        self.loss += other.loss;
        // Devices that move the same parameters have the same gradients; the first device's count.
        for (path, square) in other.squares {
            self.squares.entry(path).or_insert(square);
        }
        self.metrics.merge(&other.metrics);
        self.responses.append(other.responses);
        self.micro_batches += other.micro_batches;
    }
}

/// The conditions of a step.
pub(super) struct Turn<'a> {
    /// The step, from 1.
    pub(super) number: u64,
    /// The seed of its dropout.
    pub(super) masks: MaskSeed,
    /// Share of the run's steps that were made before.
    pub(super) progress: f64,
    /// The pace, if parameters move inside the backward pass.
    pub(super) in_backward: Option<Pace>,
    pub(super) budget: &'a mut Budget,
}

/// Runs the batch of a step forward and backward on all devices. The model moves on the way if the settings say so, else the team is left
/// with the gradient. If memory runs out the budget comes down, and the step begins anew.
///
/// # Errors
/// When the loss or the gradient is not finite; a model that moves on the way is lost then. When memory runs out and nothing can be split.
pub(super) fn compute<T: Task>(
    task: &T,
    mut team: Team<T>,
    batch: &[usize],
    turn: Turn<'_>,
) -> Result<(Team<T>, Measured), Error> {
    let Turn { number, masks, progress, in_backward, budget } = turn;
    let (batch, denominator) = weighed(task, batch, number)?;
    let shares = team.deal(task, &batch);
    let mut whole = Budget::whole(batch.len());
    let budget = if in_backward.is_some() { &mut whole } else { budget };
    let probes = budget.within(task, &shares, number, |budget| team.probe(task, &shares, masks, budget))?;
    let context = BatchContext { denominator, progress, survey: survey(task, &batch, probes)? };
    let step = Arc::new(Step { number, masks, context });
    let (team, measured) = match in_backward {
        Some(pace) => team.advance(task, &step, &shares, pace)?,
        None => {
            let pass = |budget: &Budget| team.pass(task, &step, &budget.split(task, &shares));
            let mut measured = budget.within(task, &shares, number, pass)?;
            let (team, norm) = team.sum(&shares, measured.grad_norm)?;
            measured.grad_norm = norm;
            (team, measured)
        }
    };
    let grad_norm = measured.grad_norm;
    if !grad_norm.is_finite() {
        // What has moved cannot be computed again.
        let examples = if in_backward.is_some() {
            names(task, &batch)
        } else {
            names(task, &culprits(task, team.model(), &budget.split(task, &[batch]).concat(), &step)?)
        };
        let checkpoints = vec![];
        return Err(Error::NonFinite {
            step: number,
            quantity: "gradient norm",
            value: grad_norm,
            examples,
            checkpoints,
        });
    }
    Ok((team, measured))
}

/// One device's share of a batch, forward and backward. The norm of the gradient is not known yet.
pub(super) fn pass<T: Task>(
    task: &T,
    model: &T::Model,
    split: &[Vec<usize>],
    step: &Step<T::Survey>,
) -> Result<(GradientSink, Measured), Error> {
    let at_step = model.at_step(step.masks);
    let model = at_step.as_ref().unwrap_or(model);
    let mut sink = GradientSink::new();
    let mut measured = Measured { micro_batches: split.len(), ..Measured::default() };
    for examples in split {
        let mut forward = task.forward(model, examples, &step.context)?;
        measured.metrics.merge(&forward.metrics);
        measured.responses.append(std::mem::take(&mut forward.responses));
        measured.loss += backward(task, model, examples, forward, &mut sink, step.number)?;
    }
    Ok((sink, measured))
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
    let Forward { loss, tape, second_tape, .. } = forward;
    backward_all(model, loss, Forward::tapes(task.decoder(), tape, second_tape), sink);
    Ok(value)
}

/// The loss of a forward pass whose parts fit each other and are finite.
pub(super) fn checked_loss<T: Task>(task: &T, examples: &[usize], forward: &Forward, step: u64) -> Result<f64, Error> {
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
            checkpoints: vec![],
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
    step: &Step<T::Survey>,
) -> Result<Vec<usize>, Error> {
    let bad = |examples: &[usize]| -> Result<bool, Error> {
        let (sink, _) = pass(task, model, &[examples.to_vec()], step)?;
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

/// The order of an epoch, checked to visit as many examples as it says, and none of them twice.
pub(super) fn epoch_order<T: Task>(task: &T, seed: u64, epoch: u64) -> Result<Vec<usize>, Error> {
    let order = task.order(seed, epoch);
    let examples = task.len();
    let wrong = |reason: String| Error::Order { epoch, examples, reason };
    if order.len() != task.visits() {
        return Err(wrong(format!("it has {} entries, expected {}", order.len(), task.visits())));
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
