//! The seam between the engine and an objective.

use std::collections::HashMap;
use std::num::NonZeroU64;

use burn::module::Module;
use burn::tensor::{Gradients, Tensor};
use setpoint_transformer::lora::{MaskSeed, with_dropout};
use setpoint_transformer::{CausalLm, Part, Tape};

use crate::{Error, GradientSink, MetricSums, MicroBatch, Order, ResponseValues, Unread};

/// A model that the engine trains.
pub trait Trainable: Module + Sync {
    /// Returns the model as a training step computes it, if that differs from the model itself: with the dropout of an adapter. It shares the
    /// parameters. Evaluations, samples and checkpoints are those of the model itself, as is whatever a task computes outside of steps.
    ///
    /// It must follow from the model and `masks` alone, which are the same whenever and wherever the step is computed.
    fn at_step(&self, _masks: MaskSeed) -> Option<Self> {
        None
    }
}

impl Trainable for CausalLm {
    fn at_step(&self, masks: MaskSeed) -> Option<Self> {
        with_dropout(self, masks)
    }
}

/// A model, a set of examples and a loss.
///
/// An example is whatever the loss needs at once: a conversation, a pair, a prompt with all its responses. The engine knows examples by index
/// only. Where there are several devices, each asks for its share of a batch on a thread of its own.
///
/// A step calls [`probe`](Self::probe) on the examples of its batch, [`survey`](Self::survey) once on the whole batch, and
/// [`forward`](Self::forward) on each micro-batch. A loss that is a plain mean over examples needs neither of the first two: its `Probe` and
/// its `Survey` are `()`.
pub trait Task: Sync {
    /// The model that is trained.
    type Model: Trainable;

    /// The values of a single example that [`survey`](Self::survey) needs and only the model can give, such as a log-probability.
    type Probe: Default + Send;

    /// The values of the whole batch that the loss needs besides its weight: totals, a baseline, ranks.
    type Survey: Default + Send + Sync;

    /// Returns the number of examples.
    fn len(&self) -> usize;

    /// Returns whether there is no example.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the example's weight in the mean that the loss is: 1 for a mean over examples, the number of scored tokens for a mean over
    /// tokens. An example of weight 0 is not computed.
    fn weight(&self, example: usize) -> f64;

    /// Returns the number of tokens that go through the model for this example.
    ///
    /// # Units
    /// Tokens.
    fn cost(&self, example: usize) -> usize;

    /// Returns the number of tokens of this example as `num_tokens` counts them: where one forward pass serves several rows that share a
    /// beginning, those of all rows, so that runs can be compared with those of other trainers.
    ///
    /// # Units
    /// Tokens.
    fn tokens(&self, example: usize) -> usize {
        self.cost(example)
    }

    /// Asks the model about single examples, for [`survey`](Self::survey): one answer for each example, in their order. By default the model
    /// is not asked.
    ///
    /// In a step, the model drops the same elements as in [`forward`](Self::forward), so that a survey and the loss rest on the same numbers.
    ///
    /// Each device is asked about its share of the batch. The cost, such as a forward pass without a graph, arises at every step.
    /// `micro_batch` bounds that pass as it bounds the others; the answers must not depend on it. Like [`forward`](Self::forward), it must be
    /// deterministic.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    fn probe(
        &self,
        _model: &Self::Model,
        examples: &[usize],
        _micro_batch: MicroBatch,
    ) -> Result<Vec<Self::Probe>, Error> {
        Ok(examples.iter().map(|_| Self::Probe::default()).collect())
    }

    /// Surveys the whole batch of a step before its micro-batches are computed. `probes` holds the answer for each example of the batch, in
    /// their order. By default there is nothing to find out.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    fn survey(&self, _batch: &[usize], _probes: &[Self::Probe]) -> Result<Self::Survey, Error> {
        Ok(Self::Survey::default())
    }

    /// Computes the loss of some examples of a batch.
    ///
    /// It must be deterministic: a resumed run computes steps again. The dropout of adapters follows from seed and step
    /// ([`Trainable::at_step`]), so nothing in a forward pass is random.
    ///
    /// # Errors
    /// Whatever keeps the task from computing it ([`Error::task`]).
    fn forward(
        &self,
        model: &Self::Model,
        examples: &[usize],
        batch: &BatchContext<Self::Survey>,
    ) -> Result<Forward, Error>;

    /// Returns the path in the model of the decoder whose blocks [`Forward::tape`] computes again: `model`, as in Hugging Face's
    /// checkpoints, unless the language model is a part of what is trained.
    fn decoder(&self) -> &'static str {
        "model"
    }

    /// Returns the number of examples that an epoch visits. By default it visits all.
    fn visits(&self) -> usize {
        self.len()
    }

    /// Returns the examples in the order of an epoch (counted from 0): [`visits`](Self::visits) different ones of `0..len()`, which follow from
    /// seed and epoch alone. By default these are all, shuffled ([`Order`]).
    fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        Order::new(seed).epoch(epoch, self.len())
    }

    /// Returns the number of passes over the examples after which they change, for a task whose examples are made during the run: those of a
    /// round ([`Hooks::begin_round`](crate::Hooks::begin_round)). By default they never change.
    ///
    /// The number of examples is that of the fullest round: where a round has fewer, the others weigh nothing, and a batch that weighs nothing
    /// moves nothing.
    fn passes_per_round(&self) -> Option<NonZeroU64> {
        None
    }

    /// Names an example in messages, best by file and row.
    fn describe(&self, example: usize) -> String {
        format!("example {example}")
    }
}

