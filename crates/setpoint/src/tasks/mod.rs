//! The tasks that the engine trains: each task turns some examples into a loss with a graph. The objectives themselves are pure functions in
//! `setpoint-align`; a task brings them together with the model.

pub mod dro_v;
pub mod logps;
pub mod nll;
pub mod pairwise;
pub mod policy;
pub mod ppo;
pub mod prompts;
pub mod rolling;
pub mod rows;
pub mod sft;
pub mod single;
pub mod stages;

use burn::tensor::Tensor;
use setpoint_align::{Metric, Metrics, weighted_sum};
use setpoint_train::{Forward, MetricSums, MicroBatch, PassNumbers, ResponseValues, SequenceLogps, Unread};

/// A prompt of a task and one of its responses.
pub type Place = (usize, usize);

/// Tokens of the sequences that are in memory at once where a whole data set is scored.
pub const PART_TOKENS: usize = 1 << 22;

/// The mean of some examples' losses, of which the batch has `denominator`, with its metrics and the numbers of the responses.
fn mean_loss(
    losses: Tensor<1>,
    denominator: f64,
    logged: Unread<(MetricSums, ResponseValues)>,
    logps: SequenceLogps,
) -> Forward {
    let loss = weighted_sum(losses.clone(), &vec![1.0 / denominator; losses.dims()[0]]);
    let of_host = logged.and(Entropy::of(&logps)).and(Unread::of(losses));
    let numbers = of_host.map(|(((mut metrics, responses), entropy), losses)| {
        entropy.record(&mut metrics);
        PassNumbers { metrics, per_example: in_f32(&losses), responses }
    });
    Forward { loss, numbers, tape: logps.tape, second_tape: None }
}

/// Returns the losses of examples as the engine asks for them.
fn in_f32(losses: &[f64]) -> Vec<f32> {
    losses.iter().map(|&loss| loss as f32).collect()
}

/// Takes in what an objective leaves on the device.
fn unread<T: 'static>(value: setpoint_align::Unread<T>) -> Unread<T> {
    Unread::new(value.tensors, value.finish)
}

/// trl's `entropy`: that of the policy over the responses' tokens, nats.
struct Entropy {
    sum: f64,
    tokens: usize,
}

impl Entropy {
    fn of(logps: &SequenceLogps) -> Unread<Self> {
        let tokens = logps.response_tokens.iter().sum();
        Unread::of(logps.entropy.clone()).map(move |own| Self { sum: own.iter().sum(), tokens })
    }

    /// Adds to its mean.
    fn record(&self, sums: &mut MetricSums) {
        sums.mean("entropy", self.sum, self.tokens as f64);
    }
}

/// Hands the objective's metrics over to the engine, which adds those of the micro-batches up.
fn metric_sums(metrics: &Metrics) -> MetricSums {
    let mut sums = MetricSums::new();
    for (name, Metric { moments, has_spread }) in metrics.iter() {
        sums.mean(name, moments.mean * moments.count, moments.count);
        if has_spread {
            sums.std_of(&format!("{name}_std"), moments.count, moments.mean, moments.std());
            sums.max(&format!("{name}_max"), moments.max);
        }
    }
    sums
}

/// Tokens of a forward pass without a graph beside micro-batches of this size.
pub(crate) fn pass_tokens(micro_batch: MicroBatch) -> usize {
    match micro_batch {
        MicroBatch::Tokens(tokens) => tokens,
        MicroBatch::Examples(_) => 8192,
    }
}
