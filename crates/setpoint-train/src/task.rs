//! What is trained: the seam between the engine and an objective.

use std::collections::HashMap;

use burn::module::Module;
use burn::tensor::{Gradients, Tensor};
use setpoint_transformer::{Part, Tape};

use crate::{Error, GradientSink, MetricSums, MicroBatch, ResponseValues};

/// A model, a set of examples and a loss.
///
/// An example is whatever the loss needs at once: a conversation, a pair, a prompt with all its
/// responses. The engine knows examples by index only. Where there are several devices, each asks for its share of a batch on a thread of
/// its own.
pub trait Task: Sync {
    /// The model that is trained.
    type Model: Module + Sync;

    /// Number of examples.
    fn len(&self) -> usize;

    /// Whether there is no example.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The example's share in the mean that the loss is: 1 for a mean over examples, the number of
    /// scored tokens for a mean over tokens. An example of weight 0 is not computed.
    fn weight(&self, example: usize) -> f64;

    /// Tokens that go through the model for this example.
    ///
    /// # Units
    /// Tokens.
    fn cost(&self, example: usize) -> usize;

    /// Tokens of this example as they are counted in `num_tokens`: where one forward pass serves several rows that share a
    /// beginning, those of all rows, so that runs can be compared with those of other trainers.
    ///
    /// # Units
    /// Tokens.
    fn tokens(&self, example: usize) -> usize {
        self.cost(example)
    }

    /// Loss of some examples of a step.
    ///
    /// It must be deterministic: a resumed run computes steps again. Models are trained without
    /// dropout, so nothing in a forward pass is random.
    ///
    /// # Errors
    /// Whatever keeps the task from computing it ([`Error::task`]).
    fn forward(&self, model: &Self::Model, examples: &[usize], denominator: f64) -> Result<Forward, Error>;

    /// Numbers of single examples that [`Task::survey`] needs and only the model can tell, such as log-probabilities. None, unless a task
    /// says otherwise.
    ///
    /// Whatever it costs, such as a forward pass without a graph, is paid at every step. Each device is asked for those of its share of the
    /// batch. `micro_batch` bounds the pass as it bounds the others; the numbers must not depend on it. It must be deterministic, as
    /// [`Task::forward`].
    ///
    /// # Errors
    /// As [`Task::forward`].
    fn probe(
        &self,
        _model: &Self::Model,
        _examples: &[usize],
        _micro_batch: MicroBatch,
    ) -> Result<ExampleNumbers, Error> {
        Ok(ExampleNumbers::new())
    }

    /// What the loss has to know of a step's whole batch before its micro-batches are computed: totals, a baseline, ranks. `probed`: what
    /// [`Task::probe`] said of each of its examples. Nothing, unless a task says otherwise.
    ///
    /// # Errors
    /// As [`Task::forward`].
    fn survey(&self, _batch: &[usize], _probed: &ExampleNumbers) -> Result<Survey, Error> {
        Ok(Survey::default())
    }

    /// [`Task::forward`] with the [`Task::survey`] of the whole batch: what the engine calls. A task whose loss needs the survey
    /// overrides it.
    ///
    /// # Errors
    /// As [`Task::forward`].
    fn forward_surveyed(
        &self,
        model: &Self::Model,
        examples: &[usize],
        denominator: f64,
        _survey: &Survey,
    ) -> Result<Forward, Error> {
        self.forward(model, examples, denominator)
    }

    /// The path in the model of the decoder whose blocks [`Forward::tape`] computes again: `model`, as in Hugging Face's checkpoints, unless
    /// the language model is a part of what is trained.
    fn decoder(&self) -> &'static str {
        "model"
    }

    /// The examples in the order of an epoch (counted from 0): a permutation of `0..len()` that
    /// follows from seed and epoch alone.
    fn order(&self, seed: u64, epoch: u64) -> Vec<usize>;

    /// How messages name an example, best by file and row.
    fn describe(&self, example: usize) -> String {
        format!("example {example}")
    }
}

/// Numbers of examples, by the examples' index, with a meaning that the task gives them.
pub type ExampleNumbers = HashMap<usize, Vec<f64>>;

/// What a loss knows of the whole batch of its step ([`Task::survey`]): numbers on the host, with a meaning that the task gives them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// Numbers of the batch as a whole.
    pub batch: Vec<f64>,
    /// Numbers of its examples, by their index.
    pub examples: ExampleNumbers,
    /// Share of the run's optimizer steps that were made before this one, 0 at the first: for losses that follow a schedule. The engine
    /// sets it.
    pub progress: f64,
}

/// What a forward pass returns.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Σ over the examples of weight · loss, divided by `denominator`, with its graph.
    ///
    /// `denominator` is the total weight of the step's whole batch and not of these examples; the sum of the
    /// micro-batches' losses is therefore the batch's loss, and the sum of their gradients its
    /// gradient, whatever the split.
    ///
    /// # Shapes
    /// `[1]`.
    pub loss: Tensor<1>,
    /// Metrics of these examples.
    pub metrics: MetricSums,
    /// Loss of each example, in the order given: it tells which one is not finite.
    pub per_example: Vec<f32>,
    /// Numbers of the examples' responses, for `responses.jsonl`; none, unless a task has any.
    pub responses: ResponseValues,
    /// The decoder's part of the backward pass ([`SequenceLogps::tape`](crate::SequenceLogps::tape)). Its parameters are those below
    /// [`Task::decoder`].
    pub tape: Option<Tape>,
}

/// Runs a loss backward, and then the part of it that is left to the tape of the decoder at the path `decoder` of `model`; all gradients go to
/// `sink`.
pub fn backward<M: Module>(model: &M, decoder: &str, loss: Tensor<1>, tape: Option<Tape>, sink: &mut GradientSink) {
    let mut gradients = loss.backward();
    sink.accept("", model, &mut gradients);
    if let Some(tape) = tape {
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
