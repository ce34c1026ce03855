//! The gradient of one step.

use std::sync::Arc;

use burn::tensor::Tensor;
use setpoint_transformer::lora::MaskSeed;

use super::budget::Budget;
use super::team::{Pace, Step, Team};
use crate::sink::{Squares, norm_of};
use crate::task::{backward_all, survey, with_loss};
use crate::{
    BatchContext, Error, Forward, GradientSink, MetricSums, PassNumbers, ResponseValues, Task, Trainable, Unread,
};

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

/// One device's share of a batch, forward and backward. All numbers of the micro-batches are read at once, at the end, with the norm of the
/// gradient.
pub(super) fn pass<T: Task>(
    task: &T,
    model: &T::Model,
    split: &[Vec<usize>],
    step: &Step<T::Survey>,
) -> Result<(GradientSink, Measured), Error> {
    let at_step = model.at_step(step.masks);
    let model = at_step.as_ref().unwrap_or(model);
    let mut sink = GradientSink::new();
    let mut unread = vec![];
    for examples in split {
        let Forward { loss, numbers, tape, second_tape } = task.forward(model, examples, &step.context)?;
        check_graph(&loss)?;
        unread.push(with_loss(&loss, numbers));
        backward_all(model, loss, Forward::tapes(task.decoder(), tape, second_tape), &mut sink);
    }
    let (passes, squares) = Unread::all(unread).and(sink.squares()).read();
    let mut measured = Measured { micro_batches: split.len(), grad_norm: norm_of(&squares), ..Measured::default() };
    for (examples, (loss, numbers)) in split.iter().zip(passes) {
        check_numbers(task, examples, loss, &numbers, step.number)?;
        measured.loss += loss;
        measured.metrics.merge(&numbers.metrics);
        measured.responses.append(numbers.responses);
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

/// Checks the form of a loss.
pub(super) fn check_graph(loss: &Tensor<1>) -> Result<(), Error> {
    let wrong = |reason: String| Err(Error::Forward { reason });
    if loss.dims() != [1] {
        return wrong(format!("expected a loss of shape [1], found {:?}", loss.dims()));
    }
    if !loss.is_tracked() {
        return wrong("the loss has no graph; is the model on an autodiff device, with parameters to train?".into());
    }
    Ok(())
}

/// Checks that the numbers of a pass fit its examples, and that its losses are finite.
pub(super) fn check_numbers<T: Task>(
    task: &T,
    examples: &[usize],
    loss: f64,
    PassNumbers { per_example, .. }: &PassNumbers,
    step: u64,
) -> Result<(), Error> {
    if per_example.len() != examples.len() {
        let reason = format!("expected {} losses in `per_example`, found {}", examples.len(), per_example.len());
        return Err(Error::Forward { reason });
    }
    let bad: Vec<usize> =
        examples.iter().zip(per_example).filter(|(_, loss)| !loss.is_finite()).map(|(&example, _)| example).collect();
    if !loss.is_finite() || !bad.is_empty() {
        return Err(Error::NonFinite {
            step,
            quantity: "loss",
            value: loss,
            examples: names(task, if bad.is_empty() { examples } else { &bad }),
            checkpoints: vec![],
        });
    }
    Ok(())
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
        let (_, measured) = pass(task, model, &[examples.to_vec()], step)?;
        Ok(!measured.grad_norm.is_finite())
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