/// Describes the batch that the examples of a forward pass belong to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchContext<S> {
    /// Total weight of the batch.
    pub denominator: f64,
    /// Share of the run's optimizer steps that were made before this one, 0 at the first: for losses that follow a schedule.
    pub progress: f64,
    /// The values that the task computed from the batch ([`Task::survey`]).
    pub survey: S,
}

/// The probes of some examples, each with its example.
pub(crate) type Probes<T> = Vec<(usize, <T as Task>::Probe)>;

/// Asks the model about some examples.
///
/// # Errors
/// The errors of [`Task::probe`], and when it does not answer for each example.
pub(crate) fn probe<T: Task>(
    task: &T,
    model: &T::Model,
    examples: &[usize],
    micro_batch: MicroBatch,
) -> Result<Probes<T>, Error> {
    let probes = task.probe(model, examples, micro_batch)?;
    if probes.len() != examples.len() {
        let reason = format!("expected a probe for each of {} examples, found {}", examples.len(), probes.len());
        return Err(Error::Forward { reason });
    }
    Ok(examples.iter().copied().zip(probes).collect())
}

/// Surveys a batch, whose examples have been probed in any order.
///
/// # Errors
/// The errors of [`Task::survey`].
pub(crate) fn survey<T: Task>(
    task: &T,
    batch: &[usize],
    probes: impl IntoIterator<Item = (usize, T::Probe)>,
) -> Result<T::Survey, Error> {
    let mut probes: HashMap<usize, T::Probe> = probes.into_iter().collect();
    let probes: Vec<T::Probe> = batch.iter().filter_map(|example| probes.remove(example)).collect();
    task.survey(batch, &probes)
}

/// The result of a forward pass.
#[derive(Debug)]
pub struct Forward {
    /// Σ over the examples of weight · loss, divided by [`BatchContext::denominator`], with its graph.
    ///
    /// The denominator is the total weight of the whole batch and not of these examples. So the losses of the micro-batches add up to the
    /// batch's loss, and their gradients to its gradient, whatever the split.
    ///
    /// # Shapes
    /// `[1]`.
    pub loss: Tensor<1>,
    /// Losses and metrics of the pass for the host. They are read together with that of the step's other passes, after the backward passes.
    pub numbers: Unread<PassNumbers>,
    /// The decoder's part of the backward pass ([`SequenceLogps::tape`](crate::SequenceLogps::tape)). Its parameters are those below
    /// [`Task::decoder`].
    pub tape: Option<Tape>,
    /// The same of a second decoder, with its path in the model: that of a value network. None, unless a task trains two.
    pub second_tape: Option<(&'static str, Tape)>,
}

/// The numbers of a forward pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PassNumbers {
    /// Metrics of the examples.
    pub metrics: MetricSums,
    /// Loss of each example, in the order given: it tells which one is not finite.
    pub per_example: Vec<f32>,
    /// Numbers of the examples' responses, for `responses.jsonl`; none, unless a task has any.
    pub responses: ResponseValues,
}

impl Forward {
    /// Returns the tapes with the paths of their decoders; `decoder` is that of the first.
    pub(crate) fn tapes(
        decoder: &'static str,
        tape: Option<Tape>,
        second: Option<(&'static str, Tape)>,
    ) -> impl Iterator<Item = (&'static str, Tape)> {
        tape.map(|tape| (decoder, tape)).into_iter().chain(second)
    }
}

/// Joins the value of a loss and the other numbers of its pass.
pub(crate) fn with_loss(loss: &Tensor<1>, numbers: Unread<PassNumbers>) -> Unread<(f64, PassNumbers)> {
    Unread::of(loss.clone()).map(|loss| loss[0]).and(numbers)
}

/// Runs a loss backward, and then the part of it that is left to the tape of the decoder at the path `decoder` of `model`; all gradients go to
/// `sink`.
pub fn backward<M: Module>(model: &M, decoder: &str, loss: Tensor<1>, tape: Option<Tape>, sink: &mut GradientSink) {
    backward_all(model, loss, tape.map(|tape| (decoder, tape)), sink);
}

/// [`backward`] with any number of tapes, each with the path of its decoder.
pub(crate) fn backward_all<'a, M: Module>(
    model: &M,
    loss: Tensor<1>,
    tapes: impl IntoIterator<Item = (&'a str, Tape)>,
    sink: &mut GradientSink,
) {
    let mut gradients = loss.backward();
    sink.accept("", model, &mut gradients);
    for (decoder, tape) in tapes {
        tape.backward(&mut gradients, &mut |part, gradients| accept_part(decoder, part, gradients, sink));
    }
}

/// Adds the gradients of a part of the decoder at the path `decoder`.
pub(crate) fn accept_part(decoder: &str, part: Part<'_>, gradients: &mut Gradients, sink: &mut GradientSink) {
    match part {
        Part::Block(i, block) => sink.accept(&format!("{decoder}.layers.{i}"), block, gradients),
        Part::Embeddings { vocab_size, ids, rows } => {
            sink.accept_rows(&format!("{decoder}.embed_tokens.weight"), vocab_size, ids.clone(), rows.clone());
        }
    }
}
